"""A subscription is bounded, ends normally, and loses nothing without counting it."""

from __future__ import annotations

import asyncio
import threading
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


def test_drops_add_up_and_reading_makes_room() -> None:
    subscription = Subscription(2, 0.001, lambda seconds: None, lambda: 0)
    subscription.feed([1, 2])
    assert subscription.dropped == 0
    subscription.feed([3])
    subscription.feed(iter([4]))
    assert subscription.dropped == 2
    assert subscription.read() == [3, 4]
    subscription.feed([5, 6])
    assert (subscription.read(), subscription.dropped) == ([5, 6], 2)


def test_a_closed_subscription_does_not_drain() -> None:
    drains = []
    subscription = Subscription(2, 0.001, lambda seconds: None, lambda: drains.append(1) or 0)
    subscription.close()
    assert (subscription.read(), list(subscription), list(subscription.batches())) == ([], [], [])
    assert not drains


@pytest.mark.parametrize("method", ["spans", "batches"])
def test_no_wait_is_longer_than_what_is_left_of_the_timeout(method: str) -> None:
    waits: list[float] = []

    def wait(seconds: float) -> None:
        waits.append(seconds)
        time.sleep(seconds)

    subscription = Subscription(2, 0.001, wait, lambda: 0)
    assert list(getattr(subscription, method)(timeout=0.02)) == []
    assert waits
    assert all(0 < seconds <= 0.02 for seconds in waits)


@pytest.mark.parametrize("method", ["spans", "batches"])
def test_a_timeout_of_zero_hands_out_what_is_there_without_waiting(method: str) -> None:
    source = Source()
    source.subscription = Subscription(10, 0.001, source.wait, lambda: 0)
    source.subscription.feed([1, 2])
    assert list(getattr(source.subscription, method)(timeout=0)) in ([1, 2], [[1, 2]])
    assert source.waits == 0


@pytest.mark.parametrize("method", ["spans", "batches"])
def test_closing_while_a_reader_waits_ends_its_stream_after_the_leftovers(method: str) -> None:
    source = Source()

    def wait(seconds: float) -> None:
        if not source.subscription.closed:  # a reader may wait once more, for nothing
            source.subscription.feed([1])
            source.subscription.close()

    source.subscription = Subscription(10, 0.001, wait, lambda: 0)
    assert list(getattr(source.subscription, method)()) in ([1], [[1]])


@pytest.mark.parametrize("method", ["spans", "batches"])
def test_a_timeout_ends_a_stream_that_never_pauses(method: str) -> None:
    def drain() -> int:
        subscription.feed([1])
        return 1

    subscription = Subscription(10, 0.001, lambda seconds: None, drain)
    started = time.monotonic()
    for _ in getattr(subscription, method)(timeout=0.05):
        assert time.monotonic() - started < 2, "the timeout passed long ago"


def test_what_comes_between_the_last_look_and_closing_is_still_in_a_batch() -> None:
    class Raced(Subscription):
        """Another thread feeds and closes just after the reader found nothing."""

        def read(self) -> list[Any]:
            spans = super().read()
            if not self.closed:
                self.feed([1])
                self.close()
            return spans

    raced = Raced(10, 0.001, lambda seconds: None, lambda: 0)
    assert list(raced.batches()) == [[1]]


def test_an_asynchronous_reader_ends_when_closed_meanwhile_and_blocks_nobody() -> None:
    subscription = Subscription(10, 0.001, lambda seconds: pytest.fail("it blocked"), lambda: 0)

    async def collect() -> list[Any]:
        return [span async for span in subscription]

    async def main() -> list[Any]:
        reader = asyncio.create_task(collect())
        for number in range(3):
            await asyncio.sleep(0.003)
            subscription.feed([number])
        subscription.close()
        return await asyncio.wait_for(reader, 5)

    assert asyncio.run(main()) == [0, 1, 2]


def test_threads_that_feed_and_read_lose_nothing_uncounted() -> None:
    subscription = Subscription(50, 0.001, lambda seconds: None, lambda: 0)

    def feed() -> None:
        for start in range(0, 5000, 10):
            subscription.feed(range(start, start + 10))

    threads = [threading.Thread(target=feed) for _ in range(2)]
    for thread in threads:
        thread.start()
    got = 0
    while any(thread.is_alive() for thread in threads):
        got += len(subscription.read())
    got += len(subscription.read())
    assert got + subscription.dropped == 10_000


def test_a_timeout_ends_a_stream_that_is_refilled_during_each_span() -> None:
    source = Source()
    subscription = Subscription(10, 0.001, source.wait, lambda: 0)
    subscription.feed([0])
    started = time.monotonic()
    for span in subscription.spans(timeout=0.05):
        subscription.feed([span])  # as another reader's drain would
        assert time.monotonic() - started < 5
