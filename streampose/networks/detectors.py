"""Selects the class that runs a detector's checkpoint, and loads it."""

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
        device, dtype: device and number format of the network.
        threshold: minimum score of a box, 0..1. None selects 0.25 for the bundled detector and 0.3 for others.
        classes: names or indices of the classes to detect, as a sequence or as one comma-separated string. None selects
            the class called person.
        max_people: maximum boxes per image; those with the highest scores are kept. None for no limit.
        max_batch: maximum images per network call.
        allow_pickle: accept pickled weights if the checkpoint has no safetensors.

    Raises:
        UsageError: the network lacks a class, or `threshold`, `max_people` or `max_batch` is invalid.
        ModelError: the checkpoint cannot be found or loaded, or is not a detector.
    """
    if threshold is not None and not (isinstance(threshold, Real) and 0 <= threshold <= 1):
        raise UsageError(f"invalid box threshold {threshold!r}: expected a number from 0 to 1")
    if max_people is not None and not (isinstance(max_people, int) and max_people >= 1):
        raise UsageError(f"invalid people limit {max_people!r}: expected an integer of at least 1, or none")
    if not (isinstance(max_batch, int) and max_batch >= 1):
        raise UsageError(f"invalid detector batch size {max_batch!r}: expected an integer of at least 1")
    from transformers.models.auto.modeling_auto import MODEL_FOR_OBJECT_DETECTION_MAPPING_NAMES

    checkpoint = resolve(name, allow_pickle=allow_pickle)
    kind: type[DenseMapDetector] | type[HubDetector]
    if is_dense(checkpoint):
        kind = DenseMapDetector
    elif checkpoint.model_type == "vitpose":
        raise ModelError(f"{checkpoint.name} is a pose network, not a detector: pass it as `pose`")
    elif checkpoint.model_type not in MODEL_FOR_OBJECT_DETECTION_MAPPING_NAMES:
        raise ModelError(
            f"{checkpoint.name} has type {checkpoint.model_type}; transformers has no object detector of this type"
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
    """Whether a checkpoint is a detector of the bundled type."""
    return checkpoint.config.get("streampose_task") == "person-detection"


def default_threshold(checkpoint: Checkpoint) -> float:
    """Return the default minimum box score of a detector."""
    return dense_detector.DEFAULT_THRESHOLD if is_dense(checkpoint) else hub_detector.DEFAULT_THRESHOLD
