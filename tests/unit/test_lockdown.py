"""LockdownStatus: every mode, every errno, every missing part; then this very machine."""

from __future__ import annotations

import ctypes
import errno
import json
import os
import struct
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import attrs
import pytest

from pytraceprop.lockdown import LockdownMode, LockdownStatus, has_sys_admin, load_probe, read_mode
from tests.skips import require

ROOT = Path(__file__).resolve().parents[2]
SECURITYFS = "/sys/kernel/security"
NOBODY = 65534
SYS_CAPSET = 126  # x86-64
LINES = {
    "none": "[none] integrity confidentiality\n",
    "integrity": "none [integrity] confidentiality\n",
    "confidentiality": "none integrity [confidentiality]\n",
}
ASK = "import json; from pytraceprop.lockdown import LockdownStatus as S; print(json.dumps(S.detect().as_dict()))"


def status_file(directory: Path, content: str | bytes) -> Path:
    path = directory / "lockdown"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def detect(path, answer, sys_admin: bool | None = True) -> LockdownStatus:
    return LockdownStatus.detect(path, probe=lambda: answer, sys_admin=lambda: sys_admin)


def is_one_sentence(reason: str) -> bool:
    return reason[0].isupper() and reason.endswith(".") and "\n" not in reason and ". " not in reason[:-1]


# The file


@pytest.mark.parametrize("mode", LINES)
def test_the_bracketed_word_is_the_mode(tmp_path, mode):
    assert read_mode(status_file(tmp_path, LINES[mode])) == mode


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\n",
        b"none integrity confidentiality\n",
        b"[none] [integrity] confidentiality\n",
        b"[unknown]\n",
        b"[]\n",
        b"[none\n",
        b"none]\n",
        b"[Integrity]\n",
        b"\xff\xfe[\x00",
        b"[" * 10_000,
    ],
)
def test_a_file_that_cannot_be_understood_is_unknown(tmp_path, content):
    assert read_mode(status_file(tmp_path, content)) is LockdownMode.UNKNOWN


def test_a_missing_file_or_a_directory_is_unknown(tmp_path):
    assert read_mode(tmp_path / "absent") is LockdownMode.UNKNOWN
    assert read_mode(tmp_path) is LockdownMode.UNKNOWN


# The decision


@pytest.mark.parametrize("answer", [0, errno.EACCES, errno.EINVAL, errno.EPERM])
@pytest.mark.parametrize("mode", ["integrity", "confidentiality"])
def test_a_locked_down_file_decides_whatever_the_kernel_answers(tmp_path, mode, answer):
    """Kernels before 5.14 accept the helper under lockdown (fixed by 51e1bb9eeaf7)."""
    status = detect(status_file(tmp_path, LINES[mode]), answer)
    assert status.mode == mode
    assert status.write_user is False
    assert mode in status.reason
    assert "lockdown" in status.reason


@pytest.mark.parametrize("answer", [0, errno.EACCES])
@pytest.mark.parametrize("content", [LINES["none"], "garbage"])
def test_the_helper_may_be_used_where_the_kernel_accepts_it(tmp_path, content, answer):
    assert detect(status_file(tmp_path, content), answer).write_user is True


def test_a_refusal_while_the_file_says_none_is_not_called_lockdown(tmp_path):
    status = detect(status_file(tmp_path, LINES["none"]), errno.EINVAL)
    assert status.write_user is False
    assert "does not offer" in status.reason
    assert "not in lockdown" in status.reason


def test_a_refusal_without_the_file_is_lockdown(tmp_path):
    status = detect(tmp_path / "absent", errno.EINVAL)
    assert (status.mode, status.write_user) == (LockdownMode.UNKNOWN, False)
    assert "lockdown" in status.reason
    assert "securityfs" in status.reason


@pytest.mark.parametrize("answer", [0, errno.EACCES, errno.EINVAL, errno.EPERM])
@pytest.mark.parametrize("content", [LINES["none"], "garbage"])
def test_a_missing_capability_is_named_and_not_taken_for_lockdown(tmp_path, content, answer):
    status = detect(status_file(tmp_path, content), answer, sys_admin=False)
    assert status.write_user is False
    assert "CAP_SYS_ADMIN" in status.reason
    assert "lockdown" not in status.reason


