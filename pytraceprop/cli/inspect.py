"""python -m pytraceprop inspect: what a Go executable says about itself, and what can be traced in it."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator
from typing import Any

import attrs
import capstone

from pytraceprop.errors import ExecutableError, TracepropError
from pytraceprop.probes import Plan, read_plan, site_name
from pytraceprop.probes.emulation import is_emulated
from pytraceprop.process import Process
from pytraceprop.protocol import protocols_of

_DISASSEMBLERS = {
    "x86_64": (capstone.CS_ARCH_X86, capstone.CS_MODE_64),
    "arm64": (capstone.CS_ARCH_ARM64, capstone.CS_MODE_ARM),
}
_LONGEST_INSTRUCTION = 15  # bytes


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("exe", nargs="?", metavar="EXE", help="an executable")
    what.add_argument("--pid", type=int, help="the executable that a process runs")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def _read(arguments: argparse.Namespace) -> dict[str, Any]:
    if arguments.pid is None:
        return describe(read_plan(arguments.exe), arguments.exe)
    process = Process(arguments.pid)
    try:
        return describe(read_plan(process.exe_link, process.executable), process.exe_link)
    finally:
        process.close()


def describe(plan: Plan, path: str | os.PathLike[str]) -> dict[str, Any]:
    """What there is to say about the executable at `path`, as --json prints it. Raises OSError."""
    return {
        "path": plan.path,
        "go": plan.go,
        "module": plan.module,
        "machine": plan.machine,
        "position_independent": plan.position_independent,
        "stripped": plan.stripped,
        "seconds": round(plan.seconds, 6),
        "protocols": {name: attrs.asdict(protocol) for name, protocol in protocols_of(plan).items()},
        "sites": list(_sites(plan, path)),
    }


def _sites(plan: Plan, path: str | os.PathLike[str]) -> Iterator[dict[str, Any]]:
    disassembler = capstone.Cs(*_DISASSEMBLERS[plan.machine])
    with open(path, "rb") as file:  # noqa: PTH123 (a path under /proc must not be resolved)
        for protocol, part in plan.protocols.items():
            for name, side in (("client", part.client), ("server", part.server)):
                for site in side.sites:
                    file.seek(site.offset)
                    code = file.read(_LONGEST_INSTRUCTION)
                    decoded = next(disassembler.disasm_lite(code, 0), None)
                    yield {
                        "protocol": protocol,
                        "side": name,
                        "name": site_name(site.kind),
                        "offset": site.offset,
                        "instruction": decoded[2] if decoded else "",
                        "emulated": is_emulated(plan.machine, code.ljust(_LONGEST_INSTRUCTION, b"\0")),
                    }


def _page(found: dict[str, Any]) -> Iterator[str]:
    """The same for a person."""
    kind = "position-independent" if found["position_independent"] else "fixed address"
    symbols = "stripped" if found["stripped"] else "with symbols"
    yield found["path"]
    yield f"  Go {found['go']}, module {found['module'] or '(unknown)'}"
    yield f"  {found['machine']}, {kind}, {symbols}, read in {found['seconds'] * 1000:.0f} ms"
    yield ""
    for name, protocol in found["protocols"].items():
        sides = [side for side in ("client", "server") if protocol[side]]
        yield f"  {name:10} {' and '.join(sides) or 'not traced'}"
        if protocol["reason"]:
            yield f"  {'':10} {protocol['reason']}"
    if not found["sites"]:
        return
    yield ""
    yield f"  {'probe site':25} {'file offset':>12}  instruction"
    for site in found["sites"]:
        cost = "emulated" if site["emulated"] else "single-stepped"
        yield f"  {site['name']:25} {site['offset']:#12x}  {site['instruction']:6} {cost}"


def _reason(error: TracepropError | OSError) -> str:
    if isinstance(error, ExecutableError):
        return error.reason
    return error.strerror or str(error) if isinstance(error, OSError) else str(error)


def _printable(text: str) -> str:
    """What a file says of itself may hold anything, such as a terminal's escape sequences."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def run(arguments: argparse.Namespace) -> int:
    """Prints the answers; 1 where the file cannot be read, or is no Go executable that is covered."""
    try:
        found = _read(arguments)
    except (TracepropError, OSError) as error:
        what = arguments.exe if arguments.pid is None else f"process {arguments.pid}"
        reason = _reason(error)
        if arguments.json:
            print(json.dumps({"path": what, "error": reason}))
        else:
            print(_printable(f"{what}: {reason}"), file=sys.stderr)
        return 1
    if arguments.json:
        print(json.dumps(found, indent=2))
    else:
        for line in _page(found):
            print(_printable(line))
    return 0
