"""What a request costs in traps, by the kernel's own count of program runs: exact where times are not."""

from __future__ import annotations

import ctypes
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import pytraceprop
from pytraceprop.attach_mode import ATTACH_MODES
from tests.bpf.conftest import Cases
from tests.bpf.test_http2 import SOURCES as HTTP2_CASES
from tests.chain.services import Chain, build_programs
from tests.skips import require

REQUESTS = 600


@contextmanager
def counting_runs() -> Iterator[None]:
    """Has the kernel count program runs meanwhile (BPF_ENABLE_STATS; no lasting setting)."""
    libbpf = ctypes.CDLL("libbpf.so.1")
    descriptor = libbpf.bpf_enable_stats(0)
    assert descriptor >= 0
    try:
        yield
    finally:
        os.close(descriptor)


@pytest.mark.parametrize(("go", "mode"), [("1.24", "multi"), *(("1.27", mode) for mode in ATTACH_MODES)])
def test_a_proxied_request_costs_five_traps(go: str, mode: str) -> None:
    require("needs root")
    with (
        tempfile.TemporaryDirectory() as name,
        Chain(build_programs(go), Path(name)) as chain,
        pytraceprop.Tracer(attach_mode=mode) as tracer,
        counting_runs(),
    ):
        tracer.attach(chain.pids["middle"])  # one request in, one out
        driven = chain.drive(REQUESTS, concurrency=8)
        runs = tracer.core.probe_runs()[0]
        stats = tracer.stats()
    assert driven.failed == 0
    assert stats["server_spans"] == stats["client_spans"] == REQUESTS
    # Without a filter by process, front and back hit them too: they are of the same build.
    hits = 5 + 5 + 2 if mode == "multi-unfiltered" else 5
    # Beyond those: one for each connection that ends.
    assert hits * REQUESTS <= runs <= hits * REQUESTS + 64


@pytest.mark.parametrize("go", ["1.26", "1.27"])
def test_a_call_over_http2_costs_three_traps_and_serving_it_two(go: str) -> None:
    require("needs root")
    cases = Cases(go, HTTP2_CASES)
    try:
        with pytraceprop.Tracer() as tracer, counting_runs():
            attachment = tracer.attach(cases.pid)
            cases.get("/call/many?n=100")  # connects
            before, counted = tracer.core.probe_runs()[0], attachment.stats()
            for _ in range(3):
                cases.get("/call/many?n=100")
            runs = tracer.core.probe_runs()[0] - before
            spans = {n: attachment.stats()[n] - counted[n] for n in ("client_spans", "server_spans")}
    finally:
        cases.stop()
    assert spans == {"client_spans": 300, "server_spans": 303}
    # Besides: three for each request that was driven, and one where a goroutine's stack had to grow.
    assert 5 * 300 <= runs <= 5 * 300 + 3 * 3 + 100
