"""Smooth keypoints: takes the tremble out of resting joints without making moving ones lag.

Each keypoint has two Kalman filters, which mix (interacting multiple models: Blom and Bar-Shalom, "The interacting
multiple model algorithm for systems with Markovian switching coefficients", IEEE Transactions on Automatic Control 33,
1988). One assumes that the point rests, the other that it moves at a velocity that changes. Whichever predicts better
weighs more. Both axes share their variances. Time is in seconds, so the frame rate and dropped frames do not matter.

Sizes are square roots of box areas, as in `streampose.people.known`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np

from streampose.frames import NO_TRACK, Float32, Int64, People, Result
from streampose.people import State
from streampose.people.known import Bools, Records
from streampose.people.overlap import box_areas

Float64 = np.ndarray[tuple[int, ...], np.dtype[np.float64]]

NOISE = 0.01
"""The variance of a keypoint's measurement noise is this times its standard deviation times the person's size. Most of
a keypoint's error is the same in the next frame; only the rest is noise, which grows more slowly than the error.
Without covariances, the noise has a standard deviation of this times the size, divided by the score."""
LEAST_SCORE = 0.05
"""Lower scores count as this."""
REST_SPREAD = 0.0005
"""How far a resting keypoint may move in a frame of `FRAME_S`, in sizes."""
ACCELERATION = 2.0
"""Standard deviation of the change of a moving keypoint's velocity in a second, in sizes per second."""
START_SPEED = 0.2
"""Standard deviation of the velocity of a keypoint that begins to move, in sizes per second."""
FIRST_SPEED = 0.5
"""The same for a keypoint seen for the first time."""
FIRST_SPREAD = 0.05
"""Standard deviation of the position of a keypoint seen for the first time, in sizes."""
FRAME_S = 0.04
BEGINS_TO_MOVE = 0.05
"""Probability that a resting keypoint begins to move within `FRAME_S`,"""
COMES_TO_REST = 0.02
"""and that a moving one comes to rest."""
RESTART_S = 0.3
"""After a longer gap the filter starts again."""
JUMP = 0.5
"""It also starts again for a keypoint that is farther than this from where it is expected, in sizes."""
UNKNOWN_VARIANCE = 1e12
"""Variance of a keypoint that was not found, in square pixels."""


def _record(keypoint_count: int) -> np.dtype[np.void]:
    points = (keypoint_count, 2)
    return np.dtype(
        [
            ("id", np.int64),
            ("pts_s", np.float64),
            ("rest_xy", np.float64, points),
            ("rest_variance", np.float64, keypoint_count),
            ("xy", np.float64, points),
            ("velocity", np.float64, points),
            ("variance", np.float64, keypoint_count),
            ("covariance", np.float64, keypoint_count),  # of position and velocity
            ("speed_variance", np.float64, keypoint_count),
            ("resting", np.float64, keypoint_count),  # probability
        ]
    )


class Smoother:
    """A step of the pipeline that adds smoothed keypoints to the tracked people of one source. Not thread-safe."""

    def __init__(self, keypoint_count: int, *, replaces: bool = False) -> None:
        """Start without people.

        Args:
            keypoint_count: K of every pose.
            replaces: whether the smoothed keypoints replace the raw ones, instead of standing beside them.
        """
        self._filters = Filters(keypoint_count)
        self._replaces = replaces

    def state(self) -> State:
        """Return everything that the next frames depend on."""
        return {"known": self._filters.known}

    def restore(self, state: State) -> None:
        """Continue as the smoother whose `state` it was."""
        self._filters.known = state["known"]

    def __call__(self, result: Result) -> Result:
        """Return the result with smoothed keypoints."""
        smooth_xy = self.update(result.people, result.frame.pts_s)
        if self._replaces:
            return replace(result, people=replace(result.people, keypoints_xy=smooth_xy))
        return replace(result, people=replace(result.people, smooth_xy=smooth_xy))

    def update(self, people: People, pts_s: float) -> Float32:
        """Return the smoothed keypoints (N, K, 2) float32 of the people of a frame, in pixels.

        People without an identity keep their keypoints, and so do keypoints that are not finite.

        Args:
            people: of the frame.
            pts_s: the frame's time; increasing.
        """
        smooth_xy = people.keypoints_xy.copy()
        tracked = np.flatnonzero(people.track_ids != NO_TRACK)
        if not len(tracked):
            return smooth_xy
        measured = measure(people[tracked])
        _, now = self._filters.step(measured, pts_s)
        resting = now["resting"][..., None]
        smoothed = resting * now["rest_xy"] + (1 - resting) * now["xy"]
        smooth_xy[tracked] = np.where(measured.is_found[..., None], smoothed, people.keypoints_xy[tracked])
        return smooth_xy


