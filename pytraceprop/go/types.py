"""Struct layouts from the runtime's own type descriptors, which stripped executables keep.

internal/abi/type.go: a descriptor begins with its size, has its kind in the low five bits of byte 23
and the offset of its name at byte 40. Every struct type that is used by pointer is reachable through
the descriptor of that pointer type, so those are what is indexed.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterable, Iterator
from functools import cached_property

import attrs

from pytraceprop.errors import MalformedExecutable, UnsupportedExecutable
from pytraceprop.go.image import Image
from pytraceprop.go.moduledata import ModuleData

ARRAY, INTERFACE, MAP, POINTER, STRUCT = 17, 20, 21, 22, 25

_KIND_MASK = 31
_UNCOMMON, _EXTRA_STAR = 1, 2  # tflag
_EMBEDDED = 8  # name flag (Go 1.19)
_POINTER_HEAD = struct.pack("<QQ", 8, 8)  # a pointer type's size and pointer bytes
_POINTER_SIZE = 56  # bytes of a pointer's descriptor
_STRUCT_BODY = 80  # bytes of a struct's descriptor before its uncommon part
_MAX_FIELDS = 4096
_MAX_TYPES = 1 << 18  # structs used by pointer: some 10 000 in programs of 100 MB
_MAX_FIELDS_IN_ALL = 1 << 20
_LARGEST_OFFSET = 0xFFFF  # of a field in `wrappers`
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


def behind_pointer(pointer: int, offset: int) -> int:
    """A place in a value that is at an offset behind a pointer, which itself is at an offset; as one number.

    Plain offsets are below 65536. struct context_type_key in bpf/records.h says how it is read.
    """
    return pointer + 1 << 16 | offset


def _moved(place: int, offset: int) -> int | None:
    """The place in a struct that has the value at an offset; None where that is absurdly far."""
    if place <= _LARGEST_OFFSET:
        return place + offset if place + offset < _LARGEST_OFFSET else None
    return place + (offset << 16) if (place >> 16) + offset < _LARGEST_OFFSET else None


class TypeMissing(UnsupportedExecutable):
    """A type, or a field of one, that an executable does not have under that name."""


class Types:
    """The struct types of an executable, by `import/path.Name`."""

    def __init__(self, image: Image, module: ModuleData) -> None:
        """Indexes all pointer-to-struct descriptors: some 40 ms for 30 000 types."""
        self._path = image.path
        self._start = module.types
        self._size = (module.types_end - module.types) // 8 * 8
        self._words = image.load(module.types, self._size // 8)
        self._bytes = self._words.tobytes()
        if module.typelinks:
            start, length = module.typelinks
            offsets: Iterable[int] = image.unpack(f"<{length}i", start)
        else:
            offsets = self._walk(module.type_descriptors_end - module.types)
        self._pointer_of = self._structs(offsets)

    def _walk(self, length: int) -> Iterator[int]:
        """Offsets where a pointer's descriptor may begin (Go 1.27 has no typelinks)."""
        data = self._bytes
        at = data.find(_POINTER_HEAD, 0, length)
        while at >= 0:
            yield at
            at = data.find(_POINTER_HEAD, at + 8 - at % 8, length)

    def _structs(self, offsets: Iterable[int]) -> dict[int, int]:
        """Addresses of structs, and of pointers to them, from where descriptors may be."""
        data, words, start = self._bytes, self._words, self._start
        last_pointer, last_struct = self._size - _POINTER_SIZE, self._size - _STRUCT_BODY
        found: dict[int, int] = {}
        for offset in offsets:
            if 0 <= offset <= last_pointer and data[offset + 23] & _KIND_MASK == POINTER and not offset & 7:
                element = words[(offset >> 3) + 6] - start
                if (
                    0 <= element <= last_struct
                    and data[element + 23] & _KIND_MASK == STRUCT
                    and not element & 7
                ):
                    found.setdefault(start + element, start + offset)
        if len(found) > _MAX_TYPES:
            raise MalformedExecutable(self._path, "it has an absurd number of types")
        return found

    @cached_property
    def _by_name(self) -> dict[bytes, list[int]]:
        """Structs by name without package: a package's name says little about its path."""
        data, words, start = self._bytes, self._words, self._start
        found: dict[bytes, list[int]] = {}
        for address in self._pointer_of:
            name = words[(address - start >> 3) + 5] & 0xFFFFFFFF
            raw = data[name + 2 : name + 2 + data[name + 1]] if name < self._size - 1 else b""
            if len(raw) >= 0x80:  # the length has more than one byte
                raw = self._text(start + name)[0].encode()
            found.setdefault(raw.partition(b".")[2], []).append(address)
        return found

    def _offset(self, address: int, size: int) -> int:
        """Where an address is among the types. Raises MalformedExecutable."""
        offset = address - self._start
        if not 0 <= offset <= self._size - size:
            raise MalformedExecutable(
                self._path, f"a type refers to {address:#x}, which is outside the types"
            )
        return offset

    def _unpack(self, layout: str, address: int) -> tuple[int, ...]:
        return struct.unpack_from(layout, self._bytes, self._offset(address, struct.calcsize(layout)))

    def _text(self, address: int) -> tuple[str, int]:
        """A name (internal/abi.Name) and its flags."""
        at = self._offset(address, 2)
        length = shift = 0
        start = at + 1
        for byte in self._bytes[at + 1 : at + 6]:
            start += 1
            length |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
        else:
            length = self._size
        if start + length > self._size:
            raise MalformedExecutable(self._path, "a type's name lies outside the types")
        end = start + min(length, _LONGEST_NAME)
        return self._bytes[start:end].decode("utf-8", "replace"), self._bytes[at]

    def _name_of(self, address: int) -> str:
        name, _ = self._text(self._start + self._unpack("<i", address + 40)[0])
        return name[1:] if self._tflag(address) & _EXTRA_STAR else name

    def _tflag(self, address: int) -> int:
        return self._bytes[self._offset(address + 20, 1)]

    def _package_of(self, address: int) -> str:
        if not self._tflag(address) & _UNCOMMON:
            return ""
        offset = self._unpack("<i", address + _STRUCT_BODY)[0]
        return self._text(self._start + offset)[0] if offset else ""

    def kind(self, address: int) -> int:
        """The kind of the type whose descriptor is at the address."""
        return self._bytes[self._offset(address + 23, 1)] & _KIND_MASK

    def size(self, address: int) -> int:
        """The size in bytes of values of the type."""
        return self._unpack("<Q", address)[0]

    def find(self, name: str) -> int:
        """The descriptor's address of the struct `import/path.Name`. Raises TypeMissing."""
        package = name.partition("[")[0].rpartition(".")[0]  # type arguments have dots of their own
        for address in self._by_name.get(name[len(package) + 1 :].encode(), ()):
            if self._package_of(address) == package:
                return address
        raise TypeMissing(self._path, f"it has no type {name}")

    def pointer_to(self, name: str) -> int:
        """The address of the descriptor of `*import/path.Name`. Raises TypeMissing."""
        return self._pointer_of[self.find(name)]

    def at(self, address: int) -> Struct:
        """The struct type at a descriptor's address. Raises MalformedExecutable."""
        if self.kind(address) != STRUCT:
            raise MalformedExecutable(self._path, f"the type at {address:#x} is not a struct")
        fields = {}
        for name_at, kind, offset in self._raw_fields(address):
            name, flags = self._text(name_at)
            fields[name] = Field(name, offset, kind, bool(flags & _EMBEDDED))
        return Struct(self._name_of(address), address, self.size(address), fields)

    def _field_words(self, address: int) -> array[int]:
        """Three words for each field of a struct: where its name is, its type, its offset."""
        start, count = self._unpack("<QQ", address + 56)
        if count > _MAX_FIELDS:
            raise MalformedExecutable(self._path, "a struct type has an absurd number of fields")
        if start % 8:
            raise MalformedExecutable(self._path, "a struct type has its fields at an odd place")
        first = self._offset(start, 24 * count) >> 3 if count else 0
        return self._words[first : first + 3 * count]

    def _raw_fields(self, address: int) -> list[tuple[int, int, int]]:
        words = self._field_words(address)
        return list(zip(words[0::3], words[1::3], words[2::3], strict=True))

    def field(self, name: str, field: str) -> Field:
        """One field of a struct type.

        Raises TypeMissing, or UnsupportedExecutable where any field begins behind the struct's end: before
        Go 1.19 the word held the offset shifted by one, and whether the field is embedded.
        """
        found = self.at(self.find(name))
        if any(one.offset > found.size for one in found.fields.values()):
            raise UnsupportedExecutable(
                self._path, f"its type {name} is smaller than its fields: built by Go before 1.19?"
            )
        return found.field(self._path, field)

    def element(self, address: int) -> int:
        """The descriptor's address of what a pointer, an array or a slice is of."""
        return self._unpack("<Q", address + 48)[0]

    def map_parts(self, address: int) -> tuple[int, int, int]:
        """Descriptors' addresses of a map type's key, element and group (or bucket)."""
        key, element, group = self._unpack("<QQQ", address + 48)
        return key, element, group

    def wrappers(self, interface: int, by_field_in: str) -> dict[int, int]:
        """Types that embed the interface (up to 16 levels deep), and where it is in them.

        Keys are descriptors' addresses of the structs and of pointers to them. A value is the offset in
        bytes, or `behind_pointer` where one of the embedded types is a pointer (as in context.timerCtx of
        Go 1.20). In the package `by_field_in` a plain field of a known type counts like an embedded one.
        """
        left = _MAX_FIELDS_IN_ALL
        candidates: dict[int, array[int]] = {}
        for address in self._pointer_of:
            types = self._field_words(address)[1::3]
            left -= len(types)
            if left < 0:
                raise MalformedExecutable(self._path, "its types have absurdly many fields")
            candidates[address] = types
        offsets: dict[int, int] = {}
        known = {interface: 0}
        pointers: set[int] = set()
        for _ in range(_MAX_DEPTH):
            found: dict[int, int] = {}
            names = known.keys()
            for address, types in candidates.items():
                if names.isdisjoint(types) or address in offsets:
                    continue
                for name_at, kind, offset in self._raw_fields(address):
                    if kind not in known:
                        continue
                    embedded = self._text(name_at)[1] & _EMBEDDED
                    if embedded or (kind not in pointers and self._package_of(address) == by_field_in):
                        place = _moved(known[kind], offset)
                        if place is not None:
                            found[address] = place
                            break
            if not found:
                break
            offsets.update(found)
            behind = {
                self._pointer_of[a]: behind_pointer(0, o) for a, o in found.items() if o <= _LARGEST_OFFSET
            }
            pointers = set(behind)
            known = found | behind
        return offsets | {self._pointer_of[a]: o for a, o in offsets.items()}
