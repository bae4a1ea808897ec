"""A recording of a batch while it is processed, perhaps in pieces, with the files for what is found in them."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from streampose.archive.orders import Finish, PieceOf, Task
from streampose.archive.pieces import Piece
from streampose.archive.report import Running
from streampose.archive.tasks import Job


class InProgress:
    """A recording that is being processed."""

    def __init__(self, job: Job, folder: Path) -> None:
        """Begin with the whole recording. `folder` is where the raw people of its pieces are kept."""
        self.job = job
        self.is_whole = False
        """Whether it must be processed as a whole."""
        self.seconds = 0.0
        """Spent on its pieces."""
        self._folder = folder
        self._pieces: tuple[Piece, ...] = ()
        self._missing: set[int] = set()
        """The numbers of the pieces that are not there yet."""

    def split(self, pieces: Sequence[Piece]) -> list[Task]:
        """Return the next tasks for a recording with these pieces. Those of an earlier start are used."""
        self._pieces = tuple(pieces)
        self._missing = {piece.number for piece in pieces if not self._path(piece).is_file()}
        if not self._missing:
            return [self._finish()]
        return [PieceOf(self.job, piece, self._path(piece)) for piece in pieces if piece.number in self._missing]

    def told(self) -> str:
        """Return how many pieces are there, for a message; nothing if none is."""
        there = len(self._pieces) - len(self._missing)
        return f", of which an earlier start has processed {there}" if there else ""

    def take(self, piece: Piece, seconds: float) -> list[Task]:
        """Take a piece that is done. Return the next tasks."""
        self.seconds += seconds
        self._missing.discard(piece.number)
        return [] if self._missing else [self._finish()]

    def do_whole(self) -> None:
        """Process it as a whole: forget the pieces."""
        self.drop()
        self.is_whole = True
        self._pieces, self._missing = (), set()

    def drop(self) -> None:
        """Remove the raw people."""
        if self._pieces:
            shutil.rmtree(self._folder, ignore_errors=True)

    def running(self) -> Running:
        """Return how far it is, by its pieces."""
        there = sum(piece.frames for piece in self._pieces if piece.number not in self._missing)
        return Running(self.job.name, there, sum(piece.frames for piece in self._pieces) or None, 0.0, 0)

    def _finish(self) -> Task:
        return Finish(self.job, tuple(map(self._path, self._pieces)))

    def _path(self, piece: Piece) -> Path:
        return self._folder / f"{piece.number:06}.npz"
