"""Rights: capabilities, user namespaces, ptrace, locked memory; then what a refusal is put down to."""

from __future__ import annotations

import errno
import os
import resource
from pathlib import Path

import pytest

from pytraceprop.environment import Answer, rights
from pytraceprop.environment.rights import Rights
from pytraceprop.lockdown import LockdownMode, LockdownStatus

SYS_PTRACE, SYS_ADMIN, SYS_RESOURCE, PERFMON, BPF = 1 << 19, 1 << 21, 1 << 24, 1 << 38, 1 << 39
INFINITY = resource.RLIM_INFINITY


def having(effective: int | None, *, initial: bool | None = True, **more: bool | None) -> Rights:
    return Rights(effective, more.get("knows_bpf", True), initial, more.get("seccomp", False))


def procfs(directory: Path, status: str, last: str = "40\n") -> Path:
    (directory / "thread-self").mkdir()
    (directory / "thread-self" / "status").write_text(status)
    (directory / "sys" / "kernel").mkdir(parents=True)
    (directory / "sys" / "kernel" / "cap_last_cap").write_text(last)
    return directory


# Reading them


def test_the_rights_are_read_from_the_threads_status(tmp_path):
    status = "Name:\tx: y\nCapEff:\t0000000000200000\nCapBnd:\t000001ffffffffff\nSeccomp:\t2\n"
    found = Rights.detect(procfs(tmp_path, status))
    assert (found.effective, found.knows_bpf, found.initial, found.seccomp) == (SYS_ADMIN, True, None, True)


@pytest.mark.parametrize(("last", "knows"), [("40\n", True), ("39\n", True), ("37\n", False), ("x", None)])
def test_a_kernel_before_cap_bpf_is_known_by_its_last_capability(tmp_path, last, knows):
    status = "CapEff:\t0\nCapBnd:\t0\nSeccomp:\t0\n"
    found = Rights.detect(procfs(tmp_path, status, last))
    assert (found.effective, found.knows_bpf, found.seccomp) == (0, knows, False)


@pytest.mark.parametrize("status", ["", "CapEff:\n", "CapEff:\tnothing\n", "\0\0\n", ":::\n"])
def test_a_status_that_says_nothing_is_unknown(tmp_path, status):
    found = Rights.detect(procfs(tmp_path, status))
    assert (found.effective, found.seccomp) == (None, None)
    assert found.may_load is None


def test_without_procfs_nothing_is_known(tmp_path):
    assert Rights.detect(tmp_path / "absent") == Rights(None, None, None, None)


def test_a_user_namespace_is_told_by_its_inode(tmp_path):
    (tmp_path / "self" / "ns").mkdir(parents=True)
    (tmp_path / "self" / "ns" / "user").touch()  # an inode that is not the first namespace's
    assert Rights.detect(tmp_path).initial is False


# Capabilities


@pytest.mark.parametrize(
    ("effective", "value"),
    [
        (SYS_ADMIN, True),
        (BPF | PERFMON, True),
        (BPF, False),
        (PERFMON, False),
        (SYS_PTRACE, False),
        (0, False),
        (None, None),
    ],
)
def test_tracing_takes_sys_admin_or_bpf_with_perfmon(effective, value):
    answer = rights.capabilities(having(effective))
    assert answer.value is value
    assert having(effective).may_load is value
    assert bool(answer.remedy) is (value is not True)


def test_a_kernel_without_cap_bpf_is_told_of_sys_admin_alone():
    answer = rights.capabilities(having(0, knows_bpf=False))
    assert (answer.value, answer.remedy) == (False, "CAP_SYS_ADMIN")


@pytest.mark.parametrize("effective", [0, SYS_ADMIN, (1 << 41) - 1])
def test_in_a_user_namespace_no_capability_counts(effective):
    answer = rights.capabilities(having(effective, initial=False))
    assert answer.value is False
    assert "user namespace" in answer.reason
    assert "outside of user namespaces" in answer.remedy


@pytest.mark.parametrize(
    ("effective", "initial", "value"),
    [
        (SYS_PTRACE, True, True),
        (SYS_PTRACE, None, True),
        (SYS_PTRACE, False, False),
        (SYS_ADMIN, True, False),
        (None, True, None),
    ],
)
def test_processes_of_others_take_cap_sys_ptrace(effective, initial, value):
    answer = rights.other_users(having(effective, initial=initial))
    assert answer.value is value
    assert bool(answer.remedy) is (value is not True)


# ptrace


@pytest.mark.parametrize(
    ("scope", "effective", "initial", "value", "remedy"),
    [
        ("0\n", 0, True, True, ""),
        ("0\n", None, False, True, ""),
        ("1\n", SYS_PTRACE, True, True, ""),
        ("1\n", 0, True, False, "CAP_SYS_PTRACE"),
        ("2\n", SYS_PTRACE, True, True, ""),
        ("2\n", 0, True, False, "CAP_SYS_PTRACE"),
        ("1\n", SYS_PTRACE, False, False, "outside of user namespaces"),
        ("2\n", None, True, None, "procfs"),
        ("3\n", SYS_PTRACE, True, False, "boot"),
        ("many\n", SYS_PTRACE, True, None, "procfs"),
    ],
)
def test_yama_decides_who_may_attach(tmp_path, scope, effective, initial, value, remedy):
    path = tmp_path / "ptrace_scope"
    path.write_text(scope)
    answer = rights.ptrace_scope(having(effective, initial=initial), path)
    assert answer.value is value
    assert remedy in answer.remedy
    assert bool(answer.remedy) is bool(remedy)


