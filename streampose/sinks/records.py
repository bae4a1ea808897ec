"""Writes the people of a run in the formats that recorded poses can be converted to."""

from __future__ import annotations

from pathlib import Path

from streampose.errors import SinkError
from streampose.frames import Result, RunInfo
from streampose.records.lines import frame_line, header
from streampose.records.writer import Writer
from streampose.sinks.sink import Sink
from streampose.sinks.target import frames_and_size, make_folder, name_of


class RecordsSink(Sink):
    """The output of a `Writer`, such as a CSV file. It is created with the first frame."""

    needs_drawn = False

    def __init__(
        self, path: Path, kind: type[Writer], *, overwrite: bool = False, source_path: str | None = None
    ) -> None:
        """Check `path`. Raises `UsageError` and `SinkError`."""
        super().__init__(name_of(path))
        kind.check(path, overwrite=overwrite, source_path=source_path)
        self._path = path
        self._writer = kind(path, overwrite=overwrite)
        self._run: RunInfo | None = None
        self._frames = 0

    def open(self, run: RunInfo) -> None:
        """Create the folder. Raises `SinkError`."""
        make_folder(self._path.parent, self.text)
        self._run = run

    def write(self, result: Result) -> None:
        """Add one frame. Raises `SinkError`."""
        if not self._frames:
            if self._run is None:
                raise SinkError(f"{self.text} is not open")
            self._writer.begin(header(self._run))
        self._writer.write(frame_line(result))
        self._frames += 1

    def close(self) -> None:
        """Complete the file. Raises `SinkError`."""
        self._writer.close()

    def summary(self) -> str | None:
        """Return name, number of frames and size; None if nothing was written."""
        if not self._frames or not self._path.exists():
            return None
        return frames_and_size(self._writer.shown(), self._frames, self._writer.size_bytes())
