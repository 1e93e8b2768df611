"""`python -m pytraceprop check`: what it prints, and the exit status."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import attrs
import pytest

from pytraceprop.cli import check, main
from pytraceprop.environment import Answer, Environment
from pytraceprop.errors import CoreUnavailable, KernelError, PrivilegeError
from pytraceprop.lockdown import LockdownMode, LockdownStatus
from tests.skips import require

ROOT = Path(__file__).resolve().parents[2]
OPEN = LockdownStatus(LockdownMode.NONE, True, "The kernel lets it.")
LOCKED = LockdownStatus(LockdownMode.INTEGRITY, False, "The kernel is locked down.")
UNSURE = LockdownStatus(LockdownMode.UNKNOWN, None, "Could not tell.")
YES = Answer(True, "It is so.", "")
POWERLESS = Answer(False, "This process lacks the rights.", "more rights")
LOADED = Answer(True, "The programs load.", "")
NAMES = [f.name for f in attrs.fields(Environment) if f.name not in ("kernel", "machine", "lockdown")]


def environment(lockdown: LockdownStatus = OPEN, **changes: Answer) -> Environment:
    """Everything is yes, but for what the lockdown status and the changes say."""
    answers = dict.fromkeys(NAMES, YES)
    answers["write_user"] = Answer(
        lockdown.write_user, lockdown.reason, "" if lockdown.write_user else "no lockdown"
    )
    return Environment(kernel="6.12.0-x", machine="x86_64", lockdown=lockdown, **{**answers, **changes})


@pytest.fixture
def machine(monkeypatch):
    """Lets a test say what the machine is like, and what comes of loading the programs."""

    def set_machine(found: Environment, tracing: Answer = LOADED) -> None:
        monkeypatch.setattr(Environment, "detect", classmethod(lambda cls: found))
        monkeypatch.setattr(check, "tracing_state", lambda environment: tracing)

    return set_machine


# JSON


@pytest.mark.parametrize("lockdown", [OPEN, LOCKED, UNSURE], ids=str)
@pytest.mark.parametrize(("tracing", "code"), [(LOADED, 0), (POWERLESS, 1)], ids=["loads", "does not load"])
def test_json_has_all_answers_and_the_exit_status_is_tracings(machine, capsys, lockdown, tracing, code):
    found = environment(lockdown, uprobe_multi=POWERLESS)
    machine(found, tracing)
    assert main(["check", "--json"]) == code
    said = json.loads(capsys.readouterr().out)
    assert said.pop("tracing") == {
        "possible": not code,
        "reason": tracing.reason,
        "remedy": tracing.remedy,
    }
    summary = said.pop("summary")
    expected = found.as_dict()
    del expected["tracing"], expected["summary"]
    assert said == expected
    assert said["lockdown"] == {
        "mode": lockdown.mode.value,
        "write_user": lockdown.write_user,
        "reason": lockdown.reason,
    }
    assert list(said["answers"]) == NAMES
    assert said["answers"]["uprobe_multi"]["remedy"] == "more rights"
    assert ("nothing" in summary) is bool(code)


# The table


@pytest.mark.parametrize(
    ("lockdown", "word", "verdict"),
    [
        (OPEN, "yes", "spans and propagation."),
        (LOCKED, "no", "spans, without propagation."),
        (UNSURE, "could not tell", "spans, without propagation."),
    ],
    ids=str,
)
def test_the_table_names_the_mode_the_answers_and_the_reasons(machine, capsys, lockdown, word, verdict):
    machine(environment(lockdown))
    assert main(["check"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"Linux 6.12.0-x, x86_64, lockdown mode {lockdown.mode}"
    assert any(line.split(None, 1) == ["tracing", "yes            The programs load."] for line in lines)
    for name in ("propagation", "write_user"):
        assert f"{name:20}{word:15}{lockdown.reason}" in lines
    assert f"What will work here: {verdict}" in lines


@pytest.mark.parametrize("name", NAMES)
def test_each_answer_has_its_line_and_what_would_change_it_below(machine, capsys, name):
    machine(environment(**{name: Answer(None, "It was refused.", "a certain right")}))
    main(["check"])
    lines = capsys.readouterr().out.splitlines()
    at = lines.index(f"{name:20}could not tell It was refused.")
    assert lines[at + 1] == " " * 35 + "needs: a certain right"


def test_the_table_is_plain_text_of_at_most_100_columns(machine, capsys):
    long = Answer(
        False, "Because " + "of this and that " * 12 + "it is not.", "doing " + "one thing or another " * 8
    )
    machine(environment(**dict.fromkeys(NAMES, long)))
    main(["check"])
    out = capsys.readouterr().out
    assert out.isprintable() or set(out) - set("\n") <= set(map(chr, range(32, 127)))
    table = out.split("What will work here")[0].splitlines()
    assert max(map(len, table)) <= 100
    assert not any(line != line.rstrip() for line in table)
    assert " ".join(out.split()).count(" ".join(long.reason.split())) >= len(NAMES)  # nothing is cut


@pytest.mark.parametrize("columns", ["60", "20", "0", "nonsense"])
def test_a_narrow_terminal_cuts_nothing(machine, capsys, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", columns)
    machine(environment(btf=Answer(None, "It was refused for a reason that is long.", "a certain right")))
    main(["check"])
    text = " ".join(capsys.readouterr().out.split())
    assert "could not tell It was refused for a reason that is long. needs: a certain right" in text


def test_lockdown_alone_is_no_failure(machine):
    machine(environment(LOCKED))
    assert main(["check"]) == 0


def test_no_tracing_is_a_failure_and_says_why(machine, capsys):
    machine(environment(), Answer(False, "the native core cannot be used", ""))
    assert main(["check"]) == 1
    out = capsys.readouterr().out
    assert "What will work here: nothing can be traced: the native core cannot be used" in out
    assert "What to do next" not in out


def test_who_lacks_the_rights_reads_what_to_do_next(machine, capsys):
    machine(environment(capabilities=POWERLESS), POWERLESS)
    assert main(["check"]) == 1
    out = capsys.readouterr().out
    assert "What to do next: more rights" in out
    for advice in ("sudo", "--cap-add", "--pid=host", "docs/environment.md"):
        assert advice in out


def test_another_obstacle_is_not_met_with_advice_about_rights(machine, capsys):
    machine(environment(btf=POWERLESS), POWERLESS)
    main(["check"])
    out = capsys.readouterr().out
    assert "What to do next: more rights" in out
    assert "sudo" not in out


def test_the_explanation_comes_when_asked_for(machine, capsys):
    machine(environment(LOCKED))
    main(["check"])
    brief = capsys.readouterr().out
    assert "check --explain" in brief
    assert LOCKED.explain() not in brief
    main(["check", "--explain"])
    assert LOCKED.explain() in capsys.readouterr().out


# Loading


ERRORS = [
    CoreUnavailable("it is not built"),
    PrivilegeError("loading BPF programs", "CAP_BPF"),
    KernelError("loading http1_server", errno.EPERM, "Operation not permitted"),
]


def failing(monkeypatch, error: Exception) -> None:
    def refuse(**kwargs):
        raise error

    monkeypatch.setattr(check, "Tracer", refuse)


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_what_stops_the_tracer_becomes_the_reason(monkeypatch, error):
    failing(monkeypatch, error)
    assert check.tracing_state(environment(LOCKED)) == Answer(False, str(error), "")
    unknown = environment(btf=Answer(None, "Unknown.", "look"))
    assert check.tracing_state(unknown) == Answer(False, str(error), "")


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_what_was_known_to_forbid_it_is_the_better_reason(monkeypatch, error):
    failing(monkeypatch, error)
    assert check.tracing_state(environment(capabilities=POWERLESS)) == POWERLESS


def test_a_tracer_that_opens_is_closed_again_whatever_was_expected(monkeypatch):
    events = []

    class Opened:
        def __init__(self, **kwargs):
            events.append("opened")

        def close(self):
            events.append("closed")

    monkeypatch.setattr(check, "Tracer", Opened)
    answer = check.tracing_state(environment(LOCKED, btf=POWERLESS))
    assert answer.value is True
    assert answer.reason
    assert events == ["opened", "closed"]
    # Loading says nothing of attaching.
    nowhere = environment(uprobe_multi=Answer(False, "None.", "Linux 6.6"), perf_uprobe=POWERLESS)
    assert check.tracing_state(nowhere) == POWERLESS
    assert events == ["opened", "closed"] * 2


# As a command


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
    assert set(answer) == {
        *("kernel", "machine", "lockdown", "answers", "tracing", "propagation", "summary"),
    }
    assert set(answer["lockdown"]) == {"mode", "write_user", "reason"}
    assert set(answer["tracing"]) == {"possible", "reason", "remedy"}
    assert done.returncode == (0 if answer["tracing"]["possible"] else 1)
    if core == "absent":
        assert answer["tracing"]["possible"] is False
        assert "_core" in answer["tracing"]["reason"] or not answer["answers"]["capabilities"]["value"]


def run(*prefix: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*prefix, sys.executable, "-W", "error", "-m", "pytraceprop", "check"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        env={name: value for name, value in os.environ.items() if name != "COLUMNS"},
    )


def test_in_a_pipe_it_is_plain_text_of_100_columns():
    done = run()
    assert done.stderr == ""
    assert "\x1b" not in done.stdout
    table = done.stdout.split("What will work here")[0]
    assert max(map(len, table.splitlines())) <= 100


def test_a_reader_that_stops_early_gets_no_traceback():
    done = run("sh", "-c", '"$@" | head -1', "sh")
    assert done.stdout.startswith("Linux ")
    assert done.stderr == ""


def test_in_a_user_namespace_it_says_so_and_fails():
    require("needs user namespaces")
    done = run("unshare", "--user", "--map-root-user")
    assert (done.returncode, done.stderr) == (1, "")
    assert "What will work here: nothing can be traced: This process is in a user namespace" in done.stdout
    assert "What to do next: start it as root outside of user namespaces" in done.stdout


def test_without_rights_it_says_which_and_fails():
    require("needs root")
    done = run("setpriv", "--bounding-set=-all", "--inh-caps=-all")
    assert (done.returncode, done.stderr) == (1, "")
    assert "What to do next: CAP_BPF and CAP_PERFMON, or CAP_SYS_ADMIN" in done.stdout
    assert "sudo" in done.stdout
