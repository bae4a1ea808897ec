"""Judges recorded poses by the truth: keypoints, identities, smoothness and uncertainty."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from streampose.errors import UsageError
from streampose.frames import NO_TRACK, Float32, Int64, People
from streampose.records.coco_truth import CocoTruth
from streampose.records.evaluate_coco import CocoFigures, judge_coco, needs_coco
from streampose.records.evaluate_keypoints import Coverage, CoverageMeter, KeypointAccuracy, KeypointMeter
from streampose.records.evaluate_smoothness import Posed, Smoothness, Spread, smoothness
from streampose.records.evaluate_table import Rows, coco_rows, keypoint_rows, markdown, row, share_rows
from streampose.records.evaluate_tracking import Identified, Tracking, identified, judge
from streampose.records.poses import RecordedPoses, read_poses
from streampose.records.tables import needs
from streampose.records.truth import TrueFrame, Truth
from streampose.sinks.target import name_of


@dataclass(frozen=True, slots=True)
class PosesReport:
    """The figures of a poses file. None for what the file or the truth does not tell."""

    poses: str
    frames: int
    """Frames that were judged: those in the file whose truth is known."""
    frames_in_file: int
    frames_in_truth: int
    keypoints_judged: int
    """Keypoints of a person that both the file and the truth have."""
    keypoints_in_truth: int
    keypoints: KeypointAccuracy
    smoothed: KeypointAccuracy | None
    """The accuracy of the smoothed keypoints."""
    coco: CocoFigures | None
    """Only with COCO annotations as the truth."""
    tracking: Tracking | None
    smoothness: Smoothness | None
    smoothness_smoothed: Smoothness | None
    coverage: Coverage | None


class _Judged(NamedTuple):
    """A frame of the file, and its truth."""

    pts_s: float
    people: People
    true: TrueFrame | None


def evaluate_poses(path: str | os.PathLike[str], truth: Truth) -> PosesReport:
    """Judge a poses file.

    Args:
        path: the file.
        truth: what `streampose.records.coco_truth.read_any_truth` reads. Frames that only one of both has are left out.

    Raises:
        UsageError: the file is not a poses file or is damaged, it does not belong to this truth, or a package is not
            installed.
    """
    if isinstance(truth, CocoTruth):
        needs_coco()
    if truth.has_identities:
        needs("trackeval.metrics", "evaluate")
    poses = read_poses(path)
    own, theirs = truth.shared_keypoints(poses.skeleton.names, name_of(path))
    judged = _judged(poses, truth)
    frames = [(one.people, one.true.with_keypoints(own)) for one in judged.values() if one.true is not None]
    if not frames:
        raise UsageError(f"{name_of(path)} has no frame of {truth.name}: give the truth of this recording")
    is_smoothed = any(people.smooth_xy is not None and len(people) for people, _ in frames)
    has_identities = any((people.track_ids != NO_TRACK).any() for people, _ in frames)
    by_identity = truth.has_identities and has_identities
    return PosesReport(
        name_of(path),
        len(frames),
        len(judged),
        len(truth.frames),
        len(own),
        len(truth.names),
        _accuracy(frames, theirs, is_smoothed=False),
        _accuracy(frames, theirs, is_smoothed=True) if is_smoothed else None,
        _coco(truth, judged, poses, name_of(path)) if isinstance(truth, CocoTruth) else None,
        judge(truth, _identified(judged)) if by_identity else None,
        _smoothness(judged, own, theirs, is_smoothed=False) if by_identity else None,
        _smoothness(judged, own, theirs, is_smoothed=True) if by_identity and is_smoothed else None,
        _coverage(frames, theirs),
    )


def _judged(poses: RecordedPoses, truth: Truth) -> dict[int, _Judged]:
    """Return the frames of the file by their number in the truth, or a number below 0 if the truth has none."""
    judged: dict[int, _Judged] = {}
    for line in poses.lines():
        number = truth.number_of(line)
        if number in judged:
            raise UsageError(
                f"{name_of(poses.path)} has frame {line.get('file', line['frame'])} twice: give the poses of one source"
            )
        frame = poses.frame_of(line)
        true = None if number is None else truth.frames[number]
        judged[-1 - len(judged) if number is None else number] = _Judged(frame.pts_s, frame.people, true)
    return judged


def _xy(people: People, theirs: Int64, *, is_smoothed: bool) -> Float32:
    smooth = people.smooth_xy if is_smoothed else None
    return (people.keypoints_xy if smooth is None else smooth)[:, theirs]


def _accuracy(frames: Sequence[tuple[People, TrueFrame]], theirs: Int64, *, is_smoothed: bool) -> KeypointAccuracy:
    meter = KeypointMeter()
    for people, true in frames:
        meter.add(true, _xy(people, theirs, is_smoothed=is_smoothed), true.pairs(people.boxes_xyxy))
    return meter.result()


def _coverage(frames: Sequence[tuple[People, TrueFrame]], theirs: Int64) -> Coverage | None:
    meter = CoverageMeter()
    for people, true in frames:
        if people.keypoint_covariances is not None:
            pairs = true.pairs(people.boxes_xyxy)
            meter.add(true, people.keypoints_xy[:, theirs], people.keypoint_covariances[:, theirs], pairs)
    return meter.result()


def _coco(truth: CocoTruth, judged: dict[int, _Judged], poses: RecordedPoses, name: str) -> CocoFigures:
    found = {number: one.people for number, one in judged.items() if one.true is not None}
    return judge_coco(truth, found, poses.skeleton.names, name)


def _identified(judged: dict[int, _Judged]) -> dict[int, Identified]:
    return {
        number: identified(one.people.track_ids, one.people.boxes_xyxy, number)
        for number, one in judged.items()
        if one.true is not None
    }


def _smoothness(judged: dict[int, _Judged], own: Int64, theirs: Int64, *, is_smoothed: bool) -> Smoothness:
    frames: list[tuple[Posed, TrueFrame | None]] = []
    for pts_s, everybody, true in judged.values():
        people = everybody[everybody.track_ids != NO_TRACK]
        xy, scores = _xy(people, theirs, is_smoothed=is_smoothed), people.keypoint_scores[:, theirs]
        posed = Posed(pts_s, people.track_ids, people.boxes_xyxy, scores, xy)
        frames.append((posed, None if true is None else true.with_keypoints(own)))
    return smoothness(frames)


def poses_table(reports: Sequence[PosesReport]) -> str:
    """Return the figures of several files as a table in Markdown, a column for each."""
    tracking = [of.tracking for of in reports]
    rows: Rows = [
        ("frames", [f"{of.frames} of {of.frames_in_truth}" for of in reports]),
        ("keypoints judged", [f"{of.keypoints_judged} of {of.keypoints_in_truth}" for of in reports]),
        *coco_rows([of.coco for of in reports]),
        *keypoint_rows([of.keypoints for of in reports]),
        *_smoothed(keypoint_rows([of.smoothed for of in reports])[1:]),
        *share_rows(tracking, {"HOTA": "hota", "AssA": "assa", "IDF1": "idf1"}),
        row("identity switches", tracking, lambda of: str(of.switches)),
        row("identities", tracking, lambda of: f"{of.identities} of {of.true_identities}"),
        *_smoothness_rows([of.smoothness for of in reports]),
        *_smoothed(_smoothness_rows([of.smoothness_smoothed for of in reports])),
        *share_rows(
            [of.coverage for of in reports],
            {"inside the 50 % ellipse": "inside_50", "inside the 90 % ellipse": "inside_90"},
        ),
    ]
    return markdown([of.poses for of in reports], rows)


def _smoothness_rows(of_files: Sequence[Smoothness | None]) -> Rows:
    return [
        row("tremble, mean / median px", of_files, lambda of: _both(of.tremble_px)),
        row("error of moving joints, mean / median px", of_files, lambda of: _both(of.moving_error_px)),
        row("lag, mean / median ms", of_files, lambda of: _both(of.lag_s, 1e3)),
    ]


def _smoothed(rows: Rows) -> Rows:
    return [(f"{name}, smoothed", cells) for name, cells in rows]


def _both(values: Spread | None, scale: float = 1.0) -> str | None:
    return None if values is None else f"{values.mean * scale:.2f} / {values.median * scale:.2f}"
