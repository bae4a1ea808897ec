"""Points in polygons and ways through lines, against independent references."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.path import Path as Outline

from streampose.errors import UsageError
from streampose.people.zones import MOST_POINTS, PICTURE, Polygon, crosses, line_of, zone_of

COORDINATES = st.floats(-1000, 1000).map(lambda value: round(value, 2))
POINTS = st.tuples(COORDINATES, COORDINATES)


@st.composite
def stars(draw: st.DrawFn) -> np.ndarray:
    """Polygons that do not cross themselves: corners at increasing angles around a middle."""
    angles = sorted(draw(st.lists(st.floats(0, 6.28), min_size=3, max_size=20, unique_by=lambda one: round(one, 2))))
    radii = draw(st.lists(st.floats(10, 900), min_size=len(angles), max_size=len(angles)))
    return np.array([[r * np.cos(a), r * np.sin(a)] for r, a in zip(radii, angles, strict=True)])


@given(stars(), st.lists(POINTS, min_size=1, max_size=20))
def test_points_in_polygons_as_matplotlib_sees_them(corners: np.ndarray, points: list[tuple[float, float]]) -> None:
    depths = Polygon(corners).depths(np.array(points))
    inside = Outline(np.concatenate([corners, corners[:1]]), closed=True).contains_points(points)
    clear = np.abs(depths) > 0.01
    assert (depths[clear] > 0).tolist() == inside[clear].tolist()


@given(stars(), POINTS)
def test_the_depth_is_the_distance_from_the_edge(corners: np.ndarray, point: tuple[float, float]) -> None:
    shares = np.linspace(0, 1, 400)[:, None, None]
    edges = corners + shares * (np.roll(corners, -1, axis=0) - corners)
    nearest = np.hypot(*(edges - point).reshape(-1, 2).T).min()
    step = np.hypot(*(np.roll(corners, -1, axis=0) - corners).T).max() / 399
    assert abs(Polygon(corners).depths(np.array(point))) == pytest.approx(nearest, abs=step)


def test_the_edge_is_inside_and_nan_stays() -> None:
    square = Polygon(np.array([[0.0, 0], [10, 0], [10, 10], [0, 10]]))
    points = np.array([[5.0, 5], [0, 0], [10, 5], [5, 10], [10.1, 5], [-3, -4], [np.nan, 1]])
    depths = square.depths(points)
    assert depths[:6] == pytest.approx([5, 0, 0, 0, -0.1, -5])
    assert (depths[:4] >= 0).all()
    assert np.isnan(depths[6])


@given(POINTS, POINTS, POINTS, POINTS)
def test_ways_through_lines(start: tuple, end: tuple, a: tuple, b: tuple) -> None:
    def side(p: tuple, q: tuple, r: tuple) -> float:
        return (q[0] - p[0]) * (r[1] - p[1]) - (q[1] - p[1]) * (r[0] - p[0])

    sides = side(a, b, start), side(a, b, end), side(start, end, a), side(start, end, b)
    if min(map(abs, sides)) < 1e-3:
        return
    apart = sides[0] * sides[1] < 0 and sides[2] * sides[3] < 0
    assert crosses(np.array(start), np.array(end), np.array([a, b])) == apart


def test_pixels_and_shares() -> None:
    shares = zone_of("door", [[0, 0], [1, 0], [0.5, 1]], "z")
    assert shares.pixels(640, 480).tolist() == [[0, 0], [640, 0], [320, 480]]
    pixels = zone_of("door", [[0, 0], [1, 0], [5, 7]], "z")
    assert pixels.pixels(640, 480).tolist() == [[0, 0], [1, 0], [5, 7]]
    assert zone_of("door", [[0, 0], [1, 0], [0.5, 1], [0, 0]], "z") == shares, "closed"
    assert PICTURE.is_in(640, 480)
    assert not zone_of("door", [[700, 0], [800, 0], [800, 90]], "z").is_in(640, 480)


@pytest.mark.parametrize(
    ("points", "says"),
    [
        (5, "give at least 3 points"),
        ([[0, 0], [1, 1]], "at least 3 different points"),
        ([[0, 0], [1, 1], [0, 0]], "at least 3 different points"),
        ([[0, 0], [1, 1], [1, "a"]], r"point 3 is not a pair of numbers \[x, y\]"),
        ([[0, 0], [1, 1], [1, 2, 3]], "point 3 is not"),
        ([[0, 0], [1, 1], [True, 2]], "point 3 is not"),
        ([[0, 0], [1, 1], [float("nan"), 2]], "point 3 is not"),
        ([[0, 0], [1, 1], [10**400, 2]], "point 3 is not"),
        ([[0, 0], [10, 10], [10, 0], [0, 10]], "touches or crosses itself"),
        ([[0, 0], [10, 0], [5, 0]], "has no area|touches or crosses"),
        ([[0, 0], [10, 0], [10, 10], [10, 0]], "touches or crosses itself"),
        ([[k, k] for k in range(MOST_POINTS + 1)], f"{MOST_POINTS + 1} points are too many: at most {MOST_POINTS}"),
    ],
)
def test_what_is_no_zone(points: object, says: str) -> None:
    with pytest.raises(UsageError, match=rf"^zones\.door: .*({says})"):
        zone_of("door", points, "zones.door")


def test_a_zone_with_the_most_points() -> None:
    angles = np.linspace(0, 6.2, MOST_POINTS)
    started_s = time.perf_counter()
    zone_of("ring", [[500 + 400 * float(np.cos(a)), 500 + 400 * float(np.sin(a))] for a in angles], "z")
    assert time.perf_counter() - started_s < 0.5


@pytest.mark.parametrize("points", [[[0, 0]], [[0, 0], [0, 0]], [[0, 0], [1, 1], [2, 2]], "ab", [[0, 0], [1]]])
def test_what_is_no_line(points: object) -> None:
    with pytest.raises(UsageError, match=r"^lines\.gate: "):
        line_of("gate", points, "lines.gate")
