"""How long reading large executables takes: python -m tests.reading.bench (make bench-inspect).

Debian's Go programs, each read by fresh processes, as `inspect` does; then once more in the same
process by another path, as a tracer does for the second process of a build. Exit status 1 where the
stripped ones of 60 MB or more take longer than they should.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import attrs

from tools import debian

LARGE = 60_000_000  # bytes
FIRST = 0.3  # seconds, at most, for large ones
SECOND = 0.01

#: One where nothing is kept, so that the time is that of the reading alone; Python has started already.
_READ = """
import json, os, sys, tempfile
from pytraceprop.probes import read_plan
first = read_plan(sys.argv[1])
with tempfile.TemporaryDirectory() as directory:
    link = os.path.join(directory, "exe")  # as /proc/PID/exe is
    os.symlink(sys.argv[1], link)
    second = read_plan(link)
print(json.dumps([first.seconds, second.seconds, first.go, first.stripped, first.position_independent]))
"""


@attrs.frozen
class Reading:
    """What reading one program took, in seconds: medians over fresh processes."""

    name: str
    size: int
    go: str
    stripped: bool
    position_independent: bool
    first: float
    second: float

    @property
    def fast_enough(self) -> bool:
        """Whether the goals hold that are set for large stripped programs."""
        return self.size < LARGE or (self.first < FIRST and self.second < SECOND)


def read(name: str, path: Path, rounds: int) -> Reading:
    """Reads a program in so many fresh processes; once before that, so that it is in memory."""
    answers = []
    for _ in range(rounds + 1):
        command = [sys.executable, "-c", _READ, str(path)]
        answers.append(
            json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True, timeout=60).stdout)
        )
    first, second = (statistics.median(answer[i] for answer in answers[1:]) for i in (0, 1))
    return Reading(name, path.stat().st_size, *answers[0][2:], first=first, second=second)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m tests.reading.bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("programs", nargs="*", default=["hugo", "dockerd", "prometheus", "caddy-backports"])
    options = parser.parse_args(arguments)
    print(f"{'program':16} {'MB':>6}  {'Go':8} {'':20} {'first read':>10} {'again':>8}")
    readings = []
    for name in options.programs:
        one = read(name, debian.fetch(debian.PROGRAMS[name]), options.rounds)
        form = f"{'stripped' if one.stripped else ''} {'PIE' if one.position_independent else 'fixed'}"
        print(
            f"{one.name:16} {one.size / 1e6:6.1f}  {one.go:8.8} {form:20}"
            f" {one.first * 1000:7.0f} ms {one.second * 1000:5.1f} ms",
            flush=True,
        )
        readings.append(one)
    large = [one for one in readings if one.size >= LARGE and one.stripped]
    if all(one.fast_enough for one in large):
        return 0 if large else 1
    print(
        f"goal: below {FIRST} s, and {SECOND} s again, for stripped programs of {LARGE // 10**6} MB or more"
    )
    return 1


if __name__ == "__main__":
    sys.exit(main())
