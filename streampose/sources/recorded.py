"""Recordings: video files whose every frame is read, with its own time.

Knows nothing about what happens to a frame later. Opening a recording decodes its first frame, so an unreadable file
is reported before a network is loaded.
"""

from __future__ import annotations

import contextlib
import time
from abc import abstractmethod
from collections.abc import Generator, Iterator
from dataclasses import replace
from fractions import Fraction
from itertools import chain
from math import ceil
from pathlib import Path
from typing import Any, NamedTuple

import cv2  # noqa: F401 - import before av, or windows hang: see sinks/display.py

# isort: split
import av
from av.container import InputContainer
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from streampose.errors import SourceError
from streampose.frames import Captured, Frame, Image, Part, Shrink, SourceInfo
from streampose.picker import TOLERANCE_S, Picker, Place, nothing_in, picked_count, starts_behind
from streampose.sources.convert import NO_CROP, Crop, FrameConverter, colours_of, ffmpeg_reason
from streampose.sources.decode import (
    RESTART_S,
    Decoding,
    Fault,
    Lost,
    late_start_s,
    open_recording,
    packets_of,
    video_stream,
)
from streampose.sources.matroska import crops_of
from streampose.sources.skip import (
    FIRST_PACKETS,
    Landmark,
    Skipping,
    UnreliableError,
    first_tick,
    from_landmark,
    is_of_frame,
)
from streampose.sources.source import Reading, Source

STILLS_PER_S = 25
"""Rate in frames per second for stills, which carry no time. FFmpeg uses the same rate for a folder of stills."""
_NOTICED_WITHIN_S = 1.0
"""Decoding in threads notices damage some frames late."""
_DECLARES_DURATION = frozenset(["mov", "matroska", "avi", "flv"])
"""Containers whose header declares the duration. For other containers FFmpeg estimates it from the data present."""


class Shot(NamedTuple):
    """One frame of a recording. Its capture time is assigned when it is requested."""

    number: int
    pts_s: float
    image: Image
    file: str | None = None
    pixel_aspect: Fraction = Fraction(1)
    shrink: Shrink | None = None


class Recorded(Source):
    """A source that is read once, from its first frame to its last."""

    def __init__(self) -> None:
        super().__init__()
        self._reader = self._read()
        self._shots: Iterator[Shot] = chain([next(self._reader)], self._reader)

    @abstractmethod
    def _read(self) -> Generator[Shot]:
        """Yield the shots, and own every resource that needs closing.

        Set `info` before the first shot. Raise `SourceError` if there is no shot.
        """

    def captures(self) -> Iterator[Captured]:
        for shot in self._shots:
            frame = Frame(
                self.info.source_id, shot.number, shot.pts_s, time.monotonic(), shot.image, shot.file, shot.pixel_aspect
            )
            yield Captured(frame, shot.shrink)

    def resume_after(self, place: Place) -> None:
        """Continue behind a frame that an earlier run has read. `info` stays that of the whole recording.

        Reading then raises `SourceError` if the frame is not there any more.
        """
        self._reader.close()
        self._reader = self._read_after(place)
        self._shots = self._reader

    def _read_after(self, place: Place) -> Generator[Shot]:
        """Yield the shots behind a frame."""
        for shot in self._read():
            if shot.number > place.index:
                yield shot

    def close(self) -> None:
        self._reader.close()
        self._shots = iter(())


