"""Who is who: gives the people of one source identities that last, from frame to frame and after an absence.

Pure logic over arrays, with the source's time passed in: a dropped frame, a varying rate or a camera of 5 fps is an
ordinary case. Knows no network, thread or clock.

Every person of a new frame is compared with every known person (`streampose.people.evidence`). The assignment with the
most evidence in total wins; a pair needs positive evidence, otherwise the person is new. Sure detections choose first;
doubtful ones can only continue somebody who was seen just before. Somebody who is hidden or has left is remembered.
With time their place loses its weight, and look and size decide.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy.optimize import linear_sum_assignment

from streampose.frames import NO_TRACK, Boxes, Float32, Image, Int64, People, Skeleton
from streampose.people import REMEMBER_S, State
from streampose.people.appearance import LookReader
from streampose.people.carry import carry_boxes, moved
from streampose.people.evidence import evidence_of
from streampose.people.known import Bools, Records, Seen, Times, learnt, record_of, see, shifts
from streampose.people.overlap import best_pairs, box_areas, box_overlaps, covered_shares
from streampose.people.reconsider import reconsider
from streampose.people.similarity import doubles, sigmas_of

MOST_KNOWN = 256
"""Maximum people remembered; those unseen for longest are forgotten first."""
LEAST_START_SCORE = 0.2
"""A new person needs a pose of at least this mean keypoint score: otherwise the box holds no readable pose."""
DOUBTFUL_WITHIN_S = 1.0
"""A doubtful box can only continue somebody seen within this time,"""
DOUBTFUL_EVIDENCE = 2.0
"""and only with more evidence than this."""
COVERED_SHARE = 0.15
"""Somebody whose box is covered by another one by more than this share teaches nothing about their look."""
HIDDEN_FOR_S = 1.5
"""Somebody unseen for a shorter time may stand in front of or behind others."""
RECONSIDER_EVERY_S = 0.2
"""How often identities are checked by looks."""
SAME_BOX_IOU = 0.5
"""Two boxes with one pose are one person if they overlap at least this much; otherwise one hides the other."""
SHADOW_IOU = 0.4
"""Minimum IoU of such a hidden person's box and the expected one."""
SCENE_CHANGED_S = 3.0
"""After a change of scene, people count as unseen for at least this long: they may be anywhere."""

# Boxes that are expected, not detected.
CARRIED_SHARE = 0.15
"""An expected box moves with the median of its keypoints, plus this share of the way to the box of their extent. More
would let a single misplaced hand or foot pull the next crop away."""
FOUND_IOU = 0.4
"""Minimum IoU of an expected box and a detection that shows the same person."""
KEPT_SCORE = 0.4
"""A person whom the detector misses is expected further if the level of their pose score is at least this,"""
MOST_MISSES = 2
"""for at most this many frames in a row."""
LOST_SCORE = 0.15
"""Nobody is in an expected box whose pose scores less."""
DOUBT_SCORE = 0.4
"""A pose in an expected box whose score falls below this asks for a detection,"""
DOUBT_SHARE = 0.8
"""and so does a fall below this share of its recent level."""
LEAST_INSIDE = 0.3
"""A person whose box has a smaller share of its area inside the frame has left."""

_STATE = (
    *("_known", "_next_id", "_shape", "in_doubt", "_reconsidered_s", "_count", "_frames", "_expected_frames"),
    *("_past_s", "_longest_s"),
)
"""The attributes of a tracker that change."""

NOBODY = -1
"""The row of a person who is not known."""


