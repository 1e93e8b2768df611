"""Touching the constant pages of a process, for programs that cannot wait for a page themselves."""

from __future__ import annotations

import contextlib
import os
import struct
from pathlib import Path

from pytraceprop.process import program_entry

_CHUNK = 1 << 20
_MOST = 256 << 20  # bytes: two or three times what large Go programs have


def touch_constants(pid: int) -> int:
    """Has the kernel map the readable pages of a process's executable, code excepted: how many bytes.

    Itabs, type descriptors and constant strings are there. bpf_probe_read_user fails on pages that the
    process has never touched; reading them through /proc/PID/mem puts them into its page tables. This is
    done as far as it goes: what the kernel takes away later, or refuses to show, is counted when a
    program misses it.
    """
    touched = 0
    with contextlib.suppress(OSError, KeyError, ValueError, struct.error):
        buffer = bytearray(_CHUNK)
        spans = _constants(pid)
        with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
            for start, end in spans:
                memory.seek(start)
                while start < end and touched < _MOST:
                    count = memory.readinto(memoryview(buffer)[: min(_CHUNK, end - start)])
                    if not count:
                        break
                    start += count
                    touched += count
    return touched


def _constants(pid: int) -> list[tuple[int, int]]:
    """Beginning and end of each mapping of the executable that is readable and no code.

    The executable is the file that is mapped where the program begins: on an overlay, /proc/PID/maps
    and stat(2) name different devices and inodes of one file.
    """
    entry = program_entry(pid)
    mappings = []
    executable = ""
    for line in os.fsdecode(Path(f"/proc/{pid}/maps").read_bytes()).splitlines():
        span, rights, _, device, inode = line.split(maxsplit=5)[:5]
        start, end = (int(part, 16) for part in span.split("-"))
        file = f"{device} {inode}"
        mappings.append((start, end, rights, file))
        if start <= entry < end:
            executable = file
    return [(s, e) for s, e, rights, file in mappings if file == executable and rights[0::2] == "r-"]
