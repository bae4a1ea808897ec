"""What the program says to people on standard error, and data on standard output."""

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
"""Removes the status, at whose beginning the cursor of a terminal waits."""


def say(text: str, end: str = "\n") -> None:
    """Write to standard error. That nobody reads it is no reason to end a run."""
    with suppress(OSError, ValueError):
        print(text, file=sys.stderr, end=end, flush=True)


def say_error(error: BaseException | str) -> None:
    """Write an error as one line; parameters in it are named as flags."""
    say(f"streampose: {with_flags(str(error))}")


def say_traceback(error: BaseException) -> None:
    """Write an error as Python does, credentials redacted."""
    # Line by line: an @ of the source code is no part of an address on another line.
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
    """The program's log: a line a record on standard error."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record."""
        begin = CLEAR if sys.stderr is not None and sys.stderr.isatty() else ""
        say(f"{begin}{redact(with_flags(self.format(record)))}")
