"""One traced run of the mixed chain, judged.

    python -m tests.mixed.run --go 1.27 --grpc 1.85 --requests 2000

What the tracer says that it traces is judged; that it traces everything is for the caller to
check, in `protocols` and `propagation`. With --json a single object for a test to read, in the
form of `tests.chain.run`. Exit status 0 when the verdict is without mistakes.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any

from tests.chain.judge import Verdict
from tests.chain.run import Attachments, Run, Setup, expected_route, run, show
from tests.chain.services import Driven, Programs
from tests.mixed.judge import CALLS, SERVES, Tracing, judge
from tests.mixed.services import MixedChain, build_programs, modfiles, newest_grpc


def tracing_of(attachments: Attachments) -> Tracing:
    """What the tracer says that it does."""

    def traces(service: str, protocol: str, side: str) -> bool:
        found = attachments[service].protocols.get(protocol)
        return found is not None and bool(getattr(found, side))

    def injects(service: str, protocol: str) -> bool:
        found = attachments[service].propagation.get(protocol)
        return found is not None and found.method is not None

    return Tracing(
        servers=[service for service, protocol in SERVES.items() if traces(service, protocol, "server")],
        clients=[service for service, protocol in CALLS.items() if traces(service, protocol, "client")],
        injects=[service for service, protocol in CALLS.items() if injects(service, protocol)],
    )


def _spans_per_request(attachments: Attachments) -> int:
    tracing = tracing_of(attachments)
    return len(tracing.servers) + len(tracing.clients)


def _judge(
    driven: Driven, witness: list[dict[str, Any]], spans: list[dict[str, Any]], attachments: Attachments
) -> Verdict:
    tracing = tracing_of(attachments)
    route = expected_route(attachments["front"].go)
    minor = int(attachments["gateway"].go.split(".")[1])
    http2_route = route if minor < 27 else ""
    return judge(driven.records, witness, spans, tracing=tracing, route=route, http2_route=http2_route)


MIXED = Setup(MixedChain, _spans_per_request, _judge)


def run_mixed(programs: Programs, requests: int, concurrency: int = 64, *, propagation: str = "auto") -> Run:
    """Starts the five services, attaches to them, drives them, judges."""
    return run(programs, requests, concurrency, propagation=propagation, setup=MIXED)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m tests.mixed.run", description=__doc__)
    parser.add_argument("--go", default="1.27", help="Go release of the services")
    parser.add_argument("--grpc", choices=list(modfiles()), default=newest_grpc())
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--concurrency", type=int, default=64)
    parser.add_argument("--propagation", choices=("auto", "off"), default="auto")
    parser.add_argument("--stripped", action="store_true", help="services without symbols (-s -w)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args(arguments)
    programs = build_programs(options.go, options.grpc, ldflags="-s -w" if options.stripped else "")
    result = run_mixed(programs, options.requests, options.concurrency, propagation=options.propagation)
    return show(result, as_json=options.json)


if __name__ == "__main__":
    sys.exit(main())
