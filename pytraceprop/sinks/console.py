"""One span as one line for a person."""

from __future__ import annotations

from datetime import datetime, timezone

from pytraceprop.span import Span

_HEADER_NOTES = {
    "injected": "traceparent injected",
    "application": "traceparent by the application",
    "forwarded": "traceparent forwarded by the application",
    "none": "no traceparent sent",
}


def format_duration(nanoseconds: int) -> str:
    """A duration with three digits or so, in the unit that fits."""
    if nanoseconds < 1_000_000:
        return f"{nanoseconds / 1_000:.0f} us"
    if nanoseconds < 1_000_000_000:
        return f"{nanoseconds / 1_000_000:.1f} ms"
    return f"{nanoseconds / 1_000_000_000:.2f} s"


def describe(span: Span) -> str:
    """What was asked and what came of it: `GET /order/{id} -> 200`, with the path where it tells more.

    Of grpc: `package.Service/Method -> NOT_FOUND`.
    """
    if span.protocol == "grpc":
        return f"{span.name} -> {span.status_name}{f' ({span.error})' if span.error else ''}"
    result = span.error or str(span.status or "no status")
    path = f" {span.path}" if span.path != span.route else ""
    return f"{span.name}{path} -> {result}"


def format_span(span: Span) -> str:
    """Time, process, side, request, result, duration, and the ids that tie it to others."""
    when = datetime.fromtimestamp(span.end_ns / 1e9, tz=timezone.utc).strftime("%H:%M:%S.%f")[:-3]
    parent = f" parent={span.parent_span_id}" if span.parent_span_id else " root"
    note = f" ({_HEADER_NOTES[span.header]})" if span.kind == "client" else ""
    peer = f" {'from' if span.kind == 'server' else 'to'} {span.peer}" if span.peer else ""
    return (
        f"{when} pid {span.pid} {span.kind:6} {describe(span)}{peer} {format_duration(span.duration_ns)}"
        f" trace={span.trace_id} span={span.span_id}{parent}{note}"
    )
