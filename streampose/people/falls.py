"""Who has fallen: somebody lies who was upright and higher just before.

The definition, in words for users, is in docs/rules.md. Times are passed in.
"""

from __future__ import annotations

from typing import Any, NamedTuple

UPRIGHT_DEGREES = 45.0
"""Somebody is upright whose trunk is at least this steep."""
LYING_DEGREES = 30.0
"""Somebody lies whose trunk is at most this steep,"""
LYING_SLACK_DEGREES = 5.0
"""or, if they lay before, at most so much steeper,"""
LYING_WIDTH = 1.5
"""and whose keypoints extend at least this many times as far across as up,"""
LYING_WIDTH_SLACK = 0.2
"""or, if they lay before, so much less. Somebody who bends or crouches with a level trunk is as high as wide."""
FALL_WITHIN_S = 2.0
"""A fall takes at most this long, from upright to lying."""
LEAST_DROP = 1.0
"""In a fall, the middle of the trunk drops by at least this many lengths of the upright trunk. It is about 2 from
standing, and 0.5 from sitting on the floor."""
FORGET_AFTER_S = 1.0
"""Somebody who has not lain for this long has got up."""

Memory = dict[str, Any]


class Posture(NamedTuple):
    """How somebody holds themselves in a frame. NaN if unknown."""

    steep_degrees: float
    """Angle between the trunk and the horizontal, 0 to 90."""
    middle_y: float
    """Of the middle of the trunk, in pixels, downwards."""
    length: float
    """Of the trunk, in pixels."""
    spread: float
    """Width of the extent of all keypoints, divided by its height."""


def has_fallen(memory: Memory, posture: Posture, pts_s: float) -> bool | None:
    """Return whether somebody lies after a fall; None if their trunk is not seen.

    Args:
        memory: what is known of them from the frames before; changed. An empty one for somebody new.
        posture: in this frame.
        pts_s: its time.
    """
    if posture.steep_degrees != posture.steep_degrees:  # NaN
        return None
    was_lying = memory.get("is_lying", False)
    upright: list[list[float]] = memory.setdefault("upright", [])
    while upright and pts_s - upright[0][0] > FALL_WITHIN_S + 1e-6:
        upright.pop(0)
    if posture.steep_degrees >= UPRIGHT_DEGREES:
        while upright and upright[-1][1] >= posture.middle_y:  # keep only what can be the highest later
            upright.pop()
        upright.append([pts_s, posture.middle_y, posture.length])
    is_lying = (
        posture.steep_degrees <= LYING_DEGREES + LYING_SLACK_DEGREES * was_lying
        and posture.spread >= LYING_WIDTH - LYING_WIDTH_SLACK * was_lying
    )
    memory["is_lying"] = is_lying
    if is_lying:
        memory["lay_s"] = pts_s
        if upright and posture.middle_y - upright[0][1] >= LEAST_DROP * upright[0][2]:
            memory["fell"] = True
    elif pts_s - memory.get("lay_s", pts_s) > FORGET_AFTER_S:
        memory["fell"] = False
    return is_lying and bool(memory.get("fell"))
