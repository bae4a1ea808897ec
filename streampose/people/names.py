"""Names of keypoints, which checkpoints write in several ways: `left_knee`, `L_Knee`, `LeftKnee`, `left knee`."""

from __future__ import annotations

import re
from collections.abc import Sequence

from streampose.errors import UsageError

# fmt: off
COCO_NAMES = (
    "nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder", "right_shoulder", "left_elbow",
    "right_elbow", "left_wrist", "right_wrist", "left_hip", "right_hip", "left_knee", "right_knee", "left_ankle",
    "right_ankle",
)
# fmt: on
"""The 17 keypoints of COCO, in its order."""

SIDES = ("left", "right")
_SIDES = {"l": "left", "r": "right"}


def plain_name(name: str) -> str:
    """Return a name in lower case with underscores, its side first and in full: `left_knee`."""
    return "_".join(sorted(_words(name), key=lambda word: word not in _SIDES.values()))


def plain_names(names: Sequence[str]) -> tuple[str, ...]:
    """Return plain names; the names as they are if two of them would be the same, or one empty."""
    plain = tuple(plain_name(name) for name in names)
    return plain if len(set(plain)) == len(plain) and all(plain) else tuple(names)


def side_pairs(names: Sequence[str]) -> tuple[tuple[int, int], ...]:
    """Return (left, right) pairs of names that differ only in left and right, such as `L_Eye` and `R_Eye`."""
    number_of = {_words(name): index for index, name in enumerate(names)}
    pairs = []
    for words, left in number_of.items():
        right = number_of.get(tuple("right" if word == "left" else word for word in words))
        if "left" in words and right is not None:
            pairs.append((left, right))
    return tuple(pairs)


def meant_by(wanted: Sequence[str], known: Sequence[str], thing: str) -> list[str]:
    """Return the plain names in `known` that are wanted, in the order of `known`.

    A name without a side, such as `knee`, means both sides, unless it is in `known` itself.

    Args:
        wanted: names in any usual spelling.
        known: plain names.
        thing: what the names are of, for the error: "angle".

    Raises:
        UsageError: a wanted name is not known.
    """
    meant: set[str] = set()
    for name in wanted:
        spellings = (name, plain_name(name))
        found = {one for one in spellings if one in known}
        found = found or {f"{side}_{one}" for side in SIDES for one in spellings} & set(known)
        if not found:
            raise UsageError(f"unknown {thing} {name!r}: this skeleton has {', '.join(known)}")
        meant |= found
    return [name for name in known if name in meant]


def _words(name: str) -> tuple[str, ...]:
    """Return the words of a keypoint's name in lower case; `l` and `r` become `left` and `right`."""
    apart = re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name)
    return tuple(_SIDES.get(word, word) for word in re.findall(r"[a-z]+|[0-9]+", apart.lower()))
