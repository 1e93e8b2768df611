"""Judge a run of the test chain: were the traces right, and was the application left unharmed?

Three sources are compared, none of which knows of the others:

- the driver: which requests were sent, with which `traceparent`, and whether the answer was right;
- the witness: which `traceparent` headers each service received. This is the truth about headers;
- the tracer: its spans, as JSON, each with the `service` it belongs to (see `with_services`).

What the application does with a header depends on the kind of request (`internal/work` of
`tests/go/chain` says how): for "own" and "ownlower" each caller sets a header of its own, for
"proxy" it passes on the one that came in, for all others it sets none and the tracer injects.
"""

from __future__ import annotations

import hashlib
import itertools
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Json = Mapping[str, Any]

SERVICES = ("front", "middle", "back")
ROUTE = "/work/{id}/{mode}/{kind}"
MAX_EXAMPLES = 20

#: Every kind of mistake, with what it means.
MISTAKES: Mapping[str, str] = {
    "failed_requests": "a request got a wrong answer, or did not pass each service exactly once",
    "wrong_parents": "a span has the wrong trace, parent or id",
    "duplicate_headers": "a service received more than one traceparent",
    "altered_headers": "a header of the application was changed, or one came where none may be",
    "not_injected": "an outgoing call should have got a traceparent and got none",
    "missing_spans": "a request passed a service and no span tells of it",
    "extra_spans": "a span that belongs to no request, or a second one for the same",
    "wrong_details": "a span says something wrong about its request",
}

_PATH = re.compile(r"/work/(\d+)/[a-z]+/[a-z]+")
_METHODS = {"head": "HEAD", "body": "POST"}


@dataclass
class Verdict:
    """How often each mistake of MISTAKES was made, and the first examples as sentences."""

    requests: int
    spans: int
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(MISTAKES, 0))
    examples: dict[str, list[str]] = field(default_factory=lambda: {mistake: [] for mistake in MISTAKES})

    @property
    def ok(self) -> bool:
        """Whether something was judged and there was no mistake of any kind."""
        return self.requests > 0 and not any(self.counts.values())

    def add(self, mistake: str, sentence: str) -> None:
        """Count one more mistake."""
        self.counts[mistake] += 1
        if len(self.examples[mistake]) < MAX_EXAMPLES:
            self.examples[mistake].append(sentence)

    def __str__(self) -> str:
        lines = [f"{self.requests} requests, {self.spans} spans: {'all right' if self.ok else 'MISTAKES'}"]
        for mistake, count in self.counts.items():
            if count:
                lines.append(f"{count} {mistake} ({MISTAKES[mistake]})")
                lines += [f"    {sentence}" for sentence in self.examples[mistake]]
        return "\n".join(lines)


def judge(
    driven: Iterable[Json],
    witness: Iterable[Json],
    spans: Iterable[Json] | None,
    *,
    propagated: bool,
    route: str = ROUTE,
) -> Verdict:
    """Compare what was driven, witnessed and traced.

    `propagated` says whether the tracer was to inject headers; if not, it must not add any.
    `spans` is None for a run without tracer, of which only answers and headers are judged.
    `route` is what server spans must tell: nothing before Go 1.23, which has no Request.Pattern.
    """
    found = None if spans is None else list(spans)
    return Trial(list(driven), list(witness), found, propagated, route).verdict()


def with_services(spans: Iterable[Json], pids: Mapping[str, int]) -> list[dict[str, Any]]:
    """Return the spans with the `service` each belongs to, found by process id."""
    names = {pid: name for name, pid in pids.items()}
    return [{**span, "service": names.get(span["pid"])} for span in spans]


def application_traceparent(service: str, request_id: int) -> str:
    """Return the header a service sets by itself for the kinds "own" and "ownlower"."""
    digest = hashlib.sha256(f"own:{service}:{request_id}".encode()).hexdigest()
    return f"00-{digest[:32]}-{digest[32:48]}-01"


def split(traceparent: str) -> tuple[str, str]:
    """Return trace id and parent id of a traceparent; two empty strings if it is not one."""
    fields = traceparent.split("-")
    return (fields[1], fields[2]) if len(fields) == 4 else ("", "")


@dataclass(frozen=True)
class Call:
    """What is known about one outgoing call: who made it, and how its header comes about."""

    caller: str
    callee: str
    header: str  # the tracer's word for it: "application", "forwarded", "injected" or "none"
    value: str | None  # the application's header, its own or passed on


