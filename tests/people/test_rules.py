"""Rules on made people, exact to a frame: every condition, times, margins, gaps, rates and identities."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from copy import deepcopy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streampose.errors import UsageError
from streampose.frames import NO_TRACK, Frame, People, Result
from streampose.networks.pose import COCO_NAMES
from streampose.people.angles import AngleMeter
from streampose.people.events import Event, record_of, text_of
from streampose.people.rule_book import RuleBook, rule_book
from streampose.people.rules import RuleStep, Watch, check_skeleton
from streampose.people.scene import Scene, trunk_rows
from tests.people.scene import HEIGHT, SKELETON, WIDTH, Body, people_of
from tests.people.stick import BENT, SQUAT, STANDING, person

FPS = 25
LEFT_HALF = {"left": [[0.0, 0.0], [0.5, 0.0], [0.5, 1.0], [0.0, 1.0]]}
GATE = {"gate": [[320, 0], [320, 480]]}
FACE = ("left_eye", "right_eye", "left_ear", "right_ear")
Bodies = dict[int | None, Body]


def book_of(when: str, **keys: Any) -> RuleBook:
    return rule_book({"zones": LEFT_HALF, "lines": GATE, "rules": {"r": {"when": when, **keys}}}, "rules.toml")


def watch_of(when: str, **keys: Any) -> Watch:
    return Watch(book_of(when, **keys), "cam", COCO_NAMES)


def tracked(bodies: Bodies) -> People:
    ids = [NO_TRACK if one is None else one for one in bodies]
    return replace(people_of(list(bodies.values())), track_ids=np.array(ids, np.int64))


def play(watch: Watch, frames: Iterable[tuple[float, People]]) -> list[Event]:
    events = []
    for index, (pts_s, people) in enumerate(frames):
        events += watch.update(people, pts_s, index, width=WIDTH, height=HEIGHT)
    return events


def brief(events: Iterable[Event]) -> list[tuple[str, int, int | None]]:
    return [(one.kind, one.frame, one.person) for one in events]


def frames_of(bodies_at: Callable[[int], Bodies], count: int, fps: float = FPS) -> list[tuple[float, People]]:
    return [(index / fps, tracked(bodies_at(index))) for index in range(count)]


def at(x: float, **settings: float) -> Bodies:
    return {1: Body(x, **settings)}


INSIDE, OUTSIDE = Body(200), Body(400)


def inside_in(frames: Iterable[int], count: int, fps: float = FPS) -> list[tuple[float, People]]:
    """Return frames of person 1, who is in the left half in some of them."""
    chosen = set(frames)
    return frames_of(lambda index: {1: INSIDE if index in chosen else OUTSIDE}, count, fps)


def raised(people: People, *names: str) -> People:
    """Return people with these keypoints above their heads."""
    xy = people.keypoints_xy.copy()
    for name in names:
        xy[:, COCO_NAMES.index(name), 1] = people.boxes_xyxy[:, 1] - 5
    return replace(people, keypoints_xy=xy)


def without(people: People, *names: str) -> People:
    """Return people whose keypoints of these names are too unsure to count."""
    scores = people.keypoint_scores.copy()
    for name in names:
        scores[:, COCO_NAMES.index(name)] = 0.29
    return replace(people, keypoint_scores=scores)


def test_inside_a_zone() -> None:
    assert brief(play(watch_of("person inside left"), inside_in(range(10, 50), 100))) == [
        ("start", 10, 1),
        ("end", 74, 1),  # a second after frame 49
    ]
    assert brief(play(watch_of("person outside left"), inside_in(range(10, 50), 100))) == [
        ("start", 0, 1),
        ("end", 34, 1),
        ("start", 50, 1),
    ]


@pytest.mark.parametrize("fps", [1, 5, 10, 25, 29.97, 30, 60])
def test_for_some_time_at_any_rate(fps: float) -> None:
    count = int(20 * fps)
    start, end = play(watch_of("person inside left for 3 s"), inside_in(range(count // 4, count // 2), count, fps))
    frames = np.arange(count) / fps
    first = count // 4
    assert start.since_s == frames[first]
    assert start.frame == np.flatnonzero(frames - frames[first] >= 3 - 1e-6)[0]
    assert (end.since_s, end.until_s) == (frames[first], frames[count // 2 - 1])
    assert end.frame == np.flatnonzero(frames - end.until_s >= 1 - 1e-6)[0]


def test_almost_long_enough() -> None:
    assert play(watch_of("person inside left for 3 s"), inside_in(range(10, 85), 200)) == []
    assert brief(play(watch_of("person inside left for 3 s"), inside_in(range(10, 86), 200)))[0] == ("start", 85, 1)


def test_a_varying_rate_and_dropped_frames() -> None:
    rng = np.random.default_rng(0)
    times = np.cumsum(rng.uniform(0.01, 0.4, 200))
    inside = (times > 5) & (times < 15)
    frames = [(t, tracked({1: INSIDE if there else OUTSIDE})) for t, there in zip(times.tolist(), inside, strict=True)]
    start, end = play(watch_of("person inside left for 2 s"), frames)
    assert start.frame == np.flatnonzero(times - times[inside][0] >= 2)[0]
    assert end.frame == np.flatnonzero(times - times[inside][-1] >= 1)[0]


def test_a_hole_in_the_frames() -> None:
    """Nobody knows what happened in five seconds without frames: time starts anew, but an event does not end."""
    times = [k / FPS for k in range(50)] + [7 + k / FPS for k in range(100)]
    frames = [(t, tracked({1: INSIDE})) for t in times]
    assert [one.time_s for one in play(watch_of("person inside left for 3 s"), frames)] == [10.0]
    watch = watch_of("person inside left for 1 s")
    assert [one.time_s for one in play(watch, frames)] == [1.0]
    assert [(one.since_s, one.until_s) for one in watch.finish()] == [(0.0, times[-1])]


def test_flicker_before_a_start() -> None:
    short = [k for k in range(100) if k not in range(50, 55)]
    assert brief(play(watch_of("person inside left for 3 s"), inside_in(short, 100))) == [("start", 75, 1)]
    longer = [k for k in range(150) if k not in range(50, 57)]
    assert brief(play(watch_of("person inside left for 3 s"), inside_in(longer, 150))) == [("start", 132, 1)]


def test_how_long_an_event_lasts_without() -> None:
    apart = [k for k in range(200) if k not in range(50, 74)]
    assert brief(play(watch_of("person inside left"), inside_in(apart, 200))) == [("start", 0, 1)]
    apart = [k for k in range(200) if k not in range(50, 75)]
    assert brief(play(watch_of("person inside left"), inside_in(apart, 200))) == [
        ("start", 0, 1),
        ("end", 74, 1),
        ("start", 75, 1),
    ]
    assert len(play(watch_of("person inside left", ends_after="3s"), inside_in(apart, 200))) == 1
    at_once = brief(play(watch_of("person inside left for 1 s", ends_after=0), inside_in(range(50), 100)))
    assert at_once == [("start", 25, 1), ("end", 50, 1)]


def test_the_cool_down_is_of_each_rule_and_person() -> None:
    twice = [*range(50), *range(100, 150), *range(250, 300)]
    frames = inside_in(twice, 400)
    assert [one.frame for one in play(watch_of("person inside left"), frames) if one.kind == "start"] == [0, 100, 250]
    cooled = play(watch_of("person inside left", cool_down="5s"), frames)
    assert brief(cooled) == [("start", 0, 1), ("end", 74, 1), ("start", 250, 1), ("end", 324, 1)]
    both = [
        (pts_s, tracked({1: INSIDE if index in twice else OUTSIDE, 2: INSIDE if index >= 100 else OUTSIDE}))
        for index, (pts_s, _) in enumerate(frames)
    ]
    starts = [one for one in play(watch_of("person inside left", cool_down="5s"), both) if one.kind == "start"]
    assert brief(starts) == [("start", 0, 1), ("start", 100, 2), ("start", 250, 1)]
    waiting = play(watch_of("person inside left", cool_down="5s"), inside_in([*range(50), *range(100, 400)], 400))
    assert brief(waiting)[2] == ("start", 199, 1), "still there when the cool-down is over"


def test_holds() -> None:
    events = play(watch_of("person inside left for 1 s", hold="2s"), inside_in(range(150), 200))
    assert brief(events) == [("start", 25, 1), ("hold", 75, 1), ("hold", 125, 1), ("end", 174, 1)]
    assert {one.number for one in events} == {1}


def test_the_margin_of_a_zone() -> None:
    """Somebody of 200 pixels: 5 % are 10 pixels beyond the edge at 320."""

    def sway(index: int) -> Bodies:
        return at(320 + (8 if index % 40 >= 20 else -8))

    narrow = play(watch_of("person inside left", ends_after=0), frames_of(sway, 200))
    assert brief(narrow) == [("start", 0, 1)]
    none = play(watch_of("person inside left", ends_after=0, margin=0), frames_of(sway, 200))
    assert len(none) == 10
    assert brief(play(watch_of("person inside left"), frames_of(lambda _: at(325), 100))) == [], "has not entered"


def test_missing_people_neither_start_nor_end_an_event_at_once() -> None:
    def there(index: int) -> Bodies:
        return {} if index in range(30, 54) or index in range(100, 130) else {1: INSIDE}

    assert brief(play(watch_of("person inside left for 2 s"), frames_of(there, 200))) == [
        ("start", 54, 1),
        ("end", 124, 1),
        ("start", 180, 1),
    ]


def test_above() -> None:
    plain = people_of([Body(200)])
    one, both = raised(plain, "left_wrist"), raised(plain, "left_wrist", "right_wrist")
    ids = np.array([1])
    for when, fulfilled in (
        ("wrist above head", [False, True, True]),
        ("left hand above head", [False, True, True]),
        ("right_wrist above nose", [False, False, True]),
        ("both wrists above head", [False, False, True]),
        ("hands above head", [False, False, True]),
        ("RightWrist below hip", [False, False, False]),
        ("nose above both hips", [True, True, True]),
        ("feet below knees", [True, True, True]),
    ):
        for people, holds in zip((plain, one, both), fulfilled, strict=True):
            told = play(watch_of(when), [(0.0, replace(people, track_ids=ids))])
            assert bool(told) == holds, (when, holds)


def test_missing_keypoints() -> None:
    """One wrist is enough for `wrist`; `both` waits, and does not end at once."""
    plain = replace(people_of([Body(200)]), track_ids=np.array([1]))
    up = raised(plain, "left_wrist", "right_wrist")
    hidden = without(up, "left_wrist")
    assert play(watch_of("wrist above head"), [(0, hidden)])
    assert play(watch_of("both wrists above head"), [(0, hidden)]) == []
    assert (
        play(
            watch_of("wrist above head"),
            [(0, without(up, "nose", *FACE))],
        )
        == []
    )
    frames = [(k / FPS, hidden if k in range(30, 50) else up if k < 60 else plain) for k in range(100)]
    assert brief(play(watch_of("both wrists above head for 1 s"), frames)) == [("start", 25, 1), ("end", 84, 1)]
    frames = [(k / FPS, hidden if k >= 30 else up) for k in range(100)]
    assert brief(play(watch_of("both wrists above head for 1 s"), frames)) == [("start", 25, 1), ("end", 54, 1)]


def test_wrists_inside() -> None:
    body = replace(people_of([Body(320)]), track_ids=np.array([1]))  # the left wrist is on the right of the picture
    for when, holds in (
        ("wrist inside left", True),
        ("right wrist inside left", True),
        ("left wrist inside left", False),
        ("both wrists inside left", False),
        ("wrist outside left", True),
        ("nose inside left", True),
        ("left ankle outside left", True),
    ):
        assert bool(play(watch_of(when), [(0.0, body)])) == holds, when


def test_trunk_and_other_parts() -> None:
    bent, standing = person(BENT), person(STANDING)
    assert play(watch_of("trunk within 30 degrees of horizontal"), [(0, bent)])
    assert not play(watch_of("trunk within 30 degrees of horizontal"), [(0, standing)])
    assert play(watch_of("trunk within 30 degrees of vertical"), [(0, standing)])
    assert play(watch_of("both thighs within 5 degrees of vertical"), [(0, standing)])
    assert play(watch_of("thigh within 15 degrees of horizontal"), [(0, person(SQUAT))])
    frames = [(k / FPS, bent if 10 <= k < 100 else standing) for k in range(150)]
    start, end = play(watch_of("trunk within 30 degrees of horizontal for 3 s"), frames)
    assert (start.frame, start.since_s, end.frame) == (85, 0.4, 124)
    assert start.values == {"trunk_steepness": pytest.approx(5, abs=0.1)}


@settings(deadline=None)
@given(st.floats(-180, 180))
def test_the_trunk_is_as_steep_as_in_the_angles(degrees: float) -> None:
    people = person(replace(STANDING, trunk=degrees))
    (angle,) = AngleMeter(COCO_NAMES, ["trunk"]).measure(people).degrees[0]
    steep = Scene(people, 0, 640, 480, 0.3).trunk(trunk_rows(COCO_NAMES)).steep_degrees[0]
    assert steep == pytest.approx(min(abs(angle), 180 - abs(angle)), abs=1e-3)


def test_the_slack_of_angles() -> None:
    def leaning(degrees: float) -> People:
        return person(replace(STANDING, trunk=90 - degrees))

    frames = [(k / FPS, leaning(29 if k < 10 else 34)) for k in range(100)]
    assert len(play(watch_of("trunk within 30 degrees of horizontal for 1 s"), frames)) == 1
    frames = [(k / FPS, leaning(29 if k < 10 else 36)) for k in range(100)]
    assert play(watch_of("trunk within 30 degrees of horizontal for 1 s"), frames) == []
    assert play(watch_of("trunk within 30 degrees of horizontal"), [(0, leaning(31))]) == []


def test_joint_angles() -> None:
    assert play(watch_of("knee angle > 90 degrees"), [(0, person(SQUAT))])[0].values["left_knee"] > 90
    assert play(watch_of("knee angle > 90 degrees"), [(0, person(STANDING))]) == []
    assert play(watch_of("both knees angle < 10 degrees"), [(0, person(STANDING))])


@pytest.mark.parametrize(
    ("when", "directions"),
    [("crosses gate", "rl"), ("crosses gate rightwards", "r"), ("crosses gate from right to left", "l")],
)
def test_crossing_a_line(when: str, directions: str) -> None:
    """Somebody walks 4 pixels a frame to the right and back. The crossing counts from 10 pixels behind the line on."""

    def walk(index: int) -> Bodies:
        return at(200 + 4 * index if index < 60 else 440 - 4 * (index - 60))

    events = play(watch_of(when), frames_of(walk, 120))
    expected = {"r": 33 + 5, "l": 60 + 33 + 5}  # x is 332 in frame 33, and 308 in frame 93; then 0.2 s
    assert brief(events) == [(kind, expected[way], 1) for way in directions for kind in ("start", "end")]


def test_what_crosses_no_line() -> None:
    flicker = frames_of(lambda k: at(400 if k in (20, 21, 22, 40, 41) else 250), 80)
    assert play(watch_of("crosses gate"), flicker) == []
    short = rule_book({"lines": {"gate": [[320, 0], [320, 200]]}, "rules": {"r": {"when": "crosses gate"}}}, "f")
    beside = frames_of(lambda k: at(200 + 4 * k), 60)
    assert play(Watch(short, "cam", COCO_NAMES), beside) == [], "walks below its end"
    away = frames_of(lambda k: {} if 20 <= k < 60 else at(250 if k < 20 else 400), 100)
    assert play(watch_of("crosses gate"), away) == [], "came back on the other side"
    soon = frames_of(lambda k: {} if 20 <= k < 30 else at(250 if k < 20 else 400), 100)
    assert len(play(watch_of("crosses gate"), soon)) == 2
    again = [*range(30, 60), *range(90, 120)]
    cooled = play(watch_of("crosses gate", cool_down="1m"), inside_in(again, 150))
    assert [one.kind for one in cooled] == ["start", "end"]


def test_crossing_at_one_frame_a_second() -> None:
    events = play(watch_of("crosses gate"), frames_of(lambda k: at(200 + 50 * k), 8, fps=1))
    assert brief(events) == [("start", 4, 1), ("end", 4, 1)]


@pytest.mark.parametrize("fps", [5, 25, 60])
def test_speed(fps: float) -> None:
    """200 pixels a second from 2 s on; the mean over half a second reaches 150 after 0.375 s."""

    def run(index: int) -> Bodies:
        return at(100 + 200 * max(0.0, index / fps - 2))

    for when in ("speed > 150 px/s", "speed > 0.75 heights/s"):
        start = play(watch_of(when), frames_of(run, int(4 * fps), fps))[0]
        times = np.arange(200) / fps
        moved = 200 * (np.maximum(times - 2, 0) - np.maximum(times - 2 - np.ceil(0.5 * fps - 1e-6) / fps, 0))
        speeds = moved / (np.ceil(0.5 * fps - 1e-6) / fps)
        assert start.frame == np.flatnonzero(speeds >= 150 - 1e-3)[0]
    assert play(watch_of("speed > 210 px/s"), frames_of(run, int(4 * fps), fps)) == []
    slow = play(watch_of("speed < 10 px/s"), frames_of(run, int(4 * fps), fps))
    assert slow[0].time_s == pytest.approx(0.5, abs=0.11)


def test_speed_of_a_wrist_and_slack() -> None:
    plain = replace(people_of([Body(200)]), track_ids=np.array([1]))
    frames = []
    for k in range(50):
        xy = plain.keypoints_xy.copy()
        xy[:, COCO_NAMES.index("left_wrist"), 0] += 20 * max(0, k - 20)
        frames.append((k / FPS, replace(plain, keypoints_xy=xy)))
    assert brief(play(watch_of("wrist speed > 450 px/s"), frames)) == [("start", 25, 1)]
    assert play(watch_of("both wrists speed > 450 px/s"), frames) == []
    x = np.cumsum([0] + [8] * 40 + [7] * 100)
    slower = [(k / FPS, tracked(at(float(value)))) for k, value in enumerate(x)]
    assert brief(play(watch_of("speed > 190 px/s"), slower)) == [("start", 13, 1)], "175 is within a fifth"


def test_count() -> None:
    def crowd(index: int) -> Bodies:
        count = 6 if 10 <= index < 60 else 5
        return {None: Body(50), **{k: Body(40.0 * k) for k in range(1, count)}, 99: OUTSIDE}

    events = play(watch_of("count in left > 5"), frames_of(crowd, 100))
    assert brief(events) == [("start", 10, None), ("end", 84, None)]
    assert events[0].values == {"count": 6}
    assert events[0].box_xyxy is None
    assert brief(play(watch_of("count > 6 for 1 s"), frames_of(crowd, 100)))[0] == ("start", 35, None)
    for when, holds in (("count = 6", True), ("count <= 5", False), ("count < 7", True), ("count >= 7", False)):
        assert bool(play(watch_of(when), frames_of(crowd, 1))) == holds, when
    untracked = [(0.0, people_of([INSIDE, INSIDE]))]
    assert play(watch_of("count in left = 2"), untracked)
    assert play(watch_of("person inside left"), untracked) == []
    assert play(watch_of("count = 0"), [(0.0, People.none(17))])


def test_conditions_together() -> None:
    when = "person inside left and both wrists above head for 1 s"
    plain, up = INSIDE, raised(tracked({1: INSIDE}), "left_wrist", "right_wrist")
    frames = [(k / FPS, up if k >= 10 else tracked({1: plain})) for k in range(60)]
    assert brief(play(watch_of(when), frames)) == [("start", 35, 1)]
    outside = raised(tracked({1: OUTSIDE}), "left_wrist", "right_wrist")
    assert play(watch_of(when), [(k / FPS, outside) for k in range(60)]) == []
    two = {1: INSIDE, 2: OUTSIDE}
    mixed = [(k / FPS, raised(tracked(two), "left_wrist", "right_wrist")) for k in range(60)]
    assert brief(play(watch_of(when), mixed)) == [("start", 25, 1)]
    crossing = "crosses gate and speed > 90 px/s"
    assert len(play(watch_of(crossing), frames_of(lambda k: at(200 + 4 * k), 60))) == 2
    assert play(watch_of(crossing), frames_of(lambda k: at(250 + k), 120)) == []


def test_somebody_who_is_renamed_is_told_once() -> None:
    def recognized(index: int) -> Bodies:  # comes back as 7, and turns out to be 2
        identity = 2 if index < 20 else 7 if index < 40 else 2
        return {identity: INSIDE, 1: OUTSIDE}

    assert brief(play(watch_of("person inside left"), frames_of(recognized, 100))) == [("start", 0, 2)]
    assert brief(play(watch_of("person inside left for 3 s"), frames_of(recognized, 100))) == [("start", 75, 2)]

    def exchanged(index: int) -> Bodies:
        return {1: INSIDE, 2: OUTSIDE} if index < 50 else {1: OUTSIDE, 2: INSIDE}

    assert brief(play(watch_of("person inside left"), frames_of(exchanged, 200))) == [("start", 0, 1)]

    def lost(index: int) -> Bodies:
        return {} if index in range(30, 50) else {1 if index < 30 else 5: INSIDE}

    assert brief(play(watch_of("person inside left"), frames_of(lost, 200))) == [("start", 0, 1)]
    events = play(watch_of("person inside left"), frames_of(lambda k: recognized(k) if k < 100 else {}, 200))
    assert brief(events) == [("start", 0, 2), ("end", 124, 2)]


def test_others_are_not_taken_for_the_same() -> None:
    def next_in_queue(index: int) -> Bodies:  # the first goes, the second takes their place
        return {1: Body(200), 2: Body(420)} if index < 50 else {2: Body(200)}

    assert brief(play(watch_of("person inside left"), frames_of(next_in_queue, 60))) == [
        ("start", 0, 1),
        ("start", 50, 2),
    ]

    def later(index: int) -> Bodies:
        return {1: INSIDE} if index < 20 else {} if index < 60 else {2: INSIDE}

    assert brief(play(watch_of("person inside left"), frames_of(later, 70))) == [
        ("start", 0, 1),
        ("end", 44, 1),
        ("start", 60, 2),
    ]


def test_somebody_who_is_recognized_after_a_while() -> None:
    """2 was there long ago; 7 turns out to be 2."""

    def returned(first: Body) -> Callable[[int], Bodies]:
        return lambda index: {2: first} if index < 20 else {} if index < 60 else {7 if index < 100 else 2: INSIDE}

    events = play(watch_of("person inside left for 1 s"), frames_of(returned(OUTSIDE), 200))
    assert brief(events) == [("start", 85, 7)]
    events = play(watch_of("person inside left for 2 s"), frames_of(returned(OUTSIDE), 200))
    assert brief(events) == [("start", 110, 2)], "the time before counts"
    events = play(watch_of("person inside left for 2 s", cool_down="4s"), frames_of(returned(INSIDE), 200))
    assert brief(events) == [("start", 110, 2)], "nothing was told before"
    events = play(watch_of("person inside left", cool_down="4s"), frames_of(returned(INSIDE), 200))
    assert brief(events) == [("start", 0, 2), ("end", 44, 2), ("start", 60, 7)], "one person, as far as is known"


def test_both_identities_have_an_event() -> None:
    """Two events that turn out to be one: the later ends."""

    def merged(index: int) -> Bodies:
        if index < 20:
            return {2: Body(100)}
        return {2: Body(100), 7: Body(110)} if index < 40 else {7: Body(110)} if index < 45 else {2: Body(110)}

    events = play(watch_of("person inside left"), frames_of(merged, 150))
    assert brief(events) == [("start", 0, 2), ("start", 20, 7), ("end", 45, 2)]
    assert [one.number for one in events] == [1, 2, 2]


def test_sources_have_rules_of_their_own() -> None:
    book = book_of("person inside left", sources=["door"])
    frames = inside_in(range(10), 10)
    assert play(Watch(book, "hall", COCO_NAMES), frames) == []
    (event,) = play(Watch(book, "door", COCO_NAMES), frames)
    assert event.source == "door"


def test_the_end_of_a_source_ends_events() -> None:
    watch = watch_of("person inside left")
    play(watch, inside_in(range(10, 60), 60))
    (end,) = watch.finish()
    assert (end.kind, end.frame, end.since_s, end.until_s) == ("end", 59, 0.4, 59 / FPS)
    assert watch.finish() == []


@pytest.mark.parametrize(
    "when",
    [
        "person inside left for 1 s",
        "crosses gate",
        "speed > 50 px/s",
        "count in left > 0",
        "fell",
        "both wrists above head",
    ],
)
def test_a_watch_continues_from_its_state(when: str) -> None:
    frames = frames_of(lambda k: {1: Body(320 + 150 * np.sin(k / 20)), 2: Body(100 + k)}, 200)
    whole = play(watch_of(when, cool_down="1s"), frames)
    for cut in (1, 37, 90, 150):
        first = watch_of(when, cool_down="1s")
        begun = play(first, frames[:cut])
        second = watch_of(when, cool_down="1s")
        second.restore(deepcopy(json.loads(json.dumps(first.state(), allow_nan=True))))
        rest = []
        for index in range(cut, 200):
            rest += second.update(frames[index][1], frames[index][0], index, width=WIDTH, height=HEIGHT)
        assert begun + rest == whole


def test_the_step_of_the_pipeline() -> None:
    told: list[tuple[Event, Result]] = []
    step = RuleStep(watch_of("person inside left"), lambda event, result: told.append((event, result)))
    image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    results = [
        Result(Frame("cam", index, pts_s, 0.0, image), people, SKELETON)
        for index, (pts_s, people) in enumerate(inside_in(range(5, 9), 20))
    ]
    assert [step(result) for result in results[:10]] == results[:10]
    later = RuleStep(watch_of("person inside left"), lambda event, result: told.append((event, result)))
    later.restore(deepcopy(step.state()))
    assert [later(result) for result in results[10:]] == results[10:]
    assert [(event.kind, result.frame.index) for event, result in told] == [("start", 5)]


def test_memory_does_not_grow() -> None:
    watch = watch_of("person inside left", cool_down="10s")
    for index in range(3000):
        watch.update(tracked({index + 1: Body(50 + 97 * index % 400)}), index * 0.2, index, width=WIDTH, height=HEIGHT)
    assert len(watch.state()["people"]) < 200


def test_lines_of_events() -> None:
    event = Event("start", "fall", "cam1", 3, 2, 12.4, 310, 9.4, None, {"trunk_steepness": 12.34567}, (1, 2, 3.456, 4))
    assert json.loads(json.dumps(record_of(event))) == {
        "event": "start", "rule": "fall", "source": "cam1", "number": 3, "person": 2, "time_s": 12.4, "frame": 310,
        "since_s": 9.4, "values": {"trunk_steepness": 12.346}, "box_xyxy": [1, 2, 3.46, 4],
    }  # fmt: skip
    assert " ".join(text_of(event).split()) == "12.400 s cam1 start fall person 2 trunk steepness 12.35"
    end = replace(event, kind="end", until_s=11.0)
    assert record_of(end)["until_s"] == 11.0
    assert text_of(end).endswith("held from 9.400 to 11.000 s")


@pytest.mark.parametrize(
    ("when", "says"),
    [
        ("wrist rests above head", "rules.r.when: unknown keypoint 'wrist_rests': this skeleton has nose, left_eye"),
        ("tail inside left", "unknown keypoint 'tail'"),
        ("ankle angle > 5 degrees", "unknown angle 'ankle': this skeleton has left_knee"),
        ("neck within 5 degrees of vertical", "'neck' is not a part of the body: write one of trunk, thigh"),
    ],
)
def test_what_the_skeleton_lacks(when: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        check_skeleton(book_of(when), COCO_NAMES)
    with pytest.raises(UsageError, match="trunk needs"):
        check_skeleton(book_of("fell"), ["nose"])


def test_names_of_other_skeletons() -> None:
    names = ["Head", "L_Hand", "R_Hand", "L_Wrist", "R_Wrist", "HeadTop"]
    for when in ("head inside left", "hand above head", "both hands above head_top", "left wrist below L_Hand"):
        check_skeleton(book_of(when), names)


@pytest.mark.parametrize(
    ("tables", "says"),
    [
        ({}, r"no rules: add a table \[rules.NAME\]"),
        ({"rules": 5}, r"rules is not a table: write \[rules\]"),
        ({"rules": {"a": 5}}, r"rules.a is not a table: write \[rules.a\]"),
        ({"rules": {"a": {}}}, 'rules.a: add when = "..."'),
        ({"rules": {"a": {"when": 5}}}, 'rules.a: add when = "..."'),
        ({"rules": {"a": {"when": "fell", "cooldown": 5}}}, "rules.a: unknown key 'cooldown': did you mean cool_down"),
        ({"rules": {"a": {"when": "fell", "cool_down": "soon"}}}, "rules.a.cool_down: 'soon' is not a duration"),
        ({"rules": {"a": {"when": "fell", "margin": 3}}}, "rules.a.margin: 3 is not a number from 0 to 1"),
        ({"rules": {"a": {"when": "fell", "sources": "cam"}}}, "rules.a.sources: give a list of names"),
        ({"rules": {"a b": {"when": "fell"}}}, "rules: 'a b' cannot be a name"),
        ({"zones": {"inside": []}, "rules": {}}, "zones: 'inside' cannot be a name"),
        ({"zones": {"picture": [[0, 0], [1, 0], [1, 1]]}, "rules": {}}, "zones.picture: this name means the whole"),
        ({"zones": {f"z{k}": [] for k in range(101)}}, "101 zones are too many: at most 100"),
    ],
)
def test_what_is_no_rule_book(tables: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError, match=rf"^cam\.toml: .*{says}"):
        rule_book(tables, "cam.toml")
