"""The sdist and the wheel as `make wheel` builds them, and clean places to install them in."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import attrs
import pytest

from tests.bpf.conftest import Cases
from tests.skips import require

ROOT = Path(__file__).resolve().parents[2]


@attrs.frozen
class Distributions:
    """The two files, and the sdist unpacked."""

    wheel: Path
    sdist: Path
    sources: Path


@attrs.frozen
class Place:
    """Somewhere outside of the tree: an empty home, and an environment in which no program is found."""

    home: Path

    @property
    def environment(self) -> dict[str, str]:
        """PATH names a folder without compilers, and nothing points at the tree."""
        empty = self.home / "bin"
        empty.mkdir(parents=True, exist_ok=True)
        return {"PATH": str(empty), "HOME": str(self.home), "LANG": "C.UTF-8", "PYTHONWARNINGS": "error"}

    def run(self, *command: str | Path, timeout: float = 120) -> subprocess.CompletedProcess[str]:
        """Runs a command there."""
        return run(*command, cwd=self.home, env=self.environment, timeout=timeout)


def run(
    *command: str | Path, cwd: Path, env: dict[str, str] | None = None, timeout: float = 300
) -> subprocess.CompletedProcess[str]:
    """Runs a command, keeps what it prints."""
    return subprocess.run(command, cwd=cwd, env=env, timeout=timeout, capture_output=True, text=True)


def checked(answer: subprocess.CompletedProcess[str]) -> str:
    """What a command printed; fails if it failed."""
    assert answer.returncode == 0, answer.stdout + answer.stderr
    return answer.stdout


@pytest.fixture(scope="session")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> Distributions:
    """Built from the tree: the sdist, and the wheel out of the sdist."""
    out = tmp_path_factory.mktemp("dist")
    checked(run(sys.executable, "-m", "build", "--no-isolation", "--outdir", out, cwd=ROOT))
    (wheel,) = out.glob("*.whl")
    (sdist,) = out.glob("*.tar.gz")
    checked(run("tar", "-xf", sdist, cwd=out))
    return Distributions(wheel, sdist, out / sdist.name.removesuffix(".tar.gz"))


@pytest.fixture(scope="session")
def install(
    distributions: Distributions, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], tuple[Place, Path]]:
    """Installs the wheel for an interpreter, once: the place, and the virtual environment's python."""
    done: dict[str, tuple[Place, Path]] = {}

    def into_fresh_environment(interpreter: str) -> tuple[Place, Path]:
        if interpreter not in done:
            place = Place(tmp_path_factory.mktemp("place"))
            checked(place.run(interpreter, "-m", "venv", "--without-pip", "venv"))
            python = place.home / "venv" / "bin" / "python"
            pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "--python", python]
            environment = {**place.environment, "HOME": os.environ.get("HOME", "")}  # pip's cache
            del environment["PYTHONWARNINGS"]
            checked(run(*pip, "install", distributions.wheel, cwd=place.home, env=environment))
            done[interpreter] = place, python
        return done[interpreter]

    return into_fresh_environment


@pytest.fixture(scope="session")
def cases() -> Iterator[Cases]:
    """The Go program that is traced."""
    require("needs root")
    program = Cases()
    yield program
    program.stop()
