"""python -m pytraceprop check: what this machine allows, why not more, and what would change it."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import textwrap
from collections.abc import Iterator, Mapping

from pytraceprop.environment import Answer, Environment
from pytraceprop.errors import TracepropError
from pytraceprop.tracer import Tracer

_NAME_WIDTH, _WORD_WIDTH = 20, 15
_WIDTH = 100
_HOW = """\
    sudo python -m pytraceprop check
    docker run --pid=host --cap-add SYS_ADMIN --cap-add SYS_PTRACE ...
    Kubernetes, and smaller rights: docs/environment.md"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--explain", action="store_true", help="say what can be done about lockdown")


def tracing_state(environment: Environment) -> Answer:
    """Whether spans can be traced here, found out by loading the BPF programs.

    Where that fails although nothing forbids it, the error is the reason; else what forbids it is.
    Loading proves nothing about attaching, so what is known of that still counts.
    """
    try:
        Tracer(environment=environment).close()
    except TracepropError as error:
        expected = environment.tracing
        return expected if expected.value is False else Answer(False, str(error), "")
    if environment.attaching.value is False:
        return environment.attaching
    return Answer(True, "The BPF programs load here.", "")


def _table(answers: Mapping[str, Answer], width: int) -> Iterator[str]:
    """The lines of a table; what would change an answer stands below its reason."""
    indent = " " * (_NAME_WIDTH + _WORD_WIDTH)
    for name, answer in answers.items():
        texts = [answer.reason, f"needs: {answer.remedy}" if answer.remedy else ""]
        lines = [line for text in texts for line in textwrap.wrap(text, max(20, width - len(indent)))]
        first = f"{name:{_NAME_WIDTH}}{answer.word:{_WORD_WIDTH}}"
        yield (first + (lines[0] if lines else "")).rstrip()
        yield from (indent + line for line in lines[1:])


def _verdict(environment: Environment, tracing: Answer) -> str:
    """One line: what will work. Trying decides, whatever was expected."""
    if not tracing.value:
        return f"nothing can be traced: {tracing.reason}"
    return "spans and propagation." if environment.write_user.value else "spans, without propagation."


def _text(environment: Environment, tracing: Answer, verdict: str, explain: bool) -> Iterator[str]:
    """What a person reads, line by line."""
    width = min(shutil.get_terminal_size((_WIDTH, 24)).columns, _WIDTH)
    propagation = environment.write_user if tracing.value else tracing
    yield f"Linux {environment.kernel}, {environment.machine}, lockdown mode {environment.lockdown.mode}"
    yield ""
    yield from _table({"tracing": tracing, "propagation": propagation}, width)
    yield ""
    yield from _table(environment.answers, width)
    yield ""
    yield f"What will work here: {verdict}"
    if not tracing.value and tracing.remedy:
        yield f"What to do next: {tracing.remedy}"
        if not environment.capabilities.value:
            yield _HOW
    if explain:
        yield ""
        yield environment.lockdown.explain()
    elif tracing.value and not environment.write_user.value:
        yield "What can be done: python -m pytraceprop check --explain"


def run(arguments: argparse.Namespace) -> int:
    """Prints the answers; 0 when tracing can work."""
    environment = Environment.detect()
    tracing = tracing_state(environment)
    verdict = _verdict(environment, tracing)
    if arguments.json:
        found = environment.as_dict()
        possible = {"possible": bool(tracing.value), "reason": tracing.reason, "remedy": tracing.remedy}
        text = json.dumps({**found, "tracing": possible, "summary": verdict}, indent=2)
    else:
        text = "\n".join(_text(environment, tracing, verdict, arguments.explain))
    sys.stdout.write(f"{text}\n")  # at once: a reader such as head(1) may close the pipe early
    return 0 if tracing.value else 1
