"""What an executable claims about its size costs time and memory within bounds."""

from __future__ import annotations

import os
import resource
import struct
import time
from array import array
from collections.abc import Callable
from pathlib import Path

import pytest

from pytraceprop.errors import MalformedExecutable, UnsupportedExecutable
from pytraceprop.go import Executable, contents, moduledata
from pytraceprop.go.contents import Contents
from pytraceprop.go.relocations import Relocations
from tests.unit.elfwriter import BASE, Field, GoELF
from tests.unit.test_go_hostile import headers_of

SECONDS = 8.0  # of processor time; what is bounded took 18 s, or had no end
LARGEST = (1 << 32) - 4096
PHDR = "<IIQQQQQQ"


def executable() -> bytearray:
    go = GoELF(base=BASE)
    context = go.types.plain("context.Context", 16, kind=20)
    go.types.struct("net/http.Request", [Field("ctx", context, 8)], size=24)
    go.function("main.main", b"\xc3")
    return bytearray(go.build())


def write(directory: Path, data: bytes, size: int = 0) -> Path:
    path = directory / "program"
    path.write_bytes(data)
    if size:
        os.truncate(path, size)
    return path


def within_bounds(action: Callable[[], object]) -> None:
    """Runs it, and fails where it takes long or much memory."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.process_time()
    action()
    assert time.process_time() - started < SECONDS
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000  # KiB


def read(path: Path) -> None:
    with Executable(path) as found:
        _ = found.build
        found.load_functions([f"net/http.function{i}" for i in range(40)])
        _ = found.types


def test_names_of_functions_that_fill_gigabytes_are_refused(tmp_path: Path) -> None:
    data = executable()
    header = headers_of(data)[".gopclntab"]
    start = struct.unpack_from("<Q", data, header + 24)[0]
    struct.pack_into("<Q", data, header + 32, LARGEST - start)
    struct.pack_into("<Q", data, start + 40, LARGEST - start)  # where the names end
    path = write(tmp_path, data, LARGEST)

    def action() -> None:
        with pytest.raises(MalformedExecutable, match="absurdly many names"):
            read(path)

    within_bounds(action)


def test_a_file_of_gigabytes_is_not_searched_again_for_each_segment(tmp_path: Path) -> None:
    data = executable()
    struct.pack_into("<HH", data, 60, 0, 0)  # no section headers
    headers = b"".join(struct.pack(PHDR, 1, 4, 0, i << 33, 0, LARGEST, LARGEST, 0) for i in range(16))
    data += bytes(-len(data) % 8)
    struct.pack_into("<Q", data, 32, len(data))
    struct.pack_into("<H", data, 56, 16)
    path = write(tmp_path, data + headers, LARGEST)

    def action() -> None:
        with pytest.raises(MalformedExecutable, match="takes too long"):
            read(path)

    within_bounds(action)


def test_searches_of_one_file_share_their_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contents, "_MOST_SEARCHED", 100)
    data = Contents(write(tmp_path, bytes(60)), "shown")
    assert list(data.find_all(b"x", 0, 60)) == []
    with pytest.raises(MalformedExecutable, match="shown: looking"):
        list(data.find_all(b"x", 0, 60))
    data.close()


def test_what_is_found_everywhere_is_not_looked_at_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contents, "_MOST_FOUND", 10)
    data = Contents(write(tmp_path, b"x" * 60), "shown")
    found = data.find_all(b"x", 0, 60)
    assert [next(found) for _ in range(10)] == list(range(10))
    with pytest.raises(MalformedExecutable, match="looking"):
        next(found)
    data.close()


def test_build_information_of_many_lines_is_refused(tmp_path: Path) -> None:
    data = executable()
    text = b"\n" * (15 << 20)
    length = bytes([len(text) & 0x7F | 0x80, len(text) >> 7 & 0x7F | 0x80, len(text) >> 14 & 0x7F | 0x80])
    info = b"\xff Go buildinf:" + bytes([8, 2]) + bytes(16)
    info += b"\x08go1.27.3" + length + bytes([len(text) >> 21]) + text
    struct.pack_into("<QQ", data, headers_of(data)[".go.buildinfo"] + 24, len(data), len(info))
    path = write(tmp_path, data + info)

    def action() -> None:
        with pytest.raises(MalformedExecutable, match="absurdly large"):
            read(path)

    within_bounds(action)


def test_relocations_are_not_walked_again_and_again(tmp_path: Path) -> None:
    count = 1 << 20
    data = Contents(write(tmp_path, struct.pack("<QQQ", 64, 8, 7) * count), "shown")
    relocations = Relocations(data, 0, count, 8, "shown")

    def action() -> None:
        for _ in range(8):
            words = array("Q", [0] * 16)
            relocations.apply(words, 0)
            assert words[8] == 7
        with pytest.raises(MalformedExecutable, match="shown: its relocations"):
            relocations.apply(array("Q", [0]), 0)

    within_bounds(action)
    data.close()


@pytest.mark.parametrize("layout", ["1.24", "1.26", "1.27"])
def test_types_are_read_although_much_lies_behind_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, layout: str
) -> None:
    """What go:embed takes in lies between types and etypes, up to Go 1.26."""
    go = GoELF(layout, base=BASE)
    context = go.types.plain("context.Context", 16, kind=20)
    go.types.struct("net/http.Request", [Field("ctx", context, 8)], size=24)
    used = len(go.types.build()) + 64
    go.types.plain("x" * 100_000, 8)
    go.function("main.main", b"\xc3")
    path = write(tmp_path, go.build())
    monkeypatch.setattr(moduledata, "_LARGEST_TYPES", used // 8 * 8)
    with Executable(path) as found:
        assert found.module.types_end - found.module.types == used // 8 * 8
        assert found.types.field("net/http.Request", "ctx").offset == 8


def test_types_further_on_than_is_read_are_a_typed_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path, executable())
    monkeypatch.setattr(moduledata, "_LARGEST_TYPES", 128)
    with Executable(path) as found, pytest.raises((MalformedExecutable, UnsupportedExecutable)):
        found.types.field("net/http.Request", "ctx")
