"""Describes the extension `pytraceprop._core` to cffi (API mode); run by setup.py.

The declarations are the headers themselves, word for word.
"""

from pathlib import Path

from cffi import FFI

ROOT = Path(__file__).resolve().parent.parent
SOURCES = ["core.c", "links.c", "ring.c", "targets.c", "traceparent.c"]

ffibuilder = FFI()
ffibuilder.cdef((ROOT / "bpf/records.h").read_text() + (ROOT / "csrc/core.h").read_text())
ffibuilder.set_source(
    "pytraceprop._core",
    '#include <stdint.h>\n#include "bpf/records.h"\n#include "csrc/core.h"\n',
    sources=[f"csrc/{name}" for name in SOURCES],
    include_dirs=["."],
    libraries=["bpf"],
    # -g0: the debug information would name folders of the machine that built the wheel.
    extra_compile_args=["-std=gnu11", "-O2", "-g0", "-Wall", "-Wextra"],
)
