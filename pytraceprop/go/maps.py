"""How this executable lays out its maps from string to []string (http.Header).

Swiss maps came in Go 1.24 (internal/runtime/maps). Their group is an ordinary struct type, so even
the layouts that experiments choose (mapsplitgroup, Go 1.27) can be read off its descriptor.
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
    """Offsets in bytes: of internal/runtime/maps.Map and table, and within a group of slots."""

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


def read_map_layout(image: Image, types: Types, map_type: int) -> MapLayout:
    """The layout of one map type. Raises UnsupportedExecutable for any but Swiss maps."""
    key, element, group_type = types.map_parts(map_type)
    group = types.at(group_type)
    fields = group.fields
    if "ctrl" not in fields:
        raise UnsupportedExecutable(
            image.path, "its maps have the layout of Go before 1.24, which is not covered so far"
        )
    if "slots" in fields:
        slot = types.at(types.element(fields["slots"].type))
        start = fields["slots"].offset
        keys, elems = start + slot.fields["key"].offset, start + slot.fields["elem"].offset
        key_stride = elem_stride = slot.size
    elif "keys" in fields and "elems" in fields:
        keys, elems = fields["keys"].offset, fields["elems"].offset
        key_stride, elem_stride = types.size(key), types.size(element)
    else:
        raise UnsupportedExecutable(image.path, f"its map groups have unknown fields: {', '.join(fields)}")
    sizes = types.size(key), types.size(element)
    last = max(keys + (_SLOTS - 1) * key_stride + sizes[0], elems + (_SLOTS - 1) * elem_stride + sizes[1])
    if sizes != (16, 24) or not last <= group.size <= _LARGEST_GROUP:
        raise UnsupportedExecutable(image.path, "its header maps have an unknown layout")

    map_fields = types.at(types.find("internal/runtime/maps.Map")).fields
    groups = types.field("internal/runtime/maps.table", "groups")
    reference = types.at(groups.type).fields
    return MapLayout(
        map_used=map_fields["used"].offset,
        map_dir_ptr=map_fields["dirPtr"].offset,
        map_dir_len=map_fields["dirLen"].offset,
        map_writing=map_fields["writing"].offset,
        table_groups_data=groups.offset + reference["data"].offset,
        table_groups_mask=groups.offset + reference["lengthMask"].offset,
        group_size=group.size,
        group_ctrl=fields["ctrl"].offset,
        group_keys=keys,
        group_key_stride=key_stride,
        group_elems=elems,
        group_elem_stride=elem_stride,
    )
