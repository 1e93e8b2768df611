"""TraceContext against the W3C text, by its examples, by vectors of our own and by properties."""

from __future__ import annotations

import re

import attrs
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from opentelemetry.trace import INVALID_SPAN_CONTEXT, SpanContext, TraceFlags
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from pytraceprop.context import RANDOM, SAMPLED, InvalidTraceparent, TraceContext
from pytraceprop.errors import TracepropError
from pytraceprop.native import ffi, lib

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


# The BPF programs' own code, as it is compiled into the core


def read_in_bpf(value: bytes) -> TraceContext | None:
    """Return what the BPF parser makes of the value, None where it refuses it."""
    trace_id, span_id, flags = ffi.new("uint8_t[16]"), ffi.new("uint8_t[8]"), ffi.new("uint8_t *")
    if not lib.core_parse_traceparent(value, len(value), trace_id, span_id, flags):
        return None
    return TraceContext(
        int.from_bytes(bytes(trace_id), "big"), int.from_bytes(bytes(span_id), "big"), flags[0]
    )


def field_line(context: TraceContext) -> bytes:
    """Return the header line that the BPF programs would inject."""
    line = ffi.new("uint8_t[72]")
    lib.core_format_field(
        context.trace_id.to_bytes(16, "big"), context.span_id.to_bytes(8, "big"), context.flags, line
    )
    assert bytes(line)[70:] == b"\0\0"
    return bytes(line)[:70]


hexadecimal = "0123456789abcdef"
versions = st.text(hexadecimal, min_size=2, max_size=2)
tails = st.just(b"") | st.binary(max_size=14).map(b"-".__add__) | st.binary(max_size=15)
#: Mostly valid, of 55 to 70 bytes, in any version.
values = st.builds(
    lambda version, context, tail: version.encode() + context.traceparent[2:].encode() + tail,
    versions | st.just("00"),
    contexts,
    tails,
)


@st.composite
def spoilt_values(draw) -> bytes:
    """A value of which a few bytes are changed, and which may end early."""
    value = bytearray(draw(values))
    for _ in range(draw(st.integers(0, 3))):
        value[draw(st.integers(0, len(value) - 1))] = draw(
            st.integers(0, 255) | st.sampled_from(b"/:@G`g-0aF\0")
        )
    return bytes(value[: draw(st.integers(0, len(value)) | st.just(len(value)))])


@pytest.mark.parametrize("value", [GOOD, f"{GOOD}-", f"cc-{GOOD[3:]}-more", f"cc-{GOOD[3:]}more", *INVALID])
def test_bpf_judges_every_vector_as_python_does(value):
    data = value.encode()
    assert read_in_bpf(data) == read(data)


@given(values)
@settings(max_examples=2000)
def test_bpf_reads_what_python_reads(value):
    assert read_in_bpf(value) == read(value)


@given(spoilt_values())
@settings(max_examples=4000)
def test_bpf_agrees_with_python_about_spoilt_values(value):
    assert read_in_bpf(value) == read(value)


@given(st.binary(max_size=70))
@example(b"-" * 55)
@example(b"\0" * 55)
@example(b"\xff" * 70)
@settings(max_examples=2000)
def test_bpf_agrees_with_python_about_any_bytes(value):
    assert read_in_bpf(value) == read(value)


@pytest.mark.parametrize("position", [p for p in range(55) if GOOD[p] != "-"])
def test_bpf_takes_no_byte_for_a_digit_that_python_does_not(position):
    """All 256 bytes at every place of a digit: BPF decodes eight at a time, without a table."""
    for byte in range(256):
        value = GOOD.encode()[:position] + bytes([byte]) + GOOD.encode()[position + 1 :]
        assert read_in_bpf(value) == read(value), value


@pytest.mark.parametrize("position", [2, 35, 52])
def test_bpf_takes_nothing_but_a_dash_for_a_dash(position):
    for byte in range(256):
        value = GOOD.encode()[:position] + bytes([byte]) + GOOD.encode()[position + 1 :]
        assert (read_in_bpf(value) is not None) == (byte == ord("-"))


def test_the_injected_line_is_the_header_to_the_byte():
    assert field_line(TraceContext.parse(GOOD)) == f"traceparent: {GOOD}\r\n".encode()


@given(contexts)
@settings(max_examples=2000)
def test_the_injected_line_has_70_bytes_and_reads_back(context):
    line = field_line(context)
    assert line == f"traceparent: {context.traceparent}\r\n".encode()
    assert len(line) == 70
    assert TraceContext.parse(line[13:-2]) == context == read_in_bpf(line[13:-2])


# Where the W3C text says so (numbers as counted from the headings of its section 3.2)

RULES = [
    ("3.2.2", f"00-{TRACE}-{SPAN}", "lower-case hex"),
    ("3.2.2.1", f"ff-{TRACE}-{SPAN}-01", "version ff"),
    ("3.2.2.1", f"0g-{TRACE}-{SPAN}-01", "lower-case hex"),
    ("3.2.2.2", f"{GOOD}-00", "nothing after the flags"),
    ("3.2.2.3", f"00-{'0' * 32}-{SPAN}-01", "all-zero trace-id"),
    ("3.2.2.3", f"00-{TRACE.upper()}-{SPAN}-01", "lower-case hex"),
    ("3.2.2.4", f"00-{TRACE}-{'0' * 16}-01", "all-zero parent-id"),
    ("3.2.2.4", f"00-{TRACE}-{SPAN.upper()}-01", "lower-case hex"),
    ("3.2.2.5", f"00-{TRACE}-{SPAN}-1", "lower-case hex"),
    ("3.2.4", f"01-{TRACE}-{SPAN}-0", "lower-case hex"),
    ("3.2.4", f"01-{TRACE}-{SPAN}-01more", "lower-case hex"),
]


@pytest.mark.parametrize(("section", "value", "rule"), RULES)
def test_each_section_of_the_w3c_text_is_enforced_by_python_and_bpf(section, value, rule):
    with pytest.raises(InvalidTraceparent, match=rule):
        TraceContext.parse(value)
    assert read_in_bpf(value.encode()) is None
