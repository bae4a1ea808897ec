"""Corrects identities by looks and motion, once people who met are apart again.

While two people overlap, their boxes and poses say little about who is who. Once they stand clear for a moment, their
recent looks are compared with the looks that each identity had before, and their motion with the motion before.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from streampose.people.appearance import Looks, look_similarity
from streampose.people.evidence import LOOK_WEIGHT
from streampose.people.known import Bools, Records
from streampose.people.meetings import FRESH_S, gains_by_motion, leave_meetings

CLEAR_S = 0.3
"""People are compared once nobody has covered them for this long."""
LOOKS_GAIN = 0.3
"""Two identities are exchanged if this raises the total similarity of looks by at least this much. Used where motion
cannot be compared."""
EVIDENCE_GAIN = 2.0
"""The same for the evidence of looks and motion together. Used where motion can be compared."""
RETURN_LOOK = 0.6
"""A new person is somebody who was lost if their looks are at least this similar,"""
RETURN_LEAD = 0.1
"""and more similar by this than to anybody else's who could be meant,"""
RETURN_WITHIN_S = 3.0
"""and only within this time of the new person's first frame."""
LEAST_LOOKS = 5
"""Minimum clear views behind a look."""

Rows = npt.NDArray[np.intp]

_OF_IDENTITY = ("id", "colours", "weights", "looks", "started_s", "into")


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
    _exchange_wrong(known, here, leave_meetings(known, here, pts_s), pts_s)
    return returned


def _exchange_wrong(known: Records, clear: Rows, has_met: Bools, pts_s: float) -> None:
    """Exchange the identities of people who fit better the other way round.

    Args:
        known: all people; corrected in place.
        clear: (C,) the rows of those who stand clear.
        has_met: (C,) whether they have just come out of a meeting.
        pts_s: the time.
    """
    rows = clear
    if has_met.any():
        rows = np.append(clear, np.setdiff1d(np.flatnonzero(pts_s - known["seen_s"] <= FRESH_S), clear))
    covered = rows[len(clear) :]
    known["into"][covered] = known["clear"][covered]  # their meeting is not over
    people = known[rows]
    is_clear = np.arange(len(rows)) < len(clear)
    alike, is_comparable = look_similarity(
        Looks(people["colours"], people["weights"]), Looks(people["recent_colours"], people["recent_weights"])
    )
    alike = np.where(is_comparable, alike, 0)
    own = np.diag(alike)
    gains = alike + alike.T - own[:, None] - own[None]
    are_clear = is_clear[:, None] & is_clear[None]
    gains = np.where(are_clear, gains, np.minimum(gains, 0))  # looks of covered people can only prevent an exchange
    excess = np.where(are_clear, gains - LOOKS_GAIN, -np.inf) * LOOK_WEIGHT
    if has_met.any():
        has_met = np.append(has_met, np.zeros(len(rows) - len(clear), np.bool_))
        by_motion, moved = gains_by_motion(people, is_clear, has_met, pts_s)
        excess = np.where(moved, gains * LOOK_WEIGHT + by_motion - EVIDENCE_GAIN, excess)
    excess[people["class_id"][:, None] != people["class_id"][None]] = -np.inf
    while excess.size and excess.max() >= 0:
        first, second = np.unravel_index(int(excess.argmax()), excess.shape)
        _exchange(known, rows[first], rows[second])
        excess[[first, second]] = -np.inf
        excess[:, [first, second]] = -np.inf
    known["clear"][covered] = known["into"][covered]


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
