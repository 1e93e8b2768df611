"""TraceContext: a traceparent by the W3C text (Trace Context level 2)."""

from __future__ import annotations

import os
import re

import attrs
from opentelemetry.trace import SpanContext, TraceFlags

from pytraceprop.errors import TracepropError

SAMPLED = 0x01  # section 3.2.2.5.1
RANDOM = 0x02  # section 3.2.2.5.2

_FORM = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.DOTALL)


class InvalidTraceparent(TracepropError, ValueError):
    """A value that the W3C text does not allow; `value` is it, `rule` what it breaks."""

    def __init__(self, value: str, rule: str) -> None:
        super().__init__(f"invalid traceparent: {rule}")
        self.value = value
        self.rule = rule


def _random(size: int) -> int:
    while True:
        number = int.from_bytes(os.urandom(size), "big")
        if number:  # zero is invalid (sections 3.2.2.3 and 3.2.2.4)
            return number


@attrs.frozen
class TraceContext:
    """The ids of one span, as they travel. `trace_id` has 128 bits, `span_id` 64, `flags` 8."""

    trace_id: int
    span_id: int
    flags: int = SAMPLED | RANDOM

    def __attrs_post_init__(self) -> None:
        if not 0 < self.trace_id < 1 << 128 or not 0 < self.span_id < 1 << 64 or not 0 <= self.flags < 256:
            raise ValueError("ids must be positive and fit 128 and 64 bits, flags 8")

    @classmethod
    def parse(cls, value: str | bytes) -> TraceContext:
        """Reads a field value. Raises InvalidTraceparent.

        A version above 00 may have more after a dash (section 3.2.4); then the first four fields count.
        """
        text = value.decode("latin-1") if isinstance(value, bytes) else value
        match = _FORM.fullmatch(text)
        if match is None:
            raise InvalidTraceparent(
                text, "it is not version-traceid-parentid-flags in lower-case hex (3.2.2)"
            )
        version, trace_id, span_id, flags, rest = match.groups()
        if version == "ff":
            raise InvalidTraceparent(text, "version ff is forbidden (3.2.2.1)")
        if version == "00" and rest is not None:
            raise InvalidTraceparent(text, "version 00 has nothing after the flags (3.2.2.2)")
        if not int(trace_id, 16):
            raise InvalidTraceparent(text, "an all-zero trace-id (3.2.2.3)")
        if not int(span_id, 16):
            raise InvalidTraceparent(text, "an all-zero parent-id (3.2.2.4)")
        return cls(int(trace_id, 16), int(span_id, 16), int(flags, 16))

    @classmethod
    def new(cls) -> TraceContext:
        """The root of a new trace, sampled, with random ids."""
        return cls(_random(16), _random(8))

    def child(self) -> TraceContext:
        """A new span in the same trace; of the flags, those that the W3C text defines are passed on."""
        return attrs.evolve(self, span_id=_random(8), flags=self.flags & (SAMPLED | RANDOM))

    @property
    def traceparent(self) -> str:
        """The field value, in version 00."""
        return f"00-{self.trace_id:032x}-{self.span_id:016x}-{self.flags:02x}"

    @property
    def sampled(self) -> bool:
        """Whether the caller may have recorded its part (section 3.2.2.5.1)."""
        return bool(self.flags & SAMPLED)

    def to_opentelemetry(self, *, remote: bool = False) -> SpanContext:
        """The same as OpenTelemetry's SpanContext."""
        return SpanContext(self.trace_id, self.span_id, remote, TraceFlags(self.flags))

    @classmethod
    def from_opentelemetry(cls, context: SpanContext) -> TraceContext:
        """The same from OpenTelemetry's SpanContext. Raises ValueError for an invalid one."""
        return cls(context.trace_id, context.span_id, int(context.trace_flags))

    def __str__(self) -> str:
        return self.traceparent
