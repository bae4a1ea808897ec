"""The bounded hand-over between two threads. Knows nothing of what it carries.

Values and the ending flow down, closing flows up: the producer calls `put` and at last `finish`; the taker calls
`take` or `take_batch`, and `close` when it wants no more, which wakes the producer with `Closed`.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Generic, TypeVar

T = TypeVar("T")


class Finished(Exception):
    """The producer is done and everything it put has been taken."""


class Closed(Exception):
    """The taker wants no more."""


class Empty(Exception):
    """Nothing came within the time allowed."""


class Channel(Generic[T]):
    """At most `depth` values on their way from one producer to one taker; `put` waits while it is full."""

    def __init__(self, depth: int) -> None:
        if depth < 1:
            raise ValueError(f"a channel holds at least one value, not {depth}")
        self.depth = depth
        self._values: deque[T] = deque()
        self._finished = False
        self._closed = False
        self._error: BaseException | None = None
        self._changed = threading.Condition()

    def __len__(self) -> int:
        return len(self._values)

    @property
    def closed(self) -> bool:
        """Whether the taker wants no more."""
        return self._closed

    def put(self, value: T) -> None:
        """Hand `value` over, waiting while the channel is full. Raises `Closed`."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or len(self._values) < self.depth)
            if self._closed:
                raise Closed
            if self._finished:
                raise RuntimeError("put after finish")
            self._values.append(value)
            self._changed.notify_all()

    def finish(self, error: BaseException | None = None) -> None:
        """End the stream behind the last value; `error` says that it ends in failure. Only the first call counts;
        never waits.
        """
        with self._changed:
            if not self._finished:
                self._finished = True
                self._error = error
                self._changed.notify_all()

    def take(self, timeout_s: float | None = None) -> T:
        """Return the next value, waiting for it; `timeout_s=0` does not wait.

        Raises `Finished` or the producer's error at the end, `Closed` once closed, `Empty` when nothing came in time.
        """
        with self._changed:
            self._wait(timeout_s)
            return self._pop()

    def take_batch(
        self, limit: int, *, weigh: Callable[[T], int] = lambda _: 1, most: int | None = None, fill_s: float = 0.0
    ) -> list[T]:
        """Return the next values, in order, waiting for the first.

        Values are added as long as their weights sum to at most `limit` (a first value may weigh more) and there are
        at most `most` of them; further ones are waited for up to `fill_s` seconds after the first. Raises as `take`
        does; an ending behind a batch is raised by the next call.
        """
        batch = [self.take()]
        total = weigh(batch[0])
        deadline = time.monotonic() + fill_s
        with self._changed:
            while most is None or len(batch) < most:
                with suppress(Empty):
                    self._wait(deadline - time.monotonic())
                if not self._values or total + weigh(self._values[0]) > limit:
                    break
                batch.append(self._pop())
                total += weigh(batch[-1])
        return batch

    def close(self) -> None:
        """Want no more: what waits is discarded and the producer woken. Safe twice, from any thread."""
        with self._changed:
            self._closed = True
            self._values.clear()
            self._changed.notify_all()

    def __iter__(self) -> Iterator[T]:
        """Yield every value up to the end; raises the producer's error behind the last."""
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
