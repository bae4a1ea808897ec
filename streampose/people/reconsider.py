"""Corrects identities by looks, once people who met are apart again.

While two people overlap, their boxes and poses say little about who is who. Once both stand clear for a moment, their
recent looks are compared with the looks that each identity had before.
"""

from __future__ import annotations

import numpy as np

from streampose.people.appearance import Looks, look_similarity
from streampose.people.known import Records

CLEAR_S = 0.3
"""People are compared once nobody has covered them for this long."""
SWAP_GAIN = 0.3
"""Two identities are exchanged if the similarities of looks gain at least this in total."""
RETURN_LOOK = 0.6
"""A new person is somebody who was lost if their looks are at least this similar,"""
RETURN_LEAD = 0.1
"""and more similar by this than to anybody else's who could be meant,"""
RETURN_WITHIN_S = 3.0
"""and only within this time of the new person's first frame."""
LEAST_LOOKS = 5
"""Minimum clear views behind a look."""

_OF_IDENTITY = ("id", "colours", "weights", "looks", "started_s")


def reconsider(known: Records, pts_s: float) -> int:
    """Correct the identities of known people in place.

    Args:
        known: the people after the frame at `pts_s`.
        pts_s: the frame's time.

    Returns:
        How many people turned out to be somebody who was lost.
    """
    is_here = known["seen_s"] == pts_s
    is_clear = is_here & (pts_s - known["clear_s"] >= CLEAR_S) & (known["looks"] >= LEAST_LOOKS)
    here = np.flatnonzero(is_clear)
    if not len(here):
        return 0
    lost = np.flatnonzero(~is_here & (known["looks"] >= LEAST_LOOKS))
    owners = np.concatenate([here, lost])
    looks = Looks(known["colours"][owners], known["weights"][owners])
    recent = Looks(known["recent_colours"][here], known["recent_weights"][here])
    alike, is_comparable = look_similarity(looks, recent)  # (owners, here)
    alike = np.where(is_comparable, alike, 0)
    is_young = pts_s - known["started_s"][here] <= RETURN_WITHIN_S
    returned = sum(
        _give_back(known, alike[:, column], owners, here[column], len(here)) for column in np.flatnonzero(is_young)
    )
    own = alike[: len(here)]
    gains = own + own.T - np.diag(own)[:, None] - np.diag(own)[None]
    gains[known["class_id"][here][:, None] != known["class_id"][here][None]] = 0
    while gains.size and gains.max() >= SWAP_GAIN:
        first, second = np.unravel_index(int(gains.argmax()), gains.shape)
        _exchange(known, here[first], here[second])
        gains[[first, second]] = 0
        gains[:, [first, second]] = 0
    return returned


def _give_back(known: Records, alike: np.ndarray, owners: np.ndarray, row: int, here_count: int) -> bool:
    """Give the person at `row` the identity of a lost one whom they clearly look like; return whether there is one."""
    could_be = (
        (np.arange(len(owners)) >= here_count)
        & (known["seen_s"][owners] <= known["started_s"][row])
        & (known["class_id"][owners] == known["class_id"][row])
    )
    if not could_be.any():
        return False
    order = np.argsort(-np.where(could_be, alike, -1))
    best = order[0]
    others = np.delete(alike, [best, int(np.flatnonzero(owners == row)[0])])
    if alike[best] >= RETURN_LOOK and alike[best] >= others.max(initial=0) + RETURN_LEAD:
        lost = owners[best]
        for name in _OF_IDENTITY:
            known[name][row] = known[name][lost]
        known["seen_s"][lost] = -np.inf  # forgotten with the next frame
        known["looks"][lost] = 0
        return True
    return False


def _exchange(known: Records, first: int, second: int) -> None:
    for name in _OF_IDENTITY:
        known[name][[first, second]] = known[name][[second, first]]
