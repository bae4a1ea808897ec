"""Parses the command line, runs a command, and converts failures to exit codes and one-line errors.

Data go to standard output, messages to standard error. Exit codes: 0 the command ended or the user quit, 1 it failed,
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
from streampose.cli import batch, bench, convert, draw, evaluate, models, plot, rules, run, smooth
from streampose.cli.process import INTERRUPTED, ended_by_signals
from streampose.cli.terminal import LogToPeople, say_as_json, say_error, say_traceback
from streampose.errors import StalledError, StreamposeError, describe

DESCRIPTION = "Find people in live or recorded video and estimate their poses with ViTPose."
_WITHOUT_LIBRARY = (
    "a system library is missing ({}): install it (Debian: apt install libgl1 libglib2.0-0), or use OpenCV without "
    "windows: pip uninstall opencv-python, then pip install opencv-python-headless"
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program; return its exit code."""
    arguments = parser().parse_args(argv)
    say_as_json(False)
    handler = LogToPeople()
    handler.setFormatter(logging.Formatter("streampose: %(message)s"))
    logging.getLogger("streampose").handlers = [handler]
    logging.getLogger("streampose").setLevel(logging.INFO)
    command: Callable[[argparse.Namespace], int] = arguments.command
    try:
        with ended_by_signals():
            return command(arguments)
    except StreamposeError as error:
        if arguments.debug:
            say_traceback(error)
        elif not error.is_reported:
            say_error(error)
        if isinstance(error, StalledError):
            # The stalled step is still running. A normal exit of Python would make its libraries abort the process.
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
        say_error(
            f"internal error ({type(error).__name__}: {describe(error)}): please report it with the output of --debug"
        )
        return 1


class _Parser(argparse.ArgumentParser):
    """Reports usage errors in one line and redacts the arguments in it, which may be addresses with passwords."""

    _words: Sequence[str] = ()

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        self._words = list(args or ())
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        # Redact each argument by itself: within a sentence, the end of an address can only be guessed.
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
    for command in (run, batch, draw, convert, smooth, plot, rules, evaluate, models, bench):
        command.add(commands).add_argument("--debug", action="store_true", help="show the traceback of an error")
    return whole
