"""ELF files are read by address, and what points outside the file is refused."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from pytraceprop.errors import MalformedExecutable, NotGo, UnsupportedExecutable
from pytraceprop.go.image import Image
from tests.unit.elfwriter import BASE, GoELF

_SECTIONS_AT, _SEGMENT = 40, 64  # in the ELF header; the one program header


def program() -> bytearray:
    go = GoELF()
    go.function("main.main", b"\x55\xc3")
    return bytearray(go.build())


def section_header(data: bytes, name: str) -> int:
    """Where in the file a section's header is."""
    (start,) = struct.unpack_from("<Q", data, _SECTIONS_AT)
    count, names = struct.unpack_from("<HH", data, 60)
    (text,) = struct.unpack_from("<Q", data, start + 64 * names + 24)
    for at in range(start, start + 64 * count, 64):
        name_at = text + struct.unpack_from("<I", data, at)[0]
        if data[name_at : data.index(b"\0", name_at)] == name.encode():
            return at
    raise LookupError(name)


def opened(tmp_path: Path, data: bytes) -> Image:
    path = tmp_path / "program"
    path.write_bytes(data)
    return Image(path)


def test_an_address_is_translated_by_the_segment_that_holds_it(tmp_path: Path) -> None:
    with opened(tmp_path, program()) as image:
        assert image.file_offset(BASE + 0x1000) == 0x1000
        assert image.read(BASE, 4) == b"\x7fELF"
        assert image.unpack("<Q", BASE + 24) == (BASE + 0x1000,)  # the entry
        assert image.unpack("<HH", BASE + 16) == (2, 62)


@pytest.mark.parametrize("address", [0, BASE - 1, -1, 1 << 64, (1 << 64) - 1])
def test_an_address_of_no_segment_is_refused(tmp_path: Path, address: int) -> None:
    with (
        opened(tmp_path, program()) as image,
        pytest.raises(MalformedExecutable, match="not in the file"),
    ):
        image.unpack("<Q", address)


def test_the_last_byte_is_read_and_the_one_behind_it_is_refused(tmp_path: Path) -> None:
    with opened(tmp_path, program()) as image:
        size = image.file_size
        assert image.file_offset(BASE + size - 1) == size - 1
        assert len(image.read(BASE + size - 8, 8)) == 8
        for reach in (1, 7, 8):
            with pytest.raises(MalformedExecutable):
                image.unpack("<Q", BASE + size - 8 + reach)


def test_bytes_that_only_memory_holds_are_not_in_the_file(tmp_path: Path) -> None:
    data = program()
    struct.pack_into("<QQ", data, _SEGMENT + 32, 0x1000, 0x800000)  # in the file, in memory
    with opened(tmp_path, data) as image:
        assert image.read(BASE + 0xFFC, 4) == bytes(data[0xFFC:0x1000])
        with pytest.raises(MalformedExecutable):
            image.read(BASE + 0xFFD, 4)


def test_a_segment_that_reaches_beyond_the_file_is_read_up_to_its_end(tmp_path: Path) -> None:
    data = program()
    struct.pack_into("<Q", data, _SEGMENT + 32, (1 << 64) - 1)
    with opened(tmp_path, data) as image:
        assert image.read(BASE + len(data) - 1, 1) == bytes(data[-1:])
        with pytest.raises(MalformedExecutable):
            image.read(BASE + len(data), 1)


def test_segments_other_than_loadable_ones_are_passed_over(tmp_path: Path) -> None:
    data = program()
    struct.pack_into("<I", data, _SEGMENT, 4)  # PT_NOTE
    with opened(tmp_path, data) as image:
        assert image.segments == []


def test_sections_are_known_by_name_and_a_missing_one_means_no_go(tmp_path: Path) -> None:
    with opened(tmp_path, program()) as image:
        text = image.section(".text")
        assert (text.address, text.offset) == (BASE + 0x1000, 0x1000)
        with pytest.raises(NotGo, match=r"no section \.nonsense"):
            image.section(".nonsense")


def test_a_section_that_takes_no_room_in_the_file_is_not_there(tmp_path: Path) -> None:
    data = program()
    struct.pack_into("<I", data, section_header(data, ".typelink") + 4, 8)  # SHT_NOBITS
    with opened(tmp_path, data) as image, pytest.raises(NotGo):
        image.section(".typelink")


@pytest.mark.parametrize(("field", "value"), [(24, 1 << 40), (32, 1 << 40), (24, 1 << 63)])
def test_a_section_outside_the_file_is_refused_when_it_is_asked_for(
    tmp_path: Path, field: int, value: int
) -> None:
    data = program()
    struct.pack_into("<Q", data, section_header(data, ".gopclntab") + field, value)
    with opened(tmp_path, data) as image:
        image.section(".text")
        with pytest.raises(MalformedExecutable, match=r"\.gopclntab ends outside"):
            image.section(".gopclntab")


@pytest.mark.parametrize("offset", [1 << 40, (1 << 63) - 1, 1 << 63, (1 << 64) - 1])
def test_a_table_of_section_names_outside_the_file_is_refused(tmp_path: Path, offset: int) -> None:
    data = program()
    struct.pack_into("<Q", data, section_header(data, ".shstrtab") + 24, offset)
    with pytest.raises(MalformedExecutable, match="name"):
        opened(tmp_path, data)


@pytest.mark.parametrize("where", [32, _SECTIONS_AT], ids=["program headers", "section headers"])
@pytest.mark.parametrize("offset", [1 << 40, (1 << 64) - 1])
def test_headers_outside_the_file_are_refused(tmp_path: Path, where: int, offset: int) -> None:
    data = program()
    struct.pack_into("<Q", data, where, offset)
    with pytest.raises(MalformedExecutable, match="header lies outside"):
        opened(tmp_path, data)


def test_a_file_without_section_headers_has_no_sections(tmp_path: Path) -> None:
    data = program()
    struct.pack_into("<HH", data, 60, 0, 0)
    with opened(tmp_path, data) as image:
        assert image.sections == {}
        assert image.note_build_id() == b"build-id".hex()  # the program headers tell of notes too


@pytest.mark.parametrize("position", [4, 5], ids=["32 bits", "big endian"])
def test_other_widths_and_byte_orders_are_refused(tmp_path: Path, position: int) -> None:
    data = program()
    data[position] ^= 3
    with pytest.raises(UnsupportedExecutable, match="x86-64"):
        opened(tmp_path, data)


def test_a_build_id_that_is_longer_than_its_note_is_none(tmp_path: Path) -> None:
    data = program()
    (note,) = struct.unpack_from("<Q", data, section_header(data, ".note.go.buildid") + 24)
    struct.pack_into("<I", data, note + 4, 0xFFFFFFFF)
    with opened(tmp_path, data) as image:
        assert image.note_build_id() == ""


def test_messages_call_the_file_by_its_display_name(tmp_path: Path) -> None:
    path = tmp_path / "program"
    path.write_text("no executable, and long enough for a header: " + "x" * 64)
    with pytest.raises(NotGo) as caught:
        Image(path, "/usr/bin/shown")
    assert caught.value.path == "/usr/bin/shown"
    assert str(caught.value).startswith("/usr/bin/shown: ")


def test_an_image_can_be_closed_twice_and_is_unmapped(tmp_path: Path) -> None:
    with opened(tmp_path, program()) as image:
        image.close()
    assert image.data.closed
