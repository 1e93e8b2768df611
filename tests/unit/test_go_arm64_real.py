"""Plans of real arm64 programs, held against what Go's own disassembler and symbol table say.

A layout is the same on arm64 and amd64, so the plan of the amd64 build is a truth for the fields.
Three releases are built unless PYTRACEPROP_FULL is set (make test-full): each compiles the library anew.
"""

from __future__ import annotations

import functools
import os
import re
import subprocess
from pathlib import Path

import attrs
import pytest

from pytraceprop.go.image import Image
from pytraceprop.probes import Plan, Site, http2, read_plan
from pytraceprop.probes.http1 import SiteKind
from tools import golang

SERVICE = Path(__file__).resolve().parents[1] / "go" / "chain" / "cmd" / "service"
BUILDMODES = ("exe", "pie")
RELEASES = tuple(golang.RELEASES) if os.environ.get("PYTRACEPROP_FULL") else ("1.19", "1.23", "1.27")
NET_HTTP = "net/http."
ROUND_TRIP = NET_HTTP + "(*Transport).roundTrip"
WRITE = NET_HTTP + "(*Request).write"

SERVE = NET_HTTP + "(*conn).serve"

FUNCTIONS = {
    SiteKind.SERVER_START: SERVE,
    SiteKind.SERVER_END: SERVE,
    SiteKind.SERVER_UNWIND: NET_HTTP + "(*conn).serve.func1",
    SiteKind.CLIENT_START: ROUND_TRIP,
    SiteKind.CLIENT_WRITE: WRITE,
    SiteKind.CLIENT_END: ROUND_TRIP,
    SiteKind.CLIENT_FAIL: ROUND_TRIP,
}
#: The function that has the site, and the instruction. In the bundle names begin with http2. Calls are
#: only counted: what their sites would be found by, x86-64 keeps on the stack.
HTTP2 = {
    http2.SiteKind.COUNT_CLIENT: (r"ClientConn\)\.[rR]oundTrip", r"CALL runtime\.newproc\(SB\)"),
    http2.SiteKind.SERVER_START: (r"serverConn\)\.runHandler", r"BLS .*"),
    http2.SiteKind.SERVER_END: (
        r"serverConn\)\.runHandler\.func[12]",
        r"CALL .*responseWriter\)\.handlerDone\(SB\)",
    ),
    http2.SiteKind.SERVER_UNWIND: (r"serverConn\)\.runHandler\.func[12]", r"CALL runtime\.gorecover\(SB\)"),
}
BUNDLE = r"net/http(/internal/http2\.\(\*|\.\(\*http2)"
#: What the kernel simulates under a uprobe, as Go's assembler calls it.
SIMULATED = re.compile(r"(CALL|JMP|CBN?Z|TBN?Z|ADRP?|B(EQ|NE|LS|HI|LO|HS|LT|GE|LE|GT|MI|PL|CC|CS)|RET)\b")

#: One line of `go tool objdump`: where in the source, address, encoding, instruction.
LINE = re.compile(r"^\s+\S+:\d+\s+0x([0-9a-f]+)\s+[0-9a-f]{8}\s+(.*?)\s*$")


@attrs.frozen
class Line:
    """One instruction as Go's disassembler shows it."""

    function: str
    address: int
    text: str


@functools.cache
def disassembly(program: Path) -> tuple[Line, ...]:
    """The functions that have sites, by the symbol table and Go's disassembler."""
    names = "|".join([*map(re.escape, FUNCTIONS.values()), *(BUNDLE + name for name, _ in HTTP2.values())])
    command = [str(golang.find_go()), "tool", "objdump", "-s", f"^({names})$", str(program)]
    text = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    lines, function = [], ""
    for row in text.splitlines():
        if row.startswith("TEXT "):
            function = row.split()[1].removesuffix("(SB)")
        elif match := LINE.match(row):
            lines.append(Line(function, int(match[1], 16), match[2]))
    return tuple(lines)


def program(go: str, buildmode: str = "exe", arch: str = "arm64", ldflags: str = "") -> Path:
    return golang.build(SERVICE, go, buildmode=buildmode, arch=arch, ldflags=ldflags)


def index_of(path: Path, site: Site) -> int:
    """Which line of the disassembly a site is at."""
    with Image(path) as image:
        [segment] = [s for s in image.segments if 0 <= site.offset - s.offset < s.size]
    address = site.offset - segment.offset + segment.address
    [index] = [i for i, line in enumerate(disassembly(path)) if line.address == address]
    return index


def sites(plan: Plan, path: Path, kind: SiteKind) -> list[int]:
    return [index_of(path, site) for site in plan.sites if site.kind == kind]


def called(path: Path, function: str, callee: str) -> list[int]:
    return [
        i
        for i, line in enumerate(disassembly(path))
        if line.function == function and line.text == f"CALL {callee}(SB)"
    ]


pytestmark = [
    pytest.mark.parametrize("buildmode", BUILDMODES),
    pytest.mark.parametrize("go", RELEASES),
]


