"""gRPC: one span for each side of a call, with its parent, its status, and one header."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.bpf.grpccases import VERSIONS, TracedGrpc, traced_program
from tests.skips import require

INCOMING = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
OWN = "00-0123456789abcdef0123456789abcdef-0123456789abcdef-01"


@pytest.fixture(scope="module")
def program() -> Iterator[TracedGrpc]:
    require("needs root")
    with traced_program() as found:
        yield found


@pytest.fixture
def grpc(program: TracedGrpc) -> TracedGrpc:
    list(program.tracer.spans(timeout=0.05))
    return TracedGrpc(program.cases, program.tracer, program.attachment)


@pytest.mark.parametrize("version", VERSIONS)
def test_every_version_of_grpc_is_traced_on_both_sides(version: str) -> None:
    require("needs root")
    with traced_program(version) as grpc:
        assert grpc.attachment.protocols["grpc"].reason == ""
        for path in ("/unary?", "/unary?on=tls", "/unary?on=workers", "/unary?on=fresh", "/stream?n=3"):
            answer = grpc.cases.get(path, {"traceparent": INCOMING})
            assert answer["code"] == 0, (path, answer)
            client, server = grpc.calls(2)
            seen = answer["seen"][0] if path.startswith("/stream") else answer["seen"]
            grpc.assert_carries(client, seen)
            assert (client.trace_id, client.parent_span_id) == (
                grpc.request.trace_id,
                grpc.request.span_id,
            )
            if grpc.injects:
                assert server.parent_span_id == client.span_id
            assert (client.status_name, server.status_name) == ("OK", "OK")
            assert (client.peer, client.local) == (server.local, server.peer)
            assert None not in (client.peer, client.local)
        for path, codes in (
            ("/unary?do=code+5", ["NOT_FOUND", "NOT_FOUND"]),
            ("/unary?do=plain", ["UNKNOWN", "UNKNOWN"]),
            ("/unary?on=refused", ["UNAVAILABLE"]),
            ("/unary?do=wait&cancel=100ms", ["CANCELLED", "CANCELLED"]),
            ("/stream?n=1&do=wait", ["CANCELLED", "CANCELLED"]),
        ):
            grpc.cases.get(path)
            assert [span.status_name for span in grpc.calls(len(codes))] == codes, path
        assert set(grpc.judge_many(200, at=20)) == {"injected" if grpc.injects else "none"}
        assert grpc.attachment.stats()["abandoned"] == grpc.attachment.stats()["memory_unreadable"] == 0


@pytest.mark.parametrize("form", ["stripped", "pie"])
def test_so_is_every_form_of_executable(form: str) -> None:
    require("needs root")
    with traced_program(form=form) as grpc:
        answer = grpc.cases.get("/unary?do=inner", {"traceparent": INCOMING})
        outer, server, inner, _ = grpc.calls(4)
        grpc.assert_carries(outer, answer["seen"])
        assert inner.parent_span_id == server.span_id
        grpc.cases.get("/unary?do=code+7")
        assert [span.status_name for span in grpc.calls(2)] == ["PERMISSION_DENIED"] * 2
        assert None not in (outer.peer, server.peer)


def test_a_call_is_named_by_service_and_method(grpc: TracedGrpc) -> None:
    grpc.cases.get("/unary?")
    client, server = grpc.calls(2)
    for span in (client, server):
        assert (span.name, span.path, span.method) == ("cases.Echo/Unary", "/cases.Echo/Unary", "POST")
        assert span.rpc_attributes == {
            "rpc.system.name": "grpc",
            "rpc.method": "cases.Echo/Unary",
            "rpc.response.status_code": "OK",
        }
        assert not span.failed
    assert client.host == server.local


def test_a_handlers_calls_belong_to_its_request(grpc: TracedGrpc) -> None:
    answer = grpc.cases.get("/unary?do=inner", {"traceparent": INCOMING})
    outer, server, inner, innermost = grpc.calls(4)
    assert (outer.kind, server.kind, inner.kind, innermost.kind) == ("client", "server") * 2
    assert (inner.trace_id, inner.parent_span_id) == (server.trace_id, server.span_id)
    if grpc.injects:
        assert {span.trace_id for span in (outer, server, inner, innermost)} == {grpc.request.trace_id}
        assert (server.parent_span_id, innermost.parent_span_id) == (outer.span_id, inner.span_id)
        assert server.parent_remote
        assert answer["seen"]["Inner"] == [inner.trace_context.traceparent]


def test_a_call_without_context_belongs_to_its_goroutines_request(grpc: TracedGrpc) -> None:
    grpc.cases.get("/unary?background=1")
    client, _ = grpc.calls(2)
    assert client.parent_span_id == grpc.request.span_id
    assert grpc.counted()["parent_by_goroutine"] == 1


def test_a_request_without_context_begins_a_trace(grpc: TracedGrpc) -> None:
    grpc.cases.get("/unary?")
    assert grpc.calls(2)[0].trace_id == grpc.request.trace_id
    assert grpc.request.parent_span_id is None


@pytest.mark.parametrize("fields", [0, 5, 40, 100])
def test_the_applications_own_traceparent_is_used_wherever_it_stands(grpc: TracedGrpc, fields: int) -> None:
    answer = grpc.cases.get(f"/unary?set={OWN}&fields={fields}", {"traceparent": INCOMING})
    assert answer["seen"]["Traceparent"] == [OWN]
    client, server = grpc.calls(2)
    assert (client.trace_context.traceparent, client.header) == (OWN, "application")
    assert client.parent_span_id is None  # in another trace
    assert (server.trace_id, server.parent_span_id) == (client.trace_id, client.span_id)
    assert grpc.counted()["application_header"] == 1


def test_a_traceparent_that_is_passed_on_is_recognised(grpc: TracedGrpc) -> None:
    answer = grpc.cases.get("/unary?forward=1", {"traceparent": INCOMING})
    assert answer["seen"]["Traceparent"] == [INCOMING]
    client, _ = grpc.calls(2)
    assert (client.header, client.parent_span_id) == ("forwarded", grpc.request.span_id)
    assert client.span_id != INCOMING.split("-")[2]


def test_an_invalid_traceparent_of_the_application_is_left_alone(grpc: TracedGrpc) -> None:
    answer = grpc.cases.get("/unary?set=00-not-a-traceparent")
    assert answer["seen"]["Traceparent"] == ["00-not-a-traceparent"]
    client, server = grpc.calls(2)
    assert (client.header, server.parent_span_id) == ("application", None)
    counted = grpc.counted()
    assert counted["application_header_invalid"] == counted["incoming_invalid"] == 1


@pytest.mark.parametrize("size", [1000, 16200, 19000, 30000])
def test_large_headers_carry_it_in_their_last_frame(grpc: TracedGrpc, size: int) -> None:
    for _ in range(3):
        answer = grpc.cases.get(f"/unary?bytes={size}", {"traceparent": INCOMING})
        assert answer["code"] == 0
        grpc.assert_carries(grpc.calls(2)[0], answer["seen"])


def test_a_connection_without_a_write_buffer_is_counted(grpc: TracedGrpc) -> None:
    assert grpc.cases.get("/unary?on=unbuffered")["seen"]["Traceparent"] is None
    assert grpc.calls(2)[0].header == "none"
    counted = grpc.counted()
    assert counted["not_injected_writer_unknown" if grpc.injects else "not_injected_off"] == 1


def test_streams_end_when_their_calls_do(grpc: TracedGrpc) -> None:
    answer = grpc.cases.get("/stream?n=20&do=each")
    assert len(answer["seen"]) == 20
    client, server = grpc.calls(2)
    assert (client.status_name, server.status_name) == ("OK", "OK")
    grpc.assert_carries(client, answer["seen"][0])
    assert client.start_ns < server.start_ns < server.end_ns


@pytest.mark.parametrize("code", range(1, 17))
def test_every_status_has_its_name(grpc: TracedGrpc, code: int) -> None:
    assert grpc.cases.get(f"/unary?do=code+{code}")["code"] == code
    client, server = grpc.calls(2)
    assert client.status == server.status == code
    assert client.status_name == server.status_name
    assert client.failed
    assert server.failed == (code in (2, 4, 12, 13, 14, 15))


def test_a_call_that_two_goroutines_finish_at_once_is_one_span(grpc: TracedGrpc) -> None:
    for _ in range(300):
        grpc.cases.get("/stream?n=1&do=wait")  # cancelled: its receiver and its context end it
    spans = [span for span in grpc.drain() if span.protocol == "grpc"]
    assert [span.kind for span in spans].count("client") == 300
    assert [span.kind for span in spans].count("server") == 300
    assert {span.status_name for span in spans} == {"CANCELLED"}


def test_an_unknown_method_is_unimplemented(grpc: TracedGrpc) -> None:
    grpc.cases.get("/unary?method=nonsense")
    assert [span.status_name for span in grpc.calls(2)] == ["UNIMPLEMENTED", "UNIMPLEMENTED"]


def test_a_deadline_is_told_by_the_client(grpc: TracedGrpc) -> None:
    assert grpc.cases.get("/unary?do=wait&timeout=150ms")["code"] == 4
    client, server = grpc.calls(2)
    assert client.status_name == "DEADLINE_EXCEEDED"
    assert client.duration_ns >= 100_000_000
    # Whichever comes first: the server's own timer, or the client's RST_STREAM.
    assert server.status_name in ("DEADLINE_EXCEEDED", "CANCELLED")


def test_a_panic_that_is_recovered_is_its_status(grpc: TracedGrpc) -> None:
    grpc.cases.get("/unary?do=panic")
    assert [span.status_name for span in grpc.calls(2)] == ["INTERNAL", "INTERNAL"]


def test_a_connection_that_breaks_ends_both_spans(grpc: TracedGrpc) -> None:
    assert grpc.cases.get("/broken?do=sleep+300ms")["code"] == 14
    client, server = grpc.calls(2)
    assert (client.status_name, server.status_name) == ("UNAVAILABLE", "UNAVAILABLE")
    assert server.duration_ns > 250_000_000
    grpc.cases.get("/broken?do=wait")
    assert [span.status_name for span in grpc.calls(2)] == ["UNAVAILABLE", "CANCELLED"]


def test_served_through_net_http_a_request_is_one_server_span(grpc: TracedGrpc) -> None:
    for _ in range(2):
        answer = grpc.cases.get("/unary?on=http&do=inner", {"traceparent": INCOMING})
        client, server, inner, _ = grpc.calls(4)
        assert (client.path, server.path) == ("/cases.Echo/Unary",) * 2
        grpc.assert_carries(client, answer["seen"])
        assert inner.parent_span_id == server.span_id


def test_calls_at_once_on_one_connection_are_told_apart(grpc: TracedGrpc) -> None:
    outcomes = grpc.judge_many(1000)
    if grpc.injects:
        assert outcomes["injected"] >= 999
        missing = sum(n for name, n in grpc.counted().items() if name.startswith("not_injected"))
        assert missing == outcomes["none"]
    else:
        assert outcomes == {"none": 1000}


def test_streams_of_several_connections_are_told_apart(grpc: TracedGrpc) -> None:
    outcomes = grpc.judge_many(1000, on="several", at=64)
    assert outcomes["injected" if grpc.injects else "none"] >= 999


def test_a_call_that_is_retried_is_one_span_and_each_attempt_carries_it(grpc: TracedGrpc) -> None:
    answer = grpc.cases.get("/unary?on=retrying&do=flaky+2", {"traceparent": INCOMING})
    assert answer["code"] == 0
    client, *servers = grpc.calls(4)
    grpc.assert_carries(client, answer["seen"])
    assert client.status_name == "OK"
    assert [span.status_name for span in servers] == ["UNAVAILABLE", "UNAVAILABLE", "OK"]
    if grpc.injects:
        assert {span.parent_span_id for span in servers} == {client.span_id}
    assert grpc.counted()["call_retried"] == 2


def test_attempts_of_a_stream_are_the_same_call(grpc: TracedGrpc) -> None:
    answer = grpc.cases.get("/stream?on=retrying&n=2&do=flaky+1")
    assert answer["code"] == 0
    client, *servers = grpc.calls(3)
    grpc.assert_carries(client, answer["seen"][0])
    assert len({span.span_id for span in servers}) == 2
    assert grpc.counted()["call_retried"] == 1


def test_a_call_costs_four_traps_and_a_request_three(grpc: TracedGrpc) -> None:
    libbpf = ctypes.CDLL("libbpf.so.1")
    descriptor = libbpf.bpf_enable_stats(0)
    assert descriptor >= 0
    try:
        grpc.judge_many(10)  # stacks have grown
        before = grpc.tracer.core.probe_runs()[0]
        grpc.judge_many(500, at=10)
        runs = grpc.tracer.core.probe_runs()[0] - before
    finally:
        os.close(descriptor)
    # Beyond those: the control request, and functions that begin anew because the stack has to grow.
    assert 7 * 500 <= runs <= 7 * 500 + 50


def test_nothing_is_left_behind(grpc: TracedGrpc) -> None:
    assert grpc.attachment.stats()["abandoned"] == 0
    assert grpc.tracer.core.forget(grpc.attachment.incarnation) == 0


def test_attaching_and_detaching_under_load_harms_no_call() -> None:
    require("needs root")
    with traced_program() as grpc, ThreadPoolExecutor(1) as pool:
        grpc.attachment.detach()
        load = pool.submit(grpc.cases.get, "/many?n=15000&at=50&message=3000")
        cycles = 0
        while not load.done():
            with grpc.tracer.attach(grpc.cases.pid):
                list(grpc.tracer.spans(timeout=0.2))
            cycles += 1
        answer = load.result()
    assert cycles >= 2
    assert answer["code"] == 0, answer["error"]
    values = [seen["Traceparent"] or [] for seen in answer["seen"]]
    assert {len(each) for each in values} <= {0, 1}
    sent = [value for each in values for value in each]
    assert len(set(sent)) == len(sent)
    assert bool(sent) == grpc.injects
