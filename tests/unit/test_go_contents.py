"""A file's bytes: what is not there, or not there any more, is a typed error."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytraceprop.errors import MalformedExecutable, NotGo
from pytraceprop.go import Executable, contents
from pytraceprop.go.contents import Contents
from pytraceprop.go.image import Image
from tests.unit.elfwriter import GoELF


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(bytes(range(100)))
    return path


def opened(path: Path) -> Contents:
    return Contents(path, "shown")


def test_bytes_are_read_by_offset(path: Path) -> None:
    data = opened(path)
    assert len(data) == 100
    assert data.read(10, 3) == bytes([10, 11, 12])
    assert data.read(0, 100) == path.read_bytes()
    assert data.read(100, 0) == b""
    assert data.unpack("<BH", 1) == (1, 0x0302)
    data.close()


@pytest.mark.parametrize(
    ("offset", "size"), [(-1, 1), (0, 101), (100, 1), (101, 0), (1 << 64, 1), (0, 1 << 64), (5, -2)]
)
def test_what_lies_outside_the_file_is_refused(path: Path, offset: int, size: int) -> None:
    data = opened(path)
    with pytest.raises(MalformedExecutable, match=r"shown.*truncated"):
        data.read(offset, size)
    data.close()


def test_a_file_cut_short_while_it_is_read_is_refused(path: Path) -> None:
    data = opened(path)
    os.truncate(path, 50)
    assert data.read(49, 1) == bytes([49])
    for offset, size in ((49, 2), (50, 1), (0, 100)):
        with pytest.raises(MalformedExecutable, match="shorter"):
            data.read(offset, size)
    with pytest.raises(MalformedExecutable, match="shorter"):
        list(data.find_all(b"\x07", 0, 100))
    data.close()


def test_an_executable_cut_short_while_it_is_read_does_not_kill_the_reader(tmp_path: Path) -> None:
    path = tmp_path / "program"
    path.write_bytes(GoELF().build())
    with Executable(path) as executable, Image(path) as image:
        segment = image.segments[0]
        os.truncate(path, 64)
        with pytest.raises(MalformedExecutable, match="shorter"):
            image.read(segment.address + 0x1000, 16)
        with pytest.raises(MalformedExecutable, match="shorter"):
            _ = executable.module


def test_a_closed_file_is_not_read(path: Path) -> None:
    data = opened(path)
    data.close()
    data.close()
    other = os.open(path, os.O_RDONLY)  # takes the descriptor's number
    with pytest.raises(ValueError, match="closed"):
        data.read(0, 1)
    os.close(other)


@pytest.mark.parametrize("kind", ["fifo", "device", "directory"])
def test_what_is_no_regular_file_is_refused_at_once(tmp_path: Path, kind: str) -> None:
    path = {"fifo": tmp_path / "fifo", "device": Path("/dev/zero"), "directory": tmp_path}[kind]
    if kind == "fifo":
        os.mkfifo(path)
    before = sorted(Path("/proc/self/fd").iterdir())
    with pytest.raises(NotGo, match="not a regular file"):
        opened(path)
    with pytest.raises(NotGo, match="not a regular file"):
        Executable(path)
    assert sorted(Path("/proc/self/fd").iterdir()) == before


def test_an_empty_file_is_no_executable(tmp_path: Path) -> None:
    path = tmp_path / "empty"
    path.write_bytes(b"")
    with pytest.raises(NotGo, match="too short"):
        Image(path)


def test_the_descriptor_is_not_inherited(path: Path) -> None:
    data = opened(path)
    assert not os.get_inheritable(data._descriptor)
    data.close()


@given(
    data=st.lists(st.sampled_from([b"\0", b"a"]), max_size=60).map(b"".join),
    needle=st.lists(st.sampled_from([b"\0", b"a"]), min_size=1, max_size=5).map(b"".join),
    chunk=st.integers(1, 9),
    start=st.integers(0, 10),
    end=st.integers(0, 70),
)
def test_all_places_are_found_whatever_is_read_at_once(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, needle: bytes, chunk: int, start: int, end: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "searched"
    path.write_bytes(data)
    expected = [
        i for i in range(start, min(end, len(data)) - len(needle) + 1) if data[i : i + len(needle)] == needle
    ]
    file = opened(path)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(contents, "_CHUNK", chunk)
        assert list(file.find_all(needle, start, end)) == expected
    file.close()
