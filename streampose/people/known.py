"""What is known of a person between frames: where they were, how they moved, what they look like.

The people known are rows of a structured array. Sizes are square roots of box areas: a standing person of 300 px height
has a size of about 200 px.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from streampose.frames import Float32, Image, People
from streampose.people.appearance import LookReader, Looks
from streampose.people.carry import both_sure, medians
from streampose.people.overlap import box_areas

Bools = npt.NDArray[np.bool_]
Records = npt.NDArray[np.void]
Times = npt.NDArray[np.float64]
"""Seconds."""

PLACE_SPREAD = 0.03
"""Standard deviation of the place of a person seen for the first time, in sizes,"""
SEEN_SPREAD = 0.04
"""and of the place that a new pose shows."""
START_SPEED = 1.0
"""Standard deviation of a new person's speed, in sizes per second."""
ACCELERATION = 0.8
"""Standard deviation of the change of speed in a second, in sizes per second."""
COASTING_S = 0.7
"""The last known speed of an unseen person fades with this time constant."""
PLACE_GROWS_S = 2.0
"""The place of an unseen person becomes less certain for this long."""
LEAST_COMMON = 3
"""Minimum sure keypoints in common to tell how far somebody moved."""
KEPT_BY_S = 0.4
"""An unseen keypoint is believed to stay at its place on the person; its score fades with this time constant."""

LOOK_MEMORY_S = 2.0
"""Memory of a person's look."""
RECENT_LOOK_S = 0.4
"""Memory of the look in the latest frames."""
EVEN_LOOKS = 4
"""The first looks are averaged evenly."""
SIZE_MEMORY_S = 0.5
"""Memory of a person's size."""
LEVEL_SHARE = 0.2
"""Weight of a new pose score in its recent level: a memory of about five frames."""


POINT = np.dtype([("pts_s", np.float64), ("xy", np.float32, 2), ("velocity", np.float32, 2)])
"""Where somebody was at a time, in pixels, and their speed in px/s."""


@cache
def record_of(keypoint_count: int, part_count: int) -> np.dtype[np.void]:
    """Return the dtype of a known person."""
    points = (keypoint_count, 2)
    return np.dtype(
        [
            ("id", np.int64),
            ("class_id", np.int64),
            ("seen_s", np.float64),  # the time of the latest pose
            ("xy", np.float32, points),  # the latest keypoints, where unseen the expected ones
            ("scores", np.float32, keypoint_count),
            ("velocity", np.float32, 2),  # px/s
            ("place_variance", np.float32),  # px^2, of each axis
            ("covariance", np.float32),  # of place and speed, px^2/s
            ("speed_variance", np.float32),  # px^2/s^2
            ("size", np.float32),  # px
            ("colours", np.float32, (part_count, 3)),
            ("weights", np.float32, part_count),
            ("looks", np.int64),  # how many made the colours
            ("recent_colours", np.float32, (part_count, 3)),
            ("recent_weights", np.float32, part_count),
            ("clear_s", np.float64),  # since when nobody covers them
            ("clear", POINT),  # the latest state in which nobody covered them,
            ("into", POINT),  # that before their latest meeting with others,
            ("out", POINT),  # and the first one after it
            ("started_s", np.float64),
            ("xyxy", np.float32, 4),  # the latest box, not clipped to the frame
            ("box_score", np.float32),  # of the latest detection
            ("found_xyxy", np.float32, 4),  # the latest detected box,
            ("found_xy", np.float32, points),  # the keypoints in it
            ("found_scores", np.float32, keypoint_count),  # and their scores
            ("level", np.float32),  # of the pose's score, recently
            ("misses", np.int64),  # frames in a row where neither the detector found them, nor, in doubt, a pose
        ]
    )


class Seen(NamedTuple):
    """The people of a new frame."""

    people: People
    poses: Records
    """(N,) what each would be known as, if new; without an id."""
    frame_area: float
    """In square pixels."""

    @property
    def looks(self) -> Looks:
        """What the people look like."""
        return Looks(self.poses["colours"], self.poses["weights"])


def see(people: People, image: Image, pts_s: float, reader: LookReader) -> Seen:
    """Return what can be known of the people of a frame.

    Args:
        people: found in the frame; a keypoint that is not finite counts as unseen.
        image: (H, W, 3) uint8 BGR.
        pts_s: the frame's time.
        reader: reads their looks.
    """
    poses = np.zeros(len(people), record_of(people.keypoints_xy.shape[1], reader.part_count))
    is_finite = np.asarray(np.isfinite(people.keypoints_xy).all(axis=-1))
    poses["xy"] = poses["found_xy"] = np.where(is_finite[..., None], people.keypoints_xy, 0)
    poses["scores"] = poses["found_scores"] = np.where(is_finite, people.keypoint_scores, 0).clip(0, 1)
    poses["xyxy"] = poses["found_xyxy"] = people.boxes_xyxy
    poses["box_score"], poses["class_id"] = people.box_scores, people.class_ids
    poses["seen_s"] = poses["started_s"] = poses["clear_s"] = pts_s
    for name in ("clear", "into", "out"):
        poses[name]["pts_s"] = np.nan  # not yet
    poses["size"] = size = np.sqrt(np.maximum(box_areas(people.boxes_xyxy), 1.0))
    poses["place_variance"] = np.square(PLACE_SPREAD * size)
    poses["speed_variance"] = np.square(START_SPEED * size)
    poses["level"] = poses["scores"].mean(axis=1, dtype=np.float32)
    poses["colours"], poses["weights"] = reader.read(image, poses["xy"], poses["scores"])
    poses["recent_colours"], poses["recent_weights"] = poses["colours"], poses["weights"]
    return Seen(people, poses, float(image.shape[0] * image.shape[1]))