class Tracker:
    """The people of one source over time. Not thread-safe; call `update` once per frame, in order."""

    def __init__(self, skeleton: Skeleton, *, sure_score: float = 0.0, remember_s: float = REMEMBER_S) -> None:
        """Start without people.

        Args:
            skeleton: of every pose.
            sure_score: people with a lower box score are doubtful: they can continue an identity but not start one.
            remember_s: how long somebody who is not seen is remembered, in seconds.
        """
        self._reader = LookReader(skeleton)
        self._sigmas = sigmas_of(skeleton.names)
        self._sure_score = sure_score
        self._remember_s = remember_s
        self._known: Records = np.zeros(0, record_of(len(skeleton.names), self._reader.part_count))
        self._next_id = 1
        self._shape: tuple[int, ...] = ()
        self.in_doubt = True
        """Whether the detector should look at the next frame: somebody was just lost, or is about to be."""
        self._reconsidered_s = float("-inf")
        self._count = 0
        self._frames = 0
        self._expected_frames = 0
        self._past_s = 0.0
        self._longest_s = 0.0

    def state(self) -> State:
        """Return everything that the next frames depend on."""
        return {name: getattr(self, name) for name in _STATE}

    def restore(self, state: State) -> None:
        """Continue as the tracker whose `state` it was."""
        for name in _STATE:
            setattr(self, name, state[name])
        self._shape = tuple(self._shape)

    def stats(self) -> dict[str, float]:
        """Return counts so far as JSON values: distinct `people`, `mean_s` and `longest_s` from first to last sight,
        and `expected_share`, the share of their boxes that the detector did not find.
        """
        lengths_s = _lengths_s(self._known)
        total_s = self._past_s + float(lengths_s.sum())
        return {
            "people": self._count,
            "mean_s": round(total_s / max(self._count, 1), 3),
            "longest_s": round(max(self._longest_s, float(lengths_s.max(initial=0))), 3),
            "expected_share": round(self._expected_frames / max(self._frames, 1), 4),
        }

    def expected(self, pts_s: float, height: int, width: int) -> Boxes:
        """Return the boxes where the people of the last frames are expected at a time, clipped to the frame."""
        return self._expected(self._known["misses"] <= MOST_MISSES, pts_s, height, width)

    def missed(self, found: Boxes, pts_s: float, height: int, width: int) -> Boxes:
        """Return the expected boxes of people whose pose was sure and whom the detections `found` miss, best first."""
        is_sure = (self._known["misses"] < MOST_MISSES) & (self._known["level"] >= KEPT_SCORE)
        expected = self._expected(is_sure, pts_s, height, width)
        overlaps = box_overlaps(expected.xyxy, found.xyxy)
        overlaps[expected.class_ids[:, None] != found.class_ids[None]] = 0
        is_missed = np.ones(len(expected), np.bool_)
        is_missed[[row for row, _ in best_pairs(overlaps, FOUND_IOU)]] = False
        return expected[is_missed]

    def scene_changed(self) -> None:
        """Expect nobody anywhere. People are still recognised by their looks and sizes."""
        self._known["misses"] = MOST_MISSES + 1
        self._known["seen_s"] -= SCENE_CHANGED_S
        self.in_doubt = True

    def update(
        self, people: People, image: Image, pts_s: float, *, is_found: Bools | None = None, looked: bool = True
    ) -> People:
        """Return the people of a frame with their track ids, detected ones first.

        Left out are doubles of one person, doubtful detections that continue nobody, and expected boxes without the
        person. A sure box with an unreadable pose stays, with the track id `NO_TRACK`.

        Args:
            people: found in the frame.
            image: (H, W, 3) uint8 BGR, the frame.
            pts_s: the frame's time; increasing.
            is_found: (N,) whether the detector found each box. The other boxes come from `expected` or `missed`; they
                are replaced by boxes around the pose. None: all were found.
            looked: whether the detector ran on the frame.
        """
        is_found = np.ones(len(people), np.bool_) if is_found is None else is_found
        people, is_found, is_shadow = _single(people, is_found)
        if image.shape != self._shape:
            self.scene_changed()
            self._shape = image.shape
        self._forget(pts_s)
        if not len(people) and not len(self._known):
            self.in_doubt = False
            return people
        seen = see(people, image, pts_s, self._reader)
        is_sure = is_found & (people.box_scores >= self._sure_score)
        rows = self._assign(seen, is_sure & ~is_shadow, ~is_sure & ~is_shadow, pts_s)
        is_covered = self._covered(seen, rows, pts_s)
        boxes = self._learn(seen, rows, is_covered, is_found, image, looked)
        self._start(seen, rows, is_sure & ~is_shadow, is_covered)
        self._shade(people, rows, is_shadow, pts_s)
        if pts_s - self._reconsidered_s >= RECONSIDER_EVERY_S:
            self._reconsidered_s = pts_s
            self._count -= reconsider(self._known, pts_s)
        ids = np.append(self._known["id"], NO_TRACK)[rows]
        self._frames += int((ids != NO_TRACK).sum())
        self._expected_frames += int(((ids != NO_TRACK) & ~is_found).sum())
        tracked = replace(people, boxes_xyxy=boxes, track_ids=ids)
        return tracked[is_sure | (rows != NOBODY)]

    def _expected(self, chosen: Bools, pts_s: float, height: int, width: int) -> Boxes:
        known = self._known[chosen]
        known = known[np.argsort(-known["box_score"], kind="stable")]
        steps, _ = shifts(known, pts_s)
        boxes = _clipped(known["xyxy"] + np.tile(steps, 2), height, width)
        return Boxes(boxes, known["box_score"], known["class_id"])

    def _forget(self, pts_s: float) -> None:
        seen_s = self._known["seen_s"]
        kept = np.flatnonzero(pts_s - seen_s <= self._remember_s)
        if len(kept) > MOST_KNOWN:
            kept = np.sort(kept[np.argsort(-seen_s[kept], kind="stable")[:MOST_KNOWN]])
        if len(kept) == len(self._known):
            return
        lengths_s = _lengths_s(np.delete(self._known, kept))
        self._past_s += float(lengths_s.sum())
        self._longest_s = max(self._longest_s, float(lengths_s.max(initial=0)))
        self._known = self._known[kept]

    def _assign(self, seen: Seen, is_sure: Bools, is_doubtful: Bools, pts_s: float) -> Int64:
        """Return for each person of the frame the row of the known person that they are, or `NOBODY`."""
        rows = np.full(len(seen.people), NOBODY)
        if not len(rows) or not len(self._known):
            return rows
        evidence = evidence_of(self._known, seen, self._sigmas, pts_s)
        is_left = np.ones(len(self._known), np.bool_)
        for known, new in _pairs(evidence, is_left, is_sure, 0.0):
            rows[new], is_left[known] = known, False
        is_left &= pts_s - self._known["seen_s"] <= DOUBTFUL_WITHIN_S
        for known, new in _pairs(evidence, is_left, is_doubtful, DOUBTFUL_EVIDENCE):
            rows[new] = known
        return rows

    def _covered(self, seen: Seen, rows: Int64, pts_s: float) -> Bools:
        """Return whose box another one covers, also that of somebody who is hidden just now: their look is not theirs
        alone.
        """
        is_hidden = pts_s - self._known["seen_s"] <= HIDDEN_FOR_S
        is_hidden[rows[rows != NOBODY]] = False
        hidden = self._known[is_hidden]
        if len(seen.people) + len(hidden) < 2:
            return np.zeros(len(seen.people), np.bool_)
        steps, _ = shifts(hidden, pts_s)
        return covered_shares(seen.people.boxes_xyxy, hidden["xyxy"] + np.tile(steps, 2)) >= COVERED_SHARE

    def _learn(
        self, seen: Seen, rows: Int64, is_covered: Bools, is_found: Bools, image: Image, looked: bool
    ) -> Float32:
        """Update the known people with their new poses. Whoever is not in an expected box after all is removed from
        `rows`.

        Returns:
            (N, 4) float32 boxes: as detected, or for expected ones around the pose, clipped to the frame.
        """
        boxes = seen.people.boxes_xyxy.copy()
        paired = np.flatnonzero(rows != NOBODY)
        old, fresh, is_found = self._known[rows[paired]], seen.poses[paired], is_found[paired]
        now = learnt(old, fresh, is_covered[paired])
        has_left = is_lost = np.zeros(len(paired), np.bool_)
        if not is_found.all():
            has_left, is_lost = _carry(now, old, fresh, is_found, image)
            is_lost |= ~is_found & (fresh["level"] < LOST_SCORE)
        now["misses"] = np.where(is_found, 0, old["misses"] + looked)
        now["level"] = np.where(is_found, fresh["level"], now["level"])
        boxes[paired] = np.where(is_found[:, None], boxes[paired], _clipped(now["xyxy"], *image.shape[:2]))
        fell = (fresh["level"] < DOUBT_SHARE * old["level"]) | (
            (fresh["level"] < DOUBT_SCORE) & (old["level"] >= DOUBT_SCORE)
        )
        now["misses"][has_left] = MOST_MISSES + 1

        known = self._known
        known["misses"] += 1  # corrected for everybody who was seen
        known[rows[paired[~is_lost]]] = now[~is_lost]
        is_waiting = known["misses"] <= MOST_MISSES
        is_waiting[rows[paired[~is_lost]]] = False
        self.in_doubt = bool(has_left.any() or (~is_found & ~is_lost & fell).any() or is_waiting.any())
        rows[paired[is_lost | has_left]] = NOBODY
        return boxes

    def _start(self, seen: Seen, rows: Int64, is_sure: Bools, is_covered: Bools) -> None:
        """Give the new people of a frame an identity, and write their rows into `rows`."""
        new = np.flatnonzero((rows == NOBODY) & is_sure & (seen.poses["level"] >= LEAST_START_SCORE))
        if not len(new):
            return
        rows[new] = len(self._known) + np.arange(len(new))
        started = seen.poses[new].copy()
        started["looks"] = ~is_covered[new]
        started["id"] = self._next_id + np.arange(len(new))
        self._next_id += len(new)
        self._count += len(new)
        self._known = np.concatenate([self._known, started])

    def _shade(self, people: People, rows: Int64, is_shadow: Bools, pts_s: float) -> None:
        """Let boxes without a pose of their own continue people who are hidden, by place alone. Write their rows into
        `rows`.
        """
        shadows = np.flatnonzero(is_shadow)
        if not len(shadows):
            return
        is_hidden = (pts_s - self._known["seen_s"] <= DOUBTFUL_WITHIN_S) & (self._known["seen_s"] < pts_s)
        hidden = np.flatnonzero(is_hidden)
        steps, _ = shifts(self._known[hidden], pts_s)
        overlaps = box_overlaps(self._known["xyxy"][hidden] + np.tile(steps, 2), people.boxes_xyxy[shadows])
        for one, shadow in best_pairs(overlaps, SHADOW_IOU):
            row, xyxy = hidden[one], people.boxes_xyxy[shadows[shadow]]
            step = (xyxy[:2] + xyxy[2:] - self._known["xyxy"][row][:2] - self._known["xyxy"][row][2:]) / 2
            self._known["xy"][row] += step
            self._known["xyxy"][row], self._known["seen_s"][row], self._known["misses"][row] = xyxy, pts_s, 0
            self._known["clear_s"][row] = pts_s
            rows[shadows[shadow]] = row