@pytest.mark.parametrize("answer", [errno.EPERM, errno.ENOSYS, errno.ENOMEM, errno.E2BIG, 524])
@pytest.mark.parametrize("content", [LINES["none"], "garbage"])
def test_any_other_errno_is_could_not_tell_with_its_name(tmp_path, content, answer):
    status = detect(status_file(tmp_path, content), answer)
    assert status.write_user is None
    assert status.reason.startswith("Could not tell")
    assert errno.errorcode.get(answer, str(answer)) in status.reason


@pytest.mark.parametrize("content", [LINES["none"], "garbage"])
def test_a_refusal_is_could_not_tell_while_the_capabilities_are_hidden(tmp_path, content):
    status = detect(status_file(tmp_path, content), errno.EINVAL, sys_admin=None)
    assert status.write_user is None
    assert "EINVAL" in status.reason


@pytest.mark.parametrize("mode", LINES)
def test_without_libbpf_the_file_alone_answers(tmp_path, mode):
    status = detect(status_file(tmp_path, LINES[mode]), None)
    assert (status.mode, status.write_user) == (mode, None)
    assert "libbpf" in status.reason
    assert mode in status.reason


def test_without_libbpf_and_without_the_file_nothing_is_known(tmp_path):
    status = detect(tmp_path / "absent", None)
    assert (status.mode, status.write_user) == (LockdownMode.UNKNOWN, None)


@pytest.mark.parametrize("sys_admin", [True, False, None])
@pytest.mark.parametrize("answer", [None, 0, errno.EACCES, errno.EINVAL, errno.EPERM, 9999])
@pytest.mark.parametrize("content", [*LINES.values(), "garbage"])
def test_every_reason_is_one_sentence(tmp_path, content, answer, sys_admin):
    # "libbpf 1.0" and "(...)" hold no sentence end; a full stop followed by a space would.
    assert is_one_sentence(detect(status_file(tmp_path, content), answer, sys_admin).reason)


# The parts that ask


def test_libbpf_that_cannot_be_loaded_gives_no_answer(monkeypatch):
    def missing(*args, **kwargs):
        raise OSError("no such library")

    monkeypatch.setattr(ctypes, "CDLL", missing)
    assert load_probe() is None


def test_libbpf_before_1_0_is_not_called(monkeypatch):
    """Its `bpf_prog_load(const char *file, ...)` would take the program type 2 for an address."""
    calls = []

    class OldLoad:
        def __call__(self, *arguments):
            calls.append(arguments)
            return -errno.EINVAL

    def open_library(name, *args, **kwargs):
        if name == "libbpf.so.1":
            raise OSError("no such library")
        return SimpleNamespace(bpf_prog_load=OldLoad(), libbpf_major_version=lambda: 0)

    monkeypatch.setattr(ctypes, "CDLL", open_library)
    assert load_probe() is None
    assert not calls


@pytest.mark.parametrize(
    ("line", "answer"),
    [
        ("CapEff:\t000001ffffffffff", True),
        ("CapEff:\t0000000000200000", True),
        ("CapEff:\t000001ffffdfffff", False),
        ("CapEff:\t0000000000000000", False),
        ("CapEff:", None),
        ("CapEff:\tnothing", None),
        ("CapPrm:\t000001ffffffffff", None),
    ],
)
def test_cap_sys_admin_is_bit_21_of_the_effective_set(tmp_path, line, answer):
    path = tmp_path / "status"
    path.write_text(f"Name:\tx\nCapPrm:\t000001ffffffffff\n{line}\nCapBnd:\t000001ffffffffff\n")
    assert has_sys_admin(path) is answer
    assert has_sys_admin(tmp_path / "absent") is None


def test_asking_leaves_no_descriptor_open():
    before = sorted(Path("/proc/self/fd").iterdir())
    for _ in range(5):
        load_probe()
    assert sorted(Path("/proc/self/fd").iterdir()) == before


# The object


