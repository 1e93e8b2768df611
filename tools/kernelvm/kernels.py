"""Debian's kernel packages: found by series, fetched and unpacked, never installed.

Taken is the newest `linux-image-<series>*-cloud-amd64` that apt knows: the signed ones,
whose name ends there. A series that this machine's release does not carry comes from
another suite of the same mirror, through package lists kept apart from the system's.
Whole kernels lie in the cache under their package's name; half ones never do.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tools.apt import Apt, AptError, AptMissing, other_suite
from tools.kernelvm.errors import KernelUnavailable, ToolMissing

REPOSITORY = Path(__file__).resolve().parents[2]

OTHER_SUITES = {"5.10": "bullseye", "6.1": "bookworm", "6.12": "trixie"}
"""Where to look for a series that apt does not know. Any series newer than these: BACKPORTS."""

BACKPORTS = "trixie-backports"


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
            apt.unpack(package, kernels / package)
    except AptMissing as error:
        raise ToolMissing(error.program, "apt (the kernels are Debian packages)") from None
    except AptError as error:
        cached = _newest(series, (path.name for path in kernels.iterdir()))
        if cached is None:
            raise KernelUnavailable(series, error.reason) from None
        print(f"kernelvm: {error}; taking {cached} from the cache", file=sys.stderr)
        package = cached
    return _open(kernels / package, series)


def _find(series: str, kernels: Path) -> tuple[Apt, str]:
    """Return the newest package of `series`, and the apt that knows it. Raises AptError."""
    system = Apt()
    package = _newest_known(system, series)
    if package is None and not system.names("linux-image-"):
        system.update()  # a new machine, which has no lists yet
        package = _newest_known(system, series)
    if package is not None:
        return system, package
    suite = next((name for key, name in OTHER_SUITES.items() if _belongs(series, key)), BACKPORTS)
    other = other_suite(suite, kernels.parent / "apt" / suite)
    package = _newest_known(other, series)
    if package is None:
        other.update()
        package = _newest_known(other, series)
    if package is None:
        raise AptError(
            f"neither apt nor the suite {suite} has it: run `apt-get update`, or ask for another series"
        )
    return other, package


def _newest_known(apt: Apt, series: str) -> str | None:
    return _newest(series, apt.names(f"linux-image-{series}"))


def _belongs(package_series: str, key: str) -> bool:
    return re.match(rf"{re.escape(key)}(?![0-9])", package_series) is not None


def _newest(series: str, packages: Iterable[str]) -> str | None:
    """Return the newest of `packages` that is a signed cloud kernel of `series`."""
    # Not the metapackage, which has nothing between series and flavour, and no -unsigned or -dbg.
    pattern = re.compile(rf"linux-image-{re.escape(series)}(?!\d|-cloud)[\w.+~-]+-cloud-amd64")
    matching = [package for package in packages if pattern.fullmatch(package)]
    return max(matching, key=lambda name: [int(number) for number in re.findall(r"\d+", name)], default=None)


def _open(directory: Path, series: str) -> Kernel:
    """Return the kernel unpacked in `directory`."""
    images = [*directory.glob("boot/vmlinuz-*"), *directory.glob("usr/lib/modules/*/vmlinuz")]
    modules = [*directory.glob("lib/modules/*"), *directory.glob("usr/lib/modules/*")]
    if not images or not modules:
        raise KernelUnavailable(series, f"{directory} does not hold a kernel: remove it and try again")
    return Kernel(release=modules[0].name, image=images[0], modules=modules[0], package=directory.name)
