"""Processes that end, fork, exec, stop, or lose their file while they are attached to or traced."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.error
from collections.abc import Iterator
from http.client import HTTPException
from pathlib import Path

import pytest

import pytraceprop
from tests.bpf.moves import Moves, build
from tests.skips import require
from tools import golang


@pytest.fixture(autouse=True)
def _root() -> None:
    require("needs root")


@pytest.fixture(scope="module")
def binary() -> Path:
    """The program."""
    return build()


@pytest.fixture
def moves(binary: Path) -> Iterator[Moves]:
    """The program, running."""
    with Moves(binary) as running:
        yield running


@pytest.fixture
def tracer() -> Iterator[pytraceprop.Tracer]:
    """A tracer."""
    with pytraceprop.Tracer() as tracer:
        yield tracer


def paths(tracer: pytraceprop.Tracer, seconds: float = 0.3) -> list[str]:
    """Kind and path of each span that is there, or comes within the time."""
    return sorted(f"{span.kind} {span.path}" for span in tracer.spans(timeout=seconds))


CALL = ["client /echo", "server /call", "server /echo"]


def test_a_process_that_becomes_another_program_ends_its_attachment(
    moves: Moves, tracer: pytraceprop.Tracer
) -> None:
    attachment = tracer.attach(moves.pid)
    moves.get("/call")
    moves.exec(shutil.which("sleep") or "sleep", "60")
    assert paths(tracer) == CALL
    assert attachment.state == "replaced"
    assert tracer.attachments == ()
    assert moves.alive
    with pytest.raises(pytraceprop.ExecutableError):
        tracer.attach(moves.pid)
    attachment.detach()
    assert attachment.state == "replaced"


@pytest.mark.parametrize("thread", ["main", "any"])
def test_a_process_that_starts_over_is_another_one(
    moves: Moves, tracer: pytraceprop.Tracer, thread: str
) -> None:
    """Goroutines of its new life have the ids of those that served requests in the old one."""
    old = tracer.attach(moves.pid)
    for _ in range(20):
        moves.hang()
    time.sleep(0.3)
    before = old.stats()
    moves.restart(calls=50, thread=thread)
    assert paths(tracer) == []  # of the program that now runs nothing was read
    assert old.state == "replaced"
    assert old.stats()["abandoned"] == before["abandoned"] + 20 + 1  # and the one that asked for it
    if thread == "main":  # else the kernel has not kept the probes
        assert old.stats()["stale_site"] > 0

    new = tracer.attach(moves.pid)
    assert new.incarnation != old.incarnation
    moves.get("/call")
    assert paths(tracer) == CALL
    assert new.state == "attached"


def test_attaching_during_execs_succeeds_or_says_that_the_process_is_gone(
    moves: Moves, tracer: pytraceprop.Tracer
) -> None:
    ending = threading.Event()
    attached = gone = 0

    def start_over() -> None:
        pause = 0.0
        while not ending.wait(pause):
            moves.restart()
            pause = (pause + 0.037) % 0.2  # at any moment of attaching

    thread = threading.Thread(target=start_over)
    thread.start()
    try:
        end = time.monotonic() + 5
        while time.monotonic() < end or not (attached or time.monotonic() > end + 60):
            try:
                with tracer.attach(moves.pid):
                    attached += 1
            except pytraceprop.ProcessGone:
                gone += 1
    finally:
        ending.set()
        thread.join()
    assert attached > 0
    print(f"attached {attached} times, {gone} times too late")
    with tracer.attach(moves.pid):
        moves.get("/call")
        assert paths(tracer)[:3] == CALL


def test_a_process_that_is_killed_while_it_is_attached_to_is_gone(
    binary: Path, tracer: pytraceprop.Tracer
) -> None:
    outcomes = set()
    for attempt in range(30):
        with Moves(binary) as doomed:
            timer = threading.Timer(attempt / 5000, doomed.signal, [signal.SIGKILL])
            timer.start()
            try:
                attachment = tracer.attach(doomed.pid)
                timer.join()
                while attachment.state == "attached":
                    time.sleep(0.01)
                outcomes.add(attachment.state)
            except pytraceprop.ProcessGone:
                outcomes.add("gone")
            timer.join()
    assert outcomes <= {"exited", "gone"}
    assert tracer.attachments == ()


def test_a_stopped_process_is_attached_to_and_detached_from(moves: Moves, tracer: pytraceprop.Tracer) -> None:
    moves.signal(signal.SIGSTOP)
    attachment = tracer.attach(moves.pid)
    moves.signal(signal.SIGCONT)
    moves.get("/call")
    assert paths(tracer) == CALL
    moves.signal(signal.SIGSTOP)
    attachment.detach()
    moves.signal(signal.SIGCONT)
    moves.get("/call")
    assert paths(tracer) == []


def test_an_executable_that_is_replaced_or_deleted_on_disk_is_read_all_the_same(
    binary: Path, tracer: pytraceprop.Tracer, tmp_path: Path
) -> None:
    path = tmp_path / "service"
    shutil.copy(binary, path)
    with Moves(path) as old:
        shutil.copy(build("1.24"), tmp_path / "next")
        (tmp_path / "next").replace(path)
        with Moves(path) as new:
            assert tracer.attach(old.pid).go == "1.27.3"
            (attached,) = tracer.attach_all(path)  # the file's, not the path's
            assert (attached.pid, attached.go) == (new.pid, "1.24.11")
            path.unlink()
            with pytest.raises(FileNotFoundError):
                tracer.attach_all(path)
            old.get("/call")
            new.get("/call")
            assert paths(tracer) == sorted(CALL * 2)
            assert {a.state for a in tracer.attachments} == {"attached"}


def test_children_that_a_traced_process_starts_are_left_alone(
    moves: Moves, tracer: pytraceprop.Tracer
) -> None:
    tracer.attach(moves.pid)
    address, child = moves.get("/spawn", calls="5").split()
    try:
        assert paths(tracer) == ["server /spawn"]
        assert [a.pid for a in tracer.attach_all(moves.binary)] == [moves.pid, int(child)]
        assert address
    finally:
        os.kill(int(child), signal.SIGKILL)
    assert [a.state for a in tracer.attachments if a.pid == moves.pid] == ["attached"]


def test_a_process_in_other_namespaces_is_found_through_itself(
    binary: Path, tracer: pytraceprop.Tracer, tmp_path: Path
) -> None:
    """Its executable has a path only there, and it has another number there."""
    require("needs mount namespaces")
    inside = tmp_path / "inside"
    inside.mkdir()
    script = 'mount -t tmpfs none "$1" && cp "$2" "$1/service" && shift 2 && exec "$@"'
    unshare = ["unshare", "--mount", "--pid", "--fork", "--mount-proc", "sh", "-c", script, "sh"]
    with Moves(inside / "service", wrapper=[*unshare, str(inside), str(binary)]) as contained:
        assert not (inside / "service").exists()
        attachment = tracer.attach(contained.pid)
        assert attachment.executable == str(inside / "service")
        contained.get("/call")
        assert paths(tracer) == CALL
        contained.restart()
        assert attachment.state == "replaced"


def test_a_tracer_in_a_pid_namespace_traces_what_it_sees_there(binary: Path) -> None:
    require("needs mount namespaces")
    test = (
        "import sys, pytraceprop\n"
        "from pathlib import Path\n"
        "from tests.bpf.moves import Moves\n"
        "with Moves(Path(sys.argv[1])) as moves, pytraceprop.Tracer() as tracer:\n"
        "    attachment = tracer.attach(moves.pid)\n"
        "    moves.get('/call')\n"
        "    spans = list(tracer.spans(timeout=0.5))\n"
        "    assert [span.pid for span in spans] == [moves.pid] * 3, spans\n"
        "    moves.restart()\n"
        "    assert attachment.state == 'replaced', attachment.state\n"
        "    print(moves.pid)\n"
    )
    unshare = ["unshare", "--mount", "--pid", "--fork", "--mount-proc"]
    result = subprocess.run(
        [*unshare, sys.executable, "-c", test, binary], capture_output=True, text=True, timeout=120
    )
    assert result.returncode == 0, result.stderr
    assert int(result.stdout) < 100  # the first processes of their namespace


def test_fifty_processes_of_one_build_are_told_apart(
    binary: Path, tracer: pytraceprop.Tracer, tmp_path: Path
) -> None:
    binary = Path(shutil.copy(binary, tmp_path))  # which nothing else runs
    with contextlib.ExitStack() as stack:
        running = [stack.enter_context(Moves(binary)) for _ in range(50)]
        started = time.monotonic()
        attached = tracer.attach_all(binary)
        attaching = time.monotonic() - started
        assert {a.pid for a in attached} == {one.pid for one in running}
        for one in running:
            one.get("/call")
        by_pid: dict[int, list[pytraceprop.Span]] = {}
        for span in tracer.spans(timeout=0.5):
            by_pid.setdefault(span.pid, []).append(span)
        assert {pid: len(spans) for pid, spans in by_pid.items()} == {one.pid: 3 for one in running}
        assert len({span.trace_id for spans in by_pid.values() for span in spans}) >= 50
        started = time.monotonic()
        tracer.close()
        detaching = time.monotonic() - started
        print(f"50 processes: attached in {attaching:.2f} s, detached in {detaching:.2f} s")
        assert attaching < 5 and detaching < 5
        assert all(one.get("/echo") == "0" for one in running)


def test_attaching_twice_gives_the_same_attachment(moves: Moves, tracer: pytraceprop.Tracer) -> None:
    attachment = tracer.attach(moves.pid)
    assert tracer.attach(moves.pid) is attachment
    moves.get("/call")
    assert paths(tracer) == CALL
    attachment.detach()
    assert tracer.attach(moves.pid) is not attachment


def test_execs_under_load_fail_only_the_requests_they_cut_off(
    moves: Moves, tracer: pytraceprop.Tracer
) -> None:
    """Whatever is read while the program changes, what it answers is right."""
    wrong: list[str] = []
    ending = threading.Event()

    def load() -> None:
        while not ending.is_set():
            with contextlib.suppress(urllib.error.URLError, HTTPException, OSError):
                if (answer := moves.get("/echo")) != "0":
                    wrong.append(answer)

    threads = [threading.Thread(target=load) for _ in range(3)]
    for thread in threads:
        thread.start()
    for _ in range(10):
        with contextlib.suppress(pytraceprop.ProcessGone):
            tracer.attach(moves.pid)
        time.sleep(0.05)
        moves.restart()
    ending.set()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert moves.alive


def test_a_copy_that_fork_makes_is_not_traced_and_takes_no_harm(tracer: pytraceprop.Tracer) -> None:
    """The copy has the probes' breakpoints in its memory, until it meets them."""
    with Moves(build(**golang.FORMS["cgo"])) as moves:
        attachment = tracer.attach(moves.pid)
        ends = [moves.get("/fork") for _ in range(10)]
        assert set(ends) <= {"status 0", "hung"} and ends.count("status 0") >= 5, ends
        moves.get("/call")
        assert paths(tracer) == sorted([*CALL, *["server /fork"] * 10])
        assert attachment.stats()["not_injected_request_unknown"] == 0  # what a write without a call counts
