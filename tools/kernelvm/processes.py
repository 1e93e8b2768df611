"""Programs that end with the work they were started for, whatever becomes of us."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

_PREFIX = ("setpriv", "--pdeathsig", "KILL")

PROGRAM_POSITION = len(_PREFIX)
"""Where in a process's `args` the program stands that was asked for."""


@contextlib.contextmanager
def running(command: list[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program that is ended with the context, or with this thread, whichever comes first.

    The parent-death signal covers the case in which Python itself is killed. It belongs to
    the *thread* that starts the program, so that thread has to live as long as the context.
    """
    with log.open("ab") as sink:
        process = subprocess.Popen(
            [*_PREFIX, *command],
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def read_log(log: Path) -> str:
    """Return what a program has written to `log` so far."""
    return log.read_bytes().decode(errors="replace") if log.exists() else ""
