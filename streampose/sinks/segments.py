"""Endless recording into files of limited length. Knows file names and cut times, and nothing about video."""

from __future__ import annotations

import logging
import math
from dataclasses import replace
from pathlib import Path

from streampose.errors import UsageError
from streampose.frames import Result, RunInfo
from streampose.sinks.sink import Sink
from streampose.sinks.target import check_folder, make_folder, name_of, unused, with_time
from streampose.sinks.video import VideoFileSink

log = logging.getLogger("streampose")

_ROUNDING = 1e-6
"""Tolerance for float times: 1.2 s is the third multiple of 0.4 s, although 1.2 / 0.4 is below 3 in floats."""


class SegmentsSink(Sink):
    """Consecutive video files without a lost frame. Each file starts at time 0 and plays by itself.

    In the file names, `{source}` is the source's ID and `{time}` is the machine's clock time in UTC at the file's first
    frame. Existing files are never replaced: a new file gets a number such as `-2`. Sound is not copied. A killed run
    loses the last seconds of the last file, see `VideoFileSink`.
    """

    def __init__(self, template: Path, *, segment_s: float | None = None, speed: float = 1.0) -> None:
        """Check `template`, whose suffix is one of `VIDEO_FORMATS`.

        Args:
            template: path of the files.
            segment_s: segment length in seconds. A new file starts with the first frame at or after each multiple of
                this length, counted from the first frame. None writes a single file.
            speed: speed of the files' frames, relative to the source.

        Raises:
            UsageError, SinkError: no file can be written at this path.
        """
        super().__init__(name_of(template))
        if segment_s is not None and not (math.isfinite(segment_s) and segment_s > 0):
            raise UsageError(f"invalid segment length {segment_s:g} s: give a number of seconds above 0")
        check_folder(template.parent, self.text)
        self._template = str(template)
        self._segment_s = segment_s
        self._speed = speed
        self._run: RunInfo | None = None
        self._file: VideoFileSink | None = None
        self._path = template
        self._first_pts_s: float | None = None
        self._start_pts_s = 0.0
        self._number = 0
        """Number of the current segment, in multiples of `segment_s`. A segment without a frame has no file."""
        self._segments = 0
        self._frames = 0
        self._size_bytes = 0

    def open(self, run: RunInfo) -> None:
        """Create the folder. Raises `SinkError`."""
        self._template = self._template.replace("{source}", run.source.source_id)
        if run.source.has_sound:
            log.warning("%s: segments are written without sound", self.text)
        self._run = replace(run, source=replace(run.source, path=None, has_sound=False, begins_s=0.0))
        make_folder(with_time(self._template).parent, self.text)

    def write(self, result: Result) -> None:
        """Encode one frame, into a new file if a new segment starts. Raises `SinkError`."""
        pts_s = result.frame.pts_s
        number = self._number_of(pts_s)
        if self._file is None or number != self._number:
            self._finish_file()
            self._begin_file(pts_s)
            self._number = number
        assert self._file is not None
        self._file.write(replace(result, frame=replace(result.frame, pts_s=pts_s - self._start_pts_s)))
        self._frames += 1

    def close(self) -> None:
        """Finish the last file. Raises `SinkError`."""
        self._finish_file()

    def status(self) -> dict[str, int | float | str]:
        """Return the number of `segments` started and the current `file`."""
        return {"segments": self._segments, "file": name_of(self._path) if self._segments else ""}

    def summary(self) -> str | None:
        """Return folder, number of files and frames, and size; None before the first frame."""
        if not self._segments:
            return None
        files = f"{self._segments} {'segment' if self._segments == 1 else 'segments'}"
        return f"{name_of(self._path.parent)}: {files}, {self._frames} frames, {self._size_bytes / 1e6:.1f} MB"

    def _number_of(self, pts_s: float) -> int:
        if self._first_pts_s is None:
            self._first_pts_s = pts_s
        if self._segment_s is None:
            return 0
        return math.floor((pts_s - self._first_pts_s) / self._segment_s + _ROUNDING)

    def _begin_file(self, pts_s: float) -> None:
        path = unused(with_time(self._template))
        self._file, self._path, self._start_pts_s = VideoFileSink(path, speed=self._speed), path, pts_s
        if self._run is not None:  # otherwise the file's `write` reports that it is not open
            self._file.open(self._run)
        self._segments += 1

    def _finish_file(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            file.close()
            if self._path.exists():
                self._size_bytes += self._path.stat().st_size
