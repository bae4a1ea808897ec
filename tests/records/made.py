"""Poses files made by hand."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np

from streampose.frames import NO_TRACK, Boxes, Frame, People, Result, RunInfo, SourceInfo
from streampose.sinks.poses import KeypointsSink
from tests.people.scene import SKELETON

BLANK = np.zeros((240, 320, 3), np.uint8)
RUN = RunInfo(
    SourceInfo("cam,1", "clip.mp4", 320, 240, 25.0, Fraction(1, 25), None, is_live=False),
    SKELETON,
    {"detector": "finder", "pose": "poser"},
)


def people(rng: np.random.Generator, count: int, *, is_tracked: bool = True) -> People:
    """Return people with everything that can be known of them."""
    roots = rng.normal(0, 2, (count, 17, 2, 2))
    found = People.of(
        Boxes(
            rng.uniform(0, 300, (count, 4)).astype(np.float32),
            rng.uniform(0, 1, count).astype(np.float32),
            np.zeros(count, np.int64),
        ),
        rng.uniform(-10, 330, (count, 17, 2)).astype(np.float32),
        rng.uniform(0, 1.1, (count, 17)).astype(np.float32),
        np.einsum("nkij,nklj->nkil", roots, roots).astype(np.float32),
    )
    if not is_tracked:
        return found
    ids = np.where(np.arange(count) % 4 == 3, NO_TRACK, np.arange(count) + 1)
    return replace(found, track_ids=ids, smooth_xy=found.keypoints_xy + 1)


def results(frames: int, *, most_people: int = 4, seed: int = 0, is_tracked: bool = True) -> Iterator[Result]:
    """Yield results whose frames have 0 to `most_people` people in turn; one keypoint is not known."""
    rng = np.random.default_rng(seed)
    for index in range(frames):
        found = people(rng, index % (most_people + 1), is_tracked=is_tracked)
        if len(found):
            found.keypoints_xy[0, 3] = np.nan
        yield Result(Frame("cam,1", index, index / 25, 0.0, BLANK), found, SKELETON)


def poses_file(path: Path, frames: int = 23, **settings: bool | int) -> Path:
    """Write a poses file, as a run does."""
    with KeypointsSink(path) as sink:
        sink.open(RUN)
        for result in results(frames, **settings):  # type: ignore[arg-type]
            sink.write(result)
    return path
