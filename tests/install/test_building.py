"""What the sdist and the wheel hold, how they are built, and what is said where that cannot be."""

from __future__ import annotations

import email
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from email.message import Message
from pathlib import Path

import pytest

import pytraceprop
from tests.install.conftest import ROOT, Distributions, checked, run
from tests.skips import require

MACHINES = ["arm64", "x86_64"]
VARIANTS = [".bpf.o", ".basic.bpf.o"]
MACHINE = os.uname().machine
PACKAGES = "apt-get install clang llvm gcc libc6-dev libbpf-dev python3-dev"


def objects() -> set[str]:
    """Every BPF object, as the wheel names it."""
    names = [path.name.removesuffix(".bpf.c") for path in ROOT.glob("bpf/*.bpf.c")]
    return {f"pytraceprop/objects/{m}/{name}{v}" for m in MACHINES for name in names for v in VARIANTS}


def files_of(folder: Path, *patterns: str) -> set[str]:
    """Relative names, without what was compiled."""
    found = {path.relative_to(ROOT) for pattern in patterns for path in folder.glob(pattern)}
    return {str(path) for path in found if "__pycache__" not in path.parts}


def content(wheel: Path) -> dict[str, bytes]:
    """The wheel's files."""
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


# The wheel


def test_there_is_one_wheel_for_every_python(distributions: Distributions) -> None:
    assert distributions.wheel.name == f"pytraceprop-{pytraceprop.__version__}-cp310-abi3-linux_{MACHINE}.whl"


def test_the_core_keeps_to_the_stable_abi_of_python(distributions: Distributions) -> None:
    checked(run(sys.executable, "-m", "abi3audit", "--strict", distributions.wheel, cwd=ROOT))


def test_the_wheel_holds_the_package_the_core_the_objects_and_nothing_else(
    distributions: Distributions,
) -> None:
    names = set(content(distributions.wheel))
    info = f"pytraceprop-{pytraceprop.__version__}.dist-info/"
    package = files_of(ROOT, "pytraceprop/**/*.py")
    assert {name for name in names if not name.startswith(info)} == {
        *package,
        *objects(),
        "pytraceprop/py.typed",
        "pytraceprop/_core.abi3.so",
    }
    assert f"{info}licenses/LICENSE" in names


def test_the_metadata_says_what_a_user_and_pip_want_to_know(distributions: Distributions) -> None:
    (raw,) = (text for name, text in content(distributions.wheel).items() if name.endswith("/METADATA"))
    metadata: Message = email.message_from_bytes(raw)
    assert metadata["Name"] == "pytraceprop"
    assert metadata["Version"] == pytraceprop.__version__
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Requires-Python"] == ">=3.10"
    assert metadata["Description-Content-Type"] == "text/markdown"
    readme = metadata.get_payload(decode=True)
    assert isinstance(readme, bytes)
    assert readme.decode().strip() == (ROOT / "README.md").read_text().strip()
    needed = [text for text in metadata.get_all("Requires-Dist", []) if "extra ==" not in text]
    assert {text.split(">")[0] for text in needed} == {"attrs", "capstone", "cffi", "opentelemetry-api"}


def test_builds_in_different_folders_give_the_same_bytes(distributions: Distributions) -> None:
    """The wheel is built from the unpacked sdist, the editable install in the tree."""
    built = content(distributions.wheel)
    for name in objects():
        assert built[name] == (ROOT / name).read_bytes(), name


def test_nothing_compiled_names_a_folder_of_the_machine_that_built_it(distributions: Distributions) -> None:
    built = content(distributions.wheel)
    compiled = {name: built[name] for name in (*objects(), "pytraceprop/_core.abi3.so")}
    for folder in (str(ROOT), tempfile.gettempdir() + "/", sys.base_prefix + "/", "/usr/include"):
        assert [name for name, data in compiled.items() if folder.encode() in data] == [], folder


# The sdist


def test_the_sdist_holds_what_building_needs_and_what_people_read(distributions: Distributions) -> None:
    with tarfile.open(distributions.sdist) as archive:
        prefix = distributions.sources.name + "/"
        names = {member.name.removeprefix(prefix) for member in archive.getmembers() if member.isfile()}
    generated = {"PKG-INFO", "setup.cfg"}
    assert {name for name in names if ".egg-info/" not in name} == generated | files_of(
        ROOT,
        *("bpf/*.[ch]", "csrc/*.[ch]", "csrc/*.py", "pytraceprop/**/*.py", "pytraceprop/py.typed"),
        *("LICENSE", "MANIFEST.in", "pyproject.toml", "setup.py"),
        *("CHANGELOG.md", "README.md", "docs/*.md"),
    )


