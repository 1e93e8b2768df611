"""The commands and the README's example, as a user would run them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.bpf.conftest import Cases
from tests.skips import require

ROOT = Path(__file__).resolve().parents[2]


@contextmanager
def driven(program: Cases) -> Iterator[None]:
    """Sends a request every 50 ms meanwhile."""
    ending = threading.Event()

    def drive() -> None:
        while not ending.is_set():
            program.get("/call/plain")
            time.sleep(0.05)

    thread = threading.Thread(target=drive)
    thread.start()
    try:
        yield
    finally:
        ending.set()
        thread.join()


def run(*arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=ROOT,
        env={**os.environ, **more},
    )


def test_check_says_what_will_work() -> None:
    require("needs root")
    answer = run("-m", "pytraceprop", "check")
    assert (answer.returncode, answer.stderr) == (0, "")
    assert "What will work here: spans" in answer.stdout
    found = json.loads(run("-m", "pytraceprop", "check", "--json").stdout)
    assert set(found["lockdown"]) == {"mode", "write_user", "reason"}
    assert found["tracing"]["possible"] is True


def test_check_without_rights_says_that_and_fails() -> None:
    require("needs root")
    drop = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"]  # still root, without its powers
    answer = subprocess.run(
        [*drop, sys.executable, "-m", "pytraceprop", "check", "--json"],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=ROOT,
    )
    assert answer.returncode == 1, answer.stderr
    found = json.loads(answer.stdout)
    assert found["tracing"]["possible"] is False
    assert "CAP_BPF" in found["tracing"]["reason"]
    assert found["lockdown"]["write_user"] is False


def test_attach_prints_spans_as_lines(program: Cases) -> None:
    with driven(program):
        answer = run("-m", "pytraceprop", "attach", "--pid", str(program.pid), "--seconds", "1.5")
    assert answer.returncode == 0, answer.stderr
    lines = answer.stdout.splitlines()
    assert any(re.search(r"server GET /call/\{kind\} /call/plain -> 200 from 127", line) for line in lines)
    assert any("client GET /echo/plain -> 200 to 127" in line for line in lines)
    assert f"attached to process {program.pid}" in answer.stderr
    assert "http/1.1: client and server" in answer.stderr
    assert "http/2: client and server" in answer.stderr
    assert "server_spans" in answer.stderr


def test_attach_prints_json(program: Cases) -> None:
    with driven(program):
        answer = run(
            *("-m", "pytraceprop", "attach", "--pid", str(program.pid), "--seconds", "1", "--json"),
            *("--propagation", "off"),
        )
    assert answer.returncode == 0, answer.stderr
    spans = [json.loads(line) for line in answer.stdout.splitlines()]
    assert {span["kind"] for span in spans} == {"server", "client"}
    assert {span["pid"] for span in spans} == {program.pid}


def test_attach_ends_when_the_program_does(program: Cases) -> None:
    threading.Timer(1.5, program.process.kill).start()
    answer = run("-m", "pytraceprop", "attach", "--pid", str(program.pid))
    assert answer.returncode == 0
    assert "all processes have ended" in answer.stderr


@pytest.mark.parametrize("pid", [str(os.getpid()), "4000000"])
def test_attach_fails_with_the_reason_where_nothing_can_be_traced(pid: str) -> None:
    require("needs root")
    answer = run("-m", "pytraceprop", "attach", "--pid", pid)
    assert answer.returncode == 1
    assert f"process {pid} is not traced: " in answer.stderr
    assert answer.stdout == ""


def test_the_example_of_the_readme_runs(program: Cases, tmp_path: Path) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    example = tmp_path / "example.py"
    example.write_text(code.replace("timeout=10.0", "timeout=2.0"))
    with driven(program):
        answer = run(str(example), str(program.pid))
    assert (answer.returncode, answer.stderr) == (0, "")
    assert re.search(r"^server GET /call/\{kind\} 200 [0-9a-f]{32} [0-9.]+ ms$", answer.stdout, re.MULTILINE)


def test_the_demo_shows_its_spans() -> None:
    require("needs root")
    answer = run("-m", "examples.demo", "--no-vm")
    assert answer.returncode == 0, answer.stderr
    assert "What was traced: 21 spans" in answer.stdout
    assert "front server: GET /order/{id} /order/1 -> 200" in answer.stdout
