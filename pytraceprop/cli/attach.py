"""python -m pytraceprop attach: spans of running processes, as they end."""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
from collections.abc import Iterator

from pytraceprop.attachment import Attachment
from pytraceprop.errors import TracepropError
from pytraceprop.sinks import format_span
from pytraceprop.tracer import Tracer


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument("--pid", type=int, action="append", default=[], help="a process; may be repeated")
    parser.add_argument("--exe", action="append", default=[], help="every process that runs this file")
    parser.add_argument("--json", action="store_true", help="print each span as a line of JSON")
    parser.add_argument("--seconds", type=float, help="stop after that long (default: when all have ended)")
    parser.add_argument(
        "--propagation", choices=("auto", "off"), default="auto", help="off: spans only, write nothing"
    )


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _attach(tracer: Tracer, arguments: argparse.Namespace) -> Iterator[Attachment]:
    """Attaches to what it can, and says what it cannot."""
    for pid in arguments.pid:
        try:
            yield tracer.attach(pid)
        except TracepropError as error:
            _say(f"process {pid} is not traced: {error}")
    for exe in arguments.exe:
        try:
            found = tracer.attach_all(exe)
        except (TracepropError, OSError) as error:
            _say(f"{exe} is not traced: {error}")
            continue
        if not found:
            _say(f"{exe} is not traced: no process runs it")
        yield from found


def _describe(attachment: Attachment) -> Iterator[str]:
    yield f"attached to process {attachment.pid}: {attachment.executable} (Go {attachment.go})"
    for name, protocol in attachment.protocols.items():
        sides = [side for side in ("client", "server") if getattr(protocol, side)]
        yield f"  {name}: {' and '.join(sides) or 'not traced'}" + (
            f" ({protocol.reason})" if protocol.reason else ""
        )
        if sides:
            yield f"  {name}: propagation {attachment.propagation[name]}"


def _print_spans(tracer: Tracer, arguments: argparse.Namespace) -> None:
    end = None if arguments.seconds is None else time.monotonic() + arguments.seconds
    while True:
        active = tracer.attachments
        remaining = 1.0 if end is None else min(1.0, end - time.monotonic())
        for span in tracer.spans(timeout=max(0.0, remaining)):
            print(json.dumps(span.as_dict()) if arguments.json else format_span(span), flush=True)
        if not active or remaining <= 0:
            return


def run(arguments: argparse.Namespace) -> int:
    """Prints spans until interrupted; 1 where nothing could be traced."""
    if not arguments.pid and not arguments.exe:
        _say("name processes with --pid or --exe")
        return 2
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with Tracer(propagation=arguments.propagation) as tracer:
            attached = list(_attach(tracer, arguments))
            if not attached:
                return 1
            for attachment in attached:
                for line in _describe(attachment):
                    _say(line)
            try:
                _print_spans(tracer, arguments)
                if not tracer.attachments:
                    _say("all processes have ended")
            except KeyboardInterrupt:
                pass
            for name, value in tracer.stats().items():
                if value:
                    _say(f"{name:32} {value}")
    except BrokenPipeError:
        return 0
    except TracepropError as error:
        _say(f"nothing can be traced: {error}")
        return 1
    return 0
