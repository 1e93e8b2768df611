"""Debian's kernel packages: found by series, fetched and unpacked, never installed.

Taken is the newest `linux-image-<series>*-cloud-amd64` that apt knows: the signed ones,
whose name ends there. A series that this machine's release does not carry comes from
another suite of the same mirror, through package lists kept apart from the system's.
Whole kernels lie in the cache under their package's name; half ones never do.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tools.kernelvm.errors import KernelUnavailable, ToolMissing

REPOSITORY = Path(__file__).resolve().parents[2]

OTHER_SUITES = {"5.10": "bullseye", "6.1": "bookworm", "6.12": "trixie"}
"""Where to look for a series that apt does not know. Any series newer than these: BACKPORTS."""

BACKPORTS = "trixie-backports"

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")


@dataclass(frozen=True)
class Kernel:
    """An unpacked kernel package.

    `release` is what `uname -r` says under it, `image` the compressed kernel, `modules` the
    directory of its modules, `package` the Debian package that it came from.
    """

    release: str
    image: Path
    modules: Path
    package: str


def cache_directory() -> Path:
    """Return PYTRACEPROP_CACHE, or .build in the repository. Kernels are in `kernels` below it."""
    return Path(os.environ.get("PYTRACEPROP_CACHE") or REPOSITORY / ".build").resolve()


def fetch(series: str, cache: Path | None = None) -> Kernel:
    """Return the newest Debian kernel of `series` ("6.12", or more exactly "6.1.0-56").

    It is downloaded unless `cache` (default: cache_directory()) has it; without a network
    the newest one there of this series has to do. Raises KernelUnavailable, ToolMissing.
    """
    if not re.fullmatch(r"\d+\.\d+[\w.+-]*", series):
        raise ValueError(f"not a kernel series: {series!r} (expected is something like '6.12')")
    kernels = (cache or cache_directory()) / "kernels"
    kernels.mkdir(parents=True, exist_ok=True)
    try:
        apt, package = _find(series, kernels)
        if not (kernels / package).is_dir():
            _download(apt, package, kernels, series)
    except KernelUnavailable as error:
        cached = _newest(series, (path.name for path in kernels.iterdir()))
        if cached is None:
            raise
        print(f"kernelvm: {error}; taking {cached} from the cache", file=sys.stderr)
        package = cached
    return _open(kernels / package, series)


@dataclass(frozen=True)
class _Apt:
    """apt with one set of package lists. `options` select the set: none, the system's own."""

    options: tuple[str, ...] = ()

    def call(self, program: str, *arguments: str, directory: Path | None = None) -> str:
        """Return what an apt program prints. Raises CalledProcessError, ToolMissing."""
        if shutil.which(program) is None:
            raise ToolMissing(program, "apt (the kernels are Debian packages)")
        command = [program, *self.options, *arguments]
        result = subprocess.run(command, cwd=directory, capture_output=True, text=True, check=True)
        return result.stdout

    def update(self) -> None:
        """Fetch the package lists afresh."""
        print(f"kernelvm: apt-get update{' (lists of its own)' if self.options else ''}", file=sys.stderr)
        self.call("apt-get", "-qq", "update")

    def find(self, series: str) -> str | None:
        """Return the newest package of `series` in these lists."""
        return _newest(series, self.call("apt-cache", "pkgnames", f"linux-image-{series}").split())


def _find(series: str, kernels: Path) -> tuple[_Apt, str]:
    """Return the newest package of `series`, and the apt that knows it."""
    system = _Apt()
    package = system.find(series)
    if package is None and not system.call("apt-cache", "pkgnames", "linux-image-").strip():
        try:
            system.update()  # a new machine, which has no lists yet
        except subprocess.CalledProcessError as error:
            raise KernelUnavailable(series, f"apt has no package lists: {_why(error)}") from None
        package = system.find(series)
    if package is not None:
        return system, package
    suite = next((name for key, name in OTHER_SUITES.items() if _belongs(series, key)), BACKPORTS)
    try:
        other = _other_suite(system, suite, kernels.parent / "apt" / suite)
        package = other.find(series)
        if package is None:
            other.update()
            package = other.find(series)
    except subprocess.CalledProcessError as error:
        raise KernelUnavailable(
            series, f"apt does not know it, nor can it read {suite}: {_why(error)}"
        ) from None
    if package is None:
        raise KernelUnavailable(
            series,
            f"neither apt nor the suite {suite} has it: run `apt-get update`, or ask for another series",
        )
    return other, package