def shifts(known: Records, pts_s: float | Times) -> tuple[Float32, Float32]:
    """Return how far each known person is expected to have moved, (M, 2) px, and the variance (M,) of their place.

    The motion is that of a constant velocity that fades and is disturbed by random accelerations.
    """
    after_s = np.maximum(pts_s - known["seen_s"], 1e-3)
    moving_s = COASTING_S * (1 - np.exp(-after_s / COASTING_S))
    spread_s = np.minimum(after_s, PLACE_GROWS_S)
    disturbed = np.square(ACCELERATION * known["size"])
    variances = (
        known["place_variance"]
        + 2 * moving_s * known["covariance"]
        + np.square(moving_s) * known["speed_variance"]
        + disturbed * spread_s**3 / 3
    )
    return (known["velocity"] * moving_s[:, None]).astype(np.float32), variances.astype(np.float32)


def learnt(old: Records, fresh: Records, is_covered: Bools) -> Records:
    """Return the known people `old` (N) after they were seen as `fresh` (N).

    Place and speed follow a Kalman filter, one for both axes. Its measurement is the median distance of the keypoints
    from where they were expected.
    """
    now = fresh.copy()
    for name in ("id", "started_s", "clear", "into", "out"):
        now[name] = old[name]
    pts_s = fresh["seen_s"]
    after_s = np.maximum(pts_s - old["seen_s"], 1e-3)
    moved, variances = shifts(old, pts_s)
    expected = old["xy"] + moved[:, None]
    strays = _strays(expected, old["scores"], fresh)

    moving_s = COASTING_S * (1 - np.exp(-after_s / COASTING_S))
    spread_s = np.minimum(after_s, PLACE_GROWS_S)
    disturbed = np.square(ACCELERATION * old["size"])
    covariance = old["covariance"] + moving_s * old["speed_variance"] + disturbed * spread_s**2 / 2
    speed_variance = old["speed_variance"] + disturbed * spread_s
    total = variances + np.square(SEEN_SPREAD * old["size"])
    gain = covariance / total
    fading = np.exp(-np.maximum(after_s - 0.3, 0) / COASTING_S)
    now["velocity"] = old["velocity"] * fading[:, None] + gain[:, None] * strays
    now["place_variance"] = variances - np.square(variances) / total
    now["covariance"] = covariance - gain * variances
    now["speed_variance"] = speed_variance - gain * covariance

    is_sure = both_sure(fresh["scores"], fresh["scores"])
    stayed = 0.5 * (expected + strays[:, None] + fresh["xy"])
    now["xy"] = np.where(is_sure[..., None], fresh["xy"], stayed)
    kept = old["scores"] * np.exp(-after_s / KEPT_BY_S)[:, None]
    now["scores"] = np.where(is_sure, fresh["scores"], np.maximum(fresh["scores"], kept))
    share = 1 - np.exp(-after_s / SIZE_MEMORY_S)
    now["size"] = old["size"] + share * (fresh["size"] - old["size"])
    now["level"] = old["level"] + LEVEL_SHARE * (fresh["level"] - old["level"])
    _learn_looks(now, old, fresh, is_covered, after_s)
    return now


def _strays(expected: Float32, scores: Float32, fresh: Records) -> Float32:
    """Return how far each person is from the expected place: (N, 2), medians over sure keypoints, or over all where
    there are few.
    """
    steps = fresh["xy"] - expected
    is_sure = both_sure(scores, fresh["scores"])
    is_sure[is_sure.sum(axis=1) < LEAST_COMMON] = True
    return medians(steps, is_sure)


def _learn_looks(now: Records, old: Records, fresh: Records, is_covered: Bools, after_s: Times) -> None:
    """Write into `now` the looks of `old`, moved towards those of `fresh`."""
    is_first = old["looks"] == 0
    learns = ~is_covered | is_first
    even = np.where(old["looks"] < EVEN_LOOKS, 1 / (old["looks"] + 1.0), 0)
    gain = np.maximum(even, 1 - np.exp(-np.minimum(after_s, 0.2) / LOOK_MEMORY_S))[:, None]
    # A part that was seen badly until now is learnt faster; one that was never seen at once.
    gain = np.where(old["weights"] > 0, gain * fresh["weights"] / np.maximum(old["weights"], 0.3), 1).clip(0, 1)
    gain = np.where(learns[:, None], gain, 0)
    now["colours"] = old["colours"] + gain[..., None] * (fresh["colours"] - old["colours"])
    now["weights"] = np.where(learns[:, None], np.maximum(old["weights"], fresh["weights"]), old["weights"])
    now["looks"] = old["looks"] + ~is_covered
    now["clear_s"] = np.where(is_covered, fresh["seen_s"], old["clear_s"])
    gain = (1 - np.exp(-after_s / RECENT_LOOK_S))[:, None] * fresh["weights"] / np.maximum(old["recent_weights"], 0.3)
    gain = np.where(old["recent_weights"] > 0, gain, 1).clip(0, 1)
    now["recent_colours"] = old["recent_colours"] + gain[..., None] * (fresh["colours"] - old["recent_colours"])
    now["recent_weights"] = np.maximum(old["recent_weights"] * 0.9, fresh["weights"])