def test_a_status_is_immutable_and_serialises():
    status = LockdownStatus(LockdownMode.NONE, None, "Could not tell.")
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        status.write_user = True  # type: ignore[misc]
    assert json.loads(json.dumps(status.as_dict())) == {
        "mode": "none",
        "write_user": None,
        "reason": "Could not tell.",
    }
    assert f"{status.mode}" == "none"


@pytest.mark.parametrize(
    "needed",
    [
        "cat /sys/kernel/security/lockdown",
        "mount -t securityfs securityfs /sys/kernel/security",
        "docker run -v /sys/kernel/security:/sys/kernel/security:ro",
        "compose",
        "Kubernetes",
        "hostPath",
        "Linux 5.4",
        "Linux 5.14",
        "51e1bb9eeaf7",
        "Secure Boot",
        "CAP_SYS_ADMIN",
        "Spans",
    ],
)
def test_the_explanation_says_what_a_person_can_do(needed):
    explanation = LockdownStatus(LockdownMode.UNKNOWN, False, "The reason.").explain()
    assert explanation.startswith("The reason.")
    assert needed in explanation


# This machine


def ask(*command: str) -> dict[str, object]:
    """Run `detect` in a process of its own, started through `command`."""
    done = subprocess.run(
        [*command, sys.executable, "-c", ASK],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        cwd="/",
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert set(answer) == {"mode", "write_user", "reason"}
    return answer


def in_mount_namespace(script: str) -> dict[str, object]:
    """Run `detect` where the shell `script` has mounted things that nobody else sees."""
    require("needs mount namespaces")
    before = Path("/proc/mounts").read_text()
    answer = ask("unshare", "--mount", "sh", "-c", f'{script}\nexec "$@"', "sh")
    assert Path("/proc/mounts").read_text() == before
    return answer


WITH_SECURITYFS = f"mountpoint -q {SECURITYFS} || mount -t securityfs securityfs {SECURITYFS} || exit 1"
WITHOUT_SECURITYFS = f"while mountpoint -q {SECURITYFS}; do umount {SECURITYFS} || exit 1; done"


def test_with_securityfs_mounted_the_file_and_the_answer_agree():
    require("needs root")
    answer = in_mount_namespace(WITH_SECURITYFS)
    assert answer["mode"] in ("none", "integrity", "confidentiality")
    assert answer["write_user"] is (answer["mode"] == "none")


def test_without_securityfs_the_answer_is_the_same():
    require("needs root")
    answer = in_mount_namespace(WITHOUT_SECURITYFS)
    assert answer["mode"] == "unknown"
    assert answer["write_user"] is in_mount_namespace(WITH_SECURITYFS)["write_user"]


def test_root_without_cap_sys_admin_is_told_which_capability_it_lacks():
    """CAP_BPF and CAP_PERFMON are left, so the kernel says EINVAL, as under lockdown."""
    require("needs root")
    answer = in_mount_namespace(
        f'{WITHOUT_SECURITYFS}\nset -- setpriv --bounding-set=-sys_admin --inh-caps=-sys_admin "$@"'
    )
    assert answer["write_user"] is False
    assert "CAP_SYS_ADMIN" in str(answer["reason"])


def test_full_capabilities_in_a_user_namespace_are_could_not_tell():
    """CapEff is full there, and bpf(2) still says EPERM: it asks the first user namespace."""
    require("needs user namespaces")
    answer = ask("unshare", "--user", "--map-root-user", "--mount", "sh", "-c", 'exec "$@"', "sh")
    if answer["mode"] in ("integrity", "confidentiality"):
        assert answer["write_user"] is False
    else:
        assert answer["write_user"] is None
        assert "EPERM" in str(answer["reason"])


def test_an_unprivileged_user_is_told_of_the_capability(tmp_path):
    """Forks instead of running a program, because the interpreter may lie in root's own directory."""
    require("needs root")
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setresgid(NOBODY, NOBODY, NOBODY)
            os.setresuid(NOBODY, NOBODY, NOBODY)
            status = LockdownStatus.detect(tmp_path / "absent")
            os.write(writing, json.dumps(status.as_dict()).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        answer = json.loads(pipe.read())
    assert os.waitpid(child, 0)[1] == 0
    assert answer["write_user"] is False
    assert "CAP_SYS_ADMIN" in answer["reason"]


def test_a_file_that_may_not_be_read_is_unknown(tmp_path):
    """Before Linux 5.8 the lockdown file was for root alone (60cf7c5ed5f7)."""
    require("needs root")
    path = status_file(tmp_path, LINES["none"])
    path.chmod(0)
    child = os.fork()
    if child == 0:
        try:
            os.setresuid(NOBODY, NOBODY, NOBODY)
            os._exit(0 if read_mode(path) is LockdownMode.UNKNOWN else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_the_compiled_core_is_not_needed():
    code = f"import sys; sys.modules['pytraceprop._core'] = None; {ASK}"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert set(json.loads(done.stdout)) == {"mode", "write_user", "reason"}


@pytest.mark.parametrize("mode", [*LINES, "unknown"])
def test_a_machine_without_libbpf_answers_from_the_file_alone(tmp_path, monkeypatch, mode):
    def missing(*args, **kwargs):
        raise OSError("libbpf.so.1: cannot open shared object file")

    monkeypatch.setattr(ctypes, "CDLL", missing)
    status = LockdownStatus.detect(status_file(tmp_path, LINES.get(mode, "garbage")))
    assert (status.mode, status.write_user) == (mode, None)
    assert status.reason.startswith("Could not tell")
    assert is_one_sentence(status.reason)


@pytest.mark.parametrize("content", [LINES["none"], "garbage"])
@pytest.mark.parametrize("answer", [0, errno.EACCES])
def test_what_the_kernel_accepts_is_allowed_though_the_capabilities_are_hidden(tmp_path, content, answer):
    assert detect(status_file(tmp_path, content), answer, sys_admin=None).write_user is True


@pytest.mark.parametrize("sys_admin", [True, False, None])
@pytest.mark.parametrize("answer", [None, 0, errno.EACCES, errno.EINVAL, errno.EPERM, errno.E2BIG])
@pytest.mark.parametrize("content", [*LINES.values(), "garbage"])
def test_a_reason_gives_exactly_one_of_four_answers(tmp_path, content, answer, sys_admin):
    status = detect(status_file(tmp_path, content), answer, sys_admin)
    kinds = {
        "allowed": status.reason.startswith("The kernel lets"),
        "capability": "lacks the capability CAP_SYS_ADMIN" in status.reason,
        "could not tell": status.reason.startswith("Could not tell"),
        "refused": status.reason.startswith(
            ("The kernel is in", "The kernel refuses", "The kernel does not")
        ),
    }
    assert sum(kinds.values()) == 1, status.reason
    assert status.write_user is (True if kinds["allowed"] else None if kinds["could not tell"] else False)


def test_setpriv_really_takes_cap_sys_admin_away():
    """Else the test of root without the capability would prove nothing."""
    require("needs root")
    done = subprocess.run(
        ["setpriv", "--bounding-set=-sys_admin", "--inh-caps=-sys_admin", "cat", "/proc/self/status"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    effective = next(line for line in done.stdout.splitlines() if line.startswith("CapEff:"))
    bits = int(effective.split()[1], 16)
    assert not bits >> 21 & 1
    assert bits, "the other capabilities are left"


def test_a_thread_is_asked_for_its_own_capabilities():
    """capset(2) without CAP_SYS_ADMIN, in a thread alone: the main thread keeps what it has."""
    require("needs root")
    found = {}

    def drop_and_ask() -> None:
        header = struct.pack("<II", 0x20080522, 0)  # _LINUX_CAPABILITY_VERSION_3, this thread
        sets = ctypes.create_string_buffer(24)  # effective, permitted, inheritable: all empty
        assert ctypes.CDLL(None, use_errno=True).syscall(SYS_CAPSET, header, sets) == 0
        found["thread"] = has_sys_admin()

    thread = threading.Thread(target=drop_and_ask)
    thread.start()
    thread.join()
    assert found["thread"] is False
    assert has_sys_admin() is True
