"""Every way of attaching gives the same spans, the same traps and the same clean end."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import pytraceprop
from pytraceprop.attach_mode import ATTACH_MODES
from pytraceprop.native import Core
from tests.bpf.conftest import Cases
from tests.bpf.leftovers import BREAKPOINT, sites_in_memory
from tests.bpf.moves import build
from tests.bpf.test_traps import counting_runs
from tests.chain.run import run
from tests.chain.services import build_programs
from tests.skips import require

BY_PROCESS = ["multi-unfiltered", "perf-ioctl"]
"""Modes in which the programs look up their process."""


@pytest.fixture
def twin() -> Iterator[Cases]:
    """Another process of the same build."""
    require("needs root")
    program = Cases()
    yield program
    program.stop()


def seen(tracer: pytraceprop.Tracer, seconds: float = 0.3) -> list[tuple[int, str, str]]:
    """Process, kind and path of each span that is there, or comes within the time."""
    return sorted((span.pid, span.kind, span.path) for span in tracer.spans(timeout=seconds))


def call(pid: int) -> list[tuple[int, str, str]]:
    """What is seen of one /call/plain."""
    return [(pid, "client", "/echo/plain"), (pid, "server", "/call/plain"), (pid, "server", "/echo/plain")]


@pytest.mark.parametrize("go", ["1.23", "1.27"])  # maps of buckets, Swiss maps
@pytest.mark.parametrize("mode", ATTACH_MODES[1:])  # the first is what test_chain.py runs
def test_every_request_has_its_spans_and_the_right_parents(mode: str, go: str) -> None:
    require("needs root")
    result = run(build_programs(go), 500, attach_mode=mode)
    assert result.verdict.ok, str(result.verdict)
    assert (result.summary["failed"], result.errors, result.attach_mode) == (0, "", mode)
    losses = ("record_dropped", "map_full", "abandoned", "memory_unreadable", "stale_site", "parent_too_far")
    assert {name: result.tracer_stats[name] for name in losses} == dict.fromkeys(losses, 0)


@pytest.mark.parametrize("mode", ATTACH_MODES)
def test_detaching_takes_every_probe_away(program: Cases, mode: str) -> None:
    before = sites_in_memory(program.pid)
    with pytraceprop.Tracer(attach_mode=mode) as tracer:
        for _ in range(2):
            attachment = tracer.attach(program.pid)
            assert set(sites_in_memory(program.pid)) == {BREAKPOINT}
            program.get("/call/plain")
            assert seen(tracer) == call(program.pid)
            started = time.monotonic()
            attachment.detach()
            print(f"{mode}: detached in {time.monotonic() - started:.2f} s")
            assert sites_in_memory(program.pid) == before
            program.get("/call/plain")
            assert seen(tracer, 0.1) == []


@pytest.mark.parametrize("mode", ATTACH_MODES)
def test_another_process_of_the_build_is_not_traced(program: Cases, twin: Cases, mode: str) -> None:
    with pytraceprop.Tracer(attach_mode=mode) as tracer:
        attachment = tracer.attach(program.pid)
        # Without a filter it hits the probes too, and the programs let it pass.
        assert (BREAKPOINT in sites_in_memory(twin.pid)) == (mode == "multi-unfiltered")
        for _ in range(20):
            assert twin.get("/call/plain")["status"] == 200
        assert seen(tracer) == []
        assert not any(attachment.stats().values())
        program.get("/call/plain")
        assert seen(tracer) == call(program.pid)


@pytest.mark.parametrize("mode", ATTACH_MODES)
def test_processes_of_one_build_are_told_apart(program: Cases, twin: Cases, mode: str) -> None:
    with pytraceprop.Tracer(attach_mode=mode) as tracer:
        first, second = tracer.attach(program.pid), tracer.attach(twin.pid)
        for one in (program, twin):
            one.get("/call/plain")
        assert seen(tracer) == sorted(call(program.pid) + call(twin.pid))
        first.detach()
        for one in (program, twin):
            one.get("/call/plain")
        assert seen(tracer) == call(twin.pid)
        assert second.stats()["server_spans"] == 4
        second.detach()
        assert BREAKPOINT not in sites_in_memory(program.pid) + sites_in_memory(twin.pid)


@pytest.mark.parametrize("shared", [True, False])
def test_a_hit_runs_one_program_where_links_are_shared(
    program: Cases, twin: Cases, shared: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Links that cannot be shared cost more runs, as those of one file seen by two paths do: no spans."""
    if not shared:
        monkeypatch.setattr(Core, "_open_links", lambda self, ids: [])
    with pytraceprop.Tracer(attach_mode="multi-unfiltered") as tracer:
        for one in (program, twin):
            tracer.attach(one.pid)
        program.get("/call/plain")
        seen(tracer)
        with counting_runs():
            program.get("/call/plain")
            runs = tracer.core.probe_runs()[0]
        assert seen(tracer) == call(program.pid)
        # Two requests in, one out: 2 * 2 + 3, and one more when a connection ends.
        assert runs in ((7, 8) if shared else (14, 16))


