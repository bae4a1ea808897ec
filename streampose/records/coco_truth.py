"""COCO keypoint annotations (https://cocodataset.org/#format-data) as the truth of stills."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from streampose.errors import UsageError, describe
from streampose.frames import NO_TRACK
from streampose.records.truth import Float64, TrueFrame, Truth, head_sizes, read_json, truth_of
from streampose.sinks.target import name_of

HEAD_OF_BOX = 0.6
"""The size of a head is this share of the diagonal of its box, as in MPII's PCKh."""


@dataclass(frozen=True, slots=True)
class CocoTruth(Truth):
    """COCO annotations. The frames are the images by their ids; crowds are not among the people."""

    category: Mapping[str, Any] = field(default_factory=dict)
    """The category with keypoints."""
    images: Mapping[int, Mapping[str, Any]] = field(default_factory=dict)
    """The entries of the images by id."""
    annotations: Sequence[Mapping[str, Any]] = ()
    """The annotations of the category, with all keys that pycocotools needs; crowds are among them."""


def read_coco(path: str | os.PathLike[str]) -> CocoTruth:
    """Read COCO keypoint annotations. Raises `UsageError` if the file cannot be read or is not such a file."""
    return coco_of(read_json(path), name_of(path))


def read_any_truth(path: str | os.PathLike[str]) -> Truth:
    """Read the truth of a recording, or COCO annotations. Raises `UsageError`."""
    content, name = read_json(path), name_of(path)
    return coco_of(content, name) if "annotations" in content else truth_of(content, name)


def coco_of(content: Mapping[str, Any], name: str) -> CocoTruth:
    """Return the content of COCO annotations. `name` is for messages. Raises `UsageError`."""
    where = ""
    try:
        categories = [one for one in content["categories"] if one.get("keypoints")]
        if not categories:
            raise UsageError(f"{name} has no category with keypoints: give COCO keypoint annotations")
        category = next((one for one in categories if one.get("name") == "person"), categories[0])
        names = tuple(map(str, category["keypoints"]))
        images = {one["id"]: one for one in content["images"]}
        files = {one["file_name"]: one["id"] for one in content["images"]}
        annotations = []
        of_images: dict[int, list[dict[str, Any]]] = {number: [] for number in images}
        for one in content["annotations"]:
            where = f" of annotation {one.get('id')}"
            if one["category_id"] == category["id"]:
                annotations.append(_annotation(one, len(names)))
                if one["image_id"] not in images:
                    raise ValueError(f"image {one['image_id']} is not listed")
                if not annotations[-1]["iscrowd"]:
                    of_images[one["image_id"]].append(annotations[-1])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        reason = f"{error}{where} is missing" if isinstance(error, KeyError) else f"{describe(error)}{where}"
        raise UsageError(f"{name} is not a file of COCO keypoint annotations: {reason}") from error
    frames = {number: _true_frame(some, names, images[number]) for number, some in of_images.items()}
    # Our own annotations of a recording say which frame an image is.
    of_recording = {one["frame"]: number for number, one in reversed(images.items()) if "frame" in one}
    return CocoTruth(name, names, frames, of_recording, _with_short_names(files), category, images, annotations)


def _annotation(one: Mapping[str, Any], keypoint_count: int) -> dict[str, Any]:
    """Check an annotation and complete it."""
    keypoints = np.array(one["keypoints"], np.float64).reshape(keypoint_count, 3)
    box = np.array(one["bbox"], np.float64).reshape(4)
    if not np.isfinite(keypoints).all() or not np.isfinite(box).all():
        raise ValueError("a coordinate is not a number")
    labelled = int((keypoints[:, 2] > 0).sum())
    return {"iscrowd": 0, "num_keypoints": labelled, **one, "area": float(one["area"])}


def _true_frame(people: Sequence[Mapping[str, Any]], names: Sequence[str], image: Mapping[str, Any]) -> TrueFrame:
    count = len(people)
    xywh = np.array([one["bbox"] for one in people], np.float32).reshape(count, 4)
    keypoints = np.array([one["keypoints"] for one in people], np.float64).reshape(count, len(names), 3)
    size = (int(image["width"]), int(image["height"])) if "width" in image and "height" in image else None
    return TrueFrame(
        np.array([one.get("track_id", NO_TRACK) for one in people], np.int64),
        np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], axis=1),
        keypoints,
        np.ones(count),
        _head_sizes(people, keypoints, names),
        size,
    )


def _head_sizes(people: Sequence[Mapping[str, Any]], keypoints: Float64, names: Sequence[str]) -> Float64:
    """Return the sizes (N,) of the heads: by the boxes of heads that PoseTrack has, else by keypoints."""
    sizes = head_sizes(keypoints, names)
    for number, one in enumerate(people):
        if len(one.get("bbox_head", ())) == 4:
            sizes[number] = HEAD_OF_BOX * np.hypot(*one["bbox_head"][2:]) or np.nan
    return sizes


def _with_short_names(files: Mapping[str, int]) -> dict[str, int]:
    """Add the names without their folders, where only one image has them."""
    short = {file: PurePosixPath(file).name for file in files}
    counts = Counter(short.values())
    return {short[file]: number for file, number in files.items() if counts[short[file]] == 1} | dict(files)
