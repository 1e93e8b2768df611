"""Where the table of functions is (.gopclntab), and its header.

Layout: runtime/symtab.go, internal/abi/symtab.go (the magic of Go 1.20; that of 1.18 and 1.19 differs in
the magic alone). An external linker merges the section into another (.data.rel.ro), and some programs
have no section headers at all; then the header is searched for.
"""

from __future__ import annotations

import itertools
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
_MOST_HEADS = 1 << 12  # places that look like a table before its header is read
_MAGICS_TAIL = b"\xff\xff\xff\0\0"  # what follows the first byte of both


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
    for address, start, end in itertools.islice(_candidates(image), _MOST_HEADS):
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
    magic, _, quantum, pointer_size, count, _, _, names, units, _, _, rows = _HEADER.unpack(
        image.data.read(start, _HEADER.size)
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
    for segment in sorted(image.segments, key=lambda one: one.executable):
        end = min(segment.offset + segment.size, image.file_size)
        for at in image.data.find_all(_MAGICS_TAIL, segment.offset + 1, end):
            address = at - 1 - segment.offset + segment.address
            if address % _ALIGNMENT == 0:
                yield address, at - 1, end
