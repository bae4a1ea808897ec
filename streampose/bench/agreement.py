"""Compares results with the reference's. A speed is only meaningful if the results agree."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch

from streampose.errors import ModelError
from streampose.frames import Float32, People
from streampose.networks.geometry import crop_regions
from streampose.people.overlap import best_pairs, box_overlaps

LEAST_SCORE = 0.3
"""Keypoints with a lower reference score are not compared, because their positions are unreliable in both."""
SAME_PERSON_IOU = 0.5
"""Minimum IoU of two boxes of one person."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """The maximum differences allowed between our results and the reference's."""

    p99_px: float | None
    """Limit for the 99th percentile of the keypoint distances, given the same boxes; pixels of the frame."""
    p95_cells: float | None
    """Limit for the 95th percentile of the same distances, in heatmap cells of the person."""
    people: float
    """Minimum share of people, 0..1, that both detectors find, matched by boxes with an IoU of at least 0.5.

    One missing person is always allowed.
    """


AGREEMENT = {
    # A percentile, not the maximum: OpenCV and scipy can round a crop value to different grey levels, and a single grey
    # level can move a point if the network is uncertain. With the bundled networks, 3 of 2,800 keypoints differ by more
    # than 0.1 px and most by less than 0.001 px.
    torch.float32: Agreement(0.1, None, 0.98),
    # Half precision moves a keypoint by hundredths of a cell. Occasionally it selects the other of two equal peaks, so
    # a limit in pixels is not meaningful. At a quarter of a cell, even an eye, the strictest keypoint in COCO, has an
    # OKS of 0.98. Measured with the bundled networks in bfloat16: 0.05 to 0.07 cells. Boxes near the threshold can
    # appear or disappear.
    torch.bfloat16: Agreement(None, 0.25, 0.9),
    torch.float16: Agreement(None, 0.25, 0.9),
}


@dataclass(frozen=True, slots=True)
class Differences:
    """Distances between our keypoints and the reference's, for reference scores of at least `LEAST_SCORE`."""

    px: Float32
    """(M,) pixels of the frame."""
    cells: Float32
    """(M,) heatmap cells of the keypoint's person."""

    @classmethod
    def none(cls) -> Differences:
        """Return differences without any keypoints."""
        return cls(np.zeros(0, np.float32), np.zeros(0, np.float32))

    @classmethod
    def between(cls, ours: Float32, theirs: Float32, boxes_xyxy: Float32, cells_across: float) -> Differences:
        """Compare people (N, K, 3), with x, y and score, index by index.

        Args:
            boxes_xyxy: (N, 4), pixels of the frame.
            cells_across: heatmap cells across the width of the region around a box, at the usual 4:3 aspect ratio.
        """
        compared = theirs[..., 2] >= LEAST_SCORE
        px = np.linalg.norm(ours[..., :2] - theirs[..., :2], axis=-1)
        regions = crop_regions(torch.from_numpy(boxes_xyxy), height=4, width=3).numpy()
        cells = px * (cells_across / regions[:, 2:3])
        return cls(px[compared].astype(np.float32), cells[compared].astype(np.float32))

    def __add__(self, others: Differences) -> Differences:
        return Differences(np.append(self.px, others.px), np.append(self.cells, others.cells))

    def percentile_px(self, q: float) -> float | None:
        """Return the q-th percentile, 0..100, in pixels; None if there are no keypoints."""
        return float(np.percentile(self.px, q)) if len(self.px) else None

    def percentile_cells(self, q: float) -> float | None:
        """Return the q-th percentile in heatmap cells; None if there are no keypoints."""
        return float(np.percentile(self.cells, q)) if len(self.cells) else None


@dataclass(frozen=True, slots=True)
class Comparison:
    """The accumulated comparison of the pipeline's results with the reference's."""

    same_boxes: Differences = field(default_factory=Differences.none)
    chain: Differences = field(default_factory=Differences.none)
    pairs: int = 0
    boxes: int = 0
    """Number of boxes of both together."""

    @property
    def matched(self) -> float:
        """Share of people, 0..1, that both found."""
        return 2 * self.pairs / self.boxes if self.boxes else 1.0

    def with_frame(
        self, ours: People, theirs: tuple[Float32, Float32], given_ours: Float32, cells_across: float
    ) -> Comparison:
        """Return the comparison extended by a frame.

        Args:
            ours: the pipeline's people.
            theirs: the reference's boxes (M, 4) and people (M, K, 3).
            given_ours: the reference's people (N, K, 3) for our boxes.
            cells_across: see `Differences.between`.
        """
        people = np.concatenate([ours.keypoints_xy, ours.keypoint_scores[..., None]], axis=-1)
        boxes, found = theirs
        pairs = np.array(best_pairs(box_overlaps(ours.boxes_xyxy, boxes), SAME_PERSON_IOU), int).reshape(-1, 2)
        first, second = pairs[:, 0], pairs[:, 1]
        return Comparison(
            self.same_boxes + Differences.between(people, given_ours, ours.boxes_xyxy, cells_across),
            self.chain + Differences.between(people[first], found[second], boxes[second], cells_across),
            self.pairs + len(pairs),
            self.boxes + len(ours) + len(boxes),
        )

    def check(self, limit: Agreement, what: str) -> None:
        """Raise `ModelError` when the results differ by more than `limit`."""
        px, cells = self.same_boxes.px, self.same_boxes.cells
        if limit.p99_px is not None and len(px) and not (p99 := np.percentile(px, 99)) <= limit.p99_px:
            fault = f"1 % of the keypoints are {p99:.2f} px or more from the reference (limit {limit.p99_px:g} px)"
        elif limit.p95_cells is not None and len(cells) and not (p95 := np.percentile(cells, 95)) <= limit.p95_cells:
            fault = (
                f"5 % of the keypoints are {p95:.2f} heatmap cells or more from the positions of the reference (limit "
            )
            fault += f"{limit.p95_cells:g} cells)"
        elif self.boxes - 2 * self.pairs > max(1, (1 - limit.people) * self.boxes):
            fault = f"only {self.matched:.1%} of the people match the reference (minimum {limit.people:.0%})"
        else:
            return
        raise ModelError(f"{what}: {fault}; no speed is reported")
