"""Poses as OpenPose writes them: a folder with a JSON file per frame.

The format is that of https://github.com/CMU-Perceptual-Computing-Lab/openpose/blob/master/doc/02_output.md.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from streampose.errors import UsageError
from streampose.people.names import COCO_NAMES, plain_names
from streampose.records.coco import ImageNumbers
from streampose.records.writer import Writer
from streampose.sinks.target import check_folder, failed, make_folder, name_of

_ARM = ("shoulder", "elbow", "wrist")
_LEG = ("hip", "knee", "ankle")
_FOOT = ("big_toe", "small_toe", "heel")
BODY_25 = (
    "nose",
    "neck",
    *(f"{side}_{part}" for side in ("right", "left") for part in _ARM),
    "mid_hip",
    *(f"{side}_{part}" for side in ("right", "left") for part in _LEG),
    *("right_eye", "left_eye", "right_ear", "left_ear"),
    *(f"{side}_{part}" for side in ("left", "right") for part in _FOOT),
)
"""The keypoints of OpenPose's model BODY_25, in its order."""
_OTHERWISE = {
    "neck": ("left_shoulder", "right_shoulder"),
    "mid_hip": ("left_hip", "right_hip"),
}
"""Keypoints in the middle of two others, for skeletons that lack them."""

FACE = (*(f"face_{number}" for number in range(68)), "left_pupil", "right_pupil")
"""The face of OpenPose, in the names of COCO-WholeBody, which has no pupils,"""
_FINGERS = ("thumb", "forefinger", "middle_finger", "ring_finger", "pinky_finger")
HANDS = {
    side: (f"{side}_hand_root", *(f"{side}_{finger}_{joint}" for finger in _FINGERS for joint in range(1, 5)))
    for side in ("left", "right")
}
"""and its hands."""

_MISSING = (0.0, 0.0, 0.0)
_ENDING = ".openpose"


class OpenPoseWriter(Writer):
    """A folder with a file per frame, `NAME_000000000012_keypoints.json` for frame 12; see `ImageNumbers`.

    Bodies are in the order of `BODY_25` if the skeleton has the keypoints of COCO, and otherwise in that of the
    skeleton. Keypoints are the raw ones; what is missing is 0, 0, 0. `person_id` is the identity, or -1.
    """

    is_folder = True
    _size_bytes = 0

    @classmethod
    def check(cls, path: Path, *, overwrite: bool, source_path: str | None) -> None:  # noqa: ARG003 - is a file
        """Check that the folder can be written and, without `overwrite`, holds no frames."""
        name = name_of(path)
        check_folder(path, name)
        if not overwrite and _frames_in(path):
            raise UsageError(f"{name} already has frames: choose another folder, or replace them with `overwrite`")

    def begin(self, header: dict[str, Any]) -> None:
        """Create the folder. With `overwrite`, delete the frames in it."""
        make_folder(self.path, name_of(self.path))
        try:
            for old in _frames_in(self.path) if self.overwrite else []:
                old.unlink()
        except OSError as error:
            raise failed(name_of(self.path), error) from error
        names = plain_names(header["skeleton"]["names"])
        self._parts = {
            "pose_keypoints_2d": _choose(BODY_25 if set(COCO_NAMES) <= set(names) else names, names),
            "face_keypoints_2d": _choose(FACE, names),
            "hand_left_keypoints_2d": _choose(HANDS["left"], names),
            "hand_right_keypoints_2d": _choose(HANDS["right"], names),
        }
        self._images = ImageNumbers()

    def write(self, line: dict[str, Any]) -> None:
        """Write the file of a frame. A file with its final name is complete."""
        number = self._images.of(line)
        content = {"version": 1.3, "people": [self._person(person) for person in line["people"]]}
        data = json.dumps(content, separators=(",", ":")).encode() + b"\n"
        path = self.path / f"{self.path.name[: -len(_ENDING)]}_{number:012d}_keypoints.json"
        try:
            partial = path.with_suffix(".new")
            partial.write_bytes(data)
            partial.replace(path)
        except OSError as error:
            raise failed(name_of(path), error) from error
        self._size_bytes += len(data)

    def close(self) -> None:
        """Do nothing: every file is already complete."""

    def size_bytes(self) -> int:
        """Return the size of all files."""
        return self._size_bytes

    def _person(self, person: dict[str, Any]) -> dict[str, Any]:
        identity = person.get("id")
        found: dict[str, Any] = {"person_id": [-1 if identity is None else identity]}
        for key, choice in self._parts.items():
            found[key] = [value for numbers in choice for value in _point([person["keypoints"][n] for n in numbers])]
        empty = ("pose", "face", "hand_left", "hand_right")
        return found | {f"{part}_keypoints_3d": [] for part in empty}


def _choose(wanted: Sequence[str], names: Sequence[str]) -> list[tuple[int, ...]]:
    """Return, for each wanted keypoint, the numbers of those in whose middle it is; an empty list if there are none."""
    number_of = {name: number for number, name in enumerate(names)}
    choice = []
    for name in wanted:
        sources = (name,) if name in number_of else _OTHERWISE.get(name, (name,))
        choice.append(tuple(number_of[one] for one in sources) if number_of.keys() >= set(sources) else ())
    return choice if any(choice) else []


def _point(points: Sequence[Sequence[float | None]]) -> Sequence[float]:
    """Return the middle of keypoints (x, y, score), with the lowest of their scores; zeros if one is missing."""
    if not points or any(value is None for point in points for value in point):
        return _MISSING
    if len(points) == 1:
        return [value or 0.0 for value in points[0]]
    xs, ys, scores = zip(*points, strict=True)
    return round(sum(xs) / len(xs), 3), round(sum(ys) / len(ys), 3), min(scores)


def _frames_in(folder: Path) -> list[Path]:
    """Return the frames in a folder."""
    if not folder.is_dir():
        return []
    return [file for file in folder.iterdir() if re.fullmatch(r".*_[0-9]{12}_keypoints\.json", file.name)]
