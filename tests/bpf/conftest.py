"""A traced Go program whose requests take unusual turns, and what was traced of it."""

from __future__ import annotations

import json
import select
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import pytraceprop
from tests.skips import require
from tools import golang

SOURCES = Path(__file__).resolve().parent.parent / "go" / "cases"


class Cases:
    """The running program of tests/go/cases, or another that is driven in the same way."""

    def __init__(self, go: str = "1.27", sources: Path = SOURCES, modfile: str = "") -> None:
        self.process = subprocess.Popen(
            [golang.build(sources, go, modfile=modfile)],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self.process.stdout is not None
        assert select.select([self.process.stdout], [], [], 60)[0], "the program does not start"
        self.host, _, port = self.process.stdout.readline().strip().partition(":")
        self.port = int(port)

    @property
    def pid(self) -> int:
        """The process id."""
        return self.process.pid

    def stop(self) -> None:
        """Ends the program."""
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()

    def get(self, path: str, headers: dict[str, str] | None = None) -> Any:
        """One request, its JSON answer."""
        request = urllib.request.Request(f"http://{self.host}:{self.port}{path}", headers=headers or {})
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.loads(answer.read() or b"null")

    def raw(self, text: bytes) -> bytes:
        """Sends bytes, reads until the program closes."""
        with socket.create_connection((self.host, self.port), timeout=60) as connection:
            connection.sendall(text)
            answer = b""
            while chunk := connection.recv(65536):
                answer += chunk
            return answer


class Traced:
    """The program, attached to."""

    def __init__(self, cases: Cases, tracer: pytraceprop.Tracer, attachment: pytraceprop.Attachment) -> None:
        self.cases = cases
        self.tracer = tracer
        self.attachment = attachment
        self._before: dict[str, int] = attachment.stats()

    @property
    def injects(self) -> bool:
        """Whether this kernel lets headers be written."""
        return self.attachment.propagation["http/1.1"].method is not None

    def spans(self, count: int, seconds: float = 20.0) -> list[pytraceprop.Span]:
        """That many spans, by start; fails when there are fewer, or more within a moment."""
        found: list[pytraceprop.Span] = []
        end = time.monotonic() + seconds
        while len(found) < count and time.monotonic() < end:
            found += self.tracer.spans(timeout=0.05)
        found += self.tracer.spans(timeout=0.1)
        assert len(found) == count, [(s.kind, s.path, s.status) for s in found]
        return sorted(found, key=lambda span: span.start_ns)

    def counted(self) -> dict[str, int]:
        """What was counted since the test began, without zeros."""
        now = self.attachment.stats()
        return {name: n - self._before[name] for name, n in now.items() if n != self._before[name]}


@pytest.fixture(scope="session")
def cases() -> Iterator[Cases]:
    """The program, shared by all tests."""
    require("needs root")
    program = Cases()
    yield program
    program.stop()


@pytest.fixture
def program() -> Iterator[Cases]:
    """The program, for one test alone and not attached to."""
    require("needs root")
    program = Cases()
    yield program
    program.stop()


@pytest.fixture(scope="session")
def session_tracer() -> Iterator[pytraceprop.Tracer]:
    """A tracer, shared by all tests that do not care."""
    require("needs root")
    with pytraceprop.Tracer() as tracer:
        yield tracer


@pytest.fixture(scope="session")
def session_attachment(session_tracer: pytraceprop.Tracer, cases: Cases) -> Iterator[pytraceprop.Attachment]:
    """The program's attachment."""
    yield session_tracer.attach(cases.pid)


@pytest.fixture
def traced(
    cases: Cases, session_tracer: pytraceprop.Tracer, session_attachment: pytraceprop.Attachment
) -> Traced:
    """The program, attached to, with nothing unread."""
    list(session_tracer.spans(timeout=0.05))
    return Traced(cases, session_tracer, session_attachment)
