"""Call through the libraries that Go services are built with, and judge each call by itself.

    python -m tests.mixed.frameworks --go 1.27

driver -> service -> sink, each by the same library: gin, echo, chi, gorilla/mux, connect-go,
golang.org/x/net/http2 with and without TLS, grpc by itself and behind net/http, a reverse proxy, a
RoundTripper of the application's own. Service and sink are traced. With --json one object:
`summary`, `verdict`, `routes`, `stats`, `propagation`, `errors`.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import attrs

import pytraceprop
from tests.chain.run import Reader
from tests.chain.services import READY_TIMEOUT, Service
from tests.chain.services import SOURCES as CHAIN_SOURCES
from tests.mixed.pairs import Pair, PairVerdict, judge_pairs
from tools import golang

SOURCES = Path(__file__).resolve().parent.parent / "go" / "frameworks"


@attrs.frozen
class Called:
    """What a run gave. `routes` are the patterns that each framework says a request matched."""

    summary: dict[str, Any]
    verdict: PairVerdict
    routes: dict[str, str]
    stats: dict[str, dict[str, int]]
    propagation: dict[str, Any]
    errors: str

    @property
    def ok(self) -> bool:
        """Whether nothing failed, nobody complained, and no header was wrong."""
        return self.summary["failed"] == 0 and self.verdict.ok and not self.errors

    def as_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {**attrs.asdict(self, recurse=False), "verdict": vars(self.verdict), "ok": self.ok}


def modfile_for(go: str) -> Path:
    """Return the newest set of dependencies that a Go release takes: go.mod, or one of `mods`."""

    def least(path: Path) -> tuple[int, ...]:
        if path.parent.name == "mods":  # named after the release that it is for
            return _numbers(path.stem.removeprefix("go"))
        asked = re.search(r"^go (\S+)", path.read_text(), re.MULTILINE)
        assert asked is not None, path
        return _numbers(asked[1])

    paths = [SOURCES / "go.mod", *SOURCES.glob("mods/*.mod")]
    return max((path for path in paths if least(path) <= _numbers(go)), key=least)


def _numbers(release: str) -> tuple[int, ...]:
    return tuple(int(part) for part in release.split(".")[:2])


def build(go: str = "1.27", *, ldflags: str = "") -> Path:
    """Build the one program that all three processes run."""
    return golang.build(SOURCES, go, ldflags=ldflags, modfile=modfile_for(go))


def call_frameworks(
    binary: Path, calls: int = 100, concurrency: int = 16, *, propagation: str | None = "auto"
) -> Called:
    """Make `calls` calls by each framework and judge them; `propagation` None is without any tracer."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        certs = golang.build(CHAIN_SOURCES / "cmd" / "certs", list(golang.RELEASES)[-1])
        subprocess.run([certs, "-out", directory], check=True, timeout=READY_TIMEOUT)
        tls = ["-cert", str(directory / "server.pem"), "-key", str(directory / "server-key.pem")]
        tls += ["-ca", str(directory / "ca.pem")]
        started: list[Service] = []

        def start(name: str, *options: str) -> Service:
            service = Service(name, binary, directory, [*tls, *options])
            started.append(service)
            service.wait_until_ready()
            return service

        def drive() -> dict[str, Any]:
            counts = ["-n", str(calls), "-concurrency", str(concurrency)]
            driver = start("driver", "-next", service.address, *counts)
            driver.tell("go")
            summary: dict[str, Any] = json.loads(driver.finish(READY_TIMEOUT))
            return summary

        try:
            sink = start("sink")
            service = start("service", "-next", sink.address)
            stats, found, spans = {}, {}, None
            if propagation is None:
                summary = drive()
            else:
                with pytraceprop.Tracer(propagation=propagation) as tracer:
                    attachments = {s.name: tracer.attach(s.process.pid) for s in (service, sink)}
                    found = {k: attrs.asdict(v) for k, v in attachments["service"].propagation.items()}
                    reader = Reader(tracer)
                    reader.start()
                    try:
                        summary = drive()
                    finally:
                        spans = [span.as_dict() for span in reader.finish(0)]
                    stats = {name: attachment.stats() for name, attachment in attachments.items()}
            service.stop()
            sink.stop()
        finally:
            for process in started:
                process.kill()
        injected = any(way["method"] for way in found.values())
        pairs = pairs_of(service.records(), sink.records())
        verdict = judge_pairs(pairs, spans if injected else None, injected=injected)
        routes = {record["framework"]: record["route"] for record in sink.records()}
        errors = "".join(process.errors.read_text() for process in started)
    return Called(summary, verdict, routes, stats, found, errors)


def pairs_of(service: Sequence[dict[str, Any]], sink: Sequence[dict[str, Any]]) -> list[Pair]:
    """Match what the service and the sink received. The reverse proxy passes on what came in."""
    arrived: dict[tuple[str, int], list[list[str]]] = defaultdict(list)
    for record in sink:
        arrived[record["framework"], record["id"]].append(record["traceparent"])
    pairs = []
    for record in service:
        framework, call_id, incoming = record["framework"], record["id"], record["traceparent"]
        passed_on = incoming[0] if framework == "reverseproxy" and incoming else None
        name = f"call {call_id} by {framework}"
        pairs.append(Pair(framework, name, incoming, passed_on, arrived[framework, call_id]))
    return pairs


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m tests.mixed.frameworks", description=__doc__)
    parser.add_argument("--go", default="1.27")
    parser.add_argument("--calls", type=int, default=100, help="calls of each framework")
    parser.add_argument("--concurrency", type=int, default=16)
    parser.add_argument("--propagation", choices=("auto", "off", "untraced"), default="auto")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args(arguments)
    result = call_frameworks(
        build(options.go),
        options.calls,
        options.concurrency,
        propagation=None if options.propagation == "untraced" else options.propagation,
    )
    if options.json:
        print(json.dumps(result.as_dict()))
    else:
        print(json.dumps(result.summary))
        for name, counts in result.stats.items():
            print(name, {counter: count for counter, count in counts.items() if count})
        print(result.verdict)
        print(result.errors, end="")
    return 0 if result.ok else 1


if __name__ == "__main__":
    sys.exit(main())
