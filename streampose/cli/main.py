"""Reads argv, runs a command, and turns what fails into exit codes and one-line errors.

Standard output is for data, standard error for people. Exit codes: 0 ended or quit, 1 a known failure in one line,
2 wrong usage, 130 interrupted after a clean finish.
"""

from __future__ import annotations

import argparse
import logging
import os
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from streampose._version import __version__
from streampose.addresses import redact, redact_address
from streampose.cli import bench, models, run
from streampose.cli.process import INTERRUPTED, ended_by_sigterm
from streampose.cli.terminal import LogToPeople, say_error, say_traceback
from streampose.errors import StalledError, StreamposeError, describe

DESCRIPTION = "Live or recorded video to human pose, in real time, with ViTPose."
_WITHOUT_LIBRARY = (
    "a system library is missing ({}): install it (Debian: apt install libgl1 libglib2.0-0), or take OpenCV without "
    "windows: pip uninstall opencv-python, then pip install opencv-python-headless"
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program; return its exit code."""
    arguments = parser().parse_args(argv)
    handler = LogToPeople()
    handler.setFormatter(logging.Formatter("streampose: %(message)s"))
    logging.getLogger("streampose").handlers = [handler]
    logging.getLogger("streampose").setLevel(logging.INFO)
    command: Callable[[argparse.Namespace], int] = arguments.command
    try:
        with ended_by_sigterm():
            return command(arguments)
    except StreamposeError as error:
        if arguments.debug:
            say_traceback(error)
        elif not error.is_reported:
            say_error(error)
        if isinstance(error, StalledError):
            # The step that was given up still runs; when Python ends around it, its libraries abort the process.
            os._exit(error.exit_code)
        return error.exit_code
    except KeyboardInterrupt as error:
        if arguments.debug:
            say_traceback(error)
        return INTERRUPTED
    except Exception as error:
        if arguments.debug:
            say_traceback(error)
            return 1
        if isinstance(error, ImportError) and ".so" in str(error):
            say_error(_WITHOUT_LIBRARY.format(describe(error)))
            return 1
        say_error(f"a defect in streampose: {type(error).__name__}: {describe(error)}; --debug shows where")
        return 1


class _Parser(argparse.ArgumentParser):
    """Says in one line what is wrong with the words that it was given, which may be addresses with passwords."""

    _words: Sequence[str] = ()

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        self._words = list(args or ())
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        # A whole word is redacted better than one that lies among others.
        for word in sorted(self._words, key=len, reverse=True):
            message = message.replace(word, redact_address(word))
        self.exit(2, f"streampose: {redact(message)}; see {self.prog} --help\n")


def parser() -> argparse.ArgumentParser:
    """Return the parser of the program."""
    whole = _Parser(
        prog="streampose",
        description=DESCRIPTION,
        epilog=run.EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    whole.add_argument("--version", action="version", version=f"streampose {__version__}")
    commands = whole.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in (run, models, bench):
        command.add(commands).add_argument("--debug", action="store_true", help="show the traceback of an error")
    return whole
