"""Joint and segment angles of people in the plane of the picture, with their uncertainty.

The definitions follow Sports2D (Pagnon and Kim, "Sports2D: Compute 2D human pose and angles from a video", Journal of
Open Source Software 9(101), 2024): joint angles are flexions, segment angles are measured anticlockwise from the
horizontal. docs/numbers.md lists them. All are angles of the picture: they are those of the body only if it moves in a
plane parallel to the picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from streampose.frames import People
from streampose.people.names import SIDES, meant_by, plain_names

Float64 = npt.NDArray[np.float64]

MOST_DEVIATION = 104.0
"""Standard deviation in degrees of an angle of which nothing is known: 360 / sqrt(12)."""

NEIGHBOURS = (
    ("shoulder", "elbow"),
    ("elbow", "wrist"),
    ("shoulder", "hip"),
    ("hip", "knee"),
    ("knee", "ankle"),
    ("ankle", "big_toe"),
)
"""Neighbouring keypoints of one side, whose errors are correlated."""
CORRELATION = 0.4
"""Their correlation. Measured: 0.28 to 0.52 for the bundled network on the demo clip and the crossing clip."""


class Definition(NamedTuple):
    """An angle between two directions, each from one point to another. A point is the middle of some keypoints."""

    name: str
    first: tuple[tuple[str, ...], tuple[str, ...]]
    """Where the first direction starts and ends."""
    second: tuple[tuple[str, ...], tuple[str, ...]] | None
    """The second direction; None is to the right, along the horizontal."""
    is_signed: bool
    """Whether the angle is -180 to 180 degrees, anticlockwise from the second direction to the first, and not 0 to 180
    degrees."""
    offset: float = 0.0
    """Added to the angle, in degrees."""


class Angles(NamedTuple):
    """The angles of N people."""

    names: tuple[str, ...]
    """A names."""
    degrees: Float64
    """(N, A) float64; NaN if a keypoint is missing."""
    deviations: Float64
    """(N, A) float64, standard deviations in degrees; NaN if the keypoints' covariances are unknown."""


def _of_joint(name: str, before: str, joint: str, after: str, *, from_straight: bool) -> list[Definition]:
    """Return an angle at a joint of both sides: 0 when it is straight, or when it is folded."""
    found = []
    for side in SIDES:
        start, middle, end = ((f"{side}_{part}",) for part in (before, joint, after))
        first = (start, middle) if from_straight else (middle, start)
        found.append(Definition(f"{side}_{name}", (middle, end), first, is_signed=False))
    return found


def _of_segment(name: str, upper: str, lower: str) -> list[Definition]:
    """Return the direction of a segment of both sides, from its far end to its near one."""
    return [
        Definition(f"{side}_{name}", ((f"{side}_{lower}",), (f"{side}_{upper}",)), None, is_signed=True)
        for side in SIDES
    ]


_HIPS, _SHOULDERS = ("left_hip", "right_hip"), ("left_shoulder", "right_shoulder")
_EARS = ("left_ear", "right_ear")

DEFINITIONS = (
    *_of_joint("knee", "hip", "knee", "ankle", from_straight=True),
    *_of_joint("hip", "shoulder", "hip", "knee", from_straight=True),
    *(
        Definition(
            f"{side}_ankle",
            ((f"{side}_ankle",), (f"{side}_knee",)),
            ((f"{side}_ankle",), (f"{side}_big_toe",)),
            is_signed=False,
            offset=-90.0,
        )
        for side in SIDES
    ),
    *_of_joint("elbow", "shoulder", "elbow", "wrist", from_straight=True),
    *_of_joint("shoulder", "hip", "shoulder", "elbow", from_straight=False),
    Definition("neck", (_SHOULDERS, _EARS), (_HIPS, _SHOULDERS), is_signed=False),
    Definition("trunk_lean", (_HIPS, _SHOULDERS), None, is_signed=True, offset=-90.0),
    *_of_segment("thigh", "hip", "knee"),
    *_of_segment("shank", "knee", "ankle"),
    *_of_segment("upper_arm", "shoulder", "elbow"),
    *_of_segment("forearm", "elbow", "wrist"),
    Definition("trunk", (_HIPS, _SHOULDERS), None, is_signed=True),
)
"""All angles. A skeleton has those whose keypoints it has."""


