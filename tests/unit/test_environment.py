"""Environment: its two conclusions, its texts; then this machine, with and without rights."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import attrs
import pytest

import pytraceprop
from pytraceprop import Answer, Environment, LockdownMode, LockdownStatus
from pytraceprop.environment import features, mounts
from tests.skips import require

ROOT = Path(__file__).resolve().parents[2]
NOBODY = 65534
NAMES = [
    *("capabilities", "other_users", "ptrace_scope", "memlock", "btf", "ring_buffer", "uprobe_multi"),
    *("uprobe_multi_filter", "perf_uprobe", "perf_link", "attach_cookie", "bpf_loop", "sleepable_uprobe"),
    *("write_user", "cgroup_v2", "securityfs"),
]
LOWER_CASE = [
    "securityfs",
    "libbpf",
    "cgroup",
    "kernel.yama.ptrace_scope",
    "kernel.perf_event_paranoid",
    "/proc",
    "/sys",
    "/proc/sys",
]
OF_THE_KERNEL = ["ring_buffer", "uprobe_multi", "perf_link", "attach_cookie", "bpf_loop", "sleepable_uprobe"]
YES = Answer(True, "It is so.", "")
ASK = "import json; from pytraceprop import Environment; print(json.dumps(Environment.detect().as_dict()))"


def machine(**changes: object) -> Environment:
    """An environment in which everything is yes, but for the changes."""
    lockdown = LockdownStatus(LockdownMode.NONE, True, "Allowed.")
    answers = dict.fromkeys(NAMES, YES)
    return Environment(
        **{"kernel": "6.12.0", "machine": "x86_64", "lockdown": lockdown, **answers, **changes}
    )


def no(name: str) -> Answer:
    return Answer(False, f"No {name}.", f"get {name}")


def unknown(name: str) -> Answer:
    return Answer(None, f"Unknown {name}.", f"ask {name}")


# The conclusions


def test_where_all_is_yes_tracing_and_propagation_work():
    assert (machine().tracing.value, machine().propagation.value) == (True, True)
    assert machine().summary() == "spans and propagation"


@pytest.mark.parametrize("name", ["capabilities", "btf", "ring_buffer", "memlock"])
def test_what_tracing_cannot_do_without_is_its_answer(name):
    for answer in (no(name), unknown(name)):
        found = machine(**{name: answer})
        assert found.tracing == found.propagation == answer


@pytest.mark.parametrize(
    "name",
    [
        *("other_users", "ptrace_scope", "uprobe_multi_filter", "perf_link", "attach_cookie", "bpf_loop"),
        *("sleepable_uprobe", "cgroup_v2", "securityfs"),
    ],
)
def test_what_tracing_can_do_without_does_not_stop_it(name):
    assert machine(**{name: no(name)}).tracing.value is True
    assert machine(**{name: unknown(name)}).propagation.value is True


def test_a_no_weighs_more_than_a_could_not_tell():
    found = machine(capabilities=unknown("capabilities"), memlock=no("memlock"))
    assert found.tracing == no("memlock")


def test_probes_go_through_uprobe_multi_or_else_through_perf_events():
    found = machine(uprobe_multi=no("multi"))
    assert found.tracing.value is True
    assert "perf event" in found.tracing.reason
    assert machine(perf_uprobe=no("pmu")).tracing.value is True
    assert machine(uprobe_multi=no("multi"), perf_uprobe=no("pmu")).tracing == no("pmu")
    assert machine(uprobe_multi=unknown("multi"), perf_uprobe=unknown("pmu")).tracing == unknown("pmu")


def test_another_kind_of_machine_is_not_traced():
    found = machine(machine="riscv64")
    assert found.tracing.value is False
    assert "riscv64" in found.tracing.reason
    assert found.summary().startswith("nothing can be traced: ")


@pytest.mark.parametrize("answer", [no("write"), unknown("write")])
def test_without_user_memory_there_are_spans_alone(answer):
    found = machine(write_user=answer)
    assert found.tracing.value is True
    assert found.propagation == answer
    assert found.summary() == f"spans, without propagation: {answer.reason}"


def test_an_open_question_is_not_promised():
    assert (
        machine(btf=unknown("btf")).summary().startswith("perhaps spans, without propagation: Unknown btf.")
    )


@pytest.mark.parametrize("name", NAMES)
def test_a_summary_is_one_line(name):
    for answer in (no(name), unknown(name)):
        assert "\n" not in machine(**{name: answer}).summary()


# The object


def test_it_is_immutable_and_serialises():
    found = machine(btf=no("btf"))
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        found.btf = YES  # type: ignore[misc]
    copy = json.loads(json.dumps(found.as_dict()))
    assert copy["answers"]["btf"] == {"value": False, "reason": "No btf.", "remedy": "get btf"}
    assert list(copy["answers"]) == NAMES == list(found.answers)
    assert copy["tracing"]["value"] is copy["propagation"]["value"] is False
    assert (copy["kernel"], copy["machine"], copy["lockdown"]["mode"]) == ("6.12.0", "x86_64", "none")
    assert copy["summary"] == found.summary()


def test_the_words_are_for_people():
    assert [a.word for a in (YES, no("x"), unknown("x"))] == ["yes", "no", "could not tell"]


def test_the_document_explains_every_answer():
    text = (ROOT / "docs" / "environment.md").read_text()
    assert [name for name in NAMES if f"`{name}`" not in text] == []


# Mounts


def mountinfo(directory: Path, *lines: str) -> Path:
    (directory / "self").mkdir()
    (directory / "self" / "mountinfo").write_text("".join(f"{line}\n" for line in lines))
    return directory


def device(path: Path) -> str:
    number = path.stat().st_dev
    return f"{os.major(number)}:{os.minor(number)}"


def test_a_mount_is_seen_only_where_its_file_system_is_on_top(tmp_path):
    odd = tmp_path / "with space"
    odd.mkdir()
    escaped = str(odd).replace(" ", "\\040")
    proc = mountinfo(
        tmp_path,
        f"30 1 {device(odd)} / {escaped} rw shared:1 master:2 - cgroup2 none rw",
        f"31 1 0:9999 / {escaped} rw - cgroup2 covered rw",
        f"32 1 {device(odd)} / /nowhere rw - cgroup2 none rw",
        f"33 1 {device(odd)} / {escaped} rw - tmpfs cgroup2 rw",
        "broken",
        "",
        "a - cgroup2",
    )
    assert mounts.visible("cgroup2", proc) == [str(odd)]
    assert mounts.visible("nofs", proc) == []
    assert mounts.visible("cgroup2", tmp_path / "absent") is None
    assert str(odd) in mounts.cgroup_v2(proc).reason


@pytest.mark.parametrize(
    ("known", "remedy"), [("nodev\tcgroup2\n", "mount -t cgroup2"), ("ext4\n", "Linux 4.5")]
)
def test_cgroup_v2_is_missing_from_the_mounts_or_from_the_kernel(tmp_path, known, remedy):
    proc = mountinfo(tmp_path)
    (proc / "filesystems").write_text(known)
    answer = mounts.cgroup_v2(proc)
    assert answer.value is False
    assert remedy in answer.remedy


def test_without_procfs_mounts_are_could_not_tell(tmp_path):
    assert mounts.cgroup_v2(tmp_path / "absent").value is None
    assert mounts.securityfs(LockdownMode.UNKNOWN, tmp_path / "absent").value is None


@pytest.mark.parametrize("mode", [LockdownMode.NONE, LockdownMode.INTEGRITY])
def test_a_mode_that_was_read_proves_securityfs(tmp_path, mode):
    answer = mounts.securityfs(mode, tmp_path / "absent")
    assert answer.value is True
    assert str(mode) in answer.reason


def test_securityfs_is_mounted_without_the_file_or_is_not_or_may_not_be_read(tmp_path):
    folder = tmp_path / "security"
    folder.mkdir()
    proc = mountinfo(tmp_path, f"30 1 {device(folder)} / {folder} rw - securityfs none rw")
    assert mounts.securityfs(LockdownMode.UNKNOWN, proc, folder / "lockdown").value is True
    (folder / "lockdown").touch()
    assert mounts.securityfs(LockdownMode.UNKNOWN, proc, folder / "lockdown").value is False
    answer = mounts.securityfs(LockdownMode.UNKNOWN, proc, tmp_path / "other" / "lockdown")
    assert (answer.value, answer.remedy) == (False, f"mount -t securityfs securityfs {tmp_path / 'other'}")


@pytest.mark.parametrize(("content", "value"), [(b"\x9f\xeb\x01\x00", True), (b"\x7fELF", None), (b"", None)])
def test_btf_is_known_by_its_first_bytes(tmp_path, content, value):
    path = tmp_path / "vmlinux"
    path.write_bytes(content)
    assert mounts.btf(path).value is value


def test_a_missing_btf_is_no_where_sysfs_is_seen_and_else_could_not_tell(tmp_path):
    proc = mountinfo(tmp_path, f"30 1 {device(tmp_path)} / {tmp_path} rw - sysfs sysfs rw")
    answer = mounts.btf(tmp_path / "btf" / "vmlinux", proc)
    assert answer.value is False
    assert "CONFIG_DEBUG_INFO_BTF" in answer.remedy
    assert mounts.btf(tmp_path / "btf" / "vmlinux", tmp_path / "absent").value is None
    assert mounts.btf(tmp_path, proc).value is None  # a directory


# This machine


def ask(*command: str, code: str = ASK) -> dict:
    """Asks in a process of its own, started through `command`."""
    done = subprocess.run(
        [*command, sys.executable, "-W", "error", "-c", code],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        cwd="/",
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads(done.stdout)


def values(found: dict) -> dict:
    return {name: answer["value"] for name, answer in found["answers"].items()}


def in_mount_namespace(script: str) -> dict:
    """Asks where the shell `script` has mounted things that nobody else sees."""
    require("needs root")
    require("needs mount namespaces")
    return ask("unshare", "--mount", "sh", "-c", f'{script}\nexec "$@"', "sh")


def assert_well_formed(found: dict) -> None:
    answers = [*found["answers"].values(), found["tracing"], found["propagation"]]
    for answer in answers:
        reason = answer["reason"]
        assert reason[0].isupper() or reason.split()[0].rstrip(",:") in LOWER_CASE, reason
        assert reason.endswith(".") and "\n" not in reason and ". " not in reason[:-1], reason
        assert bool(answer["remedy"]) is (answer["value"] is not True), answer


def test_this_kernel_is_known_to_root_and_the_answer_is_quick_and_stays():
    require("needs root")
    code = (
        "import json, time; from pytraceprop import Environment\n"
        "times = []; found = []\n"
        "for _ in range(3):\n"
        "    begin = time.monotonic(); found.append(Environment.detect()); times.append(time.monotonic() - begin)\n"
        "assert found[0] == found[1] == found[2]\n"
        "print(json.dumps({**found[0].as_dict(), 'times': times}))"
    )
    found = ask(code=code)
    assert_well_formed(found)
    assert all(values(found)[name] is not None for name in NAMES)
    assert found["kernel"] == os.uname().release
    first, *later = found["times"]
    assert first < 2.0  # 0.05 s on an idle machine; a noisy one is not what is tested
    assert max(later) < first


def test_a_thread_without_capabilities_is_not_answered_from_memory_about_rights():
    """What is known of the kernel stays known; what this thread may do is read anew."""
    require("needs root")
    code = (
        "import ctypes, json, struct; from pytraceprop import Environment\n"
        "Environment.detect()\n"
        "header = struct.pack('<II', 0x20080522, 0)\n"
        "assert ctypes.CDLL(None).syscall(126, header, ctypes.create_string_buffer(24)) == 0  # capset(2)\n"
        "print(json.dumps(Environment.detect().as_dict()))"
    )
    found = values(ask(code=code))
    assert (found["capabilities"], found["other_users"], found["perf_uprobe"]) == (False, False, None)
    assert all(found[name] is not None for name in OF_THE_KERNEL)


def test_root_without_capabilities_reads_what_to_get():
    require("needs root")
    found = ask("setpriv", "--bounding-set=-all", "--inh-caps=-all")
    assert_well_formed(found)
    assert values(found)["capabilities"] is False
    assert all(values(found)[name] is None for name in [*OF_THE_KERNEL, "uprobe_multi_filter", "perf_uprobe"])
    assert all("CAP_BPF" in found["answers"][name]["remedy"] for name in OF_THE_KERNEL)
    assert found["tracing"]["remedy"] == "CAP_BPF and CAP_PERFMON, or CAP_SYS_ADMIN"


def test_bpf_and_perfmon_are_enough_for_spans():
    require("needs root")
    found = ask("setpriv", "--bounding-set=-all,+bpf,+perfmon", "--inh-caps=-all")
    assert_well_formed(found)
    assert values(found)["capabilities"] is True
    assert all(values(found)[name] is not None for name in [*OF_THE_KERNEL, "uprobe_multi_filter"])
    assert (values(found)["other_users"], values(found)["write_user"]) == (False, False)
    assert values(found)["perf_uprobe"] is not None
    assert found["tracing"]["value"] is (values(found)["uprobe_multi"] or values(found)["perf_uprobe"])


def test_a_user_namespace_is_named_and_not_taken_for_an_old_kernel():
    require("needs user namespaces")
    found = ask("unshare", "--user", "--map-root-user", "--mount", "sh", "-c", 'exec "$@"', "sh")
    assert_well_formed(found)
    assert values(found)["capabilities"] is False
    for name in OF_THE_KERNEL:
        assert values(found)[name] is None
        assert "user namespace" in found["answers"][name]["reason"]
    assert "user namespace" in found["tracing"]["reason"]
    assert found["summary"].startswith("nothing can be traced")


def test_a_seccomp_filter_is_named():
    """As in a container whose profile forbids bpf(2) even to root: EPERM in spite of the capabilities."""
    require("needs root")
    code = (
        "import ctypes, struct; from pytraceprop import libbpf; import os\n"
        "number = libbpf._NUMBERS[os.uname().machine][0]\n"
        "rules = [(0x20, 0, 0, 0), (0x15, 0, 1, number), (6, 0, 0, 0x00050001), (6, 0, 0, 0x7fff0000)]\n"
        "rules = ctypes.create_string_buffer(b''.join(struct.pack('<HBBI', *rule) for rule in rules))\n"
        "program = struct.pack('<HxxxxxxQ', 4, ctypes.addressof(rules))\n"  # struct sock_fprog
        "assert ctypes.CDLL(None).prctl(22, 2, program) == 0\n"  # PR_SET_SECCOMP, SECCOMP_MODE_FILTER
    )
    found = ask(code=code + ASK)
    assert_well_formed(found)
    assert values(found)["capabilities"] is True
    for name in OF_THE_KERNEL:
        assert values(found)[name] is None
        assert "seccomp" in found["answers"][name]["reason"]
        assert "seccomp" in found["answers"][name]["remedy"]
    assert found["tracing"]["value"] is None


def test_an_unprivileged_user_is_told_the_rights():
    """Forks instead of running a program, because the interpreter may lie in root's own directory."""
    require("needs root")
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            features._settled.clear()  # what root found out
            os.setgroups([])
            os.setresgid(NOBODY, NOBODY, NOBODY)
            os.setresuid(NOBODY, NOBODY, NOBODY)
            os.write(writing, json.dumps(Environment.detect().as_dict()).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        found = json.loads(pipe.read())
    assert os.waitpid(child, 0)[1] == 0
    assert_well_formed(found)
    assert values(found)["capabilities"] is False
    assert all(values(found)[name] is None for name in OF_THE_KERNEL)
    assert values(found)["btf"] is True


SECURITYFS, TRACEFS, BPFFS = "/sys/kernel/security", "/sys/kernel/tracing", "/sys/fs/bpf"


def test_a_container_without_securityfs_bpffs_and_tracefs_can_do_the_same():
    bare = "".join(
        f"while mountpoint -q {path}; do umount {path} || exit 1; done\n"
        for path in (SECURITYFS, TRACEFS, BPFFS)
    )
    full = f"mountpoint -q {SECURITYFS} || mount -t securityfs s {SECURITYFS} || exit 1\n"
    without, with_it = in_mount_namespace(bare), in_mount_namespace(full)
    assert_well_formed(without)
    assert_well_formed(with_it)
    assert values(with_it)["securityfs"] is True
    assert values(without) == {**values(with_it), "securityfs": False}
    assert without["tracing"] == with_it["tracing"]
    assert without["propagation"]["value"] == with_it["propagation"]["value"]


def test_a_securityfs_that_is_covered_is_not_mounted():
    found = in_mount_namespace(
        f"mountpoint -q {SECURITYFS} || mount -t securityfs s {SECURITYFS} || exit 1\n"
        f"mount -t tmpfs t {SECURITYFS} || exit 1"
    )
    assert values(found)["securityfs"] is False
    assert "mount -t securityfs" in found["answers"]["securityfs"]["remedy"]


def test_a_hidden_sysfs_is_could_not_tell():
    found = in_mount_namespace("mount -t tmpfs t /sys || exit 1")
    assert_well_formed(found)
    assert (values(found)["btf"], values(found)["perf_uprobe"]) == (None, None)
    assert values(found)["cgroup_v2"] is False
    assert all(values(found)[name] is not None for name in OF_THE_KERNEL)
    assert found["tracing"]["value"] is None
    assert found["summary"].startswith("perhaps")


def test_a_hidden_procfs_is_could_not_tell():
    found = in_mount_namespace("mount -t tmpfs t /proc || exit 1")
    assert_well_formed(found)
    hidden = ["capabilities", "other_users", "ptrace_scope", "uprobe_multi_filter", "cgroup_v2"]
    assert all(values(found)[name] is None for name in hidden)
    assert all(values(found)[name] is not None for name in OF_THE_KERNEL)


@pytest.mark.parametrize("missing", ["libbpf", "core"])
def test_neither_libbpf_nor_the_core_is_needed_to_answer(missing):
    hide = {
        "core": "import sys; sys.modules['pytraceprop._core'] = None\n",
        "libbpf": "from pytraceprop import libbpf; libbpf.SONAME = 'libbpf-that-is-not.so.1'\n",
    }
    found = ask(code=hide[missing] + ASK)
    assert_well_formed(found)
    if missing == "libbpf":
        assert values(found)["uprobe_multi"] is None
        assert "libbpf" in found["answers"]["uprobe_multi"]["remedy"]


def test_it_can_be_asked_from_many_threads_at_once():
    require("needs root")
    code = (
        "import json; from concurrent.futures import ThreadPoolExecutor; from pytraceprop import Environment\n"
        "with ThreadPoolExecutor(8) as pool:\n"
        "    found = list(pool.map(lambda _: Environment.detect(), range(8)))\n"
        "assert all(one == found[0] for one in found)\n"
        "print(json.dumps(found[0].as_dict()))"
    )
    assert values(ask(code=code))["uprobe_multi_filter"] is not None


def test_the_public_names_are_there():
    assert {"Answer", "Environment"} <= set(pytraceprop.__all__)
