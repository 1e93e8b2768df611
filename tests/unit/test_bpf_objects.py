"""Where the core and the BPF objects are looked for, and what is said where they are missing."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytraceprop import bpf_objects
from pytraceprop.bpf_objects import object_paths
from pytraceprop.errors import CoreUnavailable
from pytraceprop.native import explain_import_error


@pytest.mark.parametrize(("machine", "folder"), [("x86_64", "x86_64"), ("aarch64", "arm64")])
def test_each_machine_has_its_own_objects_full_and_basic(machine: str, folder: str) -> None:
    full = [Path(path) for path in object_paths(machine, basic=False)]
    basic = [Path(path) for path in object_paths(machine, basic=True)]
    assert {path.parent.name for path in full + basic} == {folder}
    assert {"http1_client.bpf.o", "http1_server.bpf.o"} <= {path.name for path in full}
    assert [path.name.replace(".bpf.o", ".basic.bpf.o") for path in full] == [path.name for path in basic]


def test_every_combination_of_machine_and_kind_is_an_object_of_its_own() -> None:
    """Equal ones would mean that a flag in setup.py has no effect."""
    contents = [
        Path(path).read_bytes()
        for machine in ("x86_64", "aarch64")
        for basic in (False, True)
        for path in object_paths(machine, basic=basic)
        if Path(path).name.startswith("http1_client.")
    ]
    assert {content[:4] for content in contents} == {b"\x7fELF"}
    assert {int.from_bytes(content[18:20], "little") for content in contents} == {247}  # EM_BPF
    assert len(contents) == len(set(contents)) == 4


def test_a_machine_without_objects_is_named() -> None:
    with pytest.raises(CoreUnavailable, match="not for riscv64"):
        object_paths("riscv64", basic=False)


def test_an_installation_without_objects_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(bpf_objects.resources, "files", lambda package: tmp_path)
    for _ in range(2):
        with pytest.raises(CoreUnavailable, match="for x86_64 are missing from this installation"):
            object_paths("x86_64", basic=False)
        (tmp_path / "objects" / "x86_64").mkdir(parents=True, exist_ok=True)


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        (ModuleNotFoundError("No module named 'pytraceprop._core'"), "pip install ."),
        (ImportError("libbpf.so.1: cannot open shared object file: No such file or directory"), "libbpf1"),
        (ImportError("libbpf.so.1: version `LIBBPF_0.6.0' not found (required by _core)"), "libbpf1"),
        (ImportError("libc.so.6: version `GLIBC_2.34' not found (required by _core)"), "GLIBC_2.34"),
    ],
)
def test_a_core_that_cannot_be_imported_is_explained(error: ImportError, advice: str) -> None:
    reason = explain_import_error(error)
    assert reason.startswith(str(error))
    assert advice in reason
    assert ("libbpf1" in reason) == ("libbpf.so" in str(error))
