"""Judges recorded poses by the truth: keypoints, identities, smoothness and uncertainty."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

from streampose.errors import UsageError
from streampose.frames import NO_TRACK, Float32, Int64, People
from streampose.records.coco_truth import CocoTruth
from streampose.records.evaluate_coco import CocoFigures, judge_coco, needs_coco
from streampose.records.evaluate_keypoints import Coverage, CoverageMeter, KeypointAccuracy, KeypointMeter
from streampose.records.evaluate_smoothness import Posed, Smoothness, Spread, smoothness
from streampose.records.evaluate_tracking import Identified, Tracking, identified, judge
from streampose.records.poses import RecordedPoses, read_poses
from streampose.records.tables import needs
from streampose.records.truth import TrueFrame, Truth
from streampose.sinks.target import name_of

_T = TypeVar("_T")
Rows = list[tuple[str, list[str]]]
"""Rows of a table: the name of a figure, and its value in each column."""


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
    rows: Rows = [
        ("frames", [f"{of.frames} of {of.frames_in_truth}" for of in reports]),
        ("keypoints judged", [f"{of.keypoints_judged} of {of.keypoints_in_truth}" for of in reports]),
    ]
    rows += coco_rows([of.coco for of in reports])
    rows += keypoint_rows([of.keypoints for of in reports])
    rows += [(f"{name}, smoothed", cells) for name, cells in keypoint_rows([of.smoothed for of in reports])[1:]]
    tracks = [of.tracking for of in reports]
    rows += [
        _row("HOTA", tracks, lambda of: f"{of.hota:.3f}"),
        _row("AssA", tracks, lambda of: f"{of.assa:.3f}"),
        _row("IDF1", tracks, lambda of: f"{of.idf1:.3f}"),
        _row("identity switches", tracks, lambda of: str(of.switches)),
        _row("identities", tracks, lambda of: f"{of.identities} of {of.true_identities}"),
    ]
    for what in ("", ", smoothed"):
        smooth = [of.smoothness_smoothed if what else of.smoothness for of in reports]
        rows += [
            _row(f"tremble, mean / median px{what}", smooth, lambda of: _both(of.tremble_px)),
            _row(f"error of moving joints, mean / median px{what}", smooth, lambda of: _both(of.moving_error_px)),
            _row(f"lag, mean / median ms{what}", smooth, lambda of: _both(of.lag_s, 1e3)),
        ]
    covered = [of.coverage for of in reports]
    rows += [
        _row("inside the 50 % ellipse", covered, lambda of: f"{of.inside_50:.3f}"),
        _row("inside the 90 % ellipse", covered, lambda of: f"{of.inside_90:.3f}"),
    ]
    return markdown([of.poses for of in reports], rows)


def coco_rows(figures: Sequence[CocoFigures | None]) -> Rows:
    """Return the rows of AP and AR."""
    return [
        _row("AP", figures, lambda of: _number(of.ap)),
        _row("AP50", figures, lambda of: _number(of.ap50)),
        _row("AP75", figures, lambda of: _number(of.ap75)),
        _row("AP, medium people", figures, lambda of: _number(of.ap_medium)),
        _row("AP, large people", figures, lambda of: _number(of.ap_large)),
        _row("AR", figures, lambda of: _number(of.ar)),
        _row("AR, medium people", figures, lambda of: _number(of.ar_medium)),
        _row("AR, large people", figures, lambda of: _number(of.ar_large)),
    ]


def keypoint_rows(accuracies: Sequence[KeypointAccuracy | None]) -> Rows:
    """Return the rows of the people found and of PCK."""
    return [
        _row("people found", accuracies, lambda of: _number(of.found)),
        _row("PCK@0.05", accuracies, lambda of: _number(of.pck)),
        _row("PCK@0.05, visible", accuracies, lambda of: _number(of.pck_visible)),
        _row("PCKh@0.5", accuracies, lambda of: _number(of.pckh)),
    ]


def markdown(columns: Sequence[str], rows: Rows) -> str:
    """Return a table in Markdown, aligned for people. Rows without any value are left out."""
    lines = [["", *(column.replace("|", "\\|") for column in columns)]]
    lines += [[name, *cells] for name, cells in rows if set(cells) != {_NONE}]
    widths = [max(3, *(len(line[place]) for line in lines)) for place in range(len(lines[0]))]
    rules = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    return "\n".join(
        "| " + " | ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])]) + " |"
        for line in [lines[0], rules, *lines[1:]]
    )


_NONE = "-"


def _row(name: str, values: Sequence[_T | None], show: Callable[[_T], str]) -> tuple[str, list[str]]:
    return name, [_NONE if value is None else show(value) for value in values]


def _number(value: float | None) -> str:
    return _NONE if value is None else f"{value:.3f}"


def _both(values: Spread | None, scale: float = 1.0) -> str:
    return _NONE if values is None else f"{values.mean * scale:.2f} / {values.median * scale:.2f}"
