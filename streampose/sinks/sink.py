"""Text to sink, and the promise that every sink keeps.

A sink is told about the run once (`open`), is given every finished frame in order (`write`) and is closed once or more
(`close`). It knows nothing of the pipeline, of threads or of its siblings.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from types import TracebackType

from streampose.frames import Result, RunInfo, SourceInfo


class Sink(ABC):
    """Where finished frames go.

    The constructor checks what can be checked without a frame (an existing file, a missing folder, no display) and
    changes nothing on disk, so that a run which fails before its first frame leaves everything as it was.
    """

    needs_picture: bool = True
    """Whether `write` reads `Result.picture`; when no sink does, nothing is drawn."""
    on_main_thread: bool = False
    """Whether every call has to come from the thread that runs the program (windows)."""
    quits_run: bool = False
    """Whether the user's wish for no more here (False from `write`) ends the whole run, as a window's `q` does."""
    resumed_at_s: float = 0.0
    """`time.monotonic()` when a `write` last stopped waiting for its frame's time, `inf` while it waits: a sink that
    waits on purpose is not taken for one that hangs."""
    idle_every_s: float | None = None
    """When no frame has come for so long, `idle` is called, again and again; None: never. Sinks on the main thread are
    called several times a second."""

    def __init__(self, text: str) -> None:
        self.text = text
        """What the user asked for, credentials redacted; names the sink in messages."""

    @abstractmethod
    def open(self, run: RunInfo) -> None:
        """Prepare for the frames of `run`; called once, before the first `write`. Raises `SinkError`."""

    @abstractmethod
    def write(self, result: Result) -> bool | None:
        """Take one frame. Return False when nobody wants more here (a window's `q`, a pipe whose reader has gone): an
        end, not an error. Raises `SinkError`.
        """

    def interrupt(self) -> None:  # noqa: B027 - most sinks never wait
        """Let a `write` that waits (for a picture's time, for a key) come back soon; called from any thread or a
        signal.
        """

    def idle(self) -> bool | None:
        """Do what has to be done while no frame comes, such as keeping a connection alive; the result is that of
        `write`. Raises `SinkError`.
        """
        return None

    def status(self) -> dict[str, int | float | str]:
        """Return what there is to tell of the sink itself: JSON values by name; `dropped` counts the frames among those
        written that went nowhere, for lack of a connection. Called from any thread.
        """
        return {}

    @abstractmethod
    def close(self) -> None:
        """Finish what was written; safe twice, after a failed `open` or `write`, and without `open`. Raises
        `SinkError`.
        """

    def summary(self) -> str | None:
        """Return where the output lies, as one line for the closing table; None when there is nothing to say."""
        return None

    def __enter__(self) -> Sink:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class SharedSink(ABC):
    """One target for several sources, such as a window with a cell for each: every source gets a sink of its own."""

    @abstractmethod
    def of_source(self, source: SourceInfo) -> Sink:
        """Return the sink of one source; called once for each, before anything is written. Raises `SinkError`."""
