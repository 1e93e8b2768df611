"""`python -m pytraceprop check`: what it prints, and the exit status."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
from pathlib import Path

import pytest

from pytraceprop.cli import check, main
from pytraceprop.errors import CoreUnavailable, KernelError, PrivilegeError
from pytraceprop.lockdown import LockdownMode, LockdownStatus

ROOT = Path(__file__).resolve().parents[2]
OPEN = LockdownStatus(LockdownMode.NONE, True, "The kernel lets it.")
LOCKED = LockdownStatus(LockdownMode.INTEGRITY, False, "The kernel is locked down.")
UNSURE = LockdownStatus(LockdownMode.UNKNOWN, None, "Could not tell.")


@pytest.fixture
def machine(monkeypatch):
    """Let a test say what the machine is like."""

    def set_machine(lockdown: LockdownStatus, possible: bool, reason: str) -> None:
        monkeypatch.setattr(LockdownStatus, "detect", classmethod(lambda cls: lockdown))
        monkeypatch.setattr(check, "tracing_state", lambda status: (possible, reason))

    return set_machine


@pytest.mark.parametrize("lockdown", [OPEN, LOCKED, UNSURE], ids=str)
@pytest.mark.parametrize(("possible", "code"), [(True, 0), (False, 1)])
def test_json_has_both_answers_and_the_exit_status_is_tracings(machine, capsys, lockdown, possible, code):
    machine(lockdown, possible, "So it is.")
    assert main(["check", "--json"]) == code
    assert json.loads(capsys.readouterr().out) == {
        "lockdown": {
            "mode": lockdown.mode.value,
            "write_user": lockdown.write_user,
            "reason": lockdown.reason,
        },
        "tracing": {"possible": possible, "reason": "So it is."},
    }


@pytest.mark.parametrize(
    ("lockdown", "word", "verdict"),
    [
        (OPEN, "yes", "spans and propagation"),
        (LOCKED, "no", "spans, without propagation"),
        (UNSURE, "could not tell", "spans, without propagation"),
    ],
    ids=str,
)
def test_the_table_names_the_mode_the_answer_and_the_reason(machine, capsys, lockdown, word, verdict):
    machine(lockdown, True, "The programs load.")
    assert main(["check"]) == 0
    out = capsys.readouterr().out
    for expected in (str(lockdown.mode), word, lockdown.reason, "The programs load.", verdict):
        assert expected in out


def test_lockdown_alone_is_no_failure(machine):
    machine(LOCKED, True, "")
    assert main(["check"]) == 0


def test_no_tracing_is_a_failure_and_says_so(machine, capsys):
    machine(OPEN, False, "the native core cannot be used")
    assert main(["check"]) == 1
    out = capsys.readouterr().out
    assert "the native core cannot be used" in out
    assert "nothing can be traced" in out


def test_the_explanation_comes_when_asked_for(machine, capsys):
    machine(LOCKED, True, "")
    main(["check"])
    brief = capsys.readouterr().out
    assert "check --explain" in brief
    assert LOCKED.explain() not in brief
    main(["check", "--explain"])
    assert LOCKED.explain() in capsys.readouterr().out


@pytest.mark.parametrize(
    "error",
    [
        CoreUnavailable("it is not built"),
        PrivilegeError("loading BPF programs", "CAP_BPF"),
        KernelError("loading http1_server", errno.EPERM, "Operation not permitted"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_stops_the_tracer_becomes_the_reason(monkeypatch, error):
    def refuse(**kwargs):
        raise error

    monkeypatch.setattr(check, "Tracer", refuse)
    assert check.tracing_state(LOCKED) == (False, str(error))


def test_a_tracer_that_opens_is_closed_again(monkeypatch):
    events = []

    class Opened:
        def __init__(self, **kwargs):
            events.append("opened")

        def close(self):
            events.append("closed")

    monkeypatch.setattr(check, "Tracer", Opened)
    possible, reason = check.tracing_state(LOCKED)
    assert possible
    assert reason
    assert events == ["opened", "closed"]


def test_without_a_command_the_usage_is_shown(capsys):
    with pytest.raises(SystemExit) as stopped:
        main([])
    assert stopped.value.code == 2
    assert "usage: python -m pytraceprop" in capsys.readouterr().err


@pytest.mark.parametrize("core", ["present", "absent"])
def test_it_runs_as_a_module_here_whatever_here_allows(core):
    hide = "sys.modules['pytraceprop._core'] = None; " if core == "absent" else ""
    code = f"import sys; {hide}from pytraceprop.cli import main; sys.exit(main(['check', '--json']))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    answer = json.loads(done.stdout)
    assert set(answer) == {"lockdown", "tracing"}
    assert set(answer["lockdown"]) == {"mode", "write_user", "reason"}
    assert set(answer["tracing"]) == {"possible", "reason"}
    assert done.returncode == (0 if answer["tracing"]["possible"] else 1)
    if core == "absent":
        assert answer["tracing"]["possible"] is False
        assert "_core" in answer["tracing"]["reason"]
