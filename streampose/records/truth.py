"""The truth by which poses are judged: who is in each frame, and where. docs/formats.md describes the files."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt

from streampose.errors import UsageError, describe
from streampose.frames import NO_TRACK, Float32, Int64
from streampose.people.names import COCO_NAMES, plain_names
from streampose.people.overlap import best_pairs, box_overlaps
from streampose.sinks.target import name_of

Float64 = npt.NDArray[np.float64]

LEAST_VISIBLE = 0.3
"""People of whom less is visible are not judged, whether they are found or missed."""
SAME_IOU = 0.5
"""Minimum IoU of a box and a true box of the same person."""
_HEAD_ENDS = (("head_top", "top_head"), ("neck", "upper_neck", "head_bottom"))
"""Names of the two keypoints between which a head is measured."""


@dataclass(frozen=True, slots=True)
class TrueFrame:
    """The N people who are in a frame in truth."""

    ids: Int64
    """(N,) the identities; `NO_TRACK` if unknown."""
    boxes_xyxy: Float32
    """(N, 4) float32 pixels."""
    keypoints: Float64
    """(N, K, 3) float64: x, y, and 2 if visible, 1 if covered, 0 if outside the frame or unknown."""
    visible: Float64
    """(N,) the share of the person that can be seen, 0..1."""
    head_sizes: Float64
    """(N,) the length of the head in pixels; NaN if unknown."""
    size: tuple[int, int] | None = None
    """Width and height of the frame in pixels; None if unknown."""

    @property
    def counts(self) -> npt.NDArray[np.bool_]:
        """(N,) whether enough of each person is visible."""
        return self.visible >= LEAST_VISIBLE

    def pairs(self, boxes_xyxy: Float32) -> list[tuple[int, int]]:
        """Return which true person (row) is in which of M boxes (column), by an IoU of at least `SAME_IOU`."""
        return best_pairs(box_overlaps(self.boxes_xyxy, boxes_xyxy), SAME_IOU)

    def with_keypoints(self, columns: Int64) -> TrueFrame:
        """Return the same people with some of the keypoints."""
        return replace(self, keypoints=self.keypoints[:, columns])


@dataclass(frozen=True, slots=True)
class Truth:
    """The truth of a recording or of stills."""

    name: str
    """The file, for messages."""
    names: tuple[str, ...]
    """Names of the keypoints."""
    frames: Mapping[int, TrueFrame]
    """The frames by number: the index in the recording, or the id of COCO's image."""
    number_of_frame: Mapping[int, int] = field(default_factory=dict)
    """The number by the index of a frame in its recording."""
    number_of_file: Mapping[str, int] = field(default_factory=dict)
    """For stills, the number by file name."""

    def number_of(self, line: Mapping[str, Any]) -> int | None:
        """Return the number of a frame of a poses file; None if the truth does not have it.

        Raises:
            UsageError: it has it in another size.
        """
        file = line.get("file")
        if file is not None and self.number_of_file:
            number = self.number_of_file.get(file, self.number_of_file.get(PurePosixPath(file).name))
        else:
            number = self.number_of_frame.get(line["frame"])
        if number is None:
            return None
        true, size = self.frames[number], (line["width"], line["height"])
        if true.size not in (None, size):
            which = line["frame"] if file is None else file
            raise UsageError(
                f"{self.name} is for frames of {_times(true.size)} pixels, but frame {which} of the poses has "
                f"{_times(size)}: use the truth of this recording"
            )
        return number

    @property
    def has_identities(self) -> bool:
        """Whether it says who is who from frame to frame."""
        return any((true.ids != NO_TRACK).any() for true in self.frames.values())

    def shared_keypoints(self, names: Sequence[str], of: str) -> tuple[Int64, Int64]:
        """Return the numbers of the keypoints that the truth and a skeleton share, in the truth and in the skeleton.

        Args:
            names: the keypoints of the skeleton. Spellings may differ: `L_Knee` is `left_knee`.
            of: whose skeleton it is, for messages.

        Raises:
            UsageError: they share none.
        """
        theirs = {name: number for number, name in enumerate(plain_names(names))}
        shared = [(own, theirs[name]) for own, name in enumerate(plain_names(self.names)) if name in theirs]
        if not shared:
            raise UsageError(f"{self.name} and {of} have no keypoint in common: {_some(self.names)} and {_some(names)}")
        own, other = np.array(shared, np.int64).T
        return own, other


def read_truth(path: str | os.PathLike[str]) -> Truth:
    """Read the truth of a recording, a file such as `assets/crossing_truth.json`.

    Raises:
        UsageError: the file cannot be read or is not such a file.
    """
    return truth_of(read_json(path), name_of(path))


def truth_of(content: Mapping[str, Any], name: str) -> Truth:
    """Return the truth in the content of such a file. `name` is for messages. Raises `UsageError`."""
    try:
        names = tuple(map(str, content.get("skeleton", {}).get("names", COCO_NAMES)))
        size = (int(content["width"]), int(content["height"])) if "width" in content else None
        frames = {frame["index"]: _true_frame(frame["people"], names, size) for frame in content["frames"]}
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        what = f"{error} is missing" if isinstance(error, KeyError) else describe(error)
        raise UsageError(f"{name} is not the truth of a recording ({what}); see docs/formats.md") from error
    return Truth(name, names, frames, {index: index for index in frames})


def _true_frame(people: Sequence[Mapping[str, Any]], names: Sequence[str], size: tuple[int, int] | None) -> TrueFrame:
    keypoints = np.array([person["keypoints"] for person in people], np.float64).reshape(len(people), len(names), 3)
    return TrueFrame(
        np.array([person.get("id", NO_TRACK) for person in people], np.int64),
        np.array([person["box_xyxy"] for person in people], np.float32).reshape(len(people), 4),
        keypoints,
        np.array([person.get("visible", 1.0) for person in people], np.float64),
        head_sizes(keypoints, names),
        size,
    )


def head_sizes(keypoints: Float64, names: Sequence[str]) -> Float64:
    """Return the distances (N,) from the top of the head to the neck, of keypoints (N, K, 3); NaN if unknown."""
    plain = plain_names(names)
    ends = [next((plain.index(name) for name in of_end if name in plain), None) for of_end in _HEAD_ENDS]
    top, neck = ends
    if top is None or neck is None:
        return np.full(len(keypoints), np.nan)
    away = keypoints[:, top] - keypoints[:, neck]
    is_known = (keypoints[:, [top, neck], 2] > 0).all(axis=1)
    return np.where(is_known, np.hypot(away[:, 0], away[:, 1]), np.nan)


def read_json(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the JSON object in a file. Raises `UsageError`."""
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"cannot read {name_of(path)}: {describe(error)}") from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{name_of(path)} is not JSON: {describe(error)}") from error
    if not isinstance(content, dict):
        raise UsageError(f"{name_of(path)} is neither the truth of a recording nor COCO annotations")
    return content


def _times(size: tuple[int, int] | None) -> str:
    return "unknown size" if size is None else "x".join(map(str, size))


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
