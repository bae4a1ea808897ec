"""The sink interface.

A sink is opened once for the run (`open`), receives every finished frame in order (`write`) and is closed at least once
(`close`). It knows nothing about the pipeline, threads or other sinks.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from streampose.frames import Result, RunInfo, SourceInfo

if TYPE_CHECKING:
    from streampose.sinks.controls import Controls

SAVEPOINTS_KEPT = 4
"""How many of the latest savepoints a run can be continued from. The last one may be too late for an output that
buffers, such as a video file."""


class Sink(ABC):
    """A destination for finished frames.

    The constructor checks everything that needs no frame (an existing file, a missing folder, no display). It changes
    nothing on disk, so a run that fails before its first frame leaves all files unchanged.
    """

    needs_drawn: bool = True
    """Whether `write` reads `Result.drawn`. If no sink does, nothing is drawn."""
    on_main_thread: bool = False
    """Whether every call must come from the main thread (windows)."""
    quits_run: bool = False
    """Whether False from `write` ends the whole run, as `q` in a window does."""
    resumed_at_s: float = 0.0
    """`time.monotonic()` at which `write` last stopped waiting until its frame was due; `inf` while it waits. This
    distinguishes a sink that waits on purpose from one that hangs."""
    idle_every_s: float | None = None
    """Call `idle` each time no frame has arrived for this many seconds; None never calls it. For a sink on the main
    thread, `idle` is called several times per second."""

    path: Path | None = None
    """The file or folder that the sink makes, if a later run can continue it; otherwise None."""
    leaves_nothing: bool = False
    """Whether nothing remains of the output, as of a window, so that there is nothing to continue."""

    def __init__(self, text: str) -> None:
        self.text = text
        """The sink as the user wrote it, with credentials redacted. It names the sink in messages."""

    @abstractmethod
    def open(self, run: RunInfo) -> None:
        """Prepare for the frames of `run`. Called once, before the first `write`. Raises `SinkError`."""

    @abstractmethod
    def write(self, result: Result) -> bool | None:
        """Consume one frame. Raises `SinkError`.

        Return False if no more frames are wanted (`q` in a window, a pipe whose reader is gone). This is an end, not an
        error.
        """

    def take_controls(self, controls: Controls) -> None:  # noqa: B027 - most sinks have no user in front of them
        """Receive what a user of this sink can change. Called at most once, before `open`."""

    def interrupt(self) -> None:  # noqa: B027 - most sinks never wait
        """Make a waiting `write` (for a frame's time, for a key) return soon. Called from any thread or a signal
        handler.
        """

    def idle(self) -> bool | None:
        """Do the work needed while no frame arrives, such as keeping a connection alive. Raises `SinkError`.

        Returns the same values as `write`.
        """
        return None

    def savepoint(self) -> dict[str, Any]:
        """Bring the frames written so far to the disk. Called between two frames of a recording. Raises `SinkError`.

        Returns:
            What `resume` needs to continue here, as JSON values.
        """
        return {}

    def holds(self, state: dict[str, Any]) -> bool:  # noqa: ARG002 - most outputs cannot lose what they had
        """Return whether the output of an earlier run still has everything up to a savepoint, whose `state` it is."""
        return True

    def resume(self, state: dict[str, Any]) -> None:
        """Continue the output of an earlier run behind a savepoint. Called before `open`. Raises `SinkError`."""
        raise NotImplementedError

    def discard_kept(self) -> None:  # noqa: B027 - most sinks put nothing aside
        """Remove what was put aside of earlier runs. Called when the run is complete, or begins again."""

    def status(self) -> dict[str, int | float | str]:
        """Return the sink's own status as JSON values by name. Called from any thread.

        `dropped` counts written frames that were discarded because there was no connection.
        """
        return {}

    @abstractmethod
    def close(self) -> None:
        """Finish the output. Raises `SinkError`.

        Safe to call twice, after a failed `open` or `write`, and without `open`.
        """

    def summary(self) -> str | None:
        """Return one line for the closing table that names the output; None if there is no output."""
        return None

    def __enter__(self) -> Sink:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class SharedSink(ABC):
    """One target for several sources, such as a window with one cell per source. Each source gets its own sink."""

    @abstractmethod
    def of_source(self, source: SourceInfo) -> Sink:
        """Return the sink of one source. Called once per source, before the first `write`. Raises `SinkError`."""
