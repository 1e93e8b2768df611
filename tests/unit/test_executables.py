"""Sites of real Go programs cost little, and files that are damaged or no Go are refused with a typed error."""

from __future__ import annotations

import random
import time
from pathlib import Path

import capstone
import pytest

from pytraceprop.errors import ExecutableError, NotGo
from pytraceprop.go import Executable
from pytraceprop.probes import http1, http2, read_plan, reading
from tools import golang

GO = Path(__file__).resolve().parents[1] / "go"
SERVICE = GO / "chain" / "cmd" / "service"

#: What the kernel emulates under a uprobe (arch/x86/kernel/uprobes.c): all else is single-stepped.
EMULATED = {"push", "call", "jmp", "je", "jne", "jbe", "nop"}


@pytest.fixture(autouse=True)
def _fresh_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "_cache", type(reading._cache)())


def service(go: str, ldflags: str = "") -> Path:
    return golang.build(SERVICE, go, ldflags=ldflags)


@pytest.mark.parametrize("go", golang.RELEASES)
def test_every_site_that_a_good_request_hits_is_emulated(go: str) -> None:
    path = service(go)
    decoder = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
    data = path.read_bytes()
    kinds = set()
    for site in read_plan(path).sites:
        (_, _, mnemonic, _) = next(decoder.disasm_lite(data[site.offset : site.offset + 16], 0))
        kinds.add(site.kind)
        if site.kind in (http1.SiteKind.CLIENT_FAIL, http2.SiteKind.CLIENT_FAIL):
            assert mnemonic == "ret"
        else:
            assert mnemonic in EMULATED, (site, mnemonic)
    counted = {http2.SiteKind.COUNT_CLIENT, http2.SiteKind.COUNT_SERVER}
    assert kinds == {*map(int, http1.SiteKind), *map(int, set(http2.SiteKind) - counted)}


def test_the_context_types_of_the_standard_library_are_known() -> None:
    with Executable(service("1.27")) as executable:
        types = executable.types
        found = types.wrappers(types.field("net/http.Request", "ctx").type, by_field_in="context")
        for name, offset in (
            ("cancelCtx", 0),
            ("valueCtx", 0),
            ("timerCtx", 0),
            ("withoutCancelCtx", 0),
            ("afterFuncCtx", 0),
        ):
            assert found[types.find(f"context.{name}")] == offset


def test_a_go_program_without_net_http_has_no_sites_and_says_why() -> None:
    plan = read_plan(golang.build(GO / "hello", "1.27"))
    protocol = plan.protocols["http/1.1"]
    assert plan.sites == ()
    assert protocol.client.reason == protocol.server.reason == "it has no type net/http.Request"


def test_what_is_no_go_executable_is_told_apart(tmp_path: Path) -> None:
    text, empty, script = tmp_path / "text", tmp_path / "empty", tmp_path / "script"
    text.write_text("hello" * 100)
    empty.write_text("")
    script.write_text("#!/bin/sh\n" + "true\n" * 50)
    for path in (text, empty, script):
        with pytest.raises(NotGo) as caught:
            read_plan(path)
        assert caught.value.path == str(path)
    with pytest.raises(FileNotFoundError):
        read_plan(tmp_path / "nothing")
    with pytest.raises(ExecutableError):
        read_plan("/bin/sh")


def test_a_truncated_executable_is_refused(tmp_path: Path) -> None:
    data = service("1.27", "-s -w").read_bytes()
    damaged = tmp_path / "damaged"
    for i in range(60):
        size = len(data) * i // 60
        damaged.write_bytes(data[:size])
        with pytest.raises(ExecutableError):
            read_plan(damaged)


def test_flipped_bytes_give_a_plan_or_a_typed_error_in_bounded_time(tmp_path: Path) -> None:
    path = service("1.27", "-s -w")
    data = bytearray(path.read_bytes())
    with Executable(path) as executable:
        sections = [executable.image.section(name) for name in (".gopclntab", ".go.buildinfo", ".go.module")]
    regions = [(0, 64), (64, 700), *((s.offset, min(s.size, 4096)) for s in sections)]
    regions.append((len(data) - 4096, 4096))  # section headers
    chance = random.Random(20261122)
    damaged = tmp_path / "damaged"
    refused = 0
    for i in range(150):
        start, size = regions[i % len(regions)]
        changed = bytearray(data)
        for _ in range(chance.choice((1, 4, 32))):
            changed[start + chance.randrange(size)] = chance.choice((0, 0xFF, 0x7F, chance.randrange(256)))
        damaged.write_bytes(changed)
        started = time.monotonic()
        try:
            read_plan(damaged)
        except ExecutableError:
            refused += 1
        assert time.monotonic() - started < 5
    assert refused > 20
