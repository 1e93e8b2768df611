"""Damaged executables: python -m tests.reading.mutations (make fuzz-executables).

Each is a real or synthesised executable with bytes flipped, words replaced, parts copied elsewhere, or
its end cut off, mostly where reading looks. Reading one must end within a second of processor time and
300 MB, with an answer or a TracepropError. A mutation follows from its base and its number alone:

    python -m tests.reading.mutations --base "go1.27 pie" --first 4711 --count 1

Exit status 0 where nothing went wrong.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import resource
import signal
import struct
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import attrs

from pytraceprop.cli.inspect import describe
from pytraceprop.errors import TracepropError
from pytraceprop.probes import read_plan, reading
from tests.reading.programs import Program
from tests.reading.regions import Region, regions_of
from tests.unit.test_go_hostile import FORMS, ask_everything, sample

SECONDS = 1.0  # of processor time, for each
MEMORY = 300 << 20  # bytes
_CHUNK = 250  # mutations for one process at a time

#: The real ones: each way that files are put together.
_REAL = {
    program.name: program
    for program in (
        Program("go1.19 static", "1.19", "static"),
        Program("go1.19 pie", "1.19", "pie"),
        Program("go1.27 cgo", "1.27", "cgo"),
        Program("go1.27 cgo-pie", "1.27", "cgo-pie"),
        Program("go1.27 no-symbols", "1.27", "no-symbols"),
        Program("go1.27 pie arm64", "1.27", "pie", arch="arm64"),
    )
}
BASES = (*_REAL, *(f"synthesised {form}" for form in FORMS))

_ABSURD = (
    0,
    1,
    8,
    0x7FFFFFFF,
    0xFFFFFFFF,
    1 << 32,
    1 << 47,
    (1 << 63) - 1,
    1 << 63,
    (1 << 64) - 8,
    (1 << 64) - 1,
)
_STEPS = (-4096, -24, -8, -1, 1, 8, 24, 4096)


class TooSlow(BaseException):
    """No Exception, so that nothing on the way catches it."""


@attrs.frozen
class Report:
    """What came of some mutations. `failures` tells base, number, and what happened."""

    outcomes: Counter[str]
    slowest: float  # seconds of processor time
    peak: int  # bytes of resident memory
    failures: tuple[str, ...]


def _original(base: str) -> tuple[bytes, int]:
    """The undamaged file, and the address of a map type in it (of a synthesised one)."""
    if base in _REAL:
        return _REAL[base].path().read_bytes(), 0
    return sample(base.removeprefix("synthesised "))


class Damage:
    """A file that is damaged in place, and mended."""

    def __init__(self, path: Path, original: bytes, regions: Sequence[Region]) -> None:
        self.path = path
        self._original = original
        self._regions = regions
        path.write_bytes(original)

    @contextlib.contextmanager
    def done(self, chance: random.Random) -> Iterator[None]:
        """The file with one to three mutations in it."""
        kinds: list[Callable[[random.Random, bytearray, int], None]] = [
            _flip,
            _replace_word,
            _move_word,
            _splice,
        ]
        writes: list[tuple[int, bytes]] = []
        size = len(self._original)
        for _ in range(chance.choice((1, 1, 2, 3))):
            region = chance.choices(self._regions, [r.weight for r in self._regions])[0]
            start = region.start + chance.randrange(max(1, region.size))
            if chance.random() < 0.06:
                size = chance.choice((start, region.start, chance.randrange(len(self._original))))
                continue
            length = min(chance.choice((8, 8, 64, 256)), len(self._original) - start)
            part = bytearray(self._original[start : start + length])
            elsewhere = chance.randrange(len(self._original))
            if length >= 8:
                chance.choice(kinds)(chance, part, start)
                if chance.random() < 0.1:
                    part[:] = self._original[elsewhere : elsewhere + length].ljust(length, b"\0")
            writes.append((start, bytes(part)))
        with self.path.open("r+b") as file:
            for start, part in writes:
                file.seek(start)
                file.write(part)
            file.truncate(size)
        try:
            yield
        finally:
            with self.path.open("r+b") as file:
                for start, part in writes:
                    file.seek(start)
                    file.write(self._original[start : start + len(part)])
                if size < len(self._original):
                    file.seek(size)
                    file.write(self._original[size:])


def _flip(chance: random.Random, part: bytearray, _: int) -> None:
    for _ in range(chance.choice((1, 2, 8))):
        at = chance.randrange(len(part))
        part[at] = chance.choice((0, 0xFF, 0x7F, part[at] ^ 1 << chance.randrange(8), chance.randrange(256)))


def _aligned(chance: random.Random, part: bytearray, start: int, size: int) -> int:
    """Where in the part a word of the file may be."""
    first = -start % size
    places = range(first, len(part) - size + 1, size)
    return chance.choice(places) if places else 0


def _replace_word(chance: random.Random, part: bytearray, start: int) -> None:
    form = chance.choice(("<Q", "<Q", "<I", "<H"))
    size = struct.calcsize(form)
    at = _aligned(chance, part, start, size)
    (value,) = struct.unpack_from(form, part, at)
    value = chance.choice((*_ABSURD, *(value + step for step in _STEPS), value * 2, ~value, start + at))
    struct.pack_into(form, part, at, value & (1 << 8 * size) - 1)


def _move_word(chance: random.Random, part: bytearray, start: int) -> None:
    """Another word of the same part instead: pointers that are valid, but not there."""
    size = chance.choice((4, 8))
    source, target = (_aligned(chance, part, start, size) for _ in range(2))
    part[target : target + size] = part[source : source + size]


def _splice(chance: random.Random, part: bytearray, _: int) -> None:
    """A part of itself over another."""
    length = chance.randrange(1, len(part))
    source, target = (chance.randrange(len(part) - length + 1) for _ in range(2))
    part[target : target + length] = part[source : source + length]


def _read(base: str, path: Path, map_type: int) -> str:
    if base not in _REAL:
        return "some questions refused" if ask_everything(path, map_type) else "every question answered"
    reading._cache.clear()
    plan = read_plan(path)
    describe(plan, path)
    sides = [plan.protocols["http/1.1"].client.possible, plan.protocols["http/1.1"].server.possible]
    return f"read, {sum(sides)} sides possible"


def run(base: str, first: int, count: int) -> Report:
    """Some mutations of one base. Sets limits for this process: meant for one of its own."""

    def stop(*_: object) -> None:
        raise TooSlow

    original, map_type = _original(base)
    outcomes: Counter[str] = Counter()
    failures = []
    slowest = 0.0
    # On a file system in memory where there is one: the file is written for each mutation.
    where = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=where) as directory:
        damage = Damage(Path(directory) / "program", original, regions_of(original))
        _read(base, damage.path, map_type)  # undamaged; raises where the base itself is not read
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        signal.signal(signal.SIGPROF, stop)
        for number in range(first, first + count):
            chance = random.Random(f"{base} {number}")
            with damage.done(chance):
                started = time.process_time()
                signal.setitimer(signal.ITIMER_PROF, 3 * SECONDS)
                try:
                    outcome = _read(base, damage.path, map_type)
                except TracepropError as error:
                    outcome = type(error).__name__
                except (Exception, TooSlow) as error:
                    outcome = f"FAILED: {type(error).__name__}"
                    failures.append(f"{base} {number}: {''.join(traceback.format_exception(error))}")
                finally:
                    signal.setitimer(signal.ITIMER_PROF, 0)
                seconds = time.process_time() - started
            if seconds > SECONDS and not outcome.startswith("FAILED"):
                failures.append(f"{base} {number}: took {seconds:.1f} s ({outcome})")
            slowest = max(slowest, seconds)
            outcomes[outcome] += 1
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    if peak > MEMORY:
        failures.append(f"{base} {first} to {first + count - 1}: {peak >> 20} MB")
    return Report(outcomes, slowest, peak, tuple(failures))


def _run_apart(base: str, first: int, count: int) -> Report:
    """The same in a process of its own, which may crash."""
    command = [
        sys.executable,
        "-m",
        __spec__.name,
        "--base",
        base,
        "--first",
        str(first),
        "--count",
        str(count),
    ]
    try:
        answer = subprocess.run(
            [*command, "--worker"], capture_output=True, text=True, timeout=60 + 5 * SECONDS * count
        )
    except subprocess.TimeoutExpired:
        return Report(Counter(), 0.0, 0, (f"{base} {first} to {first + count - 1}: no end",))
    if answer.returncode != 0:
        what = f"{base} {first} to {first + count - 1}: ended with {answer.returncode}: {answer.stderr}"
        return Report(Counter(), 0.0, 0, (what,))
    found = json.loads(answer.stdout)
    return Report(Counter(found["outcomes"]), found["slowest"], found["peak"], tuple(found["failures"]))


def run_all(bases: Sequence[str], first: int, count: int, jobs: int) -> Iterator[tuple[str, Report]]:
    """Spreads `count` mutations evenly over the bases."""
    for base in bases:
        _original(base)  # built by one process
    share = -(-count // len(bases))
    chunks = [
        (base, at, min(_CHUNK, first + share - at))
        for base in bases
        for at in range(first, first + share, _CHUNK)
    ]
    with ThreadPoolExecutor(jobs) as pool:
        for (base, _, _), report in zip(
            chunks, pool.map(_run_apart, *zip(*chunks, strict=True)), strict=True
        ):
            yield base, report


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m tests.reading.mutations", description=__doc__)
    parser.add_argument("--base", choices=BASES, action="append", help="only of this one; may be repeated")
    parser.add_argument("--first", type=int, default=0, help="the number of the first mutation of each base")
    parser.add_argument("--count", type=int, default=10_000, help="how many, over all bases")
    parser.add_argument("--jobs", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.worker:
        print(json.dumps(attrs.asdict(run(options.base[0], options.first, options.count))))
        return 0
    total: Counter[str] = Counter()
    slowest, peak = 0.0, 0
    failures: list[str] = []
    by_base: dict[str, Counter[str]] = {}
    for base, report in run_all(options.base or BASES, options.first, options.count, options.jobs):
        by_base.setdefault(base, Counter()).update(report.outcomes)
        total.update(report.outcomes)
        slowest, peak = max(slowest, report.slowest), max(peak, report.peak)
        failures += report.failures
        for failure in report.failures:
            print(failure, flush=True)
    for base, outcomes in by_base.items():
        print(f"{base}:")
        for outcome, times in outcomes.most_common():
            print(f"  {times:6} {outcome}")
    print(
        f"{sum(total.values())} damaged executables, {len(failures)} failures; slowest {slowest:.2f} s of"
        f" processor time, peak memory {peak >> 20} MB"
    )
    return 1 if failures or not total else 0


if __name__ == "__main__":
    sys.exit(main())
