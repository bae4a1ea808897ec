"""People are drawn as a poses file has them."""

from __future__ import annotations

import json
import time
from dataclasses import fields, replace

import numpy as np
import pytest

from streampose.frames import Frame, People, Result
from streampose.people.rounding import as_recorded
from streampose.records.lines import frame_line, line_of
from streampose.records.poses import people_of
from tests.people.scene import SKELETON
from tests.records import made

STRANGE = np.array([np.nan, np.inf, -np.inf, 0.005, 0.015, -0.004999, 1e-12, 65536.013, 1e7, -3e38], np.float32)


def assert_same(first: People, second: People) -> None:
    for field in fields(People):
        one, other = getattr(first, field.name), getattr(second, field.name)
        if isinstance(one, np.ndarray):
            assert one.dtype == other.dtype
            np.testing.assert_array_equal(one, other, err_msg=field.name)


@pytest.mark.parametrize("count", [0, 1, 50])
def test_rounded_people_are_those_that_are_read(count: int) -> None:
    rng = np.random.default_rng(count)
    people = replace(made.people(rng, count), label_of={0: "person"})
    for name in ("boxes_xyxy", "keypoints_xy", "smooth_xy", "keypoint_scores"):
        values = getattr(people, name).copy()
        values.reshape(-1)[: len(STRANGE)] = STRANGE[: values.size]
        people = replace(people, **{name: values})
    frame = Frame("clip", 0, 0.0, time.monotonic(), made.BLANK)
    line = json.loads(line_of(frame_line(Result(frame, people, SKELETON))))
    rounded = as_recorded(people)
    if count:
        assert_same(rounded, people_of(line["people"], 17))
        assert not np.array_equal(rounded.keypoints_xy, people.keypoints_xy)
    assert_same(as_recorded(rounded), rounded)
