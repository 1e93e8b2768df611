"""tools.golang builds a program with the versions that it is told to take."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.mixed import frameworks, services
from tools import golang

PROGRAM = """package main

import (
	"fmt"
	"runtime/debug"
)

func main() {
	info, _ := debug.ReadBuildInfo()
	fmt.Println(info.Main.Path)
}
"""


@pytest.fixture
def module(tmp_path: Path) -> Path:
    (tmp_path / "main.go").write_text(PROGRAM)
    (tmp_path / "go.mod").write_text("module one\n\ngo 1.22\n")
    (tmp_path / "mods").mkdir()
    (tmp_path / "mods" / "other.mod").write_text("module two\n\ngo 1.99\n")
    return tmp_path


def printed(binary: Path) -> str:
    return subprocess.run([binary], capture_output=True, text=True, check=True).stdout.strip()


def test_a_modfile_stands_in_for_go_mod_and_is_not_mistaken_for_it(module: Path) -> None:
    other = module / "mods" / "other.mod"
    built = [
        golang.build(module, output_name="modfile"),
        golang.build(module, output_name="modfile", modfile=other),
    ]
    assert [printed(binary) for binary in built] == ["one", "two"]
    assert golang.build(module, output_name="modfile", modfile=module / "go.mod") == built[0]
    assert other.read_text() == "module two\n\ngo 1.99\n"  # the release is lowered in a copy
    for binary in built:
        binary.unlink()


def test_the_mixed_chain_has_a_modfile_with_sums_for_each_grpc() -> None:
    found = services.modfiles()
    assert services.newest_grpc() == next(iter(found))
    assert {"1.50", "1.58", "1.64", "1.66", "1.69", "1.73", "1.77", "1.83", "1.84"} < set(found)
    for version, path in found.items():
        assert re.search(rf"grpc v{re.escape(version)}\.\d+ h1:", path.with_suffix(".sum").read_text())


@pytest.mark.parametrize(
    ("go", "expected"),
    [("1.21", "go1.21.mod"), ("1.23", "go1.21.mod"), ("1.24", "go1.24.mod"), ("1.27", "go.mod")],
)
def test_frameworks_are_built_in_the_newest_versions_that_the_release_takes(go: str, expected: str) -> None:
    assert frameworks.modfile_for(go).name == expected
