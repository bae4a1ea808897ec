"""Prints how many true keypoints are inside the ellipses of their keypoints, and fits the calibration of a checkpoint.

    python -m tools.evaluate_uncertainty --labelled FOLDER
    python -m tools.evaluate_uncertainty --fit --pose FOLDER

The bundled clips are judged with the bundled detector's boxes, labelled stills (a folder with `annotations.json` in
COCO keypoint format and `images/`) with their own boxes. The people found are paired with the true ones at an IoU of
0.5. Every true keypoint inside the frame counts, visible or covered, of every person of whom at least 30 % can be seen.

`--fit` uses the demo clip only. It prints the entry `keypoint_uncertainty` for the checkpoint's `config.json`, and the
table as it is with this entry.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from torch import Tensor

from streampose.bench.labelled import LabelledImages
from streampose.frames import Boxes
from streampose.networks.checkpoints import assets_folder
from streampose.networks.detectors import load_detector
from streampose.networks.geometry import decode_heatmaps
from streampose.networks.known import DEFAULT_DETECTOR, DEFAULT_POSE
from streampose.networks.pose import PoseEstimator
from streampose.networks.uncertainty import Calibration, Curve, spread
from streampose.records.truth import read_truth

CPU = torch.device("cpu")
SHARES = (0.5, 0.9)
QUANTILES = tuple(float(-2 * np.log(1 - share)) for share in SHARES)
"""Those of chi squared with two degrees of freedom: the squared radii of the ellipses, in standard deviations."""

STRAY_AT = (0.002, 0.01, 0.02, 0.03, 0.05, 0.09, 0.17, 0.3, 0.45)
POSE_SCORE_AT = (0.5, 0.6, 0.65, 0.7, 0.75, 0.8)
"""Positions of the points of the two curves."""
AIMS = (0.5, 0.92)
"""Shares that the fit aims at. It cannot reach both on the demo clip, because a few keypoints lie on another person or
on the opposite side. With these aims, it misses 50 and 90 % by equally much."""
STEPS = 500
WEIGHT_OF_ALL = 30.0
"""Weight of the shares among all keypoints, relative to the shares in each of the groups of similar keypoints."""
RIDGE = 0.03
"""Weight of the squared values of the calibration."""

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Points:
    """Found keypoints whose true position is known. The arrays have a row for each."""

    distances: Tensor
    """(P,) squared distance of the true position, in standard deviations of the covariance that was delivered."""
    raw_distances: Tensor
    """(P,) the same for a covariance without calibration."""
    strays: Tensor
    """(P,) see `streampose.networks.uncertainty.spread`."""
    scores: Tensor
    """(P,)"""
    pose_scores: Tensor
    """(P,) the mean score of the keypoint's pose."""
    keypoints: Tensor
    """(P,) int64 number of the keypoint."""
    is_visible: Tensor
    """(P,) bool; False if the true point is covered."""

    def __getitem__(self, index: Tensor) -> Points:
        return Points(**{name: value[index] for name, value in vars(self).items()})

    @classmethod
    def join(cls, parts: Sequence[Points]) -> Points:
        """Join the points of several frames."""
        return cls(**{name: torch.cat([vars(part)[name] for part in parts]) for name in vars(parts[0])})


Judged = tuple[Tensor, Boxes, Array]
"""A frame as (H, W, 3) uint8 BGR, boxes of N people in it, and their true keypoints (N, K, 3): x, y and 2 if visible, 1
if covered, 0 if outside the frame or unknown."""


def of_clip(name: str, every: int = 1) -> Iterator[Judged]:
    """Yield every Nth frame of a bundled clip, with the boxes of the bundled detector that show a known person."""
    truth = read_truth(assets_folder() / f"{name}_truth.json")
    detector = load_detector(DEFAULT_DETECTOR, device=CPU, dtype=torch.float32)
    with av.open(assets_folder() / f"{name}.mp4") as clip:
        for index, frame in enumerate(clip.decode(video=0)):
            if index % every:
                continue
            image = torch.from_numpy(frame.to_ndarray(format="bgr24"))
            true = truth.frames[index]
            boxes = detector.detect([image])[0]
            pairs = [pair for pair in true.pairs(boxes.xyxy) if true.counts[pair[0]]]
            if pairs:
                rows, columns = np.array(pairs).T
                yield image, boxes[columns], true.keypoints[rows].astype(np.float32)


