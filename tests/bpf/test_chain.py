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


#: Every release but Go 1.20, and each build form; those that tests/reading builds too.
BUILDS = (
    ("1.19", "cgo-pie"),
    ("1.21", "cgo"),
    ("1.21", "dynamic"),
    ("1.22", "no-symbols"),
    ("1.23", "static"),
    ("1.23", "boringcrypto"),
    ("1.24", "static"),
    ("1.25", "untrimmed"),
    ("1.21", "cgo-static"),
    ("1.26", "no-symbols"),
    ("1.27", "static"),
    ("1.27", "stripped"),
    ("1.27", "pie"),
    ("1.19", "static-pie"),
)


@pytest.mark.parametrize(("go", "form"), BUILDS)
def test_every_request_has_its_spans_and_the_right_parents(go: str, form: str) -> None:
    require("needs root")
    result = run(build_programs(go, form=form), REQUESTS)
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
