"""Follows people from frame to frame between detections: where their next crops are, and when to detect again.

Pure logic over arrays and times that are passed in. Knows no network, thread, channel or clock.

Between two detections, the box of a person comes from their keypoints. The box keeps its margins around the extent of
the keypoints, scaled with the extent, so that crops keep the size that the network was trained on. On a frame with a
detection, the detected boxes are used. A person whom the detector misses is followed for a few more detections, as long
as the pose score is high.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from streampose.frames import Boxes, Float32, Frame, Int64, People
from streampose.people.overlap import best_pairs, box_areas, box_overlaps
from streampose.pipeline.schedule import JUMP_S, Schedule

Bools = npt.NDArray[np.bool_]
Records = npt.NDArray[np.void]

SURE_SCORE = 0.3
"""Keypoints with a lower score are ignored. Also the default lowest score of a drawn keypoint."""
LEAST_SURE = 4
"""Minimum keypoints in common with the last detection to make a box; all of them for a smaller skeleton."""
LEAST_MARGIN = 0.05
"""Minimum margin of a box around its keypoints, in diagonals of their extent. Detectors cut off hands and feet, and
without a margin they would stay cut off."""
CARRIED_SHARE = 0.15
"""A box moves with the median of its keypoints, plus this share of the way to the box of their extent. More would let a
single misplaced hand or foot pull the next crop away."""
LOST_SCORE = 0.15
"""A followed person whose pose scores less is lost."""
DOUBT_SCORE = 0.4
"""A pose whose score falls below this triggers a detection,"""
DOUBT_SHARE = 0.8
"""and so does a fall below this share of its recent level."""
LEVEL_SHARE = 0.2
"""Weight of a new score in the recent level: a memory of about five frames."""
KEPT_SCORE = 0.4
"""A person whom the detector misses is followed on if the pose's level is at least this,"""
MOST_MISSES = 2
"""for at most this many detections in a row."""
MATCH_IOU = 0.4
"""Minimum IoU for a followed person and a detection of the same class to be one person."""
SAME_POSE = 0.5
"""Two poses of at least this similarity are one person; see `pose_similarity`."""
POSE_SPREAD = 0.1
"""Distance at which keypoints still count as near, in square roots of the box's area. COCO's OKS uses 2 x 0.03 (eyes)
to 2 x 0.1 (hips); followed poses of one person differ more than two annotations of one."""
LEAST_INSIDE = 0.3
"""A person whose box has a smaller share of its area inside the picture has left."""


