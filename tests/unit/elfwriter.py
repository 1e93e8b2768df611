r"""Small ELF executables in the shape of Go's, made in memory: tests need no compiler and no samples.

    go = GoELF("1.27")
    word = go.types.plain("uint64", 8)
    go.types.struct("net/http.Request", [Field("Method", word, 0)], size=8)
    go.function("main.main", b"\xc3")
    path.write_bytes(go.build())

The whole file is one segment at BASE, so an address is BASE plus the file offset.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

BASE = 0x400000
_HEADERS = 0x1000  # room before the first section

#: Where runtime.moduledata has its fields, in words, by the release that made the layout.
LAYOUTS = ("1.24", "1.26", "1.27")


@dataclass
class Field:
    """A struct's field; `type` is what a method of Types returned."""

    name: str
    type: int
    offset: int
    embedded: bool = False


class Types:
    """Type descriptors (internal/abi/type.go). Methods return a descriptor's address."""

    def __init__(self, address: int) -> None:
        self.address = address
        self._blob = bytearray(8)  # offset 0 is no type
        self.pointers: list[int] = []

    def _append(self, data: bytes) -> int:
        while len(self._blob) % 8:
            self._blob.append(0)
        self._blob += data
        return self.address + len(self._blob) - len(data)

    def _name(self, text: str, flags: int = 0) -> int:
        raw = text.encode()
        length = bytearray()
        n = len(raw)
        while n >= 0x80:
            length.append(n & 0x7F | 0x80)
            n >>= 7
        length.append(n)
        return self._append(bytes([flags]) + length + raw)

    def _common(self, kind: int, size: int, name: str, tflag: int = 0, pointers: int = 8) -> bytes:
        offset = self._name(name) - self.address
        return struct.pack("<QQIBBBBQQii", size, pointers, 7, tflag, 8, 8, kind, 0, 0, offset, 0)

    def plain(self, name: str, size: int, kind: int = 11) -> int:
        """A type without parts, such as uint64, or an interface (kind 20)."""
        return self._append(self._common(kind, size, name, pointers=0))

    def pointer(self, element: int, name: str) -> int:
        """A pointer type; where structs are found from."""
        address = self._append(self._common(22, 8, f"*{name}") + struct.pack("<Q", element))
        self.pointers.append(address - self.address)
        return address

    def array(self, element: int, size: int) -> int:
        """An array type."""
        return self._append(self._common(17, size, "[8]T") + struct.pack("<Q", element))

    def map(self, key: int, element: int, group: int) -> int:
        """A map type, with the type of its groups (or buckets)."""
        return self._append(self._common(21, 8, "map[K]V") + struct.pack("<QQQ", key, element, group))

    def struct(self, name: str, fields: list[Field], size: int, *, by_pointer: bool = True) -> int:
        """A struct type `import/path.Name`, found by a pointer type unless told otherwise."""
        package, _, _ = name.rpartition(".")
        short = name.rpartition("/")[2]
        rows = b"".join(
            struct.pack("<QQQ", self._name(f.name, 8 if f.embedded else 0), f.type, f.offset) for f in fields
        )
        start = self._append(rows)
        path = self._name(package) - self.address
        body = self._common(25, size, f"*{short}", tflag=1 | 2)
        address = self._append(
            body
            + struct.pack("<QQQQ", 0, start, len(fields), len(fields))
            + struct.pack("<iHHII", path, 0, 0, 0, 0)
        )
        if by_pointer:
            self.pointer(address, short)
        return address

    def build(self) -> bytes:
        """The bytes of the section."""
        return bytes(self._blob) + bytes(64)


