"""TraceContext against the W3C text, by its examples, by vectors of our own and by properties."""

from __future__ import annotations

import re

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.trace import INVALID_SPAN_CONTEXT, SpanContext, TraceFlags
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from pytraceprop.context import RANDOM, SAMPLED, InvalidTraceparent, TraceContext
from pytraceprop.errors import TracepropError

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
SPAN = "00f067aa0ba902b7"
GOOD = f"00-{TRACE}-{SPAN}-01"

trace_ids = st.integers(1, (1 << 128) - 1)
span_ids = st.integers(1, (1 << 64) - 1)
flag_bytes = st.integers(0, 255)
contexts = st.builds(TraceContext, trace_ids, span_ids, flag_bytes)


def read(value: str | bytes) -> TraceContext | None:
    """Return what `parse` returns, None where it refuses the value."""
    try:
        return TraceContext.parse(value)
    except InvalidTraceparent:
        return None


def test_the_example_of_the_w3c_text_is_read():
    context = TraceContext.parse(GOOD)
    assert context.trace_id == 0x4BF92F3577B34DA6A3CE929D0E0E4736
    assert context.span_id == 0x00F067AA0BA902B7
    assert context.flags == SAMPLED
    assert context.sampled
    assert context.traceparent == str(context) == GOOD


def test_bytes_are_read_like_text():
    assert TraceContext.parse(GOOD.encode()) == TraceContext.parse(GOOD)


@pytest.mark.parametrize(
    ("flags", "sampled"),
    [("00", False), ("01", True), ("02", False), ("03", True), ("08", False), ("09", True)],
)
def test_flags_are_a_bit_field(flags, sampled):
    assert TraceContext.parse(f"00-{TRACE}-{SPAN}-{flags}").sampled is sampled


@pytest.mark.parametrize("tail", ["", "-", "-what-the-future-will-be-like", "-\u00e9", "-AB"])
@pytest.mark.parametrize("version", ["01", "cc", "fe", "0f"])
def test_higher_versions_are_read_by_their_first_55_characters(version, tail):
    context = TraceContext.parse(f"{version}-{TRACE}-{SPAN}-01{tail}")
    assert context == TraceContext.parse(GOOD)
    assert context.traceparent == GOOD


@pytest.mark.parametrize("version", ["00", "01"])
def test_undefined_flags_are_sent_as_zero(version):
    """W3C section "Other Flags": the behaviour is reserved, vendors MUST set those to zero."""
    received = TraceContext.parse(f"{version}-{TRACE}-{SPAN}-ff")
    assert received.child().traceparent.endswith("-03")


FORM = "lower-case hex"
INVALID = {
    "": FORM,
    "0": FORM,
    "00": FORM,
    "-": FORM,
    "00-": FORM,
    f"ff-{TRACE}-{SPAN}-01": "version ff",
    f"FF-{TRACE}-{SPAN}-01": FORM,
    f"0A-{TRACE}-{SPAN}-01": FORM,
    f".0-{TRACE}-{SPAN}-01": FORM,
    f"0.-{TRACE}-{SPAN}-01": FORM,
    f"000-{TRACE}-{SPAN}-01": FORM,
    f"0-{TRACE}-{SPAN}-01": FORM,
    f" {GOOD}": FORM,
    f"\u0660\u0660-{TRACE}-{SPAN}-01": FORM,  # digits to str.isdigit(), not to W3C
    f"{GOOD} ": FORM,
    f"{GOOD}\n": FORM,
    f"{GOOD}\0": FORM,
    f"{GOOD}.": FORM,
    f"{GOOD}-what-the-future-will-be-like": "nothing after the flags",
    f"{GOOD},{GOOD}": FORM,  # two fields joined by a comma: RFC 9110, section 5.3
    GOOD[:-1]: FORM,
    f"01-{TRACE}-{SPAN}-0": FORM,
    f"01-{TRACE}-{SPAN}-01.": FORM,
    f"01-{TRACE}-{SPAN}-011": FORM,
    f"00-{TRACE.upper()}-{SPAN}-01": FORM,
    f"00-.{TRACE[1:]}-{SPAN}-01": FORM,
    f"00-{TRACE[:-1]}.-{SPAN}-01": FORM,
    f"00-{TRACE}-{SPAN.upper()}-01": FORM,
    f"00-{TRACE}-{SPAN[:-1]}g-01": FORM,
    f"00-{TRACE}-{SPAN}-0A": FORM,
    f"00-{TRACE}-{SPAN}-.0": FORM,
    f"00-{TRACE}-{SPAN}-0.": FORM,
    f"00-{TRACE}-{SPAN}--1": FORM,
    f"00-{TRACE}_{SPAN}-01": FORM,
    f"00-{TRACE}-{SPAN}_01": FORM,
    f"00_{TRACE}-{SPAN}-01": FORM,
    f"00-{TRACE}1-{SPAN[1:]}-01": FORM,
    f"00-{TRACE[1:]}-{SPAN}1-01": FORM,
    f"00-{'0' * 32}-{SPAN}-01": "all-zero trace-id",
    f"00-{TRACE}-{'0' * 16}-01": "all-zero parent-id",
    f"cc-{'0' * 32}-{SPAN}-01": "all-zero trace-id",
    f"00-+{TRACE[1:]}-{SPAN}-01": FORM,  # what int(..., 16) would let pass
    f"00-0x{TRACE[2:]}-{SPAN}-01": FORM,
    f"00-{TRACE[:8]}_{TRACE[9:]}-{SPAN}-01": FORM,
}


