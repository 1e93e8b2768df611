"""Closing links. The kernel makes each close wait for a grace period; those of several overlap."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

_AT_ONCE = 32  # threads, for as long as closing takes


def close_links(descriptors: Sequence[int]) -> None:
    """Closes descriptors of links side by side, and returns when all are closed.

    One after another, each uprobe-multi link takes 20 to 60 ms: a hundred of them 5 s, and 0.1 s like
    this. Perf events take some 100 ms (20 to 60 ms on Linux 5.10 and 6.1), and the kernel lets only one
    go at a time (perf_uprobe_destroy), so that side by side gains a fifth.
    """
    if len(descriptors) < 2:
        for descriptor in descriptors:
            os.close(descriptor)
        return
    with ThreadPoolExecutor(min(_AT_ONCE, len(descriptors))) as threads:
        for _ in threads.map(os.close, descriptors):
            pass
