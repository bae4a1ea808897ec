"""How well identities last: HOTA, AssA, IDF1 and switches, by TrackEval's definitions."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from streampose.frames import NO_TRACK, Float32, Int64
from streampose.people.overlap import best_pairs, box_overlaps
from streampose.records.poses import read_poses
from streampose.records.tables import needs
from streampose.records.truth import SAME_IOU, Truth


class Identified(NamedTuple):
    """The people of one frame."""

    ids: Int64
    """(N,) the identities."""
    xyxy: Float32
    """(N, 4) boxes in pixels."""


@dataclass(frozen=True, slots=True)
class Tracking:
    """How well identities last. Shares in 0..1, more is better; `switches` are changes of identity."""

    hota: float
    assa: float
    idf1: float
    switches: int
    identities: int
    """How many the file has; people without one are not counted here."""
    true_identities: int


def read_identified(path: str | os.PathLike[str]) -> dict[int, Identified]:
    """Return the people of a `poses.jsonl` file by frame index. Raises `UsageError`."""
    found: dict[int, Identified] = {}
    for frame in read_poses(path):
        found[frame.index] = identified(frame.people.track_ids, frame.people.boxes_xyxy, frame.index)
    return found


def identified(track_ids: Int64, boxes_xyxy: Float32, number: int) -> Identified:
    """Return the people of frame `number`. Somebody without an identity gets one that nobody else has."""
    own = -1 - np.arange(len(track_ids)) - (number << 20)
    return Identified(np.where(track_ids == NO_TRACK, own, track_ids), boxes_xyxy)


def judge(truth: Truth, found: Mapping[int, Identified]) -> Tracking:
    """Compare the people found with the true ones, over the frames in `found`.

    People who are hardly visible are left out, and so are the boxes that show them.

    Raises:
        UsageError: TrackEval is not installed.
    """
    metrics = needs("trackeval.metrics", "evaluate")
    true_ids, found_ids, similarities = [], [], []
    for number in sorted(found):
        true = truth.frames[number]
        overlaps = box_overlaps(true.boxes_xyxy, found[number].xyxy)
        is_judged = np.ones(len(found[number].ids), np.bool_)
        is_judged[[column for row, column in best_pairs(overlaps, SAME_IOU) if not true.counts[row]]] = False
        true_ids.append(identified(true.ids, true.boxes_xyxy, number).ids[true.counts])
        found_ids.append(found[number].ids[is_judged])
        similarities.append(overlaps[true.counts][:, is_judged].astype(float))
    data: dict[str, Any] = {"num_timesteps": len(found), "similarity_scores": similarities}
    for name, ids_of_frames in (("gt", true_ids), ("tracker", found_ids)):
        known = np.unique(np.concatenate(ids_of_frames))
        data[f"{name}_ids"] = [np.searchsorted(known, some) for some in ids_of_frames]
        data[f"num_{name}_ids"], data[f"num_{name}_dets"] = len(known), sum(map(len, ids_of_frames))
    quiet = {"PRINT_CONFIG": False, "THRESHOLD": SAME_IOU}
    with contextlib.redirect_stdout(io.StringIO()):
        hota = metrics.HOTA().eval_sequence(data)
        identity = metrics.Identity(quiet).eval_sequence(data)
        clear = metrics.CLEAR(quiet).eval_sequence(data)
    return Tracking(
        float(hota["HOTA"].mean()),
        float(hota["AssA"].mean()),
        float(identity["IDF1"]),
        int(clear["IDSW"]),
        _count(found_ids),
        _count(true_ids),
    )


def _count(ids_of_frames: Sequence[Int64]) -> int:
    """Return how many identities there are, without those that `identified` makes."""
    return int((np.unique(np.concatenate(ids_of_frames)) > NO_TRACK).sum())
