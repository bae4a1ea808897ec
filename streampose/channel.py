"""Bounded channels between two threads, and from several threads to one. Knows nothing about the values.

Values and the ending flow down; closing flows up. The producer calls `put` for each value, then `finish`. The consumer
calls `take` or `take_batch`. To stop early, the consumer calls `close`; the producer's `put` then raises `Closed`.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")


class Finished(Exception):
    """The producer has finished, and all values have been taken."""


class Closed(Exception):
    """The consumer has closed the channel."""


class Empty(Exception):
    """No value arrived in time."""


class Channel(Generic[T]):
    """Carries values from one producer to one consumer and holds at most `depth` of them."""

    def __init__(
        self,
        depth: int,
        *,
        on_drop: Callable[[T], None] | None = None,
        changed: threading.Condition | None = None,
    ) -> None:
        """Create a channel that either waits or drops values when it is full.

        Args:
            depth: maximum number of waiting values.
            on_drop: if None, `put` waits while the channel is full. Otherwise `put` never waits: it removes the oldest
                value and passes it to `on_drop`, in the producer's thread.
            changed: condition that is notified of every change. A thread can wait for several channels that share it.
        """
        if depth < 1:
            raise ValueError(f"a channel holds at least one value, not {depth}")
        self.depth = depth
        self._on_drop = on_drop
        self._values: deque[T] = deque()
        self._finished = False
        self._closed = False
        self._error: BaseException | None = None
        self._changed = changed or threading.Condition()

    def __len__(self) -> int:
        return len(self._values)

    @property
    def closed(self) -> bool:
        """Whether the consumer has closed the channel."""
        return self._closed

    @property
    def finished(self) -> bool:
        """Whether the producer has finished. Values may still be waiting."""
        return self._finished

    def put(self, value: T) -> None:
        """Add a value; `on_drop` decides what happens if the channel is full. Raises `Closed`."""
        oldest: list[T] = []
        with self._changed:
            if self._on_drop is None:
                self._changed.wait_for(lambda: self._closed or len(self._values) < self.depth)
            if self._closed:
                raise Closed
            if self._finished:
                raise RuntimeError("put after finish")
            if len(self._values) == self.depth:
                oldest.append(self._values.popleft())
            self._values.append(value)
            self._changed.notify_all()
        for dropped in oldest:
            assert self._on_drop is not None
            self._on_drop(dropped)

    def finish(self, error: BaseException | None = None) -> None:
        """End the stream after the last value, with `error` if it failed. Only the first call counts. Never waits."""
        with self._changed:
            if not self._finished:
                self._finished = True
                self._error = error
                self._changed.notify_all()

    def take(self, timeout_s: float | None = None) -> T:
        """Wait for the next value and return it. With `timeout_s=0`, do not wait.

        Raises `Finished` or the producer's error after the last value, `Closed` if the channel is closed, and `Empty`
        if no value arrives in time.
        """
        with self._changed:
            self._wait(timeout_s)
            return self._pop()

    def take_batch(
        self,
        limit: int,
        *,
        weigh: Callable[[T], int] = lambda _: 1,
        most: int | None = None,
        fill_s: float = 0.0,
        is_last: Callable[[T], bool] = lambda _: False,
        timeout_s: float | None = None,
    ) -> list[T]:
        """Return a batch of the next values in order. Wait for the first value like `take`.

        The batch holds at most `most` values, and their weights sum to at most `limit`; a single value may weigh more.
        Wait up to `fill_s` seconds for further values, but not after a value of which `is_last` is true. Raises the
        same exceptions as `take`. If the stream ends after the batch, the next call raises the ending.
        """
        batch = [self.take(timeout_s)]
        total = weigh(batch[0])
        deadline = time.monotonic() + fill_s
        with self._changed:
            while most is None or len(batch) < most:
                with suppress(Empty):
                    self._wait(0.0 if is_last(batch[-1]) else deadline - time.monotonic())
                if not self._values or total + weigh(self._values[0]) > limit:
                    break
                batch.append(self._pop())
                total += weigh(batch[-1])
        return batch

    def wait_until_empty(self) -> None:
        """Wait until every value has been taken. Raises `Closed`."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or not self._values)
            if self._closed:
                raise Closed

    def close(self) -> None:
        """Discard waiting values and wake the producer. Safe to call twice and from any thread."""
        with self._changed:
            self._closed = True
            self._values.clear()
            self._changed.notify_all()

    def __iter__(self) -> Iterator[T]:
        """Yield every value, then raise the producer's error if there is one."""
        while True:
            try:
                yield self.take()
            except Finished:
                return

    def _wait(self, timeout_s: float | None) -> None:
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while not (self._closed or self._values or self._finished):
            remaining = None if deadline is None else deadline - time.monotonic()
            if remaining is not None and remaining <= 0:
                raise Empty
            self._changed.wait(remaining)

    def _pop(self) -> T:
        if self._closed:
            raise Closed
        if self._values:
            value = self._values.popleft()
            self._changed.notify_all()
            return value
        if self._error is not None:
            raise self._error
        raise Finished


