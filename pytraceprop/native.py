"""The compiled core, as Python objects: typed errors, one lock, nothing else."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterable, Mapping
from typing import Any

from pytraceprop.attach_mode import ATTACH_MODES, uses_basic_programs
from pytraceprop.bpf_objects import object_paths
from pytraceprop.errors import CoreUnavailable, FeatureMissing, KernelError, PrivilegeError, TracerClosed
from pytraceprop.links import close_links
from pytraceprop.pages import touch_constants
from pytraceprop.probes.plan import Site
from pytraceprop.span import RECORD_SIZE


def explain_import_error(error: ImportError) -> str:
    """What is missing where the compiled core cannot be imported, and how to get it."""
    if isinstance(error, ModuleNotFoundError):
        return f"{error}; install the wheel, or build it with `pip install .` (needs clang and libbpf-dev)"
    if "libbpf" in str(error):  # the dynamic linker's words: no such file, or a version it does not have
        return f"{error}; install libbpf 1.0 or later (Debian and Ubuntu: libbpf1, elsewhere: libbpf)"
    return str(error)


try:
    from pytraceprop._core import ffi, lib
except ImportError as _error:
    ffi = lib = None
    _why_not = explain_import_error(_error)
else:
    _why_not = ""

MAX_TARGETS = 1024  # in bpf/state.bpf.h
_BATCH = 2048  # records copied per call


def _require_core() -> None:
    if lib is None:
        raise CoreUnavailable(_why_not)
    if ffi.sizeof("struct span_record") != RECORD_SIZE:
        raise CoreUnavailable("it was built from other sources than this Python code; build it again")


class Core:
    """The loaded BPF objects. Safe from any thread; raises TracerClosed after close()."""

    def __init__(self, *, max_requests: int, ring_bytes: int, write_user: bool, attach_mode: str) -> None:
        """Loads the objects that the mode (ATTACH_MODES) needs.

        Raises CoreUnavailable, PrivilegeError, KernelError, or ValueError for no such mode.
        """
        _require_core()
        if attach_mode not in ATTACH_MODES:
            raise ValueError(f"attach_mode must be one of {', '.join(ATTACH_MODES)}, not {attach_mode!r}")
        self.attach_mode = attach_mode
        self._lock = threading.RLock()
        self._core: Any = None
        self._buffer = ffi.new("struct span_record[]", _BATCH)
        self._shared: dict[tuple[int, ...], tuple[int, list[int]]] = {}
        self._next_link = 1
        paths = object_paths(os.uname().machine, basic=uses_basic_programs(attach_mode))
        strings = [ffi.new("char[]", os.fsencode(path)) for path in paths]
        options = {
            "attach_mode": ATTACH_MODES.index(attach_mode),
            "max_requests": max_requests,
            "ring_bytes": ring_bytes,
            "write_user": write_user,
        }
        error = ffi.new("struct core_error *")
        core = lib.core_open(
            ffi.new("char *[]", strings), len(paths), ffi.new("struct core_options *", options), error
        )
        if not core:
            self._raise("loading the BPF programs", error)
        self._core = core

    def _raise(self, action: str, error: Any, missing: str = "CAP_BPF and CAP_PERFMON (or root)") -> None:
        number = error.number
        message = ffi.string(error.message).decode("utf-8", "replace")
        log = ffi.string(error.log).decode("utf-8", "replace")
        if number in (errno.EPERM, errno.EACCES) and "verifier" not in log and "processed" not in log:
            raise PrivilegeError(action, missing)
        raise KernelError(action, number, message, log)

    def _open_core(self) -> Any:
        if self._core is None:
            raise TracerClosed
        return self._core

    def close(self) -> None:
        """Unloads everything that is not attached any more. Idempotent."""
        with self._lock:
            core, self._core = self._core, None
            if core is not None:
                lib.core_close(core)

    def abandon(self) -> None:
        """In a forked child: the parent's objects are not ours to close."""
        self._core = None

    def set_target(self, slot: int, fields: Mapping[str, Any]) -> None:
        """Describes a process to the programs; no fields takes the slot back. Raises KernelError."""
        error = ffi.new("struct core_error *")
        with self._lock:
            if lib.core_set_target(self._open_core(), slot, ffi.new("struct target *", dict(fields)), error):
                self._raise("describing the process", error)

    def add_context_types(self, incarnation: int, places: Mapping[int, int]) -> None:
        """Tells the programs where context types keep their parent. Raises KernelError."""
        error = ffi.new("struct core_error *")
        with self._lock:
            for address, place in places.items():
                if lib.core_add_context_type(self._open_core(), incarnation, address, place, error):
                    self._raise("describing the process's context types", error)

    def watch(self, pid: int, slot: int) -> None:
        """Retires the slot's target as soon as the process calls execve(2). Raises KernelError."""
        error = ffi.new("struct core_error *")
        with self._lock:
            if lib.core_watch(self._open_core(), pid, slot, 0, error):
                self._raise("watching the process", error)

    def unwatch(self, pid: int) -> None:
        """Ends that."""
        with self._lock:
            lib.core_unwatch(self._open_core(), pid)

    def is_vacant(self, slot: int) -> bool:
        """Whether the slot has no target, or none any more."""
        with self._lock:
            return bool(lib.core_is_vacant(self._open_core(), slot))

    def forget(self, incarnation: int) -> int:
        """Removes a process from all maps; how many requests were under way."""
        with self._lock:
            return int(lib.core_forget(self._open_core(), incarnation))

    def attach(
        self,
        path: str,
        pid: int,
        *,
        identity: tuple[int, ...],
        incarnation: int,
        slot: int,
        sites: Iterable[Site],
    ) -> list[int]:
        """Links the sites of a file to their programs, for one process: the links' descriptors.

        `identity` tells the file from others (Image.identity). The process must be watched already.
        Raises PrivilegeError, FeatureMissing, or KernelError.
        """
        programs: dict[str, list[Site]] = {}
        for site in sites:
            programs.setdefault(site.program, []).append(site)
        with self._lock:
            if self.attach_mode == "multi":
                return self._attach_multi(path, pid, programs, incarnation << 32 | slot << 8)
            if self.attach_mode == "multi-unfiltered":
                return self._attach_shared(path, pid, programs, identity, slot)
            return self._attach_events(path, pid, programs, incarnation << 32 | slot << 8)

    def _attach_multi(self, path: str, pid: int, programs: Mapping[str, list[Site]], owner: int) -> list[int]:
        links: list[int] = []
        for program, sites in programs.items():
            error = ffi.new("struct core_error *")
            link = lib.core_attach_multi(
                self._open_core(),
                program.encode(),
                os.fsencode(path),
                pid,
                ffi.new("uint64_t[]", [site.offset for site in sites]),
                ffi.new("uint64_t[]", [owner | site.kind for site in sites]),
                len(sites),
                error,
            )
            self._keep(links, int(link), f"attaching {program}", error)
        return links

    def _attach_shared(
        self,
        path: str,
        pid: int,
        programs: Mapping[str, list[Site]],
        identity: tuple[int, ...],
        slot: int,
    ) -> list[int]:
        """Takes part in the links that other processes of the file have, or makes them.

        The kernel keeps a link as long as somebody has a descriptor of it, so nothing is counted here.
        Opening one by its number takes CAP_SYS_ADMIN; without it each process gets links of its own,
        which costs runs of programs and no more.
        """
        number, ids = self._shared.get(identity, (0, []))
        links = self._open_links(ids)
        if not links:
            self._forget_dead_links()
            number, self._next_link = self._next_link, self._next_link + 1
            links = self._attach_multi(path, pid, programs, number << 32)
            self._shared[identity] = number, [int(lib.core_link_id(link)) for link in links]
        error = ffi.new("struct core_error *")
        if lib.core_watch(self._open_core(), pid, slot, number, error):
            close_links(links)
            self._raise("watching the process", error)
        return links

    def _forget_dead_links(self) -> None:
        for identity, (_, ids) in list(self._shared.items()):
            links = self._open_links(ids)
            close_links(links)
            if not links:
                del self._shared[identity]

    def _open_links(self, ids: Iterable[int]) -> list[int]:
        """Descriptors of all these links, or of none if one of them is gone."""
        links: list[int] = []
        for number in ids:
            link = int(lib.core_open_link(number))
            if link < 0:
                close_links(links)
                return []
            links.append(link)
        return links

    def _attach_events(
        self,
        path: str,
        pid: int,
        programs: Mapping[str, list[Site]],
        owner: int,
    ) -> list[int]:
        basic = uses_basic_programs(self.attach_mode)
        if basic:
            touch_constants(pid)
        links: list[int] = []
        for program, sites in programs.items():
            for site in sites:
                name = _site_name(site.kind) if basic else program
                error = ffi.new("struct core_error *")
                link = lib.core_attach_event(
                    self._open_core(),
                    name.encode(),
                    os.fsencode(path),
                    pid,
                    site.offset,
                    owner | site.kind,
                    error,
                )
                if link < 0 and error.number == errno.EOPNOTSUPP:
                    close_links(links)
                    raise FeatureMissing(
                        "probes on user functions as perf events", "4.17 built with CONFIG_UPROBE_EVENTS"
                    )
                # Since Linux 6.16 CAP_PERFMON is not enough (commit ba677dbe77af).
                self._keep(links, int(link), f"attaching {name}", error, "CAP_PERFMON or CAP_SYS_ADMIN")
        return links

    def _keep(self, links: list[int], link: int, action: str, error: Any, *missing: str) -> None:
        """Adds a link to the others, or closes them all and raises."""
        if link < 0:
            close_links(links)
            self._raise(action, error, *missing)
        links.append(link)

    def drain(self) -> bytes:
        """The records that are waiting, as many as one batch holds; empty when none are."""
        with self._lock:
            count = int(lib.core_drain(self._open_core(), self._buffer, _BATCH))
            if count < 0:
                raise KernelError("reading the ring buffer", -count, os.strerror(-count))
            return bytes(ffi.buffer(self._buffer, count * RECORD_SIZE)) if count else b""

    def counters(self, slot: int) -> dict[str, int]:
        """The counters of one process, by name."""
        sums = ffi.new("struct counters *")
        with self._lock:
            lib.core_read_counters(self._open_core(), slot, sums)
        return {name: int(sums.count[i]) for i, name in enumerate(COUNTER_NAMES)}

    def probe_runs(self) -> tuple[int, int]:
        """How often probes were hit and for how many nanoseconds (sysctl kernel.bpf_stats_enabled)."""
        stats = ffi.new("struct probe_stats *")
        with self._lock:
            lib.core_read_probe_stats(self._open_core(), stats)
        return int(stats.runs), int(stats.nanoseconds)

    def open_timer(self, milliseconds: int) -> int:
        """A descriptor that becomes readable every so many milliseconds. Raises KernelError."""
        fd = int(lib.core_open_timer(milliseconds))
        if fd < 0:
            raise KernelError("making a timer", -fd, os.strerror(-fd))
        return fd


def _site_name(kind: int) -> str:
    """The name of a site, which its own program has in the basic objects."""
    name: str = ffi.typeof("enum site").elements[kind]
    return name.removeprefix("SITE_").lower()


def _counter_names() -> tuple[str, ...]:
    if ffi is None:
        return ()
    by_value = ffi.typeof("enum counter").elements
    return tuple(
        by_value[i].removeprefix("COUNT_").lower() for i in sorted(by_value) if by_value[i] != "COUNTERS"
    )


#: Names of the counters, in the order of enum counter in bpf/records.h.
COUNTER_NAMES = _counter_names()
