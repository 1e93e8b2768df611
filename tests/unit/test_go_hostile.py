"""Executables made to mislead: reading them ends soon, in little memory, in an answer or a typed error.

A tracer runs as root and reads files that others made.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import struct
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pytraceprop.errors import ExecutableError, MalformedExecutable
from pytraceprop.go import Executable, pclntab
from pytraceprop.go.image import Image
from pytraceprop.go.maps import read_map_layout
from pytraceprop.go.relocations import Relocations
from pytraceprop.go.sites import Code, SiteMissing
from pytraceprop.go.types import STRUCT
from pytraceprop.probes import read_plan
from tests.unit.elfwriter import BASE, LAYOUTS, Field, GoELF
from tools import golang

HELLO = Path(__file__).resolve().parents[1] / "go" / "hello"
SECONDS = 20.0
MEMORY = 1 << 30  # more address space than at the test's start, in bytes

#: What is written over each word: signs, ends of ranges, addresses at the file's edges.
ABSURD = (0, 1, 7, 0x7FFFFFFF, 0xFFFFFFFF, 1 << 47, (1 << 63) - 1, 1 << 63, (1 << 64) - 80, (1 << 64) - 1)


class TooSlow(BaseException):
    """No Exception, so that nothing on the way catches it."""


@pytest.fixture(scope="module")
def hello() -> bytes:
    """A real program. Of a wider scope than the bounds, in which no compiler could run."""
    return golang.build(HELLO, "1.27", ldflags="-s -w").read_bytes()


@pytest.fixture(autouse=True)
def _bounded() -> Iterator[None]:
    """Every test of this module has little processor time and memory."""

    def stop(*_: object) -> None:
        raise TooSlow

    pages = int(Path("/proc/self/statm").read_text().split()[0])
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    before = signal.signal(signal.SIGPROF, stop)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MEMORY, hard))
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
        signal.signal(signal.SIGPROF, before)


#: Layouts of moduledata, and one executable of the kind that says least: nothing is where it is expected.
FORMS = (*LAYOUTS, "1.26 sstripped pie")


def sample(form: str) -> tuple[bytes, int]:
    """An executable in which every question has an answer, and the address of its map type."""
    layout, _, kind = form.partition(" ")
    go = GoELF(layout, base=0 if kind else BASE)
    types = go.types
    word, text = types.plain("uint64", 8), types.plain("string", 16)
    context = types.plain("context.Context", 16, kind=20)
    inner = types.struct("context.cancelCtx", [Field("Context", context, 0, True)], 16)
    types.struct("net/http.Request", [Field("Host", text, 0), Field("ctx", context, 16)], 32)
    types.struct("example.com/app.Ctx", [Field("n", word, 0), Field("cancelCtx", inner, 8, True)], 24)
    slot = types.struct("maps.slot", [Field("key", text, 0), Field("elem", word, 16)], 40, by_pointer=False)
    cells = [Field("ctrl", word, 0), Field("slots", types.array(slot, 320), 8)]
    group = types.struct("maps.group", cells, 328, by_pointer=False)
    reference = types.struct(
        "internal/runtime/maps.groupsReference", [Field("data", word, 0), Field("lengthMask", word, 8)], 16
    )
    types.struct("internal/runtime/maps.table", [Field("groups", reference, 16)], 32)
    head = [Field(name, word, 8 * i) for i, name in enumerate(("used", "dirPtr", "dirLen", "writing"))]
    types.struct("internal/runtime/maps.Map", head, 48)
    header = types.map(text, types.plain("[]string", 24), group)
    callee = go.function("callee", b"\xc3")
    call = b"\xe8" + struct.pack("<i", callee - (go.next_function() + 9))
    # push rbp; mov rbp, rsp; call; test rbx, rbx; je +1; ret; ret
    go.function("main.main", b"\x55\x48\x89\xe5" + call + b"\x48\x85\xdb\x74\x01\xc3\xc3")
    if kind:
        return go.build(kind=3, pointers="rela", merged=True, headers=False), header
    return go.build(), header


def questions(header: int) -> list[Callable[[Executable], object]]:
    """All that a probe module asks."""

    def sites(executable: Executable) -> None:
        code = executable.code("main.main")
        call = code.only_call(executable.function("callee"))
        _, success = code.test_after(call, 1)
        code.returns_from(call, without=success)

    return [
        lambda e: e.image.note_build_id(),
        lambda e: e.build,
        sites,
        lambda e: e.image.file_offset(e.function("main.main").start),
        lambda e: e.types.field("net/http.Request", "Host"),
        lambda e: e.types.pointer_to("net/http.Request"),
        lambda e: e.types.wrappers(e.types.field("net/http.Request", "ctx").type, by_field_in="context"),
        lambda e: read_map_layout(e.image, e.types, header),
        lambda e: e.types.at(e.types.find("example.com/app.Ctx")),
    ]


def ask_everything(path: Path, header: int = 0) -> int:
    """How many questions were refused. Each is asked, whatever the others gave."""
    asked = questions(header)
    try:
        executable = Executable(path)
    except ExecutableError:
        return len(asked)
    refused = 0
    with executable:
        for question in asked:
            try:
                question(executable)
            except ExecutableError:
                refused += 1
    return refused


@pytest.mark.parametrize("form", FORMS)
def test_the_undamaged_sample_answers_every_question(tmp_path: Path, form: str) -> None:
    data, header = sample(form)
    path = tmp_path / "program"
    path.write_bytes(data)
    assert ask_everything(path, header) == 0


@pytest.mark.parametrize("form", FORMS)
def test_a_file_cut_anywhere_gives_answers_or_typed_errors(tmp_path: Path, form: str) -> None:
    data, header = sample(form)
    path = tmp_path / "program"
    for size in range(0, len(data), 64):
        path.write_bytes(data[:size])
        assert ask_everything(path, header) > 0


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("width", "step"), [("<Q", 8), ("<I", 4)])
def test_no_absurd_word_anywhere_gives_more_than_a_typed_error(
    tmp_path: Path, form: str, width: str, step: int
) -> None:
    data, header = sample(form)
    size = len(data)
    values = {v & (1 << 8 * step) - 1 for v in (*ABSURD, size, size - 2, BASE + size - 2, BASE + size - 9)}
    path = tmp_path / "program"
    path.write_bytes(data)
    escaped: dict[str, str] = {}
    with path.open("r+b", buffering=0) as file:
        for at in range(0, size - step, step):
            if not any(data[max(0, at - 16) : at + step]):
                continue  # padding
            for value in sorted(values):
                os.pwrite(file.fileno(), struct.pack(width, value), at)
                try:
                    ask_everything(path, header)
                except Exception as error:
                    where = traceback.extract_tb(error.__traceback__)[-1]
                    escaped.setdefault(f"{error!r} in {where.name}: {where.line}", f"{value:#x} at {at:#x}")
            os.pwrite(file.fileno(), data[at : at + step], at)
    assert not escaped


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    form=st.sampled_from(FORMS),
    changes=st.lists(st.tuples(st.integers(0), st.integers(0, 255)), min_size=1, max_size=40),
)
def test_flipped_bytes_give_answers_or_typed_errors(
    tmp_path: Path, form: str, changes: list[tuple[int, int]]
) -> None:
    original, header = sample(form)
    data = bytearray(original)
    # Near what is used, zeros included: high bytes of addresses are zero.
    used = [i for i in range(len(data)) if any(data[max(0, i - 8) : i + 8])]
    for where, byte in changes:
        data[used[where % len(used)]] = byte
    path = tmp_path / "program"
    path.write_bytes(data)
    ask_everything(path, header)


def test_a_real_program_cut_within_its_headers_is_refused(tmp_path: Path, hello: bytes) -> None:
    path = tmp_path / "program"
    for size in range(0, 8192, 64):
        path.write_bytes(hello[:size])
        with pytest.raises(ExecutableError):
            read_plan(path)


def headers_of(data: bytes) -> dict[str, int]:
    """Where in the file each section's header is."""
    (start,) = struct.unpack_from("<Q", data, 40)
    count, names = struct.unpack_from("<HH", data, 60)
    (text,) = struct.unpack_from("<Q", data, start + 64 * names + 24)
    found = {}
    for i in range(count):
        at = start + 64 * i
        name = text + struct.unpack_from("<I", data, at)[0]
        found[data[name : data.index(b"\0", name)].decode()] = at
    return found


