"""Interfaces between the pipeline and its parts: sources, the two networks, custom steps and the annotator."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from streampose.frames import Boxes, Captured, Image, People, Poses, Result, Shrink, Skeleton, SourceInfo
from streampose.meter import SourceMeter
from streampose.networks.pending import Pending
from streampose.people.track import Tracker
from streampose.pipeline.savepoints import Journal, Saved
from streampose.sinks.sink import Sink

if TYPE_CHECKING:
    import torch


class FrameSource(Protocol):
    """A source, as the pipeline uses it."""

    info: SourceInfo
    meter: SourceMeter

    def captures(self) -> Iterator[Captured]: ...
    def interrupt(self) -> None: ...
    def close(self) -> None: ...


class Detector(Protocol):
    """A detector, as the pipeline uses it."""

    name: str
    label_of: dict[int, str]

    def detect(self, images: Sequence[torch.Tensor], shrinks: Sequence[Shrink | None] | None = None) -> list[Boxes]: ...


class Pose(Protocol):
    """A pose network, as the pipeline uses it."""

    name: str
    skeleton: Skeleton

    def begin(self, images: Sequence[torch.Tensor], boxes: Sequence[Boxes]) -> Pending[Sequence[Poses]]: ...


class Finder(Protocol):
    """What finds the people in the frames of all sources, between capture and drawing."""

    def steps(self) -> list[tuple[str, Callable[[], None]]]:
        """Return the names and functions of its threads. Each runs until its input ends and passes the ending on."""

    def close(self) -> None:
        """Discard the frames that wait inside."""


class Step(Protocol):
    """Custom work on the results of one source between pose estimation and drawing."""

    def __call__(self, result: Result) -> Result:
        """Return the result to pass on. Called once per frame, in order, from one thread."""


class Drawer(Protocol):
    """An annotator, as the pipeline uses it."""

    def annotate(self, image: Image, people: People) -> Image: ...


@dataclass(frozen=True)
class Feed:
    """One source with its tracker, custom steps and sinks."""

    source: FrameSource
    sinks: Sequence[Sink] = ()
    tracker: Tracker | None = None
    """Gives people identities; None leaves them without."""
    steps: Sequence[Step] = ()
    """Applied in this order to each result, before drawing."""
    journal: Journal | None = None
    """Keeps the savepoints; None keeps none."""
    saved: Saved | None = None
    """The savepoint of an earlier run that the source, the tracker, the steps and the sinks continue from."""
