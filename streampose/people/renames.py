"""Who has another identity than in the frame before: what is remembered of somebody moves with them.

The tracker renames people: when it recognizes somebody who was away, when it takes back an exchange, and when it loses
somebody and finds them again as somebody new.
"""

from __future__ import annotations

import numpy as np

from streampose.frames import Float32, Int64
from streampose.people.known import Bools, Times
from streampose.people.overlap import best_pairs, box_areas, box_overlaps

SAME_BOX_IOU = 0.7
"""Minimum IoU of the boxes of one person in two frames in succession, if both identities are known."""
FOUND_AGAIN_IOU = 0.3
"""The same if the second identity is new"""
FOUND_AGAIN_S = 1.0
"""and was given within this time."""


def renames(
    ids: Int64,
    boxes_xyxy: Float32,
    seen_s: Times,
    now_ids: Int64,
    now_xyxy: Float32,
    pts_s: float,
    is_known: Bools,
) -> dict[int, int]:
    """Return the new identities, by the old ones, of people who were renamed.

    Args:
        ids, boxes_xyxy: (M,) and (M, 4) everybody seen in the last `FOUND_AGAIN_S`, with their latest boxes.
        seen_s: (M,) when that was.
        now_ids, now_xyxy: (N,) and (N, 4) the people of the next frame.
        pts_s: its time.
        is_known: (N,) which of their identities were given earlier.
    """
    if not len(ids) or not len(now_ids):
        return {}
    latest_s = seen_s.max()
    was_there = seen_s == latest_s
    is_here = np.isin(ids, now_ids)
    is_gone = ~is_here & (pts_s - seen_s <= FOUND_AGAIN_S)
    is_back = ~np.isin(now_ids, ids[was_there])
    found: dict[int, int] = {}
    if is_gone.any() and is_back.any():
        gone, back = np.flatnonzero(is_gone), np.flatnonzero(is_back)
        overlaps = box_overlaps(boxes_xyxy[gone], now_xyxy[back])
        # An older identity can only be given back if the later one vanished in this very frame.
        is_older = ids[gone][:, None] > now_ids[back][None]
        is_new = ~is_known[back][None] & ~is_older
        is_given_back = is_older & was_there[gone][:, None] & (overlaps >= SAME_BOX_IOU)
        overlaps[~(is_new | is_given_back)] = 0
        for recent in np.flatnonzero(np.isin(now_ids[back], ids)):
            own = boxes_xyxy[ids == now_ids[back[recent]]]
            if box_overlaps(own, now_xyxy[back[recent]][None])[0, 0] >= overlaps[:, recent].max():
                overlaps[:, recent] = 0  # they were away for a moment, and are where they were
        for row, column in best_pairs(overlaps, FOUND_AGAIN_IOU):
            found[int(ids[gone[row]])] = int(now_ids[back[column]])
    return found | _exchanged(ids[was_there], boxes_xyxy[was_there], now_ids, now_xyxy)


def _exchanged(ids: Int64, boxes_xyxy: Float32, now_ids: Int64, now_xyxy: Float32) -> dict[int, int]:
    """Return the identities that two people have exchanged, each by the other."""
    common, rows, columns = np.intersect1d(ids, now_ids, return_indices=True)
    if len(common) < 2:
        return {}
    overlaps = box_overlaps(boxes_xyxy[rows], now_xyxy[columns])
    has_moved = np.diag(overlaps) < SAME_BOX_IOU
    if has_moved.sum() < 2:
        return {}
    both = np.minimum(overlaps, overlaps.T) * (has_moved[:, None] & has_moved[None])
    np.fill_diagonal(both, 0)
    found: dict[int, int] = {}
    for one, other in best_pairs(np.triu(both), SAME_BOX_IOU):
        if int(common[one]) not in found and int(common[other]) not in found:
            found[int(common[one])], found[int(common[other])] = int(common[other]), int(common[one])
    return found


def overlaps_of_pairs(first_xyxy: Float32, second_xyxy: Float32) -> Float32:
    """Return the IoU (N,) of each of N boxes with the box in the same row of the others."""
    common = np.minimum(first_xyxy[:, 2:], second_xyxy[:, 2:]) - np.maximum(first_xyxy[:, :2], second_xyxy[:, :2])
    shared = np.maximum(common, 0).prod(axis=-1)
    share: Float32 = shared / np.maximum(box_areas(first_xyxy) + box_areas(second_xyxy) - shared, 1e-6)
    return share
