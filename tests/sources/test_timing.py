"""The times of live frames, and how late each frame is."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streampose.sources.timing import Timing
from tests.sources.live import FPS, FRESHNESS_S


class TestTiming:
    TICKS = Fraction(1, 1000)

    def timing(self, *, is_paced: bool = False) -> Timing:
        timing = Timing(FRESHNESS_S)
        timing.connected(self.TICKS, Fraction(FPS), is_paced=is_paced)
        return timing

    @given(st.lists(st.tuples(st.none() | st.integers(-(2**33), 2**33), st.floats(0, 10)), min_size=2))
    def test_times_grow_whatever_comes(self, arrivals: list[tuple[int | None, float]]) -> None:
        timing = self.timing()
        now_s = 1000.0
        times_s = []
        for number, (pts, waited_s) in enumerate(arrivals):
            now_s += waited_s
            if number % 5 == 4:
                timing.connected(Fraction(1, 90_000), None, is_paced=False)
            times_s.append(timing.place(pts, now_s)[0])
        assert all(late > early for early, late in pairwise(times_s))
        assert times_s[0] == 0.0

    def test_a_new_connection_goes_on_by_the_wall_clock(self) -> None:
        timing = self.timing()
        assert [timing.place(pts, 50 + pts / 1000)[0] for pts in (0, 40, 80)] == pytest.approx([0, 0.04, 0.08])
        timing.connected(Fraction(1, 90_000), Fraction(FPS), is_paced=False)
        assert timing.place(9_000_000, 53.0) == pytest.approx((3.0, 0.0))
        assert timing.place(9_003_600, 53.05) == pytest.approx((3.04, 0.01), abs=1e-3)

    @pytest.mark.parametrize("timed", [True, False])
    def test_what_has_waited_is_late_until_it_has_caught_up(self, timed: bool) -> None:
        timing = self.timing()
        for pts in range(0, 1000, 40):
            assert timing.place(pts, 50 + pts / 1000)[1] == pytest.approx(0, abs=1e-3)
        # 3 s of frames come within 0.3 s, the first ones perhaps without a time
        late = [
            timing.place(pts if timed or number > 2 else None, 54.0 + number * 0.004)[1]
            for number, pts in enumerate(range(1000, 4000, 40))
        ]
        assert late[0] == pytest.approx(3.0, abs=0.05)
        assert late == sorted(late, reverse=True)
        assert late[-1] < FRESHNESS_S

    def test_a_clock_that_lost_time_does_not_blank_the_source(self) -> None:
        timing = self.timing()
        for pts in range(0, 1000, 40):
            timing.place(pts, 50 + pts / 1000)
        late = [timing.place(pts, 53 + pts / 1000)[1] > FRESHNESS_S for pts in range(1000, 4000, 40)]
        assert sum(late) == pytest.approx(FPS, abs=2)  # a second's worth
        assert not any(late[FPS + 2 :])

    @pytest.mark.parametrize("jump_s", [-5000, 5000])
    def test_a_new_clock_is_no_reason_to_skip(self, jump_s: int) -> None:
        timing = self.timing()
        for pts in range(0, 1000, 40):
            timing.place(pts, 50 + pts / 1000)
        for pts in range(1000, 2000, 40):
            time_s, behind_s = timing.place(pts + jump_s * 1000, 50 + pts / 1000)
            assert time_s == pytest.approx(pts / 1000, abs=1e-3)
            assert behind_s == pytest.approx(0, abs=1e-3)

    @pytest.mark.parametrize("drift", [-1e-4, 1e-4])
    def test_clocks_may_drift_apart(self, drift: float) -> None:
        timing = self.timing()
        for second in range(6 * 3600):  # 2 s apart at the end
            behind_s = timing.place(second * 1000, 50 + second * (1 + drift))[1]
            assert behind_s < 0.1

    def test_a_paced_source_is_early_by_what_it_has_in_hand(self) -> None:
        timing = self.timing(is_paced=True)
        early = [timing.place(pts, 50.0)[1] for pts in range(0, 1000, 40)]
        assert early == pytest.approx([-pts / 1000 for pts in range(0, 1000, 40)])
        assert timing.place(1000, 53.0)[1] == pytest.approx(2.0)
