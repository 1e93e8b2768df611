"""What tracing may leave behind: breakpoints in the process, objects in the kernel, descriptors, threads."""

from __future__ import annotations

import ctypes
import os
import threading
import time
from pathlib import Path

from pytraceprop.go import Executable
from pytraceprop.probes import read_plan
from pytraceprop.process import Process

BREAKPOINT = 0xCC  # what a uprobe puts in place of an instruction's first byte

_KINDS = {"prog_id": "prog", "map_id": "map", "link_id": "link"}


def sites_in_memory(pid: int) -> bytes:
    """The first byte of each probed instruction, as the process has it."""
    process = Process(pid)
    bias = process.load_bias()
    process.close()
    link = f"/proc/{pid}/exe"
    with Executable(link) as executable, Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
        code = next(segment for segment in executable.image.segments if segment.executable)
        found = b""
        for site in read_plan(link).sites:
            memory.seek(site.offset - code.offset + code.address + bias)
            found += memory.read(1)
    return found


def kernel_objects() -> set[tuple[str, int]]:
    """Kind and id of each BPF object that this process holds a descriptor of."""
    found = set()
    for entry in Path("/proc/self/fdinfo").iterdir():
        try:
            lines = entry.read_text().splitlines()
        except OSError:  # the descriptor of the listing itself
            continue
        for line in lines:
            name, _, value = line.partition(":")
            if name in _KINDS:
                found.add((_KINDS[name], int(value)))
    return found


def still_in_kernel(objects: set[tuple[str, int]], seconds: float = 10.0) -> set[tuple[str, int]]:
    """Those that the kernel still has; it frees them a moment after their last descriptor is closed."""
    libbpf = ctypes.CDLL("libbpf.so.1")
    end = time.monotonic() + seconds
    left = objects
    while left and time.monotonic() < end:
        left = {one for one in left if _exists(libbpf, *one)}
        if left:
            time.sleep(0.05)
    return left


def _exists(libbpf: ctypes.CDLL, kind: str, number: int) -> bool:
    descriptor = getattr(libbpf, f"bpf_{kind}_get_fd_by_id")(number)
    if descriptor < 0:
        return False
    os.close(descriptor)
    return True


def descriptors_and_threads() -> tuple[int, int]:
    """How many of each this process has."""
    return len(list(Path("/proc/self/fd").iterdir())), threading.active_count()
