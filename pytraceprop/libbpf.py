"""bpf(2) and perf_event_open(2) by ctypes: for asking the kernel questions, with nothing compiled.

Programs are loaded by libbpf, as the tracer's are; the rest are system calls, because libbpf 1.1
cannot make the newer kinds of link. All of it returns what libbpf does: a descriptor, which is
close-on-exec and the caller's, or the negative errno.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager

SONAME = "libbpf.so.1"  # by soname: bpf_prog_load of libbpf 0.x takes a file name first

PROG_TYPE_SOCKET_FILTER = 1
PROG_TYPE_KPROBE = 2  # uprobes too
MAP_TYPE_ARRAY = 2
MAP_TYPE_RINGBUF = 27
ATTACH_TYPE_PERF_EVENT = 41
ATTACH_TYPE_UPROBE_MULTI = 48
FLAG_SLEEPABLE = 1 << 4

_MAP_CREATE, _MAP_LOOKUP_ELEM, _LINK_CREATE = 0, 1, 28
_PERF_FLAG_FD_CLOEXEC = 1 << 3
_PERF_TYPE_SOFTWARE, _PERF_COUNT_SW_DUMMY = 1, 9
_PERF_ATTR_SIZE = 112  # PERF_ATTR_SIZE_VER5, Linux 4.1
#: bpf(2) and perf_event_open(2) by machine, from the kernel's system call tables.
_NUMBERS = {"x86_64": (321, 298), "aarch64": (280, 241)}


def instruction(code: int, registers: int = 0, offset: int = 0, immediate: int = 0) -> bytes:
    """One BPF instruction for a little-endian machine; `registers` is destination | source << 4."""
    return struct.pack("<BBhi", code, registers, offset, immediate)


def call(helper: int) -> bytes:
    """The instruction that calls a helper by its number."""
    return instruction(0x85, immediate=helper)


EXIT = instruction(0x95)
RETURN_ZERO = instruction(0xB7) + EXIT  # r0 = 0; exit


class _LoadOptions(ctypes.Structure):
    """The beginning of struct bpf_prog_load_opts, as far as it is used here."""

    _fields_ = [
        ("sz", ctypes.c_size_t),
        ("attempts", ctypes.c_int),
        ("expected_attach_type", ctypes.c_int),
        ("prog_btf_fd", ctypes.c_uint32),
        ("prog_flags", ctypes.c_uint32),
    ]


def open_library() -> ctypes.CDLL | None:
    """The library of libbpf 1.x, or None where it is not installed."""
    try:
        return ctypes.CDLL(SONAME)
    except OSError:
        return None


def load_program(
    code: bytes, *, kind: int = PROG_TYPE_KPROBE, expected_attach_type: int = 0, flags: int = 0
) -> int | None:
    """Loads a GPL program: its descriptor or the negative errno; None without libbpf.

    Before Linux 5.11 libbpf first raises this process's RLIMIT_MEMLOCK, as it does for a Tracer.
    """
    library = open_library()
    load = getattr(library, "bpf_prog_load", None)
    if load is None:
        return None
    load.argtypes = [
        ctypes.c_int,
        ctypes.c_char_p,
        ctypes.c_char_p,
        ctypes.c_char_p,
        ctypes.c_size_t,
        ctypes.c_void_p,
    ]
    load.restype = ctypes.c_int
    options = _LoadOptions(ctypes.sizeof(_LoadOptions), 0, expected_attach_type, 0, flags)
    return int(load(kind, b"probe", b"GPL", code, len(code) // 8, ctypes.byref(options)))


def _system_call(which: int, *arguments: object) -> int:
    numbers = _NUMBERS.get(os.uname().machine)
    if numbers is None:
        return -errno.ENOSYS
    function = ctypes.CDLL(None, use_errno=True).syscall
    function.restype = ctypes.c_long
    answer = int(function(ctypes.c_long(numbers[which]), *arguments))
    return answer if answer >= 0 else -ctypes.get_errno()


def _bpf(command: int, attributes: bytes) -> int:
    # The kernel takes a longer union than it knows only if the rest is zero; a shorter one always.
    buffer = ctypes.create_string_buffer(attributes, len(attributes))
    return _system_call(0, ctypes.c_int(command), buffer, ctypes.c_uint(len(attributes)))


def create_map(kind: int, key_size: int, value_size: int, max_entries: int) -> int:
    """An unnamed map: its descriptor or the negative errno."""
    return _bpf(_MAP_CREATE, struct.pack("<IIII", kind, key_size, value_size, max_entries))


def read_counter(array: int) -> int:
    """The first element of an array of u64, or the negative errno."""
    key, value = ctypes.c_uint32(0), ctypes.c_uint64(0)
    attributes = struct.pack("<IIQQQ", array, 0, ctypes.addressof(key), ctypes.addressof(value), 0)
    answer = _bpf(_MAP_LOOKUP_ELEM, attributes)
    return int(value.value) if answer == 0 else answer


def link_perf_event(program: int, event: int) -> int:
    """A link of a program to a perf event: its descriptor or the negative errno."""
    return _bpf(_LINK_CREATE, struct.pack("<IiII", program, event, ATTACH_TYPE_PERF_EVENT, 0))


def link_uprobe(program: int, path: bytes, offset: int, pid: int) -> int:
    """A uprobe-multi link at one offset of a file, for process `pid` or 0 for all.

    Its descriptor or the negative errno. The program must have been loaded for this attach type.
    """
    name, offsets = ctypes.create_string_buffer(path), ctypes.c_uint64(offset)
    attributes = struct.pack(
        "<IiIIQQQQIII",
        *(program, -1, ATTACH_TYPE_UPROBE_MULTI, 0),
        *(ctypes.addressof(name), ctypes.addressof(offsets), 0, 0),  # no reference counters, no cookies
        *(1, 0, pid),
    )
    return _bpf(_LINK_CREATE, attributes)


def open_uprobe_event(pmu: int, path: bytes, offset: int) -> int:
    """A perf event of the uprobe PMU, for this thread: its descriptor or the negative errno."""
    name = ctypes.create_string_buffer(path)
    return _open_event(pmu, 0, ctypes.addressof(name), offset)  # attr.uprobe_path, attr.probe_offset


def open_dummy_event() -> int:
    """A perf event that counts nothing, for this thread: its descriptor or the negative errno."""
    return _open_event(_PERF_TYPE_SOFTWARE, _PERF_COUNT_SW_DUMMY, 0, 0)


def _open_event(kind: int, config: int, config1: int, config2: int) -> int:
    attributes = bytearray(_PERF_ATTR_SIZE)
    struct.pack_into("<IIQ", attributes, 0, kind, _PERF_ATTR_SIZE, config)
    struct.pack_into("<QQ", attributes, 56, config1, config2)
    buffer = ctypes.create_string_buffer(bytes(attributes), _PERF_ATTR_SIZE)
    this_thread, any_cpu, no_group = ctypes.c_int(0), ctypes.c_int(-1), ctypes.c_int(-1)
    return _system_call(1, buffer, this_thread, any_cpu, no_group, ctypes.c_ulong(_PERF_FLAG_FD_CLOEXEC))


@contextmanager
def closing(descriptor: int | None) -> Iterator[int | None]:
    """Closes a descriptor at the end, if it is one."""
    try:
        yield descriptor
    finally:
        if descriptor is not None and descriptor >= 0:
            os.close(descriptor)
