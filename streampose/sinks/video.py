"""Writes drawn frames to an H.264 file that keeps the source's timestamps and sound.

Knows MP4, MOV and Matroska, and nothing about networks.
"""

from __future__ import annotations

import glob
import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from fractions import Fraction
from pathlib import Path
from typing import Any

# isort: split
import av
from av.container import OutputContainer
from av.video.frame import PictureType

from streampose.errors import SinkError, describe
from streampose.frames import Image, Result, RunInfo, SourceInfo
from streampose.sinks.encode import Canvas, frame_rate
from streampose.sinks.h264 import Encoder
from streampose.sinks.kept import KEPT, frames_in, packets_from
from streampose.sinks.sink import SAVEPOINTS_KEPT, Sink
from streampose.sinks.sound import Sound
from streampose.sinks.target import check_file, create, failed, frames_and_size, make_folder, name_of, settle, sync

log = logging.getLogger("streampose")

VIDEO_FORMATS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska"}
"""File suffix -> FFmpeg's name of the container."""

FRAGMENT_S = 2
"""Seconds of video and sound that a killed run may lose, in addition to about 20 frames in the encoder. MP4 fragments
start at keyframes. Compared with x264's default of 10 s between keyframes, 2 s costs 5 % more bytes and 1 s costs 13 %.
"""
MIN_FRAGMENT_FRAMES, MAX_FRAGMENT_FRAMES = 12, 250
"""Limits of the keyframe interval. The minimum is for slow sources, whose frames would otherwise all be keyframes. The
maximum, x264's default, is for containers that claim thousands of frames per second."""

_MAX_STEP = 2**31 - 1
"""Ticks between two frames that MP4 and MOV can hold."""

_MAX_DENOMINATOR = 1000
"""Speeds are rounded to fractions of whole numbers up to this one, so that ticks stay exact."""

_FAILURES = (av.FFmpegError, OSError, ValueError)
"""Errors that PyAV raises: `av.FFmpegError` (some are also OSErrors), and ValueError for values that PyAV rejects."""


