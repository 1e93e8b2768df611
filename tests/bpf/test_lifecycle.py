"""Attaching and its end leave the traced process unharmed, whatever happens to either side."""

from __future__ import annotations

import gc
import os
import select
import signal
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path

import pytest

import pytraceprop
from tests.bpf.conftest import Cases
from tests.bpf.leftovers import BREAKPOINT, sites_in_memory
from tests.skips import require


def test_detaching_leaves_no_probe_behind(program: Cases) -> None:
    before = sites_in_memory(program.pid)
    assert BREAKPOINT not in before
    with pytraceprop.Tracer() as tracer:
        attachment = tracer.attach(program.pid)
        program.get("/call/plain")
        assert set(sites_in_memory(program.pid)) == {BREAKPOINT}
        assert len(list(tracer.spans(timeout=0.3))) == 3
        attachment.detach()
        assert attachment.state == "detached"
        assert sites_in_memory(program.pid) == before
        program.get("/call/plain")
        assert list(tracer.spans(timeout=0.1)) == []
        assert attachment.stats()["server_spans"] == 2
        assert tracer.stats()["server_spans"] == 2
        attachment.detach()  # once more does nothing


def test_a_killed_tracer_leaves_the_program_running_and_unharmed(program: Cases) -> None:
    before = sites_in_memory(program.pid)
    code = (
        "import pytraceprop, time\n"
        "tracer = pytraceprop.Tracer()\n"
        f"tracer.attach({program.pid})\n"
        "print('attached', flush=True)\n"
        "time.sleep(600)\n"
    )
    tracer = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert tracer.stdout is not None
    assert tracer.stdout.readline() == "attached\n"
    failures: list[Exception] = []
    ending = threading.Event()

    def load() -> None:
        while not ending.is_set():
            try:
                program.get("/call/plain")
            except Exception as error:
                failures.append(error)

    threads = [threading.Thread(target=load) for _ in range(4)]
    for thread in threads:
        thread.start()
    time.sleep(0.3)
    tracer.send_signal(signal.SIGKILL)
    tracer.wait()
    tracer.stdout.close()
    end = time.monotonic() + 20
    while sites_in_memory(program.pid) != before and time.monotonic() < end:
        time.sleep(0.05)
    time.sleep(0.3)
    ending.set()
    for thread in threads:
        thread.join()
    assert failures == []
    assert program.process.poll() is None
    assert sites_in_memory(program.pid) == before


def test_attaching_again_works_as_the_first_time(program: Cases) -> None:
    with pytraceprop.Tracer() as tracer:
        for _ in range(5):
            with tracer.attach(program.pid):
                program.get("/call/plain")
                assert len(list(tracer.spans(timeout=0.3))) == 3


def test_attaching_and_detaching_under_load_harms_no_request(program: Cases) -> None:
    failures: list[Exception] = []
    ending = threading.Event()

    def load() -> None:
        while not ending.is_set():
            try:
                assert program.get("/call/plain")["status"] == 200
            except Exception as error:
                failures.append(error)

    threads = [threading.Thread(target=load) for _ in range(4)]
    for thread in threads:
        thread.start()
    with pytraceprop.Tracer() as tracer:
        for _ in range(10):
            with tracer.attach(program.pid):
                for span in tracer.spans(timeout=0.1):
                    assert span.pid == program.pid
    ending.set()
    for thread in threads:
        thread.join()
    assert failures == []


def test_a_program_that_exits_ends_its_attachment(program: Cases) -> None:
    with pytraceprop.Tracer() as tracer:
        attachment = tracer.attach(program.pid)
        program.get("/echo/last")
        program.stop()
        spans = list(tracer.spans(timeout=0.7))
        assert [span.path for span in spans] == ["/echo/last"]
        assert attachment.state == "exited"
        assert tracer.attachments == ()
        assert attachment.stats()["server_spans"] == 1
        attachment.detach()
        assert attachment.state == "exited"


def test_two_tracers_do_not_know_of_each_other(program: Cases) -> None:
    with pytraceprop.Tracer() as first, pytraceprop.Tracer(propagation="off") as second:
        for tracer in (first, second):
            tracer.attach(program.pid)
        program.get("/call/plain")
        for tracer in (first, second):
            assert len(list(tracer.spans(timeout=0.3))) == 3


def test_all_processes_of_an_executable_are_attached(program: Cases) -> None:
    twin = Cases()
    try:
        with pytraceprop.Tracer() as tracer:
            path = Path(f"/proc/{program.pid}/exe").resolve()
            attached = tracer.attach_all(path)
            assert {program.pid, twin.pid} <= {attachment.pid for attachment in attached}
            twin.get("/echo/twin")
            assert [(s.pid, s.path) for s in tracer.spans(timeout=0.3)] == [(twin.pid, "/echo/twin")]
    finally:
        twin.stop()


