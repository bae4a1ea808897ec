"""How alike two poses are: COCO's object keypoint similarity, and the poses that one person got twice."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from streampose.frames import Float32, Int64, People
from streampose.people.overlap import box_areas

SURE_SCORE = 0.3
"""Keypoints with a lower score are ignored. Also the default minimum score of a drawn keypoint."""
LEAST_SURE = 4
"""Minimum keypoints that two poses must share to be compared; all of them for a smaller skeleton."""
POSE_SPREAD = 0.1
"""Distance at which keypoints still count as near, in square roots of the box's area. COCO's OKS uses 2 x 0.03 (eyes)
to 2 x 0.1 (hips); two poses of one person found in different boxes differ more than two annotations of one."""
SAME_POSE = 0.5
"""Two poses of at least this similarity are one person."""

COCO_SIGMAS = {
    "nose": 0.026,
    "eye": 0.025,
    "ear": 0.035,
    "shoulder": 0.079,
    "elbow": 0.072,
    "wrist": 0.062,
    "hip": 0.107,
    "knee": 0.087,
    "ankle": 0.089,
}
"""Standard deviations of human annotations, in square roots of the person's area, from
https://cocodataset.org/#keypoints-eval."""
USUAL_SIGMA = 0.08
"""For keypoints that COCO does not have."""


def sigmas_of(names: Sequence[str]) -> Float32:
    """Return the standard deviation (K,) of annotations of each keypoint, in square roots of the person's area."""
    found = []
    for name in names:
        known = [sigma for word, sigma in COCO_SIGMAS.items() if word in name.lower()]
        found.append(known[0] if known else USUAL_SIGMA)
    return np.array(found, np.float32)


def pose_similarity(xy: Float32, scores: Float32, areas: Float32) -> Float32:
    """Return how alike each two of N poses are: (N, N) in 0..1, as COCO's object keypoint similarity with one spread
    for all keypoints, over those that are sure in both; 0 for fewer than `LEAST_SURE`.

    Args:
        xy, scores: (N, K, 2) and (N, K) float32.
        areas: (N,) square pixels of the people's boxes; of two, the smaller counts.
    """
    is_sure = (scores[:, None] >= SURE_SCORE) & (scores[None] >= SURE_SCORE)
    distances = np.where(is_sure, np.square(xy[:, None] - xy[None]).sum(axis=-1), np.inf)
    spread = 2 * POSE_SPREAD**2 * np.maximum(np.minimum(areas[:, None], areas[None]), 1.0)
    count = is_sure.sum(axis=-1)
    alike: Float32 = np.exp(-distances / spread[..., None]).sum(axis=-1) / np.maximum(count, 1)
    return np.where(count >= min(LEAST_SURE, xy.shape[1]), alike, 0).astype(np.float32)


def doubles(people: People, trust: Float32) -> Int64:
    """Return for each person (N,) the row of somebody with more trust whose pose is the same, or -1: one pose, found in
    two boxes.

    Args:
        people: found in one frame.
        trust: (N,) the person with the higher value keeps the pose; of equal ones, the first.
    """
    double_of = np.full(len(people), -1)
    if len(people) < 2:
        return double_of
    alike = pose_similarity(people.keypoints_xy, people.keypoint_scores, box_areas(people.boxes_xyxy)) >= SAME_POSE
    order = np.argsort(-trust, kind="stable")
    for place, row in enumerate(order):
        before = order[:place]
        owners = before[alike[row, before] & (double_of[before] == -1)]
        double_of[row] = owners[0] if len(owners) else -1
    return double_of