class VideoFileSink(Sink):
    """An H.264 video file, 4:2:0, encoded with the settings in `h264.ENCODER`.

    The file keeps the source's timestamps, including variable frame rates and a start time other than zero. They are
    exact to the tick in MP4 and MOV, and to the container's millisecond in Matroska. A part of a recording begins at
    0. Sound of a video-file source is copied packet by packet; a codec that the container cannot hold is omitted with a
    warning. 4:2:0 needs even sizes, so an odd width or height grows by one by repeating the last column or row. Frames
    with another size than the first are fitted into it with black borders.

    A killed run leaves a readable file without its last two or three seconds: MP4 and MOV are written as fragments and
    become ordinary files when closed. The file is created with the first frame: a run without frames creates no file
    and leaves an existing one unchanged.
    """

    def __init__(
        self, path: Path, *, overwrite: bool = False, source_path: str | None = None, speed: float = 1.0
    ) -> None:
        """Check `path`, whose suffix is one of `VIDEO_FORMATS`. Raises `UsageError` and `SinkError`.

        `speed` is that of the file's frames, relative to the source. If it is not 1, the file has no sound.
        """
        super().__init__(name_of(path))
        check_file(path, overwrite=overwrite, source_path=source_path)
        self._path = path
        self._overwrite = overwrite
        self._speed = Fraction(speed).limit_denominator(_MAX_DENOMINATOR)
        self._source: SourceInfo | None = None
        self._file: _VideoFile | None = None
        self._failed = False
        self._frames = 0
        self._size_bytes = 0
        self.path = path
        self._generation = 0
        """How often the file was continued by another run,"""
        self._continued: dict[str, Any] | None = None
        """the state of the savepoint that this run continues,"""
        self._found: dict[int, int] = {}
        """how many frames the earlier files have, by generation,"""
        self._savepoints = 0
        """and the savepoints of this run."""

    def open(self, run: RunInfo) -> None:
        """Create the folder. Copy what an interrupted run has encoded, if it is continued. Raises `SinkError`."""
        make_folder(self._path.parent, self.text)
        self._source = run.source
        if self._continued is not None:
            self._copy(run.source, self._continued)

    def write(self, result: Result) -> None:
        """Encode one frame and copy the sound that precedes it. Raises `SinkError`."""
        if self._source is None:
            raise SinkError(f"{self.text} is not open")
        image = result.frame.image if result.drawn is None else result.drawn
        if self._file is not None and not self._file.can_hold(result.frame.pts_s):
            raise SinkError(f"cannot write {self.text}: a pause of hours does not fit into this container; use .mkv")
        with self._failing():
            if self._file is None:
                height, width = image.shape[:2]
                self._file = self._created(self._source, (width, height), result.frame.pixel_aspect)
            self._file.add(image, result.frame.pixel_aspect, result.frame.pts_s)
        self._frames += 1

    def savepoint(self) -> dict[str, Any]:
        """Encode what follows afresh. See `Sink`."""
        if self._file is None:
            return {}
        with self._failing():
            self._file.begin_afresh()
            synced = sync(self._path)
        self._savepoints += 1
        if self._savepoints > SAVEPOINTS_KEPT:
            self.discard_kept()
        state = {"frames": self._frames, "generation": self._generation, "synced_bytes": synced}
        return state | self._file.state()

    def holds(self, state: dict[str, Any]) -> bool:
        """See `Sink`. Ask for the latest savepoint first: everything was synced then."""
        if not state:
            return False
        generation = state["generation"]
        if generation not in self._found:
            self._found[generation] = frames_in(self._place(generation), state["synced_bytes"])
        self._generation = max(self._generation, generation + 1)
        return self._found[generation] >= int(state["frames"])

    def resume(self, state: dict[str, Any]) -> None:
        """See `Sink`. The earlier file is put aside, and its frames are copied when the sink is opened."""
        kept = self._kept(state["generation"])
        try:
            if not kept.exists():
                self._path.replace(kept)
        except OSError as error:
            raise failed(self.text, error) from error
        self._continued = state
        self._frames = state["frames"]

    def close(self) -> None:
        """Write the frames left in the encoder, the remaining sound and the index. Raises `SinkError`."""
        file, self._file = self._file, None
        if file is None:
            return
        try:
            try:
                if not self._failed:
                    file.finish()
            finally:
                file.close()
        except _FAILURES as error:
            if not self._failed:  # otherwise `write` has already raised the cause
                self._failed = True
                raise _failed(self.text, error) from error
        finally:
            self._size_bytes = settle(self._path)

    def _created(self, source: SourceInfo, size: tuple[int, int], pixel_aspect: Fraction) -> _VideoFile:
        if self._continued is None:
            self.discard_kept()
        os.close(create(self._path, overwrite=self._overwrite))
        try:
            return _VideoFile(self._path, size, pixel_aspect, source, self._speed)
        except _FAILURES:
            settle(self._path)
            raise

    def _copy(self, source: SourceInfo, state: dict[str, Any]) -> None:
        """Begin the file with the frames of an earlier one."""
        with self._failing():
            self._file = self._created(source, tuple(state["size"]), Fraction(*state["pixel_aspect"]))
            for _ in self._file.copy(self._kept(state["generation"]), state):
                self.resumed_at_s = time.monotonic()  # reading hours of video takes a while

    def _place(self, generation: int) -> Path:
        """Return where the file of an earlier run is."""
        kept = self._kept(generation)
        return kept if kept.exists() else self._path

    def _kept(self, generation: int) -> Path:
        return self._path.with_name(f"{self._path.name}{KEPT}{generation}")

    def discard_kept(self) -> None:
        """Remove the files of earlier runs that were put aside."""
        with suppress(OSError):
            for left in self._path.parent.glob(f"{glob.escape(self._path.name)}{KEPT}*"):
                left.unlink()

    @contextmanager
    def _failing(self) -> Iterator[None]:
        try:
            yield
        except _FAILURES as error:
            self._failed = True
            raise _failed(self.text, error) from error

    def summary(self) -> str | None:
        """Return name, number of frames and size; None before the first frame."""
        if not self._frames:
            return None
        return frames_and_size(self.text, self._frames, self._size_bytes, broken_off=self._failed)


