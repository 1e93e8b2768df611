"""python -m pytraceprop check: what this machine allows."""

from __future__ import annotations

import argparse
import json

from pytraceprop.errors import TracepropError
from pytraceprop.lockdown import LockdownStatus
from pytraceprop.tracer import Tracer

_WORDS = {True: "yes", False: "no", None: "could not tell"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--explain", action="store_true", help="say what can be done about lockdown")


def tracing_state(lockdown: LockdownStatus) -> tuple[bool, str]:
    """Whether spans can be traced here, found out by loading the BPF programs, and a sentence."""
    try:
        Tracer(lockdown=lockdown).close()
    except TracepropError as error:
        return False, str(error)
    return True, "The BPF programs load here."


def run(arguments: argparse.Namespace) -> int:
    """Prints the answers; 0 when tracing can work."""
    lockdown = LockdownStatus.detect()
    possible, reason = tracing_state(lockdown)
    if arguments.json:
        answers = {"lockdown": lockdown.as_dict(), "tracing": {"possible": possible, "reason": reason}}
        print(json.dumps(answers, indent=2))
        return 0 if possible else 1
    rows = [
        ("tracing (spans)", _WORDS[possible], reason),
        ("lockdown mode", str(lockdown.mode), ""),
        ("writing user memory", _WORDS[lockdown.write_user], lockdown.reason),
    ]
    for what, answer, why in rows:
        print(f"{what:20} {answer:16} {why}".rstrip())
    verdict = "nothing can be traced"
    if possible:
        verdict = "spans and propagation" if lockdown.write_user else "spans, without propagation"
    print(f"\nWhat will work here: {verdict}.")
    if arguments.explain:
        print(f"\n{lockdown.explain()}")
    elif not lockdown.write_user:
        print("What can be done: python -m pytraceprop check --explain")
    return 0 if possible else 1
