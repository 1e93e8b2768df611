"""What this thread may do: capabilities, the user namespace, ptrace, locked memory.

None of it is remembered: a process may gain and lose rights.
"""

from __future__ import annotations

import errno
import os
import resource
from pathlib import Path

import attrs

from pytraceprop.environment.answer import Answer, no, unsure, yes
from pytraceprop.lockdown import LockdownMode, LockdownStatus

CAP_SYS_PTRACE, CAP_SYS_ADMIN, CAP_SYS_RESOURCE, CAP_PERFMON, CAP_BPF = 19, 21, 24, 38, 39
PTRACE_SCOPE_PATH = "/proc/sys/kernel/yama/ptrace_scope"
MOUNT_PROC = "mount procfs at /proc"

#: A Tracer of default size holds 31 MiB in maps (`memlock` in fdinfo, Linux 6.18); there may be several.
_NEEDED_MEMORY = 64 << 20
_INIT_USER_NAMESPACE = 0xEFFFFFFD  # the inode of the first one: PROC_USER_INIT_INO, linux/proc_ns.h
TRACING = "CAP_BPF and CAP_PERFMON, or CAP_SYS_ADMIN"
FIRST_NAMESPACE = "start it as root outside of user namespaces (no rootless container)"


@attrs.frozen
class Rights:
    """What this thread is allowed. Make it with `detect()`.

    `effective` is the set of effective capabilities as a bit mask, `knows_bpf` whether the kernel has
    CAP_BPF and CAP_PERFMON at all (Linux 5.8), `initial` whether this is the first user namespace,
    `seccomp` whether a filter of system calls is in force. None: could not be read.
    """

    effective: int | None
    knows_bpf: bool | None
    initial: bool | None
    seccomp: bool | None

    @classmethod
    def detect(cls, proc: str | os.PathLike[str] = "/proc") -> Rights:
        """Reads them from procfs; never raises for what it finds there."""
        fields: dict[str, str] = {}
        try:
            for line in (Path(proc) / "thread-self" / "status").read_text().splitlines():
                name, _, value = line.partition(":")
                fields[name] = value.strip()
        except (OSError, ValueError):
            pass
        effective, bounding = _mask(fields.get("CapEff")), _mask(fields.get("CapBnd"))
        return cls(
            effective,
            _knows_bpf(Path(proc) / "sys" / "kernel" / "cap_last_cap", bounding),
            _is_initial(Path(proc) / "self" / "ns" / "user"),
            None if "Seccomp" not in fields else fields["Seccomp"] == "2",
        )

    def has(self, capability: int) -> bool | None:
        """Whether a capability is effective; one that works in this user namespace alone is not told apart."""
        return None if self.effective is None else bool(self.effective >> capability & 1)

    @property
    def may_load(self) -> bool | None:
        """Whether BPF programs for probes may be loaded, by the capabilities."""
        if self.effective is None:
            return None
        if self.initial is False:
            return False
        return bool(self.has(CAP_SYS_ADMIN) or (self.has(CAP_BPF) and self.has(CAP_PERFMON)))

    def refusal(self, number: int) -> tuple[str, str]:
        """Why a system call may have failed with this errno, and what would let it through.

        The first begins with the errno's name and has no full stop.
        """
        name = errno.errorcode.get(number, str(number))
        if number not in (errno.EPERM, errno.EACCES):
            return f"{name}, which says nothing about the kernel", f"find out what makes it fail with {name}"
        if self.initial is False:
            return f"{name}: this process is in a user namespace", FIRST_NAMESPACE
        if self.may_load is False:
            return f"{name}: this process lacks the right", TRACING
        if self.seccomp:
            return (
                f"{name}: probably the seccomp filter that is in force forbids it",
                "a seccomp profile that allows bpf and perf_event_open",
            )
        return f"{name} in spite of the capabilities", "a security policy (LSM) that allows bpf(2)"


def _mask(text: str | None) -> int | None:
    try:
        return None if text is None else int(text, 16)
    except ValueError:
        return None


def _knows_bpf(path: Path, bounding: int | None) -> bool | None:
    if bounding is not None and bounding >> CAP_BPF & 1:
        return True
    try:
        return int(path.read_text()) >= CAP_BPF
    except (OSError, ValueError):
        return None


def _is_initial(path: Path) -> bool | None:
    try:
        return path.stat().st_ino == _INIT_USER_NAMESPACE
    except OSError:
        return None


