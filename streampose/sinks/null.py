"""Takes every frame and keeps nothing: for measuring, and for runs whose results the caller wants alone."""

from __future__ import annotations

from streampose.frames import Result, RunInfo
from streampose.sinks.sink import Sink


class NullSink(Sink):
    """Nowhere; nothing is drawn for it."""

    needs_picture = False

    def __init__(self) -> None:
        super().__init__("null")

    def open(self, run: RunInfo) -> None:
        """Do nothing."""

    def write(self, result: Result) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""
