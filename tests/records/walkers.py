"""Poses files of people who walk, made by hand."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from streampose.networks.pose import COCO_NAMES
from streampose.records.lines import line_of
from tests.people.scene import Body

FPS = 25
PX_PER_S = 50.0
HEADER = {
    "streampose": "0.1.0",
    "format": 2,
    "source": "clip.mp4",
    "skeleton": {"names": list(COCO_NAMES), "edges": []},
}
Change = Callable[[int, list[dict[str, Any]]], Any]


def person(number: int | None, x: float, *, has_covariances: bool = True, is_smoothed: bool = True) -> dict[str, Any]:
    """Return a person as in a poses file. The smoothed keypoints are 1 px to the right of the others."""
    body = Body(x)
    found: dict[str, Any] = {"id": number, "box_xyxy": body.xyxy.tolist(), "box_score": 0.9}
    found["keypoints"] = [[*point, 0.8] for point in body.xy.tolist()]
    if has_covariances:
        found["covariances"] = [[4.0, 1.0, 9.0]] * len(COCO_NAMES)
    if is_smoothed:
        found["smoothed"] = (body.xy + np.array([1, 0], np.float32)).tolist()
    return found


def walk(
    frames: int,
    there: dict[int | None, Iterable[int]] | None = None,
    *,
    source: str = "clip",
    change: Change | None = None,
    **settings: bool,
) -> list[dict[str, Any]]:
    """Return frames with people who walk to the right; person N begins at 100 N pixels.

    Args:
        frames: how many.
        there: the frames in which each identity is there; by default person 1 in all.
        source: its name.
        change: is called with the number and the people of each frame, and may change them.
        settings: of `person`.
    """
    there = {one: set(of) for one, of in (there or {1: range(frames)}).items()}
    lines = []
    for index in range(frames):
        people = [
            person(one, 100.0 * (one or 0) + index * PX_PER_S / FPS, **settings)
            for one, of in there.items()
            if index in of
        ]
        if change is not None:
            change(index, people)
        lines.append(
            {"source": source, "frame": index, "pts_s": index / FPS, "width": 640, "height": 480, "people": people}
        )
    return lines


def write(path: Path, lines: Iterable[dict[str, Any]], header: dict[str, Any] = HEADER) -> Path:
    """Write a poses file."""
    with path.open("wb") as file:
        file.write(line_of(header))
        file.writelines(map(line_of, lines))
    return path
