"""What is read of google.golang.org/grpc in real programs, and what of programs that have it not, or otherwise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pytraceprop.go import Executable
from pytraceprop.go.types import Field, TypeMissing, Types
from pytraceprop.probes import grpc, read_plan
from pytraceprop.probes.grpc import SiteKind
from tests.bpf.grpccases import NEWEST, SOURCES, VERSIONS, build
from tools import golang

HELLO = Path(__file__).resolve().parents[1] / "go" / "hello"
CLIENT = {kind for kind in SiteKind if kind.name.startswith("CLIENT")}


@pytest.mark.parametrize("version", VERSIONS)
def test_both_sides_of_every_version_have_their_sites(version: str) -> None:
    plan = read_plan(build(version))
    protocol = plan.protocols["grpc"]
    assert (protocol.client.reason, protocol.server.reason) == ("", "")
    assert {site.kind for site in protocol.client.sites} == CLIENT
    assert {site.kind for site in protocol.server.sites} == set(SiteKind) - CLIENT
    assert {site.program for site in protocol.client.sites} == {"grpc_client"}
    assert {site.program for site in protocol.server.sites} == {"grpc_server"}
    offsets = [site.offset for site in plan.sites]
    assert len(offsets) == len(set(offsets))


def test_sites_are_instructions_that_the_kernel_emulates() -> None:
    for version in VERSIONS:
        plan = read_plan(build(version))
        code = build(version).read_bytes()
        for side in (plan.protocols["grpc"].client, plan.protocols["grpc"].server):
            for site in side.sites:
                if site.kind != SiteKind.CLIENT_FAIL:  # rare
                    first, second = code[site.offset : site.offset + 2]
                    conditional = first >> 4 == 7 or (first == 0x0F and second >> 4 == 8)
                    assert first in (0xE8, 0x55, 0x90) or conditional, (version, site, hex(first))


@pytest.mark.parametrize("form", ["stripped", "pie", "no-symbols"])
def test_other_forms_of_the_program_have_the_same_layout(form: str) -> None:
    plain = read_plan(build()).layouts["grpc"]
    other = read_plan(golang.build(SOURCES, VERSIONS[NEWEST], **golang.FORMS[form]))
    assert other.protocols["grpc"].client.possible and other.protocols["grpc"].server.possible
    slots = {"call_slot", "headers_slot"}
    assert {
        n: v for n, v in other.layouts["grpc"].items() if not n.startswith("type_") and n not in slots
    } == {n: v for n, v in plain.items() if not n.startswith("type_") and n not in slots}


def test_types_move_with_the_program_and_offsets_do_not() -> None:
    plan = read_plan(build())
    moved = plan.fields_at(0x1000)["grpc"]
    for name, value in plan.layouts["grpc"].items():
        assert moved[name] == value + (0x1000 if value and name.startswith("type_") else 0)


def test_a_program_without_grpc_says_so() -> None:
    protocol = read_plan(golang.build(HELLO)).protocols["grpc"]
    for side in (protocol.client, protocol.server):
        assert not side.possible
        assert side.reason.startswith("it has no function google.golang.org/grpc.")


@pytest.mark.parametrize(
    ("missing", "client", "server"),
    [
        (("google.golang.org/grpc.clientStream", "ctx"), False, True),
        (("google.golang.org/grpc/internal/transport.bufWriter", "offset"), False, True),
        (("google.golang.org/grpc/internal/transport.clientHeaders", "hf"), False, True),
        (("google.golang.org/grpc/internal/transport.http2Client", "maxSendHeaderListSize"), False, True),
        (("google.golang.org/grpc/internal/transport.Stream", "method"), True, False),
        (("google.golang.org/grpc/internal/transport.Stream", "ctx"), False, False),
        (("google.golang.org/grpc/internal/status.Status", "s"), False, False),
    ],
)
def test_what_is_missing_turns_off_the_side_that_needs_it(
    missing: tuple[str, str], client: bool, server: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = Types.field

    def field(self: Types, name: str, of: str) -> Field:
        if (name, of) == missing:
            raise TypeMissing("program", f"its type {name} has no field {of}")
        return find(self, name, of)

    with Executable(build()) as executable:
        monkeypatch.setattr(Types, "field", field)
        layout, plan = grpc.read(executable, "")
    assert (plan.client.possible, plan.server.possible) == (client, server)
    for name, side in (("client", plan.client), ("server", plan.server)):
        assert side.possible or "it has no type" in side.reason or missing[1] in side.reason, name
    assert ("call_context" in layout, "server_context" in layout) == (client, server)


@pytest.mark.parametrize(
    ("missing", "client", "server"),
    [
        ("google.golang.org/grpc.(*clientStream).finish", False, True),
        ("google.golang.org/grpc/internal/transport.(*loopyWriter).writeHeader", False, True),
        ("google.golang.org/grpc.(*Server).serveStreams.func2.1", True, False),
    ],
)
def test_functions_that_are_missing_do_so_too(
    missing: str, client: bool, server: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Executable(build()) as executable:
        load = executable.load_functions

        def load_functions(names: Any) -> None:
            load(name for name in names if name != missing)
            executable._functions[missing] = None

        monkeypatch.setattr(executable, "load_functions", load_functions)
        _, plan = grpc.read(executable, "")
    assert (plan.client.possible, plan.server.possible) == (client, server)
    assert plan.client.reason + plan.server.reason


def test_without_net_http_the_reason_is_that() -> None:
    with Executable(build()) as executable:
        layout, plan = grpc.read(executable, "it has no type net/http.Request")
    assert layout == {}
    assert plan.client.reason == plan.server.reason == "it has no type net/http.Request"
