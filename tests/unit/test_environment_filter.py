"""The process filter of uprobe-multi links: what the hits prove, and the hits themselves."""

from __future__ import annotations

import ctypes
import errno
import os
import subprocess
import threading
from pathlib import Path

import pytest

from pytraceprop import libbpf
from pytraceprop.environment import uprobe_filter
from pytraceprop.environment.rights import Rights
from pytraceprop.environment.uprobe_filter import Target, find_target, prove
from tests.skips import require

ROOT = Rights((1 << 41) - 1, True, True, False)
TARGET = Target(b"/nothing", 0, lambda: None)


@pytest.fixture
def hits(monkeypatch):
    """Lets a test say what the filtered link and the unfiltered one count."""
    asked: list[int] = []

    def count(filtered: int | None, unfiltered: int | None) -> list[int]:
        def answer(target: Target, pid: int) -> int | None:
            asked.append(pid)
            return filtered if pid else unfiltered

        monkeypatch.setattr(uprobe_filter, "count_hits", answer)
        return asked

    return count


def test_a_hit_from_a_second_thread_proves_the_filter_and_needs_no_control(hits):
    asked = hits(1, None)
    assert prove(ROOT, TARGET).value is True
    assert asked == [os.getpid()]


def test_a_missed_hit_that_the_control_sees_is_the_filters_fault(hits):
    asked = hits(0, 1)
    answer = prove(ROOT, TARGET)
    assert (answer.value, answer.remedy) == (False, "Linux 6.10")
    assert asked == [os.getpid(), 0]


@pytest.mark.parametrize(
    ("filtered", "unfiltered", "reason"),
    [
        (0, 0, "not hit"),
        (0, -errno.ENOMEM, "ENOMEM"),
        (-errno.EPERM, 1, "EPERM"),
        (-errno.ENOENT, 1, "ENOENT"),
        (-errno.EAGAIN, 1, "EAGAIN"),
        (None, 1, "libbpf"),
        (0, None, "libbpf"),
    ],
)
def test_a_probe_that_does_not_work_proves_nothing(hits, filtered, unfiltered, reason):
    hits(filtered, unfiltered)
    answer = prove(ROOT, TARGET)
    assert answer.value is None
    assert reason in answer.reason
    assert answer.remedy


def test_a_function_that_is_not_found_proves_nothing(monkeypatch):
    monkeypatch.setattr(uprobe_filter, "find_target", lambda: None)
    assert prove(ROOT).value is None


# Finding the function


def test_the_function_lies_in_the_mapped_libbpf():
    target = find_target()
    assert target is not None
    assert b"libbpf" in target.path
    assert target.call() == 1  # libbpf_major_version
    size = Path(os.fsdecode(target.path)).stat().st_size
    assert 0 < target.offset < size


@pytest.mark.parametrize(
    "content",
    [b"", b"nonsense\n", b"0-1 r-xp\n", b"z-y r-xp 0 0:0 0 /lib\n", b"0-ffffffffffffffff r-xp x 0 0 /lib\n"],
)
def test_maps_that_do_not_show_it_find_nothing(tmp_path, content):
    path = tmp_path / "maps"
    path.write_bytes(content)
    assert find_target(path) is None
    assert find_target(tmp_path / "absent") is None


def test_without_libbpf_there_is_no_function(monkeypatch):
    monkeypatch.setattr(libbpf, "open_library", lambda: None)
    assert find_target() is None


def test_a_limit_of_threads_is_could_not_tell(monkeypatch):
    require("needs root")

    def refuse(self):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    answer = prove(Rights.detect())
    assert answer.value is None
    assert "EAGAIN" in answer.reason


# On this kernel


def in_a_thread(function) -> object:
    found = []
    thread = threading.Thread(target=lambda: found.append(function()))
    thread.start()
    thread.join()
    return found[0]


@pytest.mark.parametrize("where", ["the main thread", "another thread"])
def test_the_filter_is_proven_here_from_any_thread_and_nothing_is_left(where):
    require("needs root")
    before = sorted(Path("/proc/self/fd").iterdir())
    threads = threading.active_count()
    answer = (
        prove(Rights.detect()) if where == "the main thread" else in_a_thread(lambda: prove(Rights.detect()))
    )
    assert answer.value is True, answer.reason
    assert sorted(Path("/proc/self/fd").iterdir()) == before
    assert threading.active_count() == threads


def test_a_filter_that_leaves_the_hit_out_is_told_from_a_probe_that_does_not_work():
    """As before Linux 6.10, where the filter leaves out all threads but one: here, another process's."""
    require("needs root")
    other = subprocess.Popen(["sleep", "60"])
    try:
        answer = prove(Rights.detect(), pid=other.pid)
    finally:
        other.kill()
        other.wait()
    assert (answer.value, answer.remedy) == (False, "Linux 6.10")


def test_a_function_that_is_not_the_one_probed_proves_nothing():
    require("needs root")
    target = find_target()
    assert target is not None
    elsewhere = Target(target.path, target.offset, lambda: None)
    assert prove(Rights.detect(), elsewhere).value is None


def test_a_file_that_was_replaced_proves_nothing():
    require("needs root")
    target = find_target()
    assert target is not None
    answer = prove(Rights.detect(), Target(target.path + b" (deleted)", target.offset, target.call))
    assert answer.value is None
    assert "ENOENT" in answer.reason


def test_the_first_bytes_of_the_function_are_back_when_all_is_over():
    require("needs root")
    target = find_target()
    assert target is not None
    prove(Rights.detect())
    function = ctypes.cast(target.call, ctypes.c_void_p).value
    in_memory = ctypes.string_at(function, 8)
    with Path(os.fsdecode(target.path)).open("rb") as file:
        file.seek(target.offset)
        assert file.read(8) == in_memory
