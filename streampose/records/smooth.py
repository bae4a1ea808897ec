"""Smooths the keypoints of a poses file without lag. Files of any length need the same memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from streampose.errors import SourceError, StreamposeError, UsageError, describe, wrapped
from streampose.frames import WHOLE, Part, People
from streampose.people.both_ways import AHEAD_S, Timed, TwoWaySmoother
from streampose.records.lines import line_of, pixels, read_lines
from streampose.records.part import LinePicker
from streampose.records.poses import no_identities, people_of
from streampose.sinks.lines import LineFile
from streampose.sinks.target import check_file, create, failed, frames_and_size, make_folder, name_of, settle

LINES_PER_LOOK = 100
"""After so many more lines, look whether a block can be smoothed."""
MOST_HELD = 20_000
"""Maximum number of lines and people in memory, which take about 150 MB."""


class Line(NamedTuple):
    """A frame of the file."""

    frame: dict[str, Any]
    source: str
    pts_s: float
    """NaN if the frame has no time."""
    persons: list[dict[str, Any]]
    """Those of the frame who can be smoothed: they have an identity, and the frame has a time."""
    people: People | None
    """The same; None if there are none."""


@dataclass(slots=True)
class Smoothed:
    """What was written."""

    name: str
    """Of the file."""
    frames: int = 0
    people: int = 0
    """Distinct people who were smoothed."""
    size_bytes: int = 0

    def __str__(self) -> str:
        people = f"{self.people} {'person' if self.people == 1 else 'people'} smoothed"
        return f"{frames_and_size(self.name, self.frames, self.size_bytes)}, {people}"


def smooth_poses(
    source: Path,
    target: Path,
    *,
    overwrite: bool = False,
    part: Part = WHOLE,
    lines_per_look: int = LINES_PER_LOOK,
) -> Smoothed:
    """Write a poses file again, with the keypoints of everybody who has an identity smoothed under `smoothed`.

    Everything else stays as it is. An incomplete last line is left out. If only a part is written, the frames around it
    and between its frames are smoothed as well, so the result does not depend on the part.

    Args:
        source: the poses file.
        target: the `.jsonl` file to write.
        overwrite: whether to replace `target`.
        part: the frames to write.
        lines_per_look: see `LINES_PER_LOOK`. The result does not depend on it.

    Raises:
        UsageError: `source` is not a poses file, has people but no identities, or no frame in the part; `target` is no
            valid name, exists, or is `source`.
        SourceError: `source` is damaged. The frames before the damage were written.
        SinkError: writing failed.
    """
    name = name_of(target)
    if target.suffix.lower() != ".jsonl":
        raise UsageError(f"cannot write {name}: name a .jsonl file")
    check_file(target, overwrite=overwrite, source_path=str(source))
    head, _ = read_lines(source)
    _check_identities(source, head["format"])
    _check_part(source, part)
    make_folder(target.parent, name)
    done = Smoothed(name)
    lines = _Lines(source)
    file = LineFile(create(target, overwrite=overwrite))
    try:
        file.append(line_of(head))
        ids = set()
        picker = LinePicker(part, name_of(source))
        for line in _smoothed(_blocks(lines, lines_per_look)):
            if picker.takes(line.frame):
                file.append(line_of(line.frame))
                done.frames += 1
                ids |= {(line.source, person["id"]) for person in line.persons}
    except OSError as error:
        raise failed(name, error) from error
    finally:
        file.close()
        done.size_bytes = settle(target)
    done.people = len(ids)
    if lines.damage is not None:
        raise SourceError(f"{lines.damage}; the {done.frames} frames before it are in {name}") from lines.damage
    return done


def _check_identities(source: Path, version: int) -> None:
    """Raise `UsageError` if there are people but no identities."""
    has_people = False
    for line in _Lines(source):
        if line.persons:
            return
        has_people = has_people or bool(line.frame["people"])
    if has_people:
        raise no_identities(source, version)


def _check_part(source: Path, part: Part) -> None:
    """Raise `UsageError` if no frame is in the part."""
    picker = LinePicker(part, name_of(source))
    if not any(picker.takes(line.frame) for line in _Lines(source)):
        picker.check()


class _Lines:
    """Iterates over the frames of a poses file, up to the first damaged line."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.damage: StreamposeError | None = None

    def __iter__(self) -> Iterator[Line]:
        name = name_of(self._path)
        try:
            for number, frame in enumerate(read_lines(self._path)[1], start=2):
                try:
                    line = _line(frame)
                except (LookupError, TypeError, ValueError) as error:
                    raise SourceError(f"{name} is damaged at line {number}: not a frame ({describe(error)})") from error
                yield line
        except (StreamposeError, OSError) as error:
            self.damage = wrapped(SourceError, f"cannot read {name}", error)


