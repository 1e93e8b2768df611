"""Struct layouts from the runtime's own type descriptors, which stripped executables keep.

internal/abi/type.go: a descriptor begins with its size, has its kind in the low five bits of byte 23
and the offset of its name at byte 40. Every struct type that is used by pointer is reachable through
the descriptor of that pointer type, so those are what is indexed.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

import attrs

from pytraceprop.errors import MalformedExecutable, UnsupportedExecutable
from pytraceprop.go.image import Image
from pytraceprop.go.moduledata import ModuleData

ARRAY, MAP, POINTER, STRUCT = 17, 21, 22, 25

_KIND_MASK = 31
_UNCOMMON, _EXTRA_STAR = 1, 2  # tflag
_EMBEDDED = 8  # name flag (Go 1.19)
_POINTER_HEAD = struct.pack("<QQ", 8, 8)  # a pointer type's size and pointer bytes
_STRUCT_BODY = 80  # bytes of a struct's descriptor before its uncommon part
_MAX_FIELDS = 4096
_MAX_TYPES = 1 << 20  # some 100 000 in the largest programs
_MAX_FIELDS_IN_ALL = 1 << 21
_MAX_DEPTH = 16  # of embedding
_LONGEST_NAME = 512  # bytes; what is longer is cut, since nobody asks for it


@attrs.frozen
class Field:
    """One field: its offset in bytes and the address of its type's descriptor."""

    name: str
    offset: int
    type: int
    embedded: bool


@attrs.frozen
class Struct:
    """One struct type. `size` and offsets in bytes; `address` is its descriptor's."""

    name: str
    address: int
    size: int
    fields: dict[str, Field]

    def field(self, path: str, name: str) -> Field:
        """One field. Raises TypeMissing, which names the executable at `path`."""
        if name not in self.fields:
            raise TypeMissing(path, f"its type {self.name} has no field {name}")
        return self.fields[name]


class TypeMissing(UnsupportedExecutable):
    """A type, or a field of one, that an executable does not have under that name."""


