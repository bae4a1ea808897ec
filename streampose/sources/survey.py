"""Which frames a video file has, and where they can be reached, from its packets. Only the beginning is decoded."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from typing import Any

import cv2  # noqa: F401 - import before av, or windows hang: see sinks/display.py

# isort: split
import av
from av.packet import Packet

from streampose.sources.decode import Decoding, Lost, late_start_s, open_recording, packets_of, video_stream
from streampose.sources.skip import FIRST_PACKETS, Landmark, UnreliableError, first_tick, is_of_frame
from streampose.sources.source import Reading


@dataclass(frozen=True, slots=True)
class Survey:
    """The frames and keyframes of a video file."""

    times: list[int]
    """Times of all frames in their order, in ticks of the stream."""
    keyframes: list[Landmark]
    """All keyframes in the order of the file."""
    tick_s: Fraction
    """Seconds per tick."""
    late: int
    """The time in ticks that counts as 0; see `late_start_s`."""

    def at_s(self, time: int) -> float:
        """Return what `Frame.pts_s` is for a frame at `time`."""
        return (time - self.late) * self.tick_s.numerator / self.tick_s.denominator


def survey_of(path: str, reading: Reading) -> Survey:
    """Read all packets of the file at `path`.

    Raises:
        UnreliableError: the packets do not tell which frames come out of them, or the file cannot be read.
    """
    try:
        begins = _begins(path, reading)
        with open_recording(path) as container:
            stream = video_stream(container, reading)
            tick_s = stream.time_base or Fraction(1, av.time_base)
            packets = (one for one in packets_of(container, stream) if is_of_frame(one, stream.index))
            times, keyframes = _frames(packets, begins)
            return Survey(times, keyframes, tick_s, round(late_start_s(container) / tick_s))
    except (av.FFmpegError, Lost) as error:
        raise UnreliableError from error


def _begins(path: str, reading: Reading) -> int:
    """Return the time of the first frame, in ticks."""
    with open_recording(path) as container:
        stream = video_stream(container, reading)
        given: list[Packet[Any]] = []
        for packet in packets_of(container, stream):
            if is_of_frame(packet, stream.index):
                given.append(packet)
            if len(given) == FIRST_PACKETS:
                break
        return first_tick(given, list(Decoding(container, stream, given, "NONE").frames()))


def _frames(packets: Iterator[Packet[Any]], begins: int) -> tuple[list[int], list[Landmark]]:
    """Return the times of the frames, sorted, and the keyframes."""
    times: list[int] = []
    keyframes: list[Landmark] = []
    last: int | None = None
    """The latest time before the latest keyframe. All frames from there on must be later."""
    highest: int | None = None
    count = 0
    for packet in packets:
        time = packet.pts
        if time is None or packet.is_corrupt:
            raise UnreliableError
        if packet.is_keyframe:
            last = highest
            keyframes.append(Landmark(time, count, begins))
        if last is not None and time <= last:
            raise UnreliableError
        highest = time if highest is None else max(highest, time)
        if time >= begins:
            times.append(time)
            count += 1
    times.sort()
    if any(before == after for before, after in pairwise(times)):
        raise UnreliableError
    return times, keyframes
