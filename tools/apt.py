"""Debian packages through apt: found, downloaded and unpacked, never installed.

    apt = Apt()                                    # the system's own package lists
    apt = other_suite("trixie", directory)         # another suite of the same mirror
    apt.unpack("hugo", Path("somewhere/hugo"))

Package lists of other suites are kept in a directory apart from the system's.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")


class AptError(Exception):
    """apt did not do what it was asked for; `reason` says why."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class AptMissing(AptError):
    """There is no apt on this machine."""

    def __init__(self, program: str) -> None:
        super().__init__(f"{program} is missing: this is no Debian")
        self.program = program


@dataclass(frozen=True)
class Apt:
    """apt with one set of package lists. `options` select the set: none, the system's own."""

    options: tuple[str, ...] = ()

    def call(self, program: str, *arguments: str, directory: Path | None = None) -> str:
        """Return what a program of apt's prints. Raises AptError, AptMissing."""
        if shutil.which(program) is None:
            raise AptMissing(program)
        command = [program, *self.options, *arguments]
        result = subprocess.run(command, cwd=directory, capture_output=True, text=True)
        if result.returncode != 0:
            lines = [line for line in result.stderr.splitlines() if line.startswith(("E:", "dpkg"))]
            raise AptError(" ".join(lines) or f"{program} ended with {result.returncode}")
        return result.stdout

    def update(self) -> None:
        """Fetch the package lists afresh. Raises AptError."""
        print(f"apt-get update{' (lists of its own)' if self.options else ''}", file=sys.stderr, flush=True)
        self.call("apt-get", "-qq", "update")

    def names(self, prefix: str) -> list[str]:
        """Return the packages in these lists whose names begin so. Raises AptError."""
        return self.call("apt-cache", "pkgnames", prefix).split()

    def unpack(self, package: str, target: Path) -> None:
        """Download a package and unpack it as the directory `target`, in one piece or not at all.

        Raises AptError.
        """
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".unpacking-", dir=target.parent) as scratch:
            directory = Path(scratch)
            print(f"fetching {package}", file=sys.stderr, flush=True)
            try:
                self.call("apt-get", "-qq", "download", package, directory=directory)
            except AptMissing:
                raise
            except AptError:
                self.update()  # the lists may be older than the mirror
                self.call("apt-get", "-qq", "download", package, directory=directory)
            (archive,) = directory.glob("*.deb")
            Apt().call("dpkg", "-x", str(archive), str(directory / "tree"))
            with contextlib.suppress(OSError):  # somebody else was quicker
                (directory / "tree").rename(target)


def other_suite(suite: str, directory: Path) -> Apt:
    """Return an apt that knows `suite` of the system's own Debian mirror, and nothing else.

    Its lists are kept in `directory`, and not fetched here. Raises AptError.
    """
    directory = directory.resolve()  # apt takes a relative one for one of its own
    form = ("--format", "$(REPO_URI) $(LABEL)", "Created-By: Packages")
    mirrors = [line.split(" ", 1) for line in Apt().call("apt-get", "indextargets", *form).splitlines()]
    mirror = next((uri for uri, label in mirrors if label == "Debian"), None)
    if mirror is None:
        raise AptError("apt has no Debian mirror: run `apt-get update`")
    for part in ("lists/partial", "cache/archives/partial"):
        (directory / part).mkdir(parents=True, exist_ok=True)
    sources = directory / "sources.list"
    sources.write_text(f"deb [signed-by={KEYRING}] {mirror} {suite} main\n")
    settings = {
        "Dir::Etc::SourceList": sources,
        "Dir::Etc::SourceParts": "/dev/null",
        "Dir::State::Lists": directory / "lists",
        "Dir::Cache": directory / "cache",
        "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled": "false",  # descriptions for software centres
        "Acquire::Check-Valid-Until": "false",  # archived suites are signed, and no longer renewed
        "APT::Sandbox::User": "root",
    }
    return Apt(tuple(f"-o{name}={value}" for name, value in settings.items()))
