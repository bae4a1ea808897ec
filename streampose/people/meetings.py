"""Compares the motion of people before and after they meet, to tell who is who.

While people hide each other, boxes and poses tell little about who is who, and people in the same clothes look alike.
But people rarely turn round while they pass each other, so their motion usually continues after the meeting.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from streampose.frames import Float32
from streampose.people.known import POINT, Bools, Records
from streampose.people.overlap import box_overlaps

MET_S = 0.5
"""A meeting is a time of at least this length in which somebody is covered or not seen."""
LONGEST_S = 10.0
"""Motion is not compared over a longer time."""
FRESH_S = 0.3
"""Somebody seen within this time counts as present."""
COMPARED_WITHIN_S = 3.0
"""People who came out of a meeting are compared with those who come out within this time."""
TURNING = 0.2
"""Standard deviation of the change of a person's speed in a second, in sizes per second."""
STATE_SPREAD = 0.1
"""Standard deviation of a place in sizes, and of a speed in sizes per second, beyond what the tracker knows."""


def leave_meetings(known: Records, clear: npt.NDArray[np.intp], pts_s: float) -> Bools:
    """Store where the people are who stand clear.

    Args:
        known: all people; updated in place.
        clear: (C,) the rows of those whom nobody covers.
        pts_s: the time.

    Returns:
        (C,) whether they have just come out of a meeting.
    """
    now = _now(known[clear])
    has_met = pts_s - known["clear"]["pts_s"][clear] > MET_S
    known["into"][clear[has_met]] = known["clear"][clear[has_met]]
    known["out"][clear[has_met]] = now[has_met]
    known["clear"][clear] = now
    return has_met


def gains_by_motion(known: Records, is_clear: Bools, has_met: Bools, pts_s: float) -> tuple[Float32, Bools]:
    """Return what the motion says for an exchange of two identities: (N, N) log-likelihood ratios, and for which pairs
    it says anything: one has just come out of a meeting, the other not long before, or is present and apart from them.

    A person is compared by the state before the meeting and that after it. The speed changes at random (white
    acceleration of density `TURNING`²). For a time T, the speed's change then has the variance TURNING² T, and the
    distance from the place that the mean of both speeds leads to has TURNING² T³ / 12; the two are independent.

    Args:
        known: (N,) the people.
        is_clear: (N,) whether nobody covers them.
        has_met: (N,) whether they have just come out of a meeting.
        pts_s: the time.
    """
    into = known["into"]
    out = np.where(is_clear, known["out"], _now(known))  # the others are still in the meeting
    after_s = out["pts_s"][None] - into["pts_s"][:, None]  # (into, out)
    is_possible = (after_s > 0) & (after_s < LONGEST_S)
    after_s = np.where(is_possible, after_s, 1.0)
    size = np.sqrt(known["size"][:, None] * known["size"][None])
    unsure = known["speed_variance"][None] + np.square(STATE_SPREAD * size)
    turned = out["velocity"][None] - into["velocity"][:, None]
    mean = (out["velocity"][None] + into["velocity"][:, None]) / 2
    missed = out["xy"][None] - into["xy"][:, None] - mean * after_s[..., None]
    turning = np.square(TURNING * size) * after_s
    speeds = np.square(turned).sum(axis=-1) / (turning + unsure)
    places = np.square(missed).sum(axis=-1) / (
        turning * np.square(after_s) / 12 + unsure * np.square(after_s) / 4 + np.square(STATE_SPREAD * size)
    )
    fits = -0.5 * (speeds + places)
    own = np.diag(fits)
    gains = fits + fits.T - own[:, None] - own[None]

    is_comparable = is_possible & is_possible.T & np.diag(is_possible)[:, None] & np.diag(is_possible)[None]
    is_comparable &= has_met[:, None] | has_met[None]
    is_recent = pts_s - out["pts_s"] < COMPARED_WITHIN_S
    is_comparable &= is_recent[:, None] & is_recent[None]
    is_comparable &= box_overlaps(known["xyxy"], known["xyxy"]) == 0
    return np.where(is_comparable, gains, 0).astype(np.float32), is_comparable


def _now(known: Records) -> Records:
    """Return the present states of people."""
    now = np.zeros(len(known), POINT)
    now["pts_s"], now["velocity"] = known["seen_s"], known["velocity"]
    now["xy"] = (known["xyxy"][:, :2] + known["xyxy"][:, 2:]) / 2
    return now
