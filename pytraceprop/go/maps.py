"""How this executable lays out its maps from string to []string (http.Header).

Swiss maps came in Go 1.24 (internal/runtime/maps); before, and with the experiment noswissmap, a map is
an array of buckets (runtime/map.go). Group and bucket are ordinary struct types, so even the layouts
that experiments choose (mapsplitgroup, Go 1.27) can be read off their descriptors.
"""

from __future__ import annotations

import attrs

from pytraceprop.errors import UnsupportedExecutable
from pytraceprop.go.image import Image
from pytraceprop.go.types import Types

_SLOTS = 8  # per group, fixed by the control word
_LARGEST_GROUP = 511  # what the BPF programs read at once (SCRATCH_MASK)


@attrs.frozen
class MapLayout:
    """Offsets in bytes: of the map's head and its tables, and within a group of cells.

    For a map of buckets `map_dir_ptr` is the array, `map_dir_len` the old one, `map_writing` the flags,
    and a group is a bucket. `bucket_overflow` is 0 for Swiss maps.
    """

    map_used: int
    map_dir_ptr: int
    map_dir_len: int
    map_writing: int
    table_groups_data: int
    table_groups_mask: int
    group_size: int
    group_ctrl: int
    group_keys: int
    group_key_stride: int
    group_elems: int
    group_elem_stride: int
    hmap_b: int
    bucket_overflow: int


#: The Go type of a map's head, and the fields of it for map_used, _dir_ptr, _dir_len and _writing.
_SWISS_HEAD = ("internal/runtime/maps.Map", ("used", "dirPtr", "dirLen", "writing"))
_BUCKETS_HEAD = ("runtime.hmap", ("count", "buckets", "oldbuckets", "flags"))


def map_head(image: Image, types: Types, map_type: int) -> str:
    """The Go type of the head of a map: which of the two layouts it has."""
    fields = types.at(types.map_parts(map_type)[2]).fields
    if "ctrl" in fields:
        return _SWISS_HEAD[0]
    if "topbits" in fields:
        return _BUCKETS_HEAD[0]
    raise UnsupportedExecutable(image.path, f"its maps have unknown parts: {', '.join(fields)}")


def read_map_layout(image: Image, types: Types, map_type: int) -> MapLayout:
    """The layout of one map type. Raises UnsupportedExecutable where it is not known."""
    swiss = map_head(image, types, map_type) == _SWISS_HEAD[0]
    key, element, group_type = types.map_parts(map_type)
    group = types.at(group_type)
    fields = group.fields
    if "slots" in fields:
        slot = types.at(types.element(fields["slots"].type))
        start = fields["slots"].offset
        keys, elems = (start + slot.field(image.path, name).offset for name in ("key", "elem"))
        key_stride = elem_stride = slot.size
    elif "keys" in fields and "elems" in fields:
        keys, elems = fields["keys"].offset, fields["elems"].offset
        key_stride, elem_stride = types.size(key), types.size(element)
    else:
        raise UnsupportedExecutable(image.path, f"its map groups have unknown fields: {', '.join(fields)}")
    sizes = types.size(key), types.size(element)
    control = fields["ctrl" if swiss else "topbits"].offset
    overflow = 0 if swiss else group.field(image.path, "overflow").offset
    last = max(
        keys + (_SLOTS - 1) * key_stride + sizes[0],
        elems + (_SLOTS - 1) * elem_stride + sizes[1],
        control + _SLOTS,
        overflow + 8,
    )
    if sizes != (16, 24) or not last <= group.size <= _LARGEST_GROUP:
        raise UnsupportedExecutable(image.path, "its header maps have an unknown layout")

    head, names = _SWISS_HEAD if swiss else _BUCKETS_HEAD
    used, dir_ptr, dir_len, writing = (types.field(head, name).offset for name in names)
    data = mask = hmap_b = 0
    if swiss:
        groups = types.field("internal/runtime/maps.table", "groups")
        reference = types.at(groups.type)
        data = groups.offset + reference.field(image.path, "data").offset
        mask = groups.offset + reference.field(image.path, "lengthMask").offset
    else:
        hmap_b = types.field(head, "B").offset
    return MapLayout(
        map_used=used,
        map_dir_ptr=dir_ptr,
        map_dir_len=dir_len,
        map_writing=writing,
        table_groups_data=data,
        table_groups_mask=mask,
        group_size=group.size,
        group_ctrl=control,
        group_keys=keys,
        group_key_stride=key_stride,
        group_elems=elems,
        group_elem_stride=elem_stride,
        hmap_b=hmap_b,
        bucket_overflow=overflow,
    )
