"""Functions by name, from the table that the runtime itself walks (.gopclntab).

It stays in stripped executables. Layout: runtime/symtab.go, internal/abi/symtab.go (magic of Go 1.20;
that of 1.18 and 1.19 differs in the magic alone).
"""

from __future__ import annotations

import struct
from collections.abc import Iterable

import attrs

from pytraceprop.errors import MalformedExecutable, UnsupportedExecutable
from pytraceprop.go.image import Image
from pytraceprop.go.moduledata import ModuleData

_MAGICS = (0xFFFFFFF1, 0xFFFFFFF0)
_HEADER = struct.Struct("<IHBBQQQQQQQQ")
_MAX_FUNCTIONS = 1 << 22  # the largest programs have some 300 000


@attrs.frozen
class Function:
    """One function: its first address and the first behind it."""

    name: str
    start: int
    end: int


def find_functions(image: Image, module: ModuleData, names: Iterable[str]) -> dict[str, Function]:
    """Those of the functions that the executable has. Raises MalformedExecutable and its kin.

    Searching the name table for the wanted names and walking the function table once takes some
    30 ms for 100 000 functions.
    """
    section = image.section(".gopclntab")
    base, end = section.offset, section.offset + section.size
    if section.size < _HEADER.size:
        raise MalformedExecutable(image.path, ".gopclntab is too short")
    magic, _, _, pointer_size, count, _, _, names_at, units_at, _, _, functions_at = _HEADER.unpack_from(
        image.data, base
    )
    if magic not in _MAGICS or pointer_size != 8:
        raise UnsupportedExecutable(image.path, f".gopclntab has the unknown magic {magic:#x}")
    table = base + functions_at
    if count > _MAX_FUNCTIONS or table + 8 * count + 4 > end or not names_at <= units_at <= section.size:
        raise MalformedExecutable(image.path, ".gopclntab contradicts itself")

    wanted = {}
    for name in names:
        at = image.data.find(b"\0" + name.encode() + b"\0", base + names_at - 1, base + units_at)
        if at >= 0:
            wanted[at + 1 - base - names_at] = name
    entries = struct.unpack_from(f"<{2 * count + 1}I", image.data, table)
    found = {}
    size, data = end - table, image.data
    unpack = struct.Struct("<i").unpack_from
    for i in range(count):
        at = entries[2 * i + 1]
        if at + 8 > size:
            raise MalformedExecutable(image.path, ".gopclntab has a function outside itself")
        wanted_name = wanted.get(unpack(data, table + at + 4)[0])
        if wanted_name is not None:
            start, stop = entries[2 * i], entries[2 * i + 2]
            if not start < stop <= module.text_end - module.text:
                raise MalformedExecutable(image.path, f"{wanted_name} lies outside the text")
            found[wanted_name] = Function(wanted_name, module.text + start, module.text + stop)
    return found
