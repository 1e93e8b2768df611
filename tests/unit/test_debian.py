"""tools/debian.py fetches a program once, and says what went wrong. apt is a script here."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools import debian
from tools.debian import Program, ProgramUnavailable

APT_GET = """#!/bin/sh
echo "$@" >> {log}
case "$*" in
*indextargets*) echo "{mirror} Debian" ;;
*"download good"*) touch good_1_amd64.deb ;;
*update*) ;;
*) echo "E: Unable to locate package" >&2; exit 100 ;;
esac
"""
DPKG = """#!/bin/sh
mkdir -p "$3/usr/bin" && echo program > "$3/usr/bin/good"
"""
APT_CACHE = """#!/bin/sh
echo good
"""


@pytest.fixture
def apt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The log of what apt-get was asked for."""
    log, programs = tmp_path / "log", tmp_path / "bin"
    programs.mkdir()
    script = APT_GET.format(log=log, mirror="file:/mirror")
    for name, text in (("apt-get", script), ("dpkg", DPKG), ("apt-cache", APT_CACHE)):
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")
    monkeypatch.setattr(debian, "BUILD", tmp_path / "build")
    monkeypatch.setattr(debian, "_lists", debian._lists.__wrapped__)
    log.touch()
    return log


def test_a_package_is_fetched_once(apt: Path) -> None:
    program = Program("elsewhere", "good", "usr/bin/good")
    path = debian.fetch(program)
    assert path.read_text() == "program\n"
    assert debian.fetch(program) == path
    assert apt.read_text().count("download good") == 1


def test_another_suite_has_package_lists_of_its_own(apt: Path, tmp_path: Path) -> None:
    debian.fetch(Program("elsewhere", "good", "usr/bin/good"))
    assert f"Dir::State::Lists={tmp_path}/build/apt/elsewhere/lists" in apt.read_text()
    sources = (tmp_path / "build" / "apt" / "elsewhere" / "sources.list").read_text()
    assert sources.endswith("file:/mirror elsewhere main\n")


def test_a_package_that_cannot_be_had_is_told_and_leaves_nothing(apt: Path, tmp_path: Path) -> None:
    with pytest.raises(ProgramUnavailable, match="Unable to locate") as caught:
        debian.fetch(Program("elsewhere", "bad", "usr/bin/bad"))
    assert caught.value.program.package == "bad"
    assert "update" in apt.read_text()  # the lists may have been old
    assert not list((tmp_path / "build" / "debian" / "elsewhere").iterdir())


def test_a_package_without_the_program_is_told(apt: Path) -> None:
    with pytest.raises(ProgramUnavailable, match="does not hold it"):
        debian.fetch(Program("elsewhere", "good", "usr/bin/other"))


def test_a_machine_without_apt_is_told(apt: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ProgramUnavailable, match="this is no Debian"):
        debian.fetch(Program("elsewhere", "good", "usr/bin/good"))


def test_the_programs_for_ci_are_few_and_one_of_them_is_large() -> None:
    small = {name for name, program in debian.PROGRAMS.items() if program.small}
    assert {"hugo", "age"} <= small
    assert len(small) < 8 < 15 < len(debian.PROGRAMS)