def pip_wheel(sources: Path, out: Path, *prefix: str, **environment: str) -> tuple[int, str]:
    """`pip wheel` of a folder or an sdist: the exit status, and what a person sees."""
    options = ["--disable-pip-version-check", "--no-build-isolation", "--no-deps", "--wheel-dir", out]
    command = [*prefix, sys.executable, "-m", "pip", "wheel", *options, sources]
    answer = run(*command, cwd=out, env={**os.environ, **environment})
    return answer.returncode, answer.stdout + answer.stderr


def folder_of_programs(folder: Path, *names: str) -> str:
    """A value of PATH by which only these programs are found."""
    folder.mkdir()
    for name in names:
        found = shutil.which(name)
        assert found, name
        (folder / name).symlink_to(Path(found).resolve())
    return str(folder)


@pytest.mark.parametrize(("there", "missing"), [((), "there is no clang"), (("clang",), "gcc'")])
def test_building_without_a_compiler_says_what_to_install(
    there: tuple[str, ...], missing: str, distributions: Distributions, tmp_path: Path
) -> None:
    status, said = pip_wheel(distributions.sdist, tmp_path, PATH=folder_of_programs(tmp_path / "bin", *there))
    assert status == 1
    assert missing in said
    assert PACKAGES in said
    assert not list(tmp_path.glob("*.whl"))


def test_building_without_the_headers_of_libbpf_says_what_to_install(
    distributions: Distributions, tmp_path: Path
) -> None:
    require("needs root")
    require("needs mount namespaces")
    empty = tmp_path / "empty"
    empty.mkdir()
    script = f'mount --bind {empty} /usr/include/bpf && exec "$@"'  # where libbpf-dev puts them
    status, said = pip_wheel(distributions.sdist, tmp_path, "unshare", "--mount", "sh", "-c", script, "sh")
    assert status == 1
    assert "clang cannot compile for BPF" in said
    assert PACKAGES in said


# In a tree


def test_a_wheel_from_a_tree_is_the_same_and_holds_nothing_of_an_earlier_build(
    distributions: Distributions, tmp_path: Path
) -> None:
    sources = tmp_path / "sources"
    shutil.copytree(distributions.sources, sources)
    removed = sources / "pytraceprop" / "removed.py"
    removed.write_text("")
    assert pip_wheel(sources, tmp_path)[0] == 0
    wheel = tmp_path / distributions.wheel.name
    assert "pytraceprop/removed.py" in content(wheel)

    removed.unlink()
    assert pip_wheel(sources, tmp_path)[0] == 0
    assert content(wheel) == content(distributions.wheel)
    assert not (sources / "pytraceprop" / "objects").exists()


def build_in_place(sources: Path) -> list[str]:
    """Compiles as an editable install does: the objects that were made, as machine/name."""
    answer = subprocess.run(
        [sys.executable, "setup.py", "build_ext", "--inplace"],
        cwd=sources,
        capture_output=True,
        text=True,
        timeout=300,
    )
    checked(answer)
    lines = answer.stderr.splitlines()
    return sorted(line.split(" -> ")[1] for line in lines if line.startswith("clang "))


def test_objects_are_compiled_again_only_when_a_source_is_newer(
    distributions: Distributions, tmp_path: Path
) -> None:
    sources = tmp_path / "sources"
    shutil.copytree(distributions.sources, sources)
    every = sorted(name.removeprefix("pytraceprop/objects/") for name in objects())
    folder = sources / "pytraceprop" / "objects"

    assert build_in_place(sources) == every
    assert (sources / "pytraceprop" / "_core.abi3.so").is_file()
    assert build_in_place(sources) == []

    changed = sources / "bpf" / "http1_server.bpf.c"
    later = max((folder / name).stat().st_mtime for name in every) + 1
    os.utime(changed, (later, later))
    assert build_in_place(sources) == [name for name in every if "/http1_server." in name]

    removed = folder / MACHINES[0] / "removed.bpf.o"
    removed.write_bytes(b"of a source that is gone")
    build_in_place(sources)
    assert not removed.exists()
