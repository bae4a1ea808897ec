"""Splits a long recording into pieces, for which the networks can run independently.

The networks have no memory between frames. Everything that has one (identities, smoothing, video encoders) works on
the whole recording later; see `streampose.archive.raw`.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import dataclass, replace
from pathlib import Path

from streampose.frames import WHOLE, Part
from streampose.options.of_tools import PIECE_FRAMES
from streampose.picker import Picker
from streampose.sources.recorded import VideoFile
from streampose.sources.skip import Landmark, UnreliableError
from streampose.sources.source import Reading, Source, file_safe
from streampose.sources.survey import Survey, survey_of


@dataclass(frozen=True, slots=True)
class Piece:
    """Successive frames of a recording."""

    number: int
    """From 0."""
    part: Part
    frames: int
    """How many frames of `part` there are."""
    landmark: Landmark | None
    """Where in the file to begin; None begins at its beginning."""


def pieces_of(source: Source, reading: Reading, frames: int = PIECE_FRAMES) -> list[Piece]:
    """Return the pieces of a recording, in order. Each wanted frame is in exactly one of them.

    All packets of the file are read, unless its header says that it is short.

    Args:
        source: the recording.
        reading: what it was opened with.
        frames: minimum number of frames in a piece. Pieces begin at keyframes, so most are longer.

    Returns:
        Less than two pieces if the recording cannot be split: it is short or no video file, has no keyframes, or its
        packets do not tell which frames come out of them.
    """
    info = source.info
    if not isinstance(source, VideoFile) or info.path is None:
        return []
    if info.frame_count is not None and info.frame_count < 2 * frames:
        return []
    try:
        return split(survey_of(info.path, reading), reading.part, frames)
    except UnreliableError:
        return []


def split(survey: Survey, part: Part = WHOLE, frames: int = PIECE_FRAMES) -> list[Piece]:
    """Return the pieces of a part of a recording; see `pieces_of`."""
    picker = Picker(part._replace(every=1))
    times = [time for time in survey.times if picker.takes(survey.at_s(time))]
    if not times:
        return []
    starts = [0]
    """Where in `times` the pieces begin. With `every`, only every Nth frame can be the first of a piece."""
    for keyframe in sorted(one.time for one in survey.keyframes):
        start = -(-bisect_left(times, keyframe) // part.every) * part.every
        least = frames * part.every
        if start - starts[-1] >= least and len(times) - start >= least:
            starts.append(start)
    in_order = sorted(survey.keyframes)
    pieces = []
    for number, (start, end) in enumerate(zip(starts, [*starts[1:], len(times)], strict=True)):
        is_first, is_last = number == 0, end == len(times)
        begin_s = part.start_s if is_first else survey.at_s(times[start])
        end_s = part.end_s if is_last else survey.at_s(times[end])
        before = bisect_right(in_order, times[start], key=lambda one: one.time)
        landmark = in_order[before - 1] if before and begin_s > 0 else None
        pieces.append(Piece(number, Part(begin_s, end_s, part.every), -(-(end - start) // part.every), landmark))
    return pieces


def open_piece(path: str, text: str, reading: Reading, piece: Piece) -> VideoFile:
    """Open the frames of a piece. They have the numbers and times of the whole recording.

    Args:
        path: the video file.
        text: names the recording in messages.
        reading: what the whole recording is read with.
        piece: one of its pieces.

    Raises:
        SourceError: see `VideoFile`.
    """
    of_piece = replace(reading, part=piece.part, landmark=piece.landmark)
    return VideoFile(Path(path), text, file_safe(Path(path).stem), of_piece)
