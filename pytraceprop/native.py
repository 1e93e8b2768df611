"""The compiled core, as Python objects: typed errors, one lock, nothing else."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterable, Mapping
from importlib import resources
from typing import Any

from pytraceprop.errors import CoreUnavailable, FeatureMissing, KernelError, PrivilegeError, TracerClosed
from pytraceprop.span import RECORD_SIZE

try:
    from pytraceprop._core import ffi, lib
except ImportError as _error:  # not built, or libbpf.so.1 is missing
    ffi = lib = None
    _why_not = str(_error)
else:
    _why_not = ""

MAX_TARGETS = 1024  # in bpf/state.bpf.h
_BATCH = 2048  # records copied per call


def _require_core() -> None:
    if lib is None:
        raise CoreUnavailable(f"{_why_not}; build it with `pip install .` (needs clang and libbpf-dev)")
    if ffi.sizeof("struct span_record") != RECORD_SIZE:
        raise CoreUnavailable("it was built from other sources than this Python code; build it again")


class Core:
    """The loaded BPF objects. Safe from any thread; raises TracerClosed after close()."""

    def __init__(self, *, max_requests: int, ring_bytes: int, write_user: bool) -> None:
        """Loads the objects. Raises CoreUnavailable, PrivilegeError, FeatureMissing, KernelError."""
        _require_core()
        self._lock = threading.RLock()
        self._core: Any = None
        self._buffer = ffi.new("struct span_record[]", _BATCH)
        folder = resources.files("pytraceprop") / "objects"
        if not folder.is_dir():
            raise CoreUnavailable("the BPF objects are missing from this installation")
        paths = sorted(str(entry) for entry in folder.iterdir() if entry.name.endswith(".bpf.o"))
        if not paths:
            raise CoreUnavailable("the BPF objects are missing from this installation")
        strings = [ffi.new("char[]", os.fsencode(path)) for path in paths]
        options = {"max_requests": max_requests, "ring_bytes": ring_bytes, "write_user": write_user}
        error = ffi.new("struct core_error *")
        core = lib.core_open(
            ffi.new("char *[]", strings), len(paths), ffi.new("struct core_options *", options), error
        )
        if not core:
            self._raise("loading the BPF programs (made for Linux 6.6 and later)", error)
        self._core = core
        try:
            self._require_uprobe_multi()
        except BaseException:
            self.close()
            raise

    def _require_uprobe_multi(self) -> None:
        # As libbpf asks it: a kernel that has such links says EBADF of a path that is no file. Other
        # answers tell nothing, and attaching will.
        error = ffi.new("struct core_error *")
        zero = ffi.new("uint64_t[1]")
        lib.core_attach(self._core, b"http1_server", b"/", 0, zero, zero, 1, error)
        if error.number == errno.EINVAL:
            raise FeatureMissing("attaching many probes at once (uprobe-multi)", "6.6")

    def _raise(self, action: str, error: Any) -> None:
        number = error.number
        message = ffi.string(error.message).decode("utf-8", "replace")
        log = ffi.string(error.log).decode("utf-8", "replace")
        if number in (errno.EPERM, errno.EACCES) and "verifier" not in log and "processed" not in log:
            raise PrivilegeError(action, "CAP_BPF and CAP_PERFMON (or root)")
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

    def set_target(self, slot: int, fields: Mapping[str, int]) -> None:
        """Describes a process to the programs; no fields takes the slot back. Raises KernelError."""
        error = ffi.new("struct core_error *")
        with self._lock:
            if lib.core_set_target(self._open_core(), slot, ffi.new("struct target *", dict(fields)), error):
                self._raise("describing the process", error)

    def add_context_types(self, incarnation: int, offsets: Mapping[int, int]) -> None:
        """Tells the programs where context types keep their parent. Raises KernelError."""
        error = ffi.new("struct core_error *")
        with self._lock:
            for address, offset in offsets.items():
                if lib.core_add_context_type(self._open_core(), incarnation, address, offset, error):
                    self._raise("describing the process's context types", error)

    def watch(self, pid: int, slot: int) -> None:
        """Retires the slot's target as soon as the process calls execve(2). Raises KernelError."""
        error = ffi.new("struct core_error *")
        with self._lock:
            if lib.core_watch(self._open_core(), pid, slot, error):
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

    def attach(self, program: str, path: str, pid: int, sites: Iterable[tuple[int, int]]) -> int:
        """Links a program to (offset, cookie) pairs of a file, for one process: the link's descriptor.

        Raises PrivilegeError or KernelError.
        """
        offsets, cookies = zip(*sites, strict=True)
        error = ffi.new("struct core_error *")
        with self._lock:
            fd = int(
                lib.core_attach(
                    self._open_core(),
                    program.encode(),
                    os.fsencode(path),
                    pid,
                    ffi.new("uint64_t[]", offsets),
                    ffi.new("uint64_t[]", cookies),
                    len(offsets),
                    error,
                )
            )
        if fd < 0:
            self._raise(f"attaching {program}", error)
        return fd

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

    def program_runs(self, program: str) -> tuple[int, int]:
        """How often a program ran and for how many nanoseconds (sysctl kernel.bpf_stats_enabled)."""
        stats = ffi.new("struct program_stats *")
        with self._lock:
            lib.core_read_program_stats(self._open_core(), program.encode(), stats)
        return int(stats.runs), int(stats.nanoseconds)

    def open_timer(self, milliseconds: int) -> int:
        """A descriptor that becomes readable every so many milliseconds. Raises KernelError."""
        fd = int(lib.core_open_timer(milliseconds))
        if fd < 0:
            raise KernelError("making a timer", -fd, os.strerror(-fd))
        return fd


def _counter_names() -> tuple[str, ...]:
    if ffi is None:
        return ()
    by_value = ffi.typeof("enum counter").elements
    return tuple(
        by_value[i].removeprefix("COUNT_").lower() for i in sorted(by_value) if by_value[i] != "COUNTERS"
    )


#: Names of the counters, in the order of enum counter in bpf/records.h.
COUNTER_NAMES = _counter_names()