class VideoFile(Recorded):
    """A video file read through FFmpeg: original times, upright images, every frame that decodes without an error."""

    def __init__(self, path: Path | None, text: str, source_id: str, reading: Reading) -> None:
        """Open `path`. A subclass that reads another input passes None and overrides how it is opened and read."""
        self._reading = reading
        self._path = path
        self._text = text
        self._source_id = source_id
        super().__init__()

    def _read(self) -> Generator[Shot]:
        return self._read_part(self._reading.part, None)

    def _read_after(self, place: Place) -> Generator[Shot]:
        # From that frame on, so that every Nth is counted from it.
        return self._read_part(self._reading.part._replace(start_s=place.pts_s), place)

    def _read_part(self, part: Part, behind: Place | None) -> Generator[Shot]:
        """Yield the frames of a part, or those behind its first one, which is at `behind`."""
        if part.start_s > 0 and self._path is not None:
            for landmark in [self._reading.landmark, None] if self._reading.landmark else [None]:
                try:
                    begins = landmark.begins if landmark else self._first_tick()
                    yield from self._read_from(begins, part, behind, landmark)
                except UnreliableError:  # raised before the first frame
                    continue
                return
        yield from self._read_from(None, part, behind)

    def _read_from(
        self, begins: int | None, part: Part, behind: Place | None, landmark: Landmark | None = None
    ) -> Generator[Shot]:
        """Yield the frames of a part, see `_read_part`.

        Args:
            begins: time of the first frame of the recording, in ticks, to skip what precedes the part; None decodes it.
            landmark: where in the file to begin; None begins at its beginning.

        Raises:
            UnreliableError: nothing can be skipped. No frame was yielded.
        """
        picker = Picker(part)
        pts_s: float | None = None
        last_s: float | None = None
        skipping: Skipping | None = None
        with self._opened() as (container, stream):
            converter = FrameConverter(self._text, self._reading.max_pixels, self._crop(container, stream))
            packets = self._packets(container)
            time_base, rate = _ticks_and_rate(stream)
            clock = _Clock(time_base, rate)
            declared_end_s = _declared_end_s(container)
            late = round(late_start_s(container) / time_base)
            if begins is not None:
                start = ceil(Fraction(part.start_s - TOLERANCE_S) / time_base) + late
                before = 0
                if landmark is not None:
                    before = landmark.before
                    with contextlib.suppress(av.FFmpegError):  # the packets tell whether it succeeded
                        container.seek(landmark.time, stream=stream)
                    packets = from_landmark(packets, stream.index, landmark)
                skipping = Skipping(packets, stream.index, begins=begins, start=start, before=before)
            decoding = Decoding(container, stream, packets if skipping is None else skipping, "AUTO")
            first, frames = (0, decoding.frames()) if skipping is None else skipping.landed(decoding.frames())
            for index, frame in enumerate(chain(frames, self._tail(decoding)), start=first):
                ticks = clock.tick(None if frame.pts is None else frame.pts - late)
                pts_s = ticks * time_base.numerator / time_base.denominator
                if picker.is_over(pts_s):
                    break
                if last_s is None and decoding.fault and decoding.fault.at_s < pts_s - _NOTICED_WITHIN_S:
                    decoding.fault = None  # damage before the part does not matter
                if not picker.takes(pts_s):
                    continue
                if behind is not None and last_s is None:
                    if index != behind.index or abs(pts_s - behind.pts_s) > TOLERANCE_S:
                        if skipping is not None:
                            raise UnreliableError
                        raise SourceError(f"{self._text} has changed: frame {behind.index} is not where it was")
                    last_s = pts_s
                    continue
                shot = Shot(
                    index,
                    pts_s,
                    converter.to_bgr(frame),
                    pixel_aspect=converter.pixel_aspect(stream.sample_aspect_ratio),
                    shrink=converter.shrinking(frame),
                )
                if last_s is None:
                    self.info = replace(self._describe(container, stream, shot), colours=colours_of(frame))
                last_s = pts_s
                yield shot
            else:
                if pts_s is None and skipping is not None and skipping.last is not None:
                    raise starts_behind(part, self._text, float((skipping.last - late) * time_base))
                self._check_whole(decoding, pts_s, declared_end_s)
                if last_s is None:
                    raise starts_behind(part, self._text, pts_s or 0.0)
                return
        if last_s is None:
            raise nothing_in(part, self._text, pts_s)
        # Damage behind the part does not matter.
        if decoding.fault and decoding.fault.at_s - late * time_base < last_s:
            raise self._damaged(decoding.fault)

    def _first_tick(self) -> int:
        """Return the time of the first frame in ticks. Raises `UnreliableError` if nothing can be skipped."""
        with self._opened() as (container, stream):
            given: list[Packet[Any]] = []

            def first_packets() -> Iterator[Packet[Any]]:
                for packet in self._packets(container):
                    if is_of_frame(packet, stream.index):
                        given.append(packet)
                    yield packet
                    if len(given) == FIRST_PACKETS:
                        return

            return first_tick(given, list(Decoding(container, stream, first_packets(), "NONE").frames()))

    def _check_whole(self, decoding: Decoding, pts_s: float | None, declared_end_s: float | None) -> None:
        """Raise `SourceError` if the recording, which was read to its end, is damaged or cut off.

        `pts_s` is the time of its last frame.
        """
        fault = decoding.fault
        if fault and isinstance(fault.cause, Lost):
            what = f"was cut off after {decoding.reached_s:.1f} s: {fault.reason}"
            raise SourceError(f"{self._text} {what}") from fault.cause
        if pts_s is None:
            reason = fault.reason if fault else "the file ends before its first frame"
            what = f"has no frame that can be decoded ({reason})"
            raise SourceError(f"{self._text} {what}") from fault and fault.cause
        if declared_end_s is not None and decoding.reached_s < declared_end_s - max(1.0, 0.01 * declared_end_s):
            what = f"ends at {decoding.reached_s:.1f} s of {declared_end_s:.1f} s: the file is cut off"
            error = SourceError(f"{self._text} {what}")
            error.is_at_end = fault is None
            raise error from fault and fault.cause
        if fault:
            raise self._damaged(fault)

    def _damaged(self, fault: Fault) -> SourceError:
        what = f"is damaged near {fault.at_s:.1f} s ({fault.reason}); all frames that can be decoded were read"
        error = SourceError(f"{self._text} {what}")
        error.__cause__ = fault.cause
        error.is_at_end = True
        return error

    def _crop(self, container: InputContainer, stream: VideoStream) -> Crop:
        if self._path is None or "matroska" not in container.format.name:
            return NO_CROP
        crops = crops_of(self._path)
        number = container.streams.video.index(stream)
        return crops[number] if number < len(crops) else NO_CROP

    def _open(self) -> InputContainer:
        return open_recording(str(self._path))

    def _packets(self, container: InputContainer) -> Iterator[Packet[Any]]:
        return packets_of(container)

    @contextlib.contextmanager
    def _opened(self) -> Iterator[tuple[InputContainer, VideoStream]]:
        try:
            container = self._open()
        except av.ArgumentError as error:
            reason = "not a supported video format (playlists and scripts that name other files are refused)"
            raise SourceError(f"{self._text} is {reason}") from error
        except (av.InvalidDataError, av.EOFError) as error:
            raise SourceError(f"{self._text} is not a video, or its beginning or index is missing") from error
        except av.FFmpegError as error:
            raise SourceError(f"{self._text} cannot be opened: {ffmpeg_reason(error)}") from error
        with container:
            try:
                stream = video_stream(container, self._reading)
            except Lost as lost:
                raise SourceError(f"{self._text}: {lost}") from lost
            yield container, stream

    def _tail(self, decoding: Decoding) -> Iterator[VideoFrame]:
        """If frames are missing at the end of `decoding`, decode the part after its last frame again on one thread.

        Frame threading holds the last frames back until the decoder is flushed. PyAV's flush (18.1) stops silently at
        the first frame that cannot be decoded, so the intact frames after it would be lost. In some codecs a packet may
        produce no frame. Such packets cause an unneeded second pass, but no frame is yielded twice.
        """
        after = decoding.last_pts
        if self._path is None:
            return
        # Without frame times it is unknown which frames are missing.
        if decoding.outstanding <= 0 or (decoding.good and after is None):
            return
        with self._opened() as (container, stream):
            if after is not None:
                # If the seek fails, the pass only takes longer.
                with contextlib.suppress(av.FFmpegError):
                    container.seek(after, stream=stream)
            again = Decoding(container, stream, self._packets(container), "NONE")
            for frame in again.frames():
                if after is None or (frame.pts is not None and frame.pts > after):
                    yield frame
            decoding.fault = decoding.fault or again.fault

    def _describe(self, container: InputContainer, stream: VideoStream, first: Shot) -> SourceInfo:
        height, width = first.image.shape[:2]
        part = self._reading.part
        time_base, rate = _ticks_and_rate(stream)
        length = container.duration or 0
        if "matroska" in container.format.name:
            length -= max(0, container.start_time or 0)  # Matroska's duration counts from 0
        count = stream.frames or (round(length * rate / av.time_base) if length > 0 and rate else None)
        if count is not None:
            count = max(1, count - first.number)
        return SourceInfo(
            source_id=self._source_id,
            text=self._text,
            width=width,
            height=height,
            fps=float(rate) / part.every if rate else None,
            time_base=time_base,
            frame_count=picked_count(part, count, first.pts_s, rate),
            is_live=False,
            path=None if self._path is None else str(self._path),
            has_sound=len(container.streams.audio) > 0,
            part=part,
            begins_s=first.pts_s if part.start_s > 0 else 0.0,
        )


