"""Processes the recordings of a batch on the machines of a Ray cluster, with the results of one machine.

Files are tasks. A recording that would keep one worker busy after all others have ended is split: its pieces are tasks
for the networks, and a last task does the rest with the whole recording. Knows nothing about Ray.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from streampose.archive.entry import MOST_CRASHES, Entry, Outcome, State
from streampose.archive.fleet import Fleet, Lost, Member
from streampose.archive.manifest import Manifest
from streampose.archive.orders import Answer, Finish, PieceOf, Task, Whole
from streampose.archive.pieces import Piece
from streampose.archive.report import Snapshot
from streampose.archive.split import InProgress
from streampose.archive.tasks import Job
from streampose.errors import ModelError, SinkError, StreamposeError
from streampose.sinks.open import open_sink

log = logging.getLogger("streampose")

PIECES = "batch.pieces"
"""The folder in the output folder for the raw people of pieces. It is removed when all is done."""
FINISHES_AT_ONCE = 2
"""Maximum last tasks of a worker at a time. They need no networks, but a core each."""
MOST_NETWORK_FAILURES = 3
"""If the networks of a worker fail on so many tasks in a row, the cause is its machine."""
WAITS_S = 0.2
"""Maximum time between two ticks."""


@dataclass(slots=True, eq=False)
class _Item:
    """A task that waits or is in progress."""

    task: Task
    crashes: int = 0
    """How often the worker ended that did it."""


class ClusterRun:
    """Processes recordings and records in the manifest what becomes of each."""

    leaves_threads = False

    def __init__(
        self,
        jobs: Sequence[Job],
        manifest: Manifest,
        fleet: Fleet,
        out: Path,
        *,
        overwrite: bool,
        files_at_once: int,
        piece_frames: int | None,
        key: Any,
    ) -> None:
        """Prepare the run. Work starts with the iteration over `ticks`.

        Args:
            jobs: the recordings, in this order.
            out: the output folder.
            overwrite: replace files that the batch did not write.
            files_at_once: maximum recordings or pieces that a worker reads at the same time.
            piece_frames: minimum frames of a piece; None splits nothing.
            key: JSON value that identifies the settings: raw people of an earlier start with the same are used.
        """
        self._waiting = deque(jobs)
        self._items: deque[_Item] = deque()
        """Tasks of recordings in progress that no worker has."""
        self._item_of: dict[Task, _Item] = {}
        self._progress: dict[str, InProgress] = {}
        self._manifest = manifest
        self._fleet = fleet
        self._out = out
        self._overwrite = overwrite
        self._at_once = files_at_once + 2
        self._piece_frames = piece_frames
        self._key = json.dumps([key, piece_frames], sort_keys=True)
        self._stopped = False
        self._failure: StreamposeError | None = None
        self._network_failures: dict[Member, int] = {}
        self._files_total = len(jobs)
        self._bytes_total = sum(job.size_bytes for job in jobs)
        self._bytes_ended = 0
        self._ended = dict.fromkeys(State, 0)
        self._began_s = time.monotonic()

    @property
    def frames(self) -> int:
        """Frames so far that have passed the networks."""
        return self._fleet.counts[0]

    @property
    def people(self) -> int:
        """People in them."""
        return self._fleet.counts[1]

    @property
    def done(self) -> int:
        """Recordings that are done."""
        return self._ended[State.DONE]

    def stop(self) -> None:
        """Stop soon. The recordings in progress wait for the next start. Call it from any thread or signal handler."""
        self._stopped = True

    def ticks(self) -> Iterator[None]:
        """Process all recordings, and yield several times per second.

        Raises:
            ModelError: no machine can be used.
            SinkError: no space is left, or the manifest cannot be written.
            StreamposeError: the cluster is gone.
        """
        self._began_s = time.monotonic()
        try:
            with self._fleet:
                while not self._stopped and (self._waiting or self._progress):
                    self._assign()
                    for member, task, answer in self._fleet.wait(WAITS_S):
                        self._take(member, task, answer)
                    yield
        finally:
            self._manifest.release()
        if self._failure is not None:
            raise self._failure
        if not self._stopped:
            shutil.rmtree(self._out / PIECES, ignore_errors=True)

    def snapshot(self) -> Snapshot:
        """Return how far it is."""
        elapsed_s = max(time.monotonic() - self._began_s, 1e-9)
        read_bytes = float(self._bytes_ended)
        running = tuple(one.running() for one in self._progress.values())
        for one, now in zip(self._progress.values(), running, strict=True):
            read_bytes += one.job.size_bytes * now.frames / (now.total or 1)
        left_s = elapsed_s * (self._bytes_total - read_bytes) / read_bytes if read_bytes and self.frames else None
        done, failed = self._ended[State.DONE], self._ended[State.FAILED]
        return Snapshot(self._files_total, done, failed, elapsed_s, self.frames, self.people, left_s, running)

    def _assign(self) -> None:
        """Give tasks to the workers, to those with the fewest first."""
        while not self._stopped:
            free = sorted((one for one in self._fleet.ready if self._has_room(one)), key=lambda one: len(one.tasks))
            if not free:
                return
            given = next((member for member in free if self._give(member)), None)
            if given is None:
                return

    def _has_room(self, member: Member) -> bool:
        """Return whether the worker can have another task. The last tasks are dealt out evenly."""
        if any(self._item_of[task].crashes for task in member.tasks.values()):
            return False  # if it ends again, no other task is suspected
        left = len(self._waiting) + len(self._items) + sum(len(one.tasks) for one in self._fleet.members)
        most = min(self._at_once + FINISHES_AT_ONCE, -(-left // max(1, len(self._fleet.members))))
        return len(member.tasks) < most

    def _give(self, member: Member) -> bool:
        """Give a task to a worker that has room. Return whether there is one for it."""
        finishes = sum(isinstance(task, Finish) for task in member.tasks.values())
        for item in self._items:
            is_finish = isinstance(item.task, Finish)
            if finishes >= FINISHES_AT_ONCE if is_finish else len(member.tasks) - finishes >= self._at_once:
                continue
            if item.crashes and member.tasks:
                continue
            self._items.remove(item)
            self._start(member, item)
            return True
        if not self._waiting or len(member.tasks) - finishes >= self._at_once:
            return False
        if self._manifest.entries[self._waiting[0].name].crashes and member.tasks:
            return False
        first = self._begin(self._waiting.popleft())
        if first is not None:
            self._start(member, first)
        return True

    def _start(self, member: Member, item: _Item) -> None:
        self._item_of[item.task] = item
        self._fleet.give(member, item.task)

    def _begin(self, job: Job) -> _Item | None:
        """Begin a recording. Return its first task; None if it fails at once."""
        self._manifest.begin(job.name)
        entry = self._manifest.entries[job.name]
        try:
            self._check_outputs(job, is_ours=entry.owns_outputs)
        except StreamposeError as error:
            self._end(job, Outcome(State.FAILED, error=str(error)))
            return None
        self._manifest.writing(job.name)
        self._progress[job.name] = InProgress(job, self._folder_of(entry))
        left_bytes = self._bytes_total - self._bytes_ended
        is_long = job.size_bytes * max(1, len(self._fleet.members)) > left_bytes
        return _Item(Whole(job, self._piece_frames if is_long else None), entry.crashes)

    def _check_outputs(self, job: Job, *, is_ours: bool) -> None:
        """Raise `UsageError` or `SinkError` if an output is in the way and is not of this batch."""
        with ExitStack() as opened:
            for target in job.targets:
                path = os.path.join(self._out, target) if target != "null" else target  # noqa: PTH118 - keeps the /
                overwrite = self._overwrite or is_ours
                opened.enter_context(open_sink(path, overwrite=overwrite, source_path=str(job.source.source)))

    def _take(self, member: Member, task: Task, answer: Answer | Lost) -> None:
        item = self._item_of.pop(task)
        progress = self._progress.get(task.job.name)
        if progress is None or (isinstance(task, PieceOf) and progress.is_whole):
            return  # it has failed, or is processed as a whole
        if isinstance(answer, Lost):
            self._again(item, answer)
            return
        self._watch(member, answer)
        if self._stopped:
            return
        if answer.pieces:
            self._split(progress, answer.pieces)
        elif answer.outcome is None:
            self._do_whole(progress, answer.mismatch)
        elif isinstance(task, PieceOf):
            self._take_piece(progress, task, answer.outcome)
        else:
            seconds = answer.outcome.seconds + progress.seconds
            self._end(task.job, replace(answer.outcome, seconds=seconds))

    def _again(self, item: _Item, lost: Lost) -> None:
        """Let a task run again whose worker has ended."""
        job = item.task.job
        item.crashes += 1
        if item.crashes >= MOST_CRASHES:
            error = f"{item.crashes} workers ended while it was processed ({lost.reason})"
            self._end(job, Outcome(State.FAILED, error=error))
        else:
            self._items.append(item)

    def _watch(self, member: Member, answer: Answer) -> None:
        """Stop if no space is left. Use a machine no more whose networks fail again and again."""
        error = None if answer.outcome is None else answer.outcome.error
        if answer.is_full:
            self._failure = SinkError(str(error))
            self._stopped = True
        self._network_failures[member] = self._network_failures.get(member, 0) + 1 if answer.networks_failed else 0
        if self._network_failures[member] >= MOST_NETWORK_FAILURES:
            if len(self._fleet.members) == 1:
                self._failure = ModelError(str(error))
                self._stopped = True
            self._fleet.give_up(member.machine, str(error))

    def _split(self, progress: InProgress, pieces: Sequence[Piece]) -> None:
        self._items += map(_Item, progress.split(pieces))
        log.info("%s is split into %d pieces%s", progress.job.name, len(pieces), progress.told())

    def _take_piece(self, progress: InProgress, task: PieceOf, outcome: Outcome) -> None:
        if outcome.state is State.DONE:
            self._items += map(_Item, progress.take(task.piece, outcome.seconds))
        else:
            self._do_whole(progress, outcome.error)

    def _do_whole(self, progress: InProgress, reason: str | None) -> None:
        """Process a recording as a whole, because its pieces do not tell what one machine would have found."""
        log.info("%s is processed as a whole: %s", progress.job.name, reason)
        self._drop(progress)
        progress.do_whole()
        self._items.append(_Item(Whole(progress.job, None)))

    def _folder_of(self, entry: Entry) -> Path:
        """Return the folder for the raw people of a recording. It is another one if the recording changes."""
        text = json.dumps([self._key, entry.name, entry.size_bytes, entry.modified_ns])
        return self._out / PIECES / hashlib.sha256(text.encode()).hexdigest()[:32]

    def _drop(self, progress: InProgress) -> None:
        """Forget the waiting tasks of a recording, and remove its raw people."""
        self._items = deque(item for item in self._items if item.task.job.name != progress.job.name)
        progress.drop()

    def _end(self, job: Job, outcome: Outcome) -> None:
        if outcome.error is not None:  # names are enough: all paths begin alike
            outcome = replace(outcome, error=outcome.error.replace(str(job.source.source), job.name))
        progress = self._progress.pop(job.name, None)
        if progress is not None:
            self._drop(progress)
        self._manifest.end(job.name, outcome)
        self._ended[outcome.state] += 1
        if outcome.frames:
            self._bytes_ended += job.size_bytes
        else:  # it took no time, and says nothing about the time that others take
            self._bytes_total -= job.size_bytes
