"""Whether the process filter of uprobe-multi links takes whole processes: proven by a hit.

Before Linux 6.10 it takes one thread only (fixed by 46ba0e49b642), so most of a Go program would be
missed without a sign. Asked by probing a function of libbpf in this very process and calling it
from a second thread.
"""

from __future__ import annotations

import ctypes
import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path

import attrs

from pytraceprop import libbpf
from pytraceprop.environment.answer import Answer, no, unsure, yes
from pytraceprop.environment.features import LIBBPF_NEEDED
from pytraceprop.environment.rights import MOUNT_PROC, Rights

_FUNCTION = "libbpf_major_version"  # without arguments or effects; hardly anybody calls it
_LATER = "try again; else Linux 6.10 has the fix"


@attrs.frozen
class Target:
    """A function of this process that can be probed and called: where it lies in which file."""

    path: bytes
    offset: int
    call: Callable[[], object]


def find_target(maps: str | os.PathLike[str] = "/proc/self/maps") -> Target | None:
    """The function in the libbpf that this process has mapped; None where it cannot be found."""
    function = getattr(libbpf.open_library(), _FUNCTION, None)
    if function is None:
        return None
    address = ctypes.cast(function, ctypes.c_void_p).value or 0
    try:
        for line in Path(maps).read_bytes().splitlines():
            fields = line.split(None, 5)
            start, _, end = fields[0].partition(b"-")
            if len(fields) == 6 and int(start, 16) <= address < int(end, 16):
                # A replaced file is shown with " (deleted)": no such path, and the link says so.
                return Target(fields[5], address - int(start, 16) + int(fields[2], 16), function)
    except (OSError, ValueError, IndexError):
        pass
    return None


def _counting(array: int) -> bytes:
    """A program that adds one to the first element of an array of u64."""
    lookup_elem, r0, r1, r2, r10 = 1, 0, 1, 2, 10
    return b"".join(
        [
            libbpf.instruction(0x18, r1 | 1 << 4, 0, array),  # r1 = the map (BPF_PSEUDO_MAP_FD), 16 bytes
            libbpf.instruction(0),
            libbpf.instruction(0x62, r10, -4, 0),  # *(u32 *)(r10 - 4) = 0
            libbpf.instruction(0xBF, r2 | r10 << 4),  # r2 = r10
            libbpf.instruction(0x07, r2, 0, -4),  # r2 += -4
            libbpf.call(lookup_elem),
            libbpf.instruction(0x15, r0, 2, 0),  # if r0 == 0 skip two
            libbpf.instruction(0xB7, r1, 0, 1),  # r1 = 1
            libbpf.instruction(0xDB, r0 | r1 << 4),  # lock *(u64 *)(r0 + 0) += r1
            libbpf.RETURN_ZERO,
        ]
    )


def count_hits(target: Target, pid: int) -> int | None:
    """How many of one call, made in a second thread, a link filtered to `pid` (0: none) counts.

    The negative errno where the kernel refused a step; None without libbpf.
    """
    with libbpf.closing(libbpf.create_map(libbpf.MAP_TYPE_ARRAY, 4, 8, 1)) as array:
        if array is None or array < 0:
            return array
        loaded = libbpf.load_program(_counting(array), expected_attach_type=libbpf.ATTACH_TYPE_UPROBE_MULTI)
        with libbpf.closing(loaded) as program:
            if program is None or program < 0:
                return program
            with libbpf.closing(libbpf.link_uprobe(program, target.path, target.offset, pid)) as link:
                if link is None or link < 0:
                    return link
                thread = threading.Thread(target=target.call, name="pytraceprop-filter", daemon=True)
                try:
                    thread.start()
                except RuntimeError:  # a limit of threads was reached
                    return -errno.EAGAIN
                thread.join()
                return libbpf.read_counter(array)


def prove(rights: Rights, target: Target | None = None, pid: int | None = None) -> Answer:
    """Whether the filter takes whole processes. `target` and `pid` can be replaced in tests.

    Where the filtered link counts nothing, a link without filter is the control: if that counts, the
    filter is at fault; if not, the probe itself did not work, and nothing is known.
    """
    target = target or find_target()
    if target is None:
        return unsure("The function of libbpf to try the filter on was not found.", MOUNT_PROC)
    hits = count_hits(target, os.getpid() if pid is None else pid)
    if hits == 0:
        control = count_hits(target, 0)
        if control is not None and control > 0:
            return no(
                "The filter of uprobe-multi links takes one thread, not the whole process.", "Linux 6.10"
            )
        hits = control
    if hits is None:
        return unsure(f"{LIBBPF_NEEDED} is missing, so the filter could not be tried.", LIBBPF_NEEDED)
    if hits > 0:
        return yes("The filter of uprobe-multi links takes whole processes (tried with a second thread).")
    if hits == 0:
        return unsure("The probe that should tell was not hit, with or without a filter.", _LATER)
    reason, remedy = rights.refusal(-hits)
    return unsure(f"Trying the filter gave {reason}.", remedy)