def test_every_subscription_gets_every_span(program: Cases) -> None:
    with pytraceprop.Tracer() as tracer:
        tracer.attach(program.pid)
        first, second, small = tracer.subscribe(), tracer.subscribe(), tracer.subscribe(maxlen=1)
        program.get("/call/plain")
        time.sleep(0.1)
        ids = [span.span_id for span in first.read()]
        assert ids == [span.span_id for span in second.read()]
        assert (len(ids), len(small.read()), small.dropped) == (3, 1, 2)
        assert tracer.stats()["subscription_dropped"] == 2


def test_a_closed_subscription_holds_nothing_more_and_its_drops_stay_counted(program: Cases) -> None:
    with pytraceprop.Tracer() as tracer:
        tracer.attach(program.pid)
        small, other = tracer.subscribe(maxlen=1), tracer.subscribe()
        program.get("/call/plain")
        time.sleep(0.1)
        assert tracer.drain() == 3
        small.close()
        program.get("/call/plain")
        assert len(list(other.spans(timeout=0.3))) == 6
        assert len(small.read()) == 1
        assert small.dropped == tracer.stats()["subscription_dropped"] == 2


def test_a_full_ring_buffer_drops_records_and_counts_them(program: Cases) -> None:
    with pytraceprop.Tracer(ring_bytes=4096) as tracer:
        attachment = tracer.attach(program.pid)
        for _ in range(20):
            program.get("/echo/ring")
        stats = attachment.stats()
        assert stats["record_dropped"] > 0
        assert stats["server_spans"] + stats["record_dropped"] == 20
        assert len(list(tracer.spans(timeout=0.1))) == stats["server_spans"]


def test_a_full_map_costs_spans_and_no_more(program: Cases) -> None:
    with pytraceprop.Tracer(max_requests=1) as tracer:
        attachment = tracer.attach(program.pid)
        assert program.get("/call/plain")["status"] == 200  # three requests in flight at once
        assert attachment.stats()["map_full"] > 0


def test_the_descriptor_becomes_readable_when_it_is_time_to_drain(program: Cases) -> None:
    with pytraceprop.Tracer() as tracer:
        tracer.attach(program.pid)
        subscription = tracer.subscribe()
        program.get("/echo/fileno")
        seen = 0
        end = time.monotonic() + 5
        while not seen and time.monotonic() < end:
            assert select.select([tracer], [], [], 1)[0]
            seen = tracer.drain()
        assert [span.path for span in subscription.read()] == ["/echo/fileno"]


def test_after_a_fork_the_child_is_inert_and_the_parent_goes_on(program: Cases) -> None:
    with pytraceprop.Tracer() as tracer:
        tracer.attach(program.pid)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            child = os.fork()
        if child == 0:
            status = 1
            try:
                tracer.drain()
            except pytraceprop.TracerClosed:
                status = 0
            os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        program.get("/echo/forked")
        assert [span.path for span in tracer.spans(timeout=0.3)] == ["/echo/forked"]


def test_use_after_closing_is_a_typed_error(program: Cases) -> None:
    tracer = pytraceprop.Tracer()
    attachment = tracer.attach(program.pid)
    tracer.close()
    tracer.close()
    assert attachment.state == "detached"
    for use in (tracer.spans, tracer.drain, tracer.stats, tracer.fileno, lambda: tracer.attach(program.pid)):
        with pytest.raises(pytraceprop.TracerClosed):
            use()


def test_closing_ends_iterators_normally(program: Cases) -> None:
    tracer = pytraceprop.Tracer()
    tracer.attach(program.pid)
    stream = tracer.spans()
    program.get("/echo/closing")
    assert next(stream).path == "/echo/closing"
    threading.Timer(0.2, tracer.close).start()
    assert list(stream) == []


def test_a_forgotten_tracer_warns() -> None:
    require("needs root")
    tracer = pytraceprop.Tracer()
    with pytest.warns(ResourceWarning, match="unclosed"):
        del tracer
        gc.collect()


def test_what_is_no_go_program_is_refused() -> None:
    require("needs root")
    with pytraceprop.Tracer() as tracer:
        with pytest.raises(pytraceprop.ExecutableError) as caught:
            tracer.attach(os.getpid())
        assert caught.value.path == str(Path(sys.executable).resolve())
        with pytest.raises(pytraceprop.ProcessGone):
            tracer.attach(4_000_000)
        for nonsense in (0, -1, 1 << 40):
            with pytest.raises(pytraceprop.ProcessGone):
                tracer.attach(nonsense)
        with pytest.raises(FileNotFoundError):
            tracer.attach_all("/nonexistent")


def test_descriptors_are_not_leaked(program: Cases) -> None:
    def count() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    with pytraceprop.Tracer() as tracer:
        with tracer.attach(program.pid):
            pass
        before = count()
        for _ in range(3):
            with tracer.attach(program.pid):
                pass
            with pytest.raises(pytraceprop.ExecutableError):
                tracer.attach(os.getpid())
        assert count() == before
    within = count()
    with pytraceprop.Tracer():
        pass
    assert count() == within
