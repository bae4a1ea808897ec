"""The values that flow from source to sink. Imports no other module of the package, except when a result is shown or
converted.

Boxes and keypoints are always in pixels of the full frame: x to the right, y down, (0, 0) the centre of the top left
pixel, as in COCO. Images are always BGR.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from fractions import Fraction
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import pandas as pd
    import supervision as sv
    import torch

Float32 = npt.NDArray[np.float32]
Int64 = npt.NDArray[np.int64]
Image = npt.NDArray[np.uint8]
Shrink = Callable[[int, int], Image]
"""A function that returns an image in a smaller size (height, width), as (height, width, 3) uint8 BGR. Each pixel is
the mean of the area that it covers. Thread-safe."""

NO_TRACK = -1
"""The track id of a person who is not tracked (`null` in data)."""


class Part(NamedTuple):
    """Which frames of a source are wanted. Times are those of the source: `Frame.pts_s`."""

    start_s: float = 0.0
    """Leave out the frames before this time."""
    end_s: float = inf
    """Leave out the frames at or after this time."""
    every: int = 1
    """Keep the first frame, then every Nth."""


WHOLE = Part()


class Colours(NamedTuple):
    """Colour primaries and transfer function of a video, as numbers of ITU-T H.273; 2 means unspecified."""

    primaries: int = 2
    transfer: int = 2


UNSAID_COLOURS = Colours()


@dataclass(frozen=True, slots=True)
class SourceInfo:
    """Describes a source before its first frame."""

    source_id: str
    """The name of the source in frames, file names and data; derived from the text if the user gives none."""
    text: str
    """The source as the user wrote it, credentials redacted; for messages and data."""
    width: int
    """In pixels, after rotation. For several stills, the size of the first."""
    height: int
    fps: float | None
    """Nominal frames per second, without those that `part` leaves out; None if unknown."""
    time_base: Fraction
    """Seconds per tick: every `pts_s` of the source is a whole number of ticks."""
    frame_count: int | None
    """The number of frames of `part` by what the container declares; None if it declares nothing. It may be wrong: use
    it for progress only."""
    is_live: bool
    path: str | None = None
    """The video file, for copying its sound; None for other sources."""
    is_camera: bool = False
    """Whether it is a camera of this machine."""
    has_sound: bool = False
    """Whether the source has sound tracks. For a live source, this is known from the first frame on."""
    colours: Colours = UNSAID_COLOURS
    """Colours of the frames. Video sinks tag their output with them."""
    stills: tuple[str, ...] = ()
    """The files of a source of stills, in the order of the frames. No sink may replace one of them."""
    part: Part = WHOLE
    """The frames that are read."""
    begins_s: float = 0.0
    """Time of the first frame if those before it are left out, otherwise 0. Video files start at this time."""

    @property
    def place(self) -> str | None:
        """The file that is read, or the common folder of several files; None if no file is read."""
        if len(self.stills) > 1:
            return os.path.commonpath({Path(file).parent.resolve() for file in self.stills})
        return self.stills[0] if self.stills else self.path


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame of a source."""

    source_id: str
    index: int
    """Number of the frame in its source, from 0, whether or not the frames before it are wanted. A recording has no
    other gaps."""
    pts_s: float
    """Time of the frame in the source, in seconds; strictly increasing. Sinks use this time."""
    captured_at_s: float
    """`time.monotonic()` when the frame left the source; for latency and scheduling only."""
    image: Image
    """(H, W, 3) uint8 BGR on the host. Shared: copy it before drawing on it."""
    file: str | None = None
    """For stills, the path of the file relative to the folder of the source. Otherwise None."""
    pixel_aspect: Fraction = Fraction(1)
    """Display width of a pixel divided by its height, after rotation; 1 if the source does not declare it."""
    faces_xyxy: Float32 | None = None
    """(M, 4) float32 pixels: rectangles around faces that a run has made unrecognizable; None if it did not do so."""


class Captured(NamedTuple):
    """A frame as it leaves its source, with a cheap way to shrink it for the detector."""

    frame: Frame
    shrink: Shrink | None = None
    """Shrinks the decoded frame in a third of the time that shrinking `frame.image` takes; None if it cannot. Keeps the
    decoded frame in memory."""


@dataclass(frozen=True, slots=True)
class Boxes:
    """The detections of one frame, best first."""

    xyxy: Float32
    """(N, 4) float32, pixels of the frame: left, top, right, bottom."""
    scores: Float32
    """(N,) float32 in 0..1."""
    class_ids: Int64
    """(N,) int64, the detector's own class numbers."""

    def __len__(self) -> int:
        return len(self.xyxy)

    def __getitem__(self, index: slice | npt.NDArray[np.generic]) -> Boxes:
        return Boxes(self.xyxy[index], self.scores[index], self.class_ids[index])

    @classmethod
    def none(cls) -> Boxes:
        """Return zero boxes."""
        return cls(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64))


