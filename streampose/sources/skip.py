"""Skips what precedes a part of a recording: its packets are read, and all but a few are not decoded.

The index of a container is not used, because it may be wrong or missing, and because the number of a frame is known
only if the packets before it are counted. Reading packets takes about 1 % of the time that decoding them takes. If they
were counted before, reading begins at a `Landmark`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any, NamedTuple

# isort: split
from av.packet import Packet
from av.video.frame import VideoFrame

FIRST_PACKETS = 32
"""How many packets are decoded to find out whether each gives a frame."""
_MAX_HELD_BYTES = 128_000_000
"""Maximum compressed video to hold. A larger group of pictures is decoded completely."""


class UnreliableError(Exception):
    """The packets do not tell which frames come out of them, so everything must be decoded."""


class Landmark(NamedTuple):
    """A keyframe of a recording, with what is known of the packets before it."""

    time: int
    """Its time in ticks of the stream."""
    before: int
    """How many frames the packets before it give."""
    begins: int
    """Time of the first frame of the recording, in ticks."""


def is_of_frame(packet: Packet[Any], stream_index: int) -> bool:
    """Return whether a packet is expected to give a frame of the stream."""
    return packet.stream_index == stream_index and bool(packet.size) and not packet.is_discard


def first_tick(packets: Iterable[Packet[Any]], frames: Iterable[VideoFrame]) -> int:
    """Return the time of the first frame, in ticks of the stream, after comparing frames with their packets.

    Args:
        packets: the first packets of the stream.
        frames: the frames that were decoded from them.

    Raises:
        UnreliableError: from the first frame on, not each packet gives one frame with the packet's time.
    """
    times = [frame.pts for frame in frames if frame.pts is not None]
    expected = sorted(packet.pts for packet in packets if packet.pts is not None)
    if not times or times != [tick for tick in expected if tick >= times[0]]:
        raise UnreliableError
    return times[0]


class Skipping:
    """The packets of a recording, without those that only earlier frames need.

    A frame needs the packets from a keyframe on. They are held until the wanted frame is among them.
    """

    def __init__(
        self, packets: Iterator[Packet[Any]], stream_index: int, *, begins: int, start: int, before: int = 0
    ) -> None:
        """Skip to a frame.

        Args:
            packets: the packets of the recording, in the order of the file.
            stream_index: the video stream.
            begins: time of the first frame of the recording that can be decoded, in ticks of the stream.
            start: the earliest time of the wanted frame, in ticks of the stream.
            before: how many frames precede the first of the packets, which then is a keyframe.
        """
        self._packets = packets
        self._stream = stream_index
        self._begins = begins
        self._start = start
        self._held: list[Packet[Any]] = []
        self._times: set[int] = set()
        """Times of the frames since the latest keyframe, in the order of decoding."""
        self._keyframe: int | None = None
        """Time of the keyframe that the packets begin with."""
        self._before = before
        """Number of frames before that keyframe."""
        self._highest: int | None = None
        """The latest time before it."""
        self._has_landed = False
        """Whether the wanted frame was decoded."""
        self.last: int | None = None
        """The latest time of a frame that was skipped, in ticks."""

    def __iter__(self) -> Iterator[Packet[Any]]:
        """Yield the packets to decode.

        Raises:
            UnreliableError: the times of the packets are not in order.
        """
        held_bytes = 0
        for packet in self._packets:
            if packet.stream_index != self._stream or not packet.size:
                continue
            self._held.append(packet)
            held_bytes += packet.size
            if is_of_frame(packet, self._stream):
                if packet.is_keyframe and packet.pts is not None and packet.pts <= self._start:
                    self._begin_at(packet, packet.pts)
                    held_bytes = packet.size
                if self._note(packet) >= self._start or held_bytes > _MAX_HELD_BYTES:
                    break
        else:
            return
        yield from self._held
        self._held = []
        for packet in self._packets:
            if not self._has_landed and is_of_frame(packet, self._stream) and packet.pts is not None:
                self._times.add(packet.pts)
            yield packet

    def landed(self, frames: Iterator[VideoFrame]) -> tuple[int, Iterator[VideoFrame]]:
        """Return the number of the first wanted frame in the whole recording, and the frames from it on.

        Args:
            frames: what was decoded from the packets.

        Raises:
            UnreliableError: the frames do not match the packets.
        """
        times: list[int] = []
        for frame in frames:
            if frame.pts is None or self._keyframe is None:
                raise UnreliableError
            if frame.pts < self._keyframe:
                continue  # it depends on packets before the keyframe
            if not times and not frame.key_frame:
                raise UnreliableError
            times.append(frame.pts)
            if frame.pts >= self._start:
                expected = sorted(tick for tick in self._times if tick >= self._keyframe)
                if times != expected[: len(times)]:
                    raise UnreliableError
                self._has_landed = True
                leading = sum(self._begins <= tick < self._keyframe for tick in self._times)
                return self._before + leading + len(times) - 1, chain([frame], frames)
        if self._keyframe is None or (self._times and max(self._times) >= self._start):
            raise UnreliableError
        return 0, iter(())

    def _begin_at(self, keyframe: Packet[Any], time: int) -> None:
        """Discard the packets before a keyframe."""
        if self._times:
            self._before += sum(tick >= self._begins for tick in self._times)
            self._highest = max(self._times)
        self._held = [keyframe]
        self._times = set()
        self._keyframe = time

    def _note(self, packet: Packet[Any]) -> int:
        """Record the time of the frame that this packet gives, and return it."""
        time = packet.pts
        is_behind = time is not None and (self._highest is None or time > self._highest)
        if time is None or not is_behind or time in self._times or packet.is_corrupt:
            raise UnreliableError
        self._times.add(time)
        self.last = time if self.last is None else max(self.last, time)
        return time


def from_landmark(packets: Iterator[Packet[Any]], stream_index: int, landmark: Landmark) -> Iterator[Packet[Any]]:
    """Yield the packets from the landmark on. Raises `UnreliableError` if it is not among the first packets."""
    for packet in packets:
        if is_of_frame(packet, stream_index) and packet.is_keyframe and packet.pts is not None:
            if packet.pts == landmark.time:
                yield packet
                yield from packets
                return
            if packet.pts > landmark.time:
                break
    raise UnreliableError