def test_both_sides_can_be_traced_and_layouts_are_those_of_amd64(go: str, buildmode: str) -> None:
    found = read_plan(program(go, buildmode))
    protocol = found.protocols["http/1.1"]
    assert (protocol.client.reason, protocol.server.reason) == ("", "")
    assert protocol.client.possible and protocol.server.possible
    assert (found.go, found.module, found.machine) == (golang.release(go), "chain", "arm64")
    other = read_plan(program(go, arch="amd64"))
    assert other.machine == "x86_64"

    def layout(plan: Plan) -> dict[str, int]:
        machine_code = {"write_receiver"}
        return {k: v for k, v in plan.fields.items() if not k.startswith("type_") and k not in machine_code}

    assert layout(found) == layout(other)
    assert sorted(found.context_types.values()) == sorted(other.context_types.values())


def test_sites_lie_in_their_functions_and_are_simulated(go: str, buildmode: str) -> None:
    path = program(go, buildmode)
    found = read_plan(path)
    lines = disassembly(path)
    for site in found.sites:
        line = lines[index_of(path, site)]
        if site.kind in set(http2.SiteKind):
            function, instruction = HTTP2[http2.SiteKind(site.kind)]
            assert re.fullmatch(BUNDLE + function, line.function)
            assert re.fullmatch(instruction, line.text)
        else:
            assert line.function == FUNCTIONS[SiteKind(site.kind)]
        assert SIMULATED.match(line.text), (site, line)
        assert (line.text == "RET") is (site.kind == SiteKind.CLIENT_FAIL)
    assert {site.kind for site in found.sites} == {*map(int, SiteKind), *map(int, HTTP2)}


def test_calls_are_those_that_the_symbol_table_names(go: str, buildmode: str) -> None:
    path = program(go, buildmode)
    found = read_plan(path)
    handler = called(path, SERVE, NET_HTTP + "serverHandler.ServeHTTP")
    assert sites(found, path, SiteKind.SERVER_START) == handler
    hijacked = called(path, SERVE, NET_HTTP + "(*conn).hijacked")
    assert sites(found, path, SiteKind.SERVER_END) == [min(i for i in hijacked if i > handler[0])]
    recovers = called(path, FUNCTIONS[SiteKind.SERVER_UNWIND], "runtime.gorecover")
    assert sites(found, path, SiteKind.SERVER_UNWIND) == recovers
    get_conn = called(path, ROUND_TRIP, NET_HTTP + "(*Transport).getConn")
    assert sites(found, path, SiteKind.CLIENT_START) == get_conn
    write_subset = called(path, WRITE, NET_HTTP + "Header.writeSubset")
    assert sites(found, path, SiteKind.CLIENT_WRITE) == write_subset[:1]


def test_the_end_of_a_call_tests_the_error_that_it_returned(go: str, buildmode: str) -> None:
    path = program(go, buildmode)
    lines = disassembly(path)
    [site] = sites(read_plan(path), path, SiteKind.CLIENT_END)
    [call] = called(path, ROUND_TRIP, NET_HTTP + "(*persistConn).roundTrip")
    assert re.match(r"CBN?Z R1, ", lines[site].text)
    assert site == call + 1


def test_the_receiver_is_where_the_function_put_it(go: str, buildmode: str) -> None:
    path = program(go, buildmode)
    found = read_plan(path)
    lines = disassembly(path)
    slot, field = found.fields["write_receiver"], found.fields["request_header"]
    stored = [line for line in lines if line.function == WRITE and line.text.endswith(f", {slot}(RSP)")]
    assert [line.text for line in stored] == [f"MOVD R0, {slot}(RSP)"]
    [site] = sites(found, path, SiteKind.CLIENT_WRITE)
    before = [line.text for line in lines[site - 12 : site]]
    loads = [re.fullmatch(rf"MOVD {field}\((R\d+)\), R0", text) for text in before]
    [register] = [match[1] for match in loads if match]
    assert f"MOVD {slot}(RSP), {register}" in before


def test_stripping_changes_nothing(go: str, buildmode: str) -> None:
    plain, stripped = (read_plan(program(go, buildmode, ldflags=flags)) for flags in ("", "-s -w"))
    assert plain.sites == stripped.sites

    def layout(plan: Plan) -> dict[str, int]:
        return {name: value for name, value in plan.fields.items() if not name.startswith("type_")}

    assert layout(plain) == layout(stripped)


def test_calls_through_trampolines_are_found(go: str, buildmode: str) -> None:
    """The linker makes them for every call between packages when it is told to."""
    plain, far = (read_plan(program(go, buildmode, ldflags=flags)) for flags in ("", "-debugtramp=2"))
    assert far.protocols["http/1.1"].client.reason == far.protocols["http/1.1"].server.reason == ""
    assert [site.kind for site in far.sites] == [site.kind for site in plain.sites]
    assert {site.offset for site in far.sites}.isdisjoint(site.offset for site in plain.sites)
