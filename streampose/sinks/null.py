"""Discards every frame. Use it for measurements, and for runs whose results only the caller needs."""

from __future__ import annotations

from streampose.frames import Result, RunInfo
from streampose.sinks.sink import Sink


class NullSink(Sink):
    """Discards every frame; nothing is drawn for it."""

    needs_drawn = False
    leaves_nothing = True

    def __init__(self) -> None:
        super().__init__("null")

    def open(self, run: RunInfo) -> None:
        """Do nothing."""

    def write(self, result: Result) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""
