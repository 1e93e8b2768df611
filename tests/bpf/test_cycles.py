"""Attaching and detaching over and over, while requests run: nothing fails, nothing is left.

40 cycles, or 200 where PYTRACEPROP_FULL is set (make test-cycles).
"""

from __future__ import annotations

import os
import tempfile
import threading
import time
from pathlib import Path

import pytraceprop
from tests.bpf.leftovers import (
    BREAKPOINT,
    descriptors_and_threads,
    kernel_objects,
    sites_in_memory,
    still_in_kernel,
)
from tests.chain.services import Chain, Driven, build_programs
from tests.skips import require

CYCLES = 200 if os.environ.get("PYTRACEPROP_FULL") else 40
PER_TRACER = 10  # cycles that share a tracer
REQUESTS = 500  # in each round of load


def test_cycles_of_attaching_under_load_fail_no_request_and_leave_nothing() -> None:
    require("needs root")
    with tempfile.TemporaryDirectory() as name, Chain(build_programs("1.27"), Path(name)) as chain:
        pids = chain.pids.values()
        bytes_before = {pid: sites_in_memory(pid) for pid in pids}
        with pytraceprop.Tracer():  # what is loaded once, and stays
            pass
        before = descriptors_and_threads()
        rounds: list[Driven] = []
        ending = threading.Event()

        def load() -> None:
            while not ending.is_set():
                rounds.append(chain.drive(REQUESTS, concurrency=8, seed=len(rounds)))

        thread = threading.Thread(target=load)
        thread.start()
        seen: set[tuple[str, int]] = set()
        spans = 0
        started = time.monotonic()
        try:
            for first in range(0, CYCLES, PER_TRACER):
                with pytraceprop.Tracer() as tracer:
                    for cycle in range(first, first + PER_TRACER):
                        attached = [tracer.attach(pid) for pid in pids]
                        seen |= kernel_objects()
                        spans += len(list(tracer.spans(timeout=0.02 * (cycle % 5))))
                        for attachment in attached:
                            attachment.detach()
                    assert tracer.stats()["subscription_dropped"] == 0
        finally:
            seconds = time.monotonic() - started
            ending.set()
            thread.join()
        assert descriptors_and_threads() == before
        assert seen and still_in_kernel(seen) == set()
        after = {pid: sites_in_memory(pid) for pid in pids}
        assert after == bytes_before and not any(BREAKPOINT in one for one in after.values())
        assert chain.errors() == ""
    answered = sum(len(driven.records) for driven in rounds)
    print(f"{CYCLES} cycles in {seconds:.0f} s under {answered} requests, {spans} spans read")
    assert [driven.failed for driven in rounds] == [0] * len(rounds)
    assert spans > 0
