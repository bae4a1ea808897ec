"""Names of keypoints, which checkpoints write in several ways: `left_knee`, `L_Knee`, `LeftKnee`, `left knee`."""

from __future__ import annotations

import re
from collections.abc import Sequence

_SIDES = {"l": "left", "r": "right"}


def plain_name(name: str) -> str:
    """Return a name in lower case with underscores, its side first and in full: `left_knee`."""
    words = re.findall(r"[a-z]+|[0-9]+", re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower())
    words = [_SIDES.get(word, word) for word in words]
    return "_".join(sorted(words, key=lambda word: word not in _SIDES.values()))


def plain_names(names: Sequence[str]) -> tuple[str, ...]:
    """Return plain names; the names as they are if two of them would be the same, or one empty."""
    plain = tuple(plain_name(name) for name in names)
    return plain if len(set(plain)) == len(plain) and all(plain) else tuple(names)
