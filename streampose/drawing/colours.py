"""Colours of points, edges and people."""

from __future__ import annotations

from functools import cache

import numpy as np
import numpy.typing as npt
import supervision as sv

from streampose.frames import NO_TRACK, People, Skeleton
from streampose.palette import BLUE, GREEN, ORANGE, PURPLE, SKY_BLUE, VERMILLION, YELLOW

_MIDDLE = YELLOW
_LEFT, _LEFT_LEG = SKY_BLUE, BLUE
_RIGHT, _RIGHT_LEG = ORANGE, VERMILLION
_LEG_WORDS = ("leg", "hip", "thigh", "knee", "shin", "calf", "ankle", "foot", "heel", "toe")

RIM = "#202020"
"""The colour of a one-pixel rim around lines and points. Without a rim, no colour stands out from every background."""

UNTRACKED = GREEN
TRACKED = (SKY_BLUE, ORANGE, PURPLE, YELLOW, BLUE, VERMILLION)
TAG_COLORS = sv.ColorPalette.from_hex([*TRACKED, UNTRACKED])

# The ViTPose documentation's colours for COCO's points and edges; see `Annotator`.
_DOC_LEG, _DOC_TRUNK, _DOC_ARM, _DOC_HEAD = "#ff8000", "#ff33ff", "#3399ff", "#00ff00"
_DOC_POINTS = (*[_DOC_HEAD] * 5, *[_DOC_ARM] * 6, *[_DOC_LEG] * 6)
_DOC_EDGES = {
    **dict.fromkeys([(15, 13), (13, 11), (16, 14), (14, 12)], _DOC_LEG),
    **dict.fromkeys([(11, 12), (5, 11), (6, 12)], _DOC_TRUNK),
    **dict.fromkeys([(5, 6), (5, 7), (6, 8), (7, 9), (8, 10)], _DOC_ARM),
    **dict.fromkeys([(1, 2), (0, 1), (0, 2), (1, 3), (2, 4), (3, 5), (4, 6)], _DOC_HEAD),
}


@cache
def sv_color(hexadecimal: str) -> sv.Color:
    return sv.Color.from_hex(hexadecimal)


def side_colors(skeleton: Skeleton) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the colours of points and edges by body side.

    The side of a point comes from `flip_pairs`. An edge has the side that both its ends share. A point or edge is
    darker if all its names belong to a leg.
    """
    left = {a for a, _ in skeleton.flip_pairs}
    right = {b for _, b in skeleton.flip_pairs}
    legs = {i for i, name in enumerate(skeleton.names) if any(word in name.lower() for word in _LEG_WORDS)}

    def own(*points: int) -> str:
        if left.issuperset(points):
            return _LEFT_LEG if legs.issuperset(points) else _LEFT
        if right.issuperset(points):
            return _RIGHT_LEG if legs.issuperset(points) else _RIGHT
        return _MIDDLE

    return tuple(own(i) for i in range(len(skeleton.names))), tuple(own(*edge) for edge in skeleton.edges)


def documented_colors(skeleton: Skeleton) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the ViTPose documentation's colours of points and edges; for other skeletons, the colours by side."""
    by_edge = {frozenset(edge): color for edge, color in _DOC_EDGES.items()}
    edges = [frozenset(edge) for edge in skeleton.edges]
    if len(skeleton.names) != len(_DOC_POINTS) or set(edges) != set(by_edge):
        return side_colors(skeleton)
    return _DOC_POINTS, tuple(by_edge[edge] for edge in edges)


def person_colors(people: People) -> npt.NDArray[np.str_]:
    """Return each person's hexadecimal colour (N,), by track."""
    colors = np.array([*TRACKED, UNTRACKED])
    return colors[np.where(people.track_ids == NO_TRACK, len(TRACKED), people.track_ids % len(TRACKED))]
