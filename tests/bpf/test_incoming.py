"""The incoming traceparent is read whatever its place and spelling, and only when it is valid."""

from __future__ import annotations

import pytest

from pytraceprop import Tracer
from tests.bpf.conftest import Cases, Traced

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
VALUE = f"00-{TRACE}-{PARENT}-01"


def request(*headers: str, path: str = "/echo/incoming") -> bytes:
    lines = [f"GET {path} HTTP/1.1", "Host: cases", "Connection: close", *headers, "", ""]
    return "\r\n".join(lines).encode("latin-1")


@pytest.mark.parametrize("name", ["traceparent", "Traceparent", "TRACEPARENT", "TraceParent", "tRaCePaReNt"])
def test_any_letter_case_is_read(traced: Traced, name: str) -> None:
    traced.cases.raw(request(f"{name}: {VALUE}"))
    (span,) = traced.spans(1)
    assert (span.trace_id, span.parent_span_id, span.parent_remote) == (TRACE, PARENT, True)
    assert span.trace_flags == 1


@pytest.mark.parametrize("fields", [0, 1, 7, 8, 9, 40, 300])
@pytest.mark.parametrize("position", ["first", "last"])
def test_any_position_among_any_number_of_fields_is_read(traced: Traced, fields: int, position: str) -> None:
    filler = [f"X-Filler-{i}: {'v' * 50}" for i in range(fields)]
    own = f"traceparent: {VALUE}"
    traced.cases.raw(request(*([own, *filler] if position == "first" else [*filler, own])))
    (span,) = traced.spans(1)
    assert (span.trace_id, span.parent_span_id) == (TRACE, PARENT)


def test_headers_of_many_kilobytes_are_read(traced: Traced) -> None:
    filler = [f"X-Filler-{i}: {'v' * 900}" for i in range(100)]
    traced.cases.raw(request(*filler, f"traceparent: {VALUE}"))
    (span,) = traced.spans(1)
    assert (span.trace_id, span.parent_span_id) == (TRACE, PARENT)


@pytest.mark.parametrize("fields", [5, 9, 100, 1000, 3000, 20000])
@pytest.mark.parametrize("go", ["1.22", "1.24"])  # maps of buckets, Swiss maps
def test_thousands_of_fields_are_read_or_counted(session_tracer: Tracer, go: str, fields: int) -> None:
    cases = Cases(go)  # Go 1.27 answers 431 for more than some 400
    try:
        traced = Traced(cases, session_tracer, session_tracer.attach(cases.pid))
        cases.raw(request(*(f"X-{i}: v" for i in range(fields)), f"traceparent: {VALUE}"))
        (span,) = traced.spans(1)
        unreadable = traced.counted().get("incoming_unreadable", 0)
    finally:
        cases.stop()
    if session_tracer.core.attach_mode == "perf-ioctl":  # 80 groups, of which many are half empty
        sure = fields <= 100
    else:  # 512 groups
        sure = fields <= (3000 if go == "1.24" else 1000)
    if sure:
        assert (span.trace_id, unreadable) == (TRACE, 0)
    else:  # more groups than are searched: could not tell, so nothing is continued
        assert (span.parent_span_id, unreadable) in ((None, 1), (PARENT, 0))


def test_white_space_around_the_value_does_not_matter(traced: Traced) -> None:
    traced.cases.raw(request(f"traceparent: \t {VALUE} \t "))
    (span,) = traced.spans(1)
    assert (span.trace_id, span.parent_span_id) == (TRACE, PARENT)


@pytest.mark.parametrize(
    "value",
    [
        f"01-{TRACE}-{PARENT}-01",
        f"cc-{TRACE}-{PARENT}-01-what-the-future-brings",
        f"fe-{TRACE}-{PARENT}-01-",
    ],
)
def test_a_higher_version_is_continued(traced: Traced, value: str) -> None:
    traced.cases.raw(request(f"traceparent: {value}"))
    (span,) = traced.spans(1)
    assert (span.trace_id, span.parent_span_id) == (TRACE, PARENT)


@pytest.mark.parametrize(
    "value",
    [
        "",
        "nonsense",
        f"ff-{TRACE}-{PARENT}-01",
        f"00-{TRACE}-{PARENT}-01-extra",
        f"00-{TRACE}-{PARENT}-01 ,",
        f"cc-{TRACE}-{PARENT}-01.what",
        f"00-{'0' * 32}-{PARENT}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE.upper()}-{PARENT}-01",
        f"00-{TRACE[:-1]}g-{PARENT}-01",
        f"00-{TRACE}-{PARENT[:-1]}`-01",
        f"00-{TRACE}-{PARENT}-0x",
        f"0-{TRACE}-{PARENT}-01",
        f"00_{TRACE}_{PARENT}_01",
        f"00-{TRACE}-{PARENT}-",
        f"00-{TRACE[:-1]}-{PARENT}-01",
    ],
)
def test_an_invalid_value_starts_a_new_trace_and_is_counted(traced: Traced, value: str) -> None:
    traced.cases.raw(request(f"traceparent: {value}"))
    (span,) = traced.spans(1)
    assert span.trace_id not in (TRACE, "0" * 32)
    assert span.parent_span_id is None
    assert not span.parent_remote
    counted = traced.counted()
    assert (counted["incoming_invalid"], counted["new_trace"]) == (1, 1)


def test_several_values_start_a_new_trace(traced: Traced) -> None:
    traced.cases.raw(request(f"traceparent: {VALUE}", f"Traceparent: {VALUE}"))
    (span,) = traced.spans(1)
    assert span.parent_span_id is None
    assert traced.counted()["incoming_invalid"] == 1


def test_no_value_starts_a_new_trace_each_time(traced: Traced) -> None:
    for _ in range(20):
        traced.cases.raw(request())
    spans = traced.spans(20)
    assert len({span.trace_id for span in spans}) == len({span.span_id for span in spans}) == 20
    assert all(span.trace_flags == 3 for span in spans)  # sampled and random
    assert traced.counted() == {"server_spans": 20, "new_trace": 20}


def test_the_unsampled_flag_is_kept(traced: Traced) -> None:
    traced.cases.raw(request(f"traceparent: 00-{TRACE}-{PARENT}-00", path="/call/plain"))
    assert {span.trace_flags for span in traced.spans(3) if span.trace_id == TRACE} == {0}
