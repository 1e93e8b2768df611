"""An ELF executable, read by virtual address."""

from __future__ import annotations

import os
import struct
from array import array
from functools import cached_property
from types import TracebackType

import attrs

from pytraceprop.errors import MalformedExecutable, NotGo, UnsupportedExecutable
from pytraceprop.go.contents import Contents
from pytraceprop.go.relocations import Relocations

_EHDR = struct.Struct("<16sHHIQQQIHHHHHH")
_PHDR = struct.Struct("<IIQQQQQQ")
_SHDR = struct.Struct("<IIQQQQIIQQ")

_ET_EXEC, _ET_DYN = 2, 3
_PT_LOAD, _PT_DYNAMIC, _PT_INTERP, _PT_NOTE = 1, 2, 3, 4
_DT_RELA, _DT_RELASZ, _DT_RELAENT, _DT_FLAGS_1 = 7, 8, 9, 0x6FFFFFFB
_DF_1_PIE = 0x08000000
_SHT_NOBITS = 8
#: e_machine: its name, and the type of its RELATIVE relocations.
_MACHINES = {62: ("x86_64", 8), 183: ("arm64", 1027)}
#: Notes that hold a build id: whose, and of which type (cmd/link, binutils).
_BUILD_ID_NOTES = ((b"Go\0\0", 4), (b"GNU\0", 3))
_MAX_SEGMENTS = 128  # program headers; Go's linker writes about ten
_MAX_SECTIONS = 4096  # real executables have below a hundred
_LONGEST_NAME = 256  # of a section
_LARGEST_FILE = 1 << 32  # twice what Go's linker can address; sparse files cost nothing to make
_LONGEST_BUILD_ID = 1024
_LARGEST_NOTES = 1 << 16  # bytes
_MAX_DYNAMIC = 1024  # entries; ld writes some thirty


@attrs.frozen
class Section:
    """One section: where it is in memory (`address`) and in the file (`offset`), in bytes."""

    name: str
    address: int
    offset: int
    size: int


@attrs.frozen
class Segment:
    """One loadable segment; `size` counts the bytes that the file holds."""

    address: int
    offset: int
    size: int
    executable: bool