def test_a_kernel_without_yama_does_not_restrict_ptrace(tmp_path):
    assert rights.ptrace_scope(having(0), tmp_path / "yama" / "ptrace_scope").value is True


def test_a_hidden_proc_sys_is_could_not_tell(tmp_path):
    assert rights.ptrace_scope(having(0), tmp_path / "absent" / "yama" / "ptrace_scope").value is None


# Locked memory

CHARGED = Answer(True, "Charged.", "")
NOT_CHARGED = Answer(False, "Not charged.", "Linux 5.11")
UNKNOWN = Answer(None, "Refused.", "CAP_BPF")


@pytest.mark.parametrize(
    ("charged", "limits", "effective", "initial", "value"),
    [
        (CHARGED, (65536, 65536), 0, True, True),
        (NOT_CHARGED, (65536, 65536), 0, True, False),
        (NOT_CHARGED, (65536, INFINITY), 0, True, True),
        (NOT_CHARGED, (INFINITY, INFINITY), 0, True, True),
        (NOT_CHARGED, (65536, 65536), SYS_RESOURCE, True, True),
        (NOT_CHARGED, (65536, 65536), SYS_RESOURCE, False, False),
        (NOT_CHARGED, (64 << 20, 64 << 20), 0, True, True),
        (UNKNOWN, (65536, 65536), 0, True, None),
        (UNKNOWN, (INFINITY, INFINITY), None, None, True),
    ],
)
def test_the_limit_of_locked_memory_matters_where_nothing_else_is_charged(
    monkeypatch, charged, limits, effective, initial, value
):
    monkeypatch.setattr(resource, "getrlimit", lambda which: limits)
    answer = rights.memlock(having(effective, initial=initial), charged)
    assert answer.value is value
    assert bool(answer.remedy) is (value is not True)
    if value is False:
        assert "64 KiB" in answer.reason
        assert "Linux 5.11" in answer.remedy


# Writing user memory


def lockdown(mode: LockdownMode, write: bool | None) -> LockdownStatus:
    return LockdownStatus(mode, write, "So it is.")


@pytest.mark.parametrize(
    ("status", "effective", "remedy"),
    [
        (lockdown(LockdownMode.NONE, True), SYS_ADMIN, ""),
        (lockdown(LockdownMode.NONE, False), 0, "CAP_SYS_ADMIN"),
        (lockdown(LockdownMode.UNKNOWN, False), BPF | PERFMON, "CAP_SYS_ADMIN"),
        (lockdown(LockdownMode.UNKNOWN, False), SYS_ADMIN, "not locked down"),
        (lockdown(LockdownMode.INTEGRITY, False), SYS_ADMIN, "not locked down"),
        (lockdown(LockdownMode.INTEGRITY, False), 0, "not locked down"),
        (lockdown(LockdownMode.UNKNOWN, None), None, "CAP_SYS_ADMIN"),
    ],
)
def test_what_would_let_user_memory_be_written_is_a_right_or_another_boot(status, effective, remedy):
    answer = rights.write_user(having(effective), status)
    assert (answer.value, answer.reason) == (status.write_user, "So it is.")
    assert remedy in answer.remedy
    assert bool(answer.remedy) is bool(remedy)


def test_in_a_user_namespace_writing_takes_leaving_it():
    answer = rights.write_user(having(SYS_ADMIN, initial=False), lockdown(LockdownMode.UNKNOWN, None))
    assert "outside of user namespaces" in answer.remedy


# A refusal


@pytest.mark.parametrize(
    ("mine", "number", "reason", "remedy"),
    [
        (having(SYS_ADMIN, initial=False), errno.EPERM, "user namespace", "outside of user namespaces"),
        (having(0), errno.EPERM, "lacks the right", "CAP_BPF"),
        (having(0), errno.EACCES, "lacks the right", "CAP_BPF"),
        (having(0, seccomp=True), errno.EPERM, "lacks the right", "CAP_BPF"),
        (having(SYS_ADMIN, seccomp=True), errno.EPERM, "seccomp", "seccomp profile"),
        (having(SYS_ADMIN), errno.EPERM, "in spite of", "security policy"),
        (having(None, initial=None, seccomp=None), errno.EPERM, "in spite of", "security policy"),
        (having(0), errno.ENOMEM, "ENOMEM", "ENOMEM"),
        (having(0), 4095, "4095", "4095"),
    ],
)
def test_a_refusal_is_put_down_to_the_likeliest_cause(mine, number, reason, remedy):
    found = mine.refusal(number)
    assert reason in found[0]
    assert found[0].startswith(errno.errorcode.get(number, str(number)))
    assert remedy in found[1]


def test_this_process_is_read_as_the_kernel_shows_it():
    mine = Rights.detect()
    line = next(
        line
        for line in Path("/proc/thread-self/status").read_text().splitlines()
        if line.startswith("CapEff")
    )
    assert mine.effective == int(line.split()[1], 16)
    assert mine.initial is (os.stat("/proc/self/ns/user").st_ino == 4026531837)  # noqa: PTH116
