"""Reads the text of a rule, such as `both wrists above head for 1 s`. docs/rules.md describes the grammar.

when      = condition {"and" condition} ["for" duration]
condition = points ("inside" | "in" | "outside") zone
          | points ("above" | "below") points
          | [points] "crosses" line [direction]
          | [points] "speed" compare number unit
          | part "within" number "degrees" "of" ("horizontal" | "vertical")
          | joint "angle" compare number "degrees"
          | "count" ["in" zone] compare number
          | "fell"

Knows no skeleton: the names of keypoints and angles are checked later.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Collection, Mapping, Sequence

from streampose.errors import UsageError
from streampose.people.rule_specs import (
    PERSON,
    Above,
    Angle,
    Compare,
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
from streampose.people.zones import PICTURE, Shape

MOST_CHARACTERS = 500
"""Maximum length of a text."""
MOST_CONDITIONS = 8
"""Maximum number of conditions in a text."""
MOST_NUMBER = 1_000_000
"""Numbers in a text are at most this."""
FELL_FOR_S = 3.0
"""How long `fell` must hold if the text does not say."""

_TOKEN = re.compile(r"\d*\.\d+|\d+|(?<=\d)(?:h|min|m|sec|s)(?=\d)|[^\W\d][\w-]*(?:/s\b)?|[<>]=?|[=≥≤°]|\S")
_FILLERS = frozenset(("a", "an", "the", "is", "are"))
_VERBS = ("inside", "in", "outside", "above", "below", "crosses", "speed", "within", "angle")
_UNITS_S = {
    **dict.fromkeys(("h", "hour", "hours"), 3600.0),
    **dict.fromkeys(("m", "min", "minute", "minutes"), 60.0),
    **dict.fromkeys(("s", "sec", "second", "seconds"), 1.0),
}
_SIGNS: dict[str, Compare] = {">": ">", ">=": ">=", "≥": ">=", "<": "<", "<=": "<=", "≤": "<=", "=": "="}
_IN_WORDS: dict[tuple[str, str], Compare] = {
    ("more", "than"): ">",
    ("less", "than"): "<",
    ("at", "least"): ">=",
    ("at", "most"): "<=",
}
_DIRECTIONS = {"upwards": (0.0, -1.0), "downwards": (0.0, 1.0), "leftwards": (-1.0, 0.0), "rightwards": (1.0, 0.0)}
_ENDS = {"left": (-1.0, 0.0), "right": (1.0, 0.0), "top": (0.0, -1.0), "bottom": (0.0, 1.0)}
_CONDITIONS = (
    "'wrist inside ZONE', 'both wrists above head', 'crosses LINE', 'speed > 2 heights/s', "
    "'trunk within 30 degrees of horizontal', 'knee angle > 90 degrees', 'count in ZONE > 5' or 'fell'"
)
RESERVED = frozenset(
    (*_FILLERS, *_VERBS, *_UNITS_S, *_DIRECTIONS, "and", "for", "count", "fell", "of", "to", "from", "both", "all")
)
"""Words that cannot be names of zones and lines."""


def read_when(text: str, zones: Mapping[str, Shape], lines: Mapping[str, Shape], where: str) -> When:
    """Return the meaning of a text.

    Args:
        text: of a rule.
        zones, lines: by name.
        where: precedes the message of an error.

    Raises:
        UsageError: the text is not understood. The message names the word and what is possible there.
    """
    if len(text) > MOST_CHARACTERS:
        raise UsageError(f"{where}: the text has {len(text)} characters: at most {MOST_CHARACTERS} are allowed")
    return _Reader(text, {PICTURE.name: PICTURE, **zones}, lines, where).read()


class _Reader:
    """Reads one text from left to right."""

    def __init__(self, text: str, zones: Mapping[str, Shape], lines: Mapping[str, Shape], where: str) -> None:
        names = {*zones, *lines}
        words = _TOKEN.findall(text)
        self._words: Sequence[str] = [word for word in words if word.lower() not in _FILLERS or word in names]
        self._at = 0
        self._zones, self._lines, self._where = zones, lines, where

    def read(self) -> When:
        specs = [self._condition()]
        while self._take("and"):
            specs.append(self._condition())
            if len(specs) > MOST_CONDITIONS:
                raise UsageError(f"{self._where}: more than {MOST_CONDITIONS} conditions in one rule")
        for_s = self._duration() if self._take("for") else None
        if self._at < len(self._words):
            if for_s is not None and self._next == "and":
                raise self._wrong("'for' comes once, at the end, and applies to all conditions before it")
            raise self._wrong("write 'and', 'for' or nothing" if for_s is None else "nothing can follow the time")
        self._check_together(specs, for_s)
        needs_time = for_s is None and any(isinstance(spec, Fell) for spec in specs)
        return When(tuple(specs), FELL_FOR_S if needs_time else for_s or 0.0)

    def _check_together(self, specs: Sequence[Spec], for_s: float | None) -> None:
        is_count = [isinstance(spec, Count) for spec in specs]
        if any(is_count) and not all(is_count):
            raise UsageError(
                f"{self._where}: 'count' is about everybody and cannot be joined with a condition on a person"
            )
        if for_s is not None and any(isinstance(spec, Crosses) for spec in specs):
            raise UsageError(f"{self._where}: a crossing is a moment: leave out 'for'")

    @property
    def _next(self) -> str:
        """The next word in lower case; empty at the end."""
        return self._words[self._at].lower() if self._at < len(self._words) else ""

    def _take(self, *words: str) -> bool:
        """Skip the next words if they are these."""
        end = self._at + len(words)
        found = [word.lower() for word in self._words[self._at : end]] == list(words)
        self._at = end if found else self._at
        return found

    def _one_of(self, *words: str) -> str:
        for word in words:
            if self._take(word):
                return word
        raise self._wrong(f"write {_either(words)}", words)

    def _wrong(self, possible: str, words: Collection[str] = ()) -> UsageError:
        """Return the error for the next word. If it is nearly one of `words`, the message proposes that one."""
        before = " ".join(self._words[max(0, self._at - 3) : self._at])
        if self._at >= len(self._words):
            return UsageError(f"{self._where}: " + (f"the text ends after {before!r}: " if before else "") + possible)
        word = self._words[self._at]
        close = difflib.get_close_matches(word, words, n=1)
        place = f" after {before!r}" if before else ""
        return UsageError(
            f"{self._where}: {word!r} is not understood{place}: {f'did you mean {close[0]!r}?' if close else possible}"
        )

    def _condition(self) -> Spec:
        if self._take("count"):
            return self._count()
        if self._take("fell") or self._take("person", "fell"):
            return Fell()
        start = self._at
        while self._next and self._next not in (*_VERBS, "and", "for"):
            self._at += 1
        subject = self._words[start : self._at]
        if self._next not in _VERBS:
            raise self._no_verb(start, subject)
        verb = self._next
        if not subject and verb not in ("crosses", "speed"):
            raise self._wrong(f"write a condition: {_CONDITIONS}")
        points = self._points(start, subject) if subject else PERSON
        self._at += 1
        readers: dict[str, Callable[[Points], Spec]] = {
            "crosses": self._crosses,
            "speed": self._speed,
            "within": self._within,
            "angle": self._angle,
        }
        if verb in readers:
            return readers[verb](points)
        if verb in ("above", "below"):
            return self._above(points, is_below=verb == "below")
        return Inside(points, self._named(self._zones, "zone"), is_outside=verb == "outside")

    def _no_verb(self, start: int, subject: Sequence[str]) -> UsageError:
        """Return the error for words without a verb."""
        known = (*_VERBS, "count", "fell")
        for number, word in enumerate(subject):
            if difflib.get_close_matches(word.lower(), known, n=1, cutoff=0.7):
                self._at = start + number
                return self._wrong("", known)
        if not subject or self._at < len(self._words):
            return self._wrong(f"write a condition: {_CONDITIONS}")
        return UsageError(f"{self._where}: {' '.join(subject)!r} is not a condition: write {_CONDITIONS}")

    def _points(self, start: int, words: Sequence[str]) -> Points:
        """Return what some words before a verb, or behind `above`, mean."""
        is_all = words[0].lower() in ("both", "all")
        names = words[1:] if is_all or words[0].lower() in ("either", "any") else words
        wrong = [number for number, word in enumerate(words) if not re.match(r"[^\W\d]|\d+$", word)]
        if wrong or not names:
            self._at = start + (wrong[0] if wrong else len(words))
            raise self._wrong("name a keypoint, such as left wrist, or person")
        name = "_".join(names)
        if name.lower() in ("person", "somebody", "someone", "anybody"):
            return PERSON
        return Points(name, is_all)

    def _above(self, points: Points, *, is_below: bool) -> Spec:
        start = self._at
        while self._next and self._next not in (*_VERBS, "and", "for"):
            self._at += 1
        words = self._words[start : self._at]
        if not words:
            raise self._wrong("name a keypoint, such as head, shoulder or left hip")
        others = self._points(start, words)
        if PERSON in (points, others):
            raise UsageError(f"{self._where}: 'above' and 'below' compare keypoints, such as 'wrist above head'")
        return Above(points, others, is_below)

    def _crosses(self, points: Points) -> Spec:
        line = self._named(self._lines, "line")
        towards = None
        if self._take("from"):
            ends = [self._one_of(*_ENDS)]
            self._one_of("to")
            ends.append(self._one_of(*_ENDS))
            towards = _ENDS[ends[1]]
            if towards != tuple(-value for value in _ENDS[ends[0]]):
                raise UsageError(
                    f"{self._where}: 'from {ends[0]} to {ends[1]}' is not a direction: name opposite sides"
                )
        elif self._next not in ("", "and", "for"):
            towards = _DIRECTIONS[self._one_of(*_DIRECTIONS)]
        if towards is not None:
            (ax, ay), (bx, by) = line.points
            if abs(towards[0] * (by - ay) - towards[1] * (bx - ax)) < 1e-9:
                better = "leftwards or rightwards" if towards[0] == 0 else "upwards or downwards"
                raise UsageError(f"{self._where}: line {line.name!r} can only be crossed {better}")
        return Crosses(points, line, towards)

    def _speed(self, points: Points) -> Spec:
        compare = self._compare(is_exact=False)
        limit = self._number("a speed")
        unit = self._one_of("heights/s", "height/s", "px/s")
        return Speed(points, compare, limit, in_heights=unit != "px/s")

    def _within(self, part: Points) -> Spec:
        degrees = self._degrees(most=90)
        self._one_of("of")
        return Within(part, degrees, is_horizontal=self._one_of("horizontal", "vertical") == "horizontal")

    def _angle(self, joint: Points) -> Spec:
        compare = self._compare(is_exact=False)
        return Angle(joint, compare, self._degrees(most=180))

    def _count(self) -> Spec:
        zone = None
        if self._take("in") or self._take("inside"):
            zone = self._named(self._zones, "zone")
        compare = self._compare(is_exact=True)
        number = self._number("a whole number")
        if number != int(number):
            raise UsageError(f"{self._where}: 'count' is compared with a whole number, not {number:g}")
        if compare == "<" and number == 0:
            raise UsageError(f"{self._where}: a count is never below 0")
        return Count(zone, compare, int(number))

    def _compare(self, *, is_exact: bool) -> Compare:
        for words, sign in _IN_WORDS.items():
            if self._take(*words):
                return sign
        if self._next in _SIGNS and (is_exact or self._next != "="):
            self._at += 1
            return _SIGNS[self._words[self._at - 1]]
        raise self._wrong("write > or <" + (", >=, <= or =" if is_exact else ""))

    def _number(self, what: str) -> float:
        if not re.match(r"[\d.]*\d$", self._next):
            raise self._wrong(f"write {what}")
        self._at += 1
        number = float(self._words[self._at - 1])
        if number > MOST_NUMBER:
            raise UsageError(
                f"{self._where}: {self._words[self._at - 1]:.20} is too large: at most {MOST_NUMBER} is allowed"
            )
        return number

    def _degrees(self, *, most: float) -> float:
        degrees = self._number("a number of degrees")
        if degrees > most:
            raise UsageError(f"{self._where}: {degrees:g} degrees are too many: at most {most:g} are possible")
        if self._next in ("degrees", "degree", "deg", "°"):
            self._at += 1
        elif self._next not in ("", "of", "and", "for"):
            raise self._wrong("write 'degrees'", ("degrees",))
        return degrees

    def _duration(self) -> float:
        total_s, has_any = 0.0, False
        while not has_any or re.match(r"[\d.]*\d$", self._next):
            number = self._number("a time, such as 3 s or 1 m")
            has_any = True
            if self._next not in _UNITS_S:
                raise self._wrong("write s, m or h behind the number", tuple(_UNITS_S))
            total_s += number * _UNITS_S[self._next]
            self._at += 1
        return total_s

    def _named(self, shapes: Mapping[str, Shape], kind: str) -> Shape:
        following = self._words[self._at + 1] if self._at + 1 < len(self._words) else ""
        if self._next == kind and following in shapes:
            self._at += 1
        word = self._words[self._at] if self._next else ""
        if word not in shapes:
            names = sorted(shapes)
            raise self._wrong(f"name a {kind}: {_either(names)}" if names else f"the file has no [{kind}s]", names)
        self._at += 1
        return shapes[word]


def _either(words: Sequence[str]) -> str:
    """Return words as a list for a message; of many, the first."""
    if len(words) > 12:
        return f"{', '.join(words[:12])}, ..."
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"
