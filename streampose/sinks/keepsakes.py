"""What a user saves from a window: stills and recordings of what it shows, in the current folder."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

from streampose.errors import SinkError
from streampose.frames import Frame, Image, People, Result, RunInfo
from streampose.sinks.segments import SegmentsSink
from streampose.sinks.stills import StillSink
from streampose.sinks.target import unused, with_time


class Keepsakes:
    """Stills (`NAME-TIME.png`) and recordings (`NAME-TIME.mp4`) of the pictures of a window.

    Nothing is ever replaced. A recording has no sound.
    """

    def __init__(self, run: RunInfo, name: str) -> None:
        """Save nothing yet.

        Args:
            run: the run that the window shows; its source gives the recordings their frame rate and tick.
            name: the first part of the names.
        """
        self._run = replace(run, source=replace(run.source, source_id=name, path=None, has_sound=False, stills=()))
        self._recording: SegmentsSink | None = None
        self._recordings: list[str] = []
        self._stills: list[str] = []

    @property
    def is_recording(self) -> bool:
        """Whether pictures are being recorded."""
        return self._recording is not None

    def save_still(self, picture: Image) -> str:
        """Save one picture, (H, W, 3) uint8 BGR. Return the name of the file. Raises `SinkError`."""
        path = unused(with_time(f"{self._run.source.source_id}-{{time}}.png"))
        StillSink(path).write(self._result(picture, 0.0))
        self._stills.append(str(path))
        return str(path)

    def start(self) -> None:
        """Record every picture from now on. Raises `SinkError` and `UsageError`."""
        recording = SegmentsSink(Path(f"{self._run.source.source_id}-{{time}}.mp4"))
        recording.open(self._run)
        self._recording = recording

    def record(self, picture: Image, pts_s: float) -> None:
        """Add a picture at a time to the recording, if there is one. Raises `SinkError`, which ends the recording."""
        if self._recording is None:
            return
        try:
            self._recording.write(self._result(picture, pts_s))
        except SinkError:
            self.stop()
            raise

    def stop(self) -> str:
        """End the recording. Return the name of its file; an empty text if it has no picture. Raises `SinkError`."""
        recording, self._recording = self._recording, None
        if recording is None:
            return ""
        recording.close()
        name = str(recording.status()["file"])
        if name:
            self._recordings.append(name)
        return name

    def summary(self) -> str | None:
        """Return the names of all files in one line; None if there are none."""
        return ", ".join([*self._recordings, *self._stills]) or None

    def _result(self, picture: Image, pts_s: float) -> Result:
        frame = Frame(self._run.source.source_id, 0, pts_s, 0.0, picture, pixel_aspect=Fraction(1))
        return Result(frame, People.none(len(self._run.skeleton.names)), self._run.skeleton, picture)
