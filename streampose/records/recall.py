"""Finds the people of a clip's frames in a poses file."""

from __future__ import annotations

from collections.abc import Iterator
from math import inf
from typing import Any

from streampose.errors import SourceError, UsageError, describe
from streampose.frames import WHOLE, Frame, Part
from streampose.records.poses import RecordedFrame, RecordedPoses
from streampose.sinks.target import name_of

_DRAWN = "what precedes it was drawn"


class Recall:
    """The people of a poses file, in the order of the clip's frames. The file is read line by line.

    Call `find` for each frame of the clip in order, then `finish`.
    """

    def __init__(self, poses: RecordedPoses, clip: str, source: str | None = None, part: Part = WHOLE) -> None:
        """Read nothing yet.

        Args:
            poses: the file.
            clip: the clip as the user wrote it, for messages.
            source: the name of the clip's source in the file; None if the file has only one source.
            part: the part of the clip whose frames are drawn. The file may have the others as well.
        """
        self._part = part
        self._poses = poses
        self._clip = clip
        self._source = source
        self._lines = self._numbered()
        self._next: RecordedFrame | None = None
        self._last = -1
        """The index of the latest frame that was read from the file."""
        self._sources: set[str] = set()
        """The names of all sources in the file so far."""
        self._name = name_of(poses.path)
        self.missing = 0
        """Frames of the clip that the file does not have, although it has later ones."""

    def find(self, frame: Frame) -> RecordedFrame | None:
        """Return what is known of a frame of the clip; None if the file has no such frame, but has later ones.

        Raises:
            SourceError: the file ends before this frame.
            UsageError: the file is damaged here, or not of this clip.
        """
        if self._next is None:
            self._next = self._read()
        while self._next is not None and self._next.index < frame.index:  # not in the part of the clip
            self._next = self._read()
        if self._next is None:
            known = f"it ends with frame {self._last}" if self._last >= 0 else self._without_frames()
            raise SourceError(
                f"{self._name} does not cover {self._clip}: {known}, and the rest was not drawn; if the poses are of a "
                "part, draw with the same `start_s`, `end_s` and `every`"
            )
        if frame.index < self._next.index:
            self.missing += 1
            return None
        found, self._next = self._next, None
        self._check(found, frame)
        return found

    def finish(self, frames: int) -> None:
        """Check that the clip has all frames of the file.

        Args:
            frames: how many frames the clip has.

        Raises:
            UsageError: the file has more frames than the clip, or is damaged after them.
        """
        is_whole = self._part.every == 1 and self._part.end_s == inf
        if is_whole and (self._next is not None or self._read() is not None):
            raise UsageError(
                f"{self._name} is not of {self._clip}: it has frame {self._last}, and the clip only {frames} frames; "
                "name the clip that the poses were found in"
            )

    def _numbered(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yield the lines of the file with their numbers."""
        try:
            yield from enumerate(self._poses.lines(), start=2)
        except UsageError as error:
            raise UsageError(f"{error}; {_DRAWN}") from error

    def _read(self) -> RecordedFrame | None:
        """Return the next frame of the source; None at the end of the file."""
        for number, line in self._lines:
            try:
                found = self._poses.frame_of(line)
            except (LookupError, TypeError, ValueError) as error:
                raise self._damage(number, f"not a frame ({describe(error)})") from error
            self._sources.add(found.source_id)
            if self._source is None and len(self._sources) > 1:
                names = ", ".join(sorted(self._sources))
                raise UsageError(f"{self._name} has several sources ({names}): name one, as in NAME={self._clip}")
            if self._source in (None, found.source_id):
                if found.index <= self._last:
                    raise self._damage(number, f"frame {found.index} follows frame {self._last}")
                self._last = found.index
                return found
        return None

    def _damage(self, number: int, what: str) -> UsageError:
        return UsageError(f"{self._name} is damaged at line {number}: {what}; {_DRAWN}")

    def _check(self, found: RecordedFrame, frame: Frame) -> None:
        """Raise `UsageError` if a line of the file is not about a frame of the clip."""
        height, width = frame.image.shape[:2]
        theirs: tuple[Any, Any] | None = None
        if (found.width, found.height) != (width, height):
            theirs = f"{found.width}x{found.height}", f"{width}x{height}"
        elif None not in (found.file, frame.file) and found.file != frame.file:
            theirs = found.file, frame.file
        if theirs is not None:
            raise UsageError(
                f"{self._name} is not of {self._clip}: frame {frame.index} is {theirs[0]} in the file and {theirs[1]} "
                "in the clip; name the clip that the poses were found in"
            )

    def _without_frames(self) -> str:
        if self._source is not None and self._sources:
            return f"it has no frames of a source named {self._source}, but of {', '.join(sorted(self._sources))}"
        return "it has no frames"
