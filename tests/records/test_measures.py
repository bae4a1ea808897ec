"""What curves show: speeds, whose windows reach over blocks of rows, and names."""

from __future__ import annotations

import numpy as np
import pytest

from streampose.errors import UsageError
from streampose.networks.pose import COCO_NAMES
from streampose.records.measures import SPEED_WINDOW_S, SpeedMeter, angles_of, keypoints_of, positions_of, speeds_of
from streampose.records.series import Rows


def rows_of(times_s: np.ndarray, xy: np.ndarray) -> Rows:
    nothing = np.full((len(times_s), 1, 3), np.nan)
    return Rows(times_s, np.full((len(times_s), 4), np.nan), xy[:, None], nothing[..., :2], nothing)


def speeds(times_s: np.ndarray, xy: np.ndarray, block: int) -> tuple[np.ndarray, np.ndarray]:
    meter = SpeedMeter(lambda rows: rows.best_xy)
    parts = [
        meter(rows_of(times_s[start : start + block], xy[start : start + block]))
        for start in range(0, len(times_s), block)
    ]
    parts.append(meter(None))
    return np.concatenate([part.times_s for part in parts]), np.concatenate([part.raw[:, 0] for part in parts])


def test_a_steady_motion_has_its_speed_everywhere() -> None:
    times_s = np.arange(200) / 25
    xy = np.stack([30 * times_s, -40 * times_s], axis=1)
    found_times_s, found = speeds(times_s, xy, 64)
    np.testing.assert_array_equal(found_times_s, times_s)
    np.testing.assert_allclose(found, 50)


def test_the_tremble_of_a_resting_point_is_averaged() -> None:
    times_s = np.arange(200) / 100
    xy = np.stack([np.arange(200) % 2, np.zeros(200)], axis=1)
    found = speeds(times_s, xy, 50)[1][10:-10]  # at the ends, half of the window is missing
    assert found.max() <= 1 / SPEED_WINDOW_S + 1e-6 < 100


@pytest.mark.parametrize("fps", [2, 25, 240])
@pytest.mark.parametrize("block", [1, 7, 100])
def test_blocks_do_not_matter(fps: int, block: int) -> None:
    rng = np.random.default_rng(fps)
    times_s = np.cumsum(rng.uniform(0.5, 1.5, 300)) / fps
    xy = np.cumsum(rng.normal(0, 1, (300, 2)), axis=0)
    xy[rng.integers(0, 300, 20)] = np.nan
    whole = speeds(times_s, xy, 300)
    assert np.isfinite(whole[1]).sum() > 200
    np.testing.assert_array_equal(speeds(times_s, xy, block), whole)


def test_no_speed_is_measured_over_a_gap() -> None:
    times_s = np.arange(20) / 25
    xy = np.zeros((20, 2))
    xy[10] = np.nan
    xy[11:] = 500
    found = speeds(times_s, xy, 6)[1]
    assert np.flatnonzero(np.isnan(found)).tolist() == [10]
    assert np.nanmax(found) == 0
    xy[12] = np.nan
    assert np.isnan(speeds(times_s, xy, 6)[1][10:13]).all(), "somebody in one frame only"


def test_names_without_a_side_mean_both() -> None:
    assert [name for _, name in keypoints_of(COCO_NAMES, ["knee", "L_Wrist", "nose"], ())] == [
        "nose",
        "left_wrist",
        "left_knee",
        "right_knee",
    ]
    panels = [(channel.panel, channel.side) for channel in angles_of(COCO_NAMES, ["right_upper_arm", "trunk"]).channels]
    assert panels == [("upper arm", "right"), ("trunk", "")]
    assert {channel.panel for channel in angles_of(COCO_NAMES, None).channels} == {"knee", "hip", "elbow", "shoulder"}
    assert [channel.panel for channel in speeds_of(COCO_NAMES, None).channels] == ["middle of the hips"]
    # A skeleton without the usual names has all of its own.
    assert [channel.panel for channel in positions_of(["tail", "paw"], None).channels] == [
        "tail, x",
        "tail, y",
        "paw, x",
        "paw, y",
    ]
    assert [channel.panel for channel in speeds_of(["tail", "paw"], None).channels] == ["middle of the box"]
    with pytest.raises(UsageError, match="unknown keypoint 'toe': this skeleton has nose, left_eye"):
        keypoints_of(COCO_NAMES, ["toe"], ())
