"""RELATIVE relocations: the pointers that the loader writes into a position-independent executable.

GNU ld leaves zeros in the file where they go, so nothing that holds a pointer can be read without them.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterator
from typing import ClassVar

from pytraceprop.errors import MalformedExecutable
from pytraceprop.go.contents import Contents

_ENTRY = 24  # Elf64_Rela: where, type, what
_CHUNK = 1 << 13  # entries looked at together
_MOST_VISITED = 1 << 23  # entries; reading needs to look at each twice


class Relocations:
    """A table of Elf64_Rela, at an offset in the file at `path`; `relative` is the machine's type number."""

    #: More are refused. Programs of 100 MB have some 400 000.
    MOST: ClassVar = 1 << 21

    def __init__(self, data: Contents, offset: int, count: int, relative: int, path: str) -> None:
        self._data = data
        self._start = offset
        self._end = offset + count * _ENTRY
        self._relative = relative
        self._path, self._left = path, _MOST_VISITED

    def __len__(self) -> int:
        """How many there are."""
        return (self._end - self._start) // _ENTRY

    def places_of(self, value: int) -> Iterator[int]:
        """Virtual addresses at which the loader writes this value."""
        wanted = struct.pack("<QQ", self._relative, value)
        for at in self._data.find_all(wanted, self._start, self._end):
            if (at - self._start) % _ENTRY == 8:
                yield self._data.unpack("<Q", at - 8)[0]

    def apply(self, words: array[int], address: int) -> None:
        """Writes what the loader would into the words that begin at a virtual address.

        The addend is the value, since the load bias is taken for zero. Some 100 ns for each relocation.
        Raises MalformedExecutable when done too often.
        """
        end = address + 8 * len(words)
        self._left -= (self._end - self._start) // _ENTRY
        if self._left < 0:
            raise MalformedExecutable(self._path, "its relocations would have to be looked at too often")
        for start in range(self._start, self._end, _ENTRY * _CHUNK):
            table = array("Q", self._data.read(start, min(_ENTRY * _CHUNK, self._end - start)))
            places = table[0::3].tolist()
            if max(places) < address or min(places) >= end:
                continue
            relative = self._relative
            for place, kind, value in zip(places, table[1::3], table[2::3], strict=True):
                if address <= place < end and kind == relative:
                    words[(place - address) >> 3] = value
