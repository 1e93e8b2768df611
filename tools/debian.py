"""Debian's own Go programs, for the tests: unpacked from their packages, never installed.

    python -m tools.debian                  # fetch all of them (about 150 MB) and list them

    binary = debian.fetch(debian.PROGRAMS["hugo"])

They are what people really run: large, stripped, with dependencies, built by Debian's tools. Packages
come from the machine's own apt, those of other suites through package lists kept apart, and are kept
under `.build/debian`. A suite moves on, so a program's release is not pinned.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tools.apt import Apt, AptError, other_suite

REPOSITORY = Path(__file__).resolve().parent.parent
BUILD = REPOSITORY / ".build"


class ProgramUnavailable(Exception):
    """A program's package cannot be fetched, or does not hold it."""

    def __init__(self, program: Program, reason: str) -> None:
        super().__init__(f"{program.path} of {program.package} ({program.suite}): {reason}")
        self.program = program
        self.reason = reason


@dataclass(frozen=True)
class Program:
    """One executable: the suite, the package, and its path in the package.

    `small` programs are few megabytes to fetch, and stand for all in CI.
    """

    suite: str
    package: str
    path: str
    small: bool = False


#: By a short name. The comments say who built them when they were chosen, and the size unpacked.
PROGRAMS: Mapping[str, Program] = {
    "fzf-bullseye": Program("bullseye", "fzf", "usr/bin/fzf"),  # go1.15: refused
    "fzf": Program("bookworm", "fzf", "usr/bin/fzf", small=True),  # go1.19.8, 3 MB
    "age": Program("bookworm", "age", "usr/bin/age", small=True),  # PIE, 4 MB
    "runc": Program("bookworm", "runc", "usr/sbin/runc", small=True),  # cgo, 9 MB
    "node-exporter": Program(
        "bookworm", "prometheus-node-exporter", "usr/bin/prometheus-node-exporter", small=True
    ),  # 14 MB
    "gh": Program("bookworm", "gh", "usr/bin/gh", small=True),  # go1.19.6, 40 MB
    "restic": Program("bookworm", "restic", "usr/bin/restic"),  # 19 MB
    "caddy": Program("bookworm", "caddy", "usr/bin/caddy"),  # 37 MB
    "etcd": Program("bookworm", "etcd-server", "usr/bin/etcd"),
    "prometheus": Program("bookworm", "prometheus", "usr/bin/prometheus"),  # 50 MB
    "promtool": Program("bookworm", "prometheus", "usr/bin/promtool"),  # 48 MB
    "docker": Program("bookworm", "docker.io", "usr/bin/docker"),  # PIE, 46 MB
    "dockerd": Program("bookworm", "docker.io", "usr/sbin/dockerd"),  # PIE, 75 MB
    "docker-proxy": Program("bookworm", "docker.io", "usr/sbin/docker-proxy"),  # 2 MB
    "hugo": Program("trixie", "hugo", "usr/bin/hugo", small=True),  # go1.22.6, 82 MB
    "gh-trixie": Program("trixie", "gh", "usr/bin/gh"),  # go1.23.4
    "caddy-trixie": Program("trixie", "caddy", "usr/bin/caddy"),  # go1.24.4
    "caddy-backports": Program("trixie-backports", "caddy", "usr/bin/caddy"),  # go1.26.3
    "fzf-forky": Program("forky", "fzf", "usr/bin/fzf"),  # go1.27.2
}


def fetch(program: Program) -> Path:
    """Return the path of a program, fetching its package if need be. Raises ProgramUnavailable."""
    tree = BUILD / "debian" / program.suite / program.package
    try:
        if not tree.is_dir():
            _apt(program.suite, program.package).unpack(program.package, tree)
    except AptError as error:
        raise ProgramUnavailable(program, error.reason) from None
    executable = tree / program.path
    if not executable.is_file():
        raise ProgramUnavailable(program, "the package does not hold it")
    return executable


def _apt(suite: str, package: str) -> Apt:
    """Return an apt that knows the suite; where it does not know the package, its lists are fetched."""
    apt = _lists(suite)
    if package not in apt.names(package):
        apt.update()
    return apt


@functools.cache
def _lists(suite: str) -> Apt:
    release = Path("/etc/os-release").read_text() if Path("/etc/os-release").exists() else ""
    if f"VERSION_CODENAME={suite}" in release.split():
        return Apt()
    return other_suite(suite, BUILD / "apt" / suite)


def main() -> int:
    """Fetch every program."""
    status = 0
    for name, program in PROGRAMS.items():
        try:
            path = fetch(program)
            print(f"{name:16} {path.stat().st_size / 1e6:6.1f} MB  {path}", flush=True)
        except ProgramUnavailable as error:
            print(error, file=sys.stderr)
            status = 1
    return status


if __name__ == "__main__":
    raise SystemExit(main())