@pytest.mark.parametrize("section", [".go.buildinfo", ".note.go.buildid", ".gopclntab", ".go.module"])
def test_a_sparse_file_of_many_gigabytes_costs_little(tmp_path: Path, section: str) -> None:
    data, header = sample("1.27")
    data = bytearray(data)
    size = 1 << 36
    at = headers_of(data)[section]
    (offset,) = struct.unpack_from("<Q", data, at + 24)
    struct.pack_into("<Q", data, at + 32, size - offset)
    if section == ".note.go.buildid":
        struct.pack_into("<I", data, offset + 4, 0xFFFFFF00)
    path = tmp_path / "program"
    path.write_bytes(data)
    os.truncate(path, size)
    ask_everything(path, header)


def test_a_function_of_many_megabytes_is_not_disassembled(tmp_path: Path) -> None:
    go = GoELF()
    go.function("main.main", b"\x90" * 16)
    data = bytearray(go.build())
    start, size = len(data), 32 << 20
    text = data.index(struct.pack("<QQQQ", go.text + 16, go.text + 32, go.text, go.text + 32))
    ends = (BASE + start, BASE + start + size)
    struct.pack_into("<QQQQ", data, text, ends[0] + 16, ends[1], *ends)
    struct.pack_into("<I", data, data.index(struct.pack("<I", 32), data.index(b"main.main\0")), size)
    data += b"\x90" * size
    struct.pack_into("<QQ", data, 64 + 32, len(data), len(data))
    path = tmp_path / "program"
    path.write_bytes(data)
    with Executable(path) as executable:
        assert executable.function("main.main").end == BASE + start + size
        with pytest.raises(ExecutableError, match=r"main\.main"):
            executable.code("main.main")


