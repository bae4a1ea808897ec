"""Reads the crop values of a Matroska file. FFmpeg reads them, but PyAV (18.1) does not expose them.

Element numbers follow RFC 9559; their encoding follows RFC 8794.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from streampose.sources.convert import Crop

_SEGMENT, _TRACKS, _CLUSTER, _TRACK, _VIDEO = 0x18538067, 0x1654AE6B, 0x1F43B675, 0xAE, 0xE0
_SEEK_HEAD, _SEEK, _SEEK_ID, _SEEK_POSITION = 0x114D9B74, 0x4DBB, 0x53AB, 0x53AC
_CROPS = (0x54BB, 0x54AA, 0x54CC, 0x54DD)
"""Top, bottom, left and right, in the order of `Crop`."""
_MAX_ELEMENTS = 10_000
"""Maximum elements read per level; a damaged file may claim any number."""


def crops_of(path: Path) -> list[Crop]:
    """Return the crop of each video track, in track order. Return an empty list if the file cannot be parsed."""
    crops = []
    try:
        with path.open("rb") as file:
            for start, end in _videos(file, path.stat().st_size):
                values = []
                for number in _CROPS:
                    found = list(_children(file, [number], start, end))
                    values.append(_unsigned(file, *found[0]) if found else 0)
                crops.append(Crop(*values))
    except (OSError, EOFError, ValueError):
        return []
    return crops


def _videos(file: BinaryIO, size: int) -> Iterator[tuple[int, int]]:
    """Yield the byte range of the settings of each video track."""
    for segment, end in _children(file, [_SEGMENT], 0, size):
        tracks = [segment]
        if not list(_children(file, [_TRACKS], segment, end)):
            # An editor has moved them behind the clusters, and has noted their place.
            tracks = [segment + place for place in _places_of_tracks(file, segment, end)]
        for start in tracks:
            yield from _children(file, [_TRACKS, _TRACK, _VIDEO], start, end)


def _places_of_tracks(file: BinaryIO, segment: int, end: int) -> Iterator[int]:
    """Yield where the tracks are by the index of the segment, counted from its start."""
    for entry in _children(file, [_SEEK_HEAD, _SEEK], segment, end):
        numbers = [_unsigned(file, *found) for found in _children(file, [_SEEK_ID], *entry)]
        if numbers == [_TRACKS]:
            yield from (_unsigned(file, *found) for found in _children(file, [_SEEK_POSITION], *entry))


def _children(file: BinaryIO, numbers: list[int], start: int, end: int) -> Iterator[tuple[int, int]]:
    """Yield the (start, end) byte range of each element on the path `numbers`, which has one element ID per level."""
    at = start
    for _ in range(_MAX_ELEMENTS):
        if at >= end:
            return
        file.seek(at)
        number = _variable(file, keeps_marker=True)
        size = _variable(file, keeps_marker=False)
        content = file.tell()
        if number == _CLUSTER:  # what is wanted precedes the first cluster
            return
        stop = min(content + size, end)
        if number == numbers[0]:
            if len(numbers) == 1:
                yield content, stop
            else:
                yield from _children(file, numbers[1:], content, stop)
        at = stop


def _variable(file: BinaryIO, *, keeps_marker: bool) -> int:
    """Read a variable-length integer. Its leading bits encode its length."""
    first = _bytes(file, 1)[0]
    length = 9 - first.bit_length()
    if length > 8:
        raise ValueError("invalid integer length")
    value = first if keeps_marker else first & (0xFF >> length)
    return int.from_bytes(bytes([value]) + _bytes(file, length - 1), "big")


def _unsigned(file: BinaryIO, start: int, end: int) -> int:
    file.seek(start)
    return int.from_bytes(_bytes(file, end - start), "big")


def _bytes(file: BinaryIO, count: int) -> bytes:
    data = file.read(count)
    if len(data) < count:
        raise EOFError
    return data
