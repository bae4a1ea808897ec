"""Reads back the video that an interrupted run has encoded. Knows nothing about encoders."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

# isort: split
import av
from av.packet import Packet
from av.stream import Stream

from streampose.sources.decode import packets_of

KEPT = ".kept-"
"""Between the name of a video file and a number: an earlier, incomplete version, whose frames are copied."""
LENGTH_BYTES = 4
"""Bytes of a unit's length in the files that FFmpeg writes."""
START_CODE = b"\x00\x00\x00\x01"


def frames_in(path: Path, size_bytes: int) -> int:
    """Return how many frames the first `size_bytes` of a video file hold; 0 if it cannot be read."""
    count = 0
    try:
        for packet in _packets(path):
            if packet.pos is None or packet.pos + packet.size > size_bytes:
                break
            count += 1
    except (av.FFmpegError, OSError, IndexError):
        pass  # what was read so far counts
    return count


def packets_from(path: Path, first_s: Fraction, count: int) -> Iterator[tuple[Packet[Stream], Fraction]]:
    """Yield the first packets of a video file, without decoding times, and their times in seconds. They come in the
    order of decoding.

    Args:
        first_s: the time of the first one; all others are shifted with it.
        count: how many.

    Raises:
        av.FFmpegError, OSError, ValueError: the file cannot be read, or has fewer.
    """
    shift: int | None = None
    left = count
    for packet in _packets(path):
        assert packet.pts is not None
        assert packet.time_base is not None
        if shift is None:
            shift = round(first_s / packet.time_base) - packet.pts
        copied: Packet[Stream] = Packet(_with_start_codes(bytes(packet)))
        copied.pts, copied.time_base = packet.pts + shift, packet.time_base
        copied.is_keyframe = packet.is_keyframe
        yield copied, copied.pts * copied.time_base
        left -= 1
        if not left:
            return
    raise ValueError(f"{path} has {count - left} frames, not {count}")


def _with_start_codes(units: bytes) -> bytes:
    """Return H.264 units as an encoder gives them: files have their lengths in the place of start codes."""
    found, place = bytearray(units), 0
    while place < len(found):
        length = int.from_bytes(found[place : place + LENGTH_BYTES])
        found[place : place + LENGTH_BYTES] = START_CODE
        place += LENGTH_BYTES + length
    return bytes(found)


def _packets(path: Path) -> Iterator[Packet[Stream]]:
    with av.open(f"file:{path}") as container:
        for packet in packets_of(container, container.streams.video[0]):
            if packet.pts is not None and packet.size:
                yield packet
