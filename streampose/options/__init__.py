"""The table of all options: name, valid values, default and help text of each.

The command line, the configuration file, the help and the checks of the Python API read this table. It knows nothing
about the effect of an option.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from streampose.options.of_runs import DEFAULT_KEYPOINT_THRESHOLD, OF_RUNS
from streampose.options.of_tools import OF_TOOLS
from streampose.options.option import Option

__all__ = ["DEFAULT_KEYPOINT_THRESHOLD", "OPTIONS", "Option", "check", "default_of", "option_named"]
__all__ += ["options_of", "with_flags"]

OPTIONS = (*OF_RUNS, *OF_TOOLS)

_BY_NAME = {option.name: option for option in OPTIONS}


def options_of(command: str) -> list[Option]:
    """Return the options of a command, in the order of its help."""
    return [option for option in OPTIONS if command in option.commands]


def default_of(name: str) -> Any:
    """Return the default of an option."""
    return _BY_NAME[name].default


def option_named(name: str) -> Option:
    """Return the option of this name."""
    return _BY_NAME[name]


def check(values: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """Return the values of the parameters `names` as the program uses them.

    Args:
        values: the values of all parameters, by name. None is valid for an option whose default is None.
        names: the parameters that are options.

    Raises:
        UsageError: a value is invalid. The text names the parameter.
    """
    checked = {}
    for name in names:
        option, value = _BY_NAME[name], values[name]
        is_default = value is None and option.default is None
        checked[name] = None if is_default else option.parse(value, f"`{name}`")
    return checked


def with_flags(text: str) -> str:
    """Return an error text with each parameter in backticks replaced by its flag."""

    def flag(match: re.Match[str]) -> str:
        option = _BY_NAME.get(match[1])
        return match[0] if option is None else option.flag

    return re.sub(r"`(\w+)`", flag, text)
