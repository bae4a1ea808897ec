"""Reads the crop values of a Matroska file. FFmpeg reads them, but PyAV (18.1) does not expose them.

Element numbers follow RFC 9559; their encoding follows RFC 8794.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from streampose.sources.convert import Crop

_SEGMENT, _TRACKS, _CLUSTER, _TRACK, _VIDEO = 0x18538067, 0x1654AE6B, 0x1F43B675, 0xAE, 0xE0
_CROPS = (0x54BB, 0x54AA, 0x54CC, 0x54DD)
"""Top, bottom, left and right, in the order of `Crop`."""
_MAX_ELEMENTS = 10_000
"""Maximum elements read per level; a damaged file may claim any number."""


def crops_of(path: Path) -> list[Crop]:
    """Return the crop of each video track, in track order. Return an empty list if the file cannot be parsed."""
    crops = []
    try:
        with path.open("rb") as file:
            for track in _children(file, [_SEGMENT, _TRACKS, _TRACK], 0, path.stat().st_size):
                for start, end in _children(file, [_VIDEO], *track):
                    values = []
                    for number in _CROPS:
                        found = list(_children(file, [number], start, end))
                        values.append(_unsigned(file, *found[0]) if found else 0)
                    crops.append(Crop(*values))
    except (OSError, EOFError, ValueError):
        return []
    return crops


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
        if number == _CLUSTER:  # the tracks precede the first cluster
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