class Trial:
    """The work of `judge`, with everything indexed by request and service.

    Other chains of services override what is particular to this one: the names of the services, and
    the methods that have no underscore.
    """

    services: Sequence[str] = SERVICES
    verdict_type: type[Verdict] = Verdict

    def __init__(
        self,
        driven: list[Json],
        witness: list[Json],
        spans: list[Json] | None,
        propagated: bool,
        route: str,
    ) -> None:
        self.route = route
        self.driven: dict[int, Json] = {record["id"]: record for record in driven}
        self.propagated = propagated
        self.traced = spans is not None
        self.spans = spans or []
        self.result = self.verdict_type(requests=len(driven), spans=len(self.spans))
        self.seen: dict[tuple[str, int], list[Json]] = defaultdict(list)
        for record in witness:
            self.seen[record["service"], record["id"]].append(record)
        self.found: dict[tuple[str, int, str], list[Json]] = defaultdict(list)
        for span in self.spans:
            self.index(span)
        # Traces begun by the tracer itself, with the services and requests that are in them.
        self.fresh: dict[str, list[tuple[str, int]]] = defaultdict(list)

    def verdict(self) -> Verdict:
        self._check_nothing_unknown_was_witnessed()
        for request in self.driven.values():
            if self.check_answer(request):
                self._check_headers(request)
                if self.traced:
                    self._check_spans(request)
        self._check_fresh_traces()
        self._check_span_ids()
        return self.result

    # -- the application ---------------------------------------------------------------------

    def _check_nothing_unknown_was_witnessed(self) -> None:
        for service, request_id in self.seen:
            if request_id not in self.driven:
                self.result.add("failed_requests", f"{service} received request {request_id}: never sent")

    def check_answer(self, request: Json) -> bool:
        """Return whether the request passed each service once, so that its headers can be judged."""
        if not request["ok"]:
            self.result.add("failed_requests", f"{_name(request)}: {request['error']}")
        complete = True
        for service in self.services:
            times = len(self.seen[service, request["id"]])
            if times != 1:
                complete = False
                if request["ok"]:
                    sentence = f"{_name(request)} reached {service} {times} times instead of once"
                    self.result.add("failed_requests", sentence)
        return complete

    # -- headers, by the witness -------------------------------------------------------------

    def _check_headers(self, request: Json) -> None:
        sent = [request["traceparent"]] if request["traceparent"] else []
        self._check_application_header(request, self.services[0], sent)
        for call in self.calls(request):
            self.check_call_header(request, call)

    def check_call_header(self, request: Json, call: Call) -> None:
        """Compare the header that a call arrived with to how it should have come about."""
        if call.header == "injected":
            self._check_injected_header(request, call)
        else:
            expected = [] if call.value is None else [call.value]
            self._check_application_header(request, call.callee, expected)

    def _check_application_header(self, request: Json, service: str, expected: list[str]) -> None:
        seen = self.headers(service, request["id"])
        if len(seen) > 1:
            self._add_duplicate(request, service, seen)
        elif seen != expected:
            sentence = f"{_name(request)}: {service} received {seen} instead of {expected}"
            self.result.add("altered_headers", sentence)

    def _check_injected_header(self, request: Json, call: Call) -> None:
        seen = self.headers(call.callee, request["id"])
        if len(seen) > 1:
            self._add_duplicate(request, call.callee, seen)
            return
        if not seen:
            self.result.add("not_injected", f"{_name(request)}: {call.callee} received no traceparent")
            return
        client = self._only_span(call.caller, request, "client")
        if client is None:
            return  # counted as missing or extra
        expected = f"00-{client['trace_id']}-{client['span_id']}-{client['trace_flags']:02x}"
        if seen != [expected]:
            sentence = (
                f"{_name(request)}: {call.callee} received {seen[0]}, {call.caller}'s span is {expected}"
            )
            self.result.add("wrong_parents", sentence)

    def _add_duplicate(self, request: Json, service: str, seen: list[str]) -> None:
        self.result.add("duplicate_headers", f"{_name(request)}: {service} received {' and '.join(seen)}")

    # -- spans, by headers and by each other -------------------------------------------------

    def _check_spans(self, request: Json) -> None:
        for service in self.services:
            self._check_there_is_one(request, service, "server")
            server = self._only_span(service, request, "server")
            if server is not None:
                self._check_server_span(request, service, server)
        for call in self.calls(request):
            self._check_there_is_one(request, call.caller, "client")
            client = self._only_span(call.caller, request, "client")
            if client is not None:
                self._check_client_span(request, call, client)
        last = self.services[-1]
        for span in self.found.get((last, request["id"], "client"), []):
            self.result.add("extra_spans", f"{_name(request)}: {last} calls nobody, but has {_short(span)}")

    def _check_there_is_one(self, request: Json, service: str, kind: str) -> None:
        spans = self.found.get((service, request["id"], kind), [])
        if not self.is_traced(service, kind):
            for span in spans:
                self.result.add("extra_spans", f"{_name(request)}: {_short(span)} of what is not traced")
            return
        if not spans:
            self.result.add("missing_spans", f"{_name(request)}: no {kind} span of {service}")
        for span in spans[1:]:
            self.result.add(
                "extra_spans", f"{_name(request)}: a second {kind} span of {service}, {_short(span)}"
            )

    def _check_server_span(self, request: Json, service: str, span: Json) -> None:
        """A server span continues what came in; without a header it begins a trace of its own."""
        headers = self.headers(service, request["id"])
        if len(headers) == 1:
            trace, parent = split(headers[0])
            self._check_parent(request, span, trace, (parent,))
        elif not headers:
            self._check_parent(request, span, span["trace_id"], (None,))
            self.fresh[span["trace_id"]].append((service, request["id"]))
        received = self.seen[service, request["id"]][0]
        expected = {**self.server_details(request, service), "parent_remote": bool(headers)}
        self._check_details(request, span, expected, {"peer": received["remote"]})

    def _check_client_span(self, request: Json, call: Call, span: Json) -> None:
        """A client span is a child of its service's server span, unless the application did it all."""
        server = self._only_span(call.caller, request, "server")
        if call.header == "application":
            # The span is the one that the application's header names. Its parent is not known
            # from that header; it may be left out, or be the request that is being served.
            trace, span_id = split(call.value or "")
            parents = (None, server["span_id"]) if server else (None, span["parent_span_id"])
            self._check_parent(request, span, trace, parents, span_id)
        elif server is not None:
            self._check_parent(request, span, server["trace_id"], (server["span_id"],))
        elif not self.is_traced(call.caller, "server"):
            self._check_parent(request, span, span["trace_id"], (None,))
            self.fresh[span["trace_id"]].append((call.caller, request["id"]))
        header = call.header
        if header == "injected" and not self.headers(call.callee, request["id"]):
            header = "none"  # counted as not injected; the tracer should know it as well
        received = self.seen[call.callee, request["id"]][0]
        expected = {**self.client_details(request, call), "header": header, "parent_remote": False}
        self._check_details(request, span, expected, {"local": received["remote"]})

    def _check_parent(
        self,
        request: Json,
        span: Json,
        trace: str,
        parents: Sequence[str | None],
        span_id: str | None = None,
    ) -> None:
        faults = []
        if span["trace_id"] != trace:
            faults.append(f"its trace is not {trace}")
        if span["parent_span_id"] not in parents:
            faults.append(f"its parent is not {' or '.join(map(str, parents))}")
        if span_id is not None and span["span_id"] != span_id:
            faults.append(f"its id is not {span_id}")
        if faults:
            self.result.add("wrong_parents", f"{_name(request)}: {_short(span)}: {', '.join(faults)}")

    def _check_details(self, request: Json, span: Json, exact: Json, if_known: Json) -> None:
        known = {key: value for key, value in if_known.items() if span.get(key) is not None}
        expected = {**exact, **known}
        faults = [
            f"{key} is {span.get(key)!r} instead of {value!r}"
            for key, value in expected.items()
            if span.get(key) != value
        ]
        if not 0 < span["start_ns"] <= span["end_ns"]:
            faults.append(f"it lasts from {span['start_ns']} to {span['end_ns']}")
        if faults:
            self.result.add("wrong_details", f"{_name(request)}: {_short(span)}: {', '.join(faults)}")

    def _check_fresh_traces(self) -> None:
        """A trace begun by the tracer belongs to one request and is nobody else's."""
        foreign = {trace for trace, _ in self._given_ids()}
        for trace, members in self.fresh.items():
            if trace in foreign or len(members) > 1:
                for service, request_id in members:
                    sentence = f"request {request_id} began trace {trace} in {service}, which others have too"
                    self.result.add("wrong_parents", sentence)

    def _check_span_ids(self) -> None:
        """No two spans have the same id, and none takes one that was given out by others."""
        given = {span_id for _, span_id in self._given_ids()}
        for span_id, count in Counter(span["span_id"] for span in self.spans).items():
            if count > 1:
                self.result.add("wrong_parents", f"{count} spans have the id {span_id}")
        for span in self.spans:
            if span["span_id"] in given and span.get("header") != "application":
                self.result.add("wrong_parents", f"{_short(span)} has an id that came in a header")
            if not (_is_id(span["trace_id"], 32) and _is_id(span["span_id"], 16)):
                self.result.add("wrong_parents", f"{_short(span)} has an invalid id")

    # -- what is known about a request -------------------------------------------------------

    def calls(self, request: Json) -> Iterable[Call]:
        """Yield the calls that a request leads to, with how each call's header comes about."""
        for caller, callee in itertools.pairwise(self.services):
            incoming = self.headers(caller, request["id"])
            if self.sets_own(request):
                yield Call(caller, callee, "application", application_traceparent(caller, request["id"]))
            elif request["kind"] == "proxy" and incoming:
                # Whoever does not see what comes in can only take it for the application's own.
                seen = not self.traced or self.is_traced(caller, "server")
                yield Call(caller, callee, "forwarded" if seen else "application", incoming[0])
            else:
                yield Call(caller, callee, "injected" if self.injects(caller) else "none", None)

    def sets_own(self, request: Json) -> bool:
        """Whether each service sets a header of its own for this request."""
        return request["kind"] in ("own", "ownlower")

    def injects(self, caller: str) -> bool:
        """Whether the tracer was to inject headers into the calls of this service."""
        return self.propagated

    def is_traced(self, service: str, kind: str) -> bool:
        """Whether the tracer was to report this side ("server" or "client") of this service."""
        return True

    def server_details(self, request: Json, service: str) -> dict[str, Any]:
        """Return what the server span of a service must say, besides ids and headers."""
        return {**self._details(request), "route": self.route}

    def client_details(self, request: Json, call: Call) -> dict[str, Any]:
        """Return what the client span of a call must say, besides ids and headers."""
        return self._details(request)

    def _details(self, request: Json) -> dict[str, Any]:
        expected: dict[str, Any] = {
            "path": f"/work/{request['id']}/{request['mode']}/{request['kind']}",
            "method": _METHODS.get(request["kind"], "GET"),
            "protocol": "http/1.1",
        }
        if request["ok"]:
            expected |= {"status": request["status"], "error": None}
        return expected

    def _given_ids(self) -> Iterable[tuple[str, str]]:
        """Yield trace and span id of every header that was made by driver or application."""
        for request in self.driven.values():
            if request["traceparent"]:
                yield split(request["traceparent"])
            if self.sets_own(request):
                for service in self.services[:-1]:
                    yield split(application_traceparent(service, request["id"]))

    def headers(self, service: str, request_id: int) -> list[str]:
        """Return the traceparent headers that a service received with a request."""
        return list(self.seen[service, request_id][0]["traceparent"])

    def _only_span(self, service: str, request: Json, kind: str) -> Json | None:
        """Return the span, or the first if there are several; None where none may be."""
        if not self.is_traced(service, kind):
            return None
        spans = self.found.get((service, request["id"], kind), [])
        return spans[0] if spans else None

    def index(self, span: Json) -> None:
        """Find the request and the service that a span belongs to."""
        match = _PATH.fullmatch(span["path"] or "")
        if match is None or int(match[1]) not in self.driven:
            self.result.add("extra_spans", f"{_short(span)} belongs to no request")
        elif span.get("service") not in self.services or span["kind"] not in ("server", "client"):
            self.result.add("extra_spans", f"{_short(span)} is of no service of the chain")
        else:
            self.found[span["service"], int(match[1]), span["kind"]].append(span)


def _name(request: Json) -> str:
    return f"request {request['id']} ({request['mode']}, {request['kind']})"


def _short(span: Json) -> str:
    return (
        f"{span.get('service')} {span['kind']} span {span['trace_id']}/{span['span_id']}"
        f" under {span['parent_span_id']} ({span['method']} {span['path']})"
    )


def _is_id(text: str, length: int) -> bool:
    return re.fullmatch(f"[0-9a-f]{{{length}}}", text) is not None and text.strip("0") != ""
