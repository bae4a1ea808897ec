"""Conditions of rules, for one skeleton: how far people are from fulfilling them, in one frame."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from streampose.errors import UsageError
from streampose.frames import NO_TRACK, Int64
from streampose.people.angles import AngleMeter
from streampose.people.falls import Memory, Posture, has_fallen
from streampose.people.names import SIDES, plain_name
from streampose.people.rule_specs import Above, Angle, Compare, Count, Crosses, Inside, Points, Spec, Speed, Within
from streampose.people.scene import Scene, steepness, trunk_rows
from streampose.people.zones import Float64, Shape, crosses, polygon_of

ANGLE_SLACK = 5.0
"""Once fulfilled, a condition on an angle holds until the angle is this many degrees beyond the limit."""
SPEED_SLACK = 0.2
"""Once fulfilled, a condition on a speed holds until the speed is this share beyond the limit."""
PERSON_SPEED_OVER_S = 0.5
"""Speeds are means over this time: of a person,"""
POINT_SPEED_OVER_S = 0.2
"""and of a keypoint, which may soon turn back."""
GAP_S = 1.0
"""Somebody not seen for longer than this has no speed and crosses no line in between."""
CROSSED_S = 0.2
"""Somebody who has crossed a line stays on the other side for at least this long. Who comes back sooner has not crossed
it: boxes and identities flicker."""
TOLERANCE_S = 1e-6

_ALIASES = {
    "hand": ("wrist",),
    "foot": ("ankle",),
    "head": ("nose", "eye", "ear"),
}
"""Other names of keypoints, for skeletons that do not have them."""
_PLURALS = {"feet": "foot"}


class Measured(NamedTuple):
    """How far N people are above the limit of a condition: 0 and more fulfil it. What is unknown lies in between."""

    low: Float64
    """(N,) at least; -inf if nothing is known."""
    high: Float64
    """(N,) at most; inf if nothing is known."""
    slack: Float64 | float = 0.0
    """(N,) Somebody who fulfilled it before does so until they are farther than this below the limit."""
    values: Mapping[str, Float64] = {}
    """(N,) what can be told in an event; NaN if unknown."""


class Condition(Protocol):
    """A condition for one skeleton."""

    is_moment: bool
    """Whether it holds only in the frame in which something happens."""

    def measure(self, scene: Scene, memories: Sequence[Memory]) -> Measured:
        """Measure the people of a frame.

        Args:
            scene: the frame.
            memories: of each person: what the condition remembers of them. It may change them.
        """


def bind(specs: Sequence[Spec], names: Sequence[str], margin: float) -> list[Condition]:
    """Return conditions for a skeleton.

    Args:
        specs: their meaning.
        names: plain names of the skeleton's keypoints.
        margin: how far beyond an edge somebody must be to have left a zone or crossed a line, in sizes of the person.

    Raises:
        UsageError: the skeleton lacks a keypoint or an angle.
    """
    return [_bound(spec, names, margin) for spec in specs]


def _bound(spec: Spec, names: Sequence[str], margin: float) -> Condition:
    if isinstance(spec, Inside):
        return _Inside(spec, _Place(spec.points, names), margin)
    if isinstance(spec, Above):
        return _Above(spec, names, margin)
    if isinstance(spec, Crosses):
        return _Crosses(spec, _Place(spec.points, names), margin)
    if isinstance(spec, Speed):
        return _Speed(spec, _Place(spec.points, names))
    if isinstance(spec, Within):
        return _Within(spec, names)
    if isinstance(spec, Angle):
        return _Angle(spec, names)
    if isinstance(spec, Count):
        return _Count(spec, margin)
    return _Fell(names)


def _rows(points: Points, known: Sequence[str], thing: str) -> tuple[list[int], bool]:
    """Return the numbers of the things that are meant, and whether all of them count, not only one.

    Raises:
        UsageError: there are none.
    """
    name = plain_name(points.name)
    singular = _PLURALS.get(name, name.removesuffix("s"))
    for one, is_all in ((name, points.is_all), (singular, True)):
        side = next((f"{side}_" for side in SIDES if one.startswith(f"{side}_")), "")
        others = {f"{side}{alias}" for alias in _ALIASES.get(one.removeprefix(side), ())}
        for wanted in ({one}, others):
            exact = [row for row, plain in enumerate(known) if plain in wanted]
            either = [row for row, plain in enumerate(known) if _without_side(plain) in wanted]
            found = exact if len(wanted) == 1 and exact else sorted({*exact, *either})
            if found:
                return found, is_all
    raise UsageError(f"unknown {thing} {points.name!r}: this skeleton has {', '.join(known)}")


def _without_side(name: str) -> str:
    return name.removeprefix("left_").removeprefix("right_")


def _spans(values: Float64, is_all: bool) -> tuple[Float64, Float64]:
    """Return the least and the greatest value (N,) that the best, or with `is_all` the worst, of (N, P) can have."""
    best = np.min if is_all else np.max
    is_missing = np.isnan(values)
    low: Float64 = best(np.where(is_missing, -np.inf, values), axis=-1)
    high: Float64 = best(np.where(is_missing, np.inf, values), axis=-1)
    return low, high


def _beyond(values: Float64, compare: Compare, limit: float) -> Float64:
    return values - limit if compare in (">", ">=") else limit - values


class _Place:
    """Where the points of a condition are."""

    def __init__(self, points: Points, names: Sequence[str]) -> None:
        self.is_person = points.name == "person"
        self.name = plain_name(points.name)
        self._rows, self.is_all = ([], True) if self.is_person else _rows(points, names, "keypoint")

    def of_standing(self, scene: Scene) -> Float64:
        """Return the points (N, P, 2); of a person where they stand."""
        return scene.feet[:, None] if self.is_person else scene.xy[:, self._rows]

    def of_moving(self, scene: Scene) -> Float64:
        """Return the points (N, P, 2); of a person the middle of the box, which jumps less than its edge."""
        return scene.middles[:, None] if self.is_person else scene.xy[:, self._rows]


class _Inside:
    is_moment = False

    def __init__(self, spec: Inside, place: _Place, margin: float) -> None:
        self._zone, self._sign = spec.zone, -1 if spec.is_outside else 1
        self._place, self._margin = place, margin

    def measure(self, scene: Scene, memories: Sequence[Memory]) -> Measured:  # noqa: ARG002
        polygon = polygon_of(self._zone, scene.width, scene.height)
        low, high = _spans(self._sign * polygon.depths(self._place.of_standing(scene)), self._place.is_all)
        if self._sign < 0:  # the edge is inside
            low, high = np.where(low == 0, -1e-9, low), np.where(high == 0, -1e-9, high)
        return Measured(low, high, self._margin * scene.sizes)


class _Above:
    is_moment = False

    def __init__(self, spec: Above, names: Sequence[str], margin: float) -> None:
        self._rows, self._is_all = _rows(spec.points, names, "keypoint")
        self._others, _ = _rows(spec.others, names, "keypoint")
        self._sign, self._margin = -1 if spec.is_below else 1, margin

    def measure(self, scene: Scene, memories: Sequence[Memory]) -> Measured:  # noqa: ARG002
        # With y upwards, above is higher than the highest of the others; below is the same, mirrored.
        heights = -self._sign * scene.xy[..., 1]
        others = heights[:, self._others]
        limit = np.where(np.isnan(others), -np.inf, others).max(axis=-1)
        limit[np.isinf(limit)] = np.nan
        low, high = _spans(heights[:, self._rows] - limit[:, None], self._is_all)
        return Measured(low, high, self._margin * scene.sizes)


class _Within:
    """A part of the body is near to the horizontal or vertical."""

    is_moment = False

    def __init__(self, spec: Within, names: Sequence[str]) -> None:
        every = AngleMeter(names).names
        rows, self._is_all = _rows(spec.part, every, "part of the body")
        self._meter = AngleMeter(names, [every[row] for row in rows])
        for name in self._meter.names:
            if _without_side(name) not in _PARTS:
                raise UsageError(f"{name!r} is not a part of the body: write one of {', '.join(_PARTS)}")
        self._trunk = trunk_rows(names) if self._meter.names == ("trunk",) else None
        self._degrees, self._is_horizontal = spec.degrees, spec.is_horizontal

    def measure(self, scene: Scene, memories: Sequence[Memory]) -> Measured:  # noqa: ARG002
        if self._trunk is not None:
            steep = scene.trunk(self._trunk).steep_degrees[:, None]
        else:
            steep = steepness(self._meter.measure_points(scene.xy, None).degrees)
        from_limit = self._degrees - (steep if self._is_horizontal else 90 - steep)
        low, high = _spans(from_limit, self._is_all)
        values = {f"{name}_steepness": column for name, column in zip(self._meter.names, steep.T, strict=True)}
        return Measured(low, high, ANGLE_SLACK, values)


class _Angle:
    """The angle of a joint is beyond a limit."""

    is_moment = False

    def __init__(self, spec: Angle, names: Sequence[str]) -> None:
        every = AngleMeter(names).names
        rows, self._is_all = _rows(spec.joint, every, "angle")
        self._meter = AngleMeter(names, [every[row] for row in rows])
        self._compare, self._degrees = spec.compare, spec.degrees

    def measure(self, scene: Scene, memories: Sequence[Memory]) -> Measured:  # noqa: ARG002
        degrees = self._meter.measure_points(scene.xy, None).degrees
        low, high = _spans(_beyond(degrees, self._compare, self._degrees), self._is_all)
        return Measured(low, high, ANGLE_SLACK, dict(zip(self._meter.names, degrees.T, strict=True)))


_PARTS = ("trunk", "thigh", "shank", "upper_arm", "forearm")


class _Speed:
    is_moment = False

    def __init__(self, spec: Speed, place: _Place) -> None:
        self._spec, self._place = spec, place
        self._over_s = PERSON_SPEED_OVER_S if place.is_person else POINT_SPEED_OVER_S

    def measure(self, scene: Scene, memories: Sequence[Memory]) -> Measured:
        points = self._place.of_moving(scene)
        speeds = np.full(points.shape[:2], np.nan)
        for row, memory in enumerate(memories):
            before = _before(memory.setdefault("path", []), scene.pts_s, self._over_s)
            if before is not None:
                step = points[row] - np.reshape(before[1], points[row].shape)
                speeds[row] = np.hypot(step[:, 0], step[:, 1]) / (scene.pts_s - before[0])
            if not np.isnan(points[row]).all():
                memory["path"].append([scene.pts_s, points[row].tolist()])
        if self._spec.in_heights:
            speeds /= scene.sizes[:, None]
        low, high = _spans(_beyond(speeds, self._spec.compare, self._spec.limit), self._place.is_all)
        fastest = np.where(np.isnan(speeds), -np.inf, speeds).max(axis=-1)
        name = "speed" if self._place.is_person else f"{self._place.name}_speed"
        values = {name: np.where(np.isinf(fastest), np.nan, fastest)}
        return Measured(low, high, SPEED_SLACK * self._spec.limit, values)


def _before(path: list[list[Any]], pts_s: float, over_s: float) -> list[Any] | None:
    """Return the latest time and points of a path that are at least `over_s` old, and forget those before; None if the
    path is too short or has a gap.
    """
    if path and pts_s - path[-1][0] > GAP_S + TOLERANCE_S:
        path.clear()
    while len(path) > 1 and pts_s - path[1][0] >= over_s - TOLERANCE_S:
        path.pop(0)
    return path[0] if path and pts_s - path[0][0] >= over_s - TOLERANCE_S else None


class _Crosses:
    """A point was on one side of a line, and now has been on the other for a moment, both times by the margin."""

    is_moment = True

    def __init__(self, spec: Crosses, place: _Place, margin: float) -> None:
        self._line, self._towards = spec.line, spec.towards
        self._place, self._margin = place, margin

    def measure(self, scene: Scene, memories: Sequence[Memory]) -> Measured:
        line = self._line.pixels(scene.width, scene.height)
        points = self._place.of_standing(scene)
        step = line[1] - line[0]
        normal = np.array([-step[1], step[0]]) / np.hypot(*step)
        distances = (points - line[0]) @ normal
        has_crossed = np.zeros(len(points), np.bool_)
        for row, memory in enumerate(memories):
            margin = self._margin * scene.sizes[row]
            for number, distance in enumerate(distances[row].tolist()):
                of_point = memory.setdefault(str(number), {})
                side = self._moved(of_point, points[row, number], distance, margin, scene.pts_s, line)
                if side and (self._towards is None or side * (normal @ self._towards) > 0):
                    has_crossed[row] = True
        level = np.where(has_crossed, 1.0, -1.0)
        return Measured(level, level)

    def _moved(
        self, memory: Memory, point: Float64, distance: float, margin: float, pts_s: float, line: Float64
    ) -> int:
        """Remember where a point is. Return the side to which it has crossed the line: 1, -1, or 0 for neither."""
        if distance != distance:  # NaN
            return 0
        if memory and pts_s - memory["seen_s"] > GAP_S + TOLERANCE_S:
            memory.clear()
        memory["seen_s"] = pts_s
        side = 0 if abs(distance) <= margin else 1 if distance > 0 else -1
        if side == 0:
            return 0
        if memory.get("side", side) == side:
            memory.update(side=side, at=point.tolist(), beyond_s=None)
            return 0
        if memory["beyond_s"] is None:
            memory.update(beyond_s=pts_s, is_through=crosses(np.array(memory["at"]), point, line))
        if pts_s - memory["beyond_s"] < CROSSED_S - TOLERANCE_S:
            return 0
        memory.update(side=side, at=point.tolist(), beyond_s=None)
        return side if memory["is_through"] else 0


class _Count:
    """So many people are in a zone. Has one memory, not one of each person."""

    is_moment = False

    def __init__(self, spec: Count, margin: float) -> None:
        self._spec, self._margin = spec, margin

    def measure(self, scene: Scene, memories: Sequence[Memory]) -> Measured:
        (memory,) = memories
        count = len(scene.people) if self._spec.zone is None else self._inside(scene, memory, self._spec.zone)
        number, compare = self._spec.number, self._spec.compare
        holds = {
            ">": count > number,
            ">=": count >= number,
            "<": count < number,
            "<=": count <= number,
            "=": count == number,
        }[compare]
        level = np.array([1.0 if holds else -1.0])
        return Measured(level, level, values={"count": np.array([float(count)])})

    def _inside(self, scene: Scene, memory: Memory, zone: Shape) -> int:
        depths = polygon_of(zone, scene.width, scene.height).depths(scene.feet)
        ids: Int64 = scene.people.track_ids
        was_inside = (ids != NO_TRACK) & np.isin(ids, memory.get("inside", []))
        is_inside = depths >= np.where(was_inside, -self._margin * scene.sizes, 0.0)
        memory["inside"] = ids[is_inside].tolist()
        return int(is_inside.sum())


class _Fell:
    """Somebody lies who was upright just before; see `streampose.people.falls`."""

    is_moment = False

    def __init__(self, names: Sequence[str]) -> None:
        self._rows = trunk_rows(names)

    def measure(self, scene: Scene, memories: Sequence[Memory]) -> Measured:
        trunk, xy = scene.trunk(self._rows), scene.xy
        is_missing = np.isnan(xy)
        extents = np.where(is_missing, -np.inf, xy).max(axis=1) - np.where(is_missing, np.inf, xy).min(axis=1)
        spreads = extents[:, 0] / np.maximum(extents[:, 1], 1.0)
        rows = zip(*(values.tolist() for values in (*trunk, spreads)), strict=True)
        found = [has_fallen(memory, Posture(*row), scene.pts_s) for memory, row in zip(memories, rows, strict=True)]
        level = np.array([[np.nan if fell is None else 1.0 if fell else -1.0] for fell in found])
        low, high = _spans(level.reshape(-1, 1), True)
        return Measured(low, high, values={"trunk_steepness": trunk.steep_degrees})
