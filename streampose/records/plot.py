"""Plots of recorded poses: chooses what is shown, and makes the figure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, get_args

from streampose.errors import UsageError
from streampose.frames import Image
from streampose.records.measures import Measuring, angles_of, keypoints_of, positions_of, speeds_of
from streampose.records.plot_curves import plot_curves
from streampose.records.plot_maps import plot_heatmap, plot_paths, plot_timeline
from streampose.records.poses import RecordedPoses, no_identities
from streampose.records.survey import Presence, Span, Who, survey

if TYPE_CHECKING:
    from matplotlib.figure import Figure

What = Literal["angles", "keypoints", "speed", "path", "heatmap", "timeline"]
KINDS: tuple[What, ...] = get_args(What)
ON_A_FRAME = ("path", "heatmap")
"""The plots whose axes are the frame."""
MIN_SCORE = 0.3
"""By default, keypoints with a lower score are gaps."""
MOST_PANELS = 48
"""Maximum number of panels with curves in one figure."""
MOST_PATHS = 18
MOST_ROWS = 60
"""Maximum number of people in a time line."""
_OF_CURVES = {"angles": "Angles", "keypoints": "Keypoints", "speed": "Speed"}


class Plot:
    """A plot of a poses file. Making it reads the file once, and `draw` once more, frame by frame."""

    def __init__(
        self,
        poses: RecordedPoses,
        what: What = "angles",
        *,
        person: int | Sequence[int] | None = None,
        angles: str | Sequence[str] | None = None,
        keypoints: str | Sequence[str] | None = None,
        source_name: str | None = None,
        keypoint_threshold: float = MIN_SCORE,
    ) -> None:
        """Choose what is shown; see `RecordedPoses.plot`. Raises `UsageError`."""
        if what not in KINDS:
            raise UsageError(f"unknown plot {what!r}: choose one of {', '.join(KINDS)}")
        angles, keypoints = _names(angles), _names(keypoints)
        _check_names(what, angles, keypoints)
        self.what = what
        self._poses = poses
        self._keypoints = keypoints
        self._min_score = keypoint_threshold
        self._measuring = self._measuring_of(angles)
        self._found = survey(poses)
        self._sources = self._sources_of(source_name)
        ids = [person] if isinstance(person, int) else person
        self._has_all = ids is None
        self._people = self._people_of(ids)

    @property
    def damage(self) -> UsageError | None:
        """Why the rest of the file could not be read; None if all of it was."""
        return self._found.damage

    @property
    def frame_size(self) -> tuple[int, int]:
        """Width and height of the frames in pixels."""
        span = self._found.sources[self._sources[0]]
        return span.width, span.height

    @property
    def middle_s(self) -> float:
        """The time of the source in the middle of what is shown."""
        there: list[Presence | Span] = [self._found.people[who] for who in self._people]
        there = there or [self._found.sources[source] for source in self._sources]
        return (min(one.first_s for one in there) + max(one.last_s for one in there)) / 2

    def check_has_picture(self) -> None:
        """Raise `UsageError` if the plot cannot be drawn on a frame."""
        if self.what not in ON_A_FRAME:
            raise UsageError(f"`frame` is for {' and '.join(ON_A_FRAME)}: a plot of {self.what} has no picture")

    def draw(self, frame: Image | None = None) -> Figure:
        """Return the figure, on a frame, (H, W, 3) uint8 BGR, if it is a plot in the picture. Raises `UsageError`."""
        if frame is not None:
            self.check_has_picture()
            self._check_frame(frame)
        poses, found, people, min_score = self._poses, self._found, self._people, self._min_score
        left_out = len(found.longest(self._sources)) - len(people) if self._has_all else 0
        if self.what == "path":
            return plot_paths(poses, found, sorted(people), self._keypoints, frame, min_score, left_out)
        if self.what == "heatmap":
            chosen = None if self._has_all else people
            return plot_heatmap(poses, found, self._sources[0], chosen, self._keypoints, frame, min_score)
        if self.what == "timeline":
            shown = sorted(people, key=list(found.people).index)
            return plot_timeline(poses, found, shown, left_out)
        assert self._measuring is not None
        return plot_curves(poses, found, people, self._measuring, _OF_CURVES[self.what], min_score)

    def _measuring_of(self, angles: Sequence[str] | None) -> Measuring | None:
        names = self._poses.skeleton.names
        if self.what == "angles":
            return angles_of(names, angles)
        if self.what == "keypoints":
            return positions_of(names, self._keypoints)
        if self.what == "speed":
            return speeds_of(names, self._keypoints)
        if self._keypoints is not None:
            keypoints_of(names, self._keypoints, ())  # an unknown one is reported before the file is read
        return None

    def _sources_of(self, chosen: str | None) -> list[str]:
        """Return the names of the sources that are shown."""
        found = self._found
        names = list(found.sources)
        if not found.has_people:
            raise found.damage or UsageError(f"{found.name} has no people")
        if chosen is not None and chosen not in names:
            raise UsageError(f"no source {chosen!r} in {found.name}: there are {', '.join(names)}")
        if chosen is not None:
            return [chosen]
        if self.what in ON_A_FRAME and len(names) > 1:
            raise UsageError(f"{found.name} has several sources ({', '.join(names)}): choose one with `source_name`")
        return names

    def _people_of(self, ids: Sequence[int] | None) -> list[Who]:
        """Return the people who are shown; an empty list for a heat map of everybody."""
        found = self._found
        if self.what == "heatmap" and ids is None:
            return []
        if not found.people:
            raise no_identities(self._poses.path, self._poses.header["format"])
        if ids is not None:
            people = found.of(ids, self._sources)
        else:
            people = found.longest(self._sources)
            people = people[: {"path": MOST_PATHS, "timeline": MOST_ROWS}.get(self.what, 1)]
        if not people:
            raise UsageError(f"{found.name} has no people with identities in {', '.join(self._sources)}")
        panels = {channel.panel for channel in self._measuring.channels} if self._measuring else ()
        if len(panels) * len(people) > MOST_PANELS:
            fewer = "angles" if self.what == "angles" else "keypoints"
            raise UsageError(
                f"{len(panels)} panels for each of {len(people)} people are too many (at most {MOST_PANELS} in all): "
                f"choose fewer people with `person`, or fewer curves with `{fewer}`"
            )
        return people

    def _check_frame(self, frame: Image) -> None:
        width, height = self.frame_size
        if abs(frame.shape[1] / frame.shape[0] / (width / height) - 1) > 0.02:
            raise UsageError(
                f"`frame` is {frame.shape[1]}x{frame.shape[0]}, but the poses are of frames of {width}x{height}: name "
                "the video of these poses"
            )


def _names(given: str | Sequence[str] | None) -> Sequence[str] | None:
    """Return names that may be given as one text, separated by commas."""
    return [name.strip() for name in given.split(",")] if isinstance(given, str) else given


def _check_names(what: What, angles: Sequence[str] | None, keypoints: Sequence[str] | None) -> None:
    """Raise `UsageError` if names are given that the plot does not use."""
    if angles is not None and what != "angles":
        raise UsageError(f"`angles` is for plots of angles, not of {what}")
    if keypoints is not None and what in ("angles", "timeline"):
        raise UsageError(f"`keypoints` is for plots of keypoints, speed, path and heatmap, not of {what}")
