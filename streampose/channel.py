"""Bounded channels between two threads, and from several threads to one. Knows nothing of the values.

Values and the ending flow down; closing flows up. The producer calls `put`, then `finish`. The taker calls `take` or
`take_batch`. When it wants no more it calls `close`, which wakes the producer with `Closed`.
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
    """The producer has finished and every value has been taken."""


class Closed(Exception):
    """The taker wants no more."""


class Empty(Exception):
    """No value arrived in time."""


class Channel(Generic[T]):
    """Carries at most `depth` values from one producer to one taker."""

    def __init__(
        self,
        depth: int,
        *,
        on_drop: Callable[[T], None] | None = None,
        changed: threading.Condition | None = None,
    ) -> None:
        """Make a channel that waits when full, or one that drops.

        Args:
            depth: maximum number of waiting values.
            on_drop: if None, `put` waits while the channel is full. Otherwise `put` never waits: it removes the oldest
                value and passes it to `on_drop`, in the producer's thread.
            changed: notified of every change. Channels that share it can be waited for together.
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
        """Whether the taker wants no more."""
        return self._closed

    def put(self, value: T) -> None:
        """Add a value; see `on_drop` for a full channel. Raises `Closed`."""
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
        """Wait for the next value and return it; `timeout_s=0` does not wait.

        Raises `Finished` or the producer's error at the end, `Closed` once closed, `Empty` if no value arrives in time.
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
        timeout_s: float | None = None,
    ) -> list[T]:
        """Return the next values in order. Waits for the first as `take` does.

        A batch holds at most `most` values, whose weights sum to at most `limit`; a single value may weigh more. Waits
        up to `fill_s` seconds for further values. Raises as `take` does; the next call raises an ending that follows
        the batch.
        """
        batch = [self.take(timeout_s)]
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

    def wait_until_empty(self) -> None:
        """Wait until every value has been taken. Raises `Closed`."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or not self._values)
            if self._closed:
                raise Closed

    def close(self) -> None:
        """Discard waiting values and wake the producer. Safe twice, from any thread."""
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
    """The end of one channel of a `Merge`, after its last value."""

    error: BaseException | None
    """The cause of a failure; None for an ordinary end."""


class Merge(Generic[T]):
    """Takes from several channels in turn; each keeps its own order."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._inlets: list[Channel[T]] = []
        self._ended: set[int] = set()
        self._turn = 0

    def inlet(self, depth: int, *, on_drop: Callable[[T], None] | None = None) -> Channel[T]:
        """Add a channel; numbers start at 0. Add all channels before taking."""
        channel: Channel[T] = Channel(depth, on_drop=on_drop, changed=self._changed)
        self._inlets.append(channel)
        return channel

    def take(self, timeout_s: float | None = None, *, but: Collection[int] = ()) -> tuple[int, T | Ending]:
        """Return the number of a channel and its next value or, once, its ending. Skips the channels in `but`.

        Raises `Finished` when every channel has ended, `Empty` if no value arrives in time.
        """
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        with self._changed:
            while True:
                if len(self._ended) == len(self._inlets):
                    raise Finished
                for step in range(len(self._inlets)):
                    number = (self._turn + step) % len(self._inlets)
                    if number not in self._ended and number not in but and (found := self._next_of(number)) is not None:
                        self._turn = number + 1
                        return number, found[0]
                remaining = None if deadline is None else deadline - time.monotonic()
                if remaining is not None and remaining <= 0:
                    raise Empty
                self._changed.wait(remaining)

    def take_batch(
        self, limit: int, *, most_each: int | None = None, fill_s: float = 0.0
    ) -> list[tuple[int, T | Ending]]:
        """Return up to `limit` items of `take`, at most `most_each` per channel. Waits for the first item, and up to
        `fill_s` seconds for the others.
        """
        batch = [self.take()]
        counts = Counter([batch[0][0]])
        deadline = time.monotonic() + fill_s
        with suppress(Empty, Finished):
            while len(batch) < limit:
                full = [number for number, count in counts.items() if count == most_each]
                batch.append(self.take(max(0.0, deadline - time.monotonic()), but=full))
                counts[batch[-1][0]] += 1
        return batch

    def _next_of(self, number: int) -> tuple[T | Ending] | None:
        channel = self._inlets[number]
        try:
            return (channel.take(timeout_s=0),)
        except Empty:
            return None
        except (Finished, Closed):
            self._ended.add(number)
            return (Ending(None),)
        except BaseException as error:
            self._ended.add(number)
            return (Ending(error),)