class GoELF:
    """An executable of a Go release's shape. `types` and `function` fill it, `build` makes the bytes."""

    def __init__(
        self, layout: str = "1.27", *, go: str = "go1.27.3", text_start_in_header: bool = False
    ) -> None:
        assert layout in LAYOUTS
        self.layout = layout
        self.go = go
        self.text_start_in_header = text_start_in_header
        self.text = BASE + _HEADERS
        self._code = bytearray(b"\xcc" * 16)
        self._functions: list[tuple[str, int]] = []
        self.types = Types(BASE + 0x10000)

    def function(self, name: str, code: bytes) -> int:
        """Adds a function; its address."""
        while len(self._code) % 16:
            self._code.append(0xCC)
        self._functions.append((name, len(self._code)))
        self._code += code
        return self.text + self._functions[-1][1]

    def next_function(self) -> int:
        """The address that the next function will have."""
        return self.text + (len(self._code) + 15) // 16 * 16

    def _pclntab(self) -> bytes:
        names = bytearray(b"\0")
        rows, functions = [], bytearray()
        table_size = (2 * len(self._functions) + 1) * 4
        for name, start in self._functions:
            rows.append((start, table_size + len(functions)))
            functions += struct.pack("<IiiIIIiIBBBB", start, len(names), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
            names += name.encode() + b"\0"
        table = b"".join(struct.pack("<II", *row) for row in rows) + struct.pack("<I", len(self._code))
        text_start = self.text if self.text_start_in_header else 0
        names_at = 72
        tables_at = (names_at + len(names) + 7) // 8 * 8
        header = struct.pack("<IHBB", 0xFFFFFFF1, 0, 1, 8) + struct.pack(
            "<QQQQQQQQ",
            *(len(self._functions), 0, text_start, names_at),
            *(tables_at, tables_at, tables_at, tables_at),
        )
        return (header + names).ljust(tables_at, b"\0") + table + functions

    def _module_data(self, pclntab: int, types_size: int, typelinks: int) -> bytes:
        words = [0] * 80
        words[0] = pclntab
        words[22], words[23] = self.text, self.text + len(self._code)
        types = self.types.address
        words[37] = types
        links = len(self.types.pointers)
        if self.layout == "1.27":
            words[38], words[39] = types_size - 64, types + types_size
        else:
            words[38] = types + types_size
            at = 44 if self.layout == "1.24" else 45
            words[at : at + 3] = [typelinks, links, links]
        return struct.pack("<80Q", *words)

    def _build_info(self) -> bytes:
        module = "path\tdemo\nmod\tdemo\tv1.2.3\t\ndep\tother\tv0.1.0\th1:x\nbuild\tCGO_ENABLED=0\n"
        text = b"S" * 16 + module.encode() + b"E" * 16
        info = b"\xff Go buildinf:" + bytes([8, 2])
        info = info.ljust(32, b"\0")
        for part in (self.go.encode(), text):
            length, n = bytearray(), len(part)
            while n >= 0x80:
                length.append(n & 0x7F | 0x80)
                n >>= 7
            info += bytes([*length, n]) + part
        return info

    def build(self, kind: int = 2, machine: int = 62) -> bytes:
        """The file's bytes; `kind` is e_type, `machine` e_machine."""
        types = self.types.build()
        note = struct.pack("<III", 4, 8, 4) + b"Go\0\0" + b"build-id"
        links = struct.pack(f"<{len(self.types.pointers)}i", *self.types.pointers)
        pclntab_at = (self.types.address - BASE + len(types) + 63) // 64 * 64
        pclntab = self._pclntab()
        links_at = (pclntab_at + len(pclntab) + 63) // 64 * 64
        module_at = (links_at + len(links) + 63) // 64 * 64
        module = self._module_data(BASE + pclntab_at, len(types), BASE + links_at)
        info_at = module_at + len(module)
        info = self._build_info()
        note_at = (info_at + len(info) + 7) // 8 * 8
        sections = [
            (".text", self.text - BASE, bytes(self._code)),
            (".rodata", self.types.address - BASE, types),
            (".gopclntab", pclntab_at, pclntab),
            (".typelink", links_at, links),
            (".noptrdata" if self.layout == "1.24" else ".go.module", module_at, module),
            (".go.buildinfo", info_at, info),
            (".note.go.buildid", note_at, note),
        ]
        names = b"\0" + b"".join(name.encode() + b"\0" for name, _, _ in sections) + b".shstrtab\0"
        sections.append((".shstrtab", note_at + len(note), names))
        headers_at = (note_at + len(note) + len(names) + 7) // 8 * 8
        file = bytearray(headers_at)
        rows = bytearray(64)
        for name, at, data in sections:
            assert not any(file[at : at + len(data)]), f"{name} overlaps another section"
            file[at : at + len(data)] = data
            index = names.index(b"\0" + name.encode() + b"\0") + 1
            rows += struct.pack("<IIQQQQIIQQ", index, 1, 2, BASE + at, at, len(data), 0, 0, 1, 0)
        file += rows
        ident = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
        count = len(sections) + 1
        file[:64] = struct.pack(
            "<16sHHIQQQIHHHHHH",
            *(ident, kind, machine, 1, self.text, 64, headers_at, 0, 64, 56, 1, 64, count, count - 1),
        )
        file[64:120] = struct.pack("<IIQQQQQQ", 1, 5, 0, BASE, BASE, len(file), len(file), 0x1000)
        return bytes(file)
