"""Tries rules on recorded poses."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from streampose.errors import UsageError, describe
from streampose.frames import NO_TRACK
from streampose.people.events import Event
from streampose.people.rule_book import RuleBook
from streampose.people.rules import Watch, check_skeleton
from streampose.records.poses import RecordedPoses
from streampose.sinks.target import name_of


@dataclass(slots=True)
class Tried:
    """What rules told about recorded poses."""

    name: str
    """Of the file."""
    frames: int = 0
    people: int = 0
    """In all frames together."""
    tracked: int = 0
    """Those with an identity."""
    starts: Counter[str] = field(default_factory=Counter)
    """Events by rule."""
    warnings: list[str] = field(default_factory=list)
    damage: UsageError | None = None
    """What ended the reading; None if the file was read to its end."""

    @property
    def summary(self) -> str:
        """A line for people."""
        total = self.starts.total()
        events = "1 event" if total == 1 else f"{total} events"
        of_rules = ", ".join(f"{rule} {count}" for rule, count in self.starts.items())
        return f"tried  {self.name}: {self.frames} frames, {events}" + (f" ({of_rules})" if of_rules else "")


def try_rules(poses: RecordedPoses, book: RuleBook, tell: Callable[[Event], None]) -> Tried:
    """Apply rules to recorded poses, to each source by itself, and hand the events to `tell`.

    Events that last at the end of a source end there.

    Raises:
        UsageError: the skeleton lacks a keypoint that a rule names, no frame is in the part, or no frame has a time.
    """
    check_skeleton(book, poses.skeleton.names)
    tried = Tried(name_of(poses.path))
    watches: dict[str, Watch] = {}
    sizes: dict[str, tuple[int, int]] = {}
    has_time = False

    def told(event: Event) -> None:
        tried.starts[event.rule] += event.kind == "start"
        tell(event)

    try:
        for frame in poses:
            source = frame.source_id
            if source not in watches:
                watches[source] = Watch(book, source, poses.skeleton.names)
                sizes[source] = frame.width, frame.height
            tried.frames += 1
            tried.people += len(frame.people)
            tried.tracked += int((frame.people.track_ids != NO_TRACK).sum())
            has_time = has_time or frame.pts_s == frame.pts_s
            watch = watches[source]
            for event in watch.update(frame.people, frame.pts_s, frame.index, width=frame.width, height=frame.height):
                told(event)
    except UsageError as error:
        if not tried.frames:
            raise
        tried.damage = error
    except (LookupError, TypeError, ValueError) as error:
        raise UsageError(f"{tried.name} is damaged: a person is not what a run writes ({describe(error)})") from error
    for watch in watches.values():
        for event in watch.finish():
            told(event)
    if tried.frames and not has_time:
        raise UsageError(f"{tried.name} has frames without times, which rules need")
    tried.warnings += _warnings(tried, book, sizes)
    return tried


def _warnings(tried: Tried, book: RuleBook, sizes: Mapping[str, tuple[int, int]]) -> Iterator[str]:
    """Yield why rules may have told nothing."""
    if tried.people and not tried.tracked and any(not rule.is_about_all for rule in book.rules):
        yield f"{tried.name} has no identities: only rules that count people can tell anything"
    for rule in book.rules:
        if sizes and rule.sources is not None and not sizes.keys() & set(rule.sources):
            yield f"rule {rule.name} is for {', '.join(rule.sources)}, and {tried.name} has {', '.join(sizes)}"
    for shape in book.shapes:
        if sizes and not any(shape.is_in(*size) for size in sizes.values()):
            width, height = next(iter(sizes.values()))
            yield f"{shape.name} lies outside the picture of {width}x{height}"
