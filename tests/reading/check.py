"""Holds what pytraceprop reads from an executable against what Go's own packages say, and the build."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import capstone

from pytraceprop.cli.inspect import describe
from pytraceprop.errors import UnsupportedExecutable
from pytraceprop.go.types import behind_pointer
from pytraceprop.probes import Plan, http1, read_plan
from tests.reading.programs import SERVICE, Program
from tests.reading.sites import SITES
from tests.reading.truth import Truth, truth_of
from tools import golang

_SIDES = {"client": "net/http.(*Transport).roundTrip", "server": "net/http.(*conn).serve"}

#: Fields of struct target that are addresses of type descriptors: the struct, and whether a pointer to it.
_TYPES = {
    "type_tcp_conn": ("net.TCPConn", True),
    "type_tls_conn": ("crypto/tls.Conn", True),
    "type_response": ("net/http.response", True),
    "type_bufio_writer": ("bufio.Writer", True),
    "type_persist_conn_writer": ("net/http.persistConnWriter", False),
}


@attrs.frozen
class Row:
    """One line of the table of what was read; `mistakes` is empty where all was right."""

    name: str
    go: str
    size: int
    form: str
    client: bool
    server: bool
    offsets: int  # how many were held against DWARF
    sites: int  # how many were held against the functions of the truth
    seconds: float
    mistakes: tuple[str, ...]


def check(program: Program) -> Row:
    """Reads a program. Raises GoError or ProgramUnavailable where it cannot be had."""
    path = program.path()
    if program.refused:
        return _check_refusal(program, path)
    plan = read_plan(path)
    found = describe(plan, path)
    own = truth_of(path)
    twin = program.twin()
    dwarf = truth_of(twin) if twin else None
    offsets = dict(_offsets_of(dwarf)) if dwarf else _offsets_of_release(plan)
    sites = [] if own.functions is None else found["sites"]
    mistakes = [
        *_build_mistakes(program, found, own),
        *_offset_mistakes(plan, offsets),
        *(_type_mistakes(plan, dwarf, own) if dwarf else ()),
        *(mistake for site in sites for mistake in _site_mistakes(path, plan, site, own)),
        *_side_mistakes(program, found, own),
    ]
    protocol = found["protocols"]["http/1.1"]
    form = "PIE" if found["position_independent"] else "fixed"
    return Row(
        name=program.name,
        go=found["go"],
        size=path.stat().st_size,
        form=f"{form}{' stripped' if found['stripped'] else ''}",
        client=protocol["client"],
        server=protocol["server"],
        offsets=len(offsets),
        sites=len(sites),
        seconds=found["seconds"],
        mistakes=tuple(mistakes),
    )


def _check_refusal(program: Program, path: Path) -> Row:
    mistake, started = "it was not refused", time.perf_counter()
    try:
        read_plan(path)
    except UnsupportedExecutable as error:
        mistake = "" if program.refused in error.reason else error.reason
    seconds = time.perf_counter() - started
    return Row(
        name=program.name,
        go=truth_of(path).go.removeprefix("go"),
        size=path.stat().st_size,
        form="refused",
        client=False,
        server=False,
        offsets=0,
        sites=0,
        seconds=seconds,
        mistakes=(mistake,) if mistake else (),
    )


def _build_mistakes(program: Program, found: dict[str, Any], own: Truth) -> Iterator[str]:
    if f"go{found['go']}" != own.go:
        yield f"Go {found['go']} instead of {own.go}"
    if found["module"] != own.module:
        yield f"module {found['module']} instead of {own.module}"
    if found["stripped"] is not own.stripped:
        yield f"stripped is {found['stripped']}"
    machine = {"EM_X86_64": "x86_64", "EM_AARCH64": "arm64"}[own.machine]
    if found["machine"] != machine:
        yield f"machine {found['machine']} instead of {machine}"
    if program.debian:
        return
    # What is known from how it was built.
    form = golang.FORMS[program.form] if program.form else {}
    if found["position_independent"] is not (form.get("buildmode") == "pie"):
        yield f"position_independent is {found['position_independent']}"
    if re.split("[ -]", found["go"])[0] != golang.release(program.go):  # Go 1.27: go1.27.3-X:experiment
        yield f"Go {found['go']}, built with {golang.release(program.go)}"
    if program.form and found["stripped"] is not bool(form.get("strip") or form.get("ldflags") == "-s -w"):
        yield f"stripped is {found['stripped']}"


def _offsets_of(truth: Truth) -> Iterator[tuple[str, int]]:
    """What DWARF says of each field of struct target that is an offset of something in a Go type."""
    assert truth.structs is not None
    structs = truth.structs
    rows = (*http1._FIELDS, *http1._SERVER_FIELDS, *http1._CLIENT_FIELDS)
    for name, struct, field in (*rows, ("tls_conn_conn", "crypto/tls.Conn", "conn")):
        yield name, structs[struct]["fields"][field]
    pattern = structs["net/http.Request"]["fields"].get("Pattern")
    yield "request_pattern", 65535 if pattern is None else pattern
    request = structs["net/http.transportRequest"]["fields"]
    yield "transport_request_call", request["ctx"] + 8 if "ctx" in request else request["cancelKey"]
    if "hash<string,[]string>" in structs:
        head, bucket = (structs[f"{kind}<string,[]string>"] for kind in ("hash", "bucket"))
        yield "map_used", head["fields"]["count"]
        yield "map_dir_ptr", head["fields"]["buckets"]
        yield "map_dir_len", head["fields"]["oldbuckets"]
        yield "map_writing", head["fields"]["flags"]
        yield "hmap_b", head["fields"]["B"]
        yield "group_size", bucket["size"]
        yield "group_ctrl", bucket["fields"]["tophash"]
        yield "group_keys", bucket["fields"]["keys"]
        yield "group_elems", bucket["fields"]["values"]
        yield "bucket_overflow", bucket["fields"]["overflow"]
        yield from (("group_key_stride", 16), ("group_elem_stride", 24))  # a string; a slice
        return
    head, table, groups = (structs[f"{kind}<string,[]string>"] for kind in ("map", "table", "groupReference"))
    group = structs["noalg.map.group[string][]string"]
    yield "map_used", head["fields"]["used"]
    yield "map_dir_ptr", head["fields"]["dirPtr"]
    yield "map_dir_len", head["fields"]["dirLen"]
    yield "map_writing", head["fields"]["writing"]
    yield "table_groups_data", table["fields"]["groups"] + groups["fields"]["data"]
    yield "table_groups_mask", table["fields"]["groups"] + groups["fields"]["lengthMask"]
    yield "group_size", group["size"]
    yield "group_ctrl", group["fields"]["ctrl"]
    if "slots" in group["fields"]:
        slot = structs["noalg.struct { key string; elem []string }"]
        yield "group_keys", group["fields"]["slots"] + slot["fields"]["key"]
        yield "group_elems", group["fields"]["slots"] + slot["fields"]["elem"]
        yield from ((f"group_{part}_stride", slot["size"]) for part in ("key", "elem"))
    else:
        yield "group_keys", group["fields"]["keys"]
        yield "group_elems", group["fields"]["elems"]
        yield from (("group_key_stride", 16), ("group_elem_stride", 24))
    yield from (("hmap_b", 0), ("bucket_overflow", 0))


def _offsets_of_release(plan: Plan) -> dict[str, int]:
    """The offsets in our own program, built with the same Go release: for programs that have no DWARF.

    The linker may have left a side out, and then its types too.
    """
    if not plan.sites:
        return {}
    # Fields move from patch to patch (http.response between Go 1.26.3 and 1.26.11). The pinned patch is
    # here already; the very one is fetched only where that disagrees.
    for go in (".".join(plan.go.split(".")[:2]), plan.go):
        truth = truth_of(golang.build(SERVICE, go))
        offsets = {name: offset for name, offset in _offsets_of(truth) if name in plan.fields}
        if not any(_offset_mistakes(plan, offsets)):
            break
    return offsets


def _offset_mistakes(plan: Plan, offsets: dict[str, int]) -> Iterator[str]:
    for name, offset in offsets.items():
        if plan.fields.get(name) != offset:
            yield f"{name} is {plan.fields.get(name)} instead of {offset}"


def _type_mistakes(plan: Plan, dwarf: Truth, own: Truth) -> Iterator[str]:
    """DWARF counts descriptors from the first; where that one is, only symbols tell."""
    assert dwarf.structs is not None
    wanted = {
        name: dwarf.structs[struct]["pointer" if pointer else "itself"]
        for name, (struct, pointer) in _TYPES.items()
    }
    known = {name: offset for name, offset in wanted.items() if offset}
    if len(known) < 4:
        yield f"DWARF knows only of {', '.join(known)}"
    starts = {plan.fields.get(name, 0) - offset for name, offset in known.items()}
    if len(starts) != 1 or (own.types and starts != {own.types}):
        yield f"types begin at {sorted(starts)} instead of {own.types or 'one place'}"
    # In Go 1.20 alone, a timerCtx embeds a pointer to its cancelCtx: the next field is right behind it.
    pointer = dwarf.structs["context.timerCtx"]["fields"]["timer"] == 8
    for name, place in (
        ("cancelCtx", 0),
        ("valueCtx", 0),
        ("timerCtx", behind_pointer(0, 0) if pointer else 0),
    ):
        for start in starts:
            found = plan.context_types.get(dwarf.structs[f"context.{name}"]["itself"] + start)
            if found != place:
                yield f"the context in context.{name} is at {found} instead of {place}"


def _site_mistakes(path: Path, plan: Plan, site: dict[str, Any], own: Truth) -> Iterator[str]:
    assert own.functions is not None
    address = next(
        site["offset"] - s.offset + s.address
        for s in plan.segments
        if s.executable and s.offset <= site["offset"] < s.offset + s.size
    )
    inside, calls = SITES[site["name"]]
    where = [
        name for name, ranges in own.functions.items() if any(start <= address < end for start, end in ranges)
    ]
    if not set(where) & set(inside):
        yield f"{site['name']} lies in {where or 'no known function'}"
    architecture = {
        "x86_64": (capstone.CS_ARCH_X86, capstone.CS_MODE_64),
        "arm64": (capstone.CS_ARCH_ARM64, capstone.CS_MODE_ARM),
    }
    with path.open("rb") as file:
        file.seek(site["offset"])
        (_, _, mnemonic, operands) = next(
            capstone.Cs(*architecture[plan.machine]).disasm_lite(file.read(15), address)
        )
    if calls:
        callees = {start for name in calls for start, _ in own.functions.get(name, ())}
        target = re.fullmatch(r"#?(0x[0-9a-f]+)", operands)
        if mnemonic not in ("call", "bl") or target is None or int(target[1], 16) not in callees:
            yield f"{site['name']} is `{mnemonic} {operands}`"
    elif site["name"].endswith("client_fail"):
        if mnemonic != "ret" and not site["name"].startswith("grpc"):  # grpc's: its way's beginning
            yield f"{site['name']} is `{mnemonic} {operands}`"
    elif not site["emulated"]:
        yield f"{site['name']} is `{mnemonic} {operands}`, which is not emulated"


def _side_mistakes(program: Program, found: dict[str, Any], own: Truth) -> Iterator[str]:
    """A side can be traced exactly where the linker has kept its function."""
    protocol = found["protocols"]["http/1.1"]
    for side, function in _SIDES.items():
        kept = True if not program.debian else own.functions is None or function in own.functions
        if own.functions is None:
            continue
        if protocol[side] is not kept:
            yield f"{side} is {protocol[side]}: {protocol['reason'] or 'no reason'}"
        names = {
            site["name"] for site in found["sites"] if (site["protocol"], site["side"]) == ("http/1.1", side)
        }
        missing = {f"{side}_{part}" for part in ("start", "end")} - names
        if protocol[side] and missing:
            yield f"no site {', '.join(sorted(missing))}"
