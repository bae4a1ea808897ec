"""What travels between the program of a batch and its worker processes on other machines."""

from __future__ import annotations

import secrets
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

from streampose.archive.entry import Outcome
from streampose.archive.pieces import Piece
from streampose.archive.tasks import Job
from streampose.errors import SinkError, describe


@dataclass(frozen=True, slots=True)
class Order:
    """What a worker process is for. All paths are those of a file system that all machines share."""

    asked: SimpleNamespace
    """The checked options of the networks, of drawing and so on."""
    folder: str
    """The current folder of the program, which relative paths refer to."""
    out: str
    """The output folder."""
    probe: str
    """A file in the output folder,"""
    secret: str
    """and its content."""
    example: str
    """A recording,"""
    example_bytes: int
    """and its size."""
    version: str
    """Version of streampose."""
    speed: float
    files_at_once: int
    stall_after_s: float


@dataclass(frozen=True, slots=True)
class Whole:
    """Process a recording."""

    job: Job
    piece_frames: int | None
    """Answer with its pieces instead, of at least so many frames, if it has several; None processes it in any case."""


@dataclass(frozen=True, slots=True)
class PieceOf:
    """Find the raw people in a piece of a recording."""

    job: Job
    piece: Piece
    path: Path
    """The file for them."""


@dataclass(frozen=True, slots=True)
class Finish:
    """Process a recording with the raw people that were found in all of its pieces."""

    job: Job
    paths: tuple[Path, ...]


Task = Whole | PieceOf | Finish


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of a task."""

    outcome: Outcome | None = None
    """None if the recording is to be split, or to be processed as a whole."""
    pieces: tuple[Piece, ...] = ()
    """The pieces of a recording that is to be split."""
    mismatch: str | None = None
    """Why the recording must be processed as a whole."""
    networks_failed: bool = False
    is_full: bool = False
    """Whether no space is left for the outputs."""


class Probe:
    """A file in the output folder with which other machines show that they see it."""

    def __init__(self, out: Path) -> None:
        """Write the file. Raises `SinkError`."""
        self.path = out / f"batch.probe-{secrets.token_hex(4)}"
        self.secret = secrets.token_hex(16)
        try:
            self.path.write_text(self.secret, encoding="utf-8")
        except OSError as error:
            raise SinkError(f"cannot write {self.path}: {describe(error)}") from error

    def close(self) -> None:
        """Remove the file."""
        with suppress(OSError):
            self.path.unlink()