def of_stills(folder: Path) -> Iterator[Judged]:
    """Yield labelled stills in COCO keypoint format, with the labelled boxes."""
    images = LabelledImages(folder / "annotations.json", folder / "images")
    boxes = images.given_boxes()
    for number, image in images:
        if len(boxes[number]):
            truth = images.truth.frames[number].keypoints.astype(np.float32)
            yield torch.from_numpy(image), boxes[number], truth


@torch.no_grad()
def measure(estimator: PoseEstimator, judged: Iterator[Judged]) -> Points:
    """Estimate the poses and return all keypoints whose true position is known and inside the frame."""
    parts = []
    for image, boxes, truth in judged:
        crops, regions = estimator.prepare([image], [boxes])
        heatmaps = estimator.forward(crops)
        delivered = estimator.decode(heatmaps, regions)
        cells, scores = decode_heatmaps(heatmaps, estimator.blur)
        moments, strays = spread(heatmaps, cells)
        per_cell = regions[:, None, 2:] / (torch.tensor(heatmaps.shape[:1:-1]) - 1)
        away = torch.from_numpy(truth[..., :2]) - delivered[..., :2]
        is_known = torch.from_numpy(truth[..., 2] > 0)
        points = Points(
            _distances(away, delivered[..., 3:]),
            _distances(away / per_cell, moments),
            strays,
            scores,
            scores.clamp(0, 1).mean(-1, keepdim=True).expand_as(scores),
            torch.arange(scores.shape[1]).expand_as(scores),
            torch.from_numpy(truth[..., 2] == 2),
        )
        parts.append(points[is_known])
    return Points.join(parts)


def _distances(away: Tensor, covariances: Tensor) -> Tensor:
    """Return squared Mahalanobis distances (...) of offsets (..., 2), for covariances (..., 3)."""
    (x, y), (xx, yy, xy) = away.unbind(-1), covariances.unbind(-1)
    return (yy * x * x - 2 * xy * x * y + xx * y * y) / (xx * yy - xy * xy)


def shares_inside(distances: Tensor) -> tuple[float, float]:
    """Return the share of true points inside the 50 % and the 90 % ellipse."""
    half, most = (float((distances <= quantile).float().mean()) for quantile in QUANTILES)
    return half, most


def fitted(points: Points, flip_pairs: Sequence[tuple[int, int]]) -> Calibration:
    """Fit a calibration by gradient descent.

    The shares inside the ellipses become differentiable by soft edges, which harden during the descent. The loss is the
    squared miss of the aims, among all points, among the visible ones, and in each of 36 groups by stray share and
    score. Left and right keypoints share their value.
    """
    count = int(points.keypoints.max()) + 1
    own = torch.arange(count)
    for left, right in flip_pairs:
        own[right] = left
    keypoints = torch.eye(count)[own][:, own.unique()]
    inputs = torch.cat(
        [_hats(points.strays, STRAY_AT), _hats(points.pose_scores, POSE_SCORE_AT), keypoints[points.keypoints]], dim=1
    )
    logs = points.raw_distances.clamp(min=1e-9).log()
    group = _sixths(points.strays) * 6 + _sixths(points.scores)
    members = torch.nn.functional.one_hot(group, 36).float()
    sizes = members.sum(0)
    values = torch.zeros(inputs.shape[1], requires_grad=True)
    start = logs.median()
    optimizer = torch.optim.Adam([values], lr=0.05)
    for step in range(STEPS):
        if step == int(0.8 * STEPS):
            optimizer.param_groups[0]["lr"] = 0.01
        softness = max(0.08, 0.8 * (1 - step / (0.7 * STEPS)))
        left_over = logs - start - inputs @ values
        loss = RIDGE * values.square().sum()
        for aim, quantile in zip(AIMS, QUANTILES, strict=True):
            inside = torch.sigmoid((float(np.log(quantile)) - left_over) / softness)
            in_groups = inside @ members / sizes.clamp(min=1)
            loss = loss + 100 * ((in_groups - aim).square() * sizes).sum() / sizes.sum()
            for some in (inside, inside[points.is_visible]):
                loss = loss + 50 * WEIGHT_OF_ALL * (some.mean() - aim).square()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    found = values.detach()
    stray, pose_score, rest = found.split([len(STRAY_AT), len(POSE_SCORE_AT), keypoints.shape[1]])
    of_keypoints = keypoints @ rest + start
    return Calibration(_curve(STRAY_AT, stray), _curve(POSE_SCORE_AT, pose_score), _rounded(of_keypoints))


