"""The judge of single calls passes perfect ones and sees every kind of mistake."""

from __future__ import annotations

import dataclasses
from typing import Any

import attrs
import pytest

from tests.mixed.hammer import pairs_of
from tests.mixed.pairs import MISTAKES, Pair, PairVerdict, judge_pairs


def traceparent(trace: int, span: int) -> str:
    return f"00-{trace:032x}-{span:016x}-01"


def span(kind: str, trace: int, span_id: int, parent: int | None) -> dict[str, Any]:
    parent_id = None if parent is None else f"{parent:016x}"
    ids = {"trace_id": f"{trace:032x}", "span_id": f"{span_id:016x}", "parent_span_id": parent_id}
    return {"kind": kind, **ids}


def perfect() -> tuple[list[Pair], list[dict[str, Any]]]:
    """Two calls of requests, two of none, one of a request without header, one with a header of its own."""
    pairs = [
        Pair("grpc", "first", [traceparent(1, 101)], None, [[traceparent(1, 102)]]),
        Pair("grpc", "second", [traceparent(2, 201)], None, [[traceparent(2, 202)]]),
        Pair("http", "third", None, None, [[traceparent(3, 302)]]),
        Pair("http", "fourth", None, None, [[traceparent(4, 402)]]),
        Pair("http", "fifth", [], None, [[traceparent(5, 502)]]),
        Pair("http", "sixth", [traceparent(6, 601)], traceparent(66, 666), [[traceparent(66, 666)]]),
    ]
    spans = [
        *(span("server", 1, 111, 101), span("client", 1, 102, 111)),
        *(span("server", 2, 211, 201), span("client", 2, 202, 211)),
        *(span("client", 3, 302, None), span("client", 4, 402, None)),
        *(span("server", 5, 511, None), span("client", 5, 502, 511)),
    ]
    return pairs, spans


def spoilt(index: int, **change: Any) -> PairVerdict:
    """Judge the perfect calls with one of them changed."""
    pairs, spans = perfect()
    pairs[index] = dataclasses.replace(pairs[index], **change)
    return judge_pairs(pairs, spans, injected=True)


def assert_only(verdict: PairVerdict, **expected: int) -> None:
    assert verdict.counts == dict.fromkeys(MISTAKES, 0) | expected, str(verdict)
    assert verdict.ok == (not expected)
    for mistake in expected:
        assert verdict.examples[mistake]


def test_perfect_calls_pass() -> None:
    pairs, spans = perfect()
    verdict = judge_pairs(pairs, spans, injected=True)
    assert_only(verdict)
    assert (verdict.total("injected"), verdict.total("own")) == (5, 1)
    assert verdict.groups["grpc"]["injected"] == 2


def test_no_calls_do_not_pass() -> None:
    assert not judge_pairs([], [], injected=True).ok


def test_without_tracer_nothing_may_arrive_but_the_applications_own() -> None:
    pairs, _ = perfect()
    assert_only(judge_pairs(pairs), altered_headers=5)
    bare = [pair if pair.own else Pair(pair.group, pair.name, pair.incoming, None, [[]]) for pair in pairs]
    assert_only(judge_pairs(bare))


def test_a_call_without_header_is_counted_as_missing_and_is_no_mistake() -> None:
    verdict = spoilt(0, arrived=[[]])
    assert_only(verdict)
    assert (verdict.total("missing"), verdict.total("injected")) == (1, 4)


@pytest.mark.parametrize("index", [0, 2, 4, 5])
def test_a_second_header_is_a_duplicate(index: int) -> None:
    verdict = spoilt(index, arrived=[[traceparent(7, 7), traceparent(8, 8)]])
    assert_only(verdict, duplicate_headers=1)
    assert verdict.total("several") == 1


@pytest.mark.parametrize("times", [0, 2])
def test_a_call_that_arrives_never_or_twice_has_failed(times: int) -> None:
    assert spoilt(0, arrived=[[traceparent(1, 102)]] * times).counts["failed_calls"] == 1


def test_a_changed_header_of_the_application_is_altered() -> None:
    assert_only(spoilt(5, arrived=[[traceparent(6, 602)]]), altered_headers=1)
    assert_only(spoilt(5, arrived=[[]]), altered_headers=1)


@pytest.mark.parametrize("index", [0, 2, 4])
def test_the_header_of_another_call_is_foreign(index: int) -> None:
    verdict = spoilt(index, arrived=[[traceparent(2, 202)]])
    assert verdict.counts["foreign_contexts"] >= 1


def test_the_trace_of_another_request_is_foreign_although_the_header_is_new() -> None:
    assert spoilt(0, arrived=[[traceparent(2, 999)]]).counts["foreign_contexts"] == 1
    assert spoilt(2, arrived=[[traceparent(2, 999)]]).counts["foreign_contexts"] == 1
    assert spoilt(2, arrived=[[traceparent(4, 999)]]).counts["foreign_contexts"] == 2


def test_a_trace_that_does_not_continue_what_came_in_is_wrong() -> None:
    assert spoilt(0, arrived=[[traceparent(9, 102)]]).counts["wrong_parents"] >= 1


def test_a_header_that_names_no_span_is_wrong() -> None:
    assert_only(spoilt(0, arrived=[[traceparent(1, 999)]]), wrong_parents=1)


@pytest.mark.parametrize(
    ("index", "change"),
    [
        (1, {"parent_span_id": None}),
        (1, {"parent_span_id": f"{211:016x}"}),  # the server span of the other request
        (1, {"kind": "server"}),
        (0, {"parent_span_id": f"{999:016x}"}),  # the request's own span continues something else
        (4, {"parent_span_id": f"{111:016x}"}),  # a call of no request
        (7, {"parent_span_id": None}),
    ],
)
def test_a_span_with_the_wrong_parent_is_wrong(index: int, change: dict[str, Any]) -> None:
    pairs, spans = perfect()
    spans[index].update(change)
    assert_only(judge_pairs(pairs, spans, injected=True), wrong_parents=1)


def test_calls_of_the_hammer_are_matched_by_id_and_place() -> None:
    @attrs.frozen
    class Noted:
        event: str
        service: str
        id: int
        method: str
        traceparent: tuple[str, ...] = ()
        mode: str = "grpc"
        kind: str = "plain"

    hammer = [
        *(Noted("called", "hammer", 3, "begin"), Noted("received", "hammer", 3, "/m", ("in",))),
        *(Noted("called", "hammer", 3, "serve"), Noted("called", "hammer", 4, "begin")),
    ]
    receiver = [
        Noted("received", "receiver", 3, "/m", ("x",)),
        Noted("received", "receiver", 4, "/m", ("y",)),
    ]
    begun, served, direct = pairs_of([attrs.asdict(n) for n in hammer], [attrs.asdict(n) for n in receiver])
    assert (begun.incoming, begun.arrived) == (None, [("in",)])
    assert (served.incoming, served.arrived) == (["in"], [("x",)])
    assert (direct.incoming, direct.arrived) == (None, [("y",)])
