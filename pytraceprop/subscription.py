"""Subscription: a bounded stream of spans for one reader."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator

from pytraceprop.span import Span


class Subscription:
    """Spans as they end, oldest first. Iterate over it, plainly or with `async for`.

    Holds at most `maxlen` spans that were not read yet; beyond that the oldest are dropped and counted
    in `dropped`. Iteration ends normally when the subscription or its tracer is closed.
    """

    def __init__(
        self, maxlen: int, interval: float, wait: Callable[[float], None], drain: Callable[[], int]
    ) -> None:
        """Not for users: see Tracer.subscribe. `interval` in seconds; `wait` takes seconds."""
        self._spans: deque[Span] = deque()
        self._maxlen = maxlen
        self._interval = interval
        self._wait = wait
        self._drain = drain
        self._lock = threading.Lock()
        self.dropped = 0
        self.closed = False

    def feed(self, spans: Iterable[Span]) -> None:
        """Not for users: adds what a drain brought."""
        with self._lock:
            self._spans.extend(spans)
            while len(self._spans) > self._maxlen:
                self._spans.popleft()
                self.dropped += 1

    def close(self) -> None:
        """Ends the stream after what it holds. Idempotent."""
        self.closed = True

    def read(self) -> list[Span]:
        """All spans that are there, without waiting."""
        if not self.closed:
            self._drain()
        with self._lock:
            spans = list(self._spans)
            self._spans.clear()
        return spans

    def batches(self, timeout: float | None = None) -> Iterator[list[Span]]:
        """Lists of spans, none of them empty, until `timeout` seconds have passed (None: until closed)."""
        end = None if timeout is None else time.monotonic() + timeout
        while True:
            closed = self.closed  # before reading: what comes in between is still read
            if spans := self.read():
                yield spans
            elif closed:
                return
            remaining = self._interval if end is None else end - time.monotonic()
            if remaining <= 0:
                return
            self._wait(min(remaining, 1.0))

    def spans(self, timeout: float | None = None) -> Iterator[Span]:
        """Single spans until `timeout` seconds have passed (None: until closed).

        What is unread when the reader stops stays for the next one.
        """
        end = None if timeout is None else time.monotonic() + timeout
        while True:
            closed = self.closed  # before looking: what comes in between is still read
            if not closed:
                self._drain()
            for _ in range(len(self._spans)):  # not what comes meanwhile: the clock is asked first
                with self._lock:
                    if not self._spans:
                        break
                    span = self._spans.popleft()
                yield span
            if closed and not self._spans:
                return
            remaining = 1.0 if end is None else end - time.monotonic()
            if remaining <= 0:
                return
            if not self._spans:
                self._wait(min(remaining, 1.0))

    def __iter__(self) -> Iterator[Span]:
        return self.spans()

    async def async_batches(self) -> AsyncIterator[list[Span]]:
        """The same as `batches` for `async for` under asyncio, until closed."""
        while True:
            closed = self.closed
            if spans := self.read():
                yield spans
            elif closed:
                return
            await asyncio.sleep(self._interval)

    async def __aiter__(self) -> AsyncIterator[Span]:
        async for spans in self.async_batches():
            for span in spans:
                yield span
