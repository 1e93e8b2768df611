"""The program of tests/go/grpccases, traced: gRPC in all the ways that it is called."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytraceprop
from tests.bpf.conftest import Cases, Traced
from tools import golang

SOURCES = Path(__file__).resolve().parent.parent / "go" / "grpccases"

#: Versions of google.golang.org/grpc at which something moved, and a Go release of their time.
VERSIONS = {
    "1.50.1": "1.19",
    "1.58.3": "1.21",
    "1.64.0": "1.22",
    "1.66.2": "1.22",
    "1.69.4": "1.23",
    "1.77.0": "1.24",
    "1.82.1": "1.25",
    "1.83.1": "1.26",
    "1.84.0": "1.27",
    "1.85.0": "1.27",
}
NEWEST = "1.85.0"


def build(version: str = NEWEST, form: str = "static") -> Path:
    """The program with that version of grpc, in one of golang.FORMS."""
    modfile = "go.mod" if version == NEWEST else f"versions/grpc-{version}.mod"
    return golang.build(SOURCES, VERSIONS[version], modfile=modfile, **golang.FORMS[form])


class TracedGrpc(Traced):
    """The program, attached to."""

    @property
    def injects(self) -> bool:
        """Whether this kernel lets headers be written."""
        return self.attachment.propagation["grpc"].method is not None

    def calls(self, count: int, seconds: float = 20.0) -> list[pytraceprop.Span]:
        """The spans of one request to the program, of which so many are grpc's; those, by start."""
        spans = self.spans(count + 1, seconds)
        assert (spans[0].protocol, spans[0].kind) == ("http/1.1", "server")
        assert {span.protocol for span in spans[1:]} <= {"grpc"}
        self.request = spans[0]
        return spans[1:]

    def assert_carries(self, client: pytraceprop.Span, seen: Any) -> None:
        """That the call arrived with our header, and no other; or with none, where none can be written."""
        if self.injects:
            assert (client.header, seen["Traceparent"]) == ("injected", [client.trace_context.traceparent])
        else:
            assert (client.header, seen["Traceparent"]) == ("none", None)

    def drain(self, quiet: int = 5) -> list[pytraceprop.Span]:
        """All spans that are there, until none have come for a while."""
        found: list[pytraceprop.Span] = []
        silent = 0
        while silent < quiet:
            batch = list(self.tracer.spans(timeout=0.1))
            found += batch
            silent = 0 if batch else silent + 1
        return found

    def judge_many(self, count: int, **how: Any) -> Counter[str]:
        """Makes so many calls at once; what became of their headers, by the witness.

        Fails where a call fails, has no span or several, a wrong parent, another's header, or two.
        """
        query = "&".join(f"{name}={value}" for name, value in {"n": count, "at": 200, **how}.items())
        answer = self.cases.get(f"/many?{query}")
        assert answer["code"] == 0, answer["error"]
        spans = self.drain()
        (request,) = (span for span in spans if span.protocol == "http/1.1")
        clients = {span.path: span for span in spans if span.protocol == "grpc" and span.kind == "client"}
        servers = {span.path: span for span in spans if span.protocol == "grpc" and span.kind == "server"}
        assert len(spans) == 2 * count + 1 and len(clients) == len(servers) == count
        outcomes: Counter[str] = Counter()
        for i, seen in enumerate(answer["seen"]):
            client, server = (of[f"/cases.Many/Call{i}"] for of in (clients, servers))
            assert seen["Call"] == str(i)
            assert (client.trace_id, client.parent_span_id) == (request.trace_id, request.span_id)
            assert (client.status_name, server.status_name) == ("OK", "OK")
            if client.header == "injected":
                assert seen["Traceparent"] == [client.trace_context.traceparent]
                assert (server.trace_id, server.parent_span_id) == (client.trace_id, client.span_id)
            else:
                assert seen["Traceparent"] is None
                assert server.parent_span_id is None
            outcomes[client.header] += 1
        return outcomes


@contextmanager
def traced_program(version: str = NEWEST, form: str = "static") -> Iterator[TracedGrpc]:
    """The program with that version of grpc, running and attached to."""
    program = Cases(program=build(version, form))
    try:
        with pytraceprop.Tracer() as tracer:
            yield TracedGrpc(program, tracer, tracer.attach(program.pid))
    finally:
        program.stop()
