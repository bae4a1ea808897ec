"""Applies rules to the people of a source, and tells events.

Pure logic, with the time passed in: a dropped frame or a varying rate is an ordinary case. docs/rules.md describes the
rules.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import NamedTuple

import numpy as np

from streampose.errors import UsageError
from streampose.frames import NO_TRACK, Float32, Int64, People, Result
from streampose.people import REMEMBER_S, State
from streampose.people.conditions import Condition, Measured, bind
from streampose.people.events import Event, Kind
from streampose.people.falls import Memory
from streampose.people.names import plain_names
from streampose.people.renames import FOUND_AGAIN_S, SAME_BOX_IOU, overlaps_of_pairs, renames
from streampose.people.rule_book import Rule, RuleBook
from streampose.people.scene import Scene
from streampose.people.similarity import SURE_SCORE
from streampose.people.timing import Timing, Truth

MOST_REMEMBERED = 1000
"""Maximum people remembered; those unseen for longest are forgotten first."""
TIDY_EVERY_S = 1.0


@dataclass(slots=True)
class Case:
    """One rule applied to one person, or to everybody."""

    timing: Timing
    held: list[bool]
    """Whether each condition held when it was last known."""
    memories: list[Memory]
    """Of each condition."""

    @classmethod
    def new(cls, conditions: Sequence[Condition]) -> Case:
        return cls(Timing(), [False] * len(conditions), [{} for _ in conditions])


@dataclass(slots=True)
class Person:
    """What is remembered of a person."""

    box_xyxy: tuple[float, float, float, float]
    """Where they were last seen,"""
    seen_s: float
    """and when."""
    cases: list[Case]
    """Of each rule about people."""

    def is_busy(self) -> bool:
        """Whether something can change while they are away."""
        return any(not case.timing.is_idle for case in self.cases)


class Ready(NamedTuple):
    """A rule, for one skeleton."""

    rule: Rule
    conditions: list[Condition]
    is_moment: bool


class Watch:
    """Applies the rules of a file to the people of one source. Call `update` once per frame, in order."""

    def __init__(
        self, book: RuleBook, source_id: str, keypoint_names: Sequence[str], *, min_score: float = SURE_SCORE
    ) -> None:
        """Prepare the rules for a skeleton.

        Args:
            book: the rules. Those for other sources are left out.
            source_id: name of the source.
            keypoint_names: of the skeleton, in any usual spelling.
            min_score: keypoints with a lower score count as missing.

        Raises:
            UsageError: the skeleton lacks a keypoint that a rule names.
        """
        self.source_id = source_id
        self._min_score = min_score
        names = plain_names(keypoint_names)
        rules = [
            Ready(rule, _bound(rule, names, book.where), rule.is_moment)
            for rule in book.rules
            if rule.sources is None or source_id in rule.sources
        ]
        self._of_people = [one for one in rules if not one.rule.is_about_all]
        self._of_all = [one for one in rules if one.rule.is_about_all]
        self._all = [Case.new(one.conditions) for one in self._of_all]
        self._people: dict[int, Person] = {}
        self._before: list[int] = []
        """The identities in the latest frame, in order."""
        self._number = 0
        self._last_s, self._last_frame = float("-inf"), -1
        self._tidied_s = float("-inf")

    def update(self, people: People, pts_s: float, frame: int, *, width: int, height: int) -> list[Event]:
        """Return the events of a frame.

        Args:
            people: everybody in it. Rules about a person apply to those with an identity.
            pts_s: its time. A frame without a time, NaN, has no events.
            frame: its index.
            width, height: its size in pixels.
        """
        if not np.isfinite(pts_s):
            return []
        self._last_s, self._last_frame = pts_s, frame
        is_tracked = people.track_ids != NO_TRACK
        scene = Scene(people, pts_s, width, height, self._min_score)
        tracked = scene if is_tracked.all() else Scene(people[is_tracked], pts_s, width, height, self._min_score)
        events: list[Event] = []
        if self._of_people:
            events += self._rename(tracked.people.track_ids, tracked.people.boxes_xyxy, pts_s)
            events += self._each(tracked)
        for ready, case in zip(self._of_all, self._all, strict=True):
            measured = [
                condition.measure(scene, [memory])
                for condition, memory in zip(ready.conditions, case.memories, strict=True)
            ]
            events += self._step(ready, case, measured, 0)
        if pts_s - self._tidied_s >= TIDY_EVERY_S:
            self._tidied_s = pts_s
            self._forget(pts_s)
        return events

    def finish(self) -> list[Event]:
        """Return the ends of all events that last, because the source has ended."""
        events = [
            event
            for identity, person in self._people.items()
            for ready, case in zip(self._of_people, person.cases, strict=True)
            for event in self._end(ready.rule, case, identity, person)
        ]
        for ready, case in zip(self._of_all, self._all, strict=True):
            events += self._end(ready.rule, case)
        return sorted(events, key=lambda event: event.number)

    def state(self) -> State:
        """Return everything that the next frames depend on."""
        return {
            "people": [[identity, asdict(person)] for identity, person in self._people.items()],
            "all": [asdict(case) for case in self._all],
            "before": self._before,
            "number": self._number,
            "last_s": self._last_s,
            "last_frame": self._last_frame,
            "tidied_s": self._tidied_s,
        }

    def restore(self, state: State) -> None:
        """Continue as the watch whose `state` it was."""
        self._people = {
            identity: Person(tuple(one["box_xyxy"]), one["seen_s"], [_case_of(case) for case in one["cases"]])
            for identity, one in state["people"]
        }
        self._all = [_case_of(case) for case in state["all"]]
        self._before, self._number = list(state["before"]), state["number"]
        self._last_s, self._last_frame = state["last_s"], state["last_frame"]
        self._tidied_s = state["tidied_s"]

    def _each(self, scene: Scene) -> list[Event]:
        """Apply the rules about people to those of a frame, and let the events of the others end."""
        ids = scene.people.track_ids.tolist()
        here = []
        for identity, box in zip(ids, scene.people.boxes_xyxy.tolist(), strict=True):
            person = self._people.get(identity)
            if person is None:
                cases = [Case.new(ready.conditions) for ready in self._of_people]
                person = self._people[identity] = Person(tuple(box), scene.pts_s, cases)
            person.box_xyxy, person.seen_s = tuple(box), scene.pts_s
            here.append(person)
        away = [one for one in self._people.items() if one[1].seen_s < scene.pts_s and one[1].is_busy()]
        events: list[Event] = []
        for number, ready in enumerate(self._of_people):
            if here:
                measured = [
                    condition.measure(scene, [person.cases[number].memories[k] for person in here])
                    for k, condition in enumerate(ready.conditions)
                ]
                for row, (identity, person) in enumerate(zip(ids, here, strict=True)):
                    events += self._step(ready, person.cases[number], measured, row, identity, person)
            for identity, person in away:
                events += self._step(ready, person.cases[number], None, 0, identity, person)
        return events

    def _step(
        self,
        ready: Ready,
        case: Case,
        measured: Sequence[Measured] | None,
        row: int,
        identity: int | None = None,
        person: Person | None = None,
    ) -> list[Event]:
        """Return the events of one case in this frame. `measured` is None if the person is away."""
        holds = None if measured is None else _judge(case, measured, row)
        kinds = case.timing.step(holds, self._last_s, ready.rule.times, is_moment=ready.is_moment)
        events = []
        for kind in kinds:
            if kind == "start":
                self._number += 1
                case.timing.number = self._number
            values = {} if kind == "end" else _values(measured or (), row)
            events.append(self._event(kind, ready.rule, case, identity, person, values))
            if kind == "end":
                case.timing.rest()
        return events

    def _event(
        self,
        kind: Kind,
        rule: Rule,
        case: Case,
        identity: int | None,
        person: Person | None,
        values: dict[str, float],
    ) -> Event:
        timing = case.timing
        return Event(
            kind,
            rule.name,
            self.source_id,
            timing.number,
            identity,
            self._last_s,
            self._last_frame,
            self._last_s if timing.since_s is None else timing.since_s,
            timing.held_s if kind == "end" else None,
            values,
            None if person is None else person.box_xyxy,
        )

    def _end(
        self, rule: Rule, case: Case, identity: int | None = None, person: Person | None = None
    ) -> Iterator[Event]:
        """Yield the end of an event if one lasts, and end it."""
        if case.timing.number:
            yield self._event("end", rule, case, identity, person, {})
            case.timing.rest()

    def _rename(self, ids: Int64, boxes_xyxy: Float32, pts_s: float) -> list[Event]:
        """Let what is remembered of people move with them where the tracker has renamed them."""
        if self._is_usual(ids, boxes_xyxy):
            return []
        recent = [one for one in self._people.items() if pts_s - one[1].seen_s <= FOUND_AGAIN_S]
        found = renames(
            np.array([identity for identity, _ in recent], np.int64),
            np.array([person.box_xyxy for _, person in recent], np.float32).reshape(-1, 4),
            np.array([person.seen_s for _, person in recent]),
            ids,
            boxes_xyxy,
            pts_s,
            np.array([identity in self._people for identity in ids.tolist()], np.bool_),
        )
        moved = {new: self._people.pop(old) for old, new in found.items()}
        events: list[Event] = []
        for new, person in moved.items():
            known = self._people.get(new)
            if known is not None:
                for ready, case, other in zip(self._of_people, known.cases, person.cases, strict=True):
                    if case.timing.number and other.timing.number:
                        events += self._end(ready.rule, other, new, person)
                    other.timing, timing = case.timing, other.timing
                    other.timing.join(timing)
            self._people[new] = person
        return events

    def _is_usual(self, ids: Int64, boxes_xyxy: Float32) -> bool:
        """Return whether the people of a frame are those of the frame before, and stand where they stood."""
        here = sorted(ids.tolist())
        if here != self._before:
            self._before = here
            return False
        if not here:
            return True
        before = np.array([self._people[identity].box_xyxy for identity in ids.tolist()], np.float32)
        return bool((overlaps_of_pairs(before, boxes_xyxy) >= SAME_BOX_IOU).all())

    def _forget(self, pts_s: float) -> None:
        """Forget people who are away and of whom nothing is worth remembering."""
        for identity, person in list(self._people.items()):
            free_s = max((case.timing.free_s for case in person.cases), default=0.0)
            if pts_s - person.seen_s > REMEMBER_S and not person.is_busy() and pts_s >= free_s:
                del self._people[identity]
        if len(self._people) > MOST_REMEMBERED:
            oldest = sorted(self._people, key=lambda identity: self._people[identity].seen_s)
            for identity in oldest[: len(self._people) - MOST_REMEMBERED]:
                if not self._people[identity].is_busy():
                    del self._people[identity]


class RuleStep:
    """A step of the pipeline that applies rules to the results of one source and hands the events on."""

    def __init__(self, watch: Watch, tell: Callable[[Event, Result], None]) -> None:
        """Hand each event on to `tell`, with the result of its frame. It is called from the thread of the step."""
        self._watch, self._tell = watch, tell

    def __call__(self, result: Result) -> Result:
        """Return the result as it is."""
        height, width = result.frame.image.shape[:2]
        frame = result.frame
        for event in self._watch.update(result.people, frame.pts_s, frame.index, width=width, height=height):
            self._tell(event, result)
        return result

    def state(self) -> State:
        """Return everything that the next frames depend on."""
        return self._watch.state()

    def restore(self, state: State) -> None:
        """Continue as the step whose `state` it was."""
        self._watch.restore(state)


def check_skeleton(book: RuleBook, keypoint_names: Sequence[str]) -> None:
    """Raise `UsageError` if a rule names a keypoint or an angle that a skeleton does not have."""
    for rule in book.rules:
        _bound(rule, plain_names(keypoint_names), book.where)


def _bound(rule: Rule, names: Sequence[str], where: str) -> list[Condition]:
    try:
        return bind(rule.when.specs, names, rule.margin)
    except UsageError as error:
        raise UsageError(f"{where}: rules.{rule.name}.when: {error}") from error


def _judge(case: Case, measured: Sequence[Measured], row: int) -> Truth:
    """Return whether all conditions of a case hold, and remember which do."""
    holds: Truth = True
    for number, one in enumerate(measured):
        slack = one.slack if isinstance(one.slack, float) else float(one.slack[row])
        limit = -slack if case.held[number] else 0.0
        if one.low[row] >= limit:
            case.held[number] = True
        elif one.high[row] < limit:
            case.held[number] = holds = False
        elif holds:
            holds = None
    return holds


def _values(measured: Sequence[Measured], row: int) -> dict[str, float]:
    """Return what was measured of a person; nothing that is unknown."""
    return {
        name: float(values[row]) for one in measured for name, values in one.values.items() if np.isfinite(values[row])
    }


def _case_of(state: State) -> Case:
    return Case(**{**state, "timing": Timing(**state["timing"])})
