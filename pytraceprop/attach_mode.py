"""How programs are linked to the instructions of a process: the best way that this kernel has."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytraceprop.errors import FeatureMissing

if TYPE_CHECKING:
    from pytraceprop.environment import Environment

ATTACH_MODES = ("multi", "multi-unfiltered", "perf-link", "perf-ioctl")
"""In the order of enum attach_mode in csrc/core.h.

- "multi": one link for all sites of a program, in one process (uprobe-multi, Linux 6.6; its process
  filter sees all threads since 6.10, commit 46ba0e49b642).
- "multi-unfiltered": the same without the filter. The link is shared by all processes of the file,
  and the programs look up whether and as what theirs is traced.
- "perf-link": one perf event for each site, with a cookie (Linux 5.15).
- "perf-ioctl": one perf event for each site, without a cookie. The programs look up their process, and
  are the basic ones: neither bpf_loop (5.17) nor reads that may sleep (6.0).
"""


def choose_attach_mode(environment: Environment) -> str:
    """The mode for a kernel; of what could not be told, the older way, which works on newer kernels too.

    Raises FeatureMissing where the kernel is known to lack what all modes need.
    """
    needed = (
        (environment.ring_buffer, "a ring buffer for BPF programs", "5.8"),
        (environment.btf, "a description of its own types (BTF)", "5.4 built with CONFIG_DEBUG_INFO_BTF"),
    )
    for answer, feature, minimum in needed:
        if answer.value is False:
            raise FeatureMissing(feature, minimum)
    full = (environment.bpf_loop, environment.attach_cookie, environment.sleepable_uprobe)
    if all(answer.value for answer in full):
        if environment.uprobe_multi.value:
            return "multi" if environment.uprobe_multi_filter.value else "multi-unfiltered"
        if environment.perf_link.value:
            return "perf-link"
    return "perf-ioctl"


def uses_basic_programs(mode: str) -> bool:
    """Whether the objects are the basic ones: those without cookies, loops of any length and sleep."""
    return mode == "perf-ioctl"
