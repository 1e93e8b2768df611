"""What tracing costs, as ratios to the bare program in the same run: python -m tests.bench (make bench).

A Go service that answers each HTTP/1 request by making one (a proxy) has a processor to itself; driver
and backend share the other. Rounds with and without tracer alternate, so that a machine whose speed
drifts does not decide. Traps are the kernel's own counts, and exact.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

import pytraceprop
from tests.bpf.test_traps import counting_runs
from tests.chain.services import Chain, build_programs

_TICK = os.sysconf("SC_CLK_TCK")


class Proxy(Chain):
    """Only driver -> front -> back, over plain HTTP."""

    def start(self) -> None:
        """Starts both services, the front on a processor of its own."""
        back = self._start("back")
        front = self._start("front", "-next", f"http://{back.address}")
        processors = sorted(os.sched_getaffinity(0))
        if len(processors) > 1:
            for thread in Path(f"/proc/{front.process.pid}/task").iterdir():
                os.sched_setaffinity(int(thread.name), {processors[0]})
            for pid in (back.process.pid, os.getpid()):
                for thread in Path(f"/proc/{pid}/task").iterdir():
                    os.sched_setaffinity(int(thread.name), set(processors[1:]))


def cpu_seconds(pid: int) -> float:
    """Processor time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICK


def round_of(
    proxy: Proxy, requests: int, concurrency: int, propagation: str | None
) -> tuple[float, float, float]:
    """Requests a second, microseconds of processor time and traps for each request."""
    front = proxy.pids["front"]
    with ExitStack() as stack:
        tracer = None
        if propagation is not None:
            tracer = stack.enter_context(pytraceprop.Tracer(propagation=propagation, ring_bytes=1 << 26))
            tracer.attach(front)
        before = cpu_seconds(front)
        driven = proxy.drive(requests, concurrency=concurrency)
        cpu = (cpu_seconds(front) - before) / requests * 1e6
        traps = 0.0
        if tracer is not None:
            assert tracer.stats()["client_spans"] == requests
            with counting_runs():  # on its own: counting costs time
                proxy.drive(500, concurrency=concurrency)
                runs = tracer.core.probe_runs()[0]
                traps = runs / 500
    assert driven.failed == 0
    return driven.summary["rps"], cpu, traps


def ratio(values: list[float], bare: list[float]) -> str:
    """Mean and standard error of the paired ratios."""
    pairs = [value / base for value, base in zip(values, bare, strict=True)]
    error = statistics.stdev(pairs) / len(pairs) ** 0.5 if len(pairs) > 1 else 0.0
    return f"{statistics.mean(pairs):.3f} +- {error:.3f}"


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--go", default="1.26")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--propagation", choices=("auto", "off"), default="auto")
    options = parser.parse_args()
    programs = build_programs(options.go)
    with pytraceprop.Tracer(propagation=options.propagation) as tracer:
        method = tracer.propagation.method
    print(
        f"Linux {platform.release()}, Go {options.go}, {options.rounds} rounds of {options.requests} requests"
    )
    print(f"traced: {'spans and propagation by ' + method if method else 'spans only'}")
    print(
        f"{'in flight':>9}  {'requests/s':>16}  {'CPU/request':>16}  {'traps/request':>13}  bare CPU/request"
    )
    for concurrency in (16, 1):
        requests = options.requests if concurrency > 1 else options.requests // 4
        rates: dict[bool, list[float]] = {False: [], True: []}
        cpus: dict[bool, list[float]] = {False: [], True: []}
        traps = 0.0
        with tempfile.TemporaryDirectory() as name, Proxy(programs, Path(name)) as proxy:
            round_of(proxy, requests // 4, concurrency, None)  # warm
            for i in range(options.rounds):
                for traced in (False, True) if i % 2 else (True, False):
                    rate, cpu, traps_now = round_of(
                        proxy, requests, concurrency, options.propagation if traced else None
                    )
                    rates[traced].append(rate)
                    cpus[traced].append(cpu)
                    traps = max(traps, traps_now)
        print(
            f"{concurrency:>9}  {ratio(rates[True], rates[False]):>16}  {ratio(cpus[True], cpus[False]):>16}"
            f"  {traps:>13.2f}  {statistics.mean(cpus[False]):.1f} us",
            flush=True,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
