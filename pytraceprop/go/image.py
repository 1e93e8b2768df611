"""An ELF executable, read by virtual address."""

from __future__ import annotations

import mmap
import os
import struct
from types import TracebackType

import attrs

from pytraceprop.errors import MalformedExecutable, NotGo, UnsupportedExecutable

_EHDR = struct.Struct("<16sHHIQQQIHHHHHH")
_PHDR = struct.Struct("<IIQQQQQQ")
_SHDR = struct.Struct("<IIQQQQIIQQ")

_ET_EXEC, _ET_DYN = 2, 3
_EM_X86_64 = 62
_PT_LOAD, _PT_NOTE = 1, 4
_SHT_NOBITS = 8
_MAX_SEGMENTS = 128  # program headers; Go's linker writes about ten
_MAX_SECTIONS = 4096  # real executables have below a hundred
_LONGEST_NAME = 256  # of a section
_LARGEST_FILE = 1 << 32  # twice what Go's linker can address; sparse files cost nothing to make
_LONGEST_BUILD_ID = 1024


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


def file_identity(status: os.stat_result) -> tuple[int, ...]:
    """Equal for the same unchanged file alone, whatever the file says of itself."""
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


class Image:
    """A mapped ELF file of an executable. Close it, or use it as a context manager.

    Raises NotGo for a file that is no ELF, UnsupportedExecutable for a machine or kind that is not
    covered, MalformedExecutable where headers point outside the file.
    """

    def __init__(self, path: str | os.PathLike[str], display: str | None = None) -> None:
        """Maps the file at `path`; messages call it `display` (a /proc path says little)."""
        self.path = display or os.fspath(path)
        with open(path, "rb") as file:  # noqa: PTH123 (a path under /proc must not be resolved)
            status = os.fstat(file.fileno())
            self.file_size = status.st_size
            self.identity = file_identity(status)
            if self.file_size < _EHDR.size:
                raise NotGo(self.path, "not an executable: too short for an ELF header")
            self.data = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
        try:
            self._read_headers()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Unmaps the file. Idempotent."""
        self.data.close()

    def __enter__(self) -> Image:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _read_headers(self) -> None:
        ident, kind, machine, _, _, phoff, shoff, _, _, _, phnum, _, shnum, shstrndx = _EHDR.unpack_from(
            self.data
        )
        if ident[:4] != b"\x7fELF":
            raise NotGo(self.path, "not an ELF file")
        if ident[4:6] != b"\x02\x01" or machine != _EM_X86_64:
            raise UnsupportedExecutable(self.path, "only 64-bit x86-64 executables are covered so far")
        if kind == _ET_DYN:
            raise UnsupportedExecutable(self.path, "position-independent executables are not covered so far")
        if kind != _ET_EXEC:
            raise NotGo(self.path, "an ELF file, but not an executable")
        if self.file_size > _LARGEST_FILE:
            raise UnsupportedExecutable(self.path, "it is larger than 4 GiB")
        if phnum > _MAX_SEGMENTS or shnum > _MAX_SECTIONS:
            raise MalformedExecutable(self.path, "it has an absurd number of headers")
        headers = [self._unpack(_PHDR, phoff + i * _PHDR.size) for i in range(phnum)]
        self.segments = [
            Segment(address=h[3], offset=h[2], size=h[5], executable=bool(h[1] & 1))
            for h in headers
            if h[0] == _PT_LOAD
        ]
        self.sections: dict[str, Section] = {}
        raw = [self._unpack(_SHDR, shoff + i * _SHDR.size) for i in range(shnum)]
        names = raw[shstrndx] if shstrndx < shnum else None
        for header in raw if names else ():
            assert names is not None
            name = self._string(names[4], names[5], header[0])
            if header[1] != _SHT_NOBITS:
                self.sections[name] = Section(name, header[3], header[4], header[5])

    def _unpack(self, layout: struct.Struct, offset: int) -> tuple[int, ...]:
        if offset + layout.size > self.file_size:
            raise MalformedExecutable(self.path, "it is truncated: a header lies outside the file")
        return layout.unpack_from(self.data, offset)

    def _string(self, table: int, size: int, index: int) -> str:
        start = table + index
        end = -1
        if index < size and start < self.file_size:
            end = self.data.find(b"\0", start, min(table + size, start + _LONGEST_NAME, self.file_size))
        if end < 0:
            raise MalformedExecutable(self.path, "a section's name lies outside the file")
        return self.data[start:end].decode("utf-8", "replace")

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
        return self.data[offset : offset + size]

    def unpack(self, layout: str, address: int) -> tuple[int, ...]:
        """Integers at a virtual address, by a struct format. Raises MalformedExecutable."""
        offset = self.file_offset(address, struct.calcsize(layout))
        return struct.unpack_from(layout, self.data, offset)

    def word(self, address: int) -> int:
        """The 64-bit word at a virtual address. Raises MalformedExecutable."""
        return self.unpack("<Q", address)[0]

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
        for name in (".note.go.buildid", ".note.gnu.build-id"):
            if name not in self.sections:
                continue
            section = self.section(name)
            if section.size < 16:
                continue
            name_size, size, _ = struct.unpack_from("<III", self.data, section.offset)
            start = section.offset + 12 + (name_size + 3) // 4 * 4
            if 0 < size <= _LONGEST_BUILD_ID and start + size <= section.offset + section.size:
                return self.data[start : start + size].hex()
        return ""
