"""The whole of tracing inside Debian's kernels, with lockdown off and on.

A fraction of the full size runs unless PYTRACEPROP_FULL is set (make test-full): 500 requests instead
of 10 000, one or two Go releases on each kernel instead of three, and on the older kernels a selection
of the tests of tests/bpf.
"""

from __future__ import annotations

import itertools
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.bpf.conftest import SOURCES as CASES
from tests.bpf.moves import SOURCES as MOVES
from tests.bpf.test_http2 import PROGRAMS as HTTP2_PROGRAMS
from tests.bpf.test_http2 import SOURCES as HTTP2_CASES
from tests.chain.services import build_programs
from tests.skips import require
from tools import golang, kernelvm

pytestmark = pytest.mark.vm

ROOT = Path(__file__).resolve().parents[2]
FULL = bool(os.environ.get("PYTRACEPROP_FULL"))
REQUESTS = 10_000 if FULL else 500
KERNELS = {"5.10": "perf-ioctl", "6.1": "perf-link", "6.12": "multi"}
"""Each kernel, and the mode of attaching that it should get."""
LOCKDOWN = {"none": "", "integrity": "lockdown=integrity"}
GO = ["1.23", "1.24", "1.27"]  # 1.22 gives up dials that it needs no more, of which services complain

OPEN = [("5.10", "1.27"), ("6.1", "1.24"), ("6.12", "1.23"), ("6.12", "1.27")]
LOCKED = [("5.10", "1.23"), ("6.1", "1.27"), ("6.12", "1.24")]
EVERY = list(itertools.product(KERNELS, GO))

REQUEST_TESTS = ["test_outgoing.py", "test_server_spans.py"]
LIFE = "test_lifecycle.py::test_"
MOVING = "test_moving_processes.py::test_"
SELECTED = {
    "none": [
        *REQUEST_TESTS,
        "test_incoming.py",
        f"{LIFE}detaching_leaves_no_probe_behind",
        f"{LIFE}a_killed_tracer_leaves_the_program_running_and_unharmed",
        f"{LIFE}attaching_and_detaching_under_load_harms_no_request",
        f"{LIFE}a_program_that_exits_ends_its_attachment",
        f"{LIFE}two_tracers_do_not_know_of_each_other",
        f"{LIFE}all_processes_of_an_executable_are_attached",
        f"{MOVING}a_process_that_becomes_another_program_ends_its_attachment",
        f"{MOVING}a_process_that_starts_over_is_another_one",
        f"{MOVING}a_process_in_other_namespaces_is_found_through_itself",
        f"{MOVING}a_tracer_in_a_pid_namespace_traces_what_it_sees_there",
    ],
    "integrity": REQUEST_TESTS,
}
"""What runs of tests/bpf on each kernel; on the newest, and at full size, all of these files."""


def in_guest(kernel: str, command: list[str], lockdown: str, timeout: float) -> kernelvm.Result:
    """Runs a Python command of this checkout in the guest, with two processors."""
    return kernelvm.run(
        kernelvm.fetch(kernel),
        [sys.executable, *command],
        cwd=ROOT,
        cmdline=LOCKDOWN[lockdown],
        cpus=2,
        timeout=timeout,
    )


def run_chain(kernel: str, go: str, lockdown: str) -> dict[str, Any]:
    """The chain's run, as JSON. Programs are built here: the guest has no network."""
    require("needs qemu")
    build_programs(go)
    result = in_guest(
        kernel, ["-m", "tests.chain.run", "--go", go, "--requests", str(REQUESTS), "--json"], lockdown, 900
    )
    lines = result.output.splitlines()
    assert lines and lines[-1].startswith("{"), result.output
    found: dict[str, Any] = json.loads(lines[-1])
    print(kernel, json.dumps(found["summary"]), found["stats"])
    assert found["attach_mode"] == KERNELS[kernel]
    return found


def assert_no_mistakes(found: dict[str, Any]) -> None:
    """Neither the driver nor the witness nor the judge saw anything wrong."""
    mistakes = {name: n for name, n in found["verdict"]["counts"].items() if n}
    assert mistakes == {}, found["verdict"]["examples"]
    assert (found["summary"]["failed"], found["errors"]) == (0, "")
    assert found["verdict"]["spans"] == 5 * REQUESTS


@pytest.mark.parametrize(("kernel", "go"), EVERY if FULL else OPEN)
def test_without_lockdown_every_call_carries_the_right_context(kernel: str, go: str) -> None:
    found = run_chain(kernel, go, "none")
    assert_no_mistakes(found)
    assert (found["lockdown"]["mode"], found["lockdown"]["write_user"]) == ("none", True)
    for service in ("front", "middle"):
        assert found["propagation"][service]["http/1.1"]["method"] == "user-memory"
        stats = found["stats"][service]
        sent = stats["injected"] + stats["application_header"] + stats["forwarded_header"]
        assert sent == stats["client_spans"] == REQUESTS
        assert stats["injected"] > REQUESTS // 2


@pytest.mark.parametrize(("kernel", "go"), EVERY if FULL else LOCKED)
def test_under_lockdown_spans_are_complete_and_nothing_is_written(kernel: str, go: str) -> None:
    found = run_chain(kernel, go, "integrity")
    assert_no_mistakes(found)
    assert (found["lockdown"]["mode"], found["lockdown"]["write_user"]) == ("integrity", False)
    for service in ("front", "middle"):
        propagation = found["propagation"][service]["http/1.1"]
        assert propagation["method"] is None
        assert "integrity lockdown" in propagation["reason"]
        assert found["stats"][service]["injected"] == 0


@pytest.mark.parametrize("kernel", KERNELS)
def test_http2_carries_the_right_context(kernel: str) -> None:
    require("needs qemu")
    for go, modfile in HTTP2_PROGRAMS:
        golang.build(HTTP2_CASES, go, modfile=modfile)
    every = FULL or kernel == "6.12"
    selected = "1.19 or 1.26 or 1.27" if every else "1.24 and (plain or fresh or many or own or given)"
    command = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/bpf/test_http2.py", "-k", selected]
    result = in_guest(kernel, command, "none", 900)
    print(result.output)
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize("lockdown", LOCKDOWN)
@pytest.mark.parametrize("kernel", KERNELS)
def test_unusual_requests_and_lives_are_traced_as_on_this_kernel(kernel: str, lockdown: str) -> None:
    require("needs qemu")
    for go in ("1.22", "1.24", "1.27"):
        golang.build(CASES, go)
    golang.build(MOVES, "1.27")
    selected = SELECTED[lockdown]
    if FULL or (kernel, lockdown) == ("6.12", "none"):
        selected = sorted({name.partition("::")[0] for name in SELECTED["none"]})
        if KERNELS[kernel] != "multi":  # hundreds of perf events are slow: it holds bounds of its own
            selected += ["-k", "not fifty"]
    tests = [name if name[0] == "-" or " " in name else f"tests/bpf/{name}" for name in selected]
    result = in_guest(kernel, ["-m", "pytest", "-q", "-p", "no:cacheprovider", *tests], lockdown, 1200)
    print(result.output)
    assert result.exit_code == 0, result.output


def test_the_demo_shows_one_connected_trace_for_each_order() -> None:
    require("needs qemu")
    for name in ("front", "middle", "back", "depot"):
        golang.build(ROOT / "examples" / "demo" / "go" / name, "1.27")
    result = in_guest("6.12", ["-m", "examples.demo", "--no-vm"], "none", 180)
    assert result.exit_code == 0, result.output
    assert "What was traced: 21 spans in 3 traces" in result.output
    assert result.output.count("`- depot server: GET /shelf/{id}") == 3
