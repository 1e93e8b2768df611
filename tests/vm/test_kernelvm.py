"""tools/kernelvm: a command inside another kernel tells its output and its exit code."""

from __future__ import annotations

import io
import json
import os
import shlex
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from tools import kernelvm

pytestmark = pytest.mark.vm

SERIES = "6.12"

AWKWARD = {
    "QUOTES": """it's "quoted" `and` $HOME \\ back""",
    "LINES": "first\nsecond\r\n\tthird\n",
    "SPACES": "  two before, two after  ",
    "PLACEHOLDER": "@COMMAND@ @EXCHANGE@",
    "EMPTY": "",
    "not-an.identifier": "yes",
}
"""Environment variables that do not survive careless quoting."""

RAW_BYTES = b"\x00\xff\r\n\n\r" + bytes(range(256)) * 1000 + b"the last bytes"

REPORT = """
import json, os, pathlib, sys, threading, time

def processors_used():
    seen = set()
    def burn():
        end = time.monotonic() + 1.0
        while time.monotonic() < end:
            seen.add(int(pathlib.Path("/proc/thread-self/stat").read_text().rsplit(")", 1)[1].split()[36]))
    children = []
    threads = [threading.Thread(target=burn) for _ in range(4)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
    return sorted(seen)

mounts = [line.split()[1:3] for line in open("/proc/mounts")]
json.dump({
    "release": os.uname().release,
    "hostname": os.uname().nodename,
    "environment": dict(os.environ),
    "directory": os.getcwd(),
    "lockdown": open("/sys/kernel/security/lockdown").read(),
    "processors": os.sched_getaffinity(0).__len__(),
    "processors_used": processors_used(),
    "mounts": dict(mounts),
    "loopback": open("/sys/class/net/lo/operstate").read() + open("/sys/class/net/lo/flags").read(),
    "time": time.time(),
    "python": sys.prefix,
    "btf": os.path.exists("/sys/kernel/btf/vmlinux"),
}, open(sys.argv[1], "w"))
pathlib.Path("/etc/written-in-the-guest").touch()
sys.stdout.buffer.write(BYTES)
sys.stdout.buffer.flush()
sys.exit(43)
""".replace("BYTES", 'b"\\x00\\xff\\r\\n\\n\\r" + bytes(range(256)) * 1000 + b"the last bytes"')


@dataclass(frozen=True)
class Visit:
    """One boot that several tests look at: what came back, and what the guest said of itself."""

    result: kernelvm.Result
    report: Mapping[str, object]
    streamed: bytes
    directory: Path


@pytest.fixture(scope="module")
def kernel() -> kernelvm.Kernel:
    return kernelvm.fetch(SERIES)


@pytest.fixture(scope="module")
def visit(kernel: kernelvm.Kernel, tmp_path_factory: pytest.TempPathFactory) -> Visit:
    share = tmp_path_factory.mktemp("share with 'quotes'")
    stream = io.BytesIO()
    report = share / "report.json"
    command = [sys.executable, "-c", REPORT, str(report)]
    result = kernelvm.run(kernel, command, env=AWKWARD, share=share, stream=stream)
    assert report.exists(), result.output
    return Visit(result, json.loads(report.read_text()), stream.getvalue(), Path.cwd())


def programs_left_behind() -> list[str]:
    """Return the command lines of all qemu and virtiofsd processes that this one started."""
    found = []
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            command = (directory / "cmdline").read_bytes()
            parent = int((directory / "stat").read_text().rsplit(")", 1)[1].split()[1])
        except OSError:
            continue  # it ended meanwhile
        if parent == os.getpid() and (b"qemu-system" in command or b"virtiofsd" in command):
            found.append(command.decode(errors="replace"))
    return found


def test_the_exit_code_comes_back(visit: Visit) -> None:
    assert visit.result.exit_code == 43


def test_the_output_comes_back_byte_by_byte(visit: Visit) -> None:
    assert visit.result.output_bytes == RAW_BYTES


def test_the_output_can_be_followed_while_it_comes(visit: Visit) -> None:
    assert visit.streamed == RAW_BYTES


def test_the_guest_runs_the_kernel_that_was_asked_for(visit: Visit, kernel: kernelvm.Kernel) -> None:
    assert visit.report["release"] == kernel.release
    assert kernel.release.startswith(SERIES)
    assert visit.report["hostname"] == "vm"
    assert visit.report["btf"]


@pytest.mark.parametrize("name", AWKWARD)
def test_an_environment_variable_survives_quoting(visit: Visit, name: str) -> None:
    environment = visit.report["environment"]
    assert isinstance(environment, dict)
    assert environment[name] == AWKWARD[name]


def test_the_callers_own_environment_stays_outside(visit: Visit) -> None:
    environment = visit.report["environment"]
    assert isinstance(environment, dict)
    assert environment["HOME"] == "/root"
    assert environment["PATH"].startswith("/usr/local/go/bin:")
    assert "PYTEST_CURRENT_TEST" not in environment


