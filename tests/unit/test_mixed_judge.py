"""The judge of the mixed chain passes a perfect run and sees every kind of mistake."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.chain.judge import ROUTE, application_traceparent, split
from tests.mixed.judge import CALLS, MISTAKES, NOTHING, SERVES, MixedVerdict, Tracing, judge
from tests.mixed.services import SERVICES

MODES = ("context", "nocontext", "goroutine")
KINDS = (
    "get",
    "body",
    "ownfirst",
    "ownmiddle",
    "ownlast",
    "owncreds",
    "proxy",
    "meta4k",
    "fail",
    "cancel",
    "edge",
)
REQUESTS = 165  # every mode with every kind, with and without an incoming header
MILLISECOND = 1_000_000
HTTP_ONLY = Tracing(servers=("front", "back"), clients=("stream",), injects=("stream",))


def hexadecimal(seed: str, length: int) -> str:
    return hashlib.sha256(seed.encode()).hexdigest()[:length]


@dataclass
class Run:
    """What driver, witness and a tracer would write down; tests spoil it."""

    tracing: Tracing
    driven: list[dict[str, Any]] = field(default_factory=list)
    witness: list[dict[str, Any]] = field(default_factory=list)
    spans: list[dict[str, Any]] = field(default_factory=list)

    def judge(self) -> MixedVerdict:
        return judge(self.driven, self.witness, self.spans, tracing=self.tracing)

    def request(self, kind: str, *, incoming: bool = True) -> int:
        """Return the id of a request of this kind."""
        for record in self.driven:
            if record["kind"] == kind and bool(record["traceparent"]) == incoming:
                return int(record["id"])
        raise LookupError(kind)

    def span(self, service: str, request_id: int, kind: str) -> dict[str, Any]:
        return next(
            s for s in self.spans if (s["service"], s["kind"], s["of"]) == (service, kind, request_id)
        )

    def noted(self, service: str, request_id: int, event: str = "received") -> dict[str, Any]:
        key = (service, request_id, event)
        return next(w for w in self.witness if (w["service"], w["id"], w["event"]) == key)


def statuses(service: str, kind: str) -> tuple[int, int]:
    """Return what a service answers, and what its call ends with."""
    plain = {"http/1.1": 200, "http/2": 200, "grpc": 0}
    failed = {
        "front": (409, 409),
        "gateway": (409, 9),
        "unary": (9, 9),
        "stream": (9, 200),
        "back": (200, 0),
    }
    if kind == "fail":
        return failed[service]
    if kind == "cancel" and service in ("unary", "stream"):
        return (0, 1) if service == "unary" else (1, 200)
    return plain[SERVES[service]], plain[CALLS.get(service, "grpc")]


def perfect_run(tracing: Tracing, requests: int = REQUESTS) -> Run:
    """Do what the application and a tracer without fault would do."""
    run = Run(tracing)
    for request_id in range(requests):
        _add_request(run, request_id)
    return run


def _add_request(run: Run, request_id: int) -> None:
    mode, kind = MODES[request_id % 3], KINDS[request_id // 3 % len(KINDS)]
    seed = hexadecimal(f"in:{request_id}", 48)
    incoming = None if request_id % 5 == 4 else f"00-{seed[:32]}-{seed[32:]}-01"
    base = {"id": request_id, "mode": mode, "kind": kind}
    status = statuses("front", kind)[0]
    run.driven.append(base | {"traceparent": incoming, "status": status, "ok": True, "error": ""})
    method = "POST" if kind == "body" else "GET"
    header = incoming
    for number, service in enumerate(SERVICES):
        # One goroutine of each service serves all requests, one after the other.
        start = (1000 + 10 * request_id) * MILLISECOND
        times = {"goroutine": 7, "start_ns": start, "end_ns": start + 5 * MILLISECOND}
        answered, called = statuses(service, kind)
        received = base | times | {"event": "received", "service": service, "protocol": SERVES[service]}
        received |= {"method": "/mixed.Work/Unary" if SERVES[service] == "grpc" else method}
        received |= {"status": answered, "traceparent": [header] if header else [], "remote": "127.0.0.1:1"}
        run.witness.append(received)
        trace, parent = split(header) if header else (hexadecimal(f"new:{service}:{request_id}", 32), None)
        server_id = hexadecimal(f"server:{service}:{request_id}", 16)
        server: dict[str, Any] = {
            "kind": "server",
            "trace_id": trace,
            "span_id": server_id,
            "parent_span_id": parent,
            "parent_remote": parent is not None,
            "route": "" if SERVES[service] == "grpc" else ROUTE,
            "header": "none",
        }
        _add_span(run, received, server)
        if number == len(SERVICES) - 1:
            return
        call = received | {"event": "called", "protocol": CALLS[service], "status": called, "goroutine": 8}
        call |= {"method": "/mixed.Work/BidiStream" if CALLS[service] == "grpc" else method}
        call |= {"traceparent": [], "remote": ""}
        run.witness.append(call)
        client_id = hexadecimal(f"client:{service}:{request_id}", 16)
        client_parent: str | None = server_id
        seen = service in run.tracing.servers
        if not seen:
            client_parent, trace = None, hexadecimal(f"call:{service}:{request_id}", 32)
        if kind.startswith("own"):
            how, header = "application", application_traceparent(service, request_id)
        elif kind == "proxy" and header:
            how = "forwarded" if seen else "application"
        elif service in run.tracing.injects:
            how, header = "injected", f"00-{trace}-{client_id}-01"
        else:
            how, header = "none", None
        if how == "application" and header:
            (trace, client_id), client_parent = split(header), None
        client = {
            "kind": "client",
            "trace_id": trace,
            "span_id": client_id,
            "parent_span_id": client_parent,
            "parent_remote": False,
            "route": "",
            "header": how,
        }
        _add_span(run, call, client)


def _add_span(run: Run, record: dict[str, Any], ids: dict[str, Any]) -> None:
    traced = run.tracing.servers if ids["kind"] == "server" else run.tracing.clients
    if record["service"] not in traced:
        return
    grpc = record["protocol"] == "grpc"
    path = f"/work/{record['id']}/{record['mode']}/{record['kind']}"
    run.spans.append(
        {
            "of": record["id"],  # for the tests: the judge does not look at it
            "service": record["service"],
            "protocol": record["protocol"],
            "method": "POST" if grpc else record["method"],
            "path": record["method"] if grpc else path,
            "status": record["status"],
            "error": None,
            "goroutine": record["goroutine"],
            "start_ns": record["start_ns"] - MILLISECOND,
            "end_ns": record["end_ns"] + MILLISECOND,
            "trace_flags": 1,
            "peer": None,
            "local": None,
            **ids,
        }
    )


@pytest.fixture(
    params=[Tracing(), Tracing(injects=()), HTTP_ONLY], ids=["all", "not-propagated", "http/1.1-only"]
)
def run(request: pytest.FixtureRequest) -> Run:
    return perfect_run(request.param)


@pytest.fixture
def propagated() -> Run:
    return perfect_run(Tracing())


def assert_only(verdict: MixedVerdict, **expected: int) -> None:
    """The verdict counts exactly these mistakes, and has a sentence for each kind."""
    assert verdict.counts == dict.fromkeys(MISTAKES, 0) | expected, str(verdict)
    assert not verdict.ok
    for mistake in expected:
        assert verdict.examples[mistake]


def test_a_perfect_run_passes(run: Run) -> None:
    verdict = run.judge()
    assert verdict.ok, str(verdict)
    assert verdict.spans == REQUESTS * (len(run.tracing.servers) + len(run.tracing.clients))


def test_a_perfect_run_without_tracer_passes_and_nothing_is_injected() -> None:
    run = perfect_run(NOTHING)
    verdict = judge(run.driven, run.witness, None)
    assert verdict.ok, str(verdict)
    assert {outcomes["injected"] for outcomes in verdict.hops.values()} == {0}
    assert {outcomes["several"] for outcomes in verdict.hops.values()} == {0}
    assert all(outcomes["application"] >= 4 * REQUESTS // len(KINDS) for outcomes in verdict.hops.values())


def test_a_run_without_any_request_does_not_pass() -> None:
    assert not judge([], [], []).ok


def test_the_table_tells_what_became_of_each_header(propagated: Run) -> None:
    verdict = propagated.judge()
    own = sum(1 for record in propagated.driven if record["kind"].startswith("own"))
    forwarded = sum(1 for record in propagated.driven if record["kind"] == "proxy" and record["traceparent"])
    first = verdict.hops["front -> gateway (http/2)"]
    assert (first["application"], first["forwarded"]) == (own, forwarded)
    assert first["injected"] == REQUESTS - own - forwarded
    assert (first["missing"], first["several"], first["none"]) == (0, 0, 0)
    assert "stream -> back (http/1.1)" in str(verdict)


def test_a_run_that_should_have_propagated_does_not_pass_without() -> None:
    run = perfect_run(Tracing(injects=()))
    run.tracing = Tracing()
    own = sum(1 for record in run.driven if record["kind"].startswith("own"))
    forwarded = sum(1 for record in run.driven if record["kind"] == "proxy" and record["traceparent"])
    assert_only(run.judge(), not_injected=4 * (REQUESTS - own - forwarded))


def test_a_tracer_without_spans_does_not_pass(run: Run) -> None:
    expected = len(run.spans)
    run.spans.clear()
    assert run.judge().counts["missing_spans"] == expected


@pytest.mark.parametrize("service", ["gateway", "unary", "stream", "back"])
def test_a_call_without_header_is_not_injected(propagated: Run, service: str) -> None:
    caller = SERVICES[SERVICES.index(service) - 1]
    request_id = propagated.request("get")
    propagated.noted(service, request_id)["traceparent"] = []
    verdict = propagated.judge()
    assert verdict.counts["not_injected"] == 1
    assert verdict.hops[f"{caller} -> {service} ({CALLS[caller]})"]["missing"] == 1


@pytest.mark.parametrize("service", ["gateway", "unary", "stream", "back"])
@pytest.mark.parametrize("kind", ["get", "ownfirst", "owncreds", "proxy", "cancel"])
def test_a_second_header_is_a_duplicate(propagated: Run, service: str, kind: str) -> None:
    received = propagated.noted(service, propagated.request(kind))
    received["traceparent"].append(f"00-{'a' * 32}-{'b' * 16}-01")
    verdict = propagated.judge()
    assert verdict.counts["duplicate_headers"] == 1
    assert sum(outcomes["several"] for outcomes in verdict.hops.values()) == 1


@pytest.mark.parametrize("service", ["gateway", "unary", "stream", "back"])
def test_the_header_of_another_request_is_foreign(propagated: Run, service: str) -> None:
    one, other = propagated.request("get"), propagated.request("body")
    propagated.noted(service, one)["traceparent"] = list(propagated.noted(service, other)["traceparent"])
    verdict = propagated.judge()
    # Both requests have that trace now.
    assert verdict.counts["foreign_contexts"] >= 1
    assert not verdict.counts["duplicate_headers"]


def test_foreign_headers_are_seen_although_spans_agree_with_them(propagated: Run) -> None:
    """Two requests that came without header are merged into one trace all the way down."""
    one, other = [int(r["id"]) for r in propagated.driven if not r["traceparent"] and r["kind"] == "get"][:2]
    theirs = propagated.span("front", other, "server")["trace_id"]
    shared = propagated.span("front", one, "server")["trace_id"]
    for span in propagated.spans:
        if span["trace_id"] == theirs:
            span["trace_id"] = shared
    for record in propagated.witness:
        record["traceparent"] = [header.replace(theirs, shared) for header in record["traceparent"]]
    assert_only(propagated.judge(), wrong_parents=2, foreign_contexts=8)


def test_a_header_of_another_trace_than_came_in_is_wrong_whatever_the_spans_say(propagated: Run) -> None:
    request_id = propagated.request("get")
    trace = split(propagated.noted("unary", request_id)["traceparent"][0])[0]
    for record in propagated.witness:
        if record["id"] == request_id and record["service"] in ("stream", "back"):
            record["traceparent"] = [h.replace(trace, "ab" * 16) for h in record["traceparent"]]
    for service, kind in (
        ("unary", "client"),
        ("stream", "server"),
        ("stream", "client"),
        ("back", "server"),
    ):
        propagated.span(service, request_id, kind)["trace_id"] = "ab" * 16
    assert propagated.judge().counts["wrong_parents"] >= 1


@pytest.mark.parametrize("kind", ["ownfirst", "ownmiddle", "ownlast", "owncreds", "proxy"])
@pytest.mark.parametrize("service", ["gateway", "stream", "back"])
def test_a_changed_header_of_the_application_is_altered(propagated: Run, service: str, kind: str) -> None:
    received = propagated.noted(service, propagated.request(kind))
    received["traceparent"] = [f"00-{'a' * 32}-{'b' * 16}-01"]
    assert propagated.judge().counts["altered_headers"] >= 1


def test_a_header_added_where_none_may_be_is_altered() -> None:
    run = perfect_run(HTTP_ONLY)
    run.noted("unary", run.request("get"))["traceparent"] = [f"00-{'a' * 32}-{'b' * 16}-01"]
    verdict = judge(run.driven, run.witness, run.spans, tracing=HTTP_ONLY)
    assert_only(verdict, altered_headers=1)
    assert verdict.hops["gateway -> unary (grpc)"]["injected"] == 1


def test_headers_are_judged_without_spans_too() -> None:
    run = perfect_run(NOTHING)
    run.noted("stream", run.request("get"))["traceparent"] = [f"00-{'a' * 32}-{'b' * 16}-01"]
    run.noted("back", run.request("ownlast"))["traceparent"] *= 2
    assert_only(judge(run.driven, run.witness, None), altered_headers=1, duplicate_headers=1)


@pytest.mark.parametrize("service", ["front", "gateway", "unary", "stream"])
def test_swapped_parents_of_two_calls_in_one_service_are_wrong(propagated: Run, service: str) -> None:
    one, other = (propagated.span(service, request_id, "client") for request_id in (0, 1))
    one["parent_span_id"], other["parent_span_id"] = other["parent_span_id"], one["parent_span_id"]
    assert_only(propagated.judge(), wrong_parents=2)


@pytest.mark.parametrize("service", ["gateway", "unary", "stream", "back"])
def test_a_server_span_that_ignores_the_incoming_header_is_wrong(propagated: Run, service: str) -> None:
    propagated.span(service, 0, "server")["parent_span_id"] = None
    assert_only(propagated.judge(), wrong_parents=1)


def test_an_injected_span_id_that_no_span_has_is_wrong(propagated: Run) -> None:
    request_id = propagated.request("get")
    received = propagated.noted("stream", request_id)
    trace, parent = split(received["traceparent"][0])
    received["traceparent"] = [f"00-{trace}-{'c' * 16}-01"]
    propagated.span("stream", request_id, "server")["parent_span_id"] = "c" * 16
    assert parent != "c" * 16
    assert_only(propagated.judge(), wrong_parents=1)


@pytest.mark.parametrize("service", SERVICES)
@pytest.mark.parametrize("kind", ["server", "client"])
def test_every_missing_span_is_counted(propagated: Run, service: str, kind: str) -> None:
    if (service, kind) == ("back", "client"):
        return  # it calls nobody
    propagated.spans.remove(propagated.span(service, 5, kind))
    assert_only(propagated.judge(), missing_spans=1)


@pytest.mark.parametrize("service", ["front", "gateway", "unary"])
def test_a_second_span_of_the_same_call_is_extra(propagated: Run, service: str) -> None:
    again = propagated.span(service, 5, "client") | {"span_id": hexadecimal("second", 16)}
    propagated.spans.append(again)
    assert_only(propagated.judge(), extra_spans=1)


@pytest.mark.parametrize(
    "change",
    [{"goroutine": 9}, {"start_ns": 1, "end_ns": 2}, {"service": None}, {"service": "back"}],
    ids=str,
)
def test_a_grpc_span_of_no_call_is_extra(propagated: Run, change: dict[str, Any]) -> None:
    stray = propagated.span("gateway", 5, "client") | {"span_id": hexadecimal("stray", 16)} | change
    propagated.spans.append(stray)
    assert_only(propagated.judge(), extra_spans=1)


def test_a_span_of_what_is_not_traced_is_extra() -> None:
    run = perfect_run(HTTP_ONLY)
    run.spans.append(perfect_run(Tracing(injects=())).span("gateway", 5, "client"))
    assert_only(run.judge(), extra_spans=1)


def test_grpc_spans_are_told_apart_by_time_where_one_goroutine_serves_many(propagated: Run) -> None:
    one, other = (propagated.span("stream", request_id, "server") for request_id in (0, 1))
    one["start_ns"], other["start_ns"] = other["start_ns"], one["start_ns"]
    one["end_ns"], other["end_ns"] = other["end_ns"], one["end_ns"]
    assert propagated.judge().counts["wrong_parents"] >= 2


@pytest.mark.parametrize("service", ["gateway", "unary", "stream"])
@pytest.mark.parametrize("change", [{"status": 14}, {"protocol": "http/3"}, {"path": "/other.Work/Unary"}])
def test_a_span_that_says_something_wrong_is_noticed(
    propagated: Run, service: str, change: dict[str, Any]
) -> None:
    propagated.span(service, 0, "client").update(change)
    assert not propagated.judge().ok


@pytest.mark.parametrize(("kind", "service"), [("cancel", "unary"), ("fail", "gateway"), ("fail", "unary")])
def test_a_failed_call_that_is_told_as_a_success_has_wrong_details(
    propagated: Run, kind: str, service: str
) -> None:
    span = propagated.span(service, propagated.request(kind), "client")
    assert span["status"] != 0
    span["status"] = 0
    assert_only(propagated.judge(), wrong_details=1)


@pytest.mark.parametrize("kind", ["get", "ownmiddle", "owncreds", "proxy"])
def test_a_call_that_misreports_how_its_header_came_about_has_wrong_details(
    propagated: Run, kind: str
) -> None:
    span = propagated.span("gateway", propagated.request(kind), "client")
    span["header"] = "none" if span["header"] != "none" else "injected"
    assert propagated.judge().counts["wrong_details"] == 1


def test_a_wrong_answer_is_a_failed_request(run: Run) -> None:
    run.driven[7] |= {"ok": False, "status": 502, "error": "status 502 instead of 200"}
    assert_only(run.judge(), failed_requests=1)


@pytest.mark.parametrize("event", ["received", "called"])
@pytest.mark.parametrize("service", ["gateway", "unary", "stream"])
def test_a_request_that_passed_a_service_never_or_twice_is_a_failed_request(
    run: Run, service: str, event: str
) -> None:
    noted = run.noted(service, 3, event)
    run.witness.append(noted | {"goroutine": 99})
    assert run.judge().counts["failed_requests"] == 1
    run.witness = [record for record in run.witness if record["goroutine"] != 99 and record is not noted]
    assert run.judge().counts["failed_requests"] == 1
