"""The values that flow from source to sink. Imports nothing of ours.

Boxes and keypoints are always in pixels of the full frame: x to the right, y down, (0, 0) the centre of the top left
pixel, as in COCO. Images are always BGR.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import supervision as sv
    import torch

Float32 = npt.NDArray[np.float32]
Int64 = npt.NDArray[np.int64]
Image = npt.NDArray[np.uint8]
Shrink = Callable[[int, int], Image]
"""Returns a picture in a smaller size (height, width), as (height, width, 3) uint8 BGR. Each pixel is the mean of the
area that it covers. Thread-safe."""

NO_TRACK = -1
"""The track id of a person who is not tracked (`null` in data)."""


class Colours(NamedTuple):
    """What the RGB values of a video's pixels mean, in the numbers of ITU-T H.273; 2: the source does not say."""

    primaries: int = 2
    transfer: int = 2


UNSAID_COLOURS = Colours()


@dataclass(frozen=True, slots=True)
class SourceInfo:
    """Describes a source before its first frame."""

    source_id: str
    """The name in frames, file names and data; derived from the text if the user gives none."""
    text: str
    """The user's text, credentials redacted; for messages and data."""
    width: int
    """Pixels, rotation applied. Of several stills, the first."""
    height: int
    fps: float | None
    """Nominal frames per second; None if the container does not say."""
    time_base: Fraction
    """Seconds per tick: every `pts_s` of the source is a whole number of ticks."""
    frame_count: int | None
    """The container's claim, which may be wrong; None if it makes none. For progress only."""
    is_live: bool
    path: str | None = None
    """The video file, from which a video sink copies the sound; None for other sources."""
    has_sound: bool = False
    """Whether there are sound tracks. A live source knows with its first frame."""
    colours: Colours = UNSAID_COLOURS
    """Of its frames: a copy is tagged so."""
    pictures: tuple[str, ...] = ()
    """The files of a source of stills, in the order of its frames. No sink may replace one of them."""

    @property
    def place(self) -> str | None:
        """The file that is read, or the common folder of several; None if no file is read."""
        if len(self.pictures) > 1:
            return os.path.commonpath({Path(file).parent.resolve() for file in self.pictures})
        return self.pictures[0] if self.pictures else self.path


@dataclass(frozen=True, slots=True)
class Frame:
    """One picture of a source."""

    source_id: str
    index: int
    """Counts from 0, without gaps for a recording."""
    pts_s: float
    """The source's own time in seconds; strictly increasing; drives every sink."""
    captured_at_s: float
    """`time.monotonic()` when the frame left the source; for latency only."""
    image: Image
    """(H, W, 3) uint8 BGR on the host. Shared: never draw on it."""
    file: str | None = None
    """Stills: the file's path below the source's folder, or its name if it is the only one. Otherwise None."""
    pixel_aspect: Fraction = Fraction(1)
    """Display width of a pixel over its height, rotation applied; 1 if the source does not say."""


class Captured(NamedTuple):
    """A frame as it leaves its source, with a cheap way to shrink it for the detector."""

    frame: Frame
    shrink: Shrink | None = None
    """Shrinks the decoder's picture in a third of the time that shrinking `frame.image` takes; None if it cannot. Holds
    the decoder's picture."""


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
        """No boxes: an ordinary value."""
        return cls(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64))


@dataclass(frozen=True, slots=True)
class Detected:
    """A frame with its detections, and its pixels on the networks' device."""

    frame: Frame
    pixels: torch.Tensor
    """(H, W, 3) uint8 BGR on the networks' device; on a CPU the memory of `frame.image`."""
    boxes: Boxes


@dataclass(frozen=True, slots=True)
class Skeleton:
    """The keypoints of a pose network and their connections."""

    names: tuple[str, ...]
    """K names in the order of the network's heatmaps."""
    edges: tuple[tuple[int, int], ...]
    """Pairs of 0-based indices."""
    flip_pairs: tuple[tuple[int, int], ...]
    """(left, right) pairs of 0-based indices. A point without a pair is its own mirror image."""


_ARRAYS = ("boxes_xyxy", "box_scores", "keypoints_xy", "keypoint_scores", "class_ids", "track_ids")
"""The fields of `People` that have a row for each person."""


@dataclass(frozen=True, slots=True)
class People:
    """The people of one frame as a struct of arrays; N may be 0."""

    boxes_xyxy: Float32
    """(N, 4) float32 pixels of the frame."""
    box_scores: Float32
    """(N,) float32 in 0..1."""
    keypoints_xy: Float32
    """(N, K, 2) float32 pixels of the frame."""
    keypoint_scores: Float32
    """(N, K) float32: the height of the heatmap's peak, about 0..1, not clipped."""
    class_ids: Int64
    """(N,) int64, the detector's own class numbers."""
    track_ids: Int64
    """(N,) int64; `NO_TRACK` if the person is not tracked."""
    label_of: dict[int, str] = field(default_factory=dict)
    """The name of each class number that may occur in `class_ids`."""

    def __len__(self) -> int:
        return len(self.boxes_xyxy)

    def __getitem__(self, index: slice | npt.NDArray[np.generic]) -> People:
        """Return some of the people, by a mask or by row numbers."""
        arrays = {name: getattr(self, name)[index] for name in _ARRAYS}
        return replace(self, **arrays)

    def untracked(self) -> People:
        """Return the same people without identities."""
        return replace(self, track_ids=np.full(len(self), NO_TRACK, np.int64))

    @classmethod
    def none(cls, keypoint_count: int) -> People:
        """Nobody: an ordinary value."""
        return cls.of(
            Boxes.none(), np.zeros((0, keypoint_count, 2), np.float32), np.zeros((0, keypoint_count), np.float32)
        )

    @classmethod
    def of(
        cls, boxes: Boxes, keypoints_xy: Float32, keypoint_scores: Float32, label_of: dict[int, str] | None = None
    ) -> People:
        """Join boxes (N) with their keypoints (N, K, 2) and (N, K), untracked."""
        return cls(
            boxes.xyxy,
            boxes.scores,
            keypoints_xy,
            keypoint_scores,
            boxes.class_ids,
            np.full(len(boxes), NO_TRACK, np.int64),
            label_of or {},
        )

    def to_detections(self) -> sv.Detections:
        """Return the boxes as `sv.Detections`: tracker ids only when everybody has one, class names under
        `class_name`.
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
        """Return the keypoints as `sv.KeyPoints`; points scored under `min_score` are marked not visible, none is
        removed.
        """
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
    picture: Image | None = None
    """(H, W, 3) uint8 BGR with the people drawn in; None if no drawing was asked for. Shared: copy before drawing."""

    def to_detections(self) -> sv.Detections:
        """The people's boxes; see `People.to_detections`."""
        return self.people.to_detections()

    def to_key_points(self, min_score: float = 0.0) -> sv.KeyPoints:
        """The people's keypoints; see `People.to_key_points`."""
        return self.people.to_key_points(min_score)

    def drawn(self, picture: Image) -> Result:
        """Return the same result with its drawn picture."""
        return replace(self, picture=picture)


@dataclass(frozen=True, slots=True)
class RunInfo:
    """Describes a run to a sink, before its first frame."""

    source: SourceInfo
    skeleton: Skeleton
    models: dict[str, str]
    """`{"detector": name, "pose": name}`, as the user names them."""