def long_name(length: int) -> bytes:
    """A name's head (internal/abi.Name) that claims so many bytes."""
    out = bytearray(b"\0")
    while length >= 0x80:
        out.append(length & 0x7F | 0x80)
        length >>= 7
    return bytes([*out, length])


def test_names_that_claim_megabytes_are_not_copied_for_each_type(tmp_path: Path) -> None:
    go = GoELF()
    for i in range(400):
        go.types.struct(f"example.com/app.Type{i:04}", [], 0)
    data = bytearray(go.build())
    at = 0
    while (at := data.find(b"\0\x0d*app.Type", at)) >= 0:
        data[at : at + 5] = long_name(8 << 20)
        at += 1
    data += bytes(9 << 20)
    struct.pack_into("<QQ", data, 64 + 32, len(data), len(data))
    path = tmp_path / "program"
    path.write_bytes(data)
    ask_everything(path)


def test_section_names_that_run_on_are_not_copied_for_each_section(tmp_path: Path) -> None:
    count, table = 2000, 4 << 20
    ident = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    data = bytearray(struct.pack("<16sHHIQQQIHHHHHH", ident, 2, 62, 1, 0, 64, 64, 0, 64, 56, 0, 64, count, 0))
    names_at = 64 + 64 * count
    for i in range(count):
        data += struct.pack("<IIQQQQIIQQ", i, 1, 2, 0, names_at, table, 0, 0, 1, 0)
    data += b"x" * (table - 1) + b"\0"
    path = tmp_path / "program"
    path.write_bytes(data)
    with pytest.raises(MalformedExecutable), Image(path):
        pass


def test_a_long_chain_of_embedding_is_followed_only_so_far(tmp_path: Path) -> None:
    go = GoELF()
    inner = context = go.types.plain("context.Context", 16, kind=20)
    go.types.struct("net/http.Request", [Field("ctx", context, 0)], 16)
    for i in range(3000):
        inner = go.types.struct(f"a.T{i}", [Field("T", inner, 0, True)], 16)
    path = tmp_path / "program"
    data = go.build()
    path.write_bytes(data)
    signal.setitimer(signal.ITIMER_PROF, 5)
    with Executable(path) as executable:
        types = executable.types
        try:
            found = types.wrappers(context, by_field_in="context")
        except ExecutableError:
            return
        assert all(types.kind(address) >= STRUCT - 3 for address in found)


def test_fields_that_all_types_share_are_counted_once_for_each(tmp_path: Path) -> None:
    """Descriptors may overlap, so a small file can hold very many fields."""
    go = GoELF()
    word = go.types.plain("uint64", 8)
    context = go.types.plain("context.Context", 16, kind=20)
    shared = [Field(f"f{i}", word, 0) for i in range(4096)]
    go.types.struct("a.First", shared, 16)
    for i in range(6000):
        go.types.struct(f"a.T{i}", [], 16)
    data = bytearray(go.build())
    first = struct.pack("<QQ", 4096, 4096)
    at = data.index(first)
    (rows,) = struct.unpack_from("<Q", data, at - 8)
    changed = 0
    for offset in range(at + 16, len(data) - 88, 8):
        # a struct's descriptor: size 16, kind 25
        if data[offset : offset + 8] == struct.pack("<Q", 16) and data[offset + 23] == STRUCT:
            struct.pack_into("<QQQ", data, offset + 56, rows, 4096, 4096)
            changed += 1
    assert changed == 6000
    path = tmp_path / "program"
    path.write_bytes(data)
    signal.setitimer(signal.ITIMER_PROF, 5)
    with Executable(path) as executable:
        try:
            executable.types.wrappers(context, by_field_in="context")
        except ExecutableError:
            return


def test_thousands_of_segments_are_refused(tmp_path: Path) -> None:
    data, _ = sample("1.27")
    data = bytearray(data)
    at = len(data)
    data += struct.pack("<IIQQQQQQ", 1, 5, 0, 1 << 60, 0, 8, 8, 0x1000) * 4000
    data += data[64:120]
    struct.pack_into("<Q", data, 32, at)
    struct.pack_into("<H", data, 56, 4001)
    path = tmp_path / "program"
    path.write_bytes(data)
    with pytest.raises(MalformedExecutable):
        Executable(path)