class Follower:
    """The people of one source.

    For every frame, in order: call `looks`, then `boxes` with the detections if the detector ran, then `learn` with the
    poses in those boxes.
    """

    def __init__(
        self, keypoint_count: int, schedule: Schedule, *, is_video: bool = True, max_people: int | None = None
    ) -> None:
        """Start without people.

        Args:
            keypoint_count: K of every pose.
            schedule: when the detector runs even if nobody is in doubt.
            is_video: whether frames follow each other in time; otherwise nobody is followed.
            max_people: maximum people per frame; detected people go first.
        """
        self._schedule = schedule
        self._is_video = is_video
        self._max_people = max_people
        self._record = _record(keypoint_count)
        self._followed: Records = np.zeros(0, self._record)
        self._must_look = True
        self._size = 0, 0
        """Height and width of the frame."""
        self._pts_s = float("-inf")
        self._asked: Int64 = np.zeros(0, np.int64)
        """For each box returned, its row in `_followed`, or `_NEW`."""
        self._is_found: Bools = np.zeros(0, np.bool_)
        """For each box returned, whether the detector found it."""
        self._has_looked = False

    def is_due(self, frame: Frame) -> bool:
        """Whether the detector will run on a future frame, by its number alone. Called once per frame."""
        return not self._is_video or self._schedule.is_due(frame.index)

    def looks(self, frame: Frame, fps: float | None) -> bool:
        """Whether the detector must run on the current frame: somebody is in doubt, the scene has changed, or the
        schedule says so.

        Args:
            fps: the source's nominal rate.
        """
        height, width = frame.image.shape[:2]
        size = height, width
        if frame.pts_s - self._pts_s > JUMP_S or size != self._size:
            self._followed, self._must_look = np.zeros(0, self._record), True
        self._pts_s, self._size = frame.pts_s, size
        is_due = self._schedule.is_due_now(frame.pts_s, fps, frame.captured_at_s)
        return is_due or self._must_look

    def boxes(self, found: Boxes | None) -> Boxes:
        """Return the boxes to find poses in: the detections, then the people that they miss. Without a detection
        (None): everybody followed.
        """
        followed = self._followed
        expected = Boxes(self._clipped(followed["xyxy"]), followed["box_score"], followed["class_id"])
        if found is None:
            self._asked, self._is_found = np.arange(len(followed)), np.full(len(followed), False)
            self._has_looked = False
            return expected
        self._has_looked = True
        self._schedule.looked(self._pts_s)
        rows = _rows_of(found, expected)
        is_kept = (followed["level"] >= KEPT_SCORE) & (followed["misses"] < MOST_MISSES)
        is_kept[rows[rows != _NEW]] = False
        missed = np.flatnonzero(is_kept)
        missed = missed[np.argsort(-followed["box_score"][missed], kind="stable")]
        if self._max_people is not None:
            missed = missed[: max(0, self._max_people - len(found))]
        self._asked = np.concatenate([rows, missed])
        self._is_found = np.arange(len(self._asked)) < len(found)
        return _joined(found, expected[missed])

    def learn(self, people: People) -> People:
        """Return the people found in the boxes last returned, best box first, and follow them.

        The box of a followed person comes from the new keypoints, clipped to the frame. Its score is that of the last
        detection.
        """
        if not self._is_video:
            return people
        fresh = np.zeros(len(people), self._record)
        fresh["xyxy"] = fresh["found_xyxy"] = people.boxes_xyxy
        fresh["xy"] = fresh["found_xy"] = people.keypoints_xy
        fresh["scores"] = fresh["found_scores"] = people.keypoint_scores
        fresh["box_score"], fresh["class_id"] = people.box_scores, people.class_ids
        fresh["level"] = pose_scores(people.keypoint_scores)
        now, is_there = self._compared(fresh)
        self._followed = now[is_there | (now["misses"] > 0)]
        rows = np.flatnonzero(is_there)
        rows = rows[np.argsort(-now["box_score"][rows], kind="stable")]
        return replace(
            people,
            boxes_xyxy=self._clipped(now["xyxy"][rows]),
            box_scores=people.box_scores[rows],
            keypoints_xy=people.keypoints_xy[rows],
            keypoint_scores=people.keypoint_scores[rows],
            class_ids=people.class_ids[rows],
            track_ids=people.track_ids[rows],
        )

    def _clipped(self, xyxy: Float32) -> Float32:
        height, width = self._size
        clipped: Float32 = np.clip(xyxy, 0, np.array([width, height] * 2, np.float32))
        return clipped

    def _compared(self, fresh: Records) -> tuple[Records, Bools]:
        """Update everybody with `fresh`, the poses in the boxes returned; also return who is present."""
        is_found, is_known = self._is_found, self._asked != _NEW
        everybody = np.concatenate([self._followed, fresh])
        old = everybody[np.where(is_known, self._asked, len(self._followed) + np.arange(len(fresh)))]
        score = fresh["level"]

        now = fresh.copy()
        followed = ~is_found
        for name in ("found_xyxy", "found_xy", "found_scores"):
            now[name][followed] = old[name][followed]
        now["level"][followed] += (1 - LEVEL_SHARE) * (old["level"] - fresh["level"])[followed]
        now["misses"][followed] = old["misses"][followed] + self._has_looked
        carried, is_carried = carry_boxes(
            old["found_xyxy"], old["found_xy"], old["found_scores"], fresh["xy"], fresh["scores"]
        )
        moved = _moved(old["xy"], old["scores"], fresh["xy"], fresh["scores"])
        boxes = (1 - CARRIED_SHARE) * (old["xyxy"] + np.tile(moved, 2)) + CARRIED_SHARE * carried
        now["xyxy"][followed] = boxes[followed]

        has_left = followed & is_carried & (box_areas(self._clipped(boxes)) < LEAST_INSIDE * box_areas(boxes))
        is_lost = followed & (~is_carried | (score < LOST_SCORE))
        double_of = _doubles(now, ~is_lost & ~has_left, is_found, np.hypot(*moved.T))
        is_lost |= double_of != _NOBODY
        fell = (score < DOUBT_SHARE * old["level"]) | ((score < DOUBT_SCORE) & (old["level"] >= DOUBT_SCORE))

        waiting = old.copy()
        waiting["misses"] += 1
        now[is_lost] = waiting[is_lost]
        # A double of a new person is that person, who moved too fast to be matched; another double is hidden.
        is_given_up = is_lost & ((now["misses"] > MOST_MISSES) | np.append(~is_known, False)[double_of])
        now["misses"][has_left | is_given_up] = 0
        self._must_look = bool((has_left | (is_lost & ~is_given_up) | (followed & fell)).any())
        return now, ~is_lost & ~has_left


_NEW = -1
"""The row of a new person."""
_NOBODY = -1
"""No row."""


def _record(keypoint_count: int) -> np.dtype[np.void]:
    """Return the dtype of a person's record in a structured array."""
    points = (keypoint_count, 2)
    return np.dtype(
        [
            ("xyxy", np.float32, 4),  # the box in the latest frame, not clipped to it
            ("box_score", np.float32),  # of the last detection
            ("class_id", np.int64),
            ("found_xyxy", np.float32, 4),  # the last detected box,
            ("found_xy", np.float32, points),  # the keypoints in it
            ("found_scores", np.float32, keypoint_count),  # and their scores
            ("xy", np.float32, points),  # the latest keypoints
            ("scores", np.float32, keypoint_count),
            ("level", np.float32),  # of the pose's score, recently
            ("misses", np.int64),  # frames in a row where neither the detector found them, nor, in doubt, a pose
        ]
    )


