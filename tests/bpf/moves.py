"""The running program of tests/go/moves, and how it is told to become another one."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Sequence
from http.client import HTTPException
from pathlib import Path

from tools import golang

SOURCES = Path(__file__).resolve().parent.parent / "go" / "moves"


def build(go: str = "1.27", **form: object) -> Path:
    """The program, built."""
    return golang.build(SOURCES, go, **form)  # type: ignore[arg-type]


class Moves:
    """The running program; a context manager that ends it.

    `wrapper` is a command that runs it, such as unshare; `pid` is then the program's own.
    """

    def __init__(self, binary: Path, *arguments: str, wrapper: Sequence[str] = ()) -> None:
        self.binary = binary
        self._connections: list[socket.socket] = []
        self._process = subprocess.Popen(
            [*wrapper, binary, *(arguments or ("127.0.0.1:0",))], stdout=subprocess.PIPE, text=True
        )
        self.address, own = self._read_line()
        self.pid = self._process.pid if not wrapper else _inside(self._process.pid, int(own))

    def _read_line(self) -> tuple[str, str]:
        assert self._process.stdout is not None
        assert select.select([self._process.stdout], [], [], 60)[0], "the program does not start"
        address, pid = self._process.stdout.readline().split()
        return address, pid

    def get(self, path: str, **query: str | list[str]) -> str:
        """One request, its answer."""
        url = f"http://{self.address}{path}?{urllib.parse.urlencode(query, doseq=True)}"
        with urllib.request.urlopen(url, timeout=60) as answer:
            return str(answer.read().decode())

    def hang(self) -> None:
        """Starts a request that is still being served when this returns, and for ever."""
        host, _, port = self.address.partition(":")
        connection = socket.create_connection((host, int(port)))
        self._connections.append(connection)
        connection.sendall(b"GET /hang HTTP/1.1\r\nHost: moves\r\n\r\n")

    def exec(self, program: str, *arguments: str, thread: str = "any") -> None:
        """Has the process become another program; `thread` ("main" or "any") is the one that asks."""
        with contextlib.suppress(urllib.error.URLError, HTTPException, OSError):
            self.get("/exec", program=program, argument=list(arguments), thread=thread)

    def restart(self, calls: int = 0, thread: str = "any") -> None:
        """Has the process become the same program again, at the same address."""
        self.exec("/proc/self/exe", self.address, str(calls), thread=thread)
        self.address, _ = self._read_line()

    @property
    def alive(self) -> bool:
        """Whether it is running."""
        return self._process.poll() is None

    def signal(self, number: signal.Signals) -> None:
        """Sends it a signal."""
        os.kill(self.pid, number)

    def close(self) -> None:
        """Ends it."""
        for connection in self._connections:
            connection.close()
        for pid in {self.pid, self._process.pid}:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()

    def __enter__(self) -> Moves:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def _inside(wrapper: int, own: int) -> int:
    """Our number of the child of a wrapper that calls itself `own` in its pid namespace."""
    for path in Path("/proc").glob("[0-9]*/status"):
        with contextlib.suppress(OSError):  # ended meanwhile
            status = dict(line.split(":\t", 1) for line in path.read_text().splitlines() if ":\t" in line)
            if int(status["PPid"]) == wrapper and status["NSpid"].split()[1:] == [str(own)]:
                return int(path.parent.name)
    raise AssertionError(f"{wrapper} has no child that calls itself {own}")