class Measured(NamedTuple):
    """The keypoints of the N tracked people of a frame, as the filters take them."""

    ids: Int64
    """(N,) the identities."""
    xy: Float64
    """(N, K, 2) in pixels; 0 where not found."""
    is_found: Bools
    """(N, K)"""
    noise: Float64
    """(N, K) variance of each axis, in square pixels."""
    sizes: Float64
    """(N, 1) in pixels."""


def measure(people: People) -> Measured:
    """Return what the filters take of people who are all tracked."""
    sizes = np.sqrt(np.maximum(box_areas(people.boxes_xyxy), 1.0)).astype(np.float64)[:, None]
    is_found = np.asarray(np.isfinite(people.keypoints_xy).all(axis=-1))
    xy = np.where(is_found[..., None], people.keypoints_xy, 0).astype(np.float64)
    return Measured(people.track_ids, xy, is_found, _noise(people, sizes), sizes)


def _noise(people: People, sizes: Float64) -> Float64:
    """Return the measurement noise (N, K) of the found keypoints: the variance along an axis, in squared pixels."""
    if people.keypoint_covariances is None:
        return np.asarray(np.square(NOISE * sizes / np.clip(people.keypoint_scores, LEAST_SCORE, 1)))
    deviations = np.sqrt(np.trace(people.keypoint_covariances, axis1=-2, axis2=-1) / 2)
    return np.asarray(NOISE * sizes * deviations, np.float64)


class Expected(NamedTuple):
    """What the filters expect of the N people of a frame."""

    state: Records
    """(N,) rows of `Filters`."""
    is_new: Bools
    """(N,) whether the filters have just started, so that they expect nothing."""


class Filters:
    """The filters of the keypoints of everybody in one source. Not thread-safe."""

    def __init__(self, keypoint_count: int) -> None:
        """Start without people."""
        self.known: Records = np.zeros(0, _record(keypoint_count))
        """(M,) the filters of the people of the latest frames."""

    def step(self, measured: Measured, pts_s: float) -> tuple[Expected, Records]:
        """Return the state of the filters at a later time: as expected, and as corrected by what is measured."""
        before, is_new = self._before(measured, pts_s)
        expected = _predicted(before, measured.sizes, pts_s)
        now = _corrected(expected, measured)
        is_missing = ~np.isin(self.known["id"], measured.ids) & (pts_s - self.known["pts_s"] <= RESTART_S)
        self.known = np.concatenate([now, self.known[is_missing]]) if is_missing.any() else now
        return Expected(expected, is_new), now

    def _before(self, measured: Measured, pts_s: float) -> tuple[Records, Bools]:
        """Return what is known of the people, and who starts where they are found: who is new, or after a gap."""
        ids, sizes = measured.ids, measured.sizes
        before = np.zeros(len(ids), self.known.dtype)
        before["id"], before["pts_s"] = ids, pts_s
        before["rest_xy"] = before["xy"] = measured.xy
        before["rest_variance"] = before["variance"] = np.square(FIRST_SPREAD * sizes)
        before["speed_variance"] = np.square(FIRST_SPEED * sizes)
        before["resting"] = 0.5
        is_new = np.ones(len(ids), np.bool_)
        row_of = {number: row for row, number in enumerate(self.known["id"].tolist())}
        for row, number in enumerate(ids.tolist()):
            known = row_of.get(number)
            if known is not None and 0 <= pts_s - self.known["pts_s"][known] <= RESTART_S:
                before[row], is_new[row] = self.known[known], False
        return before, is_new


def _predicted(before: Records, sizes: Float64, pts_s: float) -> Records:
    """Return the expected state of the filters at a later time."""
    step_s = (pts_s - before["pts_s"])[:, None]
    resting, rest_xy, rest_variance, moving = _mixed(before, step_s, sizes)
    xy, velocity, variance, covariance, speed_variance = moving
    disturbed = np.square(ACCELERATION * sizes)

    now = before.copy()
    now["pts_s"] = pts_s
    now["resting"] = resting
    now["rest_xy"] = rest_xy
    now["rest_variance"] = rest_variance + np.square(REST_SPREAD * sizes) * step_s / FRAME_S
    now["xy"] = xy + velocity * step_s[..., None]
    now["velocity"] = velocity
    now["variance"] = variance + 2 * step_s * covariance + step_s**2 * speed_variance + disturbed * step_s**3 / 3
    now["covariance"] = covariance + step_s * speed_variance + disturbed * step_s**2 / 2
    now["speed_variance"] = speed_variance + disturbed * step_s
    return now


