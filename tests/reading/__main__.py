"""Reads real programs and prints what was read: python -m tests.reading (make test-binaries).

Every release in every build form, and Debian's; each held against Go's own packages. Exit status 0
where all was right.
"""

from __future__ import annotations

import argparse
import sys

from pytraceprop.errors import ExecutableError
from tests.reading.check import check
from tests.reading.programs import Program, programs
from tools.debian import ProgramUnavailable
from tools.golang import GoError


def read(program: Program) -> tuple[str, bool]:
    """A line of the table, and whether all was right."""
    try:
        row = check(program)
    except (ExecutableError, GoError, ProgramUnavailable) as error:
        return f"{program.name:24} {error}", False
    sides = " ".join(side for side in ("client", "server") if getattr(row, side)) or "-"
    line = (
        f"{row.name:24} {row.go:28.28} {row.size / 1e6:6.1f} {row.form:16} {sides:14}"
        f" {row.offsets:7} {row.sites:5} {row.seconds * 1000:5.0f}  {'; '.join(row.mistakes) or 'right'}"
    )
    return line, not row.mistakes


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m tests.reading", description=__doc__)
    parser.add_argument("--ci", action="store_true", help="only the fraction that CI reads")
    parser.add_argument("--only", default="", help="only programs with this in their name")
    options = parser.parse_args()
    print(
        f"{'program':24} {'Go':28} {'MB':>6} {'':16} {'sides':14} {'offsets':>7} {'sites':>5} {'ms':>5}  verdict"
    )
    total = wrong = 0
    for program in programs(full=not options.ci):
        if options.only in program.name:
            line, right = read(program)
            print(line, flush=True)
            total += 1
            wrong += not right
    print(f"{total} programs read, {wrong} of them wrong")
    return 1 if wrong or not total else 0


if __name__ == "__main__":
    sys.exit(main())
