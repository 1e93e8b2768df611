"""A subscription is bounded, ends normally, and loses nothing without counting it."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from pytraceprop.subscription import Subscription


class Source:
    """Stands for a tracer: hands out what it was given, a part for each drain."""

    def __init__(self, *parts: list[Any], maxlen: int = 100) -> None:
        self.parts = list(parts)
        self.waits = 0
        self.subscription = Subscription(maxlen, 0.001, self.wait, self.drain)

    def wait(self, seconds: float) -> None:
        self.waits += 1
        time.sleep(min(seconds, 0.001))

    def drain(self) -> int:
        part = self.parts.pop(0) if self.parts else []
        self.subscription.feed(part)
        if not self.parts:
            self.subscription.close()
        return len(part)


def test_spans_come_in_order_and_end_when_closed() -> None:
    source = Source([1, 2], [], [3], [])
    assert list(source.subscription) == [1, 2, 3]


def test_batches_are_never_empty() -> None:
    source = Source([1, 2], [], [3], [])
    assert list(source.subscription.batches()) == [[1, 2], [3]]


def test_beyond_its_bound_the_oldest_are_dropped_and_counted() -> None:
    source = Source(maxlen=3)
    source.subscription.feed(range(10))
    assert source.subscription.read() == [7, 8, 9]
    assert source.subscription.dropped == 7


@pytest.mark.parametrize("method", ["spans", "batches"])
def test_a_timeout_ends_a_stream_that_stays_open(method: str) -> None:
    source = Source()
    source.subscription = Subscription(10, 0.001, source.wait, lambda: 0)
    started = time.monotonic()
    assert list(getattr(source.subscription, method)(timeout=0.05)) == []
    assert 0.05 <= time.monotonic() - started < 5
    assert source.waits > 0


def test_what_one_reader_leaves_the_next_one_gets() -> None:
    source = Source([1, 2, 3], [])
    assert next(source.subscription.spans()) == 1
    assert list(source.subscription.spans()) == [2, 3]


def test_leftovers_are_read_after_closing() -> None:
    source = Source()
    source.subscription.feed([1])
    source.subscription.close()
    source.subscription.close()
    assert list(source.subscription) == [1]
    assert source.subscription.read() == []


def test_it_can_be_read_asynchronously() -> None:
    source = Source([1], [], [2, 3], [])

    async def collect() -> list[Any]:
        return [span async for span in source.subscription]

    assert asyncio.run(collect()) == [1, 2, 3]
