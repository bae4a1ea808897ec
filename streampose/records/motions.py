"""The motions of people: collects the keypoints of each person over time, on disk. Knows no format."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
import numpy.typing as npt

Float64 = npt.NDArray[np.float64]

BLOCK_ROWS = 2000
"""Rows that are read at once."""
BUFFERED_ROWS = 4096
"""Rows of all people that are in memory before they go to disk."""
STEPS = 10_000
"""Intervals between frames from which the frame rate is computed."""
DEFAULT_RATE = 25.0
"""Frames per second of a recording with a single frame. Stills have this rate, too."""


class Block(NamedTuple):
    """N consecutive frames of a person."""

    frames: npt.NDArray[np.int64]
    """(N,) int64: numbers of the frames in the source."""
    times_s: Float64
    """(N,) float64: times of the frames in the source."""
    xy: Float64
    """(N, K, 2) float64 pixels, y downwards; NaN where the person or the keypoint is missing."""


class Motions:
    """Keypoints of people, in two temporary files. Memory grows with the number of people, not with that of frames."""

    def __init__(self, keypoint_count: int, folder: Path) -> None:
        """Create the files on the disk of `folder`. Raises `OSError`."""
        self._count = keypoint_count
        self._frames: IO[bytes] = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - closed by `close`
        self._rows: IO[bytes] = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - closed by `close`
        self._frame_count = 0
        self._buffered: dict[int, list[Float64]] = {}
        self._buffered_rows = 0
        self._chunks: dict[int, list[tuple[int, int]]] = {}
        self._presence: dict[int, int] = {}
        self._spans: dict[int, tuple[int, int]] = {}
        self._last_s: float | None = None
        self._steps: list[float] = []

    def add(self, frame: int, time_s: float, people: dict[int, Float64]) -> None:
        """Add a frame: its number, its time, and the keypoints (K, 2) of people by identity. Raises `OSError`."""
        self._frames.write(np.array([frame, time_s]).tobytes())
        for person, xy in people.items():
            self._buffered.setdefault(person, []).append(np.concatenate([[self._frame_count], xy.ravel()]))
            self._presence[person] = self._presence.get(person, 0) + 1
            self._spans[person] = self._spans.get(person, (self._frame_count, 0))[0], self._frame_count
            self._buffered_rows += 1
        if self._buffered_rows >= BUFFERED_ROWS:
            self._flush()
        if self._last_s is not None and len(self._steps) < STEPS:
            self._steps.append(time_s - self._last_s)
        self._last_s = time_s
        self._frame_count += 1

    def people(self) -> list[int]:
        """Return the identities, the person who is present in most frames first."""
        return sorted(self._presence, key=lambda person: (-self._presence[person], person))

    def rate(self) -> float:
        """Return the frames per second, rounded to 0.001: the mean without the intervals that are much longer or
        shorter than usual, such as those of dropped frames.
        """
        steps = np.array(self._steps)
        steps = steps[steps > 0]
        if not len(steps):
            return DEFAULT_RATE
        usual = np.median(steps)
        return round(float(1 / steps[(steps > 0.5 * usual) & (steps < 1.5 * usual)].mean()), 3)

    def blocks(self, person: int) -> Iterator[Block]:
        """Iterate over all frames from the first to the last one of a person. Raises `OSError`."""
        self._flush()
        next_row: int | None = None
        for offset, count in self._chunks.get(person, []):
            self._rows.seek(offset)
            width = 1 + 2 * self._count
            rows = np.frombuffer(self._rows.read(count * width * 8)).reshape(count, width)
            numbers = rows[:, 0].astype(np.int64)
            last = int(numbers[-1])
            for start in range(int(numbers[0]) if next_row is None else next_row, last + 1, BLOCK_ROWS):
                end = min(start + BLOCK_ROWS, last + 1)
                is_inside = (numbers >= start) & (numbers < end)
                xy = np.full((end - start, self._count, 2), np.nan)
                xy[numbers[is_inside] - start] = rows[is_inside, 1:].reshape(-1, self._count, 2)
                self._frames.seek(start * 16)
                frames = np.frombuffer(self._frames.read((end - start) * 16)).reshape(-1, 2)
                yield Block(frames[:, 0].astype(np.int64), frames[:, 1], xy)
            next_row = last + 1

    def length(self, person: int) -> int:
        """Return the number of frames from the first to the last one of a person."""
        first, last = self._spans[person]
        return last - first + 1

    def close(self) -> None:
        """Delete the files. Safe to call twice."""
        self._frames.close()
        self._rows.close()

    def _flush(self) -> None:
        """Move what is in memory to disk."""
        self._rows.seek(0, 2)
        for person, rows in self._buffered.items():
            self._chunks.setdefault(person, []).append((self._rows.tell(), len(rows)))
            self._rows.write(np.array(rows).tobytes())
        self._buffered, self._buffered_rows = {}, 0
