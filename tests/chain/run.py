"""One traced run of the chain, judged: python -m tests.chain.run --go 1.27 --requests 1000.

Prints what was driven, counted and judged; with --json a single object for a test to read. Exit
status 0 when the verdict is without mistakes.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

import pytraceprop
from tests.chain.judge import ROUTE, Verdict, judge, with_services
from tests.chain.services import Chain, Driven, Programs, build_programs
from tools import golang

SPANS_PER_REQUEST = 5  # three servers, two clients
_LAST_SPANS_SECONDS = 5.0


@attrs.frozen
class Run:
    """What a traced run gave. `stats`, `propagation` and `protocols` are by service."""

    attach_mode: str
    summary: dict[str, Any]
    verdict: Verdict
    stats: dict[str, dict[str, int]]
    propagation: dict[str, dict[str, Any]]
    protocols: dict[str, dict[str, Any]]
    lockdown: dict[str, Any]
    tracer_stats: dict[str, int]
    errors: str  # what the services wrote to standard error

    def as_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {**attrs.asdict(self, recurse=False), "verdict": vars(self.verdict), "ok": self.verdict.ok}


class Reader(threading.Thread):
    """Collects spans while the driver runs."""

    def __init__(self, tracer: pytraceprop.Tracer) -> None:
        super().__init__()
        self._subscription = tracer.subscribe(maxlen=1 << 20)
        self.spans: list[pytraceprop.Span] = []
        self._ending = threading.Event()

    def run(self) -> None:
        """Reads until told to stop."""
        while not self._ending.is_set():
            self.spans += self._subscription.read()
            time.sleep(0.01)

    def finish(self, expected: int) -> list[pytraceprop.Span]:
        """Waits a little for the last spans; all of them."""
        end = time.monotonic() + _LAST_SPANS_SECONDS
        while len(self.spans) < expected and time.monotonic() < end:
            time.sleep(0.02)
        time.sleep(0.2)  # any that should not be
        self._ending.set()
        self.join()
        return self.spans + self._subscription.read()


Attachments = Mapping[str, pytraceprop.Attachment]


@attrs.frozen
class Setup:
    """Which services are run, how many spans each request gives, and who judges them.

    The judge gets what was driven, witnessed and traced, and the attachments.
    """

    chain: type[Chain]
    spans_per_request: Callable[[Attachments], int]
    judge: Callable[[Driven, list[dict[str, Any]], list[dict[str, Any]], Attachments], Verdict]


def expected_route(go: str) -> str:
    """What server spans of HTTP tell in a program of this Go release."""
    major, minor = go.split(".")[:2]
    return ROUTE if (int(major), int(minor)) >= (1, 23) else ""  # Request.Pattern


def _judge(
    driven: Driven, witness: list[dict[str, Any]], spans: list[dict[str, Any]], attachments: Attachments
) -> Verdict:
    propagated = any(a.propagation["http/1.1"].method for a in attachments.values())
    route = expected_route(attachments["front"].go)
    return judge(driven.records, witness, spans, propagated=propagated, route=route)


CHAIN = Setup(Chain, lambda _: SPANS_PER_REQUEST, _judge)


def run(
    programs: Programs,
    requests: int,
    concurrency: int = 16,
    *,
    propagation: str = "auto",
    attach_mode: str | None = None,
    setup: Setup = CHAIN,
) -> Run:
    """Starts the services, attaches to them, drives them, judges."""
    with tempfile.TemporaryDirectory() as name, setup.chain(programs, Path(name)) as chain:
        with pytraceprop.Tracer(propagation=propagation, attach_mode=attach_mode) as tracer:
            attachments = {service: tracer.attach(pid) for service, pid in chain.pids.items()}
            reader = Reader(tracer)
            reader.start()
            try:
                driven = chain.drive(requests, concurrency=concurrency)
            finally:
                spans = reader.finish(setup.spans_per_request(attachments) * requests)
            stats = {service: a.stats() for service, a in attachments.items()}
            tracer_stats = tracer.stats()
            found = {
                service: {k: attrs.asdict(v) for k, v in a.propagation.items()}
                for service, a in attachments.items()
            }
            protocols = {
                service: {k: attrs.asdict(v) for k, v in a.protocols.items()}
                for service, a in attachments.items()
            }
            lockdown = tracer.environment.lockdown.as_dict()
            mode = tracer.core.attach_mode
        chain.stop()  # flushes what the services witnessed
        traced = with_services((span.as_dict() for span in spans), chain.pids)
        verdict = setup.judge(driven, chain.witness(), traced, attachments)
        # net/http gives up a connection in the making when another one has become idle meanwhile.
        lines = chain.errors().splitlines(keepends=True)
        errors = "".join(line for line in lines if "TLS handshake error" not in line)
    return Run(mode, driven.summary, verdict, stats, found, protocols, lockdown, tracer_stats, errors)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m tests.chain.run", description=__doc__)
    parser.add_argument("--go", default="1.27", help="Go release of the services")
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--concurrency", type=int, default=16)
    parser.add_argument("--propagation", choices=("auto", "off"), default="auto")
    parser.add_argument("--form", choices=golang.FORMS, default="static", help="how the services are built")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args(arguments)
    programs = build_programs(options.go, **golang.FORMS[options.form])
    result = run(programs, options.requests, options.concurrency, propagation=options.propagation)
    return show(result, as_json=options.json)


def show(result: Run, *, as_json: bool) -> int:
    """Prints a run; the exit status that it deserves."""
    if as_json:
        print(json.dumps(result.as_dict()))
    else:
        print(json.dumps(result.summary))
        for service, counts in result.stats.items():
            print(service, {name: n for name, n in counts.items() if n})
        print(result.verdict)
        if result.errors:
            print(f"the services complained:\n{result.errors}")
    return 0 if result.verdict.ok and not result.errors else 1


if __name__ == "__main__":
    sys.exit(main())
