"""What a window shows of one source, and what keys and clicks change about it. Knows nothing about windows."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

import cv2
import numpy as np

from streampose.drawing.annotator import STYLES, Annotator
from streampose.frames import NO_TRACK, Image, Result, SourceInfo
from streampose.people.overlap import box_areas
from streampose.people.rounding import as_recorded
from streampose.sinks.controls import Controls
from streampose.sinks.encode import square_pixels

THRESHOLD_STEP = 0.05
RATE_OVER_S = 2.0
"""Rate and latency are means over this time."""


class View:
    """The picture of one source. Methods that change it return a few words about the change; see `picture`."""

    def __init__(self, *, mirror: bool | None = None) -> None:
        """Show nothing yet.

        Args:
            mirror: show the picture mirrored; None mirrors only a camera of this machine, which faces the user.
        """
        self._wants_mirror = mirror
        self._is_mirrored = bool(mirror)
        self._is_live = False
        self._controls: Controls | None = None
        self._annotator: Annotator | None = None
        """Draws as the user wants; None if the user has changed nothing."""
        self._kept: int | None = None
        """The identity of the person that the user has chosen."""
        self._result: Result | None = None
        self._picture: Image | None = None
        """What `picture` returns; None if it has to be drawn again."""
        self._shown: deque[tuple[float, float]] = deque()
        """When the latest frames were shown, and how old they were then, in seconds."""

    @property
    def needs_drawn(self) -> bool:
        """Whether the picture is `Result.drawn`, for want of an annotator."""
        return self._controls is None

    @property
    def result(self) -> Result | None:
        """What is shown."""
        return self._result

    def take(self, controls: Controls) -> None:
        """Draw with the annotator of the run from now on, and let the user choose a person."""
        self._controls, self._picture = controls, None

    def begin(self, source: SourceInfo) -> None:
        """Prepare for the frames of a source."""
        self._is_live = source.is_live
        if self._wants_mirror is None:
            self._is_mirrored = source.is_camera

    def put(self, result: Result) -> None:
        """Show another frame from now on."""
        now_s = time.monotonic()
        self._result, self._picture = result, None
        self._shown.append((now_s, now_s - result.frame.captured_at_s))
        while self._shown[0][0] < now_s - RATE_OVER_S:
            self._shown.popleft()

    def picture(self) -> Image:
        """Return the frame as the user wants it, (H, W, 3) uint8 BGR with square pixels. There must be a frame.

        It is the same array until something changes. It is shared: copy it before drawing on it.
        """
        assert self._result is not None
        if self._picture is None:
            self._picture = square_pixels(self._drawn(self._result), self._result.frame.pixel_aspect)
        return self._picture

    def _drawn(self, result: Result) -> Image:
        image, people = result.frame.image, result.people
        hides = self._kept is not None and len(people) > 1  # a frame from before the choice
        is_usual = self._annotator is None and not self._is_mirrored and not hides
        if self._controls is None or (is_usual and result.drawn is not None):
            drawn = image if result.drawn is None else result.drawn
            return np.asarray(cv2.flip(drawn, 1), np.uint8) if self._is_mirrored else drawn
        if hides:
            people = people[people.track_ids == self._kept]
        if self._is_mirrored:
            image, people = np.asarray(cv2.flip(image, 1), np.uint8), as_recorded(people).mirrored(image.shape[1])
        return (self._annotator or self._controls.annotator).annotate(image, people)

    def pace(self) -> str:
        """Return the frame rate, and for a live source the latency: the mean time from capture to display."""
        if len(self._shown) < 2:
            return ""
        span_s = self._shown[-1][0] - self._shown[0][0]
        rate = f"{(len(self._shown) - 1) / max(span_s, 1e-6):.1f} fps"
        latency_s = sum(age_s for _, age_s in self._shown) / len(self._shown)
        return f"{rate}  {latency_s * 1000:.0f} ms" if self._is_live else rate

    def mirror(self) -> str:
        """Mirror the picture, or stop it."""
        self._is_mirrored, self._picture = not self._is_mirrored, None
        return "mirrored" if self._is_mirrored else "not mirrored"

    def move_threshold(self, steps: int) -> str:
        """Draw fewer (`steps` above 0) or more keypoints."""
        return self._change(
            lambda old: old.but(min_score=round(min(max(old.min_score + steps * THRESHOLD_STEP, 0.0), 1.0), 2)),
            lambda new: f"keypoint threshold {new.min_score:.2f}",
        )

    def change_style(self) -> str:
        """Draw in the next style."""
        return self._change(
            lambda old: old.but(style=STYLES[(STYLES.index(old.style) + 1) % len(STYLES)]),
            lambda new: f"style: {new.style}",
        )

    def toggle_labels(self) -> str:
        """Draw labels, or leave them out."""
        return self._change(
            lambda old: old.but(labels=not old.labels), lambda new: "labels" if new.labels else "no labels"
        )

    def toggle_ellipses(self) -> str:
        """Draw how sure each keypoint is, or leave it out."""
        return self._change(
            lambda old: old.but(ellipses=not old.ellipses),
            lambda new: "ellipses: where a keypoint is with 90 %" if new.ellipses else "no ellipses",
        )

    def _change(self, change: Callable[[Annotator], Annotator], words: Callable[[Annotator], str]) -> str:
        """Draw otherwise, if there is an annotator. Return words about the new one."""
        if self._controls is None:
            return ""
        self._annotator, self._picture = change(self._annotator or self._controls.annotator), None
        return words(self._annotator)

    def click(self, x: float, y: float) -> str:
        """Keep the person at a point of the picture, in its pixels; everybody again if one is kept already."""
        if self._controls is None or self._result is None:
            return ""
        if self._controls.only.whom is not None:
            return self.free()
        people = self._result.people
        if len(people) and (people.track_ids == NO_TRACK).all():
            return "nobody can be kept: people have no identities"
        height, width = self._result.frame.image.shape[:2]
        shown_height, shown_width = self.picture().shape[:2]
        x, y = (x + 0.5) * width / shown_width - 0.5, (y + 0.5) * height / shown_height - 0.5
        if self._is_mirrored:
            x = width - 1 - x
        low, high = people.boxes_xyxy[:, :2], people.boxes_xyxy[:, 2:]
        hit = ((low <= (x, y)) & ((x, y) <= high)).all(axis=1) & (people.track_ids != NO_TRACK)
        if not hit.any():
            return ""
        chosen = people[hit]
        return self._keep(int(chosen.track_ids[np.argmin(box_areas(chosen.boxes_xyxy))]))

    def choose(self, identity: int) -> str:
        """Keep a person by identity; everybody again if that one is kept already, or with 0."""
        if self._controls is None or self._result is None:
            return ""
        if identity in (0, self._controls.only.whom):
            return self.free()
        if identity not in self._result.people.track_ids:
            return f"#{identity} is not in the picture"
        return self._keep(identity)

    def free(self) -> str:
        """Keep everybody."""
        self._kept, self._picture = None, None
        if self._controls is None or self._controls.only.whom is None:
            return ""
        self._controls.only.keep(None)
        return "everybody"

    def _keep(self, identity: int) -> str:
        assert self._controls is not None
        self._kept, self._picture = identity, None
        self._controls.only.keep(identity)
        return f"only #{identity}"
