"""Processes the recordings of a batch in this process: the networks are loaded once, and batches hold frames of several
recordings.

Each recording is opened by a thread of its own, passes through the pipeline with its sinks, and is then hashed by
another thread. The caller's thread does the rest. Knows nothing about how recordings are found and outputs are named.
"""

from __future__ import annotations

import errno
import os
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from streampose.archive.entry import Outcome, State
from streampose.archive.manifest import Manifest
from streampose.archive.report import Running, Snapshot
from streampose.archive.tasks import Job, Opening, Sealing, begun
from streampose.assembly import Assembly
from streampose.errors import ModelError, StreamposeError
from streampose.pipeline.parts import Feed
from streampose.pipeline.rolling import Left
from streampose.sinks.open import open_sink
from streampose.sources.source import Source

OPENED_AHEAD = 2
"""Recordings that are opened before their turn, so that the networks do not wait for it."""
ENDING = 2
"""Recordings that may be in progress beyond those that are read: their last frames are drawn and encoded."""
MOST_NETWORK_FAILURES = 3
"""If the networks fail on so many recordings in a row, the cause is not the recordings."""
STOPS_WITHIN_S = 5.0
"""Maximum time that the end waits for a recording that is being opened."""


class LocalRun:
    """Processes recordings and records in the manifest what becomes of each."""

    def __init__(
        self,
        jobs: Sequence[Job],
        manifest: Manifest,
        assembly: Assembly,
        out: Path,
        *,
        overwrite: bool,
        speed: float,
        files_at_once: int,
        stall_after_s: float,
    ) -> None:
        """Prepare the run. Work starts with the iteration over `ticks`.

        Args:
            jobs: the recordings, in this order.
            out: the output folder.
            overwrite: replace files that the batch did not write.
            speed: speed of video files, relative to the source.
            files_at_once: maximum recordings that are read at the same time.
            stall_after_s: give up a recording whose processing makes no progress for this many seconds.
        """
        self._waiting = deque(jobs)
        self._manifest = manifest
        self._assembly = assembly
        self._pipeline = assembly.rolling_pipeline()
        self._out = out
        self._overwrite = overwrite
        self._speed = speed
        self._files_at_once = files_at_once
        self._stall_after_s = stall_after_s
        self._opening: list[Opening] = []
        self._running: dict[Source, tuple[Job, float]] = {}
        """The recordings in the pipeline, with the time at which they were opened."""
        self._sealing: list[Sealing] = []
        self._stopped = False
        self._network_failures = 0
        self._failure: StreamposeError | None = None
        self._files_total = len(self._waiting)
        self._bytes_total = sum(job.size_bytes for job in jobs)
        self._bytes_ended = 0
        self._ended = dict.fromkeys(State, 0)
        self._began_s = time.monotonic()
        self._hangs = False

    @property
    def leaves_threads(self) -> bool:
        """Whether a thread hangs, which keeps Python from a normal exit."""
        return self._hangs or bool(self._pipeline.abandoned)

    @property
    def frames(self) -> int:
        """Frames so far."""
        return self._pipeline.meter.frames

    @property
    def people(self) -> int:
        """People in them."""
        return self._pipeline.meter.people

    @property
    def done(self) -> int:
        """Recordings that are done."""
        return self._ended[State.DONE]

    def stop(self) -> None:
        """Stop soon. The recordings in progress wait for the next start. Call it from any thread or signal handler."""
        self._stopped = True
        self._pipeline.stop()

    def ticks(self) -> Iterator[None]:
        """Process all recordings, and yield several times per second.

        Raises:
            StalledError: a network makes no progress.
            ModelError: the networks fail on several recordings in a row.
            SinkError: no space is left, or the manifest cannot be written.
        """
        self._began_s = time.monotonic()
        try:
            self._admit()
            with self._pipeline as pipeline:
                for _ in pipeline.ticks():
                    self._see_off()
                    if not self._stopped:
                        self._admit()
                    yield
            self._see_off()
            while self._sealing:
                time.sleep(0.01)
                self._take_sealed()
                yield
        finally:
            self._give_up_opening()
            self._manifest.release()
        if self._failure is not None:
            raise self._failure

    def snapshot(self) -> Snapshot:
        """Return how far it is."""
        elapsed_s = max(time.monotonic() - self._began_s, 1e-9)
        read_bytes = float(self._bytes_ended)
        running = []
        for source, (job, _) in self._running.items():
            stats, total = source.meter.stats(), source.info.frame_count
            frames = stats["delivered"] + stats["resumed"]
            running.append(Running(job.name, frames, total, source.meter.now()["fps_out"], stats["people"]))
            if total:
                read_bytes += job.size_bytes * min(1.0, frames / total)
        left_s = elapsed_s * (self._bytes_total - read_bytes) / read_bytes if read_bytes and self.frames else None
        return Snapshot(
            self._files_total,
            self._ended[State.DONE],
            self._ended[State.FAILED],
            elapsed_s,
            self.frames,
            self.people,
            left_s,
            tuple(running),
        )

    def _admit(self) -> None:
        """Open the next recordings, and pass those that are open to the pipeline."""
        while self._waiting and self._may_open(self._waiting[0]):
            job = self._waiting.popleft()
            self._manifest.begin(job.name)
            self._opening.append(Opening(job, self._stall_after_s))
        for opening in list(self._opening):
            if opening.is_over and self._has_room():
                self._opening.remove(opening)
                self._take_opened(opening)
        if not (self._waiting or self._opening):
            self._pipeline.seal()

    def _may_open(self, job: Job) -> bool:
        busy = self._opening or self._running or self._sealing
        if self._manifest.entries[job.name].crashes:
            return not busy  # if the program ends again, no other recording is suspected
        return len(self._opening) < self._files_at_once + OPENED_AHEAD

    def _has_room(self) -> bool:
        """Return whether another recording can be read. Those that are read to their end are still in progress."""
        return self._pipeline.reading < self._files_at_once and len(self._running) < self._files_at_once + ENDING

    def _take_opened(self, opening: Opening) -> None:
        job = opening.job
        try:
            source = opening.result()
            try:
                feed = self._feed_of(job, source)
            except BaseException:
                source.close()
                raise
        except StreamposeError as error:
            self._hangs |= opening.hangs
            self._end(job, Outcome(State.FAILED, seconds=time.monotonic() - opening.began_s, error=str(error)))
            return
        self._running[source] = job, opening.began_s
        self._pipeline.add(feed)

    def _feed_of(self, job: Job, source: Source) -> Feed:
        """Return the feed of a recording that is open. It continues an earlier attempt that was interrupted.

        Raises:
            UsageError, SinkError: an output cannot be written, or exists and is not of this batch.
        """
        entry = self._manifest.entries[job.name]
        with ExitStack() as opened:
            sinks = [
                opened.enter_context(
                    open_sink(
                        os.path.join(self._out, target) if target != "null" else target,  # noqa: PTH118 - keeps the /
                        overwrite=self._overwrite or entry.owns_outputs,
                        source_path=source.info.place,
                        speed=self._speed,
                    )
                )
                for target in job.targets
            ]
            feed = self._assembly.feed(source, sinks)
            feed = begun(job, feed, self._assembly.identity(), self._out, is_continued=entry.owns_outputs)
            self._manifest.writing(job.name)
            opened.pop_all()
        return feed

    def _see_off(self) -> None:
        """Hash the outputs of the recordings that have left the pipeline, and record those that are hashed."""
        for left in self._pipeline.left():
            source = left.feed.source
            assert isinstance(source, Source)
            job, began_s = self._running.pop(source)
            if not left.is_complete and self._is_interrupted(left):
                self._end(job, Outcome(State.WAITING))
            else:
                self._watch_networks(left)
                self._sealing.append(Sealing(job, began_s, left, self._out))
        self._take_sealed()

    def _is_interrupted(self, left: Left) -> bool:
        """Return whether the recording must be processed again, because the run is stopped. A full disk stops it."""
        full = next((error for error in left.errors if is_full(error)), None)
        if full is not None:
            self._fail(full)
        return self._stopped

    def _watch_networks(self, left: Left) -> None:
        failure = next((error for error in left.errors if isinstance(error, ModelError)), None)
        self._network_failures = 0 if failure is None else self._network_failures + 1
        if failure is not None and self._network_failures >= MOST_NETWORK_FAILURES:
            self._fail(failure)

    def _fail(self, error: StreamposeError) -> None:
        """Stop the whole batch with this error."""
        self._failure = self._failure or error
        self.stop()

    def _take_sealed(self) -> None:
        for sealing in list(self._sealing):
            if sealing.is_over:
                self._sealing.remove(sealing)
                self._end(sealing.job, sealing.result())

    def _end(self, job: Job, outcome: Outcome) -> None:
        if outcome.error is not None:  # names are enough: all paths begin alike
            outcome = replace(outcome, error=outcome.error.replace(str(job.source.source), job.name))
        self._manifest.end(job.name, outcome)
        self._ended[outcome.state] += 1
        if outcome.frames:
            self._bytes_ended += job.size_bytes
        else:  # it took no time, and says nothing about the time that others take
            self._bytes_total -= job.size_bytes

    def _give_up_opening(self) -> None:
        until_s = time.monotonic() + STOPS_WITHIN_S
        for opening in self._opening:
            self._hangs |= not opening.give_up(until_s - time.monotonic())
        self._opening.clear()


def is_full(error: BaseException | None) -> bool:
    """Return whether a sink failed because no space is left. Every other recording would fail as well."""
    while isinstance(error, BaseException):
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        error = error.__cause__
    return False
