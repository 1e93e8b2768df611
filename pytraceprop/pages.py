"""Touching the constant pages of a process, for programs that cannot wait for a page themselves."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

_CHUNK = 1 << 20
_MOST = 256 << 20  # bytes: two or three times what large Go programs have


def touch_constants(pid: int, identity: tuple[int, ...]) -> int:
    """Has the kernel map the readable pages of a process's executable, code excepted: how many bytes.

    `identity` is the file's (Image.identity). Itabs, type descriptors and constant strings are there.
    bpf_probe_read_user fails on pages that the process has never touched; reading them through
    /proc/PID/mem puts them into its page tables. At best: what the kernel takes away again later, or
    refuses to show, is counted when a program misses it.
    """
    device, inode = identity[:2]
    touched = 0
    buffer = bytearray(_CHUNK)
    with (
        contextlib.suppress(OSError, ValueError),
        Path(f"/proc/{pid}/maps").open(encoding="utf-8", errors="surrogateescape") as maps,
        Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory,
    ):
        for line in maps:
            span, rights, _, found_device, found_inode = line.split(maxsplit=5)[:5]
            major, minor = (int(part, 16) for part in found_device.split(":"))
            if (os.makedev(major, minor), int(found_inode)) != (device, inode):
                continue
            if not rights.startswith("r") or "x" in rights:
                continue
            start, end = (int(part, 16) for part in span.split("-"))
            memory.seek(start)
            while start < end and touched < _MOST:
                count = memory.readinto(memoryview(buffer)[: min(_CHUNK, end - start)])
                if not count:
                    break
                start += count
                touched += count
    return touched
