"""What a batch knows of one recording, and how that changes. Does not know where it is kept, nor who does the work."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

MOST_CRASHES = 3
"""A recording during which the program ended this often may be the cause, and is not tried again."""


class State(StrEnum):
    """The state of a recording."""

    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Output:
    """An output that was written."""

    path: str
    """Relative to the output folder, with `/`. A folder ends in `/`."""
    size_bytes: int
    sha256: str
    """Of the file. For a folder, of a text with a line `SHA-256  NAME` for each file in it, sorted by name."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a recording that was processed."""

    state: State
    """`WAITING` if it was interrupted."""
    frames: int = 0
    people: int = 0
    """People in all frames together."""
    seconds: float = 0.0
    """From opening the recording to the checksums of its outputs. Other recordings were processed at the same time."""
    outputs: tuple[Output, ...] = ()
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Entry:
    """What a batch knows of one recording."""

    name: str
    """The path relative to the input folder, with `/`. It identifies the recording."""
    label: str
    """What `{name}` stands for in the names of its outputs."""
    size_bytes: int
    modified_ns: int
    """Size and time of the recording when it was last looked at; 0 if it cannot be looked at."""
    state: State = State.WAITING
    attempts: int = 0
    """How often its processing began."""
    crashes: int = 0
    """How often the program ended during its processing, without saying so."""
    owns_outputs: bool = False
    """Whether files with the names of its outputs were written by this batch, so that it may replace them."""
    frames: int = 0
    people: int = 0
    seconds: float = 0.0
    outputs: tuple[Output, ...] = ()
    error: str | None = None

    def begun(self) -> Entry:
        """Return the entry as its processing begins."""
        return replace(self, state=State.RUNNING, attempts=self.attempts + 1)

    def writing(self) -> Entry:
        """Return the entry before the first of its outputs is created. Other files are not in the way."""
        return replace(self, owns_outputs=True)

    def ended(self, outcome: Outcome) -> Entry:
        """Return the entry after its processing."""
        return replace(
            self,
            state=outcome.state,
            crashes=0 if outcome.state is State.DONE else self.crashes,
            frames=outcome.frames,
            people=outcome.people,
            seconds=round(outcome.seconds, 3),
            outputs=outcome.outputs,
            error=outcome.error,
        )

    def recovered(self) -> Entry:
        """Return the entry at the start of the program. If it is `RUNNING`, the program ended during its processing."""
        if self.state is not State.RUNNING:
            return self
        crashes = self.crashes + 1
        if crashes < MOST_CRASHES:
            return replace(self, state=State.WAITING, crashes=crashes)
        error = f"the program ended {crashes} times while it was processed"
        return replace(self, state=State.FAILED, crashes=crashes, error=error)

    def again(self, size_bytes: int, modified_ns: int) -> Entry:
        """Return the entry for processing the recording again, which has this size and time now."""
        return Entry(
            self.name,
            self.label,
            size_bytes,
            modified_ns,
            attempts=self.attempts,
            owns_outputs=self.owns_outputs,
        )