def _single(people: People, is_found: Bools) -> tuple[People, Bools, Bools]:
    """Leave out second boxes around one person.

    Returns:
        The people left, whether the detector found each, and whether their pose is somebody else's: the pose network
        saw the person in front.
    """
    double_of = doubles(people, people.box_scores + is_found)  # a detected box is trusted more
    is_double = double_of != NOBODY
    if not is_double.any():
        return people, is_found, is_double
    rows = np.arange(len(people))
    overlaps = box_overlaps(people.boxes_xyxy, people.boxes_xyxy)[rows, double_of]
    is_shadow = is_double & is_found & (overlaps < SAME_BOX_IOU)
    keep = ~is_double | is_shadow
    return people[keep], is_found[keep], is_shadow[keep]


def _pairs(evidence: Float32, rows: Bools, columns: Bools, least: float) -> list[tuple[int, int]]:
    """Return the pairs (row, column) with more evidence than `least` and the most evidence in total."""
    of_rows, of_columns = np.flatnonzero(rows), np.flatnonzero(columns)
    if not len(of_rows) or not len(of_columns):
        return []
    gains = np.maximum(evidence[np.ix_(of_rows, of_columns)] - least, 0)
    pairs = zip(*linear_sum_assignment(gains, maximize=True), strict=True)
    return [(int(of_rows[row]), int(of_columns[column])) for row, column in pairs if gains[row, column] > 0]


