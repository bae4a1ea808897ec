"""Curves and paths that are kept to what a plot can show."""

from __future__ import annotations

import itertools
import tracemalloc

import numpy as np
import pytest

from streampose.records import thin
from streampose.records.thin import COLUMNS, MOST_ROWS, Columns, Curve, Path, envelope, m4


def noise(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return times and values with gaps of all lengths."""
    rng = np.random.default_rng(seed)
    times = np.cumsum(rng.uniform(0.01, 0.07, count))
    values = np.cumsum(rng.normal(0, 1, count))
    for start in rng.integers(0, count, 40):
        values[start : start + rng.integers(1, 400)] = np.nan
    return times, values


def added(columns: Columns, times: np.ndarray, values: np.ndarray, block: int, thinner: thin.Thinner) -> Curve:
    curve = Curve(columns, thinner)
    for start in range(0, len(times), block):
        curve.add(times[start : start + block], values[start : start + block])
    return curve


@pytest.mark.parametrize("block", [777, 100_000])
def test_each_column_keeps_its_first_lowest_highest_and_last_value(block: int) -> None:
    times, values = noise(100_000)
    columns = Columns(times[0], times[-1])
    kept_times, kept = added(columns, times, values[:, None], block, m4).points()
    assert len(kept) < 5 * COLUMNS
    is_known, is_kept = np.isfinite(values), np.isfinite(kept[:, 0])
    of_all, of_kept = columns.of(times), columns.of(kept_times)
    filled = np.unique(of_all[is_known])
    np.testing.assert_array_equal(filled, np.unique(of_kept[is_kept]))
    for column in filled:
        inside, inside_kept = values[is_known & (of_all == column)], kept[is_kept & (of_kept == column), 0]
        assert (inside[0], inside.min(), inside.max(), inside[-1]) == (
            inside_kept[0],
            inside_kept.min(),
            inside_kept.max(),
            inside_kept[-1],
        )
    # What was kept is what there was, in the same order.
    place = np.searchsorted(times, kept_times[is_kept])
    np.testing.assert_array_equal(values[place], kept[is_kept, 0])


@pytest.mark.parametrize("thinner", [m4, envelope])
def test_no_line_crosses_a_gap_between_columns(thinner: thin.Thinner) -> None:
    times, values = noise(60_000, seed=1)
    columns = Columns(times[0], times[-1])
    wide = values[:, None] if thinner is m4 else values[:, None] + (-1, 1)
    kept_times, kept = added(columns, times, wide, 500, thinner).points()
    known = np.flatnonzero(np.isfinite(kept[:, 0]))
    crossed = 0
    for before, after in itertools.pairwise(known):
        if columns.of(kept_times[[before]]) == columns.of(kept_times[[after]]):
            continue
        end = np.flatnonzero(np.isfinite(values) & (columns.of(times) == columns.of(kept_times[[before]])))[-1]
        between = values[end + 1 : np.searchsorted(times, kept_times[after])]
        assert np.isnan(between).any() == (after - before > 1)
        crossed += after - before > 1
    assert crossed > 20


def test_a_gap_at_the_end_of_a_block_is_one() -> None:
    times = np.arange(4 * MOST_ROWS, dtype=float)
    values = np.ones((len(times), 1))
    hole = 2 * MOST_ROWS + 1
    values[hole - 40 : hole] = np.nan  # the curve is thinned when its latest row is a gap
    curve = Curve(Columns(times[0], times[-1]), m4)
    curve.add(times[:hole], values[:hole])
    curve.add(times[hole:], values[hole:])
    kept_times, kept = curve.points()
    (torn,) = np.flatnonzero(np.isnan(kept[:, 0]))
    assert kept_times[torn - 1] < hole - 40 <= kept_times[torn] < hole <= kept_times[torn + 1]


def test_an_envelope_holds_every_row() -> None:
    times, values = noise(50_000, seed=2)
    edges = np.stack([values - 1, values + np.arange(len(values)) % 7], axis=1)
    columns = Columns(times[0], times[-1])
    kept_times, kept = added(columns, times, edges, 999, envelope).points()
    low, high = np.full(COLUMNS, np.nan), np.full(COLUMNS, np.nan)
    is_kept = np.isfinite(kept[:, 0])
    assert len(np.unique(columns.of(kept_times[is_kept]))) == is_kept.sum()
    low[columns.of(kept_times[is_kept])], high[columns.of(kept_times[is_kept])] = kept[is_kept].T
    for column in np.unique(columns.of(times[np.isfinite(values)])):
        inside = edges[columns.of(times) == column]
        assert low[column] == np.nanmin(inside[:, 0])
        assert high[column] == np.nanmax(inside[:, 1])


def test_a_short_curve_stays_as_it_is() -> None:
    times, values = noise(MOST_ROWS)
    for thinner in (m4, envelope):
        kept_times, kept = added(Columns(times[0], times[-1]), times, values[:, None], 100, thinner).points()
        np.testing.assert_array_equal(kept_times, times)
        np.testing.assert_array_equal(kept[:, 0], values)
    assert len(Curve(Columns(0, 0), m4).points()[0]) == 0
    assert Columns(3.0, 3.0).of(np.array([3.0])).tolist() == [0], "one frame only"


def test_a_path_leaves_out_what_cannot_be_seen_and_keeps_its_gaps() -> None:
    path = Path(1.0)
    path.add(np.array([[np.nan, np.nan], [0, 0], [0.4, 0.4], [2, 0], [np.nan, 1], [2.5, 0], [np.nan, 1], [9, 9]]))
    path.add(np.array([[9.5, 9.5]]))
    np.testing.assert_array_equal(path.points(), [[0, 0], [2, 0], [np.nan, np.nan], [9, 9]])
    assert path.end == (9.5, 9.5)


def test_a_path_of_any_length_has_a_bounded_number_of_points(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(thin, "PATH_POINTS", 500)
    rng = np.random.default_rng(0)
    walk = np.cumsum(rng.normal(0, 3, (20_000, 2)), axis=0)
    path = Path(1.0)
    path.add(walk)
    points = path.points()
    assert 100 < len(points) <= 500
    assert path.end == tuple(walk[-1])
    # Nobody was far from the path that is shown.
    nearest = np.abs(walk[:, None] - points[None]).max(axis=2).min(axis=1)
    assert nearest.max() < 0.1 * np.ptp(walk)


def test_a_longer_curve_needs_no_more_memory() -> None:
    def peak(blocks: int) -> int:
        curve = Curve(Columns(0, blocks), m4)
        rng = np.random.default_rng(0)
        tracemalloc.start()
        try:
            for block in range(blocks):
                curve.add(block + np.arange(500) / 500, rng.normal(0, 1, (500, 1)))
            curve.points()
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    assert peak(1000) < 1.3 * peak(100)
