"""Writes messages to standard error and data to standard output."""

from __future__ import annotations

import json
import logging
import os
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from streampose.addresses import redact
from streampose.errors import SinkError, describe
from streampose.options import with_flags

_above: Callable[[str], None] | None = None
"""Writes a line above the progress bar, while there is one."""
_as_json = False
"""Whether every line on standard error is JSON."""


def say(text: str) -> None:
    """Write a line to standard error. A closed standard error does not end the run."""
    with suppress(OSError, ValueError):
        if _as_json:
            say_json({"event": "log", "level": "info", "message": text})
        elif _above is not None:
            _above(text)
        else:
            print(text, file=sys.stderr, flush=True)


def say_json(record: dict[str, Any]) -> None:
    """Write a line of JSON to standard error. A closed standard error does not end the run."""
    with suppress(OSError, ValueError):
        print(json.dumps(record), file=sys.stderr, flush=True)


def say_above(write: Callable[[str], None] | None) -> None:
    """Let `write` write all lines from now on, because there is a progress bar; None ends this."""
    global _above
    _above = write


def say_as_json(is_json: bool) -> None:
    """Write every line as JSON from now on, for a program that reads standard error, or end this."""
    global _as_json
    _as_json = is_json


_soon: list[str] = []
"""Lines of signal handlers that wait for the progress bar."""


def say_in_handler(text: str) -> None:
    """Write a line to standard error from a signal handler, where `say` is not safe: it may interrupt another write."""
    if _above is not None:
        _soon.append(text)
        return
    line = b"\n" + f"streampose: {text}\n".encode()
    if _as_json:
        line = json.dumps({"event": "log", "level": "info", "message": text}).encode() + b"\n"
    with suppress(OSError):
        os.write(2, line)


def say_what_waits() -> None:
    """Write the lines of signal handlers that wait for the progress bar."""
    while _soon:
        say(f"streampose: {_soon.pop(0)}")


def say_error(error: BaseException | str) -> None:
    """Write an error as one line, with parameters replaced by flags."""
    text = with_flags(str(error))
    if _as_json:
        say_json({"event": "log", "level": "error", "message": text})
    else:
        say(f"streampose: {text}")


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
        if _as_json:
            message = redact(with_flags(record.getMessage()))
            say_json({"event": "log", "level": record.levelname.lower(), "message": message})
        else:
            say(redact(with_flags(self.format(record))))
