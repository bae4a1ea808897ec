"""How often an unavailable source is tried again, and when it is given up."""

from __future__ import annotations

import pytest

from streampose.sources.outage import Outage


class TestOutage:
    def test_delays_grow_and_a_server_is_asked_again_soon(self) -> None:
        outage = Outage(None, 0.0)
        outage.over(0.0)
        assert outage.lost(100.0)
        assert not outage.lost(101.0)
        delays = {after_s: outage.delay_s(100.0 + after_s) or 0 for after_s in (0, 10, 30, 150, 3000)}
        assert 0.4 <= delays[0] <= 0.6
        assert delays[10] <= 0.6
        assert delays[30] <= 1.2
        assert 4 <= delays[150] <= 6
        assert 8 <= delays[3000] <= 12

    def test_a_connection_that_never_holds_is_asked_less_and_less(self) -> None:
        outage = Outage(None, 0.0)
        now_s = 0.0
        for _ in range(1000):
            outage.over(now_s)
            now_s += 0.1
            outage.lost(now_s)
            now_s += outage.delay_s(now_s) or 0
        assert (outage.delay_s(now_s) or 0) > 5
        outage.over(now_s)
        outage.lost(now_s + 60)
        assert (outage.delay_s(now_s + 60) or 0) <= 0.6

    def test_giving_up(self) -> None:
        at_once, never, later = Outage(0.0, 0.0), Outage(None, 0.0), Outage(2.0, 0.0)
        for outage in (at_once, never, later):
            outage.lost(1.9)
        assert at_once.delay_s(1.9) is None
        assert never.delay_s(1e6) is not None
        assert (later.delay_s(1.9) or 1) <= 0.11
        assert later.patience_s(5.0, 1.9) == pytest.approx(0.5)
        assert later.delay_s(2.0) is None
        for outage in (at_once, never, later):
            outage.over(10.0)
            outage.lost(20.0)
        assert at_once.delay_s(1e6) is not None
        assert later.delay_s(21.9) is not None
        assert later.delay_s(22.1) is None
