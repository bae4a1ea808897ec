"""A detector's checkpoint to the class that runs it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from numbers import Real

import torch

from streampose.errors import ModelError, UsageError
from streampose.networks import dense_detector, hub_detector
from streampose.networks.checkpoints import Checkpoint, resolve
from streampose.networks.dense_detector import DenseMapDetector
from streampose.networks.detector import PersonDetector
from streampose.networks.hub_detector import HubDetector


def load_detector(
    name: str | os.PathLike[str],
    *,
    device: torch.device,
    dtype: torch.dtype,
    threshold: float | None = None,
    classes: str | Sequence[str | int] | None = None,
    max_people: int | None = None,
    max_batch: int = 8,
    allow_pickle: bool = False,
) -> PersonDetector:
    """Load a detector.

    Args:
        name: a bundled name, a folder in hub layout or a hub id; see `streampose.networks.checkpoints.resolve`.
        device, dtype: where and in which number format the network runs.
        threshold: least score of a box, 0..1; None takes 0.25 for the bundled detector and 0.3 for others.
        classes: names or numbers of the classes to find, also as one text with commas between them; None finds the
            class called person.
        max_people: most boxes an image, the best ones; None for all.
        max_batch: most images that go through the network together.
        allow_pickle: take weights that are no safetensors, where there are no others.

    Raises:
        UsageError: the network does not know a class; a threshold, `max_people` or `max_batch` that cannot be.
        ModelError: the checkpoint cannot be found or loaded, or is no detector.
    """
    if threshold is not None and not (isinstance(threshold, Real) and 0 <= threshold <= 1):
        raise UsageError(f"no box threshold {threshold!r}: a number from 0 to 1")
    if max_people is not None and not (isinstance(max_people, int) and max_people >= 1):
        raise UsageError(f"no limit of {max_people!r} people: a whole number from 1, or none")
    if not (isinstance(max_batch, int) and max_batch >= 1):
        raise UsageError(f"no batches of {max_batch!r} frames: a whole number from 1")
    from transformers.models.auto.modeling_auto import MODEL_FOR_OBJECT_DETECTION_MAPPING_NAMES

    checkpoint = resolve(name, allow_pickle=allow_pickle)
    kind: type[DenseMapDetector] | type[HubDetector]
    if is_dense(checkpoint):
        kind = DenseMapDetector
    elif checkpoint.model_type == "vitpose":
        raise ModelError(f"{checkpoint.name} is a pose network, not a detector: name it as `pose`")
    elif checkpoint.model_type not in MODEL_FOR_OBJECT_DETECTION_MAPPING_NAMES:
        raise ModelError(
            f"{checkpoint.name} is of type {checkpoint.model_type}, for which transformers has no object detector"
        )
    else:
        kind = HubDetector
    return kind(
        checkpoint,
        device=device,
        dtype=dtype,
        threshold=default_threshold(checkpoint) if threshold is None else threshold,
        classes=classes,
        max_people=max_people,
        max_batch=max_batch,
    )


def is_dense(checkpoint: Checkpoint) -> bool:
    """Whether a checkpoint is of the bundled sort of detector."""
    return checkpoint.config.get("streampose_task") == "person-detection"


def default_threshold(checkpoint: Checkpoint) -> float:
    """Return the least score of a box that suits a detector."""
    return dense_detector.DEFAULT_THRESHOLD if is_dense(checkpoint) else hub_detector.DEFAULT_THRESHOLD
