"""Recordings at a network address. They are finite, so every frame is read, as fast as the consumer takes it."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import cv2  # noqa: F401 - import before av, or windows hang: see sinks/display.py

# isort: split
from av.container import InputContainer
from av.packet import Packet
from av.video.stream import VideoStream

from streampose.errors import SourceError
from streampose.sources.connection import Connection
from streampose.sources.decode import Lost, video_stream
from streampose.sources.recorded import VideoFile
from streampose.sources.source import Reading


def is_finite(container: InputContainer) -> bool:
    """Return whether the input is finite: it declares a duration or, if it is not a playlist, a size in bytes."""
    return bool(container.duration) or (container.format.name != "hls" and container.size > 0)


class RemoteRecording(VideoFile):
    """A recording that is read once over a connection."""

    def __init__(self, connection: Connection, text: str, source_id: str, reading: Reading) -> None:
        """Take ownership of an open `connection`. Raises `SourceError` if it has no video."""
        self._connection = connection
        self._stop = threading.Event()
        super().__init__(None, text, source_id, reading)

    def interrupt(self) -> None:
        """Make `frames` end soon, whatever the network does."""
        self._stop.set()

    @contextlib.contextmanager
    def _opened(self) -> Iterator[tuple[InputContainer, VideoStream]]:
        try:
            container = self._connection.container(self._stop)
            if container is None:
                raise SourceError(f"{self._text}: interrupted")
            stream = video_stream(container, self._reading)
        except Lost as lost:
            raise SourceError(f"{self._text}: {lost}") from lost
        try:
            yield container, stream
        finally:
            self._connection.release()

    def _packets(self, container: InputContainer) -> Iterator[Packet[Any]]:  # noqa: ARG002 - the connection reads it
        return self._connection.packets(self._stop)
