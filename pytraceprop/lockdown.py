"""LockdownStatus: whether this kernel lets this process write into traced processes, and why not.

Needs neither the compiled core nor privileges: ctypes over libbpf alone, so that a notebook can ask.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from enum import Enum
from pathlib import Path
from typing import Any

import attrs

from pytraceprop import libbpf

LOCKDOWN_PATH = "/sys/kernel/security/lockdown"

_CAP_SYS_ADMIN = 21
_PROBE_WRITE_USER = 36  # BPF_FUNC_probe_write_user


class LockdownMode(str, Enum):
    """The kernel's lockdown mode, as securityfs names it; UNKNOWN where that cannot be read."""

    NONE = "none"
    INTEGRITY = "integrity"
    CONFIDENTIALITY = "confidentiality"
    UNKNOWN = "unknown"

    def __str__(self) -> str:
        return self.value


def read_mode(path: str | os.PathLike[str] = LOCKDOWN_PATH) -> LockdownMode:
    """The mode that stands in brackets in the file, such as `none [integrity] confidentiality`."""
    try:
        text = Path(path).read_text(encoding="ascii", errors="replace")
    except OSError:
        return LockdownMode.UNKNOWN
    chosen = [word[1:-1] for word in text.split() if word.startswith("[") and word.endswith("]")]
    if len(chosen) != 1 or chosen[0] not in ("none", "integrity", "confidentiality"):
        return LockdownMode.UNKNOWN
    return LockdownMode(chosen[0])


def has_sys_admin(path: str | os.PathLike[str] = "/proc/thread-self/status") -> bool | None:
    """Whether CAP_SYS_ADMIN is in this thread's effective set; None where that cannot be read."""
    try:
        for line in Path(path).read_text().splitlines():
            if line.startswith("CapEff:"):
                return bool(int(line.split()[1], 16) >> _CAP_SYS_ADMIN & 1)
    except (OSError, ValueError, IndexError):
        pass
    return None


def load_probe() -> int | None:
    """Asks the kernel to load `call bpf_probe_write_user; exit`: the errno, 0 if it loaded.

    None without libbpf 1.0 or later. The program is never right (its arguments are not set), so what
    tells is how it is refused: EACCES is said of the arguments, so the helper itself is allowed;
    EINVAL is said of the helper. libbpf_probe_bpf_helper cannot be used: before libbpf 1.5 it looks
    for a text that verifiers from Linux 6.12 on word differently, and answers "available".
    """
    with libbpf.closing(libbpf.load_program(libbpf.call(_PROBE_WRITE_USER) + libbpf.EXIT)) as answer:
        return None if answer is None else max(0, -answer)


def _decide(
    mode: LockdownMode, sys_admin: bool | None, probe: Callable[[], int | None]
) -> tuple[bool | None, str]:
    locked = mode in (LockdownMode.INTEGRITY, LockdownMode.CONFIDENTIALITY)
    answer = probe()
    if answer is None:
        state = (
            f"the kernel's lockdown mode is {mode}" if mode != LockdownMode.UNKNOWN else "nothing is known"
        )
        return None, f"Could not tell whether user memory can be written: libbpf 1.0 is missing ({state})."
    if locked:
        # Decides alone: before 5.14 the verifier accepts the helper all the same.
        return False, f"The kernel is in {mode} lockdown, which forbids writing user memory from BPF."
    if sys_admin is False:
        return False, "This process lacks the capability CAP_SYS_ADMIN, which bpf_probe_write_user demands."
    if answer in (0, errno.EACCES):
        return True, "The kernel lets this process write user memory from BPF (bpf_probe_write_user)."
    if answer == errno.EINVAL and sys_admin and mode == LockdownMode.UNKNOWN:
        return False, (
            "The kernel refuses bpf_probe_write_user although this process has CAP_SYS_ADMIN: it is in "
            "lockdown (which cannot be read here, because securityfs is not mounted)."
        )
    if answer == errno.EINVAL and sys_admin:
        return False, "The kernel does not offer bpf_probe_write_user, although it is not in lockdown."
    name = errno.errorcode.get(answer, str(answer))
    return None, f"Could not tell whether user memory can be written: loading a BPF program gave {name}."


@attrs.frozen
class LockdownStatus:
    """What the kernel allows this process. Make it with `detect()`.

    `mode` is the kernel's lockdown mode. `write_user` says whether this process may use
    bpf_probe_write_user, and with it the propagation method "user-memory": True, False, or None when
    that could not be told (which counts as no). `reason` is one sentence that tells lockdown, a
    missing capability and "could not tell" apart.
    """

    mode: LockdownMode
    write_user: bool | None
    reason: str

    @classmethod
    def detect(
        cls,
        path: str | os.PathLike[str] = LOCKDOWN_PATH,
        *,
        probe: Callable[[], int | None] = load_probe,
        sys_admin: Callable[[], bool | None] = has_sys_admin,
    ) -> LockdownStatus:
        """Finds out; never raises for what it finds, takes about a millisecond.

        `path` is the securityfs file; `probe` and `sys_admin` can be replaced in tests. Where the file
        says integrity or confidentiality, that decides. Else the kernel is asked by trying, which is
        right without securityfs too (on kernels before 5.14 that lack the fix, only the file knows:
        commit 51e1bb9eeaf7 made lockdown refuse the helper).
        """
        mode = read_mode(path)
        write_user, reason = _decide(mode, sys_admin(), probe)
        return cls(mode, write_user, reason)

    def as_dict(self) -> dict[str, Any]:
        """The three fields, ready for JSON."""
        return {"mode": self.mode.value, "write_user": self.write_user, "reason": self.reason}

    def explain(self) -> str:
        """What this means and what a person can do about it, as text of several paragraphs."""
        return f"{self.reason}\n{_ADVICE}"


_ADVICE = """
Spans are traced either way: reading a process is not restricted. Adding the traceparent header to
outgoing requests by writing into the process needs bpf_probe_write_user, which takes CAP_SYS_ADMIN
and a kernel that is not locked down.

See the mode (the word in brackets is in force):
    cat /sys/kernel/security/lockdown
If the file is not there, mount securityfs:
    mount -t securityfs securityfs /sys/kernel/security
In a container, let it be seen from the host:
    docker run -v /sys/kernel/security:/sys/kernel/security:ro ...
    compose:     volumes: ["/sys/kernel/security:/sys/kernel/security:ro"]
    Kubernetes:  a hostPath volume of /sys/kernel/security, mounted read-only at the same path

Lockdown came with Linux 5.4. It covers bpf_probe_write_user since Linux 5.14 (commit 51e1bb9eeaf7,
"bpf: Add lockdown check for probe_write_user helper"), and in the stable kernels that took it over.
Most distributions turn integrity mode on when the machine boots with Secure Boot. It can be left only
by booting without: Secure Boot off in the firmware, and no lockdown= on the kernel's command line.
"""
