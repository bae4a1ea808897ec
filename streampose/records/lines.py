"""The lines of a poses file: makes them from results, and reads them. docs/formats.md describes the format."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from streampose._version import __version__
from streampose.errors import UsageError, describe
from streampose.frames import NO_TRACK, People, Result, RunInfo
from streampose.people.rounding import COVARIANCE_DECIMALS, PIXEL_DECIMALS, SCORE_DECIMALS, rounded
from streampose.sinks.target import name_of

FORMAT = 2
"""Format version. It increases when readers have to change; new keys alone do not increase it."""
_READABLE = (1, FORMAT)
_FRAME_KEYS: dict[str, Any] = {
    "source": str,
    "frame": int,
    "pts_s": int | float | None,
    "width": int,
    "height": int,
    "people": list,
}
"""What every frame has, and its types."""
_PERSON_KEYS = {"box_xyxy", "box_score", "keypoints"}
"""What every person has."""


def line_of(record: dict[str, Any]) -> bytes:
    """Return a line of the file. Raises `ValueError` if a number is not finite."""
    return json.dumps(record, separators=(",", ":"), allow_nan=False).encode() + b"\n"


def header(run: RunInfo) -> dict[str, Any]:
    """Return the first line: the program version, source, skeleton and networks of the frames that follow."""
    return {
        "streampose": __version__,
        "format": FORMAT,
        "source": run.source.text,
        "skeleton": {
            "names": list(run.skeleton.names),
            "edges": [list(edge) for edge in run.skeleton.edges],
            "flip_pairs": [list(pair) for pair in run.skeleton.flip_pairs],
        },
        "models": run.models,
    }


def frame_line(result: Result) -> dict[str, Any]:
    """Return the line of one frame."""
    frame = result.frame
    height, width = frame.image.shape[:2]
    line: dict[str, Any] = {"source": frame.source_id, "frame": frame.index, "pts_s": _number(frame.pts_s)}
    if frame.file is not None:
        line["file"] = frame.file
    line |= {"width": width, "height": height, "people": _people(result.people)}
    if frame.faces_xyxy is not None:
        line["faces"] = pixels(frame.faces_xyxy)
    return line


def _people(people: People) -> list[dict[str, Any]]:
    boxes = _rounded(people.boxes_xyxy, PIXEL_DECIMALS)
    box_scores = _rounded(people.box_scores, SCORE_DECIMALS)
    xy = _rounded(people.keypoints_xy, PIXEL_DECIMALS)
    scores = _rounded(people.keypoint_scores, SCORE_DECIMALS)
    persons = [
        {
            "id": None if track_id == NO_TRACK else track_id,
            "box_xyxy": boxes[i],
            "box_score": box_scores[i],
            "keypoints": [[x, y, score] for (x, y), score in zip(xy[i], scores[i], strict=True)],
        }
        for i, track_id in enumerate(people.track_ids.tolist())
    ]
    if people.keypoint_covariances is not None:
        triples = people.keypoint_covariances[..., [0, 0, 1], [0, 1, 1]]
        for person, covariances in zip(persons, _rounded(triples, COVARIANCE_DECIMALS), strict=True):
            person["covariances"] = covariances
    if people.smooth_xy is not None:
        for person, smoothed in zip(persons, _rounded(people.smooth_xy, PIXEL_DECIMALS), strict=True):
            person["smoothed"] = smoothed
    if set(people.label_of.values()) - {"person"}:
        for person, class_id in zip(persons, people.class_ids.tolist(), strict=True):
            person["class"] = people.label_of.get(class_id, str(class_id))
    return persons


def _rounded(values: npt.NDArray[np.float32], decimals: int) -> Any:
    """Return nested lists of Python floats. Non-finite values become None, because JSON cannot represent them."""
    found = rounded(values, decimals)
    finite = np.isfinite(found)
    if finite.all():
        return found.tolist()
    with_gaps = found.astype(object)
    with_gaps[~finite] = None
    return with_gaps.tolist()


def matrices(triples: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return covariances as they are in the file, (..., 3), as matrices (..., 2, 2)."""
    return triples[..., [[0, 1], [1, 2]]]


def pixels(xy: npt.NDArray[np.float32]) -> Any:
    """Return coordinates as nested lists, as they are in the file."""
    return _rounded(xy, PIXEL_DECIMALS)


def _number(value: float) -> float | None:
    return value if np.isfinite(value) else None


def read_lines(path: str | os.PathLike[str]) -> tuple[dict[str, Any], Iterator[dict[str, Any]]]:
    """Return the header of a poses file and an iterator over its frames, each as in docs/formats.md.

    An incomplete last line is skipped; a copy made during a run may have one.

    Raises:
        UsageError: the file is not a poses file or has another format version; while iterating, a line is damaged.
    """
    name = name_of(path)
    try:
        with Path(path).open("rb") as file:
            first = file.readline()
    except OSError as error:
        raise UsageError(f"cannot read {name}: {describe(error)}") from error
    try:
        head = orjson.loads(first)
        version = head["format"]
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{name} is not a poses file: its first line is not a header") from error
    if version not in _READABLE:
        raise UsageError(f"{name} has format {version!r}: this version of streampose reads formats 1 and {FORMAT}")
    try:
        keypoint_count = len(head["skeleton"]["names"])
        _ = [(a, b) for a, b in head["skeleton"]["edges"]]
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{name} is not a poses file: its first line has no skeleton") from error
    return head, _frames(Path(path), name, keypoint_count)


def _frames(path: Path, name: str, keypoint_count: int) -> Iterator[dict[str, Any]]:
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if number == 1 or not line.endswith(b"\n"):
                continue
            try:
                frame = orjson.loads(line)
            except ValueError as error:
                raise UsageError(f"{name} is damaged at line {number}: {describe(error)}") from error
            if (wrong := _wrong_in(frame, keypoint_count)) is not None:
                raise UsageError(f"{name} is damaged at line {number}: not a frame ({wrong})")
            yield frame


def _wrong_in(frame: Any, keypoint_count: int) -> str | None:
    """Return what makes a line unusable; None if it is a frame. The numbers of people are not looked at one by one."""
    if not isinstance(frame, dict):
        return "it is no object"
    missing = [key for key in _FRAME_KEYS if key not in frame]
    if missing:
        return f"{missing[0]!r} is missing"
    for key, kinds in _FRAME_KEYS.items():
        if not isinstance(frame[key], kinds):
            return f"{key!r} is {frame[key]!r:.40}"
    lengths = {"box_xyxy": 4, "keypoints": keypoint_count, "covariances": keypoint_count, "smoothed": keypoint_count}
    for person in frame["people"]:
        if not isinstance(person, dict) or not person.keys() >= _PERSON_KEYS:
            return "somebody has no box or no keypoints"
        for key, length in lengths.items():
            if key in person and (not isinstance(person[key], list) or len(person[key]) != length):
                return f"somebody does not have {length} values in {key!r}"
    return None
