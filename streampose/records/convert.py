"""Converts a poses file to another format."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from streampose.errors import UsageError, describe
from streampose.frames import WHOLE, Part
from streampose.records.formats import UNDERSTOOD, writer_of
from streampose.records.poses import RecordedPoses
from streampose.sinks.target import frames_and_size, make_folder, name_of


class Converted(NamedTuple):
    """What has become of a conversion."""

    frames: int
    summary: str
    """One line: name, number of frames and size."""
    damage: UsageError | None
    """Why the rest of the input could not be read; None if all of it was."""


def convert(source: str | os.PathLike[str], path: Path, *, overwrite: bool = False, part: Part = WHOLE) -> Converted:
    """Write a poses file, or the frames of it in `part`, in the format that the name `path` says. A file of hours needs
    little memory.

    Raises:
        UsageError: the source is not a poses file, a person in it is not what a run writes, the name says no format, no
            frame is in the part, or the output exists and `overwrite` is False.
        SinkError: the output cannot be written.
    """
    kind = writer_of(path)
    if kind is None:
        raise UsageError(f"unknown output {name_of(path)!r}: give {UNDERSTOOD}")
    poses = RecordedPoses(source, part)
    kind.check(path, overwrite=overwrite, source_path=poses.path)
    next(poses.lines(), None)  # what cannot be read at all replaces nothing
    make_folder(path.parent, name_of(path))
    frames, damage = 0, None
    writer = kind(path, overwrite=overwrite)
    try:
        with writer:
            writer.begin(poses.header)
            try:
                for line in poses.lines():
                    writer.write(line)
                    frames += 1
            except UsageError as error:
                damage = error
    except (LookupError, TypeError, ValueError) as error:  # a table is made block by block: the line is not known
        raise UsageError(
            f"{name_of(poses.path)} is damaged: a person is not what a run writes ({describe(error)})"
        ) from error
    return Converted(frames, frames_and_size(writer.shown(), frames, writer.size_bytes()), damage)