def _failed(name: str, error: Exception) -> SinkError:
    return failed(name, error) if isinstance(error, OSError) else SinkError(f"cannot write {name}: {describe(error)}")


class _VideoFile:
    """An open container with its encoder and its sound. Raises PyAV's own errors, which `_FAILURES` lists."""

    def __init__(
        self,
        path: Path,
        size: tuple[int, int],
        pixel_aspect: Fraction,
        source: SourceInfo,
        speed: Fraction = Fraction(1),
    ) -> None:
        """Create the file. `size` is the width and height of the first frame in pixels."""
        self._size, self._pixel_aspect = size, pixel_aspect
        self._canvas = Canvas(*size, pixel_aspect, source.colours)
        self._begins_s = source.begins_s
        self._ticks = source.time_base
        self._time_base = source.time_base / speed
        """Seconds per tick in the source and in the file. Frames have the same ticks in both."""
        fps = source.fps and source.fps * float(speed)
        self._frame_s = 1 / fps if fps else 0.0
        # Without a frame rate, a keyframe interval in frames does not correspond to a time.
        self._keyframes_by_time = not fps
        self._keyframe_s = float("-inf")
        self._since_keyframe = 0
        self._first_pts = 0
        self._last_pts: int | None = None
        self._end_s = 0.0
        format_name = VIDEO_FORMATS[path.suffix.lower()]
        # The prefix stops FFmpeg from treating a name with a colon as a protocol.
        self._has_max_step = format_name != "matroska"
        self._container = av.open(
            f"file:{path}", "w", format=format_name, options=_options(format_name, self._time_base)
        )
        self._encoder = self._add_encoder(fps)
        self._sound = _sound_of(source, self._container, name_of(path), speed)
        self._container.start_encoding()

    def can_hold(self, pts_s: float) -> bool:
        """Return whether a frame at `pts_s` can follow the latest one."""
        step = 0 if self._last_pts is None else self._tick(pts_s) - self._last_pts
        return step <= _MAX_STEP or not self._has_max_step

    def add(self, image: Image, pixel_aspect: Fraction, pts_s: float) -> None:
        """Encode `image` at the source's time `pts_s`, after copying the sound that precedes it."""
        pts = self._tick(pts_s)
        if self._sound is not None:
            self._sound.copy_until(float(pts * self._time_base))
        if self._last_pts is not None:
            pts = max(pts, self._last_pts + 1)  # the muxer accepts only increasing times
        else:
            self._first_pts = pts
        self._reach(pts)
        frame = self._canvas.frame(image, pixel_aspect)
        frame.pts = pts
        frame.time_base = self._time_base
        if self._keyframes_by_time and self._is_keyframe_due(float(pts * self._time_base)):
            frame.pict_type = PictureType.I
        self._container.mux(self._encoder.encode(frame))

    def begin_afresh(self) -> None:
        """Write the buffered frames. What follows does not depend on them."""
        self._container.mux(self._encoder.begin_afresh())
        self._keyframe_s, self._since_keyframe = float("-inf"), 0

    def state(self) -> dict[str, Any]:
        """Return what `copy` needs, as JSON values."""
        aspect = self._pixel_aspect
        return {
            "size": self._size,
            "pixel_aspect": [aspect.numerator, aspect.denominator],
            "first_pts": self._first_pts,
            "last_pts": self._last_pts,
            "first_dts": self._encoder.first_dts,
        }

    def copy(self, path: Path, state: dict[str, Any]) -> Iterator[None]:
        """Copy the frames of an earlier file up to a savepoint, and the sound that precedes them. Yield after each."""
        first_s = state["first_pts"] * self._time_base
        self._encoder.first_dts = list(state["first_dts"])
        for packet, time_s in packets_from(path, first_s, state["frames"]):
            if self._sound is not None:
                self._sound.copy_until(float(time_s))
            self._container.mux(self._encoder.copied(packet))
            yield
        self.begin_afresh()
        self._first_pts = state["first_pts"]
        self._reach(state["last_pts"])

    def _reach(self, pts: int) -> None:
        self._last_pts = pts
        self._end_s = float(pts * self._time_base) + self._frame_s

    def _tick(self, pts_s: float) -> int:
        """Return the time in the file of a time in the source."""
        return round((pts_s - self._begins_s) / self._ticks)

    def _is_keyframe_due(self, time_s: float) -> bool:
        self._since_keyframe += 1
        if time_s - self._keyframe_s < FRAGMENT_S or 0 < self._since_keyframe < MIN_FRAGMENT_FRAMES:
            return False
        self._keyframe_s, self._since_keyframe = time_s, 0
        return True

    def finish(self) -> None:
        """Write the buffered frames and the remaining sound."""
        self._container.mux(self._encoder.finish())
        if self._sound is not None:
            self._sound.finish(self._end_s)

    def close(self) -> None:
        """Write the index and close the files."""
        try:
            self._container.close()
        finally:
            if self._sound is not None:
                self._sound.close()

    def _add_encoder(self, fps: float | None) -> Encoder:
        rate = frame_rate(fps)  # for the rate control and the keyframes
        keyframe_every = min(max(MIN_FRAGMENT_FRAMES, round(FRAGMENT_S * rate)), MAX_FRAGMENT_FRAMES)
        return Encoder(
            self._container, self._canvas, time_base=self._time_base, rate=rate, keyframe_every=keyframe_every
        )


