"""Real programs are read right: held against DWARF, symbols and how they were built.

A fraction of them unless PYTRACEPROP_FULL is set (tests/reading/programs.py says which).
"""

from __future__ import annotations

import os

import pytest

from tests.reading.check import check
from tests.reading.programs import Program, programs

FULL = bool(os.environ.get("PYTRACEPROP_FULL"))
PROGRAMS = list(programs(full=FULL))


@pytest.mark.parametrize("program", PROGRAMS, ids=[program.name for program in PROGRAMS])
def test_a_real_program_is_read_right(program: Program) -> None:
    row = check(program)
    assert not row.mistakes
    if not program.debian:
        assert (row.client, row.server) == (True, True)
        assert row.offsets > 35
        assert row.sites > 8


def test_there_are_enough_of_them() -> None:
    everything = list(programs(full=True))
    assert len({program.name for program in everything}) == len(everything) >= 100
    assert {program.form for program in PROGRAMS} == {program.form for program in everything}
    assert {program.go for program in PROGRAMS} == {program.go for program in everything}
