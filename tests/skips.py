"""Skips with a reason that can be checked: one that is not justified fails the run (conftest.py)."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable

import pytest


def _fails(*command: str) -> bool:
    try:
        return subprocess.run(command, capture_output=True, timeout=20).returncode != 0
    except OSError:
        return True


#: Each reason a test may be skipped for, and whether it is true of this machine.
REASONS: dict[str, Callable[[], bool]] = {
    "needs root": lambda: os.geteuid() != 0,
    "needs mount namespaces": lambda: _fails("unshare", "--mount", "true"),  # a chroot has none
    "needs user namespaces": lambda: _fails("unshare", "--user", "--map-root-user", "--mount", "true"),
    "needs qemu": lambda: shutil.which("qemu-system-x86_64") is None and os.geteuid() != 0,
}


def require(reason: str) -> None:
    """Skips the test if the reason holds. Raises KeyError for a reason that is not in REASONS."""
    if REASONS[reason]():
        pytest.skip(reason)


def justified(text: str) -> bool:
    """Whether a skip's text is one of REASONS and true here."""
    return any(text.endswith(reason) and check() for reason, check in REASONS.items())
