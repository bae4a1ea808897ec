"""Raw people: what the networks have found in the frames of a piece, before anything that has a memory.

They are kept in a file per piece, with every bit, and looked up when the whole recording is read.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from streampose.errors import SinkError, StreamposeError, describe
from streampose.frames import Boxes, Float32, Frame, Image, People, Result, RunInfo
from streampose.sinks.sink import Sink
from streampose.sinks.target import name_of

_ROWS_STEP = 8
"""Every 8th row of a frame is compared. A decoder that lacks a reference picture errs in whole blocks of 8 or more
rows, so this notices it at an eighth of the time."""
_OF_FRAMES = ("index", "pts_s", "check", "count")
_OF_PEOPLE = ("boxes", "box_scores", "class_ids", "keypoints", "keypoint_scores", "covariances")


class PiecesError(StreamposeError):
    """Pieces do not match the recording, so it must be processed as a whole."""


def check_of(image: Image) -> int:
    """Return a number that differs if pictures of the same frame were decoded differently."""
    return zlib.crc32(np.ascontiguousarray(image[::_ROWS_STEP]).data)


class RawSink(Sink):
    """Collects the raw people of a piece, and writes them to a file in one step when it is complete."""

    needs_drawn = False

    def __init__(self, path: Path, frames: int) -> None:
        """Write nothing yet.

        Args:
            path: the file.
            frames: how many frames the piece has. With less, no file is written.
        """
        super().__init__(str(path))
        self._path = path
        self._frames = frames
        self._rows: list[tuple[int, float, int, int]] = []
        self._people: list[People] = []
        self._keypoints = 0

    def open(self, run: RunInfo) -> None:
        """Prepare for poses of the run's skeleton."""
        self._keypoints = len(run.skeleton.names)

    def write(self, result: Result) -> None:
        """Keep the people of a frame."""
        frame = result.frame
        self._rows.append((frame.index, frame.pts_s, check_of(frame.image), len(result.people)))
        self._people.append(result.people)

    def close(self) -> None:
        """Write the file. Raises `SinkError`."""
        if len(self._rows) != self._frames:
            return
        rows, people, self._rows = self._rows, self._people, []
        partial = self._path.with_name(f"{self._path.name}.{id(self):x}.part")
        try:
            with partial.open("wb") as file:
                np.savez(file, **_columns(rows, people, self._keypoints))
            partial.replace(self._path)
        except OSError as error:
            with suppress(OSError):
                partial.unlink()
            raise SinkError(f"cannot write {name_of(self._path)}: {describe(error)}") from error


def _columns(rows: Sequence[tuple[int, float, int, int]], people: Sequence[People], keypoints: int) -> dict[str, Any]:
    kinds = (np.int64, np.float64, np.uint32, np.int64)
    columns: dict[str, Any] = {
        name: np.array(values, kind)
        for name, values, kind in zip(_OF_FRAMES, zip(*rows, strict=True), kinds, strict=True)
    }
    none = People.none(keypoints)
    for name, values in zip(_OF_PEOPLE, zip(*map(_arrays, [none, *people]), strict=True), strict=True):
        columns[name] = np.concatenate(values)
    labels = people[0].label_of if people else {}
    return columns | {"labels": np.array(json.dumps(list(labels.items())))}


def _arrays(people: People) -> tuple[npt.NDArray[Any], ...]:
    covariances = people.keypoint_covariances
    if covariances is None:
        raise ValueError("raw people have covariances")
    return (
        people.boxes_xyxy,
        people.box_scores,
        people.class_ids,
        people.keypoints_xy,
        people.keypoint_scores,
        covariances,
    )


@dataclass(frozen=True, slots=True)
class _Columns:
    """The content of a file."""

    frames: list[tuple[int, float, int, int]]
    people: dict[str, npt.NDArray[Any]]
    label_of: dict[int, str]


class Found(NamedTuple):
    """What is known of a frame."""

    people: People
    faces_xyxy: Float32 | None = None


class RawPeople:
    """The raw people of a recording, in the order of its frames. One file at a time is in memory.

    Call `find` for each frame in order, from any frame on, then `finish`.
    """

    missing = 0
    """Frames without an entry: none, because that is an error here."""

    def __init__(self, paths: Sequence[Path]) -> None:
        """Read nothing yet. `paths` are the files of all pieces, in order."""
        self._paths = list(paths)
        self._piece: _Columns | None = None
        self._row = 0
        self._person = 0
        self._has_begun = False

    def find(self, frame: Frame) -> Found:
        """Return the people of the next frame.

        Raises:
            PiecesError: the pieces do not have this frame next, or its picture was decoded differently for them.
        """
        piece = self._current()
        while piece is not None and not self._has_begun and piece.frames[self._row][0] < frame.index:
            self._person += piece.frames[self._row][3]
            self._row += 1
            piece = self._current()
        self._has_begun = True
        if piece is None:
            raise PiecesError(f"the pieces end before frame {frame.index}")
        index, pts_s, check, count = piece.frames[self._row]
        if (index, pts_s) != (frame.index, frame.pts_s):
            raise PiecesError(f"the pieces have frame {index} at {pts_s} s before frame {frame.index}")
        if check != check_of(frame.image):
            raise PiecesError(f"frame {index} was decoded differently")
        rows = slice(self._person, self._person + count)
        boxes, scores, classes, *poses = (piece.people[name][rows] for name in _OF_PEOPLE)
        self._row += 1
        self._person += count
        return Found(People.of(Boxes(boxes, scores, classes), *poses, label_of=piece.label_of))

    def finish(self, frames: int) -> None:
        """Check that all frames were looked up. Raises `PiecesError`."""
        if self._current() is not None:
            raise PiecesError(f"the recording has {frames} frames, and the pieces have more")

    def _current(self) -> _Columns | None:
        """Return the piece with the next frame; None after the last one."""
        while self._piece is None or self._row == len(self._piece.frames):
            if not self._paths:
                return None
            self._piece = _read(self._paths.pop(0))
            self._row = self._person = 0
        return self._piece


def _read(path: Path) -> _Columns:
    try:
        with np.load(path, allow_pickle=False) as file:
            frames = list(zip(*(file[name].tolist() for name in _OF_FRAMES), strict=True))
            people = {name: file[name] for name in _OF_PEOPLE}
            labels = json.loads(str(file["labels"]))
    except (OSError, ValueError, LookupError, zlib.error) as error:
        raise PiecesError(f"cannot read {name_of(path)}: {describe(error)}") from error
    return _Columns(frames, people, {int(number): label for number, label in labels})
