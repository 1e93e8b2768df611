"""Traces as trees, for a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from pytraceprop.sinks.console import describe, format_duration
from pytraceprop.span import Span

_BAR = 24  # characters of the time line


def format_traces(spans: Iterable[Span], names: Mapping[int, str] | None = None) -> Iterator[str]:
    """Lines that show each trace as a tree, in order of start, with durations and a time line.

    `names` maps process ids to what they should be called.
    """
    traces: dict[str, list[Span]] = {}
    for span in sorted(spans, key=lambda s: s.start_ns):
        traces.setdefault(span.trace_id, []).append(span)
    for trace_id, members in traces.items():
        yield f"trace {trace_id}: {len(members)} spans"
        known = {span.span_id for span in members}
        children: dict[str | None, list[Span]] = {}
        for span in members:
            parent = span.parent_span_id if span.parent_span_id in known else None
            children.setdefault(parent, []).append(span)
        start = members[0].start_ns
        length = max(1, max(span.end_ns for span in members) - start)
        rows = list(_walk(children, None, "", names or {}))
        width = max(len(label) for label, _ in rows)
        for label, span in rows:
            left = (span.start_ns - start) * _BAR // length
            bar = max(1, span.duration_ns * _BAR // length)
            line = (" " * left + "#" * bar)[:_BAR].ljust(_BAR)
            yield f"  {label.ljust(width)}  |{line}| {format_duration(span.duration_ns):>8}"


def _walk(
    children: Mapping[str | None, list[Span]], parent: str | None, indent: str, names: Mapping[int, str]
) -> Iterator[tuple[str, Span]]:
    siblings = children.get(parent, [])
    for i, span in enumerate(siblings):
        last = i == len(siblings) - 1
        if parent is None and not indent:
            branch, deeper = "", "   "
        else:
            branch, deeper = ("`- ", "   ") if last else ("|- ", "|  ")
        who = names.get(span.pid, f"pid {span.pid}")
        yield f"{indent}{branch}{who} {span.kind}: {describe(span)}", span
        yield from _walk(children, span.span_id, indent + deeper, names)
