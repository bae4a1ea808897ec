"""Tracks how long a live source has been unavailable and when to retry. All times are passed in; it opens nothing."""

from __future__ import annotations

import random

_SHORTEST_ATTEMPT_S = 0.5


_SHORTEST_DELAY_S, _LONGEST_DELAY_S = 0.5, 10.0


_DELAY_OF_OUTAGE = 1 / 30
"""Delay before an attempt, as a fraction of the outage so far: 0.5 s for outages up to 15 s, rising to 10 s from 5 min
on. For example, a server that was down for half a minute is retried within about a second."""


_STABLE_S = 60.0
"""A connection that lasts this long resets the outage time. A shorter one reduces the outage time by its duration."""


_FIRST_PATIENCE_S, _PATIENCE_GROWTH = 2.5, 1.4
"""Timeout of the first reconnection attempt, and its growth per attempt up to the open timeout. TCP repeats its first
packet after 1, 3 and 7 s, so a new attempt finds a restored link sooner than an old one does."""


class Outage:
    """The outage time of a source, and the delays and timeouts that follow. Times are from `time.monotonic()`."""

    def __init__(self, give_up_after_s: float | None, now_s: float) -> None:
        self.give_up_after_s = give_up_after_s
        self.was_live = False
        self._since_s: float | None = now_s
        self._live_since_s = now_s
        self._earlier_s = 0.0
        self._attempts = 0

    def over(self, now_s: float) -> None:
        """Record that the source is available."""
        self.was_live = True
        self._earlier_s = self._without_s(now_s)
        self._since_s = None
        self._live_since_s = now_s
        self._attempts = 0

    def lost(self, now_s: float) -> bool:
        """Record that the source is unavailable. Return whether this is a new outage."""
        self._attempts += 1
        if self._since_s is not None:
            return not self.was_live and self._attempts == 1
        held_s = now_s - self._live_since_s
        self._earlier_s = 0.0 if held_s >= _STABLE_S else max(0.0, self._earlier_s - held_s)
        self._since_s = now_s
        return True

    def delay_s(self, now_s: float) -> float | None:
        """Return the seconds to wait before the next attempt; None means give up."""
        left_s = self._left_s(now_s)
        if left_s is not None and left_s <= 0:
            return None
        delay_s = min(max(self._without_s(now_s) * _DELAY_OF_OUTAGE, _SHORTEST_DELAY_S), _LONGEST_DELAY_S)
        delay_s *= random.uniform(0.8, 1.2)  # many sources of one server must not retry at once
        return delay_s if left_s is None else min(delay_s, left_s)

    def patience_s(self, open_timeout_s: float, now_s: float) -> float:
        """Return the timeout of the next attempt, in seconds."""
        patience_s = open_timeout_s
        if self.was_live:
            patience_s = min(patience_s, _FIRST_PATIENCE_S * _PATIENCE_GROWTH ** min(self._attempts - 1, 10))
        left_s = self._left_s(now_s)
        # Allow a minimum time, so that the attempt after the last delay still takes place.
        return patience_s if not left_s or left_s < 0 else min(patience_s, max(left_s, _SHORTEST_ATTEMPT_S))

    def _without_s(self, now_s: float) -> float:
        return self._earlier_s + (0.0 if self._since_s is None else now_s - self._since_s)

    def _left_s(self, now_s: float) -> float | None:
        if self.give_up_after_s is None or self._since_s is None or (self.give_up_after_s == 0 and self.was_live):
            return None
        return self._since_s + self.give_up_after_s - now_s
