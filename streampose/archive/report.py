"""What a batch tells: values for a progress display, the summary at its end, and `batch.json`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from streampose._version import __version__
from streampose.archive.entry import Entry, State
from streampose.errors import SinkError
from streampose.sinks.target import failed, name_of

REPORT = "batch.json"


@dataclass(frozen=True, slots=True)
class Running:
    """How far a recording in progress is."""

    name: str
    frames: int
    total: int | None
    """Frames of the recording, by what its container declares."""
    fps: float
    """Frames per second, recently."""
    people: int
    """People in all frames together."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """How far a batch is. Counts are those of this start of the program."""

    files_total: int
    """Recordings to process."""
    files_done: int
    files_failed: int
    seconds: float
    """Since the beginning."""
    frames: int
    people: int
    """People in all frames together."""
    left_s: float | None
    """Estimated seconds until the end; None at the beginning."""
    running: tuple[Running, ...]
    """The recordings in progress."""


@dataclass(frozen=True, slots=True)
class Summary:
    """What a batch has done."""

    done: int
    """Recordings that are done, also in earlier starts."""
    failed: int
    left: int
    done_now: int
    """Recordings that were done in this start."""
    frames: int
    """Frames of this start, as well as people and seconds."""
    people: int
    seconds: float
    failures: tuple[tuple[str, str], ...]
    """Names of all failed recordings, with the reasons."""

    @property
    def fps(self) -> float:
        """Frames per second."""
        return self.frames / max(self.seconds, 1e-9)


def summary_of(entries: Iterable[Entry], *, done_now: int, frames: int, people: int, seconds: float) -> Summary:
    """Return the summary of a batch with these recordings."""
    entries = list(entries)
    failures = tuple((entry.name, entry.error or "") for entry in entries if entry.state is State.FAILED)
    done = sum(entry.state is State.DONE for entry in entries)
    left = len(entries) - done - len(failures)
    return Summary(done, len(failures), left, done_now, frames, people, seconds, failures)


def write_report(folder: Path, summary: Summary, entries: Iterable[Entry], settings: Mapping[str, Any] | None) -> None:
    """Write `batch.json` into `folder`. It replaces the previous one as a whole. Raises `SinkError`."""
    entries = list(entries)
    counts = {
        "done": summary.done,
        "failed": summary.failed,
        "left": summary.left,
        "frames": sum(entry.frames for entry in entries),
        "people": sum(entry.people for entry in entries),
    }
    start = {
        "done": summary.done_now,
        "frames": summary.frames,
        "people": summary.people,
        "seconds": round(summary.seconds, 3),
        "fps": round(summary.fps, 2),
    }
    hidden = ("label", "owns_outputs")
    files = [{key: value for key, value in asdict(entry).items() if key not in hidden} for entry in entries]
    report = {"streampose": __version__, "settings": settings, "summary": counts, "last_start": start, "files": files}
    path = folder / REPORT
    partial = path.with_name(f"{REPORT}.new")
    try:
        partial.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
        partial.replace(path)
    except OSError as error:
        raise failed(name_of(path), error) from error
    except UnicodeEncodeError as error:
        raise SinkError(f"cannot write {name_of(path)}: a name is not valid Unicode") from error
