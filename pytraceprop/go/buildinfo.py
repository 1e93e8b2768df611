"""What the linker wrote into .go.buildinfo: the Go release and the modules (debug/buildinfo)."""

from __future__ import annotations

import attrs

from pytraceprop.errors import MalformedExecutable, NotGo, UnsupportedExecutable
from pytraceprop.go.image import Image

_SECTION = ".go.buildinfo"
_MAGIC = b"\xff Go buildinf:"
_HEADER = 32  # bytes before the strings
_ALIGNMENT = 16
_INLINE = 2  # flag: strings follow the header (Go 1.18)
_SENTINEL = 16  # bytes around the module text
_LARGEST = 1 << 20  # bytes; a thousand modules take below 100 KiB


@attrs.frozen
class BuildInfo:
    """The build of an executable. `modules` maps each module path to its version."""

    go: str
    main_module: str
    modules: dict[str, str]
    settings: dict[str, str]


def read_build_info(image: Image) -> BuildInfo:
    """Reads it. Raises NotGo, UnsupportedExecutable (before Go 1.18), MalformedExecutable."""
    blob = _find(image)
    if not blob[15] & _INLINE:
        raise UnsupportedExecutable(image.path, "it was built by a Go release before 1.18")
    version, rest = _string(image, blob, _HEADER)
    text, _ = _string(image, blob, rest)
    go = version.decode("utf-8", "replace").removeprefix("go")
    lines = text[_SENTINEL:-_SENTINEL].decode("utf-8", "replace").split("\n")
    main, modules, settings = "", {}, {}
    for line in lines:
        fields = line.split("\t")
        if fields[0] == "path" and len(fields) > 1 and not main:
            main = fields[1]
        elif fields[0] == "mod" and len(fields) > 2:
            main = fields[1]
            modules[fields[1]] = fields[2]
        elif fields[0] in ("dep", "=>") and len(fields) > 2:
            modules[fields[1]] = fields[2]
        elif fields[0] == "build" and len(fields) > 1:
            key, _, value = fields[1].partition("=")
            settings[key] = value
    return BuildInfo(go, main, modules, settings)


def _find(image: Image) -> bytes:
    """The section's bytes; without section headers, all that follows its magic (debug/buildinfo)."""
    if _SECTION in image.sections:
        section = image.section(_SECTION)
        if section.size > _LARGEST:
            raise MalformedExecutable(image.path, ".go.buildinfo is absurdly large")
        blob = image.data.read(section.offset, section.size)
        if not blob.startswith(_MAGIC) or len(blob) < _HEADER:
            raise MalformedExecutable(image.path, ".go.buildinfo does not begin with its magic")
        return blob
    for segment in sorted(image.segments, key=lambda s: (s.executable, -s.address)):  # data come last
        end = min(segment.offset + segment.size, image.file_size)
        for at in image.data.find_all(_MAGIC, segment.offset, end):
            if (at - segment.offset + segment.address) % _ALIGNMENT == 0 and at + _HEADER <= end:
                return image.data.read(at, min(_LARGEST, end - at))
    if ".gopclntab" in image.sections:
        raise UnsupportedExecutable(image.path, "it says nothing of its build: Go before 1.13, or obfuscated")
    raise NotGo(image.path, "it has no Go build information")


def _string(image: Image, blob: bytes, at: int) -> tuple[bytes, int]:
    """A length in varint form and as many bytes; also where the next one begins."""
    length = shift = 0
    while True:
        if at >= len(blob) or shift > 35:
            raise MalformedExecutable(image.path, ".go.buildinfo ends within a string")
        byte = blob[at]
        at += 1
        length |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            break
    if at + length > len(blob):
        raise MalformedExecutable(image.path, ".go.buildinfo ends within a string")
    return blob[at : at + length], at + length
