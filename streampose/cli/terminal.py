"""Writes messages to standard error and data to standard output."""

from __future__ import annotations

import logging
import os
import sys
import traceback
from contextlib import suppress

from streampose.addresses import redact
from streampose.errors import SinkError, describe
from streampose.options import with_flags

CLEAR = "\r\x1b[J"
"""Clears the status lines. The cursor of the terminal is at their beginning."""


def say(text: str, end: str = "\n") -> None:
    """Write to standard error. A closed standard error does not end the run."""
    with suppress(OSError, ValueError):
        print(text, file=sys.stderr, end=end, flush=True)


def say_error(error: BaseException | str) -> None:
    """Write an error as one line, with parameters replaced by flags."""
    say(f"streampose: {with_flags(str(error))}")


def say_traceback(error: BaseException) -> None:
    """Write an error with its traceback, credentials redacted."""
    # Redact line by line: otherwise an @ in a line of source code could be taken for a part of an address above it.
    for line in "".join(traceback.format_exception(error)).splitlines():
        say(redact(line))


def print_data(text: str) -> None:
    """Write `text` to standard output. Raises `SinkError`."""
    try:
        os.write(1, f"{text}\n".encode())
    except BrokenPipeError:
        pass
    except OSError as error:
        raise SinkError(f"cannot write to standard output: {describe(error)}") from error


class LogToPeople(logging.Handler):
    """A log handler that writes each record as one line to standard error."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write a log record."""
        begin = CLEAR if sys.stderr is not None and sys.stderr.isatty() else ""
        say(f"{begin}{redact(with_flags(self.format(record)))}")
