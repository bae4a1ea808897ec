"""One person kept, past others and through an absence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

import streampose
from streampose.errors import UsageError
from streampose.frames import NO_TRACK
from streampose.people.only import Only
from tests.people.scene import HEIGHT, WIDTH, Body, people_of

NEAR, MIDDLE, FAR = Body(100, height=300), Body(330, height=200), Body(550, height=100)


def kept(only: Only, frames: Sequence[tuple[float, dict[int, Body]]]) -> list[list[int]]:
    """Return the ids kept of frames, each a time and the bodies by identity."""
    ids = []
    for pts_s, bodies in frames:
        people = replace(people_of(list(bodies.values())), track_ids=np.array(list(bodies), np.int64))
        ids.append(only.choose(people, pts_s, HEIGHT, WIDTH).track_ids.tolist())
    return ids


@pytest.mark.parametrize(("whom", "number"), [("largest", 1), ("centre", 2), (3, 3)])
def test_the_person_is_kept_whoever_else_is_there(whom: str | int, number: int) -> None:
    first = {1: NEAR, 2: MIDDLE, 3: FAR}
    swapped = {1: FAR, 2: NEAR, 3: MIDDLE}
    without = {other: body for other, body in swapped.items() if other != number}
    assert kept(Only(whom), [(0.0, {}), (0.1, first), (0.2, swapped), (0.3, without), (0.4, first)]) == [
        [],
        [number],
        [number],
        [],
        [number],
    ]


def test_after_a_long_absence_somebody_else_is_chosen() -> None:
    frames = [(0.0, {1: NEAR, 2: FAR}), (4.0, {2: FAR}), (6.0, {2: FAR})]
    assert kept(Only("largest", remember_s=5.0), frames) == [[1], [], [2]]
    assert kept(Only(1, remember_s=5.0), frames) == [[1], [], []]


def test_without_identities_each_frame_is_chosen_from() -> None:
    people = people_of([FAR, NEAR])
    only = Only("largest")
    assert only.choose(people, 0.0, HEIGHT, WIDTH).boxes_xyxy[0] == pytest.approx(NEAR.xyxy)
    assert only.choose(people_of([MIDDLE]), 0.1, HEIGHT, WIDTH).track_ids.tolist() == [NO_TRACK]


def test_another_choice_while_it_runs() -> None:
    only, people = Only(None), {1: NEAR, 2: MIDDLE, 3: FAR}
    assert kept(only, [(0.0, people)]) == [[1, 2, 3]]
    only.keep(2)
    assert only.whom == 2
    assert kept(only, [(0.1, people), (0.2, {1: NEAR, 3: FAR}), (99.0, people)]) == [[2], [], [2]]
    only.keep("largest")
    assert kept(only, [(99.1, people)]) == [[1]]
    only.keep(None)
    assert kept(only, [(99.2, people)]) == [[1, 2, 3]]
    only.keep("largest")
    assert kept(only, [(99.3, {2: MIDDLE, 3: FAR})]) == [[2]], "chosen anew"


def test_the_person_whom_the_tracker_recognises_later_is_kept_on() -> None:
    """They come back as 7, and turn out to be 2."""
    first, renamed = {1: NEAR, 7: MIDDLE}, {1: NEAR, 2: MIDDLE}
    assert kept(Only(7), [(0.0, first), (0.04, renamed), (0.08, {2: MIDDLE})]) == [[7], [2], [2]]
    beside, newer = {1: NEAR, 2: FAR}, {1: NEAR, 9: MIDDLE}
    assert kept(Only(7), [(0.0, first), (0.04, beside), (0.08, newer)]) == [[7], [], []], "somebody else"


@pytest.mark.parametrize("whom", [0, -1, "left", 1.5])
def test_whom_that_cannot_be(whom: object) -> None:
    with pytest.raises(UsageError, match=r"`only`: .* is not largest, centre or an identity from 1 up"):
        streampose.stream("demo", only=whom)  # type: ignore[arg-type]


def test_an_identity_needs_tracking() -> None:
    with pytest.raises(UsageError, match="`track` is off"):
        streampose.stream("demo", only=3, track=False)