@dataclass(frozen=True, slots=True)
class Ending:
    """Marks the end of one channel of a `Merge`, after its last value."""

    error: BaseException | None
    """The error if the producer failed; None for a normal end."""


class Merge(Generic[T]):
    """Takes values from several channels in turn. The values of each channel keep their order."""

    def __init__(self, *, stays_open: bool = False) -> None:
        """Create a merge. With `stays_open`, it waits for channels that are added later, until `seal` is called."""
        self._changed = threading.Condition()
        self._inlets: dict[int, Channel[T]] = {}
        """The channels that have not ended, by number."""
        self._added = 0
        self._turn = 0
        self._stays_open = stays_open

    @property
    def is_idle(self) -> bool:
        """Whether all channels so far have ended."""
        return not self._inlets

    def inlet(self, depth: int, *, on_drop: Callable[[T], None] | None = None) -> Channel[T]:
        """Add a channel and return it. Channels are numbered from 0. Without `stays_open`, add all of them before the
        first `take`.
        """
        channel: Channel[T] = Channel(depth, on_drop=on_drop, changed=self._changed)
        with self._changed:
            self._inlets[self._added] = channel
            self._added += 1
        return channel

    def seal(self) -> None:
        """Wait for no further channels. Safe to call twice and from any thread."""
        with self._changed:
            self._stays_open = False
            self._changed.notify_all()

    def take(self, timeout_s: float | None = None, *, but: Collection[int] = ()) -> tuple[int, T | Ending]:
        """Return the number of a channel and its next value or, once, its `Ending`. Skip the channels in `but`.

        Raises `Finished` when all channels have ended, and `Empty` if no value arrives in time.
        """
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        with self._changed:
            while True:
                if not self._inlets and not self._stays_open:
                    raise Finished
                for number in sorted(self._inlets, key=lambda number: (number < self._turn, number)):
                    if number not in but and (found := self._next_of(number)) is not None:
                        self._turn = number + 1
                        return number, found[0]
                remaining = None if deadline is None else deadline - time.monotonic()
                if remaining is not None and remaining <= 0:
                    raise Empty
                self._changed.wait(remaining)

    def take_batch(
        self, limit: int, *, most_each: int | None = None, fill_s: float = 0.0
    ) -> list[tuple[int, T | Ending]]:
        """Return a batch of up to `limit` items of `take`, with at most `most_each` per channel.

        Wait for the first item, and up to `fill_s` seconds for the others while a channel is left that may have them.
        Raises `Finished` like `take`.
        """
        batch = [self.take()]
        counts = Counter([batch[0][0]])
        deadline = time.monotonic() + fill_s
        with suppress(Empty, Finished):
            while len(batch) < limit and not self.is_idle:
                full = [number for number, count in counts.items() if count == most_each]
                batch.append(self.take(max(0.0, deadline - time.monotonic()), but=full))
                counts[batch[-1][0]] += 1
        return batch

    def _next_of(self, number: int) -> tuple[T | Ending] | None:
        try:
            return (self._inlets[number].take(timeout_s=0),)
        except Empty:
            return None
        except (Finished, Closed):
            ending = Ending(None)
        except BaseException as error:
            ending = Ending(error)
        del self._inlets[number]
        return (ending,)
