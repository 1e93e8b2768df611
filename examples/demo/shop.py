"""The demo's services, started and stopped.

front -> HTTP/2 over TLS -> middle -> gRPC -> back -> HTTP/1.1 -> depot
"""

from __future__ import annotations

import select
import subprocess
import time
import urllib.request
from pathlib import Path
from types import TracebackType

from tools import golang

_SOURCES = Path(__file__).parent / "go"
_START_SECONDS = 60.0
_SERVICES = ("front", "middle", "back", "depot")


class Shop:
    """Four unmodified Go programs; a context manager. `names` maps their process ids to names."""

    def __init__(self, directory: Path, go: str = "1.27") -> None:
        """Builds the programs (or finds them built). `directory` takes a certificate."""
        self._programs = {name: golang.build(_SOURCES / name, go) for name in _SERVICES}
        self._certificate = directory / "middle.pem"
        self._running: list[subprocess.Popen[str]] = []
        self.names: dict[int, str] = {}
        self._front = ""

    def _start(self, name: str, *arguments: str) -> str:
        process = subprocess.Popen([self._programs[name], *arguments], stdout=subprocess.PIPE, text=True)
        self._running.append(process)
        self.names[process.pid] = name
        assert process.stdout is not None
        if not select.select([process.stdout], [], [], _START_SECONDS)[0]:
            raise RuntimeError(f"the service {name} does not start")
        address = process.stdout.readline().strip()
        if not address:
            raise RuntimeError(f"the service {name} has ended at once")
        return address

    def __enter__(self) -> Shop:
        try:
            depot = self._start("depot")
            stock = self._start("back", "-depot", f"http://{depot}")
            prices = self._start("middle", "-stock", stock, "-certificate-out", str(self._certificate))
            self._front = self._start(
                "front", "-prices", f"https://{prices}", "-trust", str(self._certificate)
            )
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def _stop(self) -> None:
        for process in self._running:
            process.terminate()
        for process in self._running:
            process.wait(timeout=30)
            if process.stdout is not None:
                process.stdout.close()

    def order(self, number: int) -> str:
        """Places an order: one request to the front, its answer."""
        with urllib.request.urlopen(f"http://{self._front}/order/{number}", timeout=60) as answer:
            body: str = answer.read().decode()
        return body.strip()

    def wait_idle(self) -> None:
        """Gives the services a moment to end what follows an answer."""
        time.sleep(0.2)
