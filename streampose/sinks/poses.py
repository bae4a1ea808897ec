"""People as JSON Lines: a header, then a line a frame, whole lines only; docs/formats.md describes the format."""

from __future__ import annotations

import json
import os
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from streampose._version import __version__
from streampose.errors import SinkError, UsageError, describe
from streampose.frames import NO_TRACK, People, Result, RunInfo
from streampose.sinks.sink import Sink
from streampose.sinks.target import check_file, create, failed, frames_and_size, make_folder, name_of, settle

FORMAT = 1
"""Grows when a reader of the format would have to change; new keys alone do not count."""

PIXEL_DECIMALS = 2
"""A hundredth of a pixel: finer than any network's error."""
SCORE_DECIMALS = 4


class KeypointsSink(Sink):
    """A `.jsonl` file, or standard output.

    Each line is handed to the system whole, by one write on an unbuffered descriptor, so a killed run leaves whole
    lines; where a disk is full the file, or standard output that is one, is cut back to its last whole line. The file
    begins with its first frame: a run without frames leaves no file, and leaves an older one as it was.
    """

    needs_picture = False

    def __init__(self, path: Path | None, *, overwrite: bool = False, source_path: str | None = None) -> None:
        """Check `path`; None is standard output. Raises `UsageError` and `SinkError`."""
        super().__init__("standard output" if path is None else name_of(path))
        if path is not None:
            check_file(path, overwrite=overwrite, source_path=source_path)
        elif sys.stdout is None or sys.stdout.closed:
            raise SinkError("cannot write to standard output: it is closed; name a file, e.g. poses.jsonl")
        self._path = path
        self._overwrite = overwrite
        self._run: RunInfo | None = None
        self._fd: int | None = None
        self._frames = 0
        self._size_bytes = 0
        self._failed = False

    def open(self, run: RunInfo) -> None:
        """Create the folder. Raises `SinkError`."""
        if self._path is not None:
            make_folder(self._path.parent, self.text)
        self._run = run

    def write(self, result: Result) -> bool | None:
        """Append one frame's line; False when the reader of standard output has gone. Raises `SinkError`."""
        if self._run is None:
            raise SinkError(f"{self.text} is not open")
        try:
            if self._fd is None:
                self._fd = self._descriptor()
                self._append(header(self._run))
            self._append(frame_line(result))
        except BrokenPipeError:
            return False
        except OSError as error:
            self._failed = True
            raise failed(self.text, error) from error
        self._frames += 1
        return None

    def close(self) -> None:
        """Close the file. Raises `SinkError`."""
        fd, self._fd = self._fd, None
        if fd is not None:
            try:
                os.close(fd)
            except OSError as error:
                raise failed(self.text, error) from error
            if self._path is not None:
                settle(self._path)

    def summary(self) -> str | None:
        """Name, frames and size; None before the first frame."""
        if not self._frames:
            return None
        return frames_and_size(self.text, self._frames, self._size_bytes, broken_off=self._failed)

    def _descriptor(self) -> int:
        if self._path is not None:
            return create(self._path, overwrite=self._overwrite)
        sys.stdout.flush()
        return os.dup(sys.stdout.fileno())

    def _append(self, record: dict[str, Any]) -> None:
        line = json.dumps(record, separators=(",", ":"), allow_nan=False).encode() + b"\n"
        assert self._fd is not None
        left = memoryview(line)
        try:
            while left:
                left = left[os.write(self._fd, left) :]
        except OSError:
            self._take_back(len(line) - len(left))
            raise
        self._size_bytes += len(line)

    def _take_back(self, count: int) -> None:
        """Cut the last `count` bytes off a file, where they are still its end: standard output is shared."""
        assert self._fd is not None
        status = os.fstat(self._fd)
        if count and stat.S_ISREG(status.st_mode):
            end = os.lseek(self._fd, 0, os.SEEK_CUR)
            if end == status.st_size:
                os.ftruncate(self._fd, end - count)
                os.lseek(self._fd, end - count, os.SEEK_SET)


def header(run: RunInfo) -> dict[str, Any]:
    """Return the first line: which program, source, skeleton and networks the frames that follow are from."""
    return {
        "streampose": __version__,
        "format": FORMAT,
        "source": run.source.text,
        "skeleton": {"names": list(run.skeleton.names), "edges": [list(edge) for edge in run.skeleton.edges]},
        "models": run.models,
    }


def frame_line(result: Result) -> dict[str, Any]:
    """Return the line of one frame."""
    frame = result.frame
    height, width = frame.image.shape[:2]
    line: dict[str, Any] = {"source": frame.source_id, "frame": frame.index, "pts_s": _number(frame.pts_s)}
    if frame.file is not None:
        line["file"] = frame.file
    return line | {"width": width, "height": height, "people": _people(result.people)}


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
    if set(people.label_of.values()) - {"person"}:
        for person, class_id in zip(persons, people.class_ids.tolist(), strict=True):
            person["class"] = people.label_of.get(class_id, str(class_id))
    return persons


def _rounded(values: npt.NDArray[np.float32], decimals: int) -> Any:
    """Nested lists of Python floats; what is not finite becomes None, because JSON has no word for it."""
    rounded = np.round(values.astype(np.float64), decimals)
    finite = np.isfinite(rounded)
    if finite.all():
        return rounded.tolist()
    with_gaps = rounded.astype(object)
    with_gaps[~finite] = None
    return with_gaps.tolist()


def _number(value: float) -> float | None:
    return value if np.isfinite(value) else None


def read_poses(path: str | os.PathLike[str]) -> tuple[dict[str, Any], Iterator[dict[str, Any]]]:
    """Return the header of a poses file and an iterator over its frames, each as in docs/formats.md.

    A last line without its end, as a copy made during a run may have, is left out.

    Raises:
        UsageError: not a poses file, or one of a later format; while iterating, a damaged line.
    """
    name = name_of(path)
    try:
        with Path(path).open("rb") as file:
            first = file.readline()
    except OSError as error:
        raise UsageError(f"cannot read {name}: {describe(error)}") from error
    try:
        head = json.loads(first)
        version = head["format"]
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{name} is not a poses file: its first line is no header") from error
    if version != FORMAT:
        raise UsageError(f"{name} has format {version!r}: this version of streampose reads {FORMAT}")
    return head, _frames(Path(path), name)


def _frames(path: Path, name: str) -> Iterator[dict[str, Any]]:
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if number == 1 or not line.endswith(b"\n"):
                continue
            try:
                yield json.loads(line)
            except ValueError as error:
                raise UsageError(f"{name} is damaged in line {number}: {describe(error)}") from error
