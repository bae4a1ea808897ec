"""How much speaks for a known person being a person of a new frame.

The evidence is a logarithm of likelihoods: "the same person" over "somebody else". Place, look and size add up.
"""

from __future__ import annotations

import numpy as np

from streampose.frames import Float32
from streampose.people.appearance import Looks, look_similarity
from streampose.people.known import Records, Seen, Times, shifts

SEEN_SCORE = 0.2
"""Keypoints with a lower score are not compared."""
LEAST_COMPARED = 0.5
"""Minimum sum of the compared keypoints' scores."""
UNREADABLE_PLACE = -3.0
"""Evidence of the place where there are too few keypoints to compare."""
LIMB_SPREAD = 0.06
"""Standard deviation of a keypoint relative to its person, in sizes,"""
LIMB_SPEED = 0.35
"""and its growth per second,"""
LIMB_GROWS_S = 0.4
"""for at most this long."""
PERSON_SPREAD = 0.08
"""Standard deviation of the place of a whole pose, in sizes."""
PLACE_WEIGHT = 1.5
"""How many independent measurements the keypoints of one pose are worth. Their errors go together."""
MOST_STRAY = 8.0
"""Maximum evidence against a pair from one keypoint: a misplaced hand must not decide."""
FARTHEST = 7.5
"""With more evidence against it from the mean keypoint, a pose is somewhere else."""
PLACE_COUNTS_S = 1.0
"""Somebody unseen for longer may return anywhere:"""
LEAST_PLACE = -4.0
"""an unexpected place then counts no more than this."""
LOOK_WEIGHT = 14.0
"""Evidence per unit of look similarity,"""
USUAL_LOOK = 0.47
"""beyond the similarity at which one person and two are equally likely."""
SIZE_SPREAD = 0.15
"""Standard deviation of the logarithm of a person's size,"""
SIZE_GROWS = 0.1
"""and its growth per second,"""
SIZE_GROWS_S = 3.0
"""for at most this long."""


def evidence_of(known: Records, seen: Seen, sigmas: Float32, pts_s: float) -> Float32:
    """Return the evidence (M, N) that each of M known people is each of the N people of a frame; above 0 for.

    Args:
        known: the known people.
        seen: the people of the frame.
        sigmas: (K,) standard deviations of annotations of each keypoint, in square roots of the person's area.
        pts_s: the frame's time.
    """
    after_s = pts_s - known["seen_s"]
    evidence = _place(known, seen, sigmas, after_s, pts_s) + _look(known, seen) + _size(known, seen, after_s)
    evidence[known["class_id"][:, None] != seen.people.class_ids[None]] = -np.inf
    return evidence.astype(np.float32)


def _place(known: Records, seen: Seen, sigmas: Float32, after_s: Times, pts_s: float) -> Float32:
    """Compare each keypoint with where it is expected, as in COCO's object keypoint similarity."""
    moved, variances = shifts(known, pts_s)
    places = known["xy"] + moved[:, None]
    distances = np.square(places[:, None] - seen.poses["xy"][None]).sum(axis=-1)  # (M, N, K)
    size = known["size"]
    limbs = (LIMB_SPREAD + LIMB_SPEED * np.minimum(after_s, LIMB_GROWS_S)) * size
    spreads = np.square(2 * sigmas * size[:, None]) + (np.square(limbs) + variances)[:, None]  # (M, K)
    old, new = (np.where(scores >= SEEN_SCORE, scores, 0) for scores in (known["scores"], seen.poses["scores"]))
    weights = old[:, None] * new[None]
    total = weights.sum(axis=-1)
    strays = np.minimum(distances / (2 * spreads[:, None]), MOST_STRAY)
    stray = (weights * strays).sum(axis=-1) / np.maximum(total, 1e-6)
    # The place of a person elsewhere is uniform over the frame, that of the expected person normal.
    spread = variances + np.square(PERSON_SPREAD * size)
    place = np.log(seen.frame_area / (2 * np.pi * spread))[:, None] - PLACE_WEIGHT * stray
    place = np.where(stray > FARTHEST, -np.inf, place)
    place = np.where(total >= LEAST_COMPARED, place, UNREADABLE_PLACE)
    is_old = (after_s > PLACE_COUNTS_S)[:, None]
    limited: Float32 = np.where(is_old, np.maximum(place, LEAST_PLACE), place)
    return limited


def _look(known: Records, seen: Seen) -> Float32:
    alike, is_comparable = look_similarity(Looks(known["colours"], known["weights"]), seen.looks)
    return np.where(is_comparable, LOOK_WEIGHT * (alike - USUAL_LOOK), 0)


def _size(known: Records, seen: Seen, after_s: Times) -> Float32:
    spread = (SIZE_SPREAD + SIZE_GROWS * np.minimum(after_s, SIZE_GROWS_S))[:, None]
    ratio = np.log(seen.poses["size"][None] / known["size"][:, None])
    # Half of the usual weight: a box that is cut off says little about the size.
    size: Float32 = -0.25 * np.square(ratio / spread)
    return size
