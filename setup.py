"""Builds what is compiled: the cffi core from csrc/ and the CO-RE objects from bpf/.

Everything else about the package is in pyproject.toml.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import setup
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
OBJECTS = Path("pytraceprop/objects")

CLANG_FLAGS = [
    "-O2",
    "-g",  # BTF: what CO-RE relocates by
    "-target",
    "bpf",
    "-mcpu=v3",
    "-D__TARGET_ARCH_x86",
    "-Wall",
    "-Wextra",
    "-Wno-unused-parameter",
    "-Wno-unused-function",
    "-Werror",
]


def compile_objects(into: Path) -> None:
    """Compiles each bpf/*.bpf.c that is newer than its object. Raises SystemExit with what to do."""
    clang = os.environ.get("CLANG", "clang")
    if shutil.which(clang) is None:
        raise SystemExit("clang is needed to compile bpf/*.bpf.c: install it (Debian: apt-get install clang)")
    headers = [*ROOT.glob("bpf/*.h")]
    into.mkdir(parents=True, exist_ok=True)
    for source in sorted(ROOT.glob("bpf/*.bpf.c")):
        target = into / source.name.replace(".bpf.c", ".bpf.o")
        newest = max(path.stat().st_mtime for path in (source, *headers))
        if target.exists() and target.stat().st_mtime > newest:
            continue
        print(f"clang {source.relative_to(ROOT)}", file=sys.stderr)
        unstripped = target.with_suffix(".tmp")
        subprocess.run([clang, *CLANG_FLAGS, "-c", str(source), "-o", str(unstripped)], check=True)
        strip = shutil.which("llvm-strip")
        if strip:  # DWARF is not needed, BTF stays
            subprocess.run([strip, "-g", str(unstripped)], check=True)
        unstripped.replace(target)


class BuildPy(build_py):
    """Compiles the objects before the package's files are gathered."""

    def run(self) -> None:
        compile_objects(ROOT / OBJECTS)
        super().run()


class BuildExt(build_ext):
    """Editable installs run only this: the objects belong to it too."""

    def run(self) -> None:
        compile_objects(ROOT / OBJECTS)
        super().run()


setup(cffi_modules=["csrc/build_core.py:ffibuilder"], cmdclass={"build_py": BuildPy, "build_ext": BuildExt})