def _line(frame: Any) -> Line:
    """Return a frame of the file as a `Line`. Raises `LookupError`, `TypeError` and `ValueError`."""
    pts_s = np.nan if frame["pts_s"] is None else float(frame["pts_s"])
    persons = [person for person in frame["people"] if person.get("id") is not None and None not in person["box_xyxy"]]
    if not persons or not np.isfinite(pts_s):
        return Line(frame, frame["source"], pts_s, [], None)
    people = people_of(persons, keypoint_count=0)
    if people.boxes_xyxy.shape != (len(persons), 4) or people.keypoints_xy.ndim != 3:
        raise ValueError("boxes have 4 numbers, and keypoints 3")
    covariances = people.keypoint_covariances
    if covariances is not None and not np.isfinite(covariances).all():
        covariances = None
    scores = np.nan_to_num(people.keypoint_scores)
    people = replace(people, keypoint_scores=scores, keypoint_covariances=covariances)
    return Line(frame, frame["source"], pts_s, persons, people)


Block = tuple[list[Line], list[Line]]
"""Lines to smooth, and the lines that follow them."""


def _blocks(lines: Iterable[Line], lines_per_look: int) -> Iterator[Block]:
    """Divide the lines into blocks whose people do not depend on what comes after the lines that follow them."""
    held: list[Line] = []
    weight = 0
    for number, line in enumerate(lines, start=1):
        held.append(line)
        weight += 1 + len(line.frame["people"])
        if number % lines_per_look and weight < MOST_HELD:
            continue
        count = len(held) // 2 if weight >= MOST_HELD else _settled(held)
        # The lines that follow are smoothed again and again: take a block that is as long as they are.
        if count >= len(held) / 2 or weight >= MOST_HELD:
            yield held[:count], held[count:]
            held = held[count:]
            weight = sum(1 + len(line.frame["people"]) for line in held)
    yield held, []


def _settled(lines: Sequence[Line]) -> int:
    """Return how many lines, from the first on, are followed by `AHEAD_S` of their own source."""
    latest_s = {line.source: line.pts_s for line in lines if np.isfinite(line.pts_s)}
    open_lines = (i for i, line in enumerate(lines) if latest_s.get(line.source, np.inf) - line.pts_s < AHEAD_S)
    return next(open_lines, len(lines))


def _smoothed(blocks: Iterable[Block]) -> Iterator[Line]:
    """Write the smoothed keypoints into the lines, and yield them in their order."""
    smoothers: dict[tuple[str, int], TwoWaySmoother] = {}
    for block, ahead in blocks:
        by_source, ahead_by_source = _by_source(block), _by_source(ahead)
        for key, lines in by_source.items():
            smoother = smoothers.setdefault(key, TwoWaySmoother(key[1]))
            all_xy = smoother.smooth(_timed(lines), _timed(ahead_by_source.get(key, [])))
            for line, smooth_xy in zip(lines, all_xy, strict=True):
                for person, xy in zip(line.persons, pixels(smooth_xy), strict=True):
                    person["smoothed"] = xy
        yield from block


def _by_source(lines: Sequence[Line]) -> dict[tuple[str, int], list[Line]]:
    """Return the lines with people by source and number of keypoints."""
    found: dict[tuple[str, int], list[Line]] = {}
    for line in lines:
        if line.people is not None:
            found.setdefault((line.source, line.people.keypoints_xy.shape[1]), []).append(line)
    return found


def _timed(lines: Sequence[Line]) -> list[Timed]:
    return [Timed(line.pts_s, line.people) for line in lines if line.people is not None]
