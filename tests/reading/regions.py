"""Where in an executable reading looks, so that mutations hit what matters."""

from __future__ import annotations

import struct
import tempfile
from collections.abc import Iterator
from pathlib import Path

import attrs

from pytraceprop.go import Executable
from pytraceprop.go.types import TypeMissing
from pytraceprop.probes import http1
from tests.reading.sites import FUNCTIONS

_SECTIONS = {
    ".go.buildinfo": 3,
    ".note.go.buildid": 1,
    ".go.module": 4,
    ".dynamic": 2,
    ".rela": 2,
    ".rela.dyn": 2,
    ".typelink": 2,
    ".shstrtab": 2,
    ".gopclntab": 1,
    ".data.rel.ro": 1,
    ".rodata": 1,
    ".noptrdata": 1,
}
_TYPES = sorted(
    {struct for _, struct, _ in (*http1._FIELDS, *http1._SERVER_FIELDS, *http1._CLIENT_FIELDS)}
    | {"context.cancelCtx", "crypto/tls.Conn", "internal/runtime/maps.Map", "runtime.hmap"}
)
_DESCRIPTOR = 256  # bytes: a struct's, and a little of what lies behind
_MODULE_DATA = 640


@attrs.frozen
class Region:
    """A part of the file, in bytes; `weight` is how often it is hit, relative to others."""

    start: int
    size: int
    weight: int


def regions_of(original: bytes) -> list[Region]:
    """The regions of an undamaged executable."""
    with tempfile.NamedTemporaryFile() as file:
        Path(file.name).write_bytes(original)
        with Executable(file.name) as executable:
            found = [*_headers(original), *_parts(executable, original)]
    return [region for region in found if region.size > 0 and region.start + region.size <= len(original)]


def _headers(original: bytes) -> Iterator[Region]:
    program_headers, section_headers = struct.unpack_from("<QQ", original, 32)
    counts = struct.unpack_from("<HHHH", original, 54)
    yield Region(0, 64, 12)
    yield Region(program_headers, counts[0] * counts[1], 12)
    yield Region(section_headers, counts[2] * counts[3], 12)
    yield Region(0, len(original), 2)


def _parts(executable: Executable, original: bytes) -> Iterator[Region]:
    image = executable.image
    for name, weight in _SECTIONS.items():
        if name in image.sections:
            section = image.sections[name]
            yield Region(section.offset, section.size, weight)
            yield Region(section.offset, min(section.size, 128), weight)
    table = executable.module.functions
    yield Region(table.start, 72, 16)
    yield Region(table.rows, 8 * table.count + 4, 4)
    yield from _module_data(executable, original)
    types = executable.types
    for name in _TYPES:
        try:
            yield Region(image.file_offset(types.find(name)), _DESCRIPTOR, 4)
        except TypeMissing:
            continue  # a synthesised one has few
    start, end = executable.module.types, executable.module.types_end
    yield Region(image.file_offset(start), end - start, 4)
    for name in FUNCTIONS:
        if executable.has_function(name):
            function = executable.function(name)
            yield Region(image.file_offset(function.start), function.end - function.start, 1)
            named = original.find(name.encode() + b"\0", table.names, table.units)
            yield Region(named, len(name) + 1, 1)


def _module_data(executable: Executable, original: bytes) -> Iterator[Region]:
    """Everything that may be moduledata, for its first word is the table's address; and what moves it."""
    table = executable.module.functions
    needle = struct.pack("<Q", table.address)
    for data in (needle, struct.pack("<QQ", 8, table.address)):
        at = original.find(data)
        while at >= 0:
            if len(data) > 8:  # a relocation: it, and its neighbours, which belong to the following words
                yield Region(at - 8, 24 * 80, 20)
            elif at % 8 == 0:
                yield Region(at, _MODULE_DATA, 20)
            at = original.find(data, at + 1)