def _hats(positions: Tensor, at: Sequence[float]) -> Tensor:
    """Return the weights (P, A) of the points of a curve at some positions."""
    weights = np.stack([np.interp(positions.numpy(), at, row) for row in np.eye(len(at))], axis=1)
    return torch.from_numpy(weights.astype(np.float32))


def _sixths(values: Tensor) -> Tensor:
    """Return in which sixth of all values each value is, 0 to 5."""
    return torch.bucketize(values, torch.quantile(values, torch.linspace(0, 1, 7)[1:-1]))


def _rounded(values: Tensor) -> tuple[float, ...]:
    return tuple(round(value, 3) for value in values.tolist())


def _curve(at: Sequence[float], values: Tensor) -> Curve:
    return tuple(zip(at, _rounded(values), strict=True))


def print_row(name: str, points: Points) -> None:
    """Print a row of the table: which points, how many, and the shares inside the ellipses."""
    if len(points.scores):
        half, most = shares_inside(points.distances)
        print(f"| {name} | {len(points.scores)} | {half:.0%} | {most:.0%} |", flush=True)


def print_rows(name: str, points: Points) -> None:
    """Print the rows of a clip or of stills."""
    print_row(name, points)
    print_row(f"{name}, visible", points[points.is_visible])
    print_row(f"{name}, covered", points[~points.is_visible])
    for low, high in ((-1.0, 0.4), (0.4, 0.6), (0.6, 0.8), (0.8, 9.0)):
        print_row(f"{name}, score {max(low, 0):g} to {min(high, 1):g}", points[_between(points.scores, low, high)])


def _between(values: Tensor, low: float, high: float) -> Tensor:
    return (values >= low) & (values < high)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pose", default=DEFAULT_POSE, help="a checkpoint for COCO's keypoints")
    parser.add_argument("--fit", action="store_true", help="fit the calibration to the demo clip and use it")
    parser.add_argument("--labelled", type=Path, help="a folder of labelled stills")
    parser.add_argument("--every", type=int, default=1, help="use only every Nth frame of the clips")
    arguments = parser.parse_args()
    estimator = PoseEstimator(arguments.pose, device=CPU, dtype=torch.float32)
    if arguments.fit:
        points = measure(estimator, of_clip("demo", arguments.every))
        estimator.calibration = fitted(points, estimator.skeleton.flip_pairs)
        print(json.dumps({"keypoint_uncertainty": asdict(estimator.calibration)}, indent=2))
    print("| Points | Number | Inside the 50 % ellipse | Inside the 90 % ellipse |\n|---|---|---|---|")
    print_rows("demo clip", measure(estimator, of_clip("demo", arguments.every)))
    print_rows("crossing clip", measure(estimator, of_clip("crossing", arguments.every)))
    if arguments.labelled:
        print_rows("labelled stills", measure(estimator, of_stills(arguments.labelled)))


if __name__ == "__main__":
    main()
