"""Work on one recording that takes a thread of its own: opening it, and hashing its outputs."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from streampose.archive.entry import Outcome, Output, State
from streampose.archive.resume import Resumption
from streampose.errors import (
    NothingToDo,
    SinkError,
    SourceError,
    StalledError,
    StreamposeError,
    UsageError,
    describe,
    wrapped,
)
from streampose.inputs import Input
from streampose.pipeline.parts import Feed
from streampose.pipeline.rolling import Left
from streampose.sources.open import open_source
from streampose.sources.source import Source


@dataclass(frozen=True, slots=True)
class Job:
    """A recording to process."""

    name: str
    """The name of its entry in the manifest."""
    source: Input
    targets: tuple[str, ...]
    """Its outputs, relative to the output folder."""
    size_bytes: int


def begun(job: Job, feed: Feed, networks: dict[str, str], out: Path, *, is_continued: bool) -> Feed:
    """Return the feed of a recording with its journal.

    Args:
        networks: see `Assembly.identity`.
        out: the output folder.
        is_continued: continue an earlier attempt, with the same options. If that cannot be done, start afresh, and
            remove what the attempt has written.
    """
    source = feed.source
    assert isinstance(source, Source)
    if is_continued:
        with suppress(NothingToDo, UsageError):
            return Resumption(source, feed.sinks, {}, resume=True).continued(feed, networks)
        for target in job.targets:
            with suppress(OSError):  # the sink reports what is in its way
                path = out / target
                if path.is_file() and not path.samefile(str(job.source.source)):
                    path.unlink()
    return Resumption(source, feed.sinks, {}, resume=False).continued(feed, networks)


class Opening:
    """Opens a recording, which decodes its first frame, in a thread."""

    def __init__(self, job: Job, stall_after_s: float, how: Callable[[], Source] | None = None) -> None:
        """Begin. After `stall_after_s` seconds, the recording counts as failed. `how` opens a part of it."""
        self.job = job
        self._how = how
        self.began_s = time.monotonic()
        self._stall_after_s = stall_after_s
        self._source: Source | None = None
        self._error: StreamposeError | None = None
        self._given_up = False
        self._handing_over = threading.Lock()
        self._thread = threading.Thread(target=self._run, name=f"streampose open {job.name}", daemon=True)
        self._thread.start()

    @property
    def hangs(self) -> bool:
        """Whether it has taken too long and is not over."""
        return self._thread.is_alive() and time.monotonic() - self.began_s > self._stall_after_s

    @property
    def is_over(self) -> bool:
        """Whether `result` returns at once."""
        return not self._thread.is_alive() or self.hangs

    def result(self) -> Source:
        """Return the source, which belongs to the caller. Raises `StreamposeError` if there is none."""
        if self.hangs:
            self.give_up(0.0)
            raise StalledError(f"{self.job.source.source}: opening made no progress for {self._stall_after_s:g} s")
        self._thread.join()
        if self._error is not None:
            raise self._error
        assert self._source is not None
        return self._source

    def give_up(self, wait_s: float) -> bool:
        """Close the source as soon as it is open. Return whether that happened within `wait_s` seconds."""
        self._thread.join(max(0.0, wait_s))
        with self._handing_over:
            self._given_up = True
            if self._source is not None:
                self._source.close()
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            source = open_source(self.job.source) if self._how is None else self._how()
        except Exception as error:
            self._error = wrapped(SourceError, f"{self.job.source.source} cannot be opened", error)
            return
        with self._handing_over:
            if self._given_up:
                source.close()
            else:
                self._source = source


class Sealing:
    """Determines, in a thread, what became of a recording that has left the pipeline, with checksums of its outputs."""

    def __init__(self, job: Job, began_s: float, left: Left, out: Path) -> None:
        """Begin. `began_s` is when the recording was opened, by `time.monotonic()`."""
        self.job = job
        self._began_s = began_s
        self._left = left
        self._out = out
        self._outcome: Outcome | None = None
        self._thread = threading.Thread(target=self._run, name=f"streampose seal {job.name}", daemon=True)
        self._thread.start()

    @property
    def is_over(self) -> bool:
        """Whether `result` returns at once."""
        return not self._thread.is_alive()

    def result(self) -> Outcome:
        """Wait for the outcome and return it."""
        self._thread.join()
        assert self._outcome is not None
        return self._outcome

    def _run(self) -> None:
        errors: list[BaseException] = list(self._left.errors)
        outputs: tuple[Output, ...] = ()
        try:
            outputs = _outputs(self._out, self.job.targets)
        except Exception as error:
            errors.append(SinkError(f"{self.job.name}: the outputs cannot be read again: {describe(error)}"))
        self._outcome = Outcome(
            State.FAILED if errors else State.DONE,
            frames=self._left.stats["delivered"] + self._left.stats["resumed"],
            people=self._left.stats["people"] + self._left.stats["resumed_people"],
            seconds=time.monotonic() - self._began_s,
            outputs=outputs,
            error="; ".join(map(str, errors)) or None,
        )


def _outputs(out: Path, targets: Sequence[str]) -> tuple[Output, ...]:
    """Return the outputs that exist. A recording without frames has none."""
    found = []
    for target in targets:
        path = out / target
        if path.is_dir():
            files = sorted(file for file in path.rglob("*") if file.is_file())
            lines = [f"{_sha256(file)}  {file.relative_to(path).as_posix()}\n" for file in files]
            digest = hashlib.sha256("".join(lines).encode("utf-8", "surrogateescape")).hexdigest()
            size_bytes = sum(file.stat().st_size for file in files)
            found.append(Output(f"{target.rstrip('/')}/", size_bytes, digest))
        elif target != "null" and path.is_file():
            found.append(Output(target, path.stat().st_size, _sha256(path)))
    return tuple(found)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
