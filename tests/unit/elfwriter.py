r"""Small ELF executables in the shape of Go's, made in memory: tests need no compiler and no samples.

    go = GoELF("1.27")
    word = go.types.plain("uint64", 8)
    go.types.struct("net/http.Request", [Field("Method", word, 0)], size=8)
    go.function("main.main", b"\xc3")
    path.write_bytes(go.build())

The whole file is one segment at BASE, so an address is BASE plus the file offset. A position-independent
one begins at address 0, and its pointers are where build() is told to put them.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

BASE = 0x400000
_HEADERS = 0x1000  # room before the first section
_RELATIVE = 8  # R_X86_64_RELATIVE

#: Where runtime.moduledata has `types` and what follows it, in words, by the release of the layout.
_TYPES_AND_LINKS = {"1.19": (35, 42), "1.24": (37, 44), "1.26": (37, 45), "1.27": (37, 0)}
LAYOUTS = tuple(_TYPES_AND_LINKS)


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

    def struct(
        self, name: str, fields: list[Field], size: int, *, by_pointer: bool = True, short: str = ""
    ) -> int:
        """A struct type `import/path.Name`, found by a pointer type unless told otherwise.

        `short` is its name with the package's own, where that is not the last part of its path.
        """
        package = name.partition("[")[0].rpartition(".")[0]
        short = short or name.rpartition("/")[2]
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
        self,
        layout: str = "1.27",
        *,
        go: str = "go1.27.3",
        text_start_in_header: bool = False,
        base: int = BASE,
    ) -> None:
        self.layout = layout
        self.go = go
        self.text_start_in_header = text_start_in_header
        self.base = base
        self.text = base + _HEADERS
        self._code = bytearray(b"\xcc" * 16)
        self._functions: list[tuple[str, int]] = []
        self.types = Types(base + 0x10000)
        self.types.pointer(self.types.plain("int", 8), "int")

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
        ends = [self.text, self.text + len(self._code)]
        words[20:24] = [
            ends[0] + (self._functions[0][1] if self._functions else len(self._code)),
            ends[1],
            *ends,
        ]
        types = self.types.address
        links = len(self.types.pointers)
        at, links_at = _TYPES_AND_LINKS[self.layout]
        words[at] = types
        if self.layout == "1.27":
            words[at + 1 : at + 3] = [types_size - 64, types + types_size]
        else:
            words[at + 1] = types + types_size
            words[links_at : links_at + 3] = [typelinks, links, links]
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

    def build(
        self,
        kind: int = 2,
        machine: int = 62,
        *,
        pointers: str = "in place",
        merged: bool = False,
        headers: bool = True,
    ) -> bytes:
        """The file's bytes; `kind` is e_type, `machine` e_machine.

        `pointers`: "in place", "rela" (zeros in the file, as GNU ld leaves them) or "relr". `merged` puts
        what the runtime reads into .data.rel.ro, as an external linker does. Without `headers` there are
        no section headers, as after sstrip.
        """
        base = self.base
        types = bytearray(self.types.build())
        note = struct.pack("<III", 4, 8, 4) + b"Go\0\0" + b"build-id"
        links = struct.pack(f"<{len(self.types.pointers)}i", *self.types.pointers)
        pclntab_at = (self.types.address - base + len(types) + 63) // 64 * 64
        pclntab = self._pclntab()
        links_at = (pclntab_at + len(pclntab) + 63) // 64 * 64
        module_at = (links_at + len(links) + 63) // 64 * 64
        module = bytearray(self._module_data(base + pclntab_at, len(types), base + links_at))
        info_at = module_at + len(module)
        info = self._build_info()
        note_at = (info_at + len(info) + 7) // 8 * 8
        relocated_at = (note_at + len(note) + 7) // 8 * 8
        relocated, tags = self._relocations(
            pointers, relocated_at, {self.types.address - base: types, module_at: module}
        )
        dynamic_at = relocated_at + len(relocated)
        dynamic = struct.pack(f"<{len(tags)}Q", *tags)
        sections = [
            (".text", self.text - base, bytes(self._code)),
            (".rodata", self.types.address - base, bytes(types)),
            (".gopclntab", pclntab_at, pclntab),
            (".typelink", links_at, links),
            (".go.module" if self.layout in ("1.26", "1.27") else ".noptrdata", module_at, bytes(module)),
            (".go.buildinfo", info_at, info),
            (".note.go.buildid", note_at, note),
            (".rela.dyn", relocated_at, relocated),
            (".dynamic", dynamic_at, dynamic),
        ]
        named = [row for row in sections if row[2]]
        if merged:
            named = [row for row in named if row[1] < pclntab_at or row[1] >= info_at]
            named.append((".data.rel.ro", pclntab_at, bytes(info_at - pclntab_at)))
        names_at = dynamic_at + len(dynamic)
        names = b"\0" + b"".join(name.encode() + b"\0" for name, _, _ in named) + b".shstrtab\0"
        named.append((".shstrtab", names_at, names))
        if headers:
            sections.append(named[-1])
        headers_at = (names_at + len(names) * headers + 7) // 8 * 8
        file = bytearray(headers_at)
        for name, at, data in sections:
            assert not any(file[at : at + len(data)]), f"{name} overlaps another section"
            file[at : at + len(data)] = data
        rows = bytearray(64)
        for name, at, data in named:
            index = names.index(b"\0" + name.encode() + b"\0") + 1
            rows += struct.pack("<IIQQQQIIQQ", index, 1, 2, base + at, at, len(data), 0, 0, 1, 0)
        segments = [(1, 5, 0, len(file) + len(rows)), (4, 4, note_at, len(note))]
        if dynamic:
            segments.append((2, 6, dynamic_at, len(dynamic)))
        count, rows_at = len(named) + 1, headers_at
        if not headers:
            count, rows_at, rows = 0, 0, bytearray()
        file += rows
        ident = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
        file[:64] = struct.pack(
            "<16sHHIQQQIHHHHHH",
            *(ident, kind, machine, 1, self.text, 64, rows_at, 0, 64, 56, len(segments), 64),
            *(count, max(count - 1, 0)),
        )
        for i, (segment, flags, at, size) in enumerate(segments):
            row = struct.pack("<IIQQQQQQ", segment, flags, at, base + at, base + at, size, size, 0x1000)
            file[64 + 56 * i : 120 + 56 * i] = row
        return bytes(file)

    def _relocations(self, form: str, at: int, parts: dict[int, bytearray]) -> tuple[bytes, list[int]]:
        """The table, to be put at a file offset, and the words of the dynamic section.

        `parts` are changed: they are what lies at these file offsets.
        """
        if form == "in place":
            return b"", []
        places = [
            (start + i, part, i)
            for start, part in parts.items()
            for i in range(0, len(part) - 7, 8)
            if self.base + _HEADERS <= struct.unpack_from("<Q", part, i)[0] < self.base + at
        ]
        table = bytearray()
        for offset, part, i in places:
            if form == "rela":
                table += struct.pack("<QQ", self.base + offset, _RELATIVE) + part[i : i + 8]
                part[i : i + 8] = bytes(8)
            else:
                table += struct.pack("<Q", self.base + offset)
        tag, size, entry = {"rela": (7, 8, 9), "relr": (36, 35, 37)}[form]
        tags = [tag, self.base + at, size, len(table), entry, 24 if form == "rela" else 8]
        return bytes(table), [*tags, 0x6FFFFFFB, 0x08000000, 0, 0]
