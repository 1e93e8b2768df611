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
    "-Wall",
    "-Wextra",
    "-Wno-unused-parameter",
    "-Wno-unused-function",
    "-Werror",
]

#: The folder of an architecture's objects, and the flag that says which registers it has.
ARCHITECTURES = {"x86_64": "-D__TARGET_ARCH_x86", "arm64": "-D__TARGET_ARCH_arm64"}
#: Two objects from each source: the basic one is for kernels without bpf_loop, cookies and sleep.
VARIANTS = {".bpf.o": (), ".basic.bpf.o": ("-DPYTRACEPROP_BASIC",)}


def compile_objects(into: Path) -> None:
    """Compiles each bpf/*.bpf.c that is newer than its objects. Raises SystemExit with what to do."""
    clang = os.environ.get("CLANG", "clang")
    if shutil.which(clang) is None:
        raise SystemExit("clang is needed to compile bpf/*.bpf.c: install it (Debian: apt-get install clang)")
    shared = [*ROOT.glob("bpf/*.h"), ROOT / "setup.py"]
    for source in sorted(ROOT.glob("bpf/*.bpf.c")):
        newest = max(path.stat().st_mtime for path in (source, *shared))
        for architecture, registers in ARCHITECTURES.items():
            (into / architecture).mkdir(parents=True, exist_ok=True)
            for suffix, flags in VARIANTS.items():
                target = into / architecture / source.name.replace(".bpf.c", suffix)
                if not target.exists() or target.stat().st_mtime <= newest:
                    compile_object([clang, *CLANG_FLAGS, registers, *flags], source, target)


def compile_object(command: list[str], source: Path, target: Path) -> None:
    """Compiles one object and leaves only BTF of its debugging information."""
    print(f"clang {source.relative_to(ROOT)} > {target.name}", file=sys.stderr)
    unstripped = target.with_suffix(".tmp")
    subprocess.run([*command, "-c", str(source), "-o", str(unstripped)], check=True)
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
