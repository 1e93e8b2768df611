"""The judge of the test chain passes a perfect run and sees every kind of mistake."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import pytest

from tests.chain.judge import (
    MAX_EXAMPLES,
    MISTAKES,
    ROUTE,
    SERVICES,
    Verdict,
    application_traceparent,
    judge,
    split,
    with_services,
)

MODES = ("context", "nocontext", "goroutine")
KINDS = ("get", "head", "range", "body", "shared", "own", "ownlower", "proxy", "bighead")
REQUESTS = 135  # every mode with every kind, with and without an incoming header


def hexadecimal(seed: str, length: int) -> str:
    return hashlib.sha256(seed.encode()).hexdigest()[:length]


@dataclass
class Run:
    """What driver, witness and a tracer would write down; tests spoil it."""

    driven: list[dict[str, Any]]
    witness: list[dict[str, Any]]
    spans: list[dict[str, Any]]
    propagated: bool

    def judge(self) -> Verdict:
        return judge(self.driven, self.witness, self.spans, propagated=self.propagated)

    def request(self, kind: str, *, incoming: bool = True) -> int:
        """Return the id of a request of this kind."""
        for record in self.driven:
            if record["kind"] == kind and bool(record["traceparent"]) == incoming:
                return int(record["id"])
        raise LookupError(kind)

    def span(self, service: str, request_id: int, kind: str) -> dict[str, Any]:
        return next(
            s
            for s in self.spans
            if (s["service"], s["kind"]) == (service, kind) and s["path"].startswith(f"/work/{request_id}/")
        )

    def received(self, service: str, request_id: int) -> dict[str, Any]:
        return next(w for w in self.witness if (w["service"], w["id"]) == (service, request_id))


def perfect_run(propagated: bool, requests: int = REQUESTS) -> Run:
    """Do what the application and a tracer without fault would do."""
    run = Run([], [], [], propagated)
    for request_id in range(requests):
        mode, kind = MODES[request_id % 3], KINDS[request_id // 3 % 9]
        seed = hexadecimal(f"in:{request_id}", 48)
        incoming = None if request_id % 5 == 4 else f"00-{seed[:32]}-{seed[32:]}-01"
        status = 206 if kind == "range" else 200
        base = {"id": request_id, "mode": mode, "kind": kind}
        run.driven.append(base | {"traceparent": incoming, "status": status, "ok": True, "error": ""})
        header = incoming
        for number, service in enumerate(SERVICES):
            method = {"head": "HEAD", "body": "POST"}.get(kind, "GET")
            address = f"127.0.0.1:{10000 + 3 * request_id + number}"
            received = [header] if header else []
            run.witness.append(
                base | {"service": service, "method": method, "traceparent": received, "remote": address}
            )
            if number > 0:
                run.spans[-1]["local"] = address
            path = f"/work/{request_id}/{mode}/{kind}"
            common = {
                "service": service,
                "pid": 100 + number,
                "name": method,
                "method": method,
                "path": path,
                "protocol": "http/1.1",
                "host": "127.0.0.1",
                "status": status,
                "error": None,
                "peer": None,
                "local": None,
                "start_ns": 1000,
                "end_ns": 2000,
                "trace_flags": 1,
                "parent_remote": False,
            }
            trace, parent = (
                split(header) if header else (hexadecimal(f"new:{service}:{request_id}", 32), None)
            )
            server_id = hexadecimal(f"server:{service}:{request_id}", 16)
            run.spans.append(
                common
                | {"kind": "server", "trace_id": trace, "span_id": server_id, "parent_span_id": parent}
                | {"parent_remote": parent is not None}
                | {"route": ROUTE, "peer": address, "header": "none"}
            )
            if service == "back":
                continue
            client_id = hexadecimal(f"client:{service}:{request_id}", 16)
            client_parent: str | None = server_id
            if kind in ("own", "ownlower"):
                how, header = "application", application_traceparent(service, request_id)
                trace, client_id = split(header)
                client_parent = None
            elif kind == "proxy" and header:
                how = "forwarded"
            elif propagated:
                how, header = "injected", f"00-{trace}-{client_id}-01"
            else:
                how, header = "none", None
            run.spans.append(
                common
                | {"kind": "client", "trace_id": trace, "span_id": client_id, "parent_span_id": client_parent}
                | {"route": "", "header": how}
            )
    return run


@pytest.fixture(params=[True, False], ids=["propagated", "not-propagated"])
def run(request: pytest.FixtureRequest) -> Run:
    return perfect_run(propagated=request.param)


@pytest.fixture
def propagated() -> Run:
    return perfect_run(propagated=True)


def assert_only(verdict: Verdict, **expected: int) -> None:
    """The verdict counts exactly these mistakes, and has a sentence for each kind."""
    assert verdict.counts == dict.fromkeys(MISTAKES, 0) | expected, str(verdict)
    assert not verdict.ok
    for mistake in expected:
        assert verdict.examples[mistake]


def test_a_perfect_run_passes(run: Run) -> None:
    verdict = run.judge()
    assert verdict.ok, str(verdict)
    assert (verdict.requests, verdict.spans) == (REQUESTS, 5 * REQUESTS)
    assert "all right" in str(verdict)


def test_the_order_of_records_and_spans_does_not_matter(run: Run) -> None:
    for records in (run.driven, run.witness, run.spans):
        records.reverse()
    assert run.judge().ok


def test_a_perfect_run_without_tracer_passes() -> None:
    run = perfect_run(propagated=False)
    assert judge(run.driven, run.witness, None, propagated=False).ok


def test_a_run_without_any_request_does_not_pass() -> None:
    assert not judge([], [], [], propagated=True).ok


def test_a_tracer_without_spans_does_not_pass(run: Run) -> None:
    run.spans.clear()
    assert run.judge().counts["missing_spans"] == 5 * REQUESTS


def test_a_run_that_should_have_propagated_does_not_pass_without() -> None:
    run = perfect_run(propagated=False)
    run.propagated = True
    calls_without_header = 2 * sum(1 for r in run.driven if r["kind"] not in ("own", "ownlower", "proxy"))
    proxied_without_header = 2 * sum(1 for r in run.driven if r["kind"] == "proxy" and not r["traceparent"])
    assert_only(run.judge(), not_injected=calls_without_header + proxied_without_header)


def test_a_run_that_should_not_have_propagated_does_not_pass_with(propagated: Run) -> None:
    propagated.propagated = False
    verdict = propagated.judge()
    assert verdict.counts["altered_headers"] > REQUESTS


def test_a_wrong_answer_is_a_failed_request(run: Run) -> None:
    run.driven[7] |= {"ok": False, "status": 502, "error": "status 502 instead of 200"}
    assert_only(run.judge(), failed_requests=1)


def test_a_request_that_a_service_never_got_is_a_failed_request(run: Run) -> None:
    run.witness.remove(run.received("back", 3))
    assert_only(run.judge(), failed_requests=1)


def test_a_request_that_a_service_got_twice_is_a_failed_request(run: Run) -> None:
    run.witness.append(run.received("middle", 3))
    assert_only(run.judge(), failed_requests=1)


def test_a_request_that_nobody_sent_is_a_failed_request(run: Run) -> None:
    run.witness.append(run.received("front", 3) | {"id": 9999})
    assert_only(run.judge(), failed_requests=1)


@pytest.mark.parametrize("service", ["front", "middle"])
def test_swapped_parents_of_two_calls_in_one_service_are_wrong(run: Run, service: str) -> None:
    one, other = (run.span(service, request_id, "client") for request_id in (0, 1))
    one["parent_span_id"], other["parent_span_id"] = other["parent_span_id"], one["parent_span_id"]
    assert_only(run.judge(), wrong_parents=2)


def test_swapped_headers_of_two_calls_are_wrong(propagated: Run) -> None:
    one, other = (propagated.received("middle", request_id) for request_id in (0, 1))
    one["traceparent"], other["traceparent"] = other["traceparent"], one["traceparent"]
    verdict = propagated.judge()  # for each: the header is not its call's, the server span not the header's
    assert_only(verdict, wrong_parents=4)


def test_a_server_span_that_ignores_the_incoming_header_is_wrong(run: Run) -> None:
    run.span("front", 0, "server")["parent_span_id"] = None
    assert_only(run.judge(), wrong_parents=1)


def test_a_server_span_with_a_parent_that_never_came_is_wrong(run: Run) -> None:
    request_id = run.request("get", incoming=False)
    run.span("front", request_id, "server")["parent_span_id"] = "00f067aa0ba902b7"
    assert_only(run.judge(), wrong_parents=1)


def test_a_call_in_another_trace_than_its_request_is_wrong(run: Run) -> None:
    run.span("front", run.request("get"), "client")["trace_id"] = hexadecimal("elsewhere", 32)
    assert run.judge().counts["wrong_parents"] >= 1


def test_two_requests_merged_into_one_new_trace_are_wrong() -> None:
    run = perfect_run(propagated=False)
    one, other = (run.span("back", request_id, "server") for request_id in (0, 1))
    other["trace_id"] = one["trace_id"]
    assert_only(run.judge(), wrong_parents=2)


def test_a_new_trace_inside_the_trace_of_another_request_is_wrong() -> None:
    run = perfect_run(propagated=False)
    run.span("back", 1, "server")["trace_id"] = split(run.driven[0]["traceparent"])[0]
    assert_only(run.judge(), wrong_parents=1)


def test_a_span_id_used_twice_is_wrong(run: Run) -> None:
    request_id = run.request("proxy")  # a forwarded call: nobody names its span
    run.span("front", request_id, "client")["span_id"] = run.span("back", 0, "server")["span_id"]
    assert_only(run.judge(), wrong_parents=1)


def test_a_forwarded_call_that_takes_the_id_of_the_header_is_wrong(run: Run) -> None:
    request_id = run.request("proxy")
    header = run.received("front", request_id)["traceparent"][0]
    run.span("front", request_id, "client")["span_id"] = split(header)[1]
    assert_only(run.judge(), wrong_parents=1)


@pytest.mark.parametrize("field, value", [("trace_id", "0" * 32), ("span_id", "0" * 16), ("span_id", "xyz")])
def test_an_invalid_id_is_wrong(run: Run, field: str, value: str) -> None:
    run.span("back", 0, "server")[field] = value
    assert run.judge().counts["wrong_parents"] >= 1


@pytest.mark.parametrize("kind", ["own", "ownlower"])
@pytest.mark.parametrize("field", ["trace_id", "span_id"])
def test_a_call_that_does_not_take_the_ids_of_the_applications_header_is_wrong(
    run: Run, kind: str, field: str
) -> None:
    span = run.span("front", run.request(kind), "client")
    span[field] = hexadecimal("something else", len(span[field]))
    assert_only(run.judge(), wrong_parents=1)


@pytest.mark.parametrize("kind", ["own", "ownlower"])
def test_a_call_with_the_applications_header_may_name_its_request_but_no_other(run: Run, kind: str) -> None:
    request_id = run.request(kind)
    span = run.span("middle", request_id, "client")
    span["parent_span_id"] = run.span("middle", request_id, "server")["span_id"]
    assert run.judge().ok
    span["parent_span_id"] = run.span("middle", 0, "server")["span_id"]
    assert_only(run.judge(), wrong_parents=1)


@pytest.mark.parametrize("kind", ["get", "own", "ownlower", "proxy"])
def test_a_second_header_is_a_duplicate(propagated: Run, kind: str) -> None:
    received = propagated.received("middle", propagated.request(kind))
    received["traceparent"].append(f"00-{'a' * 32}-{'b' * 16}-01")
    assert_only(propagated.judge(), duplicate_headers=1)


@pytest.mark.parametrize("kind", ["own", "ownlower", "proxy"])
def test_a_changed_header_of_the_application_is_altered(propagated: Run, kind: str) -> None:
    received = propagated.received("back", propagated.request(kind))
    received["traceparent"] = [f"00-{'a' * 32}-{'b' * 16}-01"]
    assert propagated.judge().counts["altered_headers"] == 1


@pytest.mark.parametrize("kind", ["own", "ownlower", "proxy"])
def test_a_removed_header_of_the_application_is_altered(run: Run, kind: str) -> None:
    run.received("back", run.request(kind))["traceparent"] = []
    assert run.judge().counts["altered_headers"] == 1


def test_a_header_added_where_none_may_be_is_altered() -> None:
    run = perfect_run(propagated=False)
    run.received("back", run.request("get"))["traceparent"] = [f"00-{'a' * 32}-{'b' * 16}-01"]
    assert run.judge().counts["altered_headers"] == 1


def test_a_call_without_header_is_not_injected(propagated: Run) -> None:
    request_id = propagated.request("get")
    propagated.received("back", request_id)["traceparent"] = []
    propagated.span("middle", request_id, "client")["header"] = "none"
    propagated.span("back", request_id, "server").update(
        trace_id="ab" * 16, parent_span_id=None, parent_remote=False
    )
    assert_only(propagated.judge(), not_injected=1)


def test_an_injection_with_other_flags_is_wrong(propagated: Run) -> None:
    received = propagated.received("middle", propagated.request("get"))
    received["traceparent"] = [received["traceparent"][0][:-2] + "00"]
    assert_only(propagated.judge(), wrong_parents=1)


@pytest.mark.parametrize(
    "service, kind",
    [(service, "server") for service in SERVICES] + [("front", "client"), ("middle", "client")],
)
def test_every_missing_span_is_counted(run: Run, service: str, kind: str) -> None:
    run.spans.remove(run.span(service, 5, kind))
    assert_only(run.judge(), missing_spans=1)


def test_a_second_span_of_the_same_request_is_extra(run: Run) -> None:
    run.spans.append(run.span("middle", 5, "client") | {"span_id": hexadecimal("second", 16)})
    assert_only(run.judge(), extra_spans=1)


def test_a_call_of_the_last_service_is_extra(run: Run) -> None:
    run.spans.append(
        run.span("middle", 5, "client") | {"service": "back", "span_id": hexadecimal("call", 16)}
    )
    assert_only(run.judge(), extra_spans=1)


@pytest.mark.parametrize(
    "change", [{"path": "/elsewhere"}, {"path": "/work/9999/context/get"}, {"service": None}]
)
def test_a_span_of_no_request_or_service_is_extra(run: Run, change: dict[str, Any]) -> None:
    run.spans.append(run.span("middle", 5, "client") | {"span_id": hexadecimal("stray", 16)} | change)
    assert_only(run.judge(), extra_spans=1)


@pytest.mark.parametrize(
    "change",
    [
        {"method": "PUT"},
        {"status": 500},
        {"protocol": "http/2"},
        {"path": "/work/0/context/head"},
        {"route": "/"},
        {"error": "broken"},
        {"parent_remote": False},
        {"peer": "127.0.0.1:1"},
        {"start_ns": 3000},
        {"start_ns": 0},
    ],
    ids=str,
)
def test_a_span_that_says_something_wrong_has_wrong_details(run: Run, change: dict[str, Any]) -> None:
    run.span("front", 0, "server").update(change)
    assert_only(run.judge(), wrong_details=1)


@pytest.mark.parametrize("kind", ["get", "own", "ownlower", "proxy"])
def test_a_call_that_misreports_how_its_header_came_about_has_wrong_details(run: Run, kind: str) -> None:
    span = run.span("front", run.request(kind), "client")
    span["header"] = "none" if span["header"] != "none" else "injected"
    assert run.judge().counts["wrong_details"] == 1


def test_a_call_on_another_connection_than_the_callee_saw_has_wrong_details(run: Run) -> None:
    run.span("front", 0, "client")["local"] = "127.0.0.1:1"
    assert_only(run.judge(), wrong_details=1)


def test_addresses_may_be_unknown(run: Run) -> None:
    for span in run.spans:
        span |= {"peer": None, "local": None}
    assert run.judge().ok


def test_examples_are_few_and_counts_are_complete(run: Run) -> None:
    run.spans = [span for span in run.spans if span["service"] != "back"]
    verdict = run.judge()
    assert_only(verdict, missing_spans=REQUESTS)
    assert len(verdict.examples["missing_spans"]) == MAX_EXAMPLES
    assert f"{REQUESTS} missing_spans" in str(verdict)


def test_spans_get_their_service_by_process_id(run: Run) -> None:
    for span in run.spans:
        del span["service"]
    run.spans = with_services(run.spans, {"front": 100, "middle": 101, "back": 102})
    assert run.judge().ok
    run.spans = with_services(run.spans, {"front": 100})
    assert run.judge().counts["extra_spans"] == 3 * REQUESTS


def test_two_propagated_requests_merged_into_one_trace_are_wrong(propagated: Run) -> None:
    """Headers and spans agree with one another all the way down: only the trace is shared."""
    one, other = [int(r["id"]) for r in propagated.driven if not r["traceparent"] and r["kind"] == "get"][:2]
    theirs = propagated.span("front", other, "server")["trace_id"]
    shared = propagated.span("front", one, "server")["trace_id"]
    for span in propagated.spans:
        if span["trace_id"] == theirs:
            span["trace_id"] = shared
    for record in propagated.witness:
        record["traceparent"] = [header.replace(theirs, shared) for header in record["traceparent"]]
    assert_only(propagated.judge(), wrong_parents=2)


@pytest.mark.parametrize("service", ["front", "middle"])
def test_a_forwarded_call_of_another_request_is_wrong(run: Run, service: str) -> None:
    span = run.span(service, run.request("proxy"), "client")
    span["parent_span_id"] = run.span(service, 0, "server")["span_id"]
    assert_only(run.judge(), wrong_parents=1)


def test_a_forwarded_header_that_was_replaced_by_our_own_is_altered(propagated: Run) -> None:
    request_id = propagated.request("proxy")
    client = propagated.span("front", request_id, "client")
    received = propagated.received("middle", request_id)
    received["traceparent"] = [f"00-{client['trace_id']}-{client['span_id']}-01"]
    assert propagated.judge().counts["altered_headers"] >= 1


def test_headers_are_judged_without_spans_too() -> None:
    run = perfect_run(propagated=False)
    run.received("back", run.request("get"))["traceparent"] = [f"00-{'a' * 32}-{'b' * 16}-01"]
    run.received("back", run.request("own"))["traceparent"] *= 2
    verdict = judge(run.driven, run.witness, None, propagated=False)
    assert_only(verdict, altered_headers=1, duplicate_headers=1)