def _other_suite(system: _Apt, suite: str, directory: Path) -> _Apt:
    """Return an apt that knows `suite` of the system's own Debian mirror, and nothing else."""
    form = ("--format", "$(REPO_URI) $(LABEL)", "Created-By: Packages")
    mirrors = [line.split(" ", 1) for line in system.call("apt-get", "indextargets", *form).splitlines()]
    mirror = next((uri for uri, label in mirrors if label == "Debian"), None)
    if mirror is None:
        raise KernelUnavailable(
            suite, "apt has no Debian mirror: run `apt-get update`, or boot an older series"
        )
    for part in ("lists/partial", "cache/archives/partial"):
        (directory / part).mkdir(parents=True, exist_ok=True)
    sources = directory / "sources.list"
    sources.write_text(f"deb [signed-by={KEYRING}] {mirror} {suite} main\n")
    settings = {
        "Dir::Etc::SourceList": sources,
        "Dir::Etc::SourceParts": "/dev/null",
        "Dir::State::Lists": directory / "lists",
        "Dir::Cache": directory / "cache",
        "Acquire::Check-Valid-Until": "false",  # archived suites are signed, and no longer renewed
        "APT::Sandbox::User": "root",
    }
    return _Apt(tuple(f"-o{name}={value}" for name, value in settings.items()))


def _belongs(package_series: str, key: str) -> bool:
    return re.match(rf"{re.escape(key)}(?![0-9])", package_series) is not None


def _newest(series: str, packages: Iterable[str]) -> str | None:
    """Return the newest of `packages` that is a signed cloud kernel of `series`."""
    # Not the metapackage, which has nothing between series and flavour, and no -unsigned or -dbg.
    pattern = re.compile(rf"linux-image-{re.escape(series)}(?!\d|-cloud)[\w.+~-]+-cloud-amd64")
    matching = [package for package in packages if pattern.fullmatch(package)]
    return max(matching, key=lambda name: [int(number) for number in re.findall(r"\d+", name)], default=None)


def _download(apt: _Apt, package: str, kernels: Path, series: str) -> None:
    """Put `package`, unpacked, into the directory `kernels`."""
    with tempfile.TemporaryDirectory(prefix=".unpacking-", dir=kernels) as scratch:
        directory = Path(scratch)
        print(f"kernelvm: fetching {package}", file=sys.stderr)
        try:
            try:
                apt.call("apt-get", "-qq", "download", package, directory=directory)
            except subprocess.CalledProcessError:
                apt.update()  # the lists may be older than the mirror
                apt.call("apt-get", "-qq", "download", package, directory=directory)
            (archive,) = directory.glob("*.deb")
            _Apt().call("dpkg", "-x", str(archive), str(directory / "tree"))
        except subprocess.CalledProcessError as error:
            reason = f"cannot fetch {package}: {_why(error)}; try `apt-get update`"
            raise KernelUnavailable(series, reason) from None
        with contextlib.suppress(OSError):  # somebody else was quicker
            (directory / "tree").rename(kernels / package)


def _open(directory: Path, series: str) -> Kernel:
    """Return the kernel unpacked in `directory`."""
    images = [*directory.glob("boot/vmlinuz-*"), *directory.glob("usr/lib/modules/*/vmlinuz")]
    modules = [*directory.glob("lib/modules/*"), *directory.glob("usr/lib/modules/*")]
    if not images or not modules:
        raise KernelUnavailable(series, f"{directory} does not hold a kernel: remove it and try again")
    return Kernel(release=modules[0].name, image=images[0], modules=modules[0], package=directory.name)


def _why(error: subprocess.CalledProcessError) -> str:
    lines = [line for line in str(error.stderr).splitlines() if line.startswith(("E:", "dpkg"))]
    return " ".join(lines) or f"{error.cmd[0]} ended with {error.returncode}"