def _corrected(expected: Records, measured: Measured) -> Records:
    """Return the state of the filters after the measured keypoints. Those that were not found have no weight."""
    found, is_found, sizes = measured.xy, measured.is_found, measured.sizes
    rest_xy, rest_variance, resting = expected["rest_xy"], expected["rest_variance"], expected["resting"]
    xy, variance, covariance = expected["xy"], expected["variance"], expected["covariance"]
    noise = np.where(is_found, measured.noise, UNKNOWN_VARIANCE)
    rest_total, total = rest_variance + noise, variance + noise
    rest_stray, stray = found - rest_xy, found - xy
    gain, speed_gain = variance / total, covariance / total
    rest_gain = rest_variance / rest_total
    likelihoods = log_likelihoods(rest_stray, rest_total) - log_likelihoods(stray, total)
    odds = np.exp(np.clip(np.where(is_found, likelihoods, 0), -50, 50)) * resting / (1 - resting)

    now = expected.copy()
    now["rest_xy"] = rest_xy + rest_gain[..., None] * rest_stray
    now["rest_variance"] = (1 - rest_gain) * rest_variance
    now["xy"] = xy + gain[..., None] * stray
    now["velocity"] = expected["velocity"] + speed_gain[..., None] * stray
    now["variance"] = (1 - gain) * variance
    now["covariance"] = (1 - gain) * covariance
    now["speed_variance"] = expected["speed_variance"] - speed_gain * covariance
    now["resting"] = np.clip(odds / (1 + odds), 0.001, 0.999)
    has_jumped = is_found & (np.square(stray).sum(axis=-1) > np.square(JUMP * sizes))
    now["rest_xy"][has_jumped] = now["xy"][has_jumped] = found[has_jumped]
    now["velocity"][has_jumped] = 0
    return now


def _mixed(
    before: Records, step_s: Float64, sizes: Float64
) -> tuple[Float64, Float64, Float64, tuple[Float64, Float64, Float64, Float64, Float64]]:
    """Mix the two filters by the probability that a keypoint has begun to move or has come to rest since.

    Returns:
        The probability of rest (N, K); position and variance of the resting filter; position, velocity, variance,
        covariance and speed variance of the moving one.
    """
    moves = 1 - np.exp(-step_s / FRAME_S * BEGINS_TO_MOVE)
    rests = 1 - np.exp(-step_s / FRAME_S * COMES_TO_REST)
    was_resting = before["resting"]
    resting = was_resting * (1 - moves) + (1 - was_resting) * rests
    stayed_at_rest = was_resting * (1 - moves) / resting
    kept_moving = (1 - was_resting) * (1 - rests) / (1 - resting)
    apart = np.square(before["rest_xy"] - before["xy"]).sum(axis=-1) / 2

    stayed = stayed_at_rest[..., None]
    rest_xy = stayed * before["rest_xy"] + (1 - stayed) * before["xy"]
    rest_variance = stayed_at_rest * before["rest_variance"] + (1 - stayed_at_rest) * before["variance"]
    rest_variance = rest_variance + stayed_at_rest * (1 - stayed_at_rest) * apart

    kept = kept_moving[..., None]
    xy = kept * before["xy"] + (1 - kept) * before["rest_xy"]
    velocity = kept * before["velocity"]
    mixing = kept_moving * (1 - kept_moving)
    variance = kept_moving * before["variance"] + (1 - kept_moving) * before["rest_variance"] + mixing * apart
    covariance = kept_moving * before["covariance"]
    speeds = np.square(before["velocity"]).sum(axis=-1) / 2
    speed_variance = kept_moving * before["speed_variance"] + (1 - kept_moving) * np.square(START_SPEED * sizes)
    speed_variance = speed_variance + mixing * speeds
    return resting, rest_xy, rest_variance, (xy, velocity, variance, covariance, speed_variance)


def log_likelihoods(stray: Float64, variance: Float64) -> Float64:
    """Return the logarithm (N, K) of a normal density in two dimensions, but for a constant."""
    found: Float64 = -np.log(variance) - np.square(stray).sum(axis=-1) / (2 * variance)
    return found
