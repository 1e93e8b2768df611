"""The chain of services natively: every span, every parent, nothing changed in the application.

A fraction of the full size runs unless PYTRACEPROP_FULL is set (make test-full).
"""

from __future__ import annotations

import os

import pytest

from tests.chain.run import run
from tests.chain.services import build_programs
from tests.skips import require

FULL = bool(os.environ.get("PYTRACEPROP_FULL"))
REQUESTS = 10_000 if FULL else 2_000


@pytest.mark.parametrize(
    ("go", "ldflags"),
    [
        ("1.22", "-s -w"),
        ("1.23", ""),
        ("1.24", ""),
        ("1.25", ""),
        ("1.26", "-s -w"),
        ("1.27", ""),
        ("1.27", "-s -w"),
    ],
)
def test_every_request_has_its_spans_and_the_right_parents(go: str, ldflags: str) -> None:
    require("needs root")
    result = run(build_programs(go, ldflags=ldflags), REQUESTS)
    assert result.verdict.ok, str(result.verdict)
    assert (result.summary["failed"], result.errors) == (0, "")
    losses = ("record_dropped", "map_full", "abandoned", "memory_unreadable", "subscription_dropped")
    assert {name: result.tracer_stats[name] for name in losses} == dict.fromkeys(losses, 0)


def test_switched_off_nothing_is_added_and_the_reason_says_so() -> None:
    require("needs root")
    result = run(build_programs("1.27"), 500, propagation="off")
    assert result.verdict.ok, str(result.verdict)
    assert result.propagation["front"]["http/1.1"]["method"] is None
    assert "propagation='off'" in result.propagation["front"]["http/1.1"]["reason"]
