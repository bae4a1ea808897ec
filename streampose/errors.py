"""The errors a user can meet, each one sentence that names the thing and the remedy.

StreamposeError             a known failure: one line, exit code 1
├── UsageError              a value that cannot be right: exit code 2
├── SourceError             opening or reading a source
├── ModelError              finding, loading or running a network
├── AnnotateError           drawing
├── SinkError               opening, writing or closing a sink
└── StalledError            a step that does not come back

Messages of libraries may hold URLs with passwords: every text that enters an error here goes through `redact`.
"""

from __future__ import annotations

from streampose.addresses import redact


class StreamposeError(Exception):
    """A known failure whose text is one line for the user, credentials redacted."""

    exit_code = 1
    is_reported = False
    """Whether it has been logged already, when it happened; it is raised all the same at the end of the run."""

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(redact(message).split()))


class UsageError(StreamposeError):
    """A value that cannot be right; the text names the right ones."""

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
    """Return `error` itself when it speaks to the user already, else a `kind` that does, caused by it."""
    if isinstance(error, StreamposeError):
        return error
    new = kind(f"{message}: {describe(error)}")
    new.__cause__ = error
    return new


def describe(error: BaseException) -> str:
    """Return one line for a library's error: its operating-system text where it has one, else its own text, else its
    type.
    """
    if isinstance(error, OSError) and error.strerror:
        return redact(error.strerror)
    return redact(" ".join(str(error).split())) or type(error).__name__
