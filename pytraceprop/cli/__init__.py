"""python -m pytraceprop: the commands."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from importlib import import_module

_COMMANDS = {
    "check": "what this machine allows: lockdown, and whether tracing can work",
    "inspect": "what a Go executable says about itself, and what can be traced in it",
    "attach": "trace running Go processes and print their spans",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command; the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m pytraceprop", description="Distributed tracing for unmodified Go programs."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, description in _COMMANDS.items():
        module = import_module(f"pytraceprop.cli.{name}")
        command = commands.add_parser(name, help=description, description=f"Shows {description}.")
        module.add_arguments(command)
        command.set_defaults(run=module.run)
    arguments = parser.parse_args(argv)
    return int(arguments.run(arguments))
