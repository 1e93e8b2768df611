"""The wheel in an empty virtual environment, without compilers, away from the tree: it traces."""

from __future__ import annotations

import ctypes
import json
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pytraceprop.lockdown import read_mode
from tests.bpf.conftest import Cases
from tests.bpf.test_commands import driven
from tests.install.conftest import Place, checked
from tests.skips import require

Install = Callable[[str], tuple[Place, Path]]

_DESCRIBE = (
    "import sys, sysconfig, venv; "
    "print(*sys.version_info[:2], sysconfig.get_config_var('Py_GIL_DISABLED') or 0)"
)


def interpreters() -> dict[str, str]:
    """By version: the running Python, and the oldest and newest others that lie around, from 3.10 on."""
    beside = Path(sys.base_prefix).parent.glob("*/bin/python3")  # as pyenv and uv keep them
    found: dict[tuple[int, int], str] = {}
    for candidate in [*beside, Path("/usr/bin/python3")]:
        answer = subprocess.run([candidate, "-c", _DESCRIBE], capture_output=True, text=True, timeout=60)
        if answer.returncode == 0:
            major, minor, free_threaded = map(int, answer.stdout.split())
            if not free_threaded:
                found[major, minor] = str(candidate)
    found = {version: path for version, path in found.items() if version >= (3, 10)}
    own = sys.version_info[:2]
    found[own] = str(Path(sys.base_prefix) / "bin" / f"python{own[0]}.{own[1]}")
    return {f"{v[0]}.{v[1]}": found[v] for v in sorted({own, min(found), max(found)})}


INTERPRETERS = interpreters()
OWN = INTERPRETERS[f"{sys.version_info[0]}.{sys.version_info[1]}"]


@pytest.mark.parametrize("version", INTERPRETERS)
def test_the_wheel_traces_a_program_in_an_empty_environment(
    version: str, install: Install, cases: Cases
) -> None:
    place, python = install(INTERPRETERS[version])
    ask = "import sys, pytraceprop; print(pytraceprop.__file__, sys.version.split()[0])"
    path, running = checked(place.run(python, "-c", ask)).split()
    assert path.startswith(str(place.home / "venv"))
    assert running.startswith(f"{version}.")

    found = json.loads(checked(place.run(python, "-m", "pytraceprop", "check", "--json")))
    assert found["tracing"]["possible"] is True

    attach = [python, "-m", "pytraceprop", "attach", "--pid", str(cases.pid), "--seconds", "1.5", "--json"]
    with driven(cases):
        answer = place.run(*attach)
    spans = [json.loads(line) for line in checked(answer).splitlines()]
    assert {span["kind"] for span in spans} == {"server", "client"}
    assert {span["pid"] for span in spans} == {cases.pid}


def hiding_libbpf(scratch: Path) -> list[str | Path]:
    """A command's prefix: for it there is no libbpf.so.1, which the rest of the machine keeps."""
    require("needs root")
    require("needs mount namespaces")
    ctypes.CDLL("libbpf.so.1")
    maps = Path("/proc/self/maps").read_text().splitlines()
    (library,) = {Path(line.split()[-1]) for line in maps if "libbpf" in line}
    for name in {"libbpf.so.1", library.name}:
        os.mknod(scratch / name, stat.S_IFCHR, 0)  # what overlayfs takes for "deleted": a device 0:0
    script = """
        PATH=/usr/sbin:/usr/bin:/sbin:/bin
        mount -t overlay overlay -o "lowerdir=$1:$2" "$2" || exit 99
        shift 2
        exec "$@"
    """
    return ["/usr/bin/unshare", "--mount", "/bin/sh", "-c", script, "sh", scratch, library.parent]


def test_without_libbpf_check_names_the_package_and_lockdown_still_answers(
    install: Install, tmp_path: Path
) -> None:
    place, python = install(OWN)
    hidden = hiding_libbpf(tmp_path)
    answer = place.run(*hidden, python, "-m", "pytraceprop", "check", "--json")
    assert answer.returncode == 1, answer.stderr
    found = json.loads(answer.stdout)
    assert found["tracing"]["possible"] is False
    assert "libbpf.so.1: cannot open shared object file" in found["tracing"]["reason"]
    assert "libbpf1" in found["tracing"]["reason"]
    assert found["lockdown"]["mode"] == str(read_mode())
    assert found["lockdown"]["write_user"] is None
    assert "libbpf" in found["lockdown"]["reason"]


def test_without_libbpf_a_tracer_is_refused_with_a_typed_error(install: Install, tmp_path: Path) -> None:
    place, python = install(OWN)
    code = """
import pytraceprop
try:
    pytraceprop.Tracer()
except pytraceprop.CoreUnavailable as error:
    print(error.reason)
"""
    answer = place.run(*hiding_libbpf(tmp_path), python, "-c", code)
    assert "libbpf1" in checked(answer)
