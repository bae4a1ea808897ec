"""Smooths recorded keypoints without lag: each is judged by the frames before it and by those after it.

The filters of `streampose.people.smooth` run once forwards and once backwards in time. Where each expects a keypoint,
and the keypoint itself, are combined by inverse variance (the two-filter smoother: Fraser and Potter, "The optimum
linear smoother as a combination of two optimum linear filters", IEEE Transactions on Automatic Control 14, 1969). Rest
and motion are combined separately; they are weighed by how well both directions and the keypoint agree.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from streampose.frames import NO_TRACK, Float32, People
from streampose.people.known import Bools, Records
from streampose.people.smooth import (
    ACCELERATION,
    BEGINS_TO_MOVE,
    COMES_TO_REST,
    FRAME_S,
    JUMP,
    START_SPEED,
    UNKNOWN_VARIANCE,
    Expected,
    Filters,
    Float64,
    Measured,
    log_likelihoods,
    measure,
)

AHEAD_S = 12.0
"""Later frames do not matter: they move a keypoint of a person by less than 0.001 pixel."""
REST_SHARE = COMES_TO_REST / (BEGINS_TO_MOVE + COMES_TO_REST)
"""Probability that a keypoint rests of which nothing else is known."""
SPEED_VARIANCE = START_SPEED**2 + ACCELERATION**2 * FRAME_S / COMES_TO_REST
"""Variance of the velocity of a moving keypoint of which nothing else is known, in sizes per second, squared."""
TOGETHER = 50
"""Frames that are combined in one calculation. With fewer it takes longer, with more it needs more memory."""


class Timed(NamedTuple):
    """The people of a frame and its time."""

    pts_s: float
    people: People


class TwoWaySmoother:
    """Smooths the people of one recording, block by block. Not thread-safe."""

    def __init__(self, keypoint_count: int) -> None:
        """Start without people.

        Args:
            keypoint_count: K of every pose.
        """
        self._keypoint_count = keypoint_count
        self._forwards = Filters(keypoint_count)

    def smooth(self, block: Sequence[Timed], ahead: Sequence[Timed] = ()) -> list[Float32]:
        """Return the smoothed keypoints (N, K, 2) float32 of the people of each frame of the block, in pixels.

        People without an identity keep their keypoints, and so do keypoints that are not finite.

        Args:
            block: the frames that follow those of the last call.
            ahead: the frames that follow the block. If they last for `AHEAD_S`, or until the recording ends, the result
                is that of a single block.
        """
        measured = [_measured(frame.people) for frame in block]
        backwards = Filters(self._keypoint_count)
        for frame in reversed(ahead):
            backwards.step(_measured(frame.people), -frame.pts_s)
        times_s = [frame.pts_s for frame in block]
        before = _expectations(self._forwards, list(zip(times_s, measured, strict=True)))
        reverse = [(-pts_s, some) for pts_s, some in zip(times_s, measured, strict=True)][::-1]
        after = _expectations(backwards, reverse)[::-1]
        smoothed: list[Float32] = []
        for start in range(0, len(block), TOGETHER):
            part = slice(start, start + TOGETHER)
            smoothed += _smoothed(block[part], measured[part], before[part], after[part])
        return smoothed


def _measured(people: People) -> Measured:
    """Return what the filters take of the tracked people."""
    return measure(people[people.track_ids != NO_TRACK])


def _expectations(filters: Filters, frames: Sequence[tuple[float, Measured]]) -> list[Expected]:
    """Return what the filters expect in each frame from those before it."""
    return [filters.step(measured, pts_s)[0] for pts_s, measured in frames]


def _smoothed(
    frames: Sequence[Timed], measured: Sequence[Measured], before: Sequence[Expected], after: Sequence[Expected]
) -> Iterator[Float32]:
    """Yield the smoothed keypoints of the people of each frame."""
    together = Measured(*map(np.concatenate, zip(*measured, strict=True)))
    combined = _combined(
        together,
        Expected(*map(np.concatenate, zip(*before, strict=True))),
        Expected(*map(np.concatenate, zip(*after, strict=True))),
    )
    ends = np.cumsum([len(some.ids) for some in measured])
    for frame, some, xy in zip(frames, measured, np.split(combined, ends[:-1]), strict=True):
        people = frame.people
        smooth_xy = people.keypoints_xy.copy()
        is_tracked = people.track_ids != NO_TRACK
        smooth_xy[is_tracked] = np.where(some.is_found[..., None], xy, smooth_xy[is_tracked])
        yield smooth_xy


def _combined(measured: Measured, before: Expected, after: Expected) -> Float64:
    """Return the keypoints (N, K, 2), combined from the measured ones and what is expected of both directions."""
    is_far_before, is_far_after = _is_far(measured, before.state), _is_far(measured, after.state)
    # What both directions contradict is an error of the network, unless they contradict each other as well.
    apart = np.square(before.state["xy"] - after.state["xy"]).sum(axis=-1)
    is_error = is_far_before & is_far_after & (apart <= np.square(JUMP * measured.sizes))
    noise = np.where(measured.is_found & ~is_error, measured.noise, UNKNOWN_VARIANCE)
    first = _without(before.state, before.is_new[:, None] | (is_far_before & ~is_error), measured)
    second = _without(after.state, after.is_new[:, None] | (is_far_after & ~is_error), measured)

    total = first["rest_variance"] + second["rest_variance"]
    share = (second["rest_variance"] / total)[..., None]
    rest_xy = share * first["rest_xy"] + (1 - share) * second["rest_xy"]
    rest_variance = share[..., 0] * first["rest_variance"]
    rests = log_likelihoods(first["rest_xy"] - second["rest_xy"], total)
    rests += log_likelihoods(measured.xy - rest_xy, rest_variance + noise) + np.log(
        first["resting"] * second["resting"] / REST_SHARE
    )

    (xy, velocity), variance, moves = _moving(first, second)
    speed_variance = SPEED_VARIANCE * np.square(measured.sizes)
    # Both directions assume how fast a keypoint can be. It counts once.
    moves += np.log(speed_variance) + np.square(velocity).sum(axis=-1) / (2 * speed_variance)
    moves += log_likelihoods(measured.xy - xy, variance + noise) + np.log(
        (1 - first["resting"]) * (1 - second["resting"]) / (1 - REST_SHARE)
    )

    rest_xy = rest_xy + (rest_variance / (rest_variance + noise))[..., None] * (measured.xy - rest_xy)
    xy = xy + (variance / (variance + noise))[..., None] * (measured.xy - xy)
    resting = 1 / (1 + np.exp(np.clip(moves - rests, -50, 50)))[..., None]
    combined: Float64 = resting * rest_xy + (1 - resting) * xy
    return combined


def _is_far(measured: Measured, state: Records) -> Bools:
    """Return which keypoints (N, K) are too far from where they are expected."""
    strays = np.square(measured.xy - state["xy"]).sum(axis=-1)
    is_far: Bools = measured.is_found & (strays > np.square(JUMP * measured.sizes))
    return is_far


def _without(state: Records, is_unknown: Bools, measured: Measured) -> Records:
    """Return the state in which nothing is known of some keypoints (N, K)."""
    state = state.copy()
    for name, value in (
        ("rest_variance", UNKNOWN_VARIANCE),
        ("variance", UNKNOWN_VARIANCE),
        ("covariance", 0.0),
        ("speed_variance", SPEED_VARIANCE * np.square(measured.sizes)),
        ("resting", REST_SHARE),
    ):
        state[name] = np.where(is_unknown, value, state[name])
    state["velocity"] = np.where(is_unknown[..., None], 0, state["velocity"])
    return state


def _moving(first: Records, second: Records) -> tuple[Float64, Float64, Float64]:
    """Combine the moving filters of both directions.

    Returns:
        Position and velocity (2, N, K, 2); the variance (N, K) of the position; the logarithm (N, K) of the likelihood
        that both directions estimate the same keypoint.
    """
    ours, theirs = _states(first, 1), _states(second, -1)
    our_covariances, their_covariances = _covariances(first, 1), _covariances(second, -1)
    our_weights, their_weights = np.linalg.inv(our_covariances), np.linalg.inv(their_covariances)
    covariances = np.linalg.inv(our_weights + their_weights)
    states = covariances @ (our_weights @ ours + their_weights @ theirs)
    apart, total = ours - theirs, our_covariances + their_covariances
    distances = (apart * (np.linalg.inv(total) @ apart)).sum(axis=(-2, -1))
    likelihoods = -np.log(np.linalg.det(total)) - distances / 2
    return np.moveaxis(states, -2, 0), covariances[..., 0, 0], likelihoods


def _states(state: Records, direction: int) -> Float64:
    """Return position and velocity (N, K, 2, 2); the last axis is x and y."""
    return np.stack([state["xy"], direction * state["velocity"]], axis=-2)


def _covariances(state: Records, direction: int) -> Float64:
    """Return the covariances (N, K, 2, 2) of position and velocity."""
    covariance = direction * state["covariance"]
    rows = [state["variance"], covariance, covariance, state["speed_variance"]]
    return np.stack(rows, axis=-1).reshape(*covariance.shape, 2, 2)
