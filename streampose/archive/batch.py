"""A batch: many recordings with the same options, of which those are processed that are not done yet.

Connects the parts: `plan` says what is to be done, `manifest` keeps what is known, and `local` or `cluster` does the
work.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace, TracebackType
from typing import TYPE_CHECKING, Any, Self

from streampose._version import __version__
from streampose.archive.entry import Entry, State
from streampose.archive.manifest import Manifest, peek
from streampose.archive.plan import Plan, check_targets, find_inputs, make_plan, targets_of
from streampose.archive.report import REPORT, Snapshot, Summary, summary_of, write_report
from streampose.errors import UsageError
from streampose.inputs import Input
from streampose.kinds import SWITCH
from streampose.options import check, default_of, option_named, options_of
from streampose.picker import part_of
from streampose.sinks.target import name_of

if TYPE_CHECKING:
    from streampose.archive.cluster import ClusterRun
    from streampose.archive.local import LocalRun
    from streampose.archive.orders import Probe
    from streampose.archive.tasks import Job

log = logging.getLogger("streampose")

_OF_PROGRAM = frozenset(["to", "stats", "progress", "quiet", "resume"])
_OF_RUN = [option.name for option in options_of("run") if not option.of_source and option.name not in _OF_PROGRAM]
"""The options that networks, pipeline and drawing are made with."""
_OF_SOURCE = [option.name for option in options_of("batch") if option.of_source]
_OF_MACHINE = frozenset(
    [
        "out",
        "overwrite",
        "retry_failed",
        "dry_run",
        "files_at_once",
        "progress",
        "quiet",
        "allow_pickle",
        "stall_after_s",
    ]
    + ["device", "compile", "warm_up", "detect_batch", "pose_batch", "ray", "ray_processes", "split_frames"]
)
"""The options that may be different in each start: they change no output, apart from the last digits of numbers."""


class Batch:
    """Many recordings with the same options. Use it as a context manager: `open`, `load`, then iterate over `ticks`."""

    def __init__(self, inputs: Sequence[str], values: dict[str, Any]) -> None:
        """Check the options and find the recordings. Nothing on disk changes.

        Args:
            inputs: see `find_inputs`.
            values: the options of `streampose batch` that differ from the defaults.

        Raises:
            UsageError: an option is invalid, or there is no recording.
            SourceError, SinkError: the recordings or the output folder cannot be accessed.
        """
        if not values.get("out"):
            raise UsageError("no output folder given: name one with `out`")
        names = [option.name for option in options_of("batch")]
        self._options = check({name: values.get(name, default_of(name)) for name in names}, names)
        every = {name: self._options.get(name, default_of(name)) for name in _OF_RUN}
        self._asked = SimpleNamespace(**check(every, _OF_RUN))
        if isinstance(self._asked.only, int) and not self._asked.track:
            raise UsageError(f"`only` names identity {self._asked.only}, but `track` is off: allow tracking")
        if self._asked.detect_every == "auto":
            raise UsageError("`detect_every` auto depends on the speed of the machine: give a number")
        self._of_source = {name: self._options[name] for name in _OF_SOURCE}
        part_of(self._of_source["start_s"], self._of_source["end_s"], self._of_source["every"])
        self.out = Path(self._options["out"])
        self._targets: list[str] = list(self._options["targets"])
        check_targets(self._targets, self.out)
        self._inputs = find_inputs(inputs, self.out)
        self._manifest: Manifest | None = None
        self._plan = Plan()
        self._run: LocalRun | ClusterRun | None = None
        self._probe: Probe | None = None
        self._stopped = False
        self._seconds = 0.0

    @property
    def settings(self) -> dict[str, Any]:
        """What must be the same in each start, as JSON values."""
        kept = {name: value for name, value in self._options.items() if name not in _OF_MACHINE}
        return {"root": self._inputs.root, **kept}

    @property
    def report_path(self) -> Path:
        """Where `report` writes."""
        return self.out / REPORT

    @property
    def leaves_threads(self) -> bool:
        """Whether a thread hangs, which keeps Python from a normal exit."""
        return self._run is not None and self._run.leaves_threads

    def would_do(self) -> Iterator[str]:
        """Yield a line per recording that says what would be done with it, then the totals. Nothing on disk changes."""
        settings, known = peek(self.out)
        self._check_settings(settings)
        plan = make_plan(self._inputs.recordings, known, retry_failed=self._options["retry_failed"])
        entries = known | {entry.name: entry for entry in plan.entries}
        queued = {one.name for one in plan.queue}
        for one in self._inputs.recordings:
            entry = entries[one.name]
            if one.name not in queued:
                yield f"{entry.state:7} {name_of(one.path)}" + (f": {entry.error}" if entry.error else "")
                continue
            targets = targets_of(entry, self._targets)
            what = "again" if entry.attempts else "process"
            yield f"{what:7} {name_of(one.path)} -> {', '.join(map(name_of, targets))}"
        states = [entries[one.name].state for one in self._inputs.recordings if one.name not in queued]
        done, failed = states.count(State.DONE), states.count(State.FAILED)
        yield f"{len(queued)} to process, {done} done, {failed} failed; nothing was changed"

    def open(self) -> None:
        """Open the manifest and decide what is to be done.

        Raises:
            UsageError: the batch in the output folder has other settings, or another program processes it.
            SinkError: the output folder cannot be written.
        """
        self._manifest = manifest = Manifest(self.out)
        self._check_settings(manifest.settings)
        self._plan = make_plan(self._inputs.recordings, manifest.entries, retry_failed=self._options["retry_failed"])
        for name in self._plan.changed:
            log.info("%s has changed since it was processed: it is processed again", name_of(name))
        if self._plan.gone:
            log.info("%d files of the batch are not there any more and were not done", len(self._plan.gone))
        manifest.keep_settings(self.settings)
        manifest.put(self._plan.entries, forget=self._plan.gone)

    def load(self, prepare: Callable[[], None]) -> None:
        """Load the networks, if there is anything to do, or connect to the cluster that will.

        Args:
            prepare: sets up a worker process on another machine, to which it is sent.

        Raises:
            UsageError, ModelError: the networks cannot be loaded.
            StreamposeError: there is no such cluster.
        """
        if not self._plan.queue or self._manifest is None:
            return
        from streampose.archive.tasks import Job

        entries = self._manifest.entries
        jobs = [
            Job(
                one.name,
                Input(Path(one.path), **self._of_source),
                tuple(targets_of(entries[one.name], self._targets)),
                one.size_bytes,
            )
            for one in self._plan.queue
        ]
        if self._options["ray"] is None:
            self._run = self._local_run(jobs, self._manifest)
        else:
            self._run = self._cluster_run(jobs, self._manifest, prepare)

    def ticks(self) -> Iterator[None]:
        """Process the recordings, and yield several times per second, so that the caller can do other work.

        Raises:
            StreamposeError: the batch cannot go on; see `LocalRun.ticks`. A recording that fails raises nothing.
        """
        if self._run is None or self._stopped:
            return
        began_s = time.monotonic()
        try:
            for _ in self._run.ticks():
                self._seconds = time.monotonic() - began_s
                yield
        finally:
            self._seconds = time.monotonic() - began_s

    def stop(self) -> None:
        """Stop soon. Call it from any thread or a signal handler."""
        self._stopped = True
        if self._run is not None:
            self._run.stop()

    def snapshot(self) -> Snapshot:
        """Return how far the batch is."""
        if self._run is None:
            return Snapshot(0, 0, 0, 0.0, 0, 0, None, ())
        return self._run.snapshot()

    def summary(self) -> Summary:
        """Return what was done."""
        assert self._manifest is not None
        run = self._run
        return summary_of(
            self._entries(),
            done_now=run.done if run else 0,
            frames=run.frames if run else 0,
            people=run.people if run else 0,
            seconds=self._seconds,
        )

    def report(self) -> None:
        """Write `batch.json`, unless nothing has changed since the last start. Raises `SinkError`."""
        assert self._manifest is not None
        has_changed = self._run is not None or self._plan.entries or self._plan.gone
        if not has_changed and (self.out / REPORT).exists():
            return
        write_report(self.out, self.summary(), self._entries(), self._manifest.settings)

    def close(self) -> None:
        """Close the manifest, so that another program can go on. Safe to call twice."""
        if self._probe is not None:
            self._probe.close()
        if self._manifest is not None:
            self._manifest.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _local_run(self, jobs: Sequence[Job], manifest: Manifest) -> LocalRun:
        from streampose.archive.local import LocalRun  # after the cheap checks, because these imports take seconds
        from streampose.assembly import Assembly

        return LocalRun(
            jobs,
            manifest,
            Assembly(self._asked),
            self.out,
            overwrite=self._options["overwrite"],
            speed=self._options["speed"],
            files_at_once=self._options["files_at_once"],
            stall_after_s=self._options["stall_after_s"],
        )

    def _cluster_run(self, jobs: Sequence[Job], manifest: Manifest, prepare: Callable[[], None]) -> ClusterRun:
        from streampose.archive.cluster import ClusterRun
        from streampose.archive.fleet import Fleet
        from streampose.archive.orders import Order, Probe

        self._probe = Probe(self.out)
        example = self._plan.queue[0]
        order = Order(
            self._asked,
            os.getcwd(),  # noqa: PTH109 - a text
            str(self.out),
            str(self._probe.path),
            self._probe.secret,
            example.path,
            example.size_bytes,
            __version__,
            self._options["speed"],
            self._options["files_at_once"],
            self._options["stall_after_s"],
        )
        can_split = self._options["detect_every"] == 1  # otherwise the boxes depend on the frames before
        return ClusterRun(
            jobs,
            manifest,
            Fleet(self._options["ray"], order, prepare, self._options["ray_processes"]),
            self.out,
            overwrite=self._options["overwrite"],
            files_at_once=self._options["files_at_once"],
            piece_frames=self._options["split_frames"] or None if can_split else None,
            key=[__version__, self.settings],
        )

    def _entries(self) -> list[Entry]:
        assert self._manifest is not None
        return list(self._manifest.entries.values())

    def _check_settings(self, before: dict[str, Any] | None) -> None:
        """Raise `UsageError` if the batch in the output folder was begun with other settings."""
        if before is None:
            return
        for name, now in self.settings.items():
            was = before.get(name)
            if was == now:
                continue
            out = name_of(self.out)
            if name == "root":
                raise UsageError(
                    f"{out} holds the batch of {name_of(str(was))}, but the input is {name_of(now)}: use another `out`"
                )
            raise UsageError(
                f"{out} holds a batch {_shown(name, was)}, but this start is {_shown(name, now)}: use the same "
                "options, or another `out`"
            )


def _shown(name: str, value: Any) -> str:
    option = option_named(name)
    if option.kind is SWITCH:
        return f"{'without' if value == option.default else 'with'} `{name}`"
    if value is None:
        return f"without `{name}`"
    return f"with `{name}` {' '.join(map(str, value)) if isinstance(value, list) else value}"