def capabilities(rights: Rights) -> Answer:
    """The right to load BPF programs for probes: CAP_BPF and CAP_PERFMON (Linux 5.8), or CAP_SYS_ADMIN."""
    if rights.effective is None:
        return unsure(
            "The capabilities of this process cannot be read: /proc is not mounted, or hides them.",
            MOUNT_PROC,
        )
    if rights.initial is False:
        return no(
            "This process is in a user namespace, where capabilities do not count for BPF.", FIRST_NAMESPACE
        )
    if rights.has(CAP_SYS_ADMIN):
        return yes("This process has CAP_SYS_ADMIN.")
    if rights.may_load:
        return yes("This process has CAP_BPF and CAP_PERFMON.")
    if rights.knows_bpf is False:
        return no("This process lacks CAP_SYS_ADMIN, and the kernel has no CAP_BPF yet.", "CAP_SYS_ADMIN")
    return no("This process has neither CAP_SYS_ADMIN nor both CAP_BPF and CAP_PERFMON.", TRACING)


def other_users(rights: Rights) -> Answer:
    """The right to read processes of other users, whose executables and memory a tracer looks at."""
    held = rights.has(CAP_SYS_PTRACE)
    if held is None:
        return unsure("The capabilities of this process cannot be read.", MOUNT_PROC)
    if held and rights.initial is False:
        return no("Only processes of this user namespace can be read.", FIRST_NAMESPACE)
    if held:
        return yes("This process has CAP_SYS_PTRACE.")
    return no(
        "Without CAP_SYS_PTRACE only processes of the same user, with no more rights, can be traced.",
        "CAP_SYS_PTRACE",
    )


def ptrace_scope(rights: Rights, path: str | os.PathLike[str] = PTRACE_SCOPE_PATH) -> Answer:
    """Whether Yama lets this process attach to others with ptrace (not needed for reading them)."""
    try:
        scope = int(Path(path).read_text())
    except FileNotFoundError:
        if Path(path).parent.parent.is_dir():
            return yes("Nothing restricts ptrace beyond the usual rules: the kernel runs without Yama.")
        return unsure("/proc/sys is hidden, so it cannot be read whether Yama restricts ptrace.", MOUNT_PROC)
    except (OSError, ValueError):
        return unsure(f"{path} cannot be read.", MOUNT_PROC)
    setting = f"kernel.yama.ptrace_scope is {scope}"
    if scope == 0:
        return yes(f"{setting}: ptrace is not restricted beyond the usual rules.")
    if scope >= 3:
        return no(
            f"{setting}: nobody may attach with ptrace.", "a boot without that setting, which is one-way"
        )
    if rights.has(CAP_SYS_PTRACE) is None:
        return unsure(f"{setting}, and this process's capabilities are hidden.", MOUNT_PROC)
    if not rights.has(CAP_SYS_PTRACE):
        return no(f"{setting}: only who has CAP_SYS_PTRACE may attach to any process.", "CAP_SYS_PTRACE")
    if rights.initial is False:
        return no(f"{setting}: CAP_SYS_PTRACE counts inside this user namespace only.", FIRST_NAMESPACE)
    return yes(f"{setting}, and this process has CAP_SYS_PTRACE.")


def memlock(rights: Rights, charged_to_cgroup: Answer) -> Answer:
    """Whether RLIMIT_MEMLOCK leaves room for the maps; it matters before Linux 5.11 only.

    Since then BPF memory is charged to the memory cgroup; `charged_to_cgroup` says whether it is.
    """
    if charged_to_cgroup.value:
        return yes("BPF memory is charged to the memory cgroup, so RLIMIT_MEMLOCK does not matter.")
    soft, hard = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    if resource.RLIM_INFINITY in (soft, hard):
        return yes("Locked memory is not limited.")
    if rights.has(CAP_SYS_RESOURCE) and rights.initial:
        return yes("CAP_SYS_RESOURCE lets libbpf raise the limit of locked memory.")
    if soft >= _NEEDED_MEMORY:
        return yes(f"RLIMIT_MEMLOCK is {soft >> 20} MiB, which is enough.")
    limit = f"RLIMIT_MEMLOCK is {soft >> 10} KiB"
    if charged_to_cgroup.value is None:
        return unsure(f"{limit}, and whether BPF memory counts could not be tried.", charged_to_cgroup.remedy)
    return no(
        f"{limit}, which is too little: BPF maps count as locked memory on this kernel.",
        "ulimit -l unlimited (docker run --ulimit memlock=-1), CAP_SYS_RESOURCE, or Linux 5.11",
    )


def write_user(rights: Rights, lockdown: LockdownStatus) -> Answer:
    """LockdownStatus.write_user as an Answer: the right to write into processes from BPF."""
    if lockdown.write_user:
        return yes(lockdown.reason)
    locked = lockdown.mode in (LockdownMode.INTEGRITY, LockdownMode.CONFIDENTIALITY)
    if lockdown.write_user is None:
        return unsure(
            lockdown.reason, FIRST_NAMESPACE if rights.initial is False else "CAP_SYS_ADMIN and libbpf 1.0"
        )
    if not locked and rights.has(CAP_SYS_ADMIN) is False:
        return no(lockdown.reason, "CAP_SYS_ADMIN")
    return no(lockdown.reason, "a kernel that is not locked down: boot without Secure Boot")