def _ticks_and_rate(stream: VideoStream) -> tuple[Fraction, Fraction | None]:
    """Return seconds per tick, and the nominal frames per second."""
    return stream.time_base or Fraction(1, av.time_base), stream.average_rate or stream.guessed_rate


class _Clock:
    """Makes a file's times strictly increasing, in whole ticks. Times that already increase stay unchanged."""

    def __init__(self, time_base: Fraction, rate: Fraction | None) -> None:
        self._step = max(1, round(1 / (rate or STILLS_PER_S) / time_base))
        # A few frames can be out of order at a low rate.
        self._jump = max(1, round(RESTART_S / time_base), 4 * self._step)
        self._offset = 0
        self._last: int | None = None

    def tick(self, pts: int | None) -> int:
        """Return the corrected time of the next frame; `pts` is its time in the file."""
        if self._last is None:
            self._last = pts or 0
        elif pts is None:
            self._last += self._step
        elif pts > self._last:
            self._offset = 0
            self._last = pts
        elif self._last - (pts + self._offset) > self._jump:
            # The file's clock restarted, as in joined recordings. Continue from the last time.
            self._offset = self._last + self._step - pts
            self._last += self._step
        else:
            # A time is repeated or out of order. Shift it by the smallest amount that keeps the order.
            self._last = max(self._last + 1, pts + self._offset)
        return self._last


def _declared_end_s(container: InputContainer) -> float | None:
    """Return the earliest time at which a complete file can end; None if its header declares no duration."""
    if container.duration is None or _DECLARES_DURATION.isdisjoint(container.format.name.split(",")):
        return None
    # Matroska's duration counts from 0, the others' from the first frame. Use the earlier end to be safe.
    return container.duration / av.time_base
