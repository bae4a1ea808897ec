"""The errors that users see. Each text is one line that says what failed, on what, and what to do next.

StreamposeError             a known failure: one line, exit code 1
├── UsageError              an invalid value: exit code 2
├── NothingToDo             the run is already complete: exit code 0
├── SourceError             opening or reading a source failed
├── ModelError              finding, loading or running a network failed
├── AnnotateError           drawing failed
├── SinkError               opening, writing or closing a sink failed
└── StalledError            a step made no progress

Messages of libraries may contain addresses with passwords, so every error text is passed through `redact`. Names of
parameters are in backticks; the command line replaces them by flags.
"""

from __future__ import annotations

from streampose.addresses import redact


class StreamposeError(Exception):
    """A known failure whose text is one line for the user, credentials redacted."""

    exit_code = 1
    is_reported = False
    """Whether the error has already been logged. It is raised at the end of the run in any case."""

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(redact(message).split()))


class UsageError(StreamposeError):
    """A value is invalid. The text describes the valid values."""

    exit_code = 2


class NothingToDo(StreamposeError):
    """A run that is already complete. It is not a failure."""

    exit_code = 0


class SourceError(StreamposeError):
    """A source that cannot be opened or read further."""

    is_at_end = False
    """Whether everything that can be read was read, so that reading again gives nothing more."""


class ModelError(StreamposeError):
    """A network that cannot be found, loaded or run."""


class AnnotateError(StreamposeError):
    """People that cannot be drawn on a frame."""


class SinkError(StreamposeError):
    """A sink that cannot be opened, written or closed."""


class StalledError(StreamposeError):
    """A step of the pipeline that made no progress in time."""


def wrapped(kind: type[StreamposeError], message: str, error: BaseException) -> StreamposeError:
    """Return `error` if it is a `StreamposeError`, otherwise a `kind` caused by it."""
    if isinstance(error, StreamposeError):
        return error
    new = kind(f"{message}: {describe(error)}")
    new.__cause__ = error
    return new


def describe(error: BaseException) -> str:
    """Return one line for a library's error: the operating system's text, else its own text, else its type."""
    text = getattr(error, "strerror", None)  # FFmpeg's errors have it too
    if isinstance(text, str) and text:
        return redact(text)
    return redact(" ".join(str(error).split())) or type(error).__name__
