"""Overlaps of boxes, and the pairs that they make."""

from __future__ import annotations

import numpy as np
import pytest

from streampose.frames import Float32
from streampose.people.overlap import best_pairs, box_areas, box_overlaps


def boxes(*corners: tuple[float, float, float, float]) -> Float32:
    return np.array(corners, np.float32).reshape(-1, 4)


def pairs(first: Float32, second: Float32) -> list[tuple[int, int]]:
    return best_pairs(box_overlaps(first, second), 0.5)


def test_overlap_is_intersection_over_union() -> None:
    overlaps = box_overlaps(boxes((0, 0, 10, 10), (5, 0, 15, 10)), boxes((0, 0, 10, 10), (20, 0, 30, 10), (3, 3, 3, 3)))
    assert overlaps == pytest.approx(np.array([[1, 0, 0], [1 / 3, 0, 0]]))
    assert box_areas(boxes((0, 0, 4, 5), (4, 0, 0, 5))).tolist() == [20, 0]


def test_the_best_pairs_come_first_and_each_box_is_used_once() -> None:
    first = boxes((0, 0, 10, 10), (100, 0, 110, 10))
    second = boxes((101, 0, 111, 10), (50, 0, 60, 10), (0, 1, 10, 11))
    assert sorted(pairs(first, second)) == [(0, 2), (1, 0)]
    assert pairs(first, boxes()) == []
    assert pairs(boxes(), second) == []
    assert pairs(boxes((0, 0, 10, 10)), boxes((2, 0, 12, 10), (1, 0, 11, 10))) == [(0, 1)]
    assert pairs(boxes((0, 0, 10, 10), (1, 0, 11, 10)), boxes((1, 0, 11, 10))) == [(1, 0)]
    assert pairs(boxes((0, 0, 10, 10)), boxes((4, 0, 14, 10))) == []
