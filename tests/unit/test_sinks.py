"""The picture of a trace, and a span as a line."""

from __future__ import annotations

from pytraceprop import Span
from pytraceprop.sinks import format_span, format_traces

TRACE = "0af7651916cd43dd8448eb211c80319c"


def span(number: int, parent: int | None, kind: str, start: int, end: int, **more: object) -> Span:
    fields: dict[str, object] = {
        "trace_id": TRACE,
        "span_id": f"{number:016x}",
        "parent_span_id": None if parent is None else f"{parent:016x}",
        "parent_remote": False,
        "trace_flags": 1,
        "kind": kind,
        "protocol": "http/1.1",
        "method": "GET",
        "path": "/order/1",
        "host": "shop",
        "route": "",
        "status": 200,
        "error": None,
        "peer": None,
        "local": None,
        "start_ns": 1_700_000_000_000_000_000 + start,
        "end_ns": 1_700_000_000_000_000_000 + end,
        "pid": 7,
        "goroutine": 1,
        "header": "none",
        "truncated": False,
    }
    return Span(**{**fields, **more})  # type: ignore[arg-type]


def test_children_stand_below_their_parent_in_order_of_start() -> None:
    spans = [
        span(3, 1, "client", 6_000_000, 9_000_000, path="/second"),
        span(1, None, "server", 0, 10_000_000, route="/order/{id}"),
        span(2, 1, "client", 1_000_000, 5_000_000, path="/first", pid=8),
    ]
    title, *rows = format_traces(spans, {7: "front"})
    assert title == f"trace {TRACE}: 3 spans"
    assert rows[0].startswith("  front server: GET /order/{id} /order/1 -> 200 ")
    assert rows[1].startswith("     |- pid 8 client: GET /first -> 200")
    assert rows[2].startswith("     `- front client: GET /second -> 200")
    assert rows[0].endswith(" 10.0 ms")
    assert rows[2].endswith("  3.0 ms")


def test_a_span_without_its_parent_is_shown_as_a_root() -> None:
    lines = list(format_traces([span(2, 99, "server", 0, 1)]))
    assert len(lines) == 2


def test_each_trace_is_shown_by_itself() -> None:
    other = span(5, None, "server", 0, 1, trace_id="f" * 32)
    assert (
        sum(line.startswith("trace ") for line in format_traces([span(1, None, "server", 0, 1), other])) == 2
    )


def test_a_line_tells_request_result_and_ids() -> None:
    line = format_span(span(2, 1, "client", 0, 1_500_000, peer="127.0.0.1:80", header="injected"))
    assert "pid 7 client GET /order/1 -> 200 to 127.0.0.1:80 1.5 ms" in line
    assert line.endswith(f"trace={TRACE} span={2:016x} parent={1:016x} (traceparent injected)")


def test_a_line_of_a_failed_root_says_both() -> None:
    line = format_span(span(1, None, "server", 0, 200, status=0, error="panic"))
    assert "-> panic" in line
    assert line.endswith(" root")


def test_a_grpc_call_is_shown_by_method_and_code() -> None:
    call = span(1, None, "client", 0, 2_000_000, protocol="grpc", path="/shop.Orders/Get", status=4)
    assert " client shop.Orders/Get -> DEADLINE_EXCEEDED 2.0 ms " in format_span(call)
    broken = span(1, None, "server", 0, 1, protocol="grpc", path="/a.B/C", status=14, error="call failed")
    _, row = format_traces([broken])
    assert "server: a.B/C -> UNAVAILABLE (call failed)" in row
