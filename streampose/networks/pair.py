"""Loads a detector and a pose network that work together, on one device."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch

from streampose.networks.checkpoints import resolve
from streampose.networks.detector import PersonDetector
from streampose.networks.detectors import load_detector
from streampose.networks.device import default_batches, pick_device, pick_dtype
from streampose.networks.hub import NotHere
from streampose.networks.known import DEFAULT_QUALITY, pair_of
from streampose.networks.pose import DEFAULT_BLUR, PoseEstimator

log = logging.getLogger("streampose")


@dataclass(frozen=True, slots=True)
class LoadedPair:
    """Both networks with what they were loaded for."""

    detector: PersonDetector
    pose: PoseEstimator
    device: torch.device
    dtype: torch.dtype
    detect_batch: int
    """Maximum frames per detector call."""
    pose_batch: int
    """Maximum people per pose call."""


def load_pair(
    *,
    quality: str = DEFAULT_QUALITY,
    pose: str | None = None,
    detector: str | None = None,
    classes: str | Sequence[str | int] | None = None,
    dataset_index: int | None = None,
    allow_pickle: bool = False,
    device: str = "auto",
    dtype: str = "auto",
    compile: bool = False,
    warm_up: bool = False,
    box_threshold: float | None = None,
    max_people: int | None = None,
    flip_test: bool = False,
    heatmap_blur: str | None = None,
    detect_batch: int | None = None,
    pose_batch: int | None = None,
) -> LoadedPair:
    """Load both networks. The arguments are those of `streampose.stream`.

    Raises:
        UsageError: a value does not suit the machine or the networks.
        NotHere: checkpoints cannot be downloaded; the text names all of them.
        ModelError: a checkpoint cannot be found or loaded, or belongs to another kind of network.
    """
    where = pick_device(device)
    precision = pick_dtype(dtype, where)
    usual = default_batches(where)
    detect_batch, pose_batch = detect_batch or usual[0], pose_batch or usual[1]
    pair = pair_of(quality, pose, detector)
    _bring((pair.detector, pair.pose), allow_pickle=allow_pickle)
    people = load_detector(
        pair.detector,
        device=where,
        dtype=precision,
        threshold=box_threshold,
        classes=classes,
        max_people=max_people,
        max_batch=detect_batch,
        allow_pickle=allow_pickle,
    )
    estimator = PoseEstimator(
        pair.pose,
        device=where,
        dtype=precision,
        blur=heatmap_blur or DEFAULT_BLUR,
        dataset_index=dataset_index,
        flip_test=flip_test,
        max_batch=pose_batch,
        allow_pickle=allow_pickle,
    )
    if compile or warm_up:
        _compile(people, estimator, waits=warm_up)
    return LoadedPair(people, estimator, where, precision, detect_batch, pose_batch)


def _bring(names: Iterable[str], *, allow_pickle: bool) -> None:
    """Download the checkpoints that are not on this machine, before time is spent on loading one of them."""
    missing: list[NotHere] = []
    for name in names:
        try:
            resolve(name, allow_pickle=allow_pickle)
        except NotHere as error:
            missing.append(error)
    if len(missing) > 1:
        names = [name for error in missing for name in error.names]
        raise NotHere(names, missing[0].reason) from missing[0]
    if missing:
        raise missing[0]


def _compile(*networks: PersonDetector | PoseEstimator, waits: bool) -> None:
    if any(network.device.type == "cpu" for network in networks):
        log.info("nothing is compiled on a CPU: compilation is supported on accelerators only")
        return
    for network in networks:
        network.compile(waits=waits)