class Corners(NamedTuple):
    """Where the angles of N people are in the picture. What is unknown is NaN."""

    places: Float64
    """(N, A, 2) float64 pixels: where both directions start."""
    ends: Float64
    """(N, A, 2) float64 pixels: where the first direction ends."""
    from_radians: Float64
    """(N, A) float64, anticlockwise from the right: the direction in which the angle is 0."""
    to_radians: Float64
    """(N, A) float64: the first direction. It is at most half a turn away from the other one."""


class AngleMeter:
    """Measures angles of people with one skeleton."""

    def __init__(self, keypoint_names: Sequence[str], wanted: Sequence[str] | None = None) -> None:
        """Choose the angles.

        Args:
            keypoint_names: K names, in any usual spelling.
            wanted: names of angles, such as `left_knee`, or `knee` for both sides; None: all that the skeleton has.

        Raises:
            UsageError: a wanted angle is unknown, or the skeleton lacks its keypoints.
        """
        number_of = {name: number for number, name in enumerate(plain_names(keypoint_names))}
        possible = [one for one in DEFINITIONS if _keypoints_of(one) <= number_of.keys()]
        chosen = possible if wanted is None else _chosen(possible, wanted)
        self.names = tuple(one.name for one in chosen)
        """The names of the A angles."""
        self._first = np.array([_weights(one.first, number_of) for one in chosen]).reshape(-1, len(number_of))
        self._second = np.array([_weights(one.second, number_of) for one in chosen]).reshape(-1, len(number_of))
        self._is_signed = np.array([one.is_signed for one in chosen], np.bool_)
        self._offset = np.array([one.offset for one in chosen])
        self._correlations = np.eye(len(number_of))
        for pair in ((f"{side}_{one}", f"{side}_{other}") for side in SIDES for one, other in NEIGHBOURS):
            if number_of.keys() >= set(pair):
                one, other = (number_of[name] for name in pair)
                self._correlations[[one, other], [other, one]] = CORRELATION
        self.limits = tuple((-180.0, 180.0) if one.is_signed else (one.offset, one.offset + 180) for one in chosen)
        """The lowest and the highest possible value of each angle, in degrees."""
        self._is_level = np.array([one.second is None for one in chosen], np.bool_)
        self._starts = np.array([_weights((one.first[0],) * 2, number_of, (0, 1)) for one in chosen]).reshape(
            self._first.shape
        )
        self.uses = (self._first != 0) | (self._second != 0) | (self._starts != 0)
        """(A, K) bool: the keypoints that each angle depends on."""

    def measure(self, people: People) -> Angles:
        """Return the angles of the people of a frame, of their smoothed keypoints if there are any."""
        xy = people.keypoints_xy if people.smooth_xy is None else people.smooth_xy
        return self.measure_points(xy.astype(np.float64), people.keypoint_covariances)

    def measure_points(self, xy: Float64, covariances: npt.NDArray[np.floating] | None) -> Angles:
        """Return the angles of keypoints (N, K, 2) in pixels with covariances (N, K, 2, 2) in square pixels.

        The deviations are to first order: the gradient of the angle with respect to each keypoint, times the square
        root of its covariance. Errors of `NEIGHBOURS` have a correlation, others count as independent.
        """
        first, second = self._directions(self._first, xy), self._directions(self._second, xy)
        second[:, self._is_level] = (1.0, 0.0)
        turn = _angle(first) - _angle(second)
        turn = np.degrees((turn + np.pi) % (2 * np.pi) - np.pi)
        degrees = np.where(self._is_signed, turn, np.abs(turn)) + self._offset
        degrees = np.where(self._is_signed, (degrees + 180) % 360 - 180, degrees)
        if covariances is None:
            return Angles(self.names, degrees, np.full_like(degrees, np.nan))
        gradients = self._first[..., None] * _normals(first)[:, :, None]
        gradients -= self._second[..., None] * _normals(second)[:, :, None]  # (N, A, K, 2)
        effects = np.einsum("nkde,nake->nakd", _roots(np.nan_to_num(covariances.astype(np.float64))), gradients)
        spread = np.maximum(np.einsum("nakd,kl,nald->na", effects, self._correlations, effects), 0)
        deviations = np.minimum(np.degrees(np.sqrt(spread)), MOST_DEVIATION)
        return Angles(self.names, degrees, np.where(np.isnan(degrees), np.nan, deviations))

    def corners(self, xy: Float64) -> Corners:
        """Return where the angles of keypoints (N, K, 2) in pixels are."""
        first, second = self._directions(self._first, xy), self._directions(self._second, xy)
        second[:, self._is_level] = (1.0, 0.0)
        to_radians, zero = _angle(first), _angle(second)
        # An offset turns the direction of 0 only where angles have a sign; elsewhere it is a matter of the number.
        zero = zero - np.radians(np.where(self._is_signed, self._offset, 0.0))
        turn = (to_radians - zero + np.pi) % (2 * np.pi) - np.pi
        places = np.einsum("ak,nkd->nad", self._starts, np.nan_to_num(xy))
        places[np.isnan(turn)] = np.nan
        return Corners(places, places + first * (1, -1), to_radians - turn, to_radians)

    def _directions(self, weights: Float64, xy: Float64) -> Float64:
        """Return the directions (N, A, 2) with y upwards; NaN if a keypoint is missing that counts."""
        is_known = np.asarray(np.isfinite(xy).all(axis=-1))
        ends: Float64 = np.einsum("ak,nkd->nad", weights, np.where(is_known[..., None], xy, 0)) * (1, -1)
        ends[(~is_known).astype(float) @ np.abs(weights).T > 0] = np.nan
        return ends


