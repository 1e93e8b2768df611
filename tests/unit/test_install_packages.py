"""tools/install-packages: says what is missing where it may not install it, and nothing where all is there."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "tools" / "install-packages"


def run(
    directory: Path, installed: str, *arguments: str, user: int = 1000
) -> subprocess.CompletedProcess[str]:
    """Runs it where dpkg-query knows `installed`, as a user; apt-get would leave a trace."""
    for name, body in (
        ("dpkg-query", installed),
        ("id", f"echo {user}"),
        ("apt-get", f"touch {directory / 'apt-was-called'}"),
    ):
        program = directory / name
        program.write_text(f"#!/bin/sh\n{body}\n")
        program.chmod(0o755)
    return subprocess.run(
        [SCRIPT, *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "PATH": f"{directory}:{os.environ['PATH']}"},
        timeout=60,
    )


NOTHING = "exit 1"
#: Every package that is asked for, in the form that the script asks for.
EVERYTHING = 'shift 3; for p; do printf "installed=%s " "$p"; done'


def test_without_root_it_lists_what_to_install_and_stops(tmp_path: Path) -> None:
    answer = run(tmp_path, NOTHING)
    assert answer.returncode == 1
    assert "run as root: apt-get install" in answer.stderr
    for package in ("clang", "llvm", "libbpf-dev", "libelf-dev", "qemu-system-x86", "busybox-static"):
        assert f" {package}" in answer.stderr
    assert not (tmp_path / "apt-was-called").exists()


def test_a_group_lists_its_own_packages_only(tmp_path: Path) -> None:
    answer = run(tmp_path, NOTHING, "--group", "build")
    assert answer.returncode == 1
    assert "libbpf-dev" in answer.stderr
    assert "qemu" not in answer.stderr


@pytest.mark.parametrize("user", [0, 1000])
def test_where_all_is_there_it_says_nothing_and_calls_no_apt(tmp_path: Path, user: int) -> None:
    answer = run(tmp_path, EVERYTHING, "--group", "build", user=user)
    assert (answer.returncode, answer.stdout, answer.stderr) == (0, "", "")
    assert not (tmp_path / "apt-was-called").exists()


def test_a_mistaken_call_is_told(tmp_path: Path) -> None:
    answer = run(tmp_path, EVERYTHING, "--group", "nonsense")
    assert answer.returncode == 1
    assert "usage" in answer.stderr