def test_the_guest_works_in_the_same_directory_with_the_same_python(visit: Visit) -> None:
    assert visit.report["directory"] == str(visit.directory)
    assert visit.report["python"] == sys.prefix


def test_two_processors_are_online_and_both_are_used(visit: Visit) -> None:
    assert visit.report["processors"] == 2
    assert visit.report["processors_used"] == [0, 1]


def test_lockdown_is_off_unless_asked_for(visit: Visit) -> None:
    assert visit.report["lockdown"] == "[none] integrity confidentiality\n"


def test_the_file_systems_that_tracing_needs_are_mounted(visit: Visit) -> None:
    mounts = visit.report["mounts"]
    assert isinstance(mounts, dict)
    wanted = {
        "/": "overlay",
        "/proc": "proc",
        "/sys": "sysfs",
        "/dev": "devtmpfs",
        "/dev/pts": "devpts",
        "/dev/shm": "tmpfs",
        "/run": "tmpfs",
        "/sys/fs/cgroup": "cgroup2",
        "/sys/fs/bpf": "bpf",
        "/sys/kernel/tracing": "tracefs",
        "/sys/kernel/security": "securityfs",
    }
    assert {target: mounts.get(target) for target in wanted} == wanted


def test_the_loopback_interface_is_up(visit: Visit) -> None:
    flags = int(str(visit.report["loopback"]).split()[1], 16)
    assert flags & 1  # IFF_UP


def test_the_guest_knows_what_time_it_is(visit: Visit) -> None:
    seen = visit.report["time"]
    assert isinstance(seen, float)
    assert abs(seen - time.time()) < 600


def test_what_the_guest_writes_stays_in_the_guest(visit: Visit) -> None:
    assert not Path("/etc/written-in-the-guest").exists()


def test_the_kernel_log_has_neither_oops_nor_warning(visit: Visit) -> None:
    assert "Call Trace" not in visit.result.console


def test_lockdown_can_be_asked_for_and_a_signal_shows_in_the_exit_code(kernel: kernelvm.Kernel) -> None:
    script = "cat /sys/kernel/security/lockdown; nproc; kill -9 $$"
    result = kernelvm.run(kernel, ["sh", "-c", script], cmdline="lockdown=integrity", cpus=1)
    assert result.output == "none [integrity] confidentiality\n1\n"
    assert result.exit_code == 128 + 9


def test_a_timeout_is_a_typed_error_and_leaves_nothing_behind(kernel: kernelvm.Kernel) -> None:
    begin = time.monotonic()
    with pytest.raises(kernelvm.CommandTimeout) as caught:
        kernelvm.run(kernel, ["sh", "-c", "echo so far; sleep 1000"], timeout=3)
    assert caught.value.timeout == 3
    assert caught.value.output == b"so far\n"
    assert time.monotonic() - begin < 120
    assert programs_left_behind() == []


def test_a_guest_that_dies_under_the_command_is_an_error_and_not_tried_again(kernel: kernelvm.Kernel) -> None:
    with pytest.raises(kernelvm.GuestDied) as caught:
        kernelvm.run(kernel, ["sh", "-c", "echo before; echo c > /proc/sysrq-trigger"])
    assert caught.value.output == b"before\n"
    assert caught.value.attempts == 1
    assert "sysrq triggered crash" in caught.value.console
    assert programs_left_behind() == []


def test_a_guest_that_dies_before_the_command_is_tried_three_times(kernel: kernelvm.Kernel) -> None:
    with pytest.raises(kernelvm.BootFailed) as caught:
        kernelvm.run(kernel, ["true"], cmdline="rdinit=/nothing init=/nothing")
    assert caught.value.attempts == 3
    assert caught.value.console.count("[attempt ") == 3
    assert programs_left_behind() == []


def test_a_directory_that_does_not_exist_is_refused_before_anything_boots(kernel: kernelvm.Kernel) -> None:
    with pytest.raises(NotADirectoryError):
        kernelvm.run(kernel, ["true"], cwd="/does/not/exist")
    with pytest.raises(NotADirectoryError):
        kernelvm.run(kernel, ["true"], share="/does/not/exist")


def test_what_is_no_kernel_series_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not a kernel series"):
        kernelvm.fetch("newest", tmp_path)


def test_the_command_line_passes_output_and_exit_code_on() -> None:
    import subprocess

    command = [sys.executable, "-m", "tools.kernelvm", "--kernel", SERIES, "--env", "A=b c", "--"]
    result = subprocess.run(
        [
            *command,
            "sh",
            "-c",
            shlex.join(["printf", "%s|", "$A", "x y"]).replace("'$A'", '"$A"') + "; exit 3",
        ],
        capture_output=True,
        text=True,
        timeout=180,
    )
    assert result.stdout == "b c|x y|"
    assert result.returncode == 3, result.stderr
    assert "exit code 3" in result.stderr
