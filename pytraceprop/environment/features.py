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
PARANOID_PATH = "/proc/sys/kernel/perf_event_paranoid"

# Helpers, by their numbers in include/uapi/linux/bpf.h
_GET_COARSE_NS, _GET_ATTACH_COOKIE, _LOOP = 160, 174, 181
LIBBPF_NEEDED = "libbpf 1.0 or later (libbpf.so.1)"

_settled: dict[str, Answer] = {}


@attrs.frozen
class Feature:
    """Something newer kernels have, and how to ask for it.

    `ask` returns an errno, 0, or None without libbpf. `present` and `absent` are the errnos that
    settle it; all others tell nothing. `control` is what kind of program must load in its simplest
    form before an `absent` is believed; None: nothing need.
    """

    name: str
    what: str
    remedy: str
    ask: Callable[[], int | None]
    present: frozenset[int] = frozenset({0})
    absent: frozenset[int] = frozenset({errno.EINVAL})
    control: int | None = libbpf.PROG_TYPE_KPROBE


def _loads(code: bytes, *, kind: int = libbpf.PROG_TYPE_KPROBE, flags: int = 0) -> int | None:
    with libbpf.closing(libbpf.load_program(code, kind=kind, flags=flags)) as answer:
        return None if answer is None else max(0, -answer)


def _ask_ring_buffer() -> int:
    page = os.sysconf("SC_PAGESIZE")
    with libbpf.closing(libbpf.create_map(libbpf.MAP_TYPE_RINGBUF, 0, 0, page)) as answer:
        return max(0, -(answer or 0))


def _links(make: Callable[[int], int], *, expected_attach_type: int = 0) -> int | None:
    """Loads the simplest program and asks for a link of it that cannot be made."""
    loaded = libbpf.load_program(libbpf.RETURN_ZERO, expected_attach_type=expected_attach_type)
    with libbpf.closing(loaded) as program:
        if program is None or program < 0:
            return None if program is None else -program
        with libbpf.closing(make(program)) as link:
            return max(0, -(link or 0))


#: Asked for by making one of a page.
RING_BUFFER = Feature(
    "ring_buffer", "BPF ring buffers", "Linux 5.8", _ask_ring_buffer, control=None
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
    lambda: _links(lambda program: libbpf.link_perf_event(program, -1)),
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
    lambda: _links(
        lambda program: libbpf.link_uprobe(program, b"/", 0, 0),
        expected_attach_type=libbpf.ATTACH_TYPE_UPROBE_MULTI,
    ),
    present=frozenset({errno.EBADF}),
    absent=frozenset({errno.EINVAL, errno.EOPNOTSUPP}),
)  # 89ae89f53d20

#: Not a feature by itself: this helper came with the release that charges BPF memory to the memory
#: cgroup (d05512618056), and is how libbpf too finds out whether RLIMIT_MEMLOCK matters. A
#: socket filter asks, because tracing programs may not use it (5e0bc3082e2e).
CGROUP_CHARGE = Feature(
    "cgroup_charge",
    "BPF memory charged to the memory cgroup",
    "Linux 5.11",
    lambda: _loads(libbpf.call(_GET_COARSE_NS) + libbpf.EXIT, kind=libbpf.PROG_TYPE_SOCKET_FILTER),
    control=libbpf.PROG_TYPE_SOCKET_FILTER,
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
        control = 0 if feature.control is None else _loads(libbpf.RETURN_ZERO, kind=feature.control)
        if control == 0:
            return no(f"The kernel does not have {feature.what}.", feature.remedy)
        answer = control
    if answer is None:
        return unsure(f"{LIBBPF_NEEDED} is missing, so {feature.what} could not be tried.", LIBBPF_NEEDED)
    reason, remedy = rights.refusal(answer)
    return unsure(f"Asking for {feature.what} gave {reason}.", remedy)


def perf_uprobe(
    rights: Rights,
    path: str | os.PathLike[str] = UPROBE_PMU_PATH,
    paranoid: str | os.PathLike[str] = PARANOID_PATH,
) -> Answer:
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
        return _demand(paranoid)
    reason, remedy = rights.refusal(number)
    return unsure(f"The uprobe PMU is there, but opening an event gave {reason}.", remedy)


def _demand(paranoid: str | os.PathLike[str]) -> Answer:
    """Why CAP_PERFMON does not suffice for a uprobe event: three who say EACCES, told apart."""
    with libbpf.closing(libbpf.open_dummy_event()) as other:
        if other is not None and other >= 0:
            # Linux 6.16 and stable kernels of its time: ba677dbe77af ("perf: Revert to requiring
            # CAP_SYS_ADMIN for uprobes").
            return no("The uprobe PMU is there, but demands CAP_SYS_ADMIN on this kernel.", "CAP_SYS_ADMIN")
    try:
        level = int(Path(paranoid).read_text())
    except (OSError, ValueError):
        level = 0
    if level > 2:  # levels that Debian and Ubuntu have added
        return no(
            f"kernel.perf_event_paranoid is {level}, which leaves perf events to CAP_SYS_ADMIN.",
            "CAP_SYS_ADMIN",
        )
    return unsure(
        "The uprobe PMU is there, but opening any perf event gave EACCES.",
        "a security policy (LSM) that allows perf_event_open(2), or CAP_SYS_ADMIN",
    )
