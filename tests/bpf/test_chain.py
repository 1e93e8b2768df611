"""The chain of services natively: every span, every parent, nothing changed in the application.

A fraction of the full size runs unless PYTRACEPROP_FULL is set (make test-full).
"""

from __future__ import annotations

import os

import pytest

from tests.chain.run import run
from tests.chain.services import Programs, build_programs
from tests.skips import require
from tools import golang

FULL = bool(os.environ.get("PYTRACEPROP_FULL"))
REQUESTS = 10_000 if FULL else 1_000

#: Other layouts of maps than the release has by default.
EXPERIMENTS = (("1.24", "noswissmap"), ("1.25", "noswissmap"), ("1.27", "mapsplitgroup"))


def assert_right(programs: Programs) -> None:
    """Every request has its spans, and each the right parent; nothing was lost on the way."""
    require("needs root")
    result = run(programs, REQUESTS)
    assert result.verdict.ok, str(result.verdict)
    assert (result.summary["failed"], result.errors) == (0, "")
    losses = ("record_dropped", "map_full", "abandoned", "memory_unreadable", "subscription_dropped")
    assert {name: result.tracer_stats[name] for name in losses} == dict.fromkeys(losses, 0)


@pytest.mark.parametrize("go", golang.RELEASES)
def test_every_request_has_its_spans_and_the_right_parents(go: str) -> None:
    assert_right(build_programs(go))


@pytest.mark.parametrize("form", golang.FORMS)
def test_however_a_program_is_built_its_parents_are_right(form: str) -> None:
    assert_right(build_programs("1.27", **golang.FORMS[form]))


@pytest.mark.parametrize(("go", "experiment"), EXPERIMENTS)
def test_experiments_that_change_maps_are_read_off_the_program(go: str, experiment: str) -> None:
    assert_right(build_programs(go, experiment=experiment))


def test_switched_off_nothing_is_added_and_the_reason_says_so() -> None:
    require("needs root")
    result = run(build_programs("1.27"), 500, propagation="off")
    assert result.verdict.ok, str(result.verdict)
    assert result.propagation["front"]["http/1.1"]["method"] is None
    assert "propagation='off'" in result.propagation["front"]["http/1.1"]["reason"]
