"""What is read from synthesised executables: headers, build, functions, types, maps."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pytraceprop.errors import ExecutableError, MalformedExecutable, NotGo, UnsupportedExecutable
from pytraceprop.go import Executable
from pytraceprop.go.maps import read_map_layout
from pytraceprop.go.sites import SiteMissing
from pytraceprop.go.types import TypeMissing
from tests.unit.elfwriter import BASE, LAYOUTS, Field, GoELF


def opened(tmp_path: Path, go: GoELF, **how: int) -> Executable:
    path = tmp_path / "program"
    path.write_bytes(go.build(**how))
    return Executable(path)


def example(layout: str = "1.27", **how: bool) -> GoELF:
    go = GoELF(layout, **how)
    word = go.types.plain("uint64", 8)
    go.types.struct("net/http.Request", [Field("Method", word, 0), Field("Host", word, 40)], size=48)
    go.types.struct("example.com/other/http.Request", [Field("Method", word, 8)], size=16)
    go.function("main.main", b"\x55\xc3")
    go.function("net/http.(*conn).serve", b"\x90" * 20)
    return go


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("text_start_in_header", [True, False])
def test_functions_are_found_by_name_in_every_layout(
    tmp_path: Path, layout: str, text_start_in_header: bool
) -> None:
    go = example(layout, text_start_in_header=text_start_in_header)
    with opened(tmp_path, go) as executable:
        main = executable.function("main.main")
        assert (main.start, main.end) == (go.text + 16, go.text + 32)
        assert executable.image.read(main.start, 2) == b"\x55\xc3"
        assert executable.has_function("net/http.(*conn).serve")
        assert not executable.has_function("main.mai")
        with pytest.raises(SiteMissing, match="no function nonsense"):
            executable.function("nonsense")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_fields_are_found_by_import_path_in_every_layout(tmp_path: Path, layout: str) -> None:
    with opened(tmp_path, example(layout)) as executable:
        types = executable.types
        assert types.field("net/http.Request", "Host").offset == 40
        assert types.field("example.com/other/http.Request", "Method").offset == 8
        assert types.at(types.find("net/http.Request")).size == 48
        for missing in ("http.Request", "net/http.Response", "net/http.Reque"):
            with pytest.raises(TypeMissing):
                types.find(missing)
        with pytest.raises(TypeMissing, match="no field Nonsense"):
            types.field("net/http.Request", "Nonsense")


def test_the_build_is_told(tmp_path: Path) -> None:
    with opened(tmp_path, example()) as executable:
        build = executable.build
        assert (build.go, build.main_module) == ("1.27.3", "demo")
        assert build.modules == {"demo": "v1.2.3", "other": "v0.1.0"}
        assert build.settings == {"CGO_ENABLED": "0"}
        assert executable.image.note_build_id() == b"build-id".hex()


def test_contexts_are_found_at_any_depth_of_embedding(tmp_path: Path) -> None:
    go = GoELF()
    types = go.types
    word, context = types.plain("uint64", 8), types.plain("context.Context", 16, kind=20)
    inner = types.struct("context.cancelCtx", [Field("Context", context, 0, True)], size=64)
    timer = types.struct(
        "context.timerCtx", [Field("n", word, 0), Field("cancelCtx", inner, 8, True)], size=72
    )
    without = types.struct("context.withoutCancelCtx", [Field("c", context, 0)], size=16)
    custom = types.struct(
        "example.com/app.Ctx", [Field("id", word, 0), Field("timerCtx", timer, 16, True)], size=96
    )
    holder = types.struct("example.com/app.Job", [Field("ctx", context, 8)], size=24)
    with opened(tmp_path, go) as executable:
        found = executable.types.wrappers(context, by_field_in="context")
        pointers = {
            name: executable.types.pointer_to(name) for name in ("context.timerCtx", "example.com/app.Ctx")
        }
    assert {inner: 0, timer: 8, without: 0, custom: 24}.items() <= found.items()
    assert found[pointers["context.timerCtx"]] == 8
    assert found[pointers["example.com/app.Ctx"]] == 24
    assert holder not in found  # a plain field of an application's type may be anything


def swiss(go: GoELF, fields: list[Field], size: int) -> int:
    types = go.types
    word = types.plain("uint64", 8)
    key, element = types.plain("string", 16), types.plain("[]string", 24)
    group = types.struct("maps.group", fields, size, by_pointer=False)
    table = types.struct(
        "internal/runtime/maps.groupsReference", [Field("data", word, 0), Field("lengthMask", word, 8)], 16
    )
    types.struct("internal/runtime/maps.table", [Field("groups", table, 16)], 32)
    names = ("used", "seed", "dirPtr", "dirLen", "writing")
    types.struct("internal/runtime/maps.Map", [Field(name, word, 8 * i) for i, name in enumerate(names)], 48)
    return types.map(key, element, group)


def test_groups_of_slots_are_understood(tmp_path: Path) -> None:
    go = GoELF("1.24")
    word = go.types.plain("uint64", 8)
    slot = go.types.struct(
        "maps.slot", [Field("key", word, 0), Field("elem", word, 16)], 40, by_pointer=False
    )
    array = go.types.array(slot, 320)
    header = swiss(go, [Field("ctrl", word, 0), Field("slots", array, 8)], 328)
    with opened(tmp_path, go) as executable:
        layout = read_map_layout(executable.image, executable.types, header)
    assert (layout.group_size, layout.group_keys, layout.group_elems) == (328, 8, 24)
    assert (layout.group_key_stride, layout.group_elem_stride) == (40, 40)
    assert (layout.map_dir_ptr, layout.map_dir_len, layout.map_writing) == (16, 24, 32)
    assert (layout.table_groups_data, layout.table_groups_mask) == (16, 24)


def test_groups_with_keys_and_elements_apart_are_understood(tmp_path: Path) -> None:
    go = GoELF()
    word = go.types.plain("uint64", 8)
    header = swiss(go, [Field("ctrl", word, 0), Field("keys", word, 8), Field("elems", word, 136)], 328)
    with opened(tmp_path, go) as executable:
        layout = read_map_layout(executable.image, executable.types, header)
    assert (layout.group_keys, layout.group_key_stride) == (8, 16)
    assert (layout.group_elems, layout.group_elem_stride) == (136, 24)


def test_buckets_are_understood(tmp_path: Path) -> None:
    go = GoELF("1.24")
    types = go.types
    word = types.plain("uint64", 8)
    key, element = types.plain("string", 16), types.plain("[]string", 24)
    names = (("topbits", 0), ("keys", 8), ("elems", 136), ("overflow", 328))
    parts = [Field(name, word, offset) for name, offset in names]
    header = types.map(key, element, types.struct("map.bucket", parts, 336, by_pointer=False))
    head = (("count", 0), ("flags", 8), ("B", 9), ("buckets", 16), ("oldbuckets", 24))
    types.struct("runtime.hmap", [Field(name, word, offset) for name, offset in head], 48)
    with opened(tmp_path, go) as executable:
        layout = read_map_layout(executable.image, executable.types, header)
    assert (layout.group_size, layout.group_keys, layout.group_elems) == (336, 8, 136)
    assert (layout.group_key_stride, layout.group_elem_stride) == (16, 24)
    assert (layout.map_dir_ptr, layout.map_dir_len, layout.map_writing) == (16, 24, 8)
    assert (layout.hmap_b, layout.bucket_overflow) == (9, 328)


@pytest.mark.parametrize(
    ("fields", "size", "reason"),
    [
        (["nonsense", "keys", "elems"], 328, "unknown parts"),
        (["ctrl", "nonsense"], 328, "unknown fields"),
        (["ctrl", "keys", "elems"], 4096, "unknown layout"),
        (["ctrl", "keys", "elems"], 64, "unknown layout"),
    ],
)
def test_maps_of_another_layout_are_refused(
    tmp_path: Path, fields: list[str], size: int, reason: str
) -> None:
    go = GoELF()
    word = go.types.plain("uint64", 8)
    header = swiss(go, [Field(name, word, 8 * i) for i, name in enumerate(fields)], size)
    with opened(tmp_path, go) as executable, pytest.raises(UnsupportedExecutable, match=reason):
        read_map_layout(executable.image, executable.types, header)


@pytest.mark.parametrize(
    ("how", "error"),
    [
        ({"kind": 3}, NotGo),  # a shared library
        ({"kind": 1}, NotGo),
        ({"machine": 243}, UnsupportedExecutable),
        ({"machine": 3}, UnsupportedExecutable),
    ],
)
def test_other_kinds_of_elf_are_refused(tmp_path: Path, how: dict[str, int], error: type[Exception]) -> None:
    with pytest.raises(error):
        opened(tmp_path, example(), **how)


def test_a_module_data_that_makes_no_sense_is_refused(tmp_path: Path) -> None:
    data = bytearray(example().build())
    at = data.index(struct.pack("<Q", BASE + 0x1000), 0x10000)  # moduledata's text
    data[at : at + 8] = struct.pack("<Q", 0x1234)
    path = tmp_path / "program"
    path.write_bytes(data)
    with Executable(path) as executable, pytest.raises(UnsupportedExecutable, match="moduledata"):
        executable.function("main.main")


def read_all(path: Path) -> None:
    """Asks for everything there is."""
    with Executable(path) as executable:
        executable.image.note_build_id()
        executable.function("main.main")
        executable.code("net/http.(*conn).serve")
        context = executable.types.field("net/http.Request", "Host").type
        executable.types.wrappers(context, by_field_in="context")
        read_map_layout(executable.image, executable.types, context)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_truncation_is_a_typed_error(tmp_path: Path, layout: str) -> None:
    data = example(layout).build()
    path = tmp_path / "program"
    for size in range(0, len(data), 97):
        path.write_bytes(data[:size])
        with pytest.raises(ExecutableError):
            read_all(path)


@settings(max_examples=400, deadline=5000, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    layout=st.sampled_from(LAYOUTS),
    changes=st.lists(
        st.tuples(st.integers(0, 1 << 20), st.sampled_from([0, 1, 0x7F, 0x80, 0xFF])), min_size=1, max_size=12
    ),
)
def test_no_damage_gives_more_than_a_typed_error(
    tmp_path: Path, layout: str, changes: list[tuple[int, int]]
) -> None:
    data = bytearray(example(layout).build())
    used = [i for i, byte in enumerate(data) if byte]  # padding would make most changes idle
    for where, byte in changes:
        data[used[where % len(used)]] = byte
    path = tmp_path / "program"
    path.write_bytes(data)
    with pytest.raises(ExecutableError):  # read_all ends with one even on good input
        read_all(path)


def test_an_absurd_count_is_refused_at_once(tmp_path: Path) -> None:
    data = bytearray(example().build())
    at = data.index(struct.pack("<IHBB", 0xFFFFFFF1, 0, 1, 8))
    data[at + 8 : at + 16] = struct.pack("<Q", 1 << 60)
    path = tmp_path / "program"
    path.write_bytes(data)
    with Executable(path) as executable, pytest.raises(MalformedExecutable):
        executable.function("main.main")
