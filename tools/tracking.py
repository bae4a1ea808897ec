"""How well identities last: HOTA, AssA, IDF1 and switches, by TrackEval's definitions."""

from __future__ import annotations

import contextlib
import io
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from streampose.frames import Float32, Int64
from streampose.people.overlap import best_pairs, box_overlaps
from streampose.records.lines import read_lines

LEAST_VISIBLE = 0.3
"""Somebody of whom less is visible need not be found; nor does it count as a fault."""
SAME_IOU = 0.5
"""Minimum IoU of a box and a true box of the same person."""


Truth = list[dict[str, Any]]


class Identified(NamedTuple):
    """The people of one frame."""

    ids: Int64
    """(N,) the identities."""
    xyxy: Float32
    """(N, 4) boxes in pixels."""


class TruePeople(NamedTuple):
    """The people who are in a frame in truth."""

    people: Identified
    counts: npt.NDArray[np.bool_]
    """(N,) whether enough of them is visible."""


@dataclass(frozen=True, slots=True)
class Tracking:
    """How well identities last. Shares in 0..1, more is better; `switches` are changes of identity."""

    hota: float
    assa: float
    idf1: float
    switches: int
    identities: int
    true_identities: int


def true_frames(path: str | os.PathLike[str]) -> Truth:
    """Return the frames of a file such as `assets/crossing_truth.json` as they are there."""
    frames: Truth = json.loads(Path(path).read_text(encoding="utf-8"))["frames"]
    return frames


def read_truth(path: str | os.PathLike[str]) -> list[TruePeople]:
    """Return the true people of every frame of a file such as `assets/crossing_truth.json`."""
    truth = []
    for frame in true_frames(path):
        people = frame["people"]
        ids = np.array([person["id"] for person in people], np.int64)
        xyxy = np.array([person["box_xyxy"] for person in people], np.float32).reshape(-1, 4)
        counts = np.array([person.get("visible", 1.0) >= LEAST_VISIBLE for person in people], np.bool_)
        truth.append(TruePeople(Identified(ids, xyxy), counts))
    return truth


def read_identified(path: str | os.PathLike[str]) -> dict[int, Identified]:
    """Return the people of a `poses.jsonl` file by frame index. Somebody without an identity gets one of their own."""
    found = {}
    alone = -1
    for line in read_lines(path)[1]:
        ids = []
        for person in line["people"]:
            ids.append(alone if person["id"] is None else person["id"])
            alone -= person["id"] is None
        xyxy = np.array([person["box_xyxy"] for person in line["people"]], np.float32).reshape(-1, 4)
        found[line["frame"]] = Identified(np.array(ids, np.int64), xyxy)
    return found


def judge(truth: Sequence[TruePeople], found: dict[int, Identified]) -> Tracking:
    """Compare the people found with the true ones, over the frames in `found`.

    A box that shows somebody who hardly can be seen is left out, and so is that person.
    """
    from trackeval.metrics import CLEAR, HOTA, Identity

    true_ids, found_ids, similarities = [], [], []
    for index in sorted(found):
        (ids, xyxy), counts = truth[index]
        overlaps = box_overlaps(xyxy, found[index].xyxy)
        pairs = best_pairs(overlaps, SAME_IOU)
        is_judged = np.ones(len(found[index].ids), np.bool_)
        is_judged[[column for row, column in pairs if not counts[row]]] = False
        true_ids.append(ids[counts])
        found_ids.append(found[index].ids[is_judged])
        similarities.append(overlaps[counts][:, is_judged].astype(float))
    data: dict[str, Any] = {"num_timesteps": len(found), "similarity_scores": similarities}
    for name, ids_of_frames in (("gt", true_ids), ("tracker", found_ids)):
        known = np.unique(np.concatenate(ids_of_frames))
        data[f"{name}_ids"] = [np.searchsorted(known, some) for some in ids_of_frames]
        data[f"num_{name}_ids"], data[f"num_{name}_dets"] = len(known), sum(map(len, ids_of_frames))
    quiet = {"PRINT_CONFIG": False, "THRESHOLD": SAME_IOU}
    with contextlib.redirect_stdout(io.StringIO()):
        hota = HOTA().eval_sequence(data)
        identity = Identity(quiet).eval_sequence(data)
        clear = CLEAR(quiet).eval_sequence(data)
    return Tracking(
        float(hota["HOTA"].mean()),
        float(hota["AssA"].mean()),
        float(identity["IDF1"]),
        int(clear["IDSW"]),
        data["num_tracker_ids"],
        data["num_gt_ids"],
    )
