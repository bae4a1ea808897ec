"""The errors that a user can meet. Each is one sentence that names the thing and the remedy.

StreamposeError             a known failure: one line, exit code 1
├── UsageError              a value that cannot be right: exit code 2
├── SourceError             opening or reading a source
├── ModelError              finding, loading or running a network
├── AnnotateError           drawing
├── SinkError               opening, writing or closing a sink
└── StalledError            a step that does not come back

Messages of libraries may hold addresses with passwords: every text of an error here goes through `redact`.
Parameters stand in backticks.
"""

from __future__ import annotations

from streampose.addresses import redact


class StreamposeError(Exception):
    """A known failure whose text is one line for the user, credentials redacted."""

    exit_code = 1
    is_reported = False
    """Whether the error has been logged. It is still raised at the end of the run."""

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(redact(message).split()))


class UsageError(StreamposeError):
    """A value cannot be right. The text names valid ones."""

    exit_code = 2


class SourceError(StreamposeError):
    """A source that cannot be opened or read further."""


class ModelError(StreamposeError):
    """A network that cannot be found, loaded or run."""


class AnnotateError(StreamposeError):
    """A picture that cannot be drawn."""


class SinkError(StreamposeError):
    """A sink that cannot be opened, written or closed."""


class StalledError(StreamposeError):
    """A step of the pipeline that did not come back in time."""


def wrapped(kind: type[StreamposeError], message: str, error: BaseException) -> StreamposeError:
    """Return `error` if it is a `StreamposeError`, otherwise a `kind` caused by it."""
    if isinstance(error, StreamposeError):
        return error
    new = kind(f"{message}: {describe(error)}")
    new.__cause__ = error
    return new


def describe(error: BaseException) -> str:
    """Return one line for a library's error: the operating system's text, its own text or, without either, its type."""
    text = getattr(error, "strerror", None)  # FFmpeg's errors have it too
    if isinstance(text, str) and text:
        return redact(text)
    return redact(" ".join(str(error).split())) or type(error).__name__