def _keypoints_of(definition: Definition) -> set[str]:
    ends = [*definition.first, *(definition.second or ())]
    return {name for end in ends for name in end}


def _weights(
    direction: tuple[tuple[str, ...], tuple[str, ...]] | None,
    number_of: dict[str, int],
    signs: tuple[int, int] = (-1, 1),
) -> Float64:
    """Return what each keypoint contributes to a direction, (K,)."""
    weights = np.zeros(len(number_of))
    for names, sign in zip(direction or (), signs, strict=False):
        weights[[number_of[name] for name in names]] += sign / len(names)
    return weights


def _chosen(possible: Sequence[Definition], wanted: Sequence[str]) -> list[Definition]:
    """Return the wanted angles in the order of their definitions. Raises `UsageError`."""
    # "trunk" is an angle of its own, "knee" stands for two.
    names = meant_by(wanted, [one.name for one in possible], "angle")
    return [one for one in possible if one.name in names]


def _angle(directions: Float64) -> Float64:
    """Return the angles (N, A) of directions (N, A, 2), anticlockwise, in radians; NaN for a direction of no length."""
    is_long = np.square(directions).sum(axis=-1) > 0
    angles: Float64 = np.where(is_long, np.arctan2(directions[..., 1], directions[..., 0]), np.nan)
    return angles


def _roots(matrices: Float64) -> Float64:
    """Return the symmetric square roots of symmetric positive matrices (..., 2, 2), by the theorem of Cayley-Hamilton:
    (M + sqrt(det M) I) / sqrt(trace M + 2 sqrt(det M)).
    """
    a, b, d = matrices[..., 0, 0], matrices[..., 0, 1], matrices[..., 1, 1]
    root = np.sqrt(np.maximum(a * d - b * b, 0))
    trace = np.maximum(a + d + 2 * root, 1e-12)
    roots: Float64 = (matrices + root[..., None, None] * np.eye(2)) / np.sqrt(trace)[..., None, None]
    return roots


def _normals(directions: Float64) -> Float64:
    """Return the gradients (N, A, 2) of the angles of directions with y upwards, in radians per pixel of the picture,
    whose y is downwards.
    """
    squares = np.maximum(np.square(directions).sum(axis=-1, keepdims=True), 1e-12)
    normals: Float64 = np.nan_to_num(np.stack([-directions[..., 1], -directions[..., 0]], axis=-1) / squares)
    return normals