@dataclass(frozen=True, slots=True)
class Detected:
    """A frame with its detections, and its pixels on the networks' device."""

    frame: Frame
    pixels: torch.Tensor
    """(H, W, 3) uint8 BGR on the networks' device; on a CPU it shares the memory of `frame.image`."""
    boxes: Boxes


@dataclass(frozen=True, slots=True)
class Skeleton:
    """The keypoints of a pose network and their connections."""

    names: tuple[str, ...]
    """K names in the order of the network's heatmaps."""
    edges: tuple[tuple[int, int], ...]
    """The limbs, as pairs of 0-based indices into `names`."""
    flip_pairs: tuple[tuple[int, int], ...]
    """(left, right) pairs of 0-based indices. A point without a pair is its own mirror image."""


class Poses(NamedTuple):
    """The poses of the N people of one frame."""

    keypoints_xy: Float32
    """(N, K, 2) float32, pixels of the frame; NaN for a keypoint whose heatmap is not finite."""
    scores: Float32
    """(N, K) float32, the heights of the heatmap peaks; 0 for a keypoint whose heatmap is not finite."""
    covariances: Float32
    """(N, K, 2, 2) float32, squared pixels of the frame; see `People.keypoint_covariances`."""


_ARRAYS = ("boxes_xyxy", "box_scores", "keypoints_xy", "keypoint_scores", "class_ids", "track_ids")
_OPTIONAL_ARRAYS = ("keypoint_covariances", "smooth_xy")
"""The fields of `People` that have a row for each person; those in the second line can be None."""


@dataclass(frozen=True, slots=True)
class People:
    """The N people of one frame as arrays; N may be 0."""

    boxes_xyxy: Float32
    """(N, 4) float32 pixels of the frame."""
    box_scores: Float32
    """(N,) float32 in 0..1."""
    keypoints_xy: Float32
    """(N, K, 2) float32 pixels of the frame."""
    keypoint_scores: Float32
    """(N, K) float32: height of the peak in each heatmap, about 0..1, not clipped."""
    class_ids: Int64
    """(N,) int64, the detector's own class numbers."""
    track_ids: Int64
    """(N,) int64; `NO_TRACK` if the person is not tracked."""
    keypoint_covariances: Float32 | None = None
    """(N, K, 2, 2) float32, squared pixels of the frame: how uncertain each keypoint is. The true point x is inside the
    ellipse (x - keypoint)^T C^-1 (x - keypoint) <= q with a probability of 50 % for q = 1.386 and of 90 % for
    q = 4.605, if the pose network is calibrated. Positive definite; NaN if the keypoint is NaN. None if unknown."""
    smooth_xy: Float32 | None = None
    """(N, K, 2) float32 pixels of the frame: the keypoints, smoothed over time; None if they are not smoothed."""
    label_of: dict[int, str] = field(default_factory=dict)
    """The name of each class number that may occur in `class_ids`."""

    def __len__(self) -> int:
        return len(self.boxes_xyxy)

    def __getitem__(self, index: slice | npt.NDArray[np.generic]) -> People:
        """Return some of the people, by a mask or by row numbers."""
        arrays = {name: getattr(self, name)[index] for name in _ARRAYS}
        for name in _OPTIONAL_ARRAYS:
            array = getattr(self, name)
            arrays[name] = None if array is None else array[index]
        return replace(self, **arrays)

    def mirrored(self, width: int) -> People:
        """Return the same people on the mirrored frame, which is `width` pixels wide. Names keep their sides: a left
        eye stays one.
        """
        boxes, covariances = self.boxes_xyxy.copy(), self.keypoint_covariances
        boxes[:, [0, 2]] = width - 1 - boxes[:, [2, 0]]
        flip = np.array([-1, 1], np.float32)
        shift = np.array([width - 1, 0], np.float32)
        return replace(
            self,
            boxes_xyxy=boxes,
            keypoints_xy=self.keypoints_xy * flip + shift,
            smooth_xy=None if self.smooth_xy is None else self.smooth_xy * flip + shift,
            keypoint_covariances=None if covariances is None else covariances * np.outer(flip, flip),
        )

    def untracked(self) -> People:
        """Return the same people without identities."""
        return replace(self, track_ids=np.full(len(self), NO_TRACK, np.int64))

    @classmethod
    def none(cls, keypoint_count: int) -> People:
        """Return zero people."""
        xy, covariances = (np.zeros((0, keypoint_count, *shape), np.float32) for shape in ((2,), (2, 2)))
        return cls.of(Boxes.none(), xy, xy[..., 0], covariances)

    @classmethod
    def of(
        cls,
        boxes: Boxes,
        keypoints_xy: Float32,
        keypoint_scores: Float32,
        keypoint_covariances: Float32 | None = None,
        *,
        label_of: dict[int, str] | None = None,
    ) -> People:
        """Join N boxes with their keypoints (N, K, 2), scores (N, K) and covariances (N, K, 2, 2).

        The people are not tracked.
        """
        return cls(
            boxes.xyxy,
            boxes.scores,
            keypoints_xy,
            keypoint_scores,
            boxes.class_ids,
            np.full(len(boxes), NO_TRACK, np.int64),
            keypoint_covariances,
            label_of=label_of or {},
        )

    def to_detections(self) -> sv.Detections:
        """Return the boxes as `sv.Detections`, with class names under `class_name`.

        Tracker ids are included only if all people are tracked.
        """
        import supervision as sv

        tracked = len(self) > 0 and bool((self.track_ids != NO_TRACK).all())
        names = np.array([self.label_of.get(int(i), str(i)) for i in self.class_ids], dtype=str)
        return sv.Detections(
            xyxy=self.boxes_xyxy.copy(),
            confidence=self.box_scores.copy(),
            class_id=self.class_ids.astype(int),
            tracker_id=self.track_ids.astype(int) if tracked else None,
            data={"class_name": names},
        )

    def to_key_points(self, min_score: float = 0.0) -> sv.KeyPoints:
        """Return all keypoints as `sv.KeyPoints`. Points with scores below `min_score` are marked as not visible."""
        import supervision as sv

        return sv.KeyPoints(
            xy=self.keypoints_xy.copy(),
            keypoint_confidence=self.keypoint_scores.copy(),
            detection_confidence=self.box_scores.copy(),
            class_id=self.class_ids.astype(int),
            visible=self.keypoint_scores >= min_score,
        )


