"""Judge single calls: what came in where a call was made, and what arrived where it went.

For programs that are not a chain: each call is judged by itself and against all others, by what was
witnessed on both sides. With spans, each injected header must name the span of its call.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from tests.chain.judge import MAX_EXAMPLES, Json, split

MISTAKES: Mapping[str, str] = {
    "failed_calls": "a call failed, or did not arrive exactly once",
    "duplicate_headers": "more than one traceparent arrived",
    "altered_headers": "a header of the application was changed, or one came where none may be",
    "foreign_contexts": "a traceparent arrived that belongs to another call or request",
    "wrong_parents": "a traceparent arrived that does not continue what came in, or names no span of its call",
}

OUTCOMES = ("own", "injected", "missing", "several", "none")


@dataclass(frozen=True)
class Pair:
    """One call. `group` is what it is counted under, `name` says which call it is.

    `incoming` are the traceparents of the request that it belongs to; None if it belongs to none.
    `own` is what the application sends by itself, be it its own header or one passed on. `arrived`
    has the traceparents of each time that it arrived, which should be once.
    """

    group: str
    name: str
    incoming: Sequence[str] | None
    own: str | None
    arrived: Sequence[Sequence[str]]


@dataclass
class PairVerdict:
    """How often each mistake of MISTAKES was made, and for each group what became of the headers."""

    calls: int = 0
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(MISTAKES, 0))
    examples: dict[str, list[str]] = field(default_factory=lambda: {mistake: [] for mistake in MISTAKES})
    groups: dict[str, dict[str, int]] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether something was judged and there was no mistake. Missing headers are only counted."""
        return self.calls > 0 and not any(self.counts.values())

    def add(self, mistake: str, sentence: str) -> None:
        """Count one more mistake."""
        self.counts[mistake] += 1
        if len(self.examples[mistake]) < MAX_EXAMPLES:
            self.examples[mistake].append(sentence)

    def total(self, outcome: str) -> int:
        """Return how often an outcome was seen in all groups together."""
        return sum(outcomes[outcome] for outcomes in self.groups.values())

    def __str__(self) -> str:
        width = max(map(len, self.groups), default=0)
        lines = [" ".join([" " * width, *(f"{outcome:>9}" for outcome in OUTCOMES)])]
        for group, outcomes in sorted(self.groups.items()):
            lines.append(" ".join([f"{group:<{width}}", *(f"{outcomes[name]:>9}" for name in OUTCOMES)]))
        lines.append(f"{self.calls} calls: {'all right' if self.ok else 'MISTAKES'}")
        for mistake, count in self.counts.items():
            if count:
                lines.append(f"{count} {mistake} ({MISTAKES[mistake]})")
                lines += [f"    {sentence}" for sentence in self.examples[mistake]]
        return "\n".join(lines)


def judge_pairs(
    pairs: Iterable[Pair], spans: Iterable[Json] | None = None, *, injected: bool = False
) -> PairVerdict:
    """Judge calls. `injected` says whether a tracer was to add headers; if not, it must not add any."""
    known = list(pairs)
    by_id = None if spans is None else {span["span_id"]: span for span in spans}
    verdict = PairVerdict(len(known))
    # Whose is each trace and each header? Requests that came with the same trace share it.
    owners: dict[str, set[str]] = defaultdict(set)
    headers: Counter[str] = Counter()
    given: dict[str, set[str]] = defaultdict(set)
    for pair in known:
        for value in pair.incoming or ():
            given[split(value)[0]].add(pair.name)
        if pair.own is None:
            for value in [value for values in pair.arrived for value in values]:
                headers[value] += 1
                owners[split(value)[0]].add(pair.name)
    for pair in known:
        outcome = _judge_pair(verdict, pair, injected, owners, given, headers)
        verdict.groups.setdefault(pair.group, dict.fromkeys(OUTCOMES, 0))[outcome] += 1
        if outcome == "injected" and by_id is not None:
            _judge_span(verdict, pair, by_id)
    return verdict


def _judge_pair(
    verdict: PairVerdict,
    pair: Pair,
    injected: bool,
    owners: Mapping[str, set[str]],
    given: Mapping[str, set[str]],
    headers: Mapping[str, int],
) -> str:
    if len(pair.arrived) != 1:
        verdict.add("failed_calls", f"{pair.name} arrived {len(pair.arrived)} times instead of once")
        return "none"
    values = pair.arrived[0]
    if len(values) > 1:
        verdict.add("duplicate_headers", f"{pair.name} arrived with {' and '.join(values)}")
        return "several"
    if pair.own is not None or not injected:
        expected = [] if pair.own is None else [pair.own]
        if list(values) != expected:
            verdict.add("altered_headers", f"{pair.name} arrived with {list(values)} instead of {expected}")
        return "own" if pair.own is not None else "none"
    if not values:
        return "missing"
    trace = split(values[0])[0]
    came_in = {split(value)[0] for value in pair.incoming or ()}
    if came_in:
        if trace not in came_in:
            mistake = "foreign_contexts" if given.get(trace) else "wrong_parents"
            verdict.add(mistake, f"{pair.name} arrived with {values[0]}, {pair.incoming} came in")
    elif given.get(trace) or len(owners[trace]) > 1:
        verdict.add("foreign_contexts", f"{pair.name} arrived with {values[0]}, of a trace of others")
    if headers[values[0]] > 1:
        verdict.add("foreign_contexts", f"{pair.name} arrived with {values[0]}, as others did")
    return "injected"


def _judge_span(verdict: PairVerdict, pair: Pair, spans: Mapping[str, Json]) -> None:
    """The header names a client span, whose parent is the server span that continues what came in."""
    header = pair.arrived[0][0]
    trace, span_id = split(header)
    client = spans.get(span_id)
    if client is None or client["kind"] != "client" or client["trace_id"] != trace:
        verdict.add("wrong_parents", f"{pair.name} arrived with {header}, which names no call")
        return
    if pair.incoming is None:
        if client["parent_span_id"] is not None:
            verdict.add("wrong_parents", f"{pair.name} belongs to no request, its span is {client}")
        return
    server = spans.get(client["parent_span_id"] or "")
    parents: list[str | None] = [split(value)[1] for value in pair.incoming]
    parents = parents or [None]
    if server is None or server["kind"] != "server" or server["parent_span_id"] not in parents:
        verdict.add("wrong_parents", f"{pair.name}: the parent of its span {span_id} is {server}")
