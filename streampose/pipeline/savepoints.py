"""Savepoints of a recording: points in its stream of frames from which a later run can continue.

A mark follows every `SAVEPOINT_FRAMES`th frame through the channels of a source. Whatever follows people over time
adds its state on the way; every sink that makes files brings them to the disk. When all have done so, the savepoint is
saved. Knows nothing about files.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Protocol

from streampose.people import State
from streampose.picker import Place

SAVEPOINT_FRAMES = 250
"""Frames between two savepoints: ten seconds of most video. A run that is continued repeats at most this many frames,
and those that were under way. The encoders of video files begin afresh at savepoints, which makes files larger by a
few frames in a thousand."""


class Keeper(Protocol):
    """Something whose next output depends on the frames before."""

    def state(self) -> State:
        """Return everything that the next frames depend on."""

    def restore(self, state: State) -> None:
        """Continue as the object whose `state` it was."""


class Journal(Protocol):
    """Keeps the savepoints of one source."""

    def begin(self) -> None:
        """Prepare for savepoints. Called before the first frame is passed to a sink."""

    def save(self, savepoint: Saved) -> None:
        """Keep a savepoint that every sink has reached. A failure is logged: it does not end the run."""

    def finish(self) -> None:
        """Remove everything: the run is complete."""

    def release(self) -> None:
        """Let another run continue this one, which has ended. Safe to call twice."""


@dataclass(frozen=True)
class Mark:
    """Follows the last frame before a savepoint."""

    place: Place
    """That frame."""
    frames: int
    """Frames so far, with those of earlier runs."""
    state: State
    """State of what follows people before the poses are found; empty if nothing does."""


@dataclass(frozen=True)
class Saved:
    """A complete savepoint, from which a later run can continue."""

    place: Place
    """The last frame before it."""
    frames: int
    """Frames before it, with those of earlier runs,"""
    people: int
    """and people in them."""
    state: State
    """See `state_of`."""
    sinks: Sequence[State]
    """The state of each sink that makes files."""


class Savepoint:
    """A savepoint on its way through the sinks of a source."""

    def __init__(
        self, place: Place, frames: int, people: int, state: State, journal: Journal | None, sinks: int
    ) -> None:
        """Wait for so many `sinks`. The other arguments are those of `Saved`."""
        self._place, self._frames, self._people, self._state = place, frames, people, state
        self._journal = journal
        self._sinks: list[State | None] = [None] * sinks
        self._lock = threading.Lock()

    def reached(self, number: int, state: State) -> None:
        """Record that a sink has reached it. The last one saves it."""
        with self._lock:
            self._sinks[number] = state
            sinks = [one for one in self._sinks if one is not None]
        if self._journal is not None and len(sinks) == len(self._sinks):
            self._journal.save(Saved(self._place, self._frames, self._people, self._state, sinks))


def state_of(keepers: Sequence[object], first: State) -> State:
    """Return the states of some objects by their numbers, and `first`, as copies."""
    states = {str(number): keeper.state() for number, keeper in enumerate(keepers) if hasattr(keeper, "state")}
    return deepcopy({"before": first, "steps": states})
