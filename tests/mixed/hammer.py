"""Hammer on one process that speaks every protocol, and judge each call by itself.

    python -m tests.mixed.hammer --calls 100000                                   # the mixture
    python -m tests.mixed.hammer --protocols grpc --direct --concurrency 200      # one grpc connection

The program under `tests/go/mixed/cmd/hammer` calls a receiver and itself. With --json one object:
`summary`, `verdict`, `stats`, `propagation`, `errors`. Exit status 0 without mistakes; what was not
injected is no mistake here, but counted.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import attrs

import pytraceprop
from tests.chain.judge import application_traceparent
from tests.chain.run import Reader
from tests.chain.services import READY_TIMEOUT, Service
from tests.chain.services import SOURCES as CHAIN_SOURCES
from tests.mixed.pairs import Pair, PairVerdict, judge_pairs
from tests.mixed.services import SOURCES, modfiles, newest_grpc
from tools import golang

PROTOCOLS = ("http", "https", "http2", "grpc", "grpcs")


@attrs.frozen
class Hammered:
    """What a run gave."""

    summary: dict[str, Any]
    verdict: PairVerdict
    stats: dict[str, int]
    propagation: dict[str, Any]
    errors: str

    @property
    def ok(self) -> bool:
        """Whether nothing failed, nobody complained, and no header was wrong."""
        return self.summary["failed"] == 0 and self.verdict.ok and not self.errors

    def as_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {**attrs.asdict(self, recurse=False), "verdict": vars(self.verdict), "ok": self.ok}


def build(go: str = "1.27", grpc: str | None = None, *, ldflags: str = "") -> Path:
    """Build the hammer, which is its own receiver."""
    modfile = modfiles()[grpc or newest_grpc()]
    return golang.build(SOURCES / "cmd" / "hammer", go, ldflags=ldflags, modfile=modfile)


def hammer(
    binary: Path,
    calls: int,
    concurrency: int = 64,
    *,
    protocols: Sequence[str] = PROTOCOLS,
    direct: bool = False,
    propagation: str | None = "auto",
    timeout: float = 900.0,
) -> Hammered:
    """Make calls and judge them; `propagation` None is without any tracer."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        certs = golang.build(CHAIN_SOURCES / "cmd" / "certs", list(golang.RELEASES)[-1])
        subprocess.run([certs, "-out", directory], check=True, timeout=READY_TIMEOUT)
        tls = [
            *("-cert", str(directory / "server.pem"), "-key", str(directory / "server-key.pem")),
            *("-ca", str(directory / "ca.pem")),
        ]
        receiver = Service("receiver", binary, directory, [*tls, "-receive"])
        started = [receiver]
        try:
            receiver.wait_until_ready()
            options = ["-next", receiver.address, "-n", str(calls), "-concurrency", str(concurrency)]
            options += ["-protocols", ",".join(protocols), *(["-direct"] if direct else [])]
            service = Service("hammer", binary, directory, [*tls, *options])
            started.append(service)
            service.wait_until_ready()
            stats, found, spans = {}, {}, None
            if propagation is None:
                service.tell("go")
                output = service.finish(timeout)
            else:
                with pytraceprop.Tracer(propagation=propagation) as tracer:
                    attachment = tracer.attach(service.process.pid)
                    found = {k: attrs.asdict(v) for k, v in attachment.propagation.items()}
                    reader = Reader(tracer)
                    reader.start()
                    try:
                        service.tell("go")
                        output = service.finish(timeout)
                    finally:
                        spans = [span.as_dict() for span in reader.finish(0)]
                    stats = attachment.stats()
            receiver.stop()
        finally:
            for process in started:
                process.kill()
        injected = any(way["method"] for way in found.values())
        pairs = pairs_of(service.records(), receiver.records(), direct=direct)
        verdict = judge_pairs(pairs, spans if injected else None, injected=injected)
        errors = service.errors.read_text() + receiver.errors.read_text()
    return Hammered(json.loads(output), verdict, stats, found, errors)


def pairs_of(
    hammer: Sequence[dict[str, Any]], receiver: Sequence[dict[str, Any]], *, direct: bool = False
) -> list[Pair]:
    """Match the calls that the hammer noted with what it and the receiver received."""
    received: dict[tuple[str, int], list[list[str]]] = defaultdict(list)
    for record in (*hammer, *receiver):
        if record["event"] == "received":
            received[record["service"], record["id"]].append(record["traceparent"])
    pairs = []
    for record in hammer:
        if record["event"] != "called":
            continue
        call_id, origin = record["id"], record["method"]
        nested = not direct and call_id % 3 == 0
        target = "hammer" if nested and origin == "begin" else "receiver"
        came_in = received["hammer", call_id] if origin == "serve" else []
        pairs.append(
            Pair(
                group=f"{record['mode']} from {origin}",
                name=f"call {call_id} by {record['mode']} from {origin}",
                incoming=[value for values in came_in for value in values] if origin == "serve" else None,
                own=application_traceparent(origin, call_id) if record["kind"] == "own" else None,
                arrived=received[target, call_id],
            )
        )
    return pairs


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m tests.mixed.hammer", description=__doc__)
    parser.add_argument("--go", default="1.27")
    parser.add_argument("--grpc", choices=list(modfiles()), default=newest_grpc())
    parser.add_argument("--calls", type=int, default=10_000)
    parser.add_argument("--concurrency", type=int, default=64)
    parser.add_argument("--protocols", default=",".join(PROTOCOLS))
    parser.add_argument("--direct", action="store_true", help="all calls go to the receiver at once")
    parser.add_argument("--propagation", choices=("auto", "off", "untraced"), default="auto")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args(arguments)
    result = hammer(
        build(options.go, options.grpc),
        options.calls,
        options.concurrency,
        protocols=options.protocols.split(","),
        direct=options.direct,
        propagation=None if options.propagation == "untraced" else options.propagation,
    )
    if options.json:
        print(json.dumps(result.as_dict()))
    else:
        print(json.dumps(result.summary))
        print({name: count for name, count in result.stats.items() if count})
        print(result.verdict)
        print(result.errors, end="")
    return 0 if result.ok else 1


if __name__ == "__main__":
    sys.exit(main())
