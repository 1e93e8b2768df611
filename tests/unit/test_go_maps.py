"""The layout of header maps is read off their descriptors; what lacks a part is refused, typed."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytraceprop.errors import UnsupportedExecutable
from pytraceprop.go import Executable
from pytraceprop.go.maps import MapLayout, map_head, read_map_layout
from tests.unit.elfwriter import LAYOUTS, Field, GoELF

#: What each struct type that a map is made of has: name and offset of each field.
SLOT = {"key": 0, "elem": 16}
SLOTS = {"ctrl": 0, "slots": 8}
SPLIT = {"ctrl": 0, "keys": 8, "elems": 136}
BUCKET = {"topbits": 0, "keys": 8, "elems": 136, "overflow": 328}
REFERENCE = {"data": 0, "lengthMask": 8}
TABLE = {"used": 0, "groups": 16}
MAP = {"used": 0, "seed": 8, "dirPtr": 16, "dirLen": 24, "writing": 34}
HMAP = {"count": 0, "flags": 8, "B": 9, "buckets": 16, "oldbuckets": 24}


class Shape:
    """Builds an executable with a header map; a part left out is named `without`."""

    def __init__(self, tmp_path: Path, layout: str = "1.27", without: str = "") -> None:
        self.path = tmp_path / "program"
        self.go = GoELF(layout)
        self.without = without
        self.word = self.go.types.plain("uint64", 8)

    def fields(self, owner: str, offsets: dict[str, int], **types: int) -> list[Field]:
        """Descriptors' fields, without the one that is left out."""
        return [
            Field(name, types.get(name, self.word), offset)
            for name, offset in offsets.items()
            if f"{owner}.{name}" != self.without
        ]

    def read(self, group: dict[str, int], size: int, key: int = 16, elem: int = 24) -> MapLayout:
        """Writes the file and reads the layout."""
        types = self.go.types
        slot = types.struct("maps.slot", self.fields("slot", SLOT), 40, by_pointer=False)
        reference = types.struct("maps.groupsReference", self.fields("reference", REFERENCE), 16)
        types.struct("internal/runtime/maps.table", self.fields("table", TABLE, groups=reference), 32)
        types.struct("internal/runtime/maps.Map", self.fields("Map", MAP), 48)
        types.struct("runtime.hmap", self.fields("hmap", HMAP), 48)
        parts = self.fields("group", group, slots=types.array(slot, 320))
        header = types.map(
            types.plain("string", key),
            types.plain("[]string", elem),
            types.struct("maps.group", parts, size, by_pointer=False),
        )
        self.path.write_bytes(self.go.build())
        with Executable(self.path) as executable:
            self.head = map_head(executable.image, executable.types, header)
            return read_map_layout(executable.image, executable.types, header)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_groups_of_slots(tmp_path: Path, layout: str) -> None:
    shape = Shape(tmp_path, layout)
    assert shape.read(SLOTS, 328) == MapLayout(0, 16, 24, 34, 16, 24, 328, 0, 8, 40, 24, 40, 0, 0)
    assert shape.head == "internal/runtime/maps.Map"


@pytest.mark.parametrize("layout", LAYOUTS)
def test_groups_of_keys_and_elements_apart(tmp_path: Path, layout: str) -> None:
    shape = Shape(tmp_path, layout)
    assert shape.read(SPLIT, 328) == MapLayout(0, 16, 24, 34, 16, 24, 328, 0, 8, 16, 136, 24, 0, 0)
    assert shape.head == "internal/runtime/maps.Map"


def test_buckets_of_go_before_1_24(tmp_path: Path) -> None:
    shape = Shape(tmp_path, "1.24")
    assert shape.read(BUCKET, 336) == MapLayout(0, 16, 24, 8, 0, 0, 336, 0, 8, 16, 136, 24, 9, 328)
    assert shape.head == "runtime.hmap"


@pytest.mark.parametrize(
    "without",
    [
        *("group.ctrl", "group.slots", "slot.key", "slot.elem"),
        *("reference.data", "reference.lengthMask", "table.groups"),
        *("Map.used", "Map.dirPtr", "Map.dirLen", "Map.writing"),
    ],
)
def test_a_swiss_map_that_lacks_a_part_is_not_covered(tmp_path: Path, without: str) -> None:
    with pytest.raises(UnsupportedExecutable):
        Shape(tmp_path, without=without).read(SLOTS, 328)


@pytest.mark.parametrize(
    "without",
    [
        *("group.topbits", "group.keys", "group.elems", "group.overflow"),
        *("hmap.count", "hmap.flags", "hmap.B", "hmap.buckets", "hmap.oldbuckets"),
    ],
)
def test_a_map_of_buckets_that_lacks_a_part_is_not_covered(tmp_path: Path, without: str) -> None:
    with pytest.raises(UnsupportedExecutable):
        Shape(tmp_path, without=without).read(BUCKET, 336)


@pytest.mark.parametrize(("key", "elem"), [(8, 24), (16, 16), (16, 8), (0, 0), (128, 24), (16, 1 << 40)])
@pytest.mark.parametrize(("group", "size"), [(SLOTS, 328), (SPLIT, 328), (BUCKET, 336)])
def test_a_map_of_other_than_strings_to_slices_is_refused(
    tmp_path: Path, group: dict[str, int], size: int, key: int, elem: int
) -> None:
    with pytest.raises(UnsupportedExecutable, match="unknown layout"):
        Shape(tmp_path).read(group, size, key, elem)


@pytest.mark.parametrize("size", [0, 327, 512, 1 << 40])
def test_a_group_too_small_for_its_cells_or_too_large_to_be_read_is_refused(
    tmp_path: Path, size: int
) -> None:
    with pytest.raises(UnsupportedExecutable, match="unknown layout"):
        Shape(tmp_path).read(SPLIT, size)


@pytest.mark.parametrize("name", ["keys", "elems"])
@pytest.mark.parametrize("offset", [320, 1 << 32, (1 << 64) - 1])
def test_cells_beyond_the_group_are_refused(tmp_path: Path, name: str, offset: int) -> None:
    with pytest.raises(UnsupportedExecutable, match="unknown layout"):
        Shape(tmp_path).read({**SPLIT, name: offset}, 328)


@pytest.mark.parametrize(
    ("group", "size"),
    [
        ({**SPLIT, "ctrl": 1 << 32}, 328),
        ({**BUCKET, "overflow": 336}, 336),
        ({**BUCKET, "topbits": 511}, 336),
    ],
)
def test_other_parts_beyond_the_group_are_refused(tmp_path: Path, group: dict[str, int], size: int) -> None:
    with pytest.raises(UnsupportedExecutable):
        Shape(tmp_path).read(group, size)
