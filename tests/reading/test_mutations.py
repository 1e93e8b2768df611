"""Damaged executables do no harm: a fraction of what `make fuzz-executables` reads."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter

import pytest

from tests.reading.mutations import BASES, run_all

#: 600 over all bases; as many as the make target where PYTRACEPROP_FULL is set.
COUNT = 10_000 if os.environ.get("PYTRACEPROP_FULL") else 600


def test_damaged_executables_are_read_or_refused_in_little_time_and_memory() -> None:
    total: Counter[str] = Counter()
    for _, report in run_all(BASES, first=0, count=COUNT, jobs=2):
        assert not report.failures
        total.update(report.outcomes)
    assert sum(total.values()) >= COUNT
    refused = sum(times for outcome, times in total.items() if "read, 2 sides" not in outcome)
    assert refused > COUNT / 5
    assert {"MalformedExecutable", "UnsupportedExecutable", "NotGo", "read, 2 sides possible"} <= total.keys()


#: What would be wrong with a reader, and how the run tells it.
WRONG = {
    "raise KeyError('x')": "KeyError: 'x'",
    "bytes(1 << 30)": "MemoryError",
    "any(False for _ in iter(int, 1))": "TooSlow",
    "any(time.process_time() > 2 for _ in iter(int, 1))": "took ",
}


@pytest.mark.parametrize("statement", WRONG)
def test_a_reader_that_does_harm_is_found_out(statement: str) -> None:
    program = f"""
import json, time
from tests.reading import mutations
calls = 0
def read(*_):
    global calls
    calls += 1
    if calls == 3:  # the first is of the undamaged file
        {statement}
    return "read"
mutations._read = read
print(json.dumps(mutations.run({BASES[-1]!r}, 7, 3).failures))
"""
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert answer.returncode == 0, answer.stderr
    (failure,) = json.loads(answer.stdout)
    assert failure.startswith(f"{BASES[-1]} 8: ")
    assert WRONG[statement] in failure


def test_a_mutation_follows_from_its_number() -> None:
    reports = [next(run_all([BASES[0]], first=40, count=10, jobs=1))[1].outcomes for _ in range(2)]
    assert reports[0] == reports[1]
