"""Start, drive and stop the test chain: driver -> front -> HTTPS -> middle -> HTTP -> back.

    programs = build_programs("1.27")
    with Chain(programs, tmp_path) as chain:
        ...                                     # attach a tracer to chain.pids
        driven = chain.drive(requests=2000)
    witness = chain.witness()                   # complete once the services have ended

Also a command that runs the chain once, without any tracing: python -m tests.chain.services
"""

from __future__ import annotations

import argparse
import json
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from tools import golang

SOURCES = Path(__file__).resolve().parent.parent / "go" / "chain"

#: The services in the order in which a request passes them.
SERVICES = ("front", "middle", "back")

READY_TIMEOUT = 60.0  # a virtual machine without KVM is slow
STOP_TIMEOUT = 30.0


class ChainError(Exception):
    """A program of the chain did not start, or did not end as it should."""


@dataclass(frozen=True)
class Programs:
    """The built binaries of the chain."""

    service: Path
    drive: Path
    certs: Path


@dataclass(frozen=True)
class Driven:
    """What the driver did: its one-line summary, and one record for each request."""

    summary: dict[str, Any]
    records: list[dict[str, Any]]

    @property
    def failed(self) -> int:
        """How many requests did not get the one right answer."""
        return int(self.summary["failed"])


def build_programs(go: str = "1.27", **form: Any) -> Programs:
    """Build the service with this Go release and form; driver and certificates with the newest one.

    Only the services are traced. What is built already is taken from the cache.
    """
    newest = list(golang.RELEASES)[-1]
    return Programs(
        service=golang.build(SOURCES / "cmd" / "service", go, **form),
        drive=golang.build(SOURCES / "cmd" / "drive", newest),
        certs=golang.build(SOURCES / "cmd" / "certs", newest),
    )


class Chain:
    """The running services; a context manager. All files go into `directory`."""

    #: Their names in the order in which a request passes them.
    services: Sequence[str] = SERVICES

    def __init__(self, programs: Programs, directory: Path) -> None:
        self.programs = programs
        self.directory = directory
        self._services: dict[str, Service] = {}

    def __enter__(self) -> Chain:
        try:
            self.start()
        except BaseException:
            self._kill()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.stop()
        else:
            self._kill()  # the first error is the one to be seen

    def start(self) -> None:
        """Make certificates and start the services, the last one first."""
        certificates = self.directory / "certificates"
        certificates.mkdir(parents=True, exist_ok=True)
        subprocess.run(
            [self.programs.certs, "-out", certificates],
            check=True,
            timeout=READY_TIMEOUT,
            stdin=subprocess.DEVNULL,
        )
        for name in reversed(self.services):
            self._start(name, *self._options(name))

    def _options(self, name: str) -> list[str]:
        """Return what a service is told: whom to call, which certificate to show or to trust."""
        following = self.address_of_next(name)
        return {
            "front": ["-next", f"https://{following}", *self.trusting],
            "middle": ["-next", f"http://{following}", *self.certified],
            "back": [],
        }[name]

    def address_of_next(self, name: str) -> str:
        """Return the address of the service that this one calls; empty for the last."""
        following = self.services.index(name) + 1
        return self._services[self.services[following]].address if following < len(self.services) else ""

    @property
    def certified(self) -> list[str]:
        """The options of a service that serves TLS."""
        certificates = self.directory / "certificates"
        return ["-cert", str(certificates / "server.pem"), "-key", str(certificates / "server-key.pem")]

    @property
    def trusting(self) -> list[str]:
        """The options of a service that calls over TLS."""
        return ["-ca", str(self.directory / "certificates" / "ca.pem")]

    def stop(self) -> None:
        """End the services in an orderly way and wait for them; nothing happens a second time."""
        try:
            for name in self.services:  # who calls ends before who is called
                service = self._services.get(name)
                if service is not None:
                    service.stop()
        finally:
            self._kill()  # only where a service before it did not end well

    @property
    def pids(self) -> dict[str, int]:
        """The process id of each service."""
        return {name: service.process.pid for name, service in self._services.items()}

    @property
    def url(self) -> str:
        """The base URL of the first service."""
        return f"http://{self._services[self.services[0]].address}"

    def drive(self, requests: int, *, concurrency: int = 16, seed: int = 1, timeout: float = 600.0) -> Driven:
        """Send requests with the ids 0 to `requests` - 1 and return what came of them."""
        out = self.directory / "driven.jsonl"
        result = subprocess.run(
            [
                self.programs.drive,
                *("-url", self.url, "-out", out, "-n", str(requests), "-seed", str(seed)),
                *("-concurrency", str(concurrency), "-timeout", f"{timeout:.0f}s"),
            ],
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=timeout + READY_TIMEOUT,
        )
        if not result.stdout.startswith("{"):  # status 1 alone says that requests failed
            raise ChainError(f"the driver ended with status {result.returncode}: {result.stderr}")
        return Driven(json.loads(result.stdout), _read_lines(out))

    def witness(self) -> list[dict[str, Any]]:
        """Return what the services received; complete after `stop`, else up to 0.1 s behind."""
        return [record for service in self._services.values() for record in service.records()]

    def errors(self) -> str:
        """Return what the services wrote to standard error."""
        return "".join(service.errors.read_text() for service in self._services.values())

    def _start(self, name: str, *options: str) -> Service:
        service = Service(name, self.programs.service, self.directory, options)
        self._services[name] = service
        service.wait_until_ready()
        return service

    def _kill(self) -> None:
        for service in self._services.values():
            service.kill()


