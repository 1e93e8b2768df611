"""Judge a run of the mixed chain: HTTP/1.1, HTTP/2, unary and streaming grpc.

As `tests.chain.judge`, from which most of it comes. What is different here:

- Spans of grpc do not name the request. Which one is meant is told by the witness, who wrote down
  in which goroutine, and when, each call was served or made; not by the ids that are to be judged.
- A tracer may trace some services and not others (see `Tracing`).
- Headers are judged without spans too, as far as that goes: the trace of an injected header must be
  the one that came in, and no other request's.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.chain.judge import MISTAKES as CHAIN_MISTAKES
from tests.chain.judge import ROUTE, Call, Json, Trial, Verdict, split
from tests.mixed.services import SERVICES

#: What each service serves, and what it calls by.
SERVES = {"front": "http/1.1", "gateway": "http/2", "unary": "grpc", "stream": "grpc", "back": "http/1.1"}
CALLS = {"front": "http/2", "gateway": "grpc", "unary": "grpc", "stream": "http/1.1"}

MISTAKES: Mapping[str, str] = {
    **CHAIN_MISTAKES,
    "foreign_contexts": "a service received a traceparent that belongs to another request",
}

#: What can become of the header of a call, by the witness.
OUTCOMES = ("application", "forwarded", "injected", "missing", "several", "none")

_HTTP_PATH = re.compile(r"/work/(\d+)/[a-z]+/[a-z0-9]+")


@dataclass(frozen=True)
class Tracing:
    """What a tracer was to do: the services whose requests and calls it traces and whose calls it injects."""

    servers: Collection[str] = SERVICES
    clients: Collection[str] = tuple(CALLS)
    injects: Collection[str] = tuple(CALLS)


NOTHING = Tracing((), (), ())


@dataclass
class MixedVerdict(Verdict):
    """A verdict that also tells, for each hop, how often each of OUTCOMES was witnessed."""

    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(MISTAKES, 0))
    examples: dict[str, list[str]] = field(default_factory=lambda: {mistake: [] for mistake in MISTAKES})
    hops: dict[str, dict[str, int]] = field(
        default_factory=lambda: {_hop(caller): dict.fromkeys(OUTCOMES, 0) for caller in CALLS}
    )

    def __str__(self) -> str:
        width = max(len(hop) for hop in self.hops)
        lines = [" ".join([" " * width, *(f"{outcome:>11}" for outcome in OUTCOMES)])]
        for hop, outcomes in self.hops.items():
            lines.append(" ".join([f"{hop:<{width}}", *(f"{outcomes[name]:>11}" for name in OUTCOMES)]))
        return "\n".join([*lines, super().__str__()])


def judge(
    driven: Iterable[Json],
    witness: Iterable[Json],
    spans: Iterable[Json] | None,
    *,
    tracing: Tracing | None = None,
    route: str = ROUTE,
    http2_route: str = ROUTE,
) -> MixedVerdict:
    """Compare what was driven, witnessed and traced.

    `spans` is None for a run without tracer, in which nothing may be injected; else each has its
    `service` (`tests.chain.judge.with_services`). `route` is what server spans of HTTP must tell:
    nothing before Go 1.23, which has no Request.Pattern. `http2_route` is the same of those over HTTP/2:
    nothing since Go 1.27, where what HTTP/2 serves is not the Request that the handler gets.
    """
    if tracing is None:
        tracing = NOTHING if spans is None else Tracing()
    found = None if spans is None else list(spans)
    verdict = _MixedTrial(list(driven), list(witness), found, tracing, (route, http2_route)).verdict()
    assert isinstance(verdict, MixedVerdict)
    return verdict


class _MixedTrial(Trial):
    services = SERVICES
    verdict_type = MixedVerdict
    result: MixedVerdict

    def __init__(
        self,
        driven: list[Json],
        witness: list[Json],
        spans: list[Json] | None,
        tracing: Tracing,
        routes: tuple[str, str],
    ) -> None:
        self.tracing = tracing
        route, self.http2_route = routes
        received = [record for record in witness if record["event"] == "received"]
        self.called: dict[tuple[str, int], list[Json]] = defaultdict(list)
        self.by_goroutine: dict[tuple[str, str, int], list[Json]] = defaultdict(list)
        # Requests by the traces that services received of them.
        self.members: dict[str, set[int]] = defaultdict(set)
        for record in witness:
            kind = "server" if record["event"] == "received" else "client"
            self.by_goroutine[record["service"], kind, record["goroutine"]].append(record)
            if kind == "client":
                self.called[record["service"], record["id"]].append(record)
            for value in record["traceparent"]:
                self.members[split(value)[0]].add(record["id"])
        super().__init__(driven, received, spans, bool(tracing.injects), route)

    # -- the application ---------------------------------------------------------------------

    def check_answer(self, request: Json) -> bool:
        """Besides, each service must have made its one call, as the witness of the caller says."""
        complete = super().check_answer(request)
        for service in CALLS:
            times = len(self.called[service, request["id"]])
            if times != 1:
                complete = False
                if request["ok"]:
                    sentence = f"request {request['id']}: {service} made {times} calls instead of one"
                    self.result.add("failed_requests", sentence)
        return complete

    # -- headers, by the witness -------------------------------------------------------------

    def check_call_header(self, request: Json, call: Call) -> None:
        """Besides, count what became of the header, and judge the trace of an injected one."""
        seen = self.headers(call.callee, request["id"])
        outcome = "several" if len(seen) > 1 else "missing"
        if len(seen) == 1:
            outcome = call.header if call.value is not None else "injected"
        elif not seen and call.header == "none":
            outcome = "none"
        self.result.hops[_hop(call.caller)][outcome] += 1
        if call.header != "injected" or len(seen) != 1 or self._is_of_request(request, call, seen[0]):
            super().check_call_header(request, call)

    def _is_of_request(self, request: Json, call: Call, header: str) -> bool:
        trace = split(header)[0]
        sentence = f"request {request['id']}: {call.callee} received {header}"
        others = self.members[trace] - {request["id"]}
        if others:
            self.result.add("foreign_contexts", f"{sentence}, as did request {min(others)}")
            return False
        incoming = self.headers(call.caller, request["id"])
        if len(incoming) == 1 and self.is_traced(call.caller, "server") and split(incoming[0])[0] != trace:
            self.result.add("wrong_parents", f"{sentence}, {call.caller} received {incoming[0]}")
            return False
        return True

    # -- what is known about a request -------------------------------------------------------

    def sets_own(self, request: Json) -> bool:
        return str(request["kind"]).startswith("own")

    def injects(self, caller: str) -> bool:
        return caller in self.tracing.injects

    def is_traced(self, service: str, kind: str) -> bool:
        return service in (self.tracing.servers if kind == "server" else self.tracing.clients)

    def server_details(self, request: Json, service: str) -> dict[str, Any]:
        expected = self._span_details(request, self.seen[service, request["id"]][0])
        if SERVES[service] != "grpc":
            expected["route"] = self.http2_route if SERVES[service] == "http/2" else self.route
        return expected

    def client_details(self, request: Json, call: Call) -> dict[str, Any]:
        return self._span_details(request, self.called[call.caller, request["id"]][0])

    def _span_details(self, request: Json, record: Json) -> dict[str, Any]:
        """Return what the span must say of what the witness wrote down."""
        expected = {"protocol": record["protocol"], "status": record["status"]}
        if record["protocol"] == "grpc":
            expected["path"] = record["method"]  # the full method: /package.Service/Method
            if record["status"] != 0:
                return expected  # what an error is called is not judged
        else:
            expected["method"] = record["method"]
            expected["path"] = f"/work/{request['id']}/{request['mode']}/{request['kind']}"
        expected["error"] = None
        return expected

    def index(self, span: Json) -> None:
        """Find the request by the path or, for grpc, by the goroutine and the time."""
        service, kind = span.get("service"), span["kind"]
        short = f"{service} {kind} span {span['trace_id']}/{span['span_id']} of {span['path']}"
        if service not in self.services or kind not in ("server", "client"):
            self.result.add("extra_spans", f"{short} is of no service of the chain")
            return
        if span["protocol"] == "grpc":
            request_id = self._served_meanwhile(span)
        else:
            match = _HTTP_PATH.fullmatch(span["path"] or "")
            request_id = int(match[1]) if match else None
        if request_id not in self.driven:
            self.result.add("extra_spans", f"{short} belongs to no request")
        else:
            self.found[service, request_id, kind].append(span)

    def _served_meanwhile(self, span: Json) -> int | None:
        """Return the request that the span's goroutine had to do with for most of the span's time."""
        records = self.by_goroutine.get((span["service"], span["kind"], span["goroutine"]), ())
        overlaps: Counter[int] = Counter()
        for record in records:
            start = max(record["start_ns"], span["start_ns"])
            end = min(record["end_ns"], span["end_ns"])
            if end >= start:
                overlaps[record["id"]] += end - start + 1
        return overlaps.most_common(1)[0][0] if overlaps else None


def _hop(caller: str) -> str:
    callee = SERVICES[SERVICES.index(caller) + 1]
    return f"{caller} -> {callee} ({CALLS[caller]})"