def test_a_module_data_found_everywhere_is_not_tried_for_ever(tmp_path: Path) -> None:
    data, _ = sample("1.27")
    data = bytearray(data)
    headers = headers_of(data)
    struct.pack_into("<Q", data, headers[".gopclntab"] + 16, 0)  # its address: the needle is zeros
    module = headers[".go.module"]
    size = 64 << 20
    struct.pack_into("<QQ", data, module + 24, len(data), size)
    data += bytes(size)
    path = tmp_path / "program"
    path.write_bytes(data)
    signal.setitimer(signal.ITIMER_PROF, 5)
    with Executable(path) as executable, contextlib.suppress(ExecutableError):
        executable.function("main.main")


def test_a_file_full_of_what_begins_like_the_table_of_functions_is_not_searched_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    head = struct.pack("<IHBB", 0xFFFFFFF1, 0, 1, 8)
    data = bytearray(sample("1.26 sstripped pie")[0].replace(head, bytes(8)))
    data += head * 100_000
    struct.pack_into("<QQ", data, 64 + 32, len(data), len(data))
    path = tmp_path / "program"
    path.write_bytes(data)
    tried = []
    read = pclntab._read
    monkeypatch.setattr(pclntab, "_read", lambda *args: tried.append(args) or read(*args))
    with Executable(path) as executable, pytest.raises(ExecutableError):
        executable.function("main.main")
    assert 0 < len(tried) < 10_000


def test_relocations_beyond_all_reason_are_not_applied(tmp_path: Path) -> None:
    data = bytearray(sample("1.26 sstripped pie")[0])
    path = tmp_path / "program"
    size = 24 * (Relocations.MOST + 1)
    (rela,) = (
        at
        for at in range(0, len(data) - 64, 8)
        if data[at : at + 8] == struct.pack("<Q", 7)[:8] and data[at + 16 : at + 24] == struct.pack("<Q", 8)
    )
    struct.pack_into("<QQQ", data, rela + 8, len(data), 8, size)
    struct.pack_into("<QQ", data, 64 + 32, len(data) + size, len(data) + size)
    path.write_bytes(data)
    os.truncate(path, len(data) + size)
    with Executable(path) as executable, pytest.raises(MalformedExecutable, match="number of relocations"):
        executable.function("main.main")


PUSH = bytes.fromhex("55 4889e5")  # push rbp; mov rbp, rsp
TEST_RBX = bytes.fromhex("4885db")
SAVE = bytes.fromhex("48898424a8010000")  # mov [rsp+0x1a8], rax
LOAD = bytes.fromhex("488b9424a8010000488b4238")  # mov rdx, [rsp+0x1a8]; mov rax, [rdx+0x38]


def coded(tmp_path: Path, before: bytes, after: bytes) -> tuple[Code, int]:
    """A function that calls another between two pieces of code; also where the call is."""
    go = GoELF()
    callee = go.function("callee", b"\xc3")
    call = go.next_function() + len(before)
    go.function("sample", before + b"\xe8" + struct.pack("<i", callee - call - 5) + after)
    path = tmp_path / "program"
    path.write_bytes(go.build())
    with Executable(path) as executable:
        return executable.code("sample"), call


@pytest.mark.parametrize(
    "after", [b"", TEST_RBX, b"\x66\x90", b"\xeb\xfe", b"\xeb\xf4"], ids=lambda code: code.hex() or "none"
)
def test_code_that_ends_or_loops_behind_the_call_has_no_test(tmp_path: Path, after: bytes) -> None:
    code, call = coded(tmp_path, PUSH, after)
    # Whatever fills the gap up to the next function is cut off: the function itself ends here.
    last = call + 5 + len(after)
    code.instructions = [one for one in code.instructions if one.address < last]
    with pytest.raises(SiteMissing, match="does not test result 1"):
        code.test_after(call, 1)


def test_a_receiver_saved_only_behind_a_call_is_refused(tmp_path: Path) -> None:
    """By then RAX is what the call gave."""
    inner = PUSH + b"\xe8\0\0\0\0" + SAVE + LOAD
    code, call = coded(tmp_path, inner, b"\xc3")
    with pytest.raises(SiteMissing, match="something else"):
        code.receiver_slot(call, 0, 0x38)


def test_a_receiver_saved_after_rax_was_overwritten_is_refused(tmp_path: Path) -> None:
    code, call = coded(tmp_path, PUSH + b"\x31\xc0" + SAVE + LOAD, b"\xc3")  # xor eax, eax
    with pytest.raises(SiteMissing, match="something else"):
        code.receiver_slot(call, 0, 0x38)
