"""File systems that tracing looks at: cgroup2, securityfs, and BTF in sysfs."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from pytraceprop.environment.answer import Answer, no, unsure, yes
from pytraceprop.environment.rights import MOUNT_PROC
from pytraceprop.lockdown import LOCKDOWN_PATH, LockdownMode

BTF_PATH = "/sys/kernel/btf/vmlinux"
_BTF_MAGIC = 0xEB9F  # linux/btf.h


def visible(kind: str, proc: str | os.PathLike[str] = "/proc") -> list[str] | None:
    """Where file systems of that kind are mounted and not covered by others; None where it is hidden."""
    try:
        text = (Path(proc) / "self" / "mountinfo").read_text(errors="surrogateescape")
    except OSError:
        return None
    return [point for fields in _entries(text, kind) if _is_seen(point := _unescape(fields[4]), fields[2])]


def _entries(text: str, kind: str) -> Iterator[list[str]]:
    """The first fields of the entries of that kind (proc_pid_mountinfo(5))."""
    for line in text.splitlines():
        fields, _, source = line.partition(" - ")
        if source.split(" ", 1)[0] == kind and len(fields.split()) >= 5:
            yield fields.split()


def _unescape(path: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), path)


def _is_seen(path: str, device: str) -> bool:
    """Whether the file system at a path is the one of that device: another may be mounted over it."""
    try:
        found = Path(path).stat().st_dev
    except (OSError, ValueError):
        return False
    return device == f"{os.major(found)}:{os.minor(found)}"


def cgroup_v2(proc: str | os.PathLike[str] = "/proc") -> Answer:
    """Whether the cgroup v2 hierarchy is mounted: the propagation method "socket" attaches there."""
    points = visible("cgroup2", proc)
    if points is None:
        return unsure("/proc is hidden, so it cannot be read whether cgroup v2 is mounted.", MOUNT_PROC)
    if points:
        return yes(f"cgroup v2 is mounted at {points[0]}.")
    try:
        known = "cgroup2" in (Path(proc) / "filesystems").read_text().split()
    except OSError:
        known = True
    if not known:
        return no("The kernel does not have cgroup v2.", "Linux 4.5 with CONFIG_CGROUPS")
    return no(
        "cgroup v2 is not mounted.",
        "mount -t cgroup2 none /sys/fs/cgroup",
    )


def securityfs(
    mode: LockdownMode,
    proc: str | os.PathLike[str] = "/proc",
    path: str | os.PathLike[str] = LOCKDOWN_PATH,
) -> Answer:
    """Whether securityfs is mounted, which says the kernel's lockdown mode; `mode` is what was read."""
    if mode is not LockdownMode.UNKNOWN:
        return yes(f"securityfs is mounted: the lockdown mode is {mode}.")
    points = visible("securityfs", proc)
    if points is None:
        return unsure("/proc is hidden, so it cannot be read whether securityfs is mounted.", MOUNT_PROC)
    folder = str(Path(path).parent)
    if folder not in points:
        return no(
            "securityfs is not mounted, so the lockdown mode cannot be read.",
            f"mount -t securityfs securityfs {folder}",
        )
    if Path(path).exists():
        return no("securityfs is mounted, but its lockdown file may not be read.", "root (before Linux 5.8)")
    return yes("securityfs is mounted, and has no lockdown file: the kernel is without lockdown.")


def btf(path: str | os.PathLike[str] = BTF_PATH, proc: str | os.PathLike[str] = "/proc") -> Answer:
    """Whether the kernel says what its types are (BTF), which the BPF objects are fitted with."""
    try:
        with Path(path).open("rb") as file:
            magic = int.from_bytes(file.read(2), "little")
    except FileNotFoundError:
        points = visible("sysfs", proc)
        if points and any(Path(path).is_relative_to(point) for point in points):
            return no("The kernel has no BTF.", "Linux 5.4 with CONFIG_DEBUG_INFO_BTF")
        return unsure(
            "/sys is hidden, so it cannot be read whether the kernel has BTF.", "mount sysfs at /sys"
        )
    except OSError as error:
        return unsure(
            f"{path} cannot be read: {error.strerror}.",
            f"the right to read {path}",
        )
    if magic == _BTF_MAGIC:
        return yes("The kernel has BTF.")
    return unsure(f"{path} holds something that is not BTF.", "mount sysfs at /sys")