def pose_scores(scores: Float32) -> Float32:
    """Return the score of each pose: (N,), the mean of its keypoint scores (N, K), each at most 1."""
    mean: Float32 = np.clip(scores, 0, 1).mean(axis=1, dtype=np.float32)
    return mean


def carry_boxes(
    found_xyxy: Float32, found_xy: Float32, found_scores: Float32, xy: Float32, scores: Float32
) -> tuple[Float32, Bools]:
    """Return a box around each pose that has the same margins as the detected box.

    Each side keeps its distance to the extent of the keypoints that are sure in both poses, scaled with the diagonal of
    that extent, and at least `LEAST_MARGIN` of it. So a box neither shrinks when an ankle is hidden nor drifts.

    Args:
        found_xyxy: (N, 4) float32 detected boxes, pixels of the frame.
        found_xy, found_scores: (N, K, 2) and (N, K) float32, the keypoints found in them.
        xy, scores: the same for the poses that need a box.

    Returns:
        (N, 4) float32, and (N,) whether there were enough keypoints (`LEAST_SURE`); otherwise the box is undefined.
    """
    is_sure = _both_sure(found_scores, scores)
    is_carried = is_sure.sum(axis=1) >= _least_sure(xy)
    found_low, found_high = _extents(found_xy, is_sure)
    low, high = _extents(xy, is_sure)
    found_diagonal = np.maximum(np.hypot(*(found_high - found_low).T), 1e-3)
    scale = np.clip(np.hypot(*(high - low).T) / found_diagonal, 0.5, 2)[:, None]
    least = LEAST_MARGIN * found_diagonal[:, None]
    boxes: Float32 = np.concatenate(
        [
            low - np.maximum(found_low - found_xyxy[:, :2], least) * scale,
            high + np.maximum(found_xyxy[:, 2:] - found_high, least) * scale,
        ],
        axis=1,
    ).astype(np.float32)
    return boxes, is_carried


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
    return np.where(count >= _least_sure(xy), alike, 0).astype(np.float32)


def _doubles(people: Records, is_there: Bools, is_found: Bools, moved: Float32) -> Int64:
    """Return for everybody whose pose they have, or `_NOBODY`: of two alike, the one that no detection found and that
    moved further has the other's.
    """
    double_of = np.full(len(people), _NOBODY)
    if is_found.all():
        return double_of
    alike = pose_similarity(people["xy"], people["scores"], box_areas(people["xyxy"])) >= SAME_POSE
    # The least to be doubted first: a pose that is taken for a double makes no other one.
    order = np.lexsort([moved, ~is_found])
    for place, row in enumerate(order):
        if is_there[row] and not is_found[row]:
            before = order[:place]
            owners = before[alike[row, before] & is_there[before] & (double_of[before] == _NOBODY)]
            double_of[row] = owners[0] if len(owners) else _NOBODY
    return double_of


def _rows_of(found: Boxes, expected: Boxes) -> Int64:
    """Return for each detection the row of the expected box of its class that it overlaps most, or `_NEW`; of all
    pairs, the best first.
    """
    rows = np.full(len(found), _NEW)
    if not len(found) or not len(expected):
        return rows
    overlaps = box_overlaps(found.xyxy, expected.xyxy)
    overlaps[found.class_ids[:, None] != expected.class_ids[None]] = 0
    for one, row in best_pairs(overlaps, MATCH_IOU):
        rows[one] = row
    return rows


def _both_sure(first: Float32, second: Float32) -> Bools:
    is_sure: Bools = (first >= SURE_SCORE) & (second >= SURE_SCORE)
    return is_sure


def _least_sure(xy: Float32) -> int:
    """Return how many keypoints of poses (N, K, 2) have to be sure, at least 1."""
    keypoint_count: int = xy.shape[1]
    return max(1, min(LEAST_SURE, keypoint_count))


def _extents(xy: Float32, is_sure: Bools) -> tuple[Float32, Float32]:
    """Return the corners (N, 2) of the boxes around the sure ones of the keypoints (N, K, 2); where there are none, of
    any finite size.
    """
    chosen = is_sure[..., None]
    low = np.where(chosen, xy, np.float32(1e6)).min(axis=1)
    high = np.where(chosen, xy, np.float32(-1e6)).max(axis=1)
    return low, high


def _moved(old_xy: Float32, old_scores: Float32, xy: Float32, scores: Float32) -> Float32:
    """Return how far each person moved: (N, 2), the medians over the keypoints that are sure in both poses, or 0."""
    is_sure = _both_sure(old_scores, scores)[..., None]
    steps = np.where(is_sure, xy - old_xy, np.nan)
    steps[~is_sure.any(axis=(1, 2))] = 0
    medians: Float32 = np.nanmedian(steps, axis=1) if len(steps) else np.zeros((0, 2), np.float32)
    return medians


def _joined(first: Boxes, second: Boxes) -> Boxes:
    return Boxes(
        np.concatenate([first.xyxy, second.xyxy]),
        np.concatenate([first.scores, second.scores]),
        np.concatenate([first.class_ids, second.class_ids]),
    )
