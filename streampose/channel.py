"""The bounded hand-over between two threads, and from several to one. Knows nothing of what it carries.

Values and the ending flow down, closing flows up: the producer calls `put` and at last `finish`; the taker calls
`take` or `take_batch`, and `close` when it wants no more, which wakes the producer with `Closed`.
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
    """The producer is done and everything it put has been taken."""


class Closed(Exception):
    """The taker wants no more."""


class Empty(Exception):
    """Nothing came within the time allowed."""


class Channel(Generic[T]):
    """At most `depth` values on their way from one producer to one taker."""

    def __init__(
        self,
        depth: int,
        *,
        on_drop: Callable[[T], None] | None = None,
        changed: threading.Condition | None = None,
    ) -> None:
        """A channel that waits, or one that drops.

        Args:
            depth: most values that wait to be taken.
            on_drop: None: `put` waits while the channel is full. Else it never waits: the oldest value makes room and
                is given to `on_drop`, in the producer's thread.
            changed: what announces a change; channels that share it can be waited for together.
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
        """Hand `value` over; whether it waits is the channel's nature. Raises `Closed`."""
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
        self,
        limit: int,
        *,
        weigh: Callable[[T], int] = lambda _: 1,
        most: int | None = None,
        fill_s: float = 0.0,
        timeout_s: float | None = None,
    ) -> list[T]:
        """Return the next values, in order, waiting for the first as `take` does.

        Values are added as long as their weights sum to at most `limit` (a first value may weigh more) and there are
        at most `most` of them; further ones are waited for up to `fill_s` seconds after the first. Raises as `take`
        does; an ending behind a batch is raised by the next call.
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
        """Return when everything put has been taken. Raises `Closed`."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or not self._values)
            if self._closed:
                raise Closed

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


@dataclass(frozen=True, slots=True)
class Ending:
    """The end of one channel among several: behind its last value."""

    error: BaseException | None
    """Why it failed; None for an ordinary end."""


class Merge(Generic[T]):
    """Several channels taken from as one: each in its own order, none before its turn comes round."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._inlets: list[Channel[T]] = []
        self._ended: set[int] = set()
        self._turn = 0

    def inlet(self, depth: int, *, on_drop: Callable[[T], None] | None = None) -> Channel[T]:
        """Add a channel, numbered from 0 on; all of them before anything is taken."""
        channel: Channel[T] = Channel(depth, on_drop=on_drop, changed=self._changed)
        self._inlets.append(channel)
        return channel

    def take(self, timeout_s: float | None = None, *, but: Collection[int] = ()) -> tuple[int, T | Ending]:
        """Return the number of a channel, none of `but`, and its next value or, once, its ending.

        Raises `Finished` when every channel has ended, `Empty` when nothing came in time.
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
        """Return the next up to `limit` of what `take` gives, at most `most_each` of one channel, waiting for the first
        and up to `fill_s` for the others.
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