@pytest.mark.parametrize("mode", BY_PROCESS)
def test_a_process_is_known_across_pid_namespaces_and_by_its_start(mode: str) -> None:
    """The tracer is in one namespace, processes in it and below; one gets the number of a dead one."""
    require("needs mount namespaces")
    test = """
import os, signal, sys, time
from pathlib import Path
import pytraceprop
from tests.bpf.moves import Moves

binary, mode = Path(sys.argv[1]), sys.argv[2]
with pytraceprop.Tracer(attach_mode=mode) as tracer:
    below = Moves(binary, wrapper=["unshare", "--pid", "--fork"])
    doomed = Moves(binary)
    for moves in (below, doomed):
        attachment = tracer.attach(moves.pid)
        moves.get("/call")
        assert [span.pid for span in tracer.spans(timeout=0.5)] == [moves.pid] * 3
    number = doomed.pid
    doomed.close()
    Path("/proc/sys/kernel/ns_last_pid").write_text(str(number - 1))
    with Moves(binary) as heir:
        assert heir.pid == number
        heir.get("/call")
        stale = attachment.stats()["stale_site"]
        assert (stale > 0) == (mode == "multi-unfiltered"), stale
        assert attachment.stats()["server_spans"] == 2
    assert [span.pid for span in tracer.spans(timeout=0.5)] == []
    assert attachment.state == "exited"
    assert below.pid != number
    below.close()
"""
    unshare = ["unshare", "--mount", "--pid", "--fork", "--mount-proc"]
    result = subprocess.run(
        [*unshare, sys.executable, "-c", test, build(), mode], capture_output=True, text=True, timeout=120
    )
    assert result.returncode == 0, result.stderr


def test_constants_are_in_memory_before_programs_that_cannot_wait_are_attached(program: Cases) -> None:
    def resident() -> list[tuple[int, int]]:
        """Size and resident size, in KiB, of each mapping of the executable's constants."""
        text = Path(f"/proc/{program.pid}/smaps").read_text()
        exe = re.escape(str(Path(f"/proc/{program.pid}/exe").resolve()))
        found = re.findall(rf" r--p .* {exe}\n(?:.*\n)*?Size: +(\d+) kB\n(?:.*\n)*?Rss: +(\d+) kB", text)
        return [(int(size), int(rss)) for size, rss in found]

    before = resident()
    assert before and any(rss < size for size, rss in before)
    with pytraceprop.Tracer(attach_mode="perf-ioctl") as tracer:
        tracer.attach(program.pid)
        assert all(rss == size for size, rss in resident())


REFUSED = """
import sys
from pathlib import Path
import pytraceprop
from tests.bpf.leftovers import descriptors_and_threads
from tests.bpf.moves import Moves

with Moves(Path(sys.argv[1])) as moves:
    for _ in range(2):
        before = descriptors_and_threads()
        try:
            with pytraceprop.Tracer(attach_mode="perf-ioctl") as tracer:
                tracer.attach(moves.pid)
        except pytraceprop.TracepropError as error:
            print(f"{type(error).__name__}: {error}")
    assert descriptors_and_threads() == before
    assert moves.get("/echo") == "0"
"""


@pytest.mark.parametrize(
    ("wrapper", "said"),
    [
        ("mount --bind $(mktemp -d) /sys/bus/event_source/devices", "FeatureMissing: .*Linux 4.17"),
        ("mount -t tmpfs none /sys/bus/event_source", "KernelError: .*is sysfs mounted"),
        ("mount -t tmpfs none /sys", "KernelError: .*/sys/kernel/btf/vmlinux"),
    ],
)
def test_a_kernel_or_a_container_without_such_events_is_told(wrapper: str, said: str) -> None:
    require("needs mount namespaces")
    script = f'{wrapper} && exec "$@"'
    unshare = ["unshare", "--mount", "sh", "-c", script, "sh"]
    result = subprocess.run(
        [*unshare, sys.executable, "-c", REFUSED, build()], capture_output=True, text=True, timeout=120
    )
    assert result.returncode == 0, result.stderr
    assert re.match(said, result.stdout), result.stdout


def test_a_right_that_is_missing_is_named() -> None:
    require("needs root")
    if pytraceprop.Environment.detect().uprobe_multi.value is not True:
        return  # on such kernels CAP_PERFMON is enough, and tests/vm says so
    setpriv = ["setpriv", "--bounding-set=-all,+bpf,+perfmon", "--inh-caps=-all"]
    result = subprocess.run(
        [*setpriv, sys.executable, "-c", REFUSED, build()], capture_output=True, text=True, timeout=120
    )
    assert result.returncode == 0, result.stderr
    assert re.match("PrivilegeError: attaching http1_.* needs .*CAP_SYS_ADMIN", result.stdout), result.stdout


def test_a_mode_that_does_not_exist_is_refused() -> None:
    require("needs root")
    with pytest.raises(ValueError, match="no-such"):
        pytraceprop.Tracer(attach_mode="no-such")