def _carry(now: Records, old: Records, fresh: Records, is_found: Bools, image: Image) -> tuple[Bools, Bools]:
    """Write into `now` the boxes around the poses that were not detected.

    Returns:
        (N,) who has left the frame, and (N,) whose pose is too unsure for a box.
    """
    carried, is_carried = carry_boxes(
        old["found_xyxy"], old["found_xy"], old["found_scores"], fresh["xy"], fresh["scores"]
    )
    steps = moved(old["xy"], old["scores"], fresh["xy"], fresh["scores"])
    boxes = (1 - CARRIED_SHARE) * (old["xyxy"] + np.tile(steps, 2)) + CARRIED_SHARE * carried
    expected = ~is_found
    now["xyxy"][expected] = boxes[expected]
    for name in ("found_xyxy", "found_xy", "found_scores", "box_score"):
        now[name][expected] = old[name][expected]
    inside = box_areas(_clipped(boxes, *image.shape[:2]))
    has_left = expected & is_carried & (inside < LEAST_INSIDE * box_areas(boxes))
    return has_left, expected & ~is_carried


def _lengths_s(known: Records) -> Times:
    """Return the times from the first to the last sight of people, in seconds."""
    seen = known[np.isfinite(known["seen_s"])]  # not of rows whose identity was given to somebody else
    lengths_s: Times = np.maximum(seen["seen_s"] - seen["started_s"], 0)
    return lengths_s


def _clipped(xyxy: Float32, height: int, width: int) -> Float32:
    clipped: Float32 = np.clip(xyxy, 0, np.array([width, height] * 2, np.float32))
    return clipped
