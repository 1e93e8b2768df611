"""HTTP/2 and grpc natively: what the tracer says it traces is right, and the application unharmed.

A fraction of the full size runs unless PYTRACEPROP_FULL is set (make test-full), and fewer versions.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from tests.mixed import frameworks
from tests.mixed import hammer as hammering
from tests.mixed.judge import judge
from tests.mixed.run import run_mixed
from tests.mixed.services import MixedChain, build_programs
from tests.skips import require

FULL = bool(os.environ.get("PYTRACEPROP_FULL"))
REQUESTS = 10_000 if FULL else 1_000
CALLS = 100_000 if FULL else 10_000

#: Go releases with a grpc of their time, the newest of both first.
VERSIONS = [("1.27", "1.85"), ("1.24", "1.73"), ("1.21", "1.64")]
MORE_VERSIONS = [
    *(("1.21", "1.50"), ("1.21", "1.58"), ("1.22", "1.66"), ("1.23", "1.69")),
    *(("1.24", "1.77"), ("1.25", "1.82"), ("1.26", "1.83"), ("1.27", "1.84"), ("1.27", "1.50")),
]


#: What must be traced, so that nothing is right because it is off.
TRACED = (
    *(("front", "http/1.1", "server"), ("front", "http/2", "client")),
    *(("gateway", "http/2", "server"), ("gateway", "grpc", "client")),
    *(("unary", "grpc", "server"), ("unary", "grpc", "client")),
    *(("stream", "grpc", "server"), ("stream", "http/1.1", "client")),
    ("back", "http/1.1", "server"),
)


def test_without_tracer_nothing_is_injected_and_nothing_wrong() -> None:
    with tempfile.TemporaryDirectory() as directory:
        with MixedChain(build_programs(), Path(directory)) as chain:
            driven = chain.drive(REQUESTS, concurrency=64)
        verdict = judge(driven.records, chain.witness(), None)
        errors = chain.errors()
    assert verdict.ok, str(verdict)
    assert (driven.failed, errors) == (0, "")
    for outcomes in verdict.hops.values():
        assert (outcomes["injected"], outcomes["several"]) == (0, 0)
        assert outcomes["application"] > REQUESTS // 5
        assert outcomes["forwarded"] > REQUESTS // 25


@pytest.mark.parametrize(("go", "grpc"), VERSIONS + (MORE_VERSIONS if FULL else []))
def test_every_request_through_the_mixed_chain_is_traced_right(go: str, grpc: str) -> None:
    require("needs root")
    result = run_mixed(build_programs(go, grpc), REQUESTS)
    for service, protocol, side in TRACED:
        assert result.protocols[service][protocol][side], result.protocols[service][protocol]
    assert result.verdict.ok, str(result.verdict)
    assert (result.summary["failed"], result.errors) == (0, "")


def test_a_process_that_mixes_all_protocols_is_unharmed() -> None:
    require("needs root")
    result = hammering.hammer(hammering.build(), CALLS)
    assert result.ok, f"{result.verdict}\n{result.errors}"
    assert result.verdict.calls == CALLS + (CALLS + 2) // 3  # every third leads to another


def test_one_grpc_connection_with_200_calls_at_a_time_is_unharmed() -> None:
    require("needs root")
    result = hammering.hammer(hammering.build(), CALLS, 200, protocols=["grpc"], direct=True)
    assert result.ok, f"{result.verdict}\n{result.errors}"
    assert result.verdict.calls == CALLS


@pytest.mark.parametrize("go", ["1.27", "1.24", "1.21"])
def test_calls_through_frameworks_are_unharmed(go: str) -> None:
    require("needs root")
    result = frameworks.call_frameworks(frameworks.build(go))
    assert result.ok, f"{result.verdict}\n{result.errors}"
    assert result.verdict.calls == result.summary["calls"] >= 1300
    assert result.routes["gin"] == result.routes["echo"] == "/call/:id"
    assert result.routes["chi"] == result.routes["gorilla"] == "/call/{id}"
