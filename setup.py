"""Builds what is compiled: the cffi core from csrc/ and the CO-RE objects from bpf/.

Everything else about the package is in pyproject.toml.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from setuptools import setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError, LinkError
from setuptools.extension import Extension

ROOT = Path(__file__).resolve().parent
OBJECTS = Path("pytraceprop/objects")
OLDEST_PYTHON = "cp310"  # as requires-python in pyproject.toml

NEEDED = (
    "building pytraceprop needs clang, a C compiler, and the headers of libbpf and Python "
    "(Debian: apt-get install clang llvm gcc libc6-dev libbpf-dev python3-dev)"
)

#: Each folder of objects, and what names its machine (as libbpf's bpf_tracing.h wants it).
MACHINES = {"x86_64": ["-D__TARGET_ARCH_x86"], "arm64": ["-D__TARGET_ARCH_arm64"]}

#: Each kind of object, by the end of its name. The basic ones do without what Linux 5.10 lacks.
VARIANTS: dict[str, list[str]] = {".bpf.o": [], ".basic.bpf.o": ["-DPYTRACEPROP_BASIC"]}

CLANG_FLAGS = [
    "-O2",
    "-g",  # BTF: what CO-RE relocates by
    "-target",
    "bpf",
    "-mcpu=v3",
    f"-ffile-prefix-map={ROOT}=.",  # BTF names the sources: the same objects wherever they are built
    "-Wall",
    "-Wextra",
    "-Wno-unused-parameter",
    "-Wno-unused-function",
    "-Werror",
]


def find_clang() -> str:
    """The compiler of BPF programs. Raises SystemExit with what to install."""
    clang = os.environ.get("CLANG", "clang")
    if shutil.which(clang) is None:
        raise SystemExit(f"there is no {clang}: {NEEDED}")
    probe = [clang, "-target", "bpf", "-E", "-x", "c", "-", "-o", os.devnull]
    answer = subprocess.run(probe, input="#include <bpf/bpf_helpers.h>\n", capture_output=True, text=True)
    if answer.returncode:
        raise SystemExit(f"{clang} cannot compile for BPF: {NEEDED}\n{answer.stderr}")
    return clang


def compile_object(clang: str, source: Path, target: Path, flags: list[str]) -> None:
    """One object, in one piece or not at all. Raises CalledProcessError; clang has said why."""
    print(f"clang {source} -> {target.parent.name}/{target.name}", file=sys.stderr)
    unstripped = target.with_suffix(".tmp")
    command = [clang, *CLANG_FLAGS, *flags, "-c", str(source), "-o", str(unstripped)]
    subprocess.run(command, check=True, cwd=ROOT)
    strip = shutil.which("llvm-strip")
    if strip:  # DWARF is not needed, BTF stays
        subprocess.run([strip, "-g", str(unstripped)], check=True)
    unstripped.replace(target)


def compile_objects(into: Path) -> None:
    """Compiles each object that is older than its sources, removes those that have none any more.

    Raises SystemExit with what to install, or CalledProcessError.
    """
    clang = find_clang()
    shared = [Path(__file__), *ROOT.glob("bpf/*.h")]
    expected = set()
    for machine, machine_flags in MACHINES.items():
        (into / machine).mkdir(parents=True, exist_ok=True)
        for source in sorted(ROOT.glob("bpf/*.bpf.c")):
            newest = max(path.stat().st_mtime for path in (source, *shared))
            for suffix, variant_flags in VARIANTS.items():
                target = into / machine / source.name.replace(".bpf.c", suffix)
                expected.add(target)
                if not target.exists() or target.stat().st_mtime <= newest:
                    flags = [*machine_flags, *variant_flags]
                    compile_object(clang, source.relative_to(ROOT), target, flags)
    for stale in set(into.rglob("*.bpf.o")) - expected:
        stale.unlink()


class BuildExt(build_ext):
    """Compiles the objects too: in place for an editable install, else into what becomes the wheel."""

    def run(self) -> None:
        compile_objects((ROOT if self.inplace else Path(self.build_lib).absolute()) / OBJECTS)
        super().run()

    def build_extension(self, ext: Extension) -> None:
        # A Python built from source may bring a run-time search path for its own library, which a wheel
        # must not name. One that LDFLAGS asks for stays.
        own = {part for part in sysconfig.get_config_var("LDSHARED").split() if "-rpath" in part}
        self.compiler.linker_so = [part for part in self.compiler.linker_so if part not in own]
        try:
            super().build_extension(ext)
        except (CompileError, LinkError) as error:
            raise SystemExit(f"{error}: {NEEDED}") from error


class BdistWheel(bdist_wheel):
    """One wheel for all Pythons, where cffi uses the limited API (not in debug or free-threaded builds)."""

    def finalize_options(self) -> None:
        if all(extension.py_limited_api for extension in self.distribution.ext_modules):
            self.py_limited_api = OLDEST_PYTHON
        super().finalize_options()

    def run(self) -> None:
        # Modules that are gone from the tree would still be there from an earlier build.
        shutil.rmtree(self.get_finalized_command("build").build_lib, ignore_errors=True)
        super().run()


setup(
    cffi_modules=["csrc/build_core.py:ffibuilder"],
    cmdclass={"build_ext": BuildExt, "bdist_wheel": BdistWheel},
)
