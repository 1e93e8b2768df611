"""Outgoing calls have the right parent and one header, or a reason why they have none."""

from __future__ import annotations

from tests.bpf.conftest import Traced

OWN = "00-0123456789abcdef0123456789abcdef-0123456789abcdef-01"


def test_a_call_is_the_child_of_the_request_that_makes_it(traced: Traced) -> None:
    answer = traced.cases.get("/call/plain")
    outer, client, inner = traced.spans(3)
    assert [s.kind for s in (outer, client, inner)] == ["server", "client", "server"]
    assert (client.trace_id, client.parent_span_id) == (outer.trace_id, outer.span_id)
    assert not client.parent_remote
    assert (client.path, client.status, client.peer) == ("/echo/plain", 200, inner.local)
    if traced.injects:
        assert answer["traceparent"] == [client.trace_context.traceparent]
        assert (inner.trace_id, inner.parent_span_id) == (client.trace_id, client.span_id)
        assert client.header == "injected"
    else:
        assert answer["traceparent"] is None
        assert client.header == "none"
        assert traced.counted()["not_injected_off"] == 1


def test_a_refused_connection_is_a_failed_call(traced: Traced) -> None:
    assert "refused" in traced.cases.get("/call/refused")["error"]
    outer, client = traced.spans(2)
    assert (client.kind, client.error, client.status) == ("client", "call failed", 0)
    assert client.parent_span_id == outer.span_id


def test_each_hop_of_a_redirect_is_a_call(traced: Traced) -> None:
    traced.cases.get("/call/redirect")
    spans = traced.spans(5)
    clients = [span for span in spans if span.kind == "client"]
    assert [(span.path, span.status) for span in clients] == [("/redirect", 302), ("/echo/redirected", 200)]
    assert {span.parent_span_id for span in clients} == {spans[0].span_id}
    assert clients[0].span_id != clients[1].span_id


def test_a_call_given_up_is_a_failed_call(traced: Traced) -> None:
    assert "deadline" in traced.cases.get("/call/cancel")["error"]
    spans = traced.spans(3)
    (client,) = (span for span in spans if span.kind == "client")
    assert (client.error, client.path) == ("call failed", "/slow")
    assert client.duration_ns >= 25_000_000  # the 50 ms begin before the call does


def test_a_request_tried_again_is_one_call(traced: Traced) -> None:
    answer = traced.cases.get("/call/retry")
    spans = traced.spans(3)
    clients = [span for span in spans if span.kind == "client"]
    assert [(span.path, span.status) for span in clients] == [("/retry/0", 200), ("/retry/1", 200)]
    assert traced.counted()["call_retried"] == 1
    if traced.injects:
        assert answer["traceparent"] == [clients[1].trace_context.traceparent]


def test_a_header_of_the_application_among_many_is_used(traced: Traced) -> None:
    answer = traced.cases.get("/call/bigheaders")
    assert answer["traceparent"] == [OWN]
    (client,) = (span for span in traced.spans(3) if span.kind == "client")
    assert client.trace_context.traceparent == OWN
    assert client.header == "application"


def test_an_invalid_header_of_the_application_is_left_alone(traced: Traced) -> None:
    answer = traced.cases.get("/call/invalidown")
    assert answer["traceparent"] == ["nonsense"]
    (client,) = (span for span in traced.spans(3) if span.kind == "client")
    assert client.header == "application"
    assert traced.counted()["application_header_invalid"] == 1


def test_a_header_that_does_not_fit_is_counted(traced: Traced) -> None:
    answer = traced.cases.get("/call/longurl")
    traced.spans(3)
    assert answer["traceparent"] is None
    reason = "not_injected_no_room" if traced.injects else "not_injected_off"
    assert traced.counted()[reason] == 1


def test_one_request_in_several_calls_at_once_never_has_a_wrong_header(traced: Traced) -> None:
    traced.cases.get("/call/sharedrequest")
    spans = traced.spans(17)
    outer = spans[0]
    clients = {span.span_id: span for span in spans if span.kind == "client"}
    assert len(clients) == 8
    assert {span.parent_span_id for span in clients.values()} == {outer.span_id}
    for inner in spans[1:]:
        if inner.kind == "server" and inner.parent_span_id is not None:
            assert clients[inner.parent_span_id].trace_id == inner.trace_id
    counted = traced.counted()
    settled = ("injected", "not_injected_ambiguous", "not_injected_off", "not_injected_request_unknown")
    assert sum(counted.get(name, 0) for name in settled) == 8
