"""One option of the program: its name, valid values, default and help text."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from streampose.addresses import redact, redact_address
from streampose.errors import UsageError
from streampose.kinds import SWITCH, Kind

RUNS = ("run", "batch")
BOTH = (*RUNS, "bench")
EVALUATED = (*RUNS, "evaluate")
ALL = (*BOTH, "evaluate")
WATCHED = ("run", "draw")
"""Commands that can show a window."""
DRAWN = (*RUNS, "draw")
OF_PARTS = (*RUNS, "draw", "convert", "smooth", "plot", "rules")
"""Commands that can read a part of a recording, or of recorded poses."""
NETWORKS = "networks"
PEOPLE = "people and keypoints"
DRAWING = "drawing"
READING = "files and streams"
LIVE = "live sources"
RUNNING = "running"
COMMANDS_OF = {NETWORKS: RUNS, PEOPLE: RUNS, DRAWING: DRAWN, READING: DRAWN}
"""The commands that have the options of a group; by default only `run`."""


@dataclass(frozen=True, slots=True)
class Option:
    """One option of the program."""

    name: str
    """Name of a parameter of `streampose.stream`, `RecordedPoses.plot` or `streampose.bench.bench.run_bench`, or of a
    field of `Input`."""
    kind: Kind
    default: Any
    help: str
    group: str = ""
    of_source: bool = False
    """Whether each source has its own value, which is then a field of `Input`."""
    commands: tuple[str, ...] = ()
    """The commands that have it; by default those of its group."""
    own_key: str | None = None

    def __post_init__(self) -> None:
        if not self.commands:
            object.__setattr__(self, "commands", COMMANDS_OF.get(self.group, ("run",)))

    @property
    def key(self) -> str:
        """The name in a TOML file: the parameter's name without its unit."""
        return self.own_key or self.name.removesuffix("_s")

    @property
    def flag(self) -> str:
        """The name on the command line. A switch that is on by default is turned off there."""
        is_on = self.kind is SWITCH and self.default is True
        return ("--no-" if is_on else "--") + self.key.replace("_", "-")

    def parse(self, value: Any, name: str) -> Any:
        """Return the value as the program uses it.

        Raises:
            UsageError: the value is invalid. The text begins with `name`.
        """
        try:
            return self.kind.parse(value)
        except (ValueError, TypeError, OverflowError) as error:
            raise UsageError(f"{name}: {_shown(value)} is not {self.kind.called}") from error


def _shown(value: Any) -> str:
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_shown, value))}]"
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return repr(redact_address(value)) if isinstance(value, str) else redact(repr(value))
