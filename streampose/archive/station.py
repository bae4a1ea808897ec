"""A worker process of a batch: holds the networks, and does the tasks that it is given, several at a time.

The frames of all its recordings and pieces share the batches of the networks. Does not know where the tasks come from.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

from streampose.archive.entry import Outcome, State
from streampose.archive.local import OPENED_AHEAD, is_full
from streampose.archive.orders import Answer, Finish, Order, PieceOf, Task, Whole
from streampose.archive.pieces import Piece, open_piece, pieces_of
from streampose.archive.raw import PiecesError, RawPeople, RawSink
from streampose.archive.tasks import Job, Opening, Sealing, begun
from streampose.assembly import Assembly
from streampose.errors import ModelError, StreamposeError, wrapped
from streampose.pipeline.parts import Feed
from streampose.pipeline.rolling import Left
from streampose.sinks.open import open_sink
from streampose.sinks.sink import Sink
from streampose.sources.open import open_source, reading_of
from streampose.sources.source import Source


@dataclass(slots=True, eq=False)
class _Work:
    """A task in progress."""

    task: Task
    answer: Future[Answer]
    pieces: list[Piece] = field(default_factory=list)
    began_s: float = field(default_factory=time.monotonic)


class Station:
    """Does tasks with networks that are loaded once. `submit` and the counts can be used from any thread."""

    def __init__(self, order: Order) -> None:
        """Load the networks. Raises `UsageError` and `ModelError`."""
        self._order = order
        self._assembly = Assembly(order.asked)
        self._pipeline = self._assembly.rolling_pipeline()
        self._inbox: deque[_Work] = deque()
        self._opening: list[tuple[_Work, Opening]] = []
        self._running: dict[Source, _Work] = {}
        self._sealing: list[tuple[_Work, Sealing, Answer]] = []
        self._failure: BaseException | None = None
        self._lock = threading.Lock()
        self._open_answers: set[Future[Answer]] = set()
        threading.Thread(target=self._run, name="streampose station", daemon=True).start()

    @property
    def counts(self) -> tuple[int, int]:
        """The frames that have passed the networks, and the people in them."""
        return self._pipeline.meter.frames, self._pipeline.meter.people

    def submit(self, task: Task) -> Future[Answer]:
        """Begin a task. Its future raises an error if the station cannot go on."""
        work = _Work(task, Future())
        with self._lock:
            if self._failure is not None:
                raise self._failure
            self._open_answers.add(work.answer)
        if isinstance(task, Finish):
            threading.Thread(target=self._finish, args=(work, task), name="streampose finish", daemon=True).start()
        else:
            self._inbox.append(work)
        return work.answer

    def _run(self) -> None:
        failure: BaseException = StreamposeError("the worker has ended")
        try:
            with self._pipeline as pipeline:
                for _ in pipeline.ticks():
                    self._admit()
                    self._see_off()
        except BaseException as error:
            failure = error
        with self._lock:
            self._failure = failure
            answers, self._open_answers = self._open_answers, set()
        for answer in answers:
            answer.set_exception(failure)

    def _reply(self, work: _Work, answer: Answer) -> None:
        with self._lock:
            if work.answer not in self._open_answers:
                return
            self._open_answers.remove(work.answer)
        if answer.outcome is not None and answer.outcome.error is not None:
            job = work.task.job  # names are enough: all paths begin alike
            error = answer.outcome.error.replace(str(job.source.source), job.name)
            answer = replace(answer, outcome=replace(answer.outcome, error=error))
        work.answer.set_result(answer)

    def _admit(self) -> None:
        """Open what comes next, and pass what is open to the pipeline."""
        while self._inbox and len(self._opening) < self._order.files_at_once + OPENED_AHEAD:
            work = self._inbox.popleft()
            self._opening.append((work, Opening(work.task.job, self._order.stall_after_s, _opener(work))))
        for work, opening in list(self._opening):
            if opening.is_over and self._pipeline.reading < self._order.files_at_once:
                self._opening.remove((work, opening))
                self._take_opened(work, opening)

    def _take_opened(self, work: _Work, opening: Opening) -> None:
        try:
            source = opening.result()
            if len(work.pieces) > 1:
                source.close()
                self._reply(work, Answer(pieces=tuple(work.pieces)))
                return
            try:
                feed = self._feed_of(work.task, source)
            except BaseException:
                source.close()
                raise
        except StreamposeError as error:
            self._reply(work, Answer(_failed(work, [error]), is_full=is_full(error)))
            return
        self._running[source] = work
        self._pipeline.add(feed)

    def _feed_of(self, task: Task, source: Source) -> Feed:
        if isinstance(task, PieceOf):
            task.path.parent.mkdir(parents=True, exist_ok=True)
            return Feed(source, [RawSink(task.path, task.piece.frames)])
        with ExitStack() as opened:
            sinks = [opened.enter_context(sink) for sink in self._sinks_of(task.job, source)]
            feed = self._assembly.feed(source, sinks)
            feed = begun(task.job, feed, self._assembly.identity(), Path(self._order.out), is_continued=True)
            opened.pop_all()
        return feed

    def _sinks_of(self, job: Job, source: Source) -> list[Sink]:
        """Return the sinks of a recording. They may replace what is there: see `ClusterRun`."""
        out = self._order.out
        return [
            open_sink(
                os.path.join(out, target) if target != "null" else target,  # noqa: PTH118 - keeps the /
                overwrite=True,
                source_path=source.info.place,
                speed=self._order.speed,
            )
            for target in job.targets
        ]

    def _see_off(self) -> None:
        for left in self._pipeline.left():
            assert isinstance(left.feed.source, Source)
            work = self._running.pop(left.feed.source)
            answer = Answer(
                networks_failed=any(isinstance(error, ModelError) for error in left.errors),
                is_full=any(map(is_full, left.errors)),
            )
            if isinstance(work.task, PieceOf):
                self._reply(work, replace(answer, outcome=_outcome_of_piece(work, work.task, left)))
            else:
                self._sealing.append((work, self._seal(work, left), answer))
        for work, sealing, answer in list(self._sealing):
            if sealing.is_over:
                self._sealing.remove((work, sealing, answer))
                self._reply(work, replace(answer, outcome=sealing.result()))

    def _seal(self, work: _Work, left: Left) -> Sealing:
        return Sealing(work.task.job, work.began_s, left, Path(self._order.out))

    def _finish(self, work: _Work, task: Finish) -> None:
        """Process a recording whose people are known. Runs in a thread of its own."""
        try:
            source = open_source(task.job.source)
            try:
                feed = self._feed_of(task, source)
            except BaseException:
                source.close()
                raise
            errors: list[StreamposeError] = []
            run = self._assembly.recalled_run(feed, RawPeople(task.paths))
            try:
                with run:
                    for _ in run:
                        pass
            except PiecesError as error:
                self._reply(work, Answer(mismatch=str(error)))
                return
            except StreamposeError as error:
                errors.append(error)
            left = Left(feed, not errors, tuple(errors), next(iter(run.stats()["sources"].values())))
            answer = Answer(self._seal(work, left).result(), is_full=any(map(is_full, errors)))
        except Exception as error:
            failure = wrapped(StreamposeError, f"{task.job.name} cannot be finished", error)
            answer = Answer(_failed(work, [failure]), is_full=is_full(failure))
        self._reply(work, answer)


def _opener(work: _Work) -> Callable[[], Source]:
    """Return what opens a recording, or a piece of it."""
    task = work.task
    one = task.job.source

    def recording() -> Source:
        source = open_source(one)
        if isinstance(task, Whole) and task.piece_frames is not None:
            try:
                work.pieces = pieces_of(source, reading_of(one), task.piece_frames)
            except BaseException:
                source.close()
                raise
        return source

    def piece() -> Source:
        assert isinstance(task, PieceOf)
        text = f"{one.source} (piece {task.piece.number})"  # the texts of sources in a pipeline are different
        return open_piece(str(one.source), text, reading_of(one), task.piece)

    return piece if isinstance(task, PieceOf) else recording


def _failed(work: _Work, errors: list[StreamposeError]) -> Outcome:
    seconds = time.monotonic() - work.began_s
    return Outcome(State.FAILED, seconds=seconds, error="; ".join(map(str, errors)))


def _outcome_of_piece(work: _Work, task: PieceOf, left: Left) -> Outcome:
    if left.errors or not task.path.is_file():
        return _failed(work, list(left.errors) or [StreamposeError("its frames are not those that were expected")])
    return Outcome(State.DONE, left.stats["delivered"], left.stats["people"], time.monotonic() - work.began_s)