@pytest.mark.parametrize(("value", "rule"), INVALID.items())
def test_what_breaks_a_rule_is_refused_with_that_rule(value, rule):
    with pytest.raises(InvalidTraceparent, match=re.escape(rule)) as caught:
        TraceContext.parse(value)
    assert caught.value.value == value
    assert rule in caught.value.rule
    assert isinstance(caught.value, TracepropError)
    assert isinstance(caught.value, ValueError)


def test_bytes_beyond_ascii_are_refused():
    with pytest.raises(InvalidTraceparent, match="hex"):
        TraceContext.parse(GOOD.encode()[:-1] + b"\xff")


def test_the_message_about_a_huge_value_is_short_and_the_value_complete():
    value = "x" * 100_000
    with pytest.raises(InvalidTraceparent) as caught:
        TraceContext.parse(value)
    assert len(str(caught.value)) < 200
    assert caught.value.value == value


@pytest.mark.parametrize(
    ("trace_id", "span_id", "flags"),
    [
        (0, 1, 0),
        (-1, 1, 0),
        (1 << 128, 1, 0),
        (1, 0, 0),
        (1, 1 << 64, 0),
        (1, -1, 0),
        (1, 1, -1),
        (1, 1, 256),
    ],
)
def test_ids_and_flags_out_of_range_cannot_be_built(trace_id, span_id, flags):
    with pytest.raises(ValueError, match="ids"):
        TraceContext(trace_id, span_id, flags)


def test_it_is_immutable_hashable_and_without_a_dict():
    context = TraceContext.parse(GOOD)
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        context.flags = 0  # type: ignore[misc]
    assert not hasattr(context, "__dict__")
    assert {context} == {TraceContext.parse(GOOD)}


def test_a_new_context_begins_a_random_sampled_trace():
    contexts = {TraceContext.new() for _ in range(100)}
    assert len({context.trace_id for context in contexts}) == 100
    assert len({context.span_id for context in contexts}) == 100
    assert all(context.flags == SAMPLED | RANDOM for context in contexts)


def test_zero_is_never_drawn_as_an_id(monkeypatch):
    draws = iter([bytes(16), b"\1" * 16, bytes(8), bytes(8), b"\2" * 8])
    monkeypatch.setattr("pytraceprop.context.os.urandom", lambda size: next(draws))
    context = TraceContext.new()
    assert context.traceparent == f"00-{'01' * 16}-{'02' * 8}-03"


@given(contexts)
def test_a_child_stays_in_the_trace_and_keeps_the_defined_flags(parent):
    child = parent.child()
    assert child.trace_id == parent.trace_id
    assert child.span_id != parent.span_id
    assert child.flags & (SAMPLED | RANDOM) == parent.flags & (SAMPLED | RANDOM)


@given(contexts)
def test_what_is_sent_has_the_w3c_form_and_reads_back(context):
    header = context.traceparent
    assert re.fullmatch(r"00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}", header)
    again = TraceContext.parse(header)
    assert attrs.evolve(again, flags=0) == attrs.evolve(context, flags=0)
    assert again.flags & (SAMPLED | RANDOM) == context.flags & (SAMPLED | RANDOM)
    assert again.traceparent == header


@given(st.text() | st.binary())
def test_any_input_is_read_or_refused_never_anything_else(value):
    context = read(value)
    assert context is None or context.trace_id


@given(contexts, st.integers(0, 54), st.characters(max_codepoint=0x250))
def test_one_changed_character_is_judged_as_the_grammar_says(context, position, character):
    """The grammar, once more and independently, as one regular expression."""
    header = context.traceparent
    changed = header[:position] + character + header[position + 1 :]
    valid = re.fullmatch(
        r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}", changed
    )
    assert (read(changed) is not None) == (valid is not None)


@given(contexts, st.sampled_from(["01", "7f", "fe"]), st.text())
def test_a_higher_version_may_only_continue_with_a_dash(context, version, tail):
    header = version + context.traceparent[2:] + tail
    assert (read(header) is not None) == (not tail or tail.startswith("-"))


@given(contexts, st.booleans())
def test_opentelemetry_and_back_is_the_same_context(context, is_remote):
    theirs = context.to_opentelemetry(remote=is_remote)
    assert isinstance(theirs, SpanContext)
    assert theirs.is_valid
    assert theirs.is_remote is is_remote
    assert theirs.trace_flags.sampled is context.sampled
    assert TraceContext.from_opentelemetry(theirs) == context


@given(contexts)
def test_opentelemetrys_own_propagator_reads_what_we_send(context):
    from opentelemetry.trace import get_current_span

    carried = TraceContextTextMapPropagator().extract({"traceparent": context.traceparent})
    theirs = get_current_span(carried).get_span_context()
    assert (theirs.trace_id, theirs.span_id) == (context.trace_id, context.span_id)
    assert theirs.trace_flags.sampled is context.sampled


def test_an_invalid_opentelemetry_context_is_refused():
    with pytest.raises(ValueError, match="ids"):
        TraceContext.from_opentelemetry(INVALID_SPAN_CONTEXT)
    with pytest.raises(ValueError, match="ids"):
        TraceContext.from_opentelemetry(SpanContext(1, 0, False, TraceFlags(0)))