class Image:
    """An open ELF file of an executable. Close it, or use it as a context manager.

    Raises NotGo for a file that is no ELF or no executable, UnsupportedExecutable for a machine that is
    not covered, MalformedExecutable where headers point outside the file.

    `machine` is "x86_64" or "arm64". `position_independent` says that addresses in the file are offsets
    from where the loader puts it; that bias is taken for zero here.
    """

    def __init__(self, path: str | os.PathLike[str], display: str | None = None) -> None:
        """Opens the file at `path`; messages call it `display` (a /proc path says little)."""
        self.path = display or os.fspath(path)
        self.data = Contents(path, self.path)
        self.identity = self.data.identity
        self.file_size = len(self.data)
        try:
            if self.file_size < _EHDR.size:
                raise NotGo(self.path, "not an executable: too short for an ELF header")
            self._read_headers()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Closes the file. Idempotent."""
        self.data.close()

    def __enter__(self) -> Image:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _read_headers(self) -> None:
        header = _EHDR.unpack(self.data.read(0, _EHDR.size))
        ident, kind, machine, _, _, phoff, shoff, _, _, _, phnum, _, shnum, shstrndx = header
        if ident[:4] != b"\x7fELF":
            raise NotGo(self.path, "not an ELF file")
        if ident[4:6] != b"\x02\x01" or machine not in _MACHINES:
            raise UnsupportedExecutable(self.path, "only executables for x86-64 and arm64 are covered so far")
        if kind not in (_ET_EXEC, _ET_DYN):
            raise NotGo(self.path, "an ELF file, but not an executable")
        if self.file_size > _LARGEST_FILE:
            raise UnsupportedExecutable(self.path, "it is larger than 4 GiB")
        if phnum > _MAX_SEGMENTS or shnum > _MAX_SECTIONS:
            raise MalformedExecutable(self.path, "it has an absurd number of headers")
        self.machine, self._relative = _MACHINES[machine]
        self.position_independent = kind == _ET_DYN
        headers = [self._unpack(_PHDR, phoff + i * _PHDR.size) for i in range(phnum)]
        self.segments = [
            Segment(address=h[3], offset=h[2], size=h[5], executable=bool(h[1] & 1))
            for h in headers
            if h[0] == _PT_LOAD and h[2] < self.file_size
        ]
        self._notes = [(h[2], h[5]) for h in headers if h[0] == _PT_NOTE]
        self._dynamic = self._read_dynamic([(h[2], h[5]) for h in headers if h[0] == _PT_DYNAMIC])
        interpreted = any(h[0] == _PT_INTERP for h in headers)
        if self.position_independent and not (interpreted or self._dynamic.get(_DT_FLAGS_1, 0) & _DF_1_PIE):
            raise NotGo(self.path, "a shared library, not an executable")
        self.sections: dict[str, Section] = {}
        raw = [self._unpack(_SHDR, shoff + i * _SHDR.size) for i in range(shnum)]
        names = raw[shstrndx] if shstrndx < shnum else None
        for header in raw if names else ():
            assert names is not None
            name = self._string(names[4], names[5], header[0])
            if header[1] != _SHT_NOBITS:
                self.sections[name] = Section(name, header[3], header[4], header[5])

    def _read_dynamic(self, segments: list[tuple[int, int]]) -> dict[int, int]:
        """What the linker tells the loader, by tag (ELF gABI, "Dynamic Section")."""
        found: dict[int, int] = {}
        for offset, size in segments:
            for i in range(min(size // 16, _MAX_DYNAMIC)):
                if offset + 16 * i + 16 > self.file_size:
                    raise MalformedExecutable(self.path, "it is truncated: its dynamic section is cut off")
                tag, value = self.data.unpack("<QQ", offset + 16 * i)
                if not tag:
                    break
                found[tag] = value
        return found

    @cached_property
    def relocations(self) -> Relocations:
        """What the loader writes over the file's pointers. Raises MalformedExecutable.

        DT_RELR needs no attention: such pointers are in the file already, at load bias zero.
        """
        size = self._dynamic.get(_DT_RELASZ, 0) if self.position_independent else 0
        offset = 0
        if size:
            if self._dynamic.get(_DT_RELAENT, 24) != 24:
                raise MalformedExecutable(self.path, "its relocations have an unknown size")
            offset = self.file_offset(self._dynamic.get(_DT_RELA, 0), size)
        if size // 24 > Relocations.MOST:
            raise MalformedExecutable(self.path, "it has an absurd number of relocations")
        return Relocations(self.data, offset, size // 24, self._relative, self.path)

    def load(self, address: int, words: int) -> array[int]:
        """64-bit words from a virtual address on, as the program sees them once it is loaded."""
        loaded = array("Q", self.read(address, 8 * words))
        self.relocations.apply(loaded, address)
        return loaded

    def _unpack(self, layout: struct.Struct, offset: int) -> tuple[int, ...]:
        if offset + layout.size > self.file_size:
            raise MalformedExecutable(self.path, "it is truncated: a header lies outside the file")
        return layout.unpack(self.data.read(offset, layout.size))

    def _string(self, table: int, size: int, index: int) -> str:
        start = table + index
        name, end = b"", b""
        if index < size and start < self.file_size:
            longest = min(table + size, start + _LONGEST_NAME, self.file_size) - start
            name, end, _ = self.data.read(start, longest).partition(b"\0")
        if not end:
            raise MalformedExecutable(self.path, "a section's name lies outside the file")
        return name.decode("utf-8", "replace")

    def file_offset(self, address: int, size: int = 1) -> int:
        """Where the byte at a virtual address is in the file.

        Raises MalformedExecutable if any of `size` bytes is not in the file.
        """
        for segment in self.segments:
            delta = address - segment.address
            if delta >= 0 and delta + size <= segment.size:
                offset = delta + segment.offset
                if offset + size <= self.file_size:
                    return offset
        raise MalformedExecutable(self.path, f"address {address:#x} (+{size}) is not in the file")

    def read(self, address: int, size: int) -> bytes:
        """`size` bytes at a virtual address. Raises MalformedExecutable."""
        offset = self.file_offset(address, size)
        return self.data.read(offset, size)

    def unpack(self, layout: str, address: int) -> tuple[int, ...]:
        """Integers at a virtual address, by a struct format. Raises MalformedExecutable."""
        offset = self.file_offset(address, struct.calcsize(layout))
        return self.data.unpack(layout, offset)

    def section(self, name: str) -> Section:
        """The section of that name, checked to lie within the file.

        Raises NotGo where there is none: the sections asked for are those that Go's linker makes.
        """
        section = self.sections.get(name)
        if section is None:
            raise NotGo(self.path, f"it has no section {name}")
        if section.offset + section.size > self.file_size:
            raise MalformedExecutable(self.path, f"it is truncated: section {name} ends outside the file")
        return section

    def note_build_id(self) -> str:
        """Go's build id (or the GNU one), as hex; empty where neither is there."""
        found: dict[tuple[bytes, int], str] = {}
        for offset, size in self._notes:
            end = min(offset + min(size, _LARGEST_NOTES), self.file_size)
            while offset + 16 <= end:
                name_size, size, kind = self.data.unpack("<III", offset)
                start = offset + 12 + (name_size + 3) // 4 * 4
                offset = start + (size + 3) // 4 * 4
                if 0 < size <= _LONGEST_BUILD_ID and start + size <= end:
                    name = self.data.read(start - 4, 4) if name_size == 4 or name_size == 3 else b""
                    found.setdefault((name, kind), self.data.read(start, size).hex())
        return next((found[note] for note in _BUILD_ID_NOTES if note in found), "")
