"""What the kernel can do with probes, found out by trying: no release numbers are compared.

A yes or a no is about the kernel, which does not change under a running process, and is remembered
for the life of the process, because trying takes time. "Could not tell" is about rights or a
moment, and is asked again each time.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import attrs

from pytraceprop import libbpf
from pytraceprop.environment.answer import Answer, no, unsure, yes
from pytraceprop.environment.rights import CAP_SYS_ADMIN, Rights

UPROBE_PMU_PATH = "/sys/bus/event_source/devices/uprobe/type"

# Helpers, by their numbers in include/uapi/linux/bpf.h
_GET_COARSE_NS, _GET_ATTACH_COOKIE, _LOOP = 125, 174, 181
LIBBPF_NEEDED = "libbpf 1.0 or later (libbpf.so.1)"

_settled: dict[str, Answer] = {}


@attrs.frozen
class Feature:
    """Something newer kernels have, and how to ask for it.

    `ask` returns an errno, 0, or None without libbpf. `present` and `absent` are the errnos that
    settle it; all others tell nothing. `needs_programs`: EINVAL is only believed of a process that
    can load the simplest program.
    """

    name: str
    what: str
    remedy: str
    ask: Callable[[], int | None]
    present: frozenset[int] = frozenset({0})
    absent: frozenset[int] = frozenset({errno.EINVAL})
    needs_programs: bool = True


def _loads(code: bytes, *, flags: int = 0) -> int | None:
    with libbpf.closing(libbpf.load_program(code, flags=flags)) as answer:
        return None if answer is None else max(0, -answer)


def _ask_ring_buffer() -> int:
    page = os.sysconf("SC_PAGESIZE")
    with libbpf.closing(libbpf.create_map(libbpf.MAP_TYPE_RINGBUF, 0, 0, page)) as answer:
        return max(0, -(answer or 0))


def _ask_perf_link() -> int | None:
    with libbpf.closing(libbpf.load_program(libbpf.RETURN_ZERO)) as program:
        if program is None or program < 0:
            return None if program is None else -program
        return -libbpf.link_perf_event(program, -1)


def _ask_uprobe_multi() -> int | None:
    attach_type = libbpf.ATTACH_TYPE_UPROBE_MULTI
    with libbpf.closing(libbpf.load_program(libbpf.RETURN_ZERO, expected_attach_type=attach_type)) as program:
        if program is None or program < 0:
            return None if program is None else -program
        return -libbpf.link_uprobe(program, b"/", 0, 0)


#: A ring buffer, of which a program can be told that it is there by making one of a page.
RING_BUFFER = Feature(
    "ring_buffer", "BPF ring buffers", "Linux 5.8", _ask_ring_buffer, needs_programs=False
)  # 457f44363a88

#: Called without its arguments: EACCES is said of them, so the helper is known.
BPF_LOOP = Feature(
    "bpf_loop",
    "the helper bpf_loop",
    "Linux 5.17",
    lambda: _loads(libbpf.call(_LOOP) + libbpf.EXIT),
    present=frozenset({0, errno.EACCES}),
)  # e6f2dd0f8067

#: Its only argument is the program's context, which is in place when the program starts.
ATTACH_COOKIE = Feature(
    "attach_cookie",
    "a cookie for each probe (bpf_get_attach_cookie)",
    "Linux 5.15",
    lambda: _loads(libbpf.call(_GET_ATTACH_COOKIE) + libbpf.EXIT),
)  # 7adfc6c9b315

#: Asked for with no event: EBADF is said of that, so such links are known. EOPNOTSUPP: not built in.
PERF_LINK = Feature(
    "perf_link",
    "links on perf events",
    "Linux 5.15",
    _ask_perf_link,
    present=frozenset({errno.EBADF}),
    absent=frozenset({errno.EINVAL, errno.EOPNOTSUPP}),
)  # b89fbfbb854c

#: Before, only fentry and LSM programs could sleep.
SLEEPABLE_UPROBE = Feature(
    "sleepable_uprobe",
    "probes that may wait for a page of the process",
    "Linux 6.0",
    lambda: _loads(libbpf.RETURN_ZERO, flags=libbpf.FLAG_SLEEPABLE),
)  # 64ad7556c75e

#: Asked for on a directory: EBADF is said of that, so such links are known.
UPROBE_MULTI = Feature(
    "uprobe_multi",
    "uprobe-multi links",
    "Linux 6.6",
    _ask_uprobe_multi,
    present=frozenset({errno.EBADF}),
    absent=frozenset({errno.EINVAL, errno.EOPNOTSUPP}),
)  # 89ae89f53d20

#: Not a feature by itself: this helper came with the release that charges BPF memory to the memory
#: cgroup, and is how libbpf too finds out whether RLIMIT_MEMLOCK matters.
CGROUP_CHARGE = Feature(
    "cgroup_charge",
    "BPF memory charged to the memory cgroup",
    "Linux 5.11",
    lambda: _loads(libbpf.call(_GET_COARSE_NS) + libbpf.EXIT),
)


def settle(name: str, find: Callable[[], Answer]) -> Answer:
    """The answer of that name, found once; "could not tell" is never kept."""
    answer = _settled.get(name) or find()
    if answer.value is not None:
        _settled[name] = answer
    return answer


def detect(feature: Feature, rights: Rights) -> Answer:
    """Whether this kernel has a feature."""
    return settle(feature.name, lambda: _try(feature, rights))


def _try(feature: Feature, rights: Rights) -> Answer:
    answer = feature.ask()
    if answer in feature.present:
        return yes(f"The kernel has {feature.what}.")
    if answer in feature.absent:
        # What refuses the simplest program too says nothing about the feature.
        control = _loads(libbpf.RETURN_ZERO) if feature.needs_programs else 0
        if control == 0:
            return no(f"The kernel does not have {feature.what}.", feature.remedy)
        answer = control
    if answer is None:
        return unsure(f"{LIBBPF_NEEDED} is missing, so {feature.what} could not be tried.", LIBBPF_NEEDED)
    reason, remedy = rights.refusal(answer)
    return unsure(f"Asking for {feature.what} gave {reason}.", remedy)


def perf_uprobe(rights: Rights, path: str | os.PathLike[str] = UPROBE_PMU_PATH) -> Answer:
    """Whether probes can be opened as perf events (the `uprobe` PMU, Linux 4.17, 33ea4b24277b).

    Not remembered: newer kernels demand CAP_SYS_ADMIN for it, and rights change.
    """
    try:
        pmu = int(Path(path).read_text())
    except FileNotFoundError:
        if Path(path).parent.parent.is_dir():
            return no(
                "The kernel does not have the uprobe PMU.",
                "Linux 4.17 with CONFIG_UPROBE_EVENTS and CONFIG_PERF_EVENTS",
            )
        return unsure(
            "/sys is hidden, so it cannot be read whether there is a uprobe PMU.", "mount sysfs at /sys"
        )
    except (OSError, ValueError):
        return unsure(f"{path} cannot be read.", "mount sysfs at /sys")
    # A path through what is no directory: nothing is probed, and ENOTDIR comes after all other checks.
    with libbpf.closing(libbpf.open_uprobe_event(pmu, os.fsencode(path) + b"/", 0)) as answer:
        number = max(0, -(answer or 0))
    if number in (0, errno.ENOTDIR):
        return yes("The uprobe PMU is there, and this process may use it.")
    if number == errno.EACCES and rights.may_load and rights.has(CAP_SYS_ADMIN) is False:
        # Linux 6.16 and stable kernels of its time: ba677dbe77af ("perf: Revert to requiring
        # CAP_SYS_ADMIN for uprobes").
        return unsure(
            "The uprobe PMU is there, but on this kernel it demands CAP_SYS_ADMIN.", "CAP_SYS_ADMIN"
        )
    reason, remedy = rights.refusal(number)
    return unsure(f"The uprobe PMU is there, but opening an event gave {reason}.", remedy)
