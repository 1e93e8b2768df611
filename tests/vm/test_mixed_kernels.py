"""HTTP/2 and gRPC where headers can be written: each service received the right one, or its lack is counted.

Judged by what the services received. 500 requests at 64 with the newest Go and grpc, or 10 000 with three of
each where PYTRACEPROP_FULL is set (make test-mixed).
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from tests.bpf.test_mixed import TRACED, VERSIONS
from tests.mixed.judge import CALLS
from tests.mixed.services import build_programs
from tests.skips import require
from tools import kernelvm

pytestmark = pytest.mark.vm

ROOT = Path(__file__).resolve().parents[2]
FULL = bool(os.environ.get("PYTRACEPROP_FULL"))
REQUESTS = 10_000 if FULL else 500

#: Reasons why a header block that just fills a frame, or that ends where a buffer does, gets no field.
LARGE = ("frame_limit", "list_limit", "flushed", "no_room")


@pytest.mark.parametrize(("go", "grpc"), VERSIONS if FULL else VERSIONS[:1])
def test_every_call_through_the_mixed_chain_carries_the_right_context(go: str, grpc: str) -> None:
    require("needs qemu")
    build_programs(go, grpc)  # the guest has no network
    command = ["-m", "tests.mixed.run", "--go", go, "--grpc", grpc, "--requests", str(REQUESTS), "--json"]
    result = kernelvm.run(kernelvm.fetch("6.12"), [sys.executable, *command], cwd=ROOT, cpus=2, timeout=1500)
    lines = result.output.splitlines()
    assert lines and lines[-1].startswith("{"), result.output
    found = json.loads(lines[-1])
    verdict = found["verdict"]
    for service, protocol, side in TRACED:
        assert found["protocols"][service][protocol][side]
    mistakes = {name: n for name, n in verdict["counts"].items() if n and name != "not_injected"}
    assert mistakes == {}, verdict["examples"]
    assert (found["summary"]["failed"], found["errors"]) == (0, "")
    for hop, outcomes in verdict["hops"].items():
        caller = hop.partition(" ")[0]
        stats = found["stats"][caller]
        counted = {name: stats[f"not_injected_{name}"] for name in LARGE if stats[f"not_injected_{name}"]}
        wanted = outcomes["injected"] + outcomes["missing"]
        print(f"{hop}: {outcomes['injected']} of {wanted} injected; not: {counted}")
        assert outcomes["missing"] <= sum(counted.values()), stats
        assert outcomes["injected"] >= 0.8 * wanted and wanted > REQUESTS // 2
        if CALLS[caller] == "http/1.1":
            assert outcomes["missing"] == 0
