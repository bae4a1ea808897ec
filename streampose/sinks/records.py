"""Writes the people of a run in the formats that recorded poses can be converted to."""

from __future__ import annotations

import time
from itertools import islice
from pathlib import Path
from typing import Any

from streampose.errors import SinkError
from streampose.frames import Result, RunInfo
from streampose.records.lines import frame_line, header, line_of, read_lines
from streampose.records.writer import Writer
from streampose.sinks.lines import LineFile
from streampose.sinks.sink import Sink
from streampose.sinks.target import create, failed, frames_and_size, make_folder, name_of


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
        self.path = path
        self.lines: Path | None = None
        """A poses file with the frames of the run, from which a later run can write the output anew."""
        self.writes_lines = False
        """Whether nobody else writes it."""
        self._line_file: LineFile | None = None
        self._earlier = 0
        """How many frames to take from it."""

    def open(self, run: RunInfo) -> None:
        """Create the folder. Write the frames of the run that is continued. Raises `SinkError`."""
        make_folder(self._path.parent, self.text)
        self._run = run
        if self._earlier:
            assert self.lines is not None
            first, lines = read_lines(self.lines)
            self._writer.begin(first)
            for line in islice(lines, self._earlier):
                self._writer.write(line)
                self.resumed_at_s = time.monotonic()
                self._frames += 1

    def write(self, result: Result) -> None:
        """Add one frame. Raises `SinkError`."""
        line = frame_line(result)
        if not self._frames:
            if self._run is None:
                raise SinkError(f"{self.text} is not open")
            self._writer.begin(header(self._run))
            if self.writes_lines and self.lines is not None:
                self._line_file = LineFile(create(self.lines, overwrite=True))
                self._keep(header(self._run))
        self._writer.write(line)
        self._keep(line)
        self._frames += 1

    def _keep(self, line: dict[str, Any]) -> None:
        try:
            if self._line_file is not None:
                self._line_file.append(line_of(line))
        except OSError as error:
            raise failed(name_of(self.lines or ""), error) from error

    def savepoint(self) -> dict[str, Any]:
        """See `Sink`. The poses file keeps the frames."""
        size_bytes = 0
        if self._line_file is not None:
            self._line_file.sync()
            size_bytes = self._line_file.size_bytes
        return {"frames": self._frames, "bytes": size_bytes}

    def holds(self, state: dict[str, Any]) -> bool:
        """See `Sink`."""
        try:
            return self.lines is not None and self.lines.stat().st_size >= state["bytes"]
        except OSError:
            return False

    def resume(self, state: dict[str, Any]) -> None:
        """See `Sink`. The output is written anew."""
        self._earlier = state["frames"]
        if self.writes_lines and self.lines is not None:
            try:
                self._line_file = LineFile.cut_at(self.lines, state["bytes"])
            except OSError as error:
                raise failed(name_of(self.lines), error) from error

    def close(self) -> None:
        """Complete the output. Raises `SinkError`."""
        if self._line_file is not None:
            self._line_file.close()
        self._writer.close()

    def summary(self) -> str | None:
        """Return name, number of frames and size; None if nothing was written."""
        if not self._frames or not self._path.exists():
            return None
        return frames_and_size(self._writer.shown(), self._frames, self._writer.size_bytes())
