"""The text of a rule: what is understood, and what the errors say."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streampose.errors import UsageError
from streampose.people.rule_specs import (
    PERSON,
    Above,
    Angle,
    Count,
    Crosses,
    Fell,
    Inside,
    Points,
    Spec,
    Speed,
    When,
    Within,
)
from streampose.people.rule_text import MOST_CHARACTERS, RESERVED, read_when
from streampose.people.zones import PICTURE, line_of, zone_of

SQUARE = [[0.1, 0.5], [0.4, 0.5], [0.4, 1.0], [0.1, 1.0]]
ZONES = {name: zone_of(name, SQUARE, "z") for name in ("door", "zone", "Hof-2")}
LINES = {"gate": line_of("gate", [[0, 0.5], [1, 0.5]], "l"), "fence": line_of("fence", [[0, 0], [1, 1]], "l")}
DOOR, GATE, FENCE = ZONES["door"], LINES["gate"], LINES["fence"]
WRIST = Points("wrist")


def read(text: str) -> When:
    return read_when(text, ZONES, LINES, "rules.x.when")


@pytest.mark.parametrize(
    ("text", "spec", "for_s"),
    [
        ("wrist inside zone", Inside(WRIST, ZONES["zone"], False), 0),
        ("wrist inside zone door", Inside(WRIST, DOOR, False), 0),
        ("the left wrist is in the door", Inside(Points("left_wrist"), DOOR, False), 0),
        ("L_Wrist outside Hof-2", Inside(Points("L_Wrist"), ZONES["Hof-2"], True), 0),
        ("person inside picture for 10 s", Inside(PERSON, PICTURE, False), 10),
        ("Person Inside door FOR 1m20s", Inside(PERSON, DOOR, False), 80),
        ("person inside door for 1 h 2 minutes 3.5 seconds", Inside(PERSON, DOOR, False), 3723.5),
        ("both wrists above head for 1 s", Above(Points("wrists", True), Points("head"), False), 1),
        ("either wrist below left hip", Above(WRIST, Points("left_hip"), True), 0),
        ("crosses line gate", Crosses(PERSON, GATE, None), 0),
        ("person crosses gate downwards", Crosses(PERSON, GATE, (0, 1)), 0),
        ("left ankle crosses fence from right to left", Crosses(Points("left_ankle"), FENCE, (-1, 0)), 0),
        ("speed > 2 heights/s", Speed(PERSON, ">", 2, True), 0),
        ("wrist speed less than 300 px/s for 2s", Speed(WRIST, "<", 300, False), 2),
        ("trunk within 30 degrees of horizontal for 3 s", Within(Points("trunk"), 30, True), 3),
        ("thigh within 10° of vertical", Within(Points("thigh"), 10, False), 0),
        ("left knee angle > 90 degrees", Angle(Points("left_knee"), ">", 90), 0),
        ("elbow angle < 20", Angle(Points("elbow"), "<", 20), 0),
        ("count in door > 5", Count(DOOR, ">", 5), 0),
        ("count in zone >= 1 for 1 m", Count(ZONES["zone"], ">=", 1), 60),
        ("count at least 3", Count(None, ">=", 3), 0),
        ("count = 0 for .5 s", Count(None, "=", 0), 0.5),
        ("fell", Fell(), 3),
        ("person fell for 10 s", Fell(), 10),
    ],
)
def test_what_is_understood(text: str, spec: Spec, for_s: float) -> None:
    assert read(text) == When((spec,), for_s)


def test_conditions_together() -> None:
    both = read("person inside door and speed < 0.2 heights/s and both hands above head for 5 s")
    assert [type(one) for one in both.specs] == [Inside, Speed, Above]
    assert both.for_s == 5
    assert read("fell and person inside door").for_s == 3
    assert read("crosses gate and speed > 1 heights/s").for_s == 0


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "write a condition: 'wrist inside ZONE', "),
        ("wrist insde door", "'insde' is not understood after 'wrist': did you mean 'inside'?"),
        ("wrist inside dor", "'dor' is not understood after 'wrist inside': did you mean 'door'?"),
        ("wrist inside kitchen", "'kitchen' is not understood after 'wrist inside': name a zone: Hof-2, door, picture"),
        ("wrist inside", "the text ends after 'wrist inside': name a zone: Hof-2, door, picture or zone"),
        ("wrist touches door", "'wrist touches door' is not a condition: write "),
        ("inside door", "'inside' is not understood: write a condition: "),
        ("both inside door", "'inside' is not understood after 'both': name a keypoint"),
        ("wrist > door inside door", "'>' is not understood after 'wrist': name a keypoint"),
        ("wrist above", "the text ends after 'wrist above': name a keypoint, such as head"),
        ("person above head", "'above' and 'below' compare keypoints"),
        ("crosses gate leftwards", "line 'gate' can only be crossed upwards or downwards"),
        ("crosses gate sideways", "'sideways' is not understood after 'crosses gate': write upwards, downwards, "),
        ("crosses gate from left to top", "'from left to top' is not a direction: name opposite sides"),
        ("crosses gate for 3 s", "a crossing is a moment: leave out 'for'"),
        ("crosses door", "'door' is not understood after 'crosses': name a line: fence or gate"),
        ("speed > 3", "the text ends after 'speed > 3': write heights/s, height/s or px/s"),
        ("speed > 3 m/s", "'m/s' is not understood after 'speed > 3': "),
        ("speed = 3 px/s", "'=' is not understood after 'speed': write > or <"),
        ("speed > fast", "'fast' is not understood after 'speed >': write a speed"),
        ("speed > 99999999 px/s", "99999999 is too large: at most 1000000"),
        ("trunk within 30 degrees of horizntal", "did you mean 'horizontal'?"),
        ("trunk within 100 degrees of vertical", "100 degrees are too many: at most 90"),
        ("trunk within 30 percent of vertical", "'percent' is not understood after 'trunk within 30': write 'degrees'"),
        ("knee angle 90", "'90' is not understood after 'knee angle': write > or <"),
        ("count in door > 1.5", "'count' is compared with a whole number, not 1.5"),
        ("count < 0", "a count is never below 0"),
        ("count in door", "the text ends after 'count in door': write > or <, >=, <= or ="),
        ("count > 5 and fell", "'count' is about everybody"),
        ("fell for 3", "the text ends after 'fell for 3': write s, m or h behind the number"),
        ("fell for 3 days", "'days' is not understood after 'fell for 3': write s, m or h"),
        ("fell for a while", "'while' is not understood after 'fell for': write a time"),
        ("fell for 3 s and speed > 1 px/s", "'for' comes once, at the end, and applies to all conditions before it"),
        ("fell for 3 s please", "'please' is not understood after 'for 3 s': nothing can follow the time"),
        ("fell or speed > 1 px/s", "'or' is not understood after 'fell': write 'and', 'for' or nothing"),
        ("fell and", "the text ends after 'fell and': write a condition"),
        (" and ".join(["fell"] * 9), "more than 8 conditions"),
        ("x" * 501, f"the text has 501 characters: at most {MOST_CHARACTERS} are allowed"),
    ],
)
def test_errors_name_the_word_and_what_is_possible(text: str, says: str) -> None:
    with pytest.raises(UsageError) as error:
        read(text)
    assert str(error.value).startswith("rules.x.when: ")
    assert says in str(error.value)
    assert "\n" not in str(error.value)


WORDS = st.sampled_from(
    [*sorted(RESERVED), "door", "gate", "wrist", "left", "3", "0.5", ">", "<=", "°", "px/s", "heights/s", "degrees"]
)


@given(st.one_of(st.text(max_size=60), st.lists(WORDS, max_size=12).map(" ".join)))
def test_any_text_is_understood_or_refused_in_one_line(text: str) -> None:
    with suppress(UsageError):
        assert read(text).specs
