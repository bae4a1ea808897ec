"""Adds options to an argparse parser as flags."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from streampose.errors import UsageError
from streampose.frames import Part
from streampose.kinds import CHECKPOINTS, SINKS, SWITCH
from streampose.options import Option, options_of
from streampose.picker import part_of


def add_flags(parser: argparse.ArgumentParser, command: str) -> None:
    """Add the flags of a command in their groups. A flag that is not given is absent from the parsed arguments."""
    groups: dict[str, Any] = {"": parser}
    for option in options_of(command):
        title = option.group if command in ("run", "batch") else ""
        if title not in groups:
            groups[title] = parser.add_argument_group(title)
        _add(groups[title], option)


def _add(group: Any, option: Option) -> None:
    keywords: dict[str, Any] = {"dest": option.name, "help": _help_of(option), "default": argparse.SUPPRESS}
    if option.kind is SWITCH and option.default is None:
        group.add_argument(option.flag, action=argparse.BooleanOptionalAction, **keywords)
    elif option.kind.metavar is None:
        group.add_argument(option.flag, action="store_false" if option.default else "store_true", **keywords)
    elif option.kind in (CHECKPOINTS, SINKS):
        group.add_argument(option.flag, metavar=option.kind.metavar, action="append", **keywords)
    else:
        group.add_argument(option.flag, metavar=option.kind.metavar, type=_type_of(option), **keywords)


def _help_of(option: Option) -> str:
    tells_default = "(default: " in option.help or option.default in (None, False, True, ())
    default = option.default
    if isinstance(default, float) and default.is_integer():
        default = int(default)
    return option.help if tells_default else f"{option.help} (default: {default})"


def _type_of(option: Option) -> Callable[[str], Any]:
    def parse(word: str) -> Any:
        try:
            return option.parse(word, option.flag)
        except UsageError as error:
            raise argparse.ArgumentTypeError(str(error).removeprefix(f"{option.flag}: ")) from error

    return parse


def given_part(arguments: argparse.Namespace) -> Part:
    """Return the part of a recording, or of recorded poses, that the flags name. Raises `UsageError`."""
    given = vars(arguments)
    return part_of(given.get("start_s"), given.get("end_s"), given.get("every", 1))
