"""Functions by name, from the table that the runtime itself walks. It stays in stripped executables."""

from __future__ import annotations

from array import array
from collections.abc import Iterable

import attrs

from pytraceprop.errors import MalformedExecutable
from pytraceprop.go.image import Image
from pytraceprop.go.moduledata import ModuleData

_LARGEST_TABLE = 1 << 26  # bytes; 20 MB in the largest programs
_NAME_OFFSET = 4  # in the runtime's _func, bytes


@attrs.frozen
class Function:
    """One function: its first address and the first behind it."""

    name: str
    start: int
    end: int


def find_functions(image: Image, module: ModuleData, names: Iterable[str]) -> dict[str, Function]:
    """Those of the functions that the executable has. Raises MalformedExecutable.

    Searching the name table for the wanted names and walking the function table once takes some
    30 ms for 100 000 functions.
    """
    table = module.functions
    if table.units - table.names > _LARGEST_TABLE:
        raise MalformedExecutable(image.path, ".gopclntab has absurdly many names")
    known = image.data.read(table.names - 1, table.units - table.names + 1)
    wanted = {}
    for name in names:
        at = known.find(b"\0" + name.encode() + b"\0")
        if at >= 0:
            wanted[at] = name
    # Pairs of 32-bit numbers: where a function begins, and where in the table it is described.
    rows = array("I", image.data.read(table.rows, 8 * table.count + 4))
    described = rows[1::2]
    size = max(described, default=0) + 8
    if size > min(table.end - table.rows, _LARGEST_TABLE):
        raise MalformedExecutable(image.path, ".gopclntab has a function outside itself")
    words = array("i", image.data.read(table.rows, size // 4 * 4))
    found = {}
    hits = [i for i, at in enumerate(described) if words[(at + _NAME_OFFSET) >> 2] in wanted]
    for i in hits:
        name = wanted[words[(described[i] + _NAME_OFFSET) >> 2]]
        start, stop = rows[2 * i], rows[2 * i + 2]
        if not start < stop <= module.text_end - module.text:
            raise MalformedExecutable(image.path, f"{name} lies outside the text")
        found[name] = Function(name, module.text + start, module.text + stop)
    return found
