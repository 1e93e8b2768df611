"""Where the table of functions is (.gopclntab), and its header.

Layout: runtime/symtab.go, internal/abi/symtab.go (the magic of Go 1.20; that of 1.18 and 1.19 differs in
the magic alone). An external linker merges the section into another (.data.rel.ro), and some programs
have no section headers at all; then the header is searched for.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

import attrs

from pytraceprop.errors import MalformedExecutable, UnsupportedExecutable
from pytraceprop.go.image import Image

_SECTIONS = (".gopclntab", ".data.rel.ro.gopclntab")
_MAGICS = (0xFFFFFFF1, 0xFFFFFFF0)
_OLD_MAGICS = (0xFFFFFFFA, 0xFFFFFFFB)  # Go 1.16 and 1.2
_HEADER = struct.Struct("<IHBBQQQQQQQQ")
_QUANTA = (1, 4)  # shortest instruction: x86, arm64
_ALIGNMENT = 8  # bytes; cmd/link asks for 32 up to Go 1.26, for 8 from 1.27 on
_MAX_FUNCTIONS = 1 << 21  # the largest programs have some 300 000
_MAX_TABLES = 4
_CHUNK = 1 << 24  # bytes searched together
_MOST_SEARCHED = 1 << 28  # bytes
_MOST_LOOKED_AT = 1 << 20  # bytes that equal the magic's first; one of 256 by chance
_MOST_HEADS = 1 << 12


@attrs.frozen
class FunctionTable:
    """The header's parts, as offsets in the file; `end` is where the table ends at the latest."""

    address: int
    start: int
    end: int
    count: int
    names: int
    units: int
    rows: int


def function_tables(image: Image) -> Iterator[FunctionTable]:
    """The table, where it has a section of its own; else all that it may be.

    Among those may be tables of other programs that this one carries with it (`go:embed`). Raises
    UnsupportedExecutable, MalformedExecutable.
    """
    for name in _SECTIONS:
        if name in image.sections:
            section = image.section(name)
            yield _read(image, section.address, section.offset, section.offset + section.size)
            return
    left = _MAX_TABLES
    for address, start, end in _candidates(image):
        try:
            table = _read(image, address, start, end)
        except (MalformedExecutable, UnsupportedExecutable):
            continue  # bytes that happen to look like the magic
        left -= 1
        if left < 0:
            return
        yield table


def _read(image: Image, address: int, start: int, end: int) -> FunctionTable:
    if end - start < _HEADER.size:
        raise MalformedExecutable(image.path, ".gopclntab is too short")
    magic, _, quantum, pointer_size, count, _, _, names, units, _, _, rows = _HEADER.unpack_from(
        image.data, start
    )
    if magic in _OLD_MAGICS:
        raise UnsupportedExecutable(image.path, "it was built by a Go release before 1.18")
    if magic not in _MAGICS or quantum not in _QUANTA or pointer_size != 8:
        raise UnsupportedExecutable(image.path, f".gopclntab has the unknown magic {magic:#x}")
    size = end - start
    if count > _MAX_FUNCTIONS or rows + 8 * count + 4 > size or not names <= units <= size:
        raise MalformedExecutable(image.path, ".gopclntab contradicts itself")
    return FunctionTable(address, start, end, count, start + names, start + units, start + rows)


def _candidates(image: Image) -> Iterator[tuple[int, int, int]]:
    """Address, start and end of what begins like the table; what is not executable first."""
    heads = [struct.pack("<IH", magic, 0) for magic in _MAGICS]
    left, looks, finds = _MOST_SEARCHED, _MOST_LOOKED_AT, _MOST_HEADS
    for segment in sorted(image.segments, key=lambda one: one.executable):
        end = min(segment.offset + segment.size, image.file_size)
        first = segment.offset + -segment.address % _ALIGNMENT
        for start in range(first, end, _CHUNK):
            stop = min(start + _CHUNK, end)
            left -= stop - start
            if left < 0:
                return
            # One byte of each place where the table may begin: an eighth to look through.
            sample = image.data[start:stop:_ALIGNMENT]
            for head in heads:
                i = sample.find(head[:1])
                while i >= 0 and looks and finds:
                    looks -= 1
                    at = start + i * _ALIGNMENT
                    if image.data[at : at + len(head)] == head:
                        finds -= 1
                        yield at - segment.offset + segment.address, at, end
                    i = sample.find(head[:1], i + 1)
