"""Tracer: the loaded BPF programs, the processes they trace, the stream of spans."""

from __future__ import annotations

import contextlib
import os
import select
import threading
import time
import warnings
import weakref
from collections.abc import AsyncIterator, Iterator, Sequence

from pytraceprop.attach_mode import choose_attach_mode
from pytraceprop.attachment import Attachment
from pytraceprop.environment import Environment
from pytraceprop.errors import KernelError, PrivilegeError, ProcessGone, TracerClosed
from pytraceprop.links import close_links
from pytraceprop.native import COUNTER_NAMES, MAX_TARGETS, Core
from pytraceprop.probes import read_plan
from pytraceprop.process import Process, processes_of
from pytraceprop.propagation import Propagation, choose
from pytraceprop.span import Span, decode_records
from pytraceprop.subscription import Subscription

_EXIT_CHECK_SECONDS = 0.2
_live: weakref.WeakSet[Tracer] = weakref.WeakSet()


class Tracer:
    """Traces Go processes. A context manager; starts no thread.

    Spans are collected while somebody reads them (`spans`, `batches`, a subscription), or calls
    `drain` whenever `fileno` is readable; until then they wait in a ring buffer of `ring_bytes`.
    """

    def __init__(
        self,
        *,
        propagation: str | Sequence[str] = "auto",
        max_requests: int = 8192,
        ring_bytes: int = 8 << 20,
        drain_interval: float = 0.01,
        environment: Environment | None = None,
        attach_mode: str | None = None,
    ) -> None:
        """Loads the BPF programs; nothing is traced yet.

        propagation: "auto" (write the header into the process's memory where the kernel allows it),
            "off", or a list of methods.
        max_requests: how many requests, of all processes together, can be in flight at once on each
            side; takes some 2.5 KiB of kernel memory each. More are counted as `map_full`.
        ring_bytes: bytes of the ring buffer, a power of two of at least 4096.
        drain_interval: seconds between looks into the ring buffer.
        environment: what the kernel has and allows, instead of Environment.detect(): a platform tests
            its own reactions with it.
        attach_mode: one of ATTACH_MODES, instead of the best that the kernel has; for tests.

        Raises CoreUnavailable, PrivilegeError, FeatureMissing, KernelError, or ValueError.
        """
        if ring_bytes < 4096 or ring_bytes & (ring_bytes - 1):
            raise ValueError(f"ring_bytes must be a power of two of at least 4096, not {ring_bytes}")
        if max_requests < 1:
            raise ValueError(f"max_requests must be positive, not {max_requests}")
        self._closed = True  # until all of this has worked
        self.environment = Environment.detect() if environment is None else environment
        self.propagation: Propagation = choose(propagation, self.environment.lockdown)
        self.core = Core(
            max_requests=max_requests,
            ring_bytes=ring_bytes,
            write_user=self.propagation.method is not None,
            attach_mode=attach_mode or choose_attach_mode(self.environment),
        )
        try:
            self._timer = self.core.open_timer(max(1, round(drain_interval * 1000)))
        except BaseException:
            self.core.close()
            raise
        self._interval = drain_interval
        self._lock = threading.RLock()
        self._attachments: dict[int, Attachment] = {}
        self._pids: dict[int, int] = {}
        self._free_slots = list(range(MAX_TARGETS - 1, -1, -1))
        self._next_incarnation = 1
        self._retired = dict.fromkeys(COUNTER_NAMES, 0)
        self._subscriptions: list[Subscription] = []
        self._default: Subscription | None = None
        self._dropped = 0  # by subscriptions that are closed
        self._last_exit_check = 0.0
        self._closed = False
        _live.add(self)

    # Processes

    def attach(self, pid: int) -> Attachment:
        """Traces one running process. Of one that is traced already, gives the same Attachment.

        Raises ProcessGone, PrivilegeError, NotGo, UnsupportedExecutable, MalformedExecutable,
        KernelError (also when 1024 processes are attached already), or TracerClosed.
        """
        self._check_open()
        process = Process(pid)
        try:
            plan = read_plan(process.exe_link, display=process.executable)
            if process.exited:
                raise ProcessGone(pid)
            with self._lock:
                self._check_open()
                for attachment in self.attachments:
                    if attachment.pid == pid and attachment.state == "attached":
                        process.close()
                        return attachment
                if not self._free_slots:
                    raise KernelError("attaching", 0, f"{MAX_TARGETS} processes are attached already")
                incarnation, slot = self._next_incarnation, self._free_slots.pop()
                self._next_incarnation += 1
                self._pids[incarnation] = pid
                attachment = Attachment(self, process, plan, incarnation, slot)
                try:
                    attachment.attach()
                except BaseException:
                    self._free_slots.append(slot)
                    raise
                self._attachments[incarnation] = attachment
        except FileNotFoundError as error:
            process.close()
            raise ProcessGone(pid) from error
        except PermissionError as error:
            process.close()
            raise PrivilegeError(
                f"reading the executable of process {pid}", "the right to read it"
            ) from error
        except BaseException:
            process.close()
            raise
        return attachment

    def attach_all(self, exe: str | os.PathLike[str]) -> tuple[Attachment, ...]:
        """Traces every process that runs the file now; those that end meanwhile are left out.

        Raises FileNotFoundError, and what `attach` raises.
        """
        found = []
        for pid in processes_of(exe):
            with contextlib.suppress(ProcessGone):
                found.append(self.attach(pid))
        return tuple(found)

    @property
    def attachments(self) -> tuple[Attachment, ...]:
        """The processes that are traced now."""
        with self._lock:
            return tuple(self._attachments.values())

    def end(self, attachments: Sequence[Attachment], state: str) -> None:
        """Not for users: detaches, from Attachment. Several at once take hardly longer than one."""
        with self._lock:
            # The others are, or have been, ended already.
            ending = [a for a in attachments if self._attachments.pop(a.incarnation, None) is not None]
            if not ending:
                return
            # First, so that everything they reported is in the ring.
            close_links([link for attachment in ending for link in attachment.take_links()])
            self.drain()
            for attachment in ending:
                attachment.release(state)
                self._free_slots.append(attachment.slot)
                for name, value in attachment.stats().items():
                    self._retired[name] += value

    # Spans

    def fileno(self) -> int:
        """A descriptor that becomes readable when it is time to `drain`. Raises TracerClosed."""
        self._check_open()
        return self._timer

    def drain(self) -> int:
        """Moves what waits in the ring buffer to the subscriptions; how many spans. Never waits.

        Without a subscription the spans stay where they are. Raises TracerClosed.
        """
        with self._lock:
            self._check_open()
            with contextlib.suppress(BlockingIOError):
                os.read(self._timer, 8)
            self._check_exits()
            self._forget_closed_subscriptions()
            if not self._subscriptions:
                return 0
            total = 0
            while records := self.core.drain():
                offset = time.time_ns() - time.monotonic_ns()
                spans = list(decode_records(records, offset, lambda incarnation: self._pids[incarnation]))
                total += len(spans)
                for subscription in self._subscriptions:
                    subscription.feed(spans)
            return total

    def _check_exits(self) -> None:
        now = time.monotonic()
        if now - self._last_exit_check < _EXIT_CHECK_SECONDS:
            return
        self._last_exit_check = now
        ended: dict[str, list[Attachment]] = {}
        for attachment in self._attachments.values():
            if state := attachment.ended_as():
                ended.setdefault(state, []).append(attachment)
        for state, attachments in ended.items():
            self.end(attachments, state)

    def _wait(self, seconds: float) -> None:
        if self._closed:
            return
        with contextlib.suppress(OSError, ValueError):  # closed meanwhile
            select.select([self._timer], [], [], seconds)

    def _drain_for_reader(self) -> int:
        try:
            return self.drain()
        except TracerClosed:
            return 0

    def subscribe(self, maxlen: int = 65536) -> Subscription:
        """A stream of its own of all spans from now on, for one reader. Raises TracerClosed.

        maxlen: how many unread spans it holds before it drops the oldest, and counts them.
        """
        with self._lock:
            self._check_open()
            subscription = Subscription(maxlen, self._interval, self._wait, self._drain_for_reader)
            self._subscriptions.append(subscription)
            return subscription

    def _forget_closed_subscriptions(self) -> None:
        for subscription in [s for s in self._subscriptions if s.closed]:
            self._subscriptions.remove(subscription)
            self._dropped += subscription.dropped

    def _default_subscription(self) -> Subscription:
        with self._lock:
            if self._default is None:
                self._default = self.subscribe()
            return self._default

    def spans(self, timeout: float | None = None) -> Iterator[Span]:
        """Spans as they end, until `timeout` seconds have passed in all (None: until closed).

        All calls of `spans` and `batches` share one subscription, made by the first of them; what one
        leaves unread the next one gets. Raises TracerClosed.
        """
        return self._default_subscription().spans(timeout)

    def batches(self) -> AsyncIterator[list[Span]]:
        """Lists of spans for `async for` under asyncio, until the tracer is closed."""
        return self._default_subscription().async_batches()

    def stats(self) -> dict[str, int]:
        """Counters of all processes together, those that were detached included, and of this side.

        `subscription_dropped` counts spans that readers were too slow for. Raises TracerClosed.
        """
        with self._lock:
            self._check_open()
            total = dict(self._retired)
            for attachment in self._attachments.values():
                for name, value in attachment.stats().items():
                    total[name] += value
            total["subscription_dropped"] = self._dropped + sum(s.dropped for s in self._subscriptions)
            return total

    # Life

    def _check_open(self) -> None:
        if self._closed:
            raise TracerClosed

    def close(self) -> None:
        """Detaches from every process and unloads everything. Idempotent, safe from any thread.

        Iterators end normally after the spans that were there.
        """
        if self._closed:
            return
        with self._lock:
            if self._closed:
                return
            self.end(self.attachments, "detached")
            self.drain()
            self._closed = True
            for subscription in self._subscriptions:
                subscription.close()
            os.close(self._timer)
            self.core.close()

    def abandon(self) -> None:
        """Not for users: after a fork the child's copy lets go without touching the parent's probes."""
        if self._closed:
            return
        self._closed = True
        self._lock = threading.RLock()  # another thread of the parent may have held the old one
        self.core.abandon()
        for attachment in self._attachments.values():
            for link in attachment.take_links():  # the parent's own descriptors keep it alive
                os.close(link)
        for subscription in self._subscriptions:
            subscription.close()
        os.close(self._timer)

    def __enter__(self) -> Tracer:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __del__(self) -> None:
        if not getattr(self, "_closed", True):
            warnings.warn(f"unclosed {self!r}", ResourceWarning, stacklevel=2, source=self)
            self.close()

    def __repr__(self) -> str:
        state = "closed" if self._closed else f"{len(self._attachments)} processes"
        return f"<Tracer {state}, propagation {self.propagation.method or 'none'}>"


def _after_fork_in_child() -> None:
    for tracer in list(_live):
        tracer.abandon()


os.register_at_fork(after_in_child=_after_fork_in_child)
