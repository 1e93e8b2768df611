"""runtime.moduledata: the linker's table of where everything is.

Its layout is not announced anywhere, so each field is taken where it makes sense and checked: no
table of releases. Word numbers are those of runtime/symtab.go, and moved in Go 1.20 (covctrs), 1.26
(epclntab) and 1.27 (typedesclen instead of typelinks).
"""

from __future__ import annotations

import struct

import attrs

from pytraceprop.errors import UnsupportedExecutable
from pytraceprop.go.image import Image

_WORDS = 64
_TEXT, _ETEXT = 22, 23
_TYPES = 37
_TYPELINKS_CANDIDATES = (44, 45)
_MAX_CANDIDATES = 4096
_SECTIONS = (".go.module", ".noptrdata", ".data", ".data.rel.ro")


@attrs.frozen
class ModuleData:
    """The parts of moduledata that reading needs. Addresses are virtual; ends are exclusive.

    Type descriptors are found either by `typelinks` (address and number of int32 offsets from
    `types`), or, where that is None, one after another from `types` + 8 to `type_descriptors_end`.
    """

    text: int
    text_end: int
    types: int
    types_end: int
    typelinks: tuple[int, int] | None
    type_descriptors_end: int


def find_module_data(image: Image) -> ModuleData:
    """Finds the structure whose first word points at .gopclntab.

    Raises NotGo, MalformedExecutable, or UnsupportedExecutable when no candidate makes sense.
    """
    needle = struct.pack("<Q", image.section(".gopclntab").address)
    left = _MAX_CANDIDATES
    for name in _SECTIONS:
        if name not in image.sections:
            continue
        section = image.section(name)
        end = section.offset + section.size
        at = image.data.find(needle, section.offset, end)
        while at >= 0 and left:
            left -= 1
            if (at - section.offset) % 8 == 0 and at + 8 * _WORDS <= image.file_size:
                found = _interpret(image, struct.unpack_from(f"<{_WORDS}Q", image.data, at))
                if found:
                    return found
            at = image.data.find(needle, at + 1, end)
    raise UnsupportedExecutable(image.path, "its runtime.moduledata has a layout that is not known")


def _interpret(image: Image, words: tuple[int, ...]) -> ModuleData | None:
    text, text_end, types, after = words[_TEXT], words[_ETEXT], words[_TYPES], words[_TYPES + 1]
    code = next((s for s in image.segments if s.executable and 0 <= text - s.address < s.size), None)
    if code is None or not text < text_end <= code.address + code.size:
        return None
    if after > types:  # etypes, an address: up to Go 1.26
        for index in _TYPELINKS_CANDIDATES:
            start, length, capacity = words[index : index + 3]
            if _are_typelinks(image, types, after, start, length, capacity):
                return ModuleData(text, text_end, types, after, (start, length), 0)
        return None
    types_end = words[_TYPES + 2]  # typedesclen, a length, comes before it: Go 1.27
    if not types < types + after <= types_end:
        return None
    return ModuleData(text, text_end, types, types_end, None, types + after)


def _are_typelinks(image: Image, types: int, end: int, start: int, length: int, capacity: int) -> bool:
    if not 0 < length == capacity < 1 << 24:
        return False
    if not any(start - s.address >= 0 and start - s.address + 4 * length <= s.size for s in image.segments):
        return False
    first, last = image.unpack("<i", start)[0], image.unpack("<i", start + 4 * (length - 1))[0]
    return 0 < first < end - types and 0 < last < end - types
