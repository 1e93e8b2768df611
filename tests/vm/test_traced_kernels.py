"""The whole of tracing inside Debian's kernels, with lockdown off and on.

A fraction of the full size runs unless PYTRACEPROP_FULL is set (make test-full): 1 000 requests
instead of 10 000.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.bpf.conftest import SOURCES as CASES
from tests.chain.services import build_programs
from tests.skips import require
from tools import golang, kernelvm

pytestmark = pytest.mark.vm

ROOT = Path(__file__).resolve().parents[2]
FULL = bool(os.environ.get("PYTRACEPROP_FULL"))
REQUESTS = 10_000 if FULL else 1_000
KERNEL = "6.12"
LOCKDOWN = {"none": "", "integrity": "lockdown=integrity"}


def in_guest(command: list[str], lockdown: str, timeout: float) -> kernelvm.Result:
    """Runs a Python command of this checkout in the guest, with two processors."""
    return kernelvm.run(
        kernelvm.fetch(KERNEL),
        [sys.executable, *command],
        cwd=ROOT,
        cmdline=LOCKDOWN[lockdown],
        cpus=2,
        timeout=timeout,
    )


def run_chain(go: str, lockdown: str) -> dict[str, Any]:
    """The chain's run, as JSON. Programs are built here: the guest has no network."""
    require("needs qemu")
    build_programs(go)
    result = in_guest(
        ["-m", "tests.chain.run", "--go", go, "--requests", str(REQUESTS), "--json"], lockdown, 900
    )
    lines = result.output.splitlines()
    assert lines and lines[-1].startswith("{"), result.output
    found: dict[str, Any] = json.loads(lines[-1])
    print(json.dumps(found["summary"]), found["stats"])
    return found


def assert_no_mistakes(found: dict[str, Any]) -> None:
    """Neither the driver nor the witness nor the judge saw anything wrong."""
    mistakes = {name: n for name, n in found["verdict"]["counts"].items() if n}
    assert mistakes == {}, found["verdict"]["examples"]
    assert (found["summary"]["failed"], found["errors"]) == (0, "")
    assert found["verdict"]["spans"] == 5 * REQUESTS


@pytest.mark.parametrize("go", ["1.22", "1.24", "1.27"])
def test_without_lockdown_every_call_carries_the_right_context(go: str) -> None:
    found = run_chain(go, "none")
    assert_no_mistakes(found)
    assert (found["lockdown"]["mode"], found["lockdown"]["write_user"]) == ("none", True)
    for service in ("front", "middle"):
        assert found["propagation"][service]["http/1.1"]["method"] == "user-memory"
        stats = found["stats"][service]
        sent = stats["injected"] + stats["application_header"] + stats["forwarded_header"]
        assert sent == stats["client_spans"] == REQUESTS
        assert stats["injected"] > REQUESTS // 2


@pytest.mark.parametrize("go", ["1.24", "1.27"])
def test_under_lockdown_spans_are_complete_and_nothing_is_written(go: str) -> None:
    found = run_chain(go, "integrity")
    assert_no_mistakes(found)
    assert (found["lockdown"]["mode"], found["lockdown"]["write_user"]) == ("integrity", False)
    for service in ("front", "middle"):
        propagation = found["propagation"][service]["http/1.1"]
        assert propagation["method"] is None
        assert "integrity lockdown" in propagation["reason"]
        assert found["stats"][service]["injected"] == 0


@pytest.mark.parametrize("lockdown", LOCKDOWN)
def test_unusual_requests_are_traced_as_on_this_kernel(lockdown: str) -> None:
    require("needs qemu")
    for go in ("1.22", "1.24", "1.27"):
        golang.build(CASES, go)
    selected = [f"tests/bpf/test_{name}.py" for name in ("incoming", "outgoing", "server_spans", "lifecycle")]
    result = in_guest(["-m", "pytest", "-q", "-p", "no:cacheprovider", *selected], lockdown, 900)
    assert result.exit_code == 0, result.output


def test_the_demo_shows_one_connected_trace_for_each_order() -> None:
    require("needs qemu")
    for name in ("front", "middle", "back"):
        golang.build(ROOT / "examples" / "demo" / "go" / name, "1.27")
    result = in_guest(["-m", "examples.demo", "--no-vm"], "none", 180)
    assert result.exit_code == 0, result.output
    assert "What was traced: 15 spans in 3 traces" in result.output
    assert result.output.count("`- back server: GET /stock/{id}") == 3


def test_a_kernel_without_uprobe_multi_is_told_by_its_name() -> None:
    require("needs qemu")
    result = kernelvm.run(
        kernelvm.fetch("6.1"), [sys.executable, "-m", "pytraceprop", "check", "--json"], cwd=ROOT
    )
    assert result.exit_code == 1
    found = json.loads(result.output)
    assert found["tracing"]["possible"] is False
    assert "uprobe-multi" in found["tracing"]["reason"]
    assert "Linux 6.6" in found["tracing"]["reason"]
    assert found["lockdown"]["write_user"] is True


@pytest.mark.parametrize(
    ("lockdown", "expected"),
    [
        ("none", {"mode": "none", "write_user": True}),
        ("integrity", {"mode": "integrity", "write_user": False}),
    ],
)
def test_check_tells_the_truth_with_and_without_securityfs(lockdown: str, expected: dict[str, Any]) -> None:
    require("needs qemu")
    script = (
        "python=$0; $python -m pytraceprop check --json || exit 1; echo ====;"
        "umount /sys/kernel/security; $python -m pytraceprop check --json || exit 1; echo ====;"
        "setpriv --bounding-set -sys_admin --inh-caps -sys_admin $python -m pytraceprop check --json; true"
    )
    result = kernelvm.run(
        kernelvm.fetch(KERNEL), ["sh", "-c", script, sys.executable], cwd=ROOT, cmdline=LOCKDOWN[lockdown]
    )
    assert result.exit_code == 0, result.output
    mounted, unmounted, powerless = (json.loads(text)["lockdown"] for text in result.output.split("===="))
    assert {name: mounted[name] for name in expected} == expected
    assert (unmounted["mode"], unmounted["write_user"]) == ("unknown", expected["write_user"])
    assert powerless["write_user"] is False
    assert "CAP_SYS_ADMIN" in powerless["reason"]
