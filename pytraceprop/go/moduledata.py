"""runtime.moduledata: the linker's table of where everything is.

Its layout is not announced anywhere, and moved in Go 1.20 (covctrs), 1.26 (epclntab) and 1.27
(typedesclen instead of typelinks). So each part is looked for in the order that runtime/symtab.go has
it, and taken where it agrees with what it points at: no table of releases.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from itertools import chain

import attrs

from pytraceprop.errors import NotGo, UnsupportedExecutable
from pytraceprop.go.image import Image, Segment
from pytraceprop.go.pclntab import FunctionTable, function_tables

_WORDS = 64
_TEXT_CANDIDATES = range(20, 30)
_MAX_TYPES = 1 << 19  # some 100 000 in the largest programs
_LARGEST_TYPES = 1 << 25  # bytes; what lies further on are strings, and what go:embed took in
_SAMPLES = 32
_MAX_CANDIDATES = 64  # places that hold the address of the table of functions; there are one or two
_MAX_RELOCATED_CANDIDATES = 4  # each costs a walk over all relocations
_SECTIONS = (".go.module", ".noptrdata", ".data", ".data.rel.ro")
_POINTER_HEAD = struct.pack("<QQ", 8, 8)  # a pointer type's size and pointer bytes
_LAST_KIND = 26  # unsafe.Pointer


@attrs.frozen
class ModuleData:
    """The parts of moduledata that reading needs. Addresses are virtual; ends are exclusive.

    `functions` is the table of functions that it names first. Type descriptors are found either by
    `typelinks` (address and number of int32 offsets from `types`), or, where that is None, one after
    another from `types` + 8 to `type_descriptors_end`.
    """

    functions: FunctionTable
    text: int
    text_end: int
    types: int
    types_end: int
    typelinks: tuple[int, int] | None
    type_descriptors_end: int


def find_module_data(image: Image) -> ModuleData:
    """Finds the structure whose first word points at the table of functions.

    Raises NotGo, MalformedExecutable, or UnsupportedExecutable when no candidate makes sense.
    """
    table = None
    for table in function_tables(image):
        for address in _candidates(image, table.address):
            found = _interpret(image, image.load(address, _WORDS), table)
            if found:
                return found
    if table is None:
        raise NotGo(image.path, "it has no table of Go functions")
    raise UnsupportedExecutable(image.path, "its runtime.moduledata has a layout that is not known")


def _candidates(image: Image, pclntab: int) -> Iterator[int]:
    """Addresses that hold the table's address, and may begin a moduledata."""
    left = _MAX_RELOCATED_CANDIDATES if len(image.relocations) else _MAX_CANDIDATES
    for address in chain(image.relocations.places_of(pclntab), _places_in_file(image, pclntab)):
        left -= 1
        if left < 0:
            return
        if address % 8 == 0 and _segment(image, address, 8 * _WORDS):
            yield address


def _places_in_file(image: Image, value: int) -> Iterator[int]:
    """Addresses of a 64-bit word: where the linker puts moduledata, then anywhere."""
    sections = [image.section(name) for name in _SECTIONS if name in image.sections]
    ranges = [(s.offset, s.size, s.address) for s in sections]
    segments = sorted(image.segments, key=lambda one: one.executable)
    ranges += [(s.offset, s.size, s.address) for s in segments]
    needle = struct.pack("<Q", value)
    for offset, size, address in ranges:
        for at in image.data.find_all(needle, offset, offset + size):
            yield at - offset + address


def _segment(image: Image, address: int, size: int) -> Segment | None:
    """The segment whose part in the file holds so many bytes from an address on."""
    for segment in image.segments:
        delta = address - segment.address
        if 0 <= delta <= segment.size - size and segment.offset + delta + size <= image.file_size:
            return segment
    return None


def _interpret(image: Image, words: Sequence[int], table: FunctionTable) -> ModuleData | None:
    start, end = (image.data.unpack("<I", table.rows + 8 * i)[0] for i in (0, table.count))
    for at in _TEXT_CANDIDATES:
        # minpc, maxpc, text, etext
        first, last, text, text_end = words[at - 2 : at + 2]
        if first != text + start or last != text + end or not text < text_end:
            continue
        code = _segment(image, text, text_end - text)
        if code and code.executable and first <= last <= text_end:
            types = _find_types(image, words, at + 2)
            if types:
                start, stop, links, descriptors_end = types
                stop = min(stop, start + _LARGEST_TYPES)
                return ModuleData(table, text, text_end, start, stop, links, descriptors_end)
    return None


def _find_types(
    image: Image, words: Sequence[int], after: int
) -> tuple[int, int, tuple[int, int] | None, int] | None:
    """Where the types are, told by `types`, `etypes` and later `typelinks` (up to Go 1.26) or by
    `types`, `typedesclen` and `etypes` (Go 1.27).
    """
    for at in range(after, _WORDS - 3):
        types, end = words[at : at + 2]
        if not _are_bounds(image, types, end):
            continue
        for links in range(at + 2, min(at + 16, _WORDS - 2)):
            start, length, capacity = words[links : links + 3]
            if _are_typelinks(image, types, end, start, length, capacity):
                return types, end, (start, length), 0
    for at in range(after, _WORDS - 3):
        types, length, end = words[at : at + 3]
        if _are_bounds(image, types, end) and 0 < length <= end - types:
            offset = image.file_offset(types, end - types)
            head = next(image.data.find_all(_POINTER_HEAD, offset, offset + length), -1)
            if head >= 0 and _is_type(image, types, end, head - offset):
                return types, end, None, types + length
    return None


def _are_bounds(image: Image, types: int, end: int) -> bool:
    return 0 < types < end and types % 8 == 0 and _segment(image, types, end - types) is not None


def _are_typelinks(image: Image, types: int, end: int, start: int, length: int, capacity: int) -> bool:
    if not 0 < length == capacity <= _MAX_TYPES or not _segment(image, start, 4 * length):
        return False
    samples = {i * (length - 1) // _SAMPLES for i in range(_SAMPLES + 1)}
    return all(_is_type(image, types, end, image.unpack("<i", start + 4 * i)[0]) for i in samples)


def _is_type(image: Image, types: int, end: int, offset: int) -> bool:
    """Whether what lies there may be a type's descriptor (internal/abi/type.go)."""
    if not 0 < offset <= end - types - 48:
        return False
    kind, name = image.unpack("<23xB16xi", types + offset)
    return 0 < kind & 31 <= _LAST_KIND and 0 < name < end - types
