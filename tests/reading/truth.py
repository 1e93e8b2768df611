"""What Go's own packages (debug/dwarf, debug/elf, debug/gosym, debug/buildinfo) say about an executable."""

from __future__ import annotations

import functools
import json
import subprocess
from pathlib import Path
from typing import Any

import attrs

from tests.reading.sites import FUNCTIONS
from tools import golang

_SOURCE = Path(__file__).resolve().parents[1] / "go" / "truth"

#: The struct types whose fields are read, by the compiler's names for them.
STRUCTS = (
    "runtime.g",
    "net/http.Request",
    "net/http.Response",
    "net/http.response",
    "net/http.conn",
    "net/http.persistConn",
    "net/http.persistConnWriter",
    "net/http.transportRequest",
    "net/url.URL",
    "net.TCPConn",
    "net.TCPAddr",
    "net.netFD",
    "bufio.Writer",
    "crypto/tls.Conn",
    "context.cancelCtx",
    "context.valueCtx",
    "context.timerCtx",
    "hash<string,[]string>",
    "bucket<string,[]string>",
    "map<string,[]string>",
    "table<string,[]string>",
    "groupReference<string,[]string>",
    "noalg.map.group[string][]string",
    "noalg.struct { key string; elem []string }",
)


@attrs.frozen
class Truth:
    """`functions` maps names to ranges, first address and the first behind; None where nothing tells them.

    `structs` maps names to size, fields, and the offsets of descriptors from `types` (tests/go/truth);
    None without DWARF. `types` is 0 without symbols.
    """

    go: str
    module: str
    machine: str
    stripped: bool
    functions: dict[str, list[tuple[int, int]]] | None
    structs: dict[str, dict[str, Any]] | None
    types: int


@functools.cache
def truth_of(path: Path) -> Truth:
    """Asks Go's packages, of the newest release, about an executable."""
    program = golang.build(_SOURCE, list(golang.RELEASES)[-1])
    answer = subprocess.run(
        [program, path, *FUNCTIONS], input="\n".join(STRUCTS), capture_output=True, text=True, timeout=300
    )
    if answer.returncode != 0:
        raise AssertionError(f"Go's own packages cannot read {path}: {answer.stderr}")
    return Truth(**json.loads(answer.stdout))