class Service:
    """One running service."""

    def __init__(self, name: str, binary: Path, directory: Path, options: Sequence[str]) -> None:
        self.name = name
        self.address = ""
        self.witness = directory / f"{name}.witness.jsonl"
        self.errors = directory / f"{name}.stderr"
        self.witness.write_text("")
        with self.errors.open("w") as errors:
            self.process = subprocess.Popen(
                [binary, "-name", name, "-witness", self.witness, *options],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )

    def wait_until_ready(self) -> None:
        """Wait for the first line of output, which is the address the service listens on."""
        readable, _, _ = select.select([self._output], [], [], READY_TIMEOUT)
        self.address = self._output.readline().strip() if readable else ""
        if not self.address:
            raise ChainError(f"{self.name} does not start: {self.errors.read_text() or 'no output'}")

    def stop(self) -> None:
        """Ask for the end, wait for it, and complain if it was not a good one."""
        if self._output.closed:
            return
        self.process.terminate()
        try:
            status = self._wait_and_close(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            self.kill()
            raise ChainError(f"{self.name} did not end within {STOP_TIMEOUT:.0f} seconds") from None
        if status != 0:
            raise ChainError(f"{self.name} ended with status {status}: {self.errors.read_text()}")

    def kill(self) -> None:
        """End the process at once, whatever its state; an ended one stays as it is."""
        self.process.kill()
        self._wait_and_close(None)

    def tell(self, line: str) -> None:
        """Write a line to the process's standard input."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()

    def finish(self, timeout: float) -> str:
        """Wait until the process ends by itself, and return what it has written since it was ready."""
        try:
            output, _ = self.process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            raise ChainError(f"{self.name} did not end within {timeout:.0f} seconds") from None
        if self.process.returncode != 0:
            raise ChainError(
                f"{self.name} ended with status {self.process.returncode}: {self.errors.read_text()}"
            )
        return output

    def records(self) -> list[dict[str, Any]]:
        """Return what the process has witnessed so far."""
        return _read_lines(self.witness)

    def _wait_and_close(self, timeout: float | None) -> int:
        status = self.process.wait(timeout)
        self._output.close()
        if self.process.stdin is not None:
            self.process.stdin.close()
        return status

    @property
    def _output(self) -> IO[str]:
        assert self.process.stdout is not None
        return self.process.stdout


def _read_lines(path: Path) -> list[dict[str, Any]]:
    """Read a file of JSON lines, without a last line that is still being written."""
    return [json.loads(line) for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]


def main() -> int:
    """Run the chain once, untraced, and let the judge say whether nothing was lost or added."""
    from tests.chain.judge import judge

    parser = argparse.ArgumentParser(description="run the test chain once, without tracing")
    parser.add_argument("--go", default="1.27", help="Go release of the services")
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--concurrency", type=int, default=16)
    options = parser.parse_args()

    programs = build_programs(options.go)
    with tempfile.TemporaryDirectory() as directory:
        with Chain(programs, Path(directory)) as chain:
            started = time.monotonic()
            driven = chain.drive(options.requests, concurrency=options.concurrency)
            seconds = time.monotonic() - started
        verdict = judge(driven.records, chain.witness(), None, propagated=False)
    print(json.dumps(driven.summary), f"({seconds:.1f} s with the driver's start)")
    print(verdict)
    return 0 if verdict.ok else 1


if __name__ == "__main__":
    sys.exit(main())
