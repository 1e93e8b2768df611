"""Structs are found by import path and name; damaged descriptors are refused."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from pytraceprop.errors import ExecutableError, MalformedExecutable, UnsupportedExecutable
from pytraceprop.go import Executable
from pytraceprop.go.types import POINTER, STRUCT, TypeMissing, behind_pointer
from tests.unit.elfwriter import BASE, LAYOUTS, Field, GoELF

TYPELINK_LAYOUTS = ("1.24", "1.26")


def opened(tmp_path: Path, data: bytes) -> Executable:
    path = tmp_path / "program"
    path.write_bytes(data)
    return Executable(path)


def module_data(data: bytes, go: GoELF) -> int:
    """Where in the file runtime.moduledata is."""
    return data.index(struct.pack("<Q", go.text), 0x10000) - 8 * 22


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_struct_is_read_with_its_size_and_fields(tmp_path: Path, layout: str) -> None:
    go = GoELF(layout)
    word, text = go.types.plain("uint64", 8), go.types.plain("string", 16)
    inner = go.types.struct("main.Inner", [Field("n", word, 0)], 8)
    fields = [Field("Name", text, 0), Field("Inner", inner, 16, True), Field("größe", word, 24)]
    address = go.types.struct("main.Outer", fields, 32)
    with opened(tmp_path, go.build()) as executable:
        types = executable.types
        found = types.at(types.find("main.Outer"))
        assert (found.name, found.address, found.size) == ("main.Outer", address, 32)
        assert {n: (f.offset, f.type, f.embedded) for n, f in found.fields.items()} == {
            "Name": (0, text, False),
            "Inner": (16, inner, True),
            "größe": (24, word, False),
        }
        pointer = types.pointer_to("main.Outer")
        assert (types.kind(pointer), types.kind(address)) == (POINTER, STRUCT)
        assert types.element(pointer) == address
        assert types.size(text) == 16


@pytest.mark.parametrize("layout", LAYOUTS)
def test_equal_names_are_told_apart_by_import_path(tmp_path: Path, layout: str) -> None:
    go = GoELF(layout)
    word = go.types.plain("uint64", 8)
    paths = ("net/http", "example.com/http", "example.com/a/http", "http")
    for i, path in enumerate(paths):
        go.types.struct(f"{path}.Request", [Field("f", word, 8 * i)], 64)
    with opened(tmp_path, go.build()) as executable:
        for i, path in enumerate(paths):
            assert executable.types.field(f"{path}.Request", "f").offset == 8 * i
        for missing in ("com/http.Request", "/http.Request", "net/http.Request.f", "Request", ""):
            with pytest.raises(TypeMissing):
                executable.types.find(missing)


def test_a_struct_without_fields_has_none(tmp_path: Path) -> None:
    go = GoELF()
    go.types.struct("main.Empty", [], 0)
    with opened(tmp_path, go.build()) as executable:
        assert executable.types.at(executable.types.find("main.Empty")).fields == {}
        with pytest.raises(TypeMissing, match="no field x"):
            executable.types.field("main.Empty", "x")


def test_names_of_more_than_127_bytes_are_read(tmp_path: Path) -> None:
    go = GoELF()
    name = "N" + "x" * 200
    go.types.struct(f"main.{name}", [Field(name, go.types.plain("uint64", 8), 0)], 8)
    with opened(tmp_path, go.build()) as executable:
        assert executable.types.field(f"main.{name}", name).offset == 0


def test_what_is_no_struct_is_refused(tmp_path: Path) -> None:
    go = GoELF()
    word = go.types.plain("uint64", 8)
    go.types.struct("main.T", [], 0)
    with opened(tmp_path, go.build()) as executable, pytest.raises(MalformedExecutable, match="not a struct"):
        executable.types.at(word)


def wrappers(tmp_path: Path, go: GoELF, interface: int) -> dict[int, int]:
    with opened(tmp_path, go.build()) as executable:
        return executable.types.wrappers(interface, by_field_in="context")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_embedding_is_followed_through_structs_whatever_their_order(tmp_path: Path, layout: str) -> None:
    go = GoELF(layout)
    types = go.types
    word, context = types.plain("uint64", 8), types.plain("context.Context", 16, kind=20)
    depth = [types.struct("a.T0", [Field("n", word, 0), Field("Context", context, 8, True)], 24)]
    for i in range(1, 6):
        depth.append(
            types.struct(f"a.T{i}", [Field("n", word, 0), Field(f"T{i - 1}", depth[-1], 8, True)], 64)
        )
    found = wrappers(tmp_path, go, context)
    assert [found[address] for address in depth] == [8, 16, 24, 32, 40, 48]
    assert len(found) == 12  # and the pointers


def test_an_embedded_pointer_is_followed_once(tmp_path: Path) -> None:
    """As in context.timerCtx of Go 1.20, which embeds a *cancelCtx."""
    go = GoELF()
    types = go.types
    word, context = types.plain("uint64", 8), types.plain("context.Context", 16, kind=20)
    inner = types.struct("a.Inner", [Field("n", word, 0), Field("Context", context, 8, True)], 24)
    pointer = types.address + types.pointers[-1]
    outer = types.struct("a.Outer", [Field("n", word, 0), Field("Inner", pointer, 8, True)], 16)
    around = types.struct("a.Around", [Field("n", word, 0), Field("Outer", outer, 8, True)], 24)
    to_around = types.address + types.pointers[-1]
    twice = types.struct("a.Twice", [Field("Around", to_around, 0, True)], 8)
    plain = types.struct("context.plain", [Field("inner", pointer, 0)], 8)
    found = wrappers(tmp_path, go, context)
    assert found[inner] == 8
    assert found[outer] == behind_pointer(8, 8)
    assert found[around] == behind_pointer(16, 8)
    assert twice not in found and plain not in found


def test_a_place_that_is_absurdly_far_is_left_out(tmp_path: Path) -> None:
    go = GoELF()
    types = go.types
    context = types.plain("context.Context", 16, kind=20)
    inner = types.struct("a.Inner", [Field("Context", context, 0xFFF0, True)], 1 << 17)
    outer = types.struct("a.Outer", [Field("Inner", inner, 0xFFF0, True)], 1 << 18)
    found = wrappers(tmp_path, go, context)
    assert inner in found and outer not in found


@pytest.mark.parametrize(
    ("package", "counts"), [("context", True), ("mycontext", False), ("a/context", False)]
)
def test_a_plain_field_counts_in_the_context_package_alone(
    tmp_path: Path, package: str, counts: bool
) -> None:
    go = GoELF()
    context = go.types.plain("context.Context", 16, kind=20)
    address = go.types.struct(f"{package}.withoutCancelCtx", [Field("c", context, 0)], 16)
    assert (address in wrappers(tmp_path, go, context)) is counts


def test_a_struct_that_embeds_itself_ends_the_search(tmp_path: Path) -> None:
    go = GoELF()
    context = go.types.plain("context.Context", 16, kind=20)
    one = go.types.struct("a.One", [Field("x", context, 0), Field("y", context, 16)], 16)
    data = bytearray(go.build())
    rows = struct.pack("<QQ", context, 0)
    struct.pack_into("<Q", data, data.index(rows), one)
    with opened(tmp_path, data) as executable:
        assert executable.types.wrappers(context, by_field_in="context") == {}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_types_that_reach_beyond_the_file_are_refused(tmp_path: Path, layout: str) -> None:
    go = GoELF(layout)
    go.types.struct("main.T", [], 0)
    data = bytearray(go.build())
    at = module_data(data, go)
    types = BASE + 0x10000
    for span in (1 << 20, 1 << 31, 1 << 62):
        changed = bytearray(data)
        if layout == "1.27":
            struct.pack_into("<QQ", changed, at + 8 * 38, span, types + span)
        else:
            struct.pack_into("<Q", changed, at + 8 * 38, types + span)
            links = changed.index(struct.pack("<i", go.types.pointers[0]), 0x10000 + 200)
            struct.pack_into("<i", changed, links, (1 << 20) - 4096)
        with opened(tmp_path, changed) as executable, pytest.raises(ExecutableError):
            executable.types.find("main.T")


def test_descriptors_up_to_the_end_of_all_addresses_are_refused(tmp_path: Path) -> None:
    go = GoELF("1.27")
    go.types.struct("main.T", [], 0)
    data = bytearray(go.build())
    struct.pack_into("<QQ", data, module_data(data, go) + 8 * 38, 1 << 63, (1 << 64) - 1)
    with opened(tmp_path, data) as executable, pytest.raises(ExecutableError):
        executable.types.find("main.T")


@pytest.mark.parametrize("layout", TYPELINK_LAYOUTS)
def test_a_typelink_far_outside_is_passed_over(tmp_path: Path, layout: str) -> None:
    go = GoELF(layout)
    for i in range(200):
        go.types.struct(f"main.T{i}", [], 0)
    for name in "ABC":
        go.types.struct(f"main.{name}", [], 0)
    data = bytearray(go.build())
    links = data.index(struct.pack("<3i", *go.types.pointers[-3:]))
    for value in (-1, 0, 1, 0x7FFFFFFF, -(1 << 31)):
        struct.pack_into("<i", data, links + 4, value)
        with opened(tmp_path, data) as executable:
            executable.types.find("main.A")
            executable.types.find("main.C")
            with pytest.raises(TypeMissing):
                executable.types.find("main.B")


@pytest.mark.parametrize("layout", TYPELINK_LAYOUTS)
@pytest.mark.parametrize("length", [0, 1, 3, 1 << 24, 1 << 63])
def test_typelinks_of_a_wrong_length_are_none(tmp_path: Path, layout: str, length: int) -> None:
    go = GoELF(layout)
    go.types.struct("main.T", [], 0)
    data = bytearray(go.build())
    word = 45 if layout == "1.24" else 46
    struct.pack_into("<Q", data, module_data(data, go) + 8 * word, length)
    with opened(tmp_path, data) as executable, pytest.raises(UnsupportedExecutable, match="moduledata"):
        executable.types.find("main.T")


@pytest.mark.parametrize("tail", [b"\0\xff", b"\0\xff\xff", b"\0\x80\x80\x80\x80", b"\0\x05abcd", b"\0"])
def test_a_name_that_the_end_of_the_file_cuts_is_refused(tmp_path: Path, tail: bytes) -> None:
    go = GoELF()
    go.types.struct("main.T", [Field("f", go.types.plain("uint64", 8), 0)], 8)
    data = bytearray(go.build())
    (name,) = (BASE + data.index(b"\0\x01f"),)
    at = data.index(struct.pack("<Q", name))
    struct.pack_into("<Q", data, at, BASE + len(data))
    data += tail
    struct.pack_into("<QQ", data, 64 + 32, len(data), len(data))
    with opened(tmp_path, data) as executable, pytest.raises(MalformedExecutable):
        executable.types.field("main.T", "f")


@pytest.mark.parametrize(("where", "value"), [(56, 0), (56, 1 << 63), (64, 4097), (64, (1 << 64) - 1)])
def test_fields_that_are_nowhere_or_too_many_are_refused(tmp_path: Path, where: int, value: int) -> None:
    go = GoELF()
    address = go.types.struct("main.T", [Field("f", go.types.plain("uint64", 8), 0)], 8)
    data = bytearray(go.build())
    struct.pack_into("<Q", data, address - BASE + where, value)
    with opened(tmp_path, data) as executable, pytest.raises(MalformedExecutable):
        executable.types.field("main.T", "f")
