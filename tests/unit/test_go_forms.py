"""However a program was linked and stripped, the same is read from it."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from pytraceprop.errors import ExecutableError, MalformedExecutable, NotGo, UnsupportedExecutable
from pytraceprop.go import Executable
from tests.unit import elfwriter
from tests.unit.elfwriter import LAYOUTS, Field, GoELF

POINTERS = ["in place", "rela", "relr"]
NAME = "net/http.Request"


def sample(layout: str = "1.27", base: int = 0) -> GoELF:
    go = GoELF(layout, base=base)
    context = go.types.plain("context.Context", 16, kind=20)
    go.types.struct(NAME, [Field("Method", context, 0), Field("Host", context, 40)], size=56)
    go.types.struct(
        "context.valueCtx", [Field("n", context, 0), Field("Context", context, 24, True)], size=40
    )
    go.function("main.main", b"\x55\xc3")
    go.function("main.other", b"\x90" * 20)
    return go


def opened(directory: Path, data: bytes) -> Executable:
    path = directory / "program"
    path.write_bytes(data)
    return Executable(path)


def check(executable: Executable, go: GoELF) -> None:
    """All that the sample says is read."""
    assert (executable.build.go, executable.build.main_module) == ("1.27.3", "demo")
    assert executable.image.note_build_id() == b"build-id".hex()
    first, second = executable.function("main.main"), executable.function("main.other")
    assert (first.start, first.end) == (go.text + 16, second.start)
    assert executable.image.read(first.start, 2) == b"\x55\xc3"
    types = executable.types
    assert types.field(NAME, "Host").offset == 40
    request = types.pointer_to(NAME)
    assert types.element(request) == types.find(NAME)
    context = types.field(NAME, "Host").type
    found = types.wrappers(context, by_field_in="context")
    assert found[types.find("context.valueCtx")] == found[types.pointer_to("context.valueCtx")] in (0, 24)


@pytest.mark.parametrize("headers", [True, False], ids=["sections", "no sections"])
@pytest.mark.parametrize("merged", [False, True], ids=["apart", "merged"])
@pytest.mark.parametrize("pointers", POINTERS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_position_independent_executable_is_read(
    tmp_path: Path, layout: str, pointers: str, merged: bool, headers: bool
) -> None:
    go = sample(layout)
    kind = 2 if pointers == "in place" else 3
    with opened(
        tmp_path, go.build(kind=kind, pointers=pointers, merged=merged, headers=headers)
    ) as executable:
        assert executable.image.position_independent == (kind == 3)
        check(executable, go)


@pytest.mark.parametrize("headers", [True, False], ids=["sections", "no sections"])
@pytest.mark.parametrize("merged", [False, True], ids=["apart", "merged"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_an_executable_at_a_fixed_address_is_read(
    tmp_path: Path, layout: str, merged: bool, headers: bool
) -> None:
    go = sample(layout, base=0x400000)
    with opened(tmp_path, go.build(merged=merged, headers=headers)) as executable:
        check(executable, go)


def test_without_its_relocations_a_position_independent_executable_says_nothing(tmp_path: Path) -> None:
    """Otherwise the tests above would show nothing: GNU ld leaves zeros where pointers go."""
    data = bytearray(sample().build(kind=3, pointers="rela"))
    size = data.rindex(struct.pack("<QQQ", 9, 24, 0x6FFFFFFB)) - 8
    struct.pack_into("<Q", data, size, 0)
    with (
        opened(tmp_path, bytes(data)) as executable,
        pytest.raises(UnsupportedExecutable, match="moduledata"),
    ):
        executable.types.find(NAME)


def dynamic_tag(data: bytes, tag: int) -> int:
    """Where in the file the value of a tag is."""
    (count,) = struct.unpack_from("<H", data, 56)
    rows = [struct.unpack_from("<IIQQQQQQ", data, 64 + 56 * i) for i in range(count)]
    (start, size) = next((row[2], row[5]) for row in rows if row[0] == 2)
    for at in range(start, start + size, 16):
        if struct.unpack_from("<Q", data, at)[0] == tag:
            return at + 8
    raise AssertionError(f"no tag {tag}")


@pytest.mark.parametrize(
    ("tag", "value"), [(7, 1 << 40), (7, (1 << 64) - 8), (8, 1 << 40), (8, (1 << 64) - 24), (9, 16), (9, 0)]
)
def test_relocations_that_are_nowhere_are_refused(tmp_path: Path, tag: int, value: int) -> None:
    data = bytearray(sample().build(kind=3, pointers="rela"))
    struct.pack_into("<Q", data, dynamic_tag(data, tag), value)
    with opened(tmp_path, bytes(data)) as executable, pytest.raises(MalformedExecutable):
        executable.types.find(NAME)


def test_a_dynamic_section_outside_the_file_is_refused(tmp_path: Path) -> None:
    data = bytearray(sample().build(kind=3, pointers="rela"))
    struct.pack_into("<Q", data, 64 + 2 * 56 + 8, len(data) - 8)
    with pytest.raises(MalformedExecutable, match="truncated"):
        opened(tmp_path, bytes(data))


@pytest.mark.parametrize("place", [0, 0x10008, 0x1FFF8, 1 << 40, (1 << 64) - 8, (1 << 64) - 1, 0x10011])
def test_a_relocation_of_any_place_does_no_harm(tmp_path: Path, place: int) -> None:
    go = sample()
    data = bytearray(go.build(kind=3, pointers="rela"))
    table = struct.unpack_from("<Q", data, dynamic_tag(data, 7))[0]
    for i in range(4):
        changed = bytearray(data)
        struct.pack_into("<Q", changed, table + 24 * i, place)
        try:
            with opened(tmp_path, bytes(changed)) as executable:
                check(executable, go)
        except (ExecutableError, AssertionError):
            continue


def test_relocations_of_another_kind_are_left_alone(tmp_path: Path) -> None:
    go = sample()
    data = bytearray(go.build(kind=3, pointers="rela"))
    size = dynamic_tag(data, 8)
    table, length = (struct.unpack_from("<Q", data, at)[0] for at in (dynamic_tag(data, 7), size))
    place, _, value = struct.unpack_from("<QQQ", data, table)
    # A R_X86_64_JUMP_SLOT, in the place of the section names that follow the dynamic section.
    grown = data + data[table : table + length] + struct.pack("<QQQ", place, 3 << 32 | 7, value + 8)
    struct.pack_into("<Q", grown, dynamic_tag(data, 7), len(data))
    struct.pack_into("<Q", grown, size, length + 24)
    struct.pack_into("<QQ", grown, 64 + 32, len(grown), len(grown))
    with opened(tmp_path, bytes(grown)) as executable:
        check(executable, go)


@pytest.mark.parametrize("pointers", ["in place", "rela"])
@pytest.mark.parametrize("places", [(38, 45), (41, 55), (30, 33)])
def test_a_moduledata_that_no_release_has_is_read_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, places: tuple[int, int], pointers: str
) -> None:
    """A fork, or a release to come, that adds fields or takes some away."""
    monkeypatch.setitem(elfwriter._TYPES_AND_LINKS, "unheard of", places)
    go = sample("unheard of")
    with opened(tmp_path, go.build(kind=2 if pointers == "in place" else 3, pointers=pointers)) as executable:
        check(executable, go)


def test_a_shared_library_is_no_executable(tmp_path: Path) -> None:
    data = bytearray(sample().build(kind=3, pointers="rela"))
    struct.pack_into("<Q", data, dynamic_tag(data, 0x6FFFFFFB), 0)  # without DF_1_PIE
    with pytest.raises(NotGo, match="shared library"):
        opened(tmp_path, bytes(data))
    note = 64 + 56
    struct.pack_into("<I", data, note, 3)  # PT_INTERP: the loader starts it, so it is one
    with opened(tmp_path, bytes(data)) as executable:
        assert executable.has_function("main.main")


def test_bytes_that_look_like_the_table_of_functions_are_passed_over(tmp_path: Path) -> None:
    go = GoELF(base=0)
    go.function("fake", struct.pack("<IHBB", 0xFFFFFFF1, 0, 1, 8) + b"\xff" * 64)
    go.function("main.main", b"\x55\xc3")
    with opened(tmp_path, go.build(merged=True)) as executable:
        assert executable.has_function("main.main")


def test_a_program_that_another_carries_with_it_is_not_mistaken_for_it(tmp_path: Path) -> None:
    inner = GoELF(base=0)
    inner.function("inner.main", b"\xc3")
    go = GoELF(base=0)
    go.function("embedded", inner.build()[0x10000:])
    assert go.next_function() < go.types.address
    go.function("main.main", b"\x55\xc3")
    data = go.build(kind=3, pointers="rela", merged=True)
    head = struct.pack("<IHBB", 0xFFFFFFF1, 0, 1, 8)
    assert data.index(head) % 8 == 0 and data.count(head) == 2
    with opened(tmp_path, data) as executable:
        assert executable.has_function("main.main") and not executable.has_function("inner.main")


def test_a_file_without_any_table_of_functions_is_no_go(tmp_path: Path) -> None:
    data = sample().build(merged=True, headers=False)
    data = data.replace(struct.pack("<IHBB", 0xFFFFFFF1, 0, 1, 8), bytes(8))
    with opened(tmp_path, data) as executable, pytest.raises(NotGo, match="table of Go functions"):
        executable.function("main.main")


def test_a_file_without_build_information_is_no_go(tmp_path: Path) -> None:
    data = sample().build(merged=True, headers=False).replace(b"\xff Go buildinf:", bytes(14))
    with opened(tmp_path, data) as executable, pytest.raises(NotGo, match="build information"):
        _ = executable.build


def test_a_type_is_found_whatever_its_package_calls_itself(tmp_path: Path) -> None:
    """gopkg.in/yaml.v3 is package yaml; type arguments have dots and slashes of their own."""
    go = GoELF()
    word = go.types.plain("uint64", 8)
    go.types.struct("gopkg.in/yaml.v3.Node", [Field("Kind", word, 8)], 16, short="yaml.Node")
    go.types.struct("example.com/go-thing/v2.Node", [Field("Kind", word, 16)], 24, short="thing.Node")
    generic = "sync/atomic.Pointer[net/http.response]"
    go.types.struct(generic, [Field("v", word, 0)], 8, short="atomic.Pointer[net/http.response]")
    with opened(tmp_path, go.build()) as executable:
        types = executable.types
        assert types.field("gopkg.in/yaml.v3.Node", "Kind").offset == 8
        assert types.field("example.com/go-thing/v2.Node", "Kind").offset == 16
        assert types.field(generic, "v").offset == 0
        assert types.at(types.find(generic)).name == "atomic.Pointer[net/http.response]"


def test_offsets_that_are_shifted_as_before_go_1_19_are_refused(tmp_path: Path) -> None:
    go = GoELF()
    word = go.types.plain("uint64", 8)
    go.types.struct(
        "main.T", [Field("a", word, 0 << 1), Field("b", word, 8 << 1), Field("c", word, 16 << 1)], 24
    )
    with (
        opened(tmp_path, go.build()) as executable,
        pytest.raises(UnsupportedExecutable, match=r"before 1\.19"),
    ):
        executable.types.field("main.T", "b")