class Types:
    """The struct types of an executable, by `import/path.Name`."""

    def __init__(self, image: Image, module: ModuleData) -> None:
        """Indexes all pointer-to-struct descriptors: some 80 ms for 30 000 types."""
        self._image = image
        self._module = module
        self._pointer_of: dict[int, int] = {}
        self._by_name: dict[str, list[int]] = {}
        for pointer, address in self._pointers():
            if address not in self._pointer_of:
                self._pointer_of[address] = pointer
                self._by_name.setdefault(self._name_of(address), []).append(address)
                if len(self._pointer_of) > _MAX_TYPES:
                    raise MalformedExecutable(image.path, "it has an absurd number of types")

    def _pointers(self) -> Iterator[tuple[int, int]]:
        image, module = self._image, self._module
        data = image.data
        span = module.types_end - module.types
        base = image.file_offset(module.types, span)
        if module.typelinks:
            start, length = module.typelinks
            offsets: Iterator[int] = iter(image.unpack(f"<{length}i", start))
        else:
            offsets = self._walk(base, module.type_descriptors_end - module.types)
        for offset in offsets:
            if not 0 <= offset <= span - 56:
                continue
            at = base + offset
            if data[at + 23] & _KIND_MASK != POINTER:
                continue
            element = int.from_bytes(data[at + 48 : at + 56], "little") - module.types
            if 0 <= element <= span - _STRUCT_BODY and data[base + element + 23] & _KIND_MASK == STRUCT:
                yield module.types + offset, module.types + element

    def _walk(self, base: int, length: int) -> Iterator[int]:
        """Offsets where a pointer's descriptor may begin (Go 1.27 has no typelinks)."""
        data = self._image.data
        at = data.find(_POINTER_HEAD, base, base + length)
        while at >= 0:
            if (at - base) % 8 == 0:
                yield at - base
            at = data.find(_POINTER_HEAD, at + 1, base + length)

    def _text(self, address: int) -> tuple[str, int]:
        """A name (internal/abi.Name) and its flags."""
        image = self._image
        at = image.file_offset(address, 2)
        length = shift = 0
        start = at + 1
        for byte in image.data[at + 1 : at + 6]:
            start += 1
            length |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
        else:
            length = image.file_size
        if start + length > image.file_size:
            raise MalformedExecutable(image.path, "a type's name lies outside the file")
        end = start + min(length, _LONGEST_NAME)
        return image.data[start:end].decode("utf-8", "replace"), image.data[at]

    def _name_of(self, address: int) -> str:
        name, _ = self._text(self._module.types + self._image.unpack("<i", address + 40)[0])
        return name[1:] if self._image.read(address + 20, 1)[0] & _EXTRA_STAR else name

    def _package_of(self, address: int) -> str:
        if not self._image.read(address + 20, 1)[0] & _UNCOMMON:
            return ""
        offset = self._image.unpack("<i", address + _STRUCT_BODY)[0]
        return self._text(self._module.types + offset)[0] if offset else ""

    def kind(self, address: int) -> int:
        """The kind of the type whose descriptor is at the address."""
        return self._image.read(address + 23, 1)[0] & _KIND_MASK

    def size(self, address: int) -> int:
        """The size in bytes of values of the type."""
        return self._image.word(address)

    def find(self, name: str) -> int:
        """The descriptor's address of the struct `import/path.Name`. Raises TypeMissing."""
        package, _, _ = name.rpartition(".")
        for address in self._by_name.get(name.rpartition("/")[2], ()):
            if self._package_of(address) == package:
                return address
        raise TypeMissing(self._image.path, f"it has no type {name}")

    def pointer_to(self, name: str) -> int:
        """The address of the descriptor of `*import/path.Name`. Raises TypeMissing."""
        return self._pointer_of[self.find(name)]

    def at(self, address: int) -> Struct:
        """The struct type at a descriptor's address. Raises MalformedExecutable."""
        if self.kind(address) != STRUCT:
            raise MalformedExecutable(self._image.path, f"the type at {address:#x} is not a struct")
        fields = {}
        for name_at, kind, offset in self._raw_fields(address):
            name, flags = self._text(name_at)
            fields[name] = Field(name, offset, kind, bool(flags & _EMBEDDED))
        return Struct(self._name_of(address), address, self.size(address), fields)

    def _raw_fields(self, address: int) -> list[tuple[int, int, int]]:
        start, count = self._image.unpack("<QQ", address + 56)
        if count > _MAX_FIELDS:
            raise MalformedExecutable(self._image.path, "a struct type has an absurd number of fields")
        words = self._image.unpack(f"<{3 * count}Q", start) if count else ()
        return list(zip(words[0::3], words[1::3], words[2::3], strict=True))

    def field(self, name: str, field: str) -> Field:
        """One field of a struct type. Raises TypeMissing."""
        return self.at(self.find(name)).field(self._image.path, field)

    def element(self, address: int) -> int:
        """The descriptor's address of what a pointer or an array is of."""
        return self._image.word(address + 48)

    def map_parts(self, address: int) -> tuple[int, int, int]:
        """Descriptors' addresses of a map type's key, element and group (or bucket)."""
        key, element, group = self._image.unpack("<QQQ", address + 48)
        return key, element, group

    def wrappers(self, interface: int, by_field_in: str) -> dict[int, int]:
        """Types that embed the interface (by value, up to 16 levels deep), and where it is in them.

        Keys are descriptors' addresses of the structs and of pointers to them, values are offsets in
        bytes. In the package `by_field_in` a plain field counts like an embedded one.
        """
        offsets: dict[int, int] = {}
        known = {interface: 0}
        for _ in range(_MAX_DEPTH):
            found = {}
            left = _MAX_FIELDS_IN_ALL
            for address in self._pointer_of:
                if address in offsets:
                    continue
                rows = self._raw_fields(address)
                left -= len(rows)
                if left < 0:
                    raise MalformedExecutable(self._image.path, "its types have absurdly many fields")
                for name_at, kind, offset in rows:
                    if kind not in known:
                        continue
                    embedded = self._text(name_at)[1] & _EMBEDDED
                    if embedded or self._package_of(address) == by_field_in:
                        found[address] = offset + known[kind]
                        break
            if not found:
                break
            offsets.update(found)
            known = found
        return offsets | {self._pointer_of[a]: o for a, o in offsets.items()}
