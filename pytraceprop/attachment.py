"""Attachment: one traced process, its probes, its propagation."""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

from pytraceprop.errors import KernelError, ProcessGone, UnsupportedExecutable
from pytraceprop.links import close_links
from pytraceprop.probes import Plan, ProtocolPlan
from pytraceprop.process import Process
from pytraceprop.propagation import Propagation
from pytraceprop.protocol import Protocol, protocols_of

if TYPE_CHECKING:
    from pytraceprop.tracer import Tracer


#: This machine, by the name that plans have for it.
_MACHINE = {"aarch64": "arm64"}.get(os.uname().machine, os.uname().machine)


class Attachment:
    """One traced process. Made by `Tracer.attach`; a context manager that detaches.

    `pid` and `start_time` (clock ticks since boot) say which process, `executable` is its path, `go`
    the release that built it, `module` its main module. `protocols` and `propagation` map each
    protocol ("http/1.1", "http/2") to what is at work and why not more.
    """

    def __init__(self, tracer: Tracer, process: Process, plan: Plan, incarnation: int, slot: int) -> None:
        """Not for users: see Tracer.attach."""
        self._tracer = tracer
        self._process = process
        self._plan = plan
        self.slot = slot
        self._links: list[int] = []
        self._final: dict[str, int] | None = None
        self.incarnation = incarnation
        self.pid = process.pid
        self.start_time = process.start_time
        self.executable = process.executable
        self.go = plan.go
        self.module = plan.module
        self._state = "attached"
        self.protocols: Mapping[str, Protocol] = MappingProxyType(protocols_of(plan))
        self.propagation: Mapping[str, Propagation] = MappingProxyType(
            {name: self._propagation(part) for name, part in plan.protocols.items()}
        )

    def _propagation(self, plan: ProtocolPlan) -> Propagation:
        if not plan.client.possible:
            return Propagation(None, f"outgoing requests cannot be traced: {plan.client.reason}")
        return self._tracer.propagation

    @property
    def state(self) -> str:
        """One of "attached", "detached", "exited", "replaced".

        "replaced": the process has called execve(2) and runs another program now, or the same one from
        its beginning; attach to it again to trace that.
        """
        if ended := self.ended_as():
            self._tracer.end([self], ended)
        return self._state

    def attach(self) -> None:
        """Not for users: describes the process to the programs and links them."""
        if not self._plan.sites:
            reasons = "; ".join(f"{name}: {p.reason}" for name, p in self.protocols.items())
            raise UnsupportedExecutable(self.executable, f"nothing in it can be traced ({reasons})")
        if self._plan.machine != _MACHINE:
            reason = f"it is compiled for {self._plan.machine}, and only {_MACHINE} is traced on this machine"
            raise UnsupportedExecutable(self.executable, reason)
        core = self._tracer.core
        bias = self._process.load_bias()
        inject = any(p.method == "user-memory" for p in self.propagation.values())
        core.set_target(
            self.slot,
            {"incarnation": self.incarnation, "inject": int(inject), **self._plan.fields_at(bias)},
        )
        try:
            core.watch(self.pid, self.slot)
            core.add_context_types(
                self.incarnation, {t + bias: o for t, o in self._plan.context_types.items()}
            )
            self._links = core.attach(
                self._process.exe_link,
                self.pid,
                identity=self._plan.identity,
                incarnation=self.incarnation,
                slot=self.slot,
                sites=self._plan.sites,
            )
            # What was read is true of the program that was there before its execve was watched.
            same = self._process.runs(self._plan.identity) and self._process.load_bias() == bias
            if self.ended_as() or not same:
                raise ProcessGone(self.pid)
        except KernelError as error:
            # Its file and its threads go before the pidfd says so.
            gone = error.errno in (errno.ENOENT, errno.ESRCH) or self._process.exited
            self.release("detached")
            if gone:
                raise ProcessGone(self.pid) from error
            raise
        except BaseException:
            self.release("detached")
            raise

    def stats(self) -> dict[str, int]:
        """Counters of this process, by name; they stay readable after detaching.

        docs/counters.md says what each of them counts.
        """
        if self._final is not None:
            return dict(self._final)
        return self._tracer.core.counters(self.slot)

    def ended_as(self) -> str:
        """Not for users: the state that the process itself has brought about; empty while it runs."""
        if self._state != "attached":
            return ""
        if self._process.exited:
            return "exited"
        return "replaced" if self._tracer.core.is_vacant(self.slot) else ""

    def detach(self) -> None:
        """Removes the probes; the process goes on untouched. Idempotent, safe from any thread.

        Requests that are under way are not reported. Takes some 50 ms (the kernel waits until no
        processor is in a probe any more), on kernels without uprobe-multi links up to a second.
        """
        self._tracer.end([self], "detached")

    def release(self, state: str) -> None:
        """Not for users: takes everything back from the kernel."""
        if self._state != "attached":
            return
        self._state = state
        close_links(self.take_links())
        core = self._tracer.core
        core.unwatch(self.pid)
        self._final = core.counters(self.slot)
        self._final["abandoned"] += core.forget(self.incarnation)
        core.set_target(self.slot, {})
        self._process.close()

    def take_links(self) -> list[int]:
        """Not for users: the links' descriptors, which are the caller's to close now."""
        links, self._links = self._links, []
        return links

    def __enter__(self) -> Attachment:
        return self

    def __exit__(self, *exc: object) -> None:
        self.detach()

    def __repr__(self) -> str:
        return f"<Attachment pid={self.pid} {self.executable} go{self.go} {self._state}>"