@dataclass(frozen=True, slots=True)
class Result:
    """One finished frame, as the pipeline yields it and sinks receive it."""

    frame: Frame
    people: People
    skeleton: Skeleton
    drawn: Image | None = None
    """The drawn frame, (H, W, 3) uint8 BGR; None if no sink and no option asked for it. Shared: copy it before drawing
    on it."""

    def __repr__(self) -> str:
        frame = self.frame
        height, width = frame.image.shape[:2]
        which = f"{frame.source_id} {frame.index}" if frame.file is None else frame.file
        at = f" at {frame.pts_s:.3f} s" if np.isfinite(frame.pts_s) else ""
        people = "1 person" if len(self.people) == 1 else f"{len(self.people)} people"
        return f"Result({which}{at}, {width}x{height}, {people})"

    def _repr_html_(self) -> str:
        """Return the drawn frame, in a limited size, and a table of the people, for notebooks."""
        from streampose.drawing.notebook import html_of

        return html_of(self)

    def draw(self, *, rgb: bool = False, **settings: Any) -> Image:
        """Return the frame with the people drawn on it, (H, W, 3) uint8 BGR, or RGB if `rgb` is set.

        Args:
            rgb: return red, green, blue, as matplotlib and Pillow expect it.
            settings: `style`, `keypoint_threshold`, `boxes`, `labels`, `colour_by` and `ellipses`, as in
                `streampose.stream`.

        Raises:
            UsageError: a setting is unknown or invalid.
            AnnotateError: drawing fails.
        """
        from streampose.drawing.notebook import drawn_of

        drawn = drawn_of(self, settings)
        return np.ascontiguousarray(drawn[..., ::-1]) if rgb else drawn

    def to_dataframe(self, rows: Literal["keypoints", "people", "angles"] = "keypoints") -> pd.DataFrame:
        """Return the people as a pandas table; see `streampose.RecordedPoses.to_dataframe`.

        The values are rounded as in a poses file. Needs the extra `data`.

        Raises:
            UsageError: pandas is not installed, or there are no such rows.
        """
        from streampose.records.results import dataframe_of

        return dataframe_of(self, rows)

    def to_coco(self, image_id: int) -> list[dict[str, Any]]:
        """Return the people as COCO results: what a `.results.json` file has for the image with this id."""
        from streampose.records.results import coco_of

        return coco_of(self, image_id)

    def to_supervision(self, min_score: float = 0.0) -> tuple[sv.Detections, sv.KeyPoints]:
        """Return the boxes and the keypoints; see `People.to_detections` and `People.to_key_points`."""
        return self.to_detections(), self.to_key_points(min_score)

    def to_detections(self) -> sv.Detections:
        """Return the boxes; see `People.to_detections`."""
        return self.people.to_detections()

    def to_key_points(self, min_score: float = 0.0) -> sv.KeyPoints:
        """Return the keypoints; see `People.to_key_points`."""
        return self.people.to_key_points(min_score)

    def with_drawn(self, image: Image) -> Result:
        """Return the same result with `image` as the drawn frame."""
        return replace(self, drawn=image)


@dataclass(frozen=True, slots=True)
class RunInfo:
    """Describes a run to a sink, before its first frame."""

    source: SourceInfo
    skeleton: Skeleton
    models: dict[str, str]
    """`{"detector": name, "pose": name}`, as the user named them."""
