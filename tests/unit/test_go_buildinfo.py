"""What .go.buildinfo says: release, modules, settings; and what is refused."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from pytraceprop.errors import MalformedExecutable, UnsupportedExecutable
from pytraceprop.go.buildinfo import BuildInfo, read_build_info
from pytraceprop.go.image import Image
from tests.unit.elfwriter import GoELF

_MAGIC = b"\xff Go buildinf:"
HEADER = (_MAGIC + bytes([8, 2])).ljust(32, b"\0")


def varint(number: int) -> bytes:
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


def strings(go: str, module: str) -> bytes:
    """The two strings, as the linker writes them."""
    text = b"S" * 16 + module.encode() + b"E" * 16
    return b"".join(varint(len(part)) + part for part in (go.encode(), text))


def read(tmp_path: Path, blob: bytes) -> BuildInfo:
    """Reads an executable whose .go.buildinfo holds those bytes."""
    data = bytearray(GoELF().build())
    old = data.index(_MAGIC)
    (start,) = struct.unpack_from("<Q", data, 40)
    (count,) = struct.unpack_from("<H", data, 60)
    for at in range(start, start + 64 * count, 64):
        if struct.unpack_from("<Q", data, at + 24)[0] == old:
            struct.pack_into("<QQ", data, at + 24, len(data), len(blob))
    path = tmp_path / "program"
    path.write_bytes(data + blob)
    with Image(path) as image:
        return read_build_info(image)


def test_release_modules_and_settings_are_told(tmp_path: Path) -> None:
    module = (
        "path\texample.com/shop/cmd/front\n"
        "mod\texample.com/shop\t(devel)\t\n"
        "dep\tgoogle.golang.org/grpc\tv1.70.0\th1:abc=\n"
        "build\t-compiler=gc\n"
        "build\tCGO_ENABLED=0\n"
        "build\tDefaultGODEBUG=a=1,b=2\n"
    )
    info = read(tmp_path, HEADER + strings("go1.26.11", module))
    assert (info.go, info.main_module) == ("1.26.11", "example.com/shop")
    assert info.modules == {"example.com/shop": "(devel)", "google.golang.org/grpc": "v1.70.0"}
    assert info.settings == {"-compiler": "gc", "CGO_ENABLED": "0", "DefaultGODEBUG": "a=1,b=2"}


def test_a_program_outside_a_module_is_named_by_its_path(tmp_path: Path) -> None:
    info = read(tmp_path, HEADER + strings("go1.27.3", "path\tcommand-line-arguments\n"))
    assert (info.main_module, info.modules) == ("command-line-arguments", {})


def test_a_program_without_module_text_still_has_a_release(tmp_path: Path) -> None:
    info = read(tmp_path, HEADER + varint(8) + b"go1.27.3" + varint(0))
    assert (info.go, info.main_module, info.modules, info.settings) == ("1.27.3", "", {}, {})


@pytest.mark.parametrize("go", [b"go1.27.3", b"devel go1.28-abcdef", b"go1.27.3 X:nogreenteagc", b"\xff"])
def test_any_text_is_taken_for_a_release(tmp_path: Path, go: bytes) -> None:
    info = read(tmp_path, HEADER + varint(len(go)) + go + varint(0))
    assert info.go == go.decode("utf-8", "replace").removeprefix("go")


def test_lines_of_unknown_or_unfinished_shape_are_passed_over(tmp_path: Path) -> None:
    module = "nonsense\nmod\ndep\tonly/a/path\nbuild\n\n\t\t\npath\nbuild\tflag\n"
    info = read(tmp_path, HEADER + strings("go1.27.3", module))
    assert (info.main_module, info.modules, info.settings) == ("", {}, {"flag": ""})


def test_strings_of_more_than_one_length_byte_are_read(tmp_path: Path) -> None:
    lines = "".join(f"dep\texample.com/module{i}\tv1.0.{i}\th1:x\n" for i in range(2000))
    assert len(read(tmp_path, HEADER + strings("go1.27.3", lines)).modules) == 2000


def test_a_section_without_the_magic_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MalformedExecutable, match="magic"):
        read(tmp_path, bytes(64))


def test_the_form_with_pointers_is_of_a_release_that_is_not_covered(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedExecutable, match=r"before 1\.18"):
        read(tmp_path, _MAGIC + bytes([8, 0]) + bytes(16))


@pytest.mark.parametrize(
    "strings",
    [
        b"",
        b"\x80",
        b"\x80" * 20,
        b"\xff\xff\xff\xff\x0fgo1.27.3",
        varint(9) + b"go1.27.3",
        varint(8) + b"go1.27.3",
        varint(8) + b"go1.27.3" + varint(40) + b"S" * 39,
    ],
    ids=["none", "no end of length", "endless length", "4 GiB", "one short", "no second", "second short"],
)
def test_strings_that_end_beyond_the_section_are_refused(tmp_path: Path, strings: bytes) -> None:
    with pytest.raises(MalformedExecutable, match="within a string"):
        read(tmp_path, HEADER + strings)


@pytest.mark.parametrize("size", [0, 1, 14, 31])
def test_a_section_too_short_for_its_header_is_refused(tmp_path: Path, size: int) -> None:
    with pytest.raises(MalformedExecutable):
        read(tmp_path, HEADER[:size])