def _sound_of(source: SourceInfo, output: OutputContainer, name: str, speed: Fraction) -> Sound | None:
    """Return the object that copies a recording's sound into `output`; None, with a warning, if it cannot be copied."""
    if speed != 1:
        if source.has_sound:
            log.warning("%s: omitting the sound, because `speed` is not 1", name)
        return None
    if source.path is None:
        if source.has_sound:
            log.warning("%s: omitting the sound of %s: only the sound of files is copied", name, source.text)
        return None
    try:
        begins_s = Fraction(source.begins_s).limit_denominator(source.time_base.denominator)
        return Sound(source.path, output, name, begins_s=begins_s, end_s=source.part.end_s)
    except av.FFmpegError as error:  # a sound failure must never stop the video
        log.warning("%s: omitting the sound: %s", name, describe(error))
        return None


def _options(format_name: str, time_base: Fraction) -> dict[str, str]:
    flush = {"flush_packets": "1"}  # or FFmpeg's 32 kB buffer could hold half a minute of static video
    if format_name == "matroska":
        return flush | {
            "cluster_time_limit": str(FRAGMENT_S * 1000),
            # Otherwise sound that starts slightly before zero, such as AAC priming, shifts every frame.
            "avoid_negative_ts": "disabled",
        }
    return flush | {
        # `delay_moov`: without it FFmpeg moves the start to zero. `frag_keyframe`: with other fragment boundaries the
        # index may end before the last frame, because FFmpeg 8 takes the end from the last fragment, which may contain
        # only B-frames.
        "movflags": "hybrid_fragmented+delay_moov+frag_keyframe",
        # The start offset is stored in these ticks, 1/1000 s by default. Only a few ticks per second would be too
        # coarse for sound.
        "movie_timescale": str(time_base.denominator * -(-10_000 // time_base.denominator)),
    }
