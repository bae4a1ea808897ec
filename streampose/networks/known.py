"""The list of recommended networks, bundled or on the Hugging Face hub, with size, licence and accuracy."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

DEFAULT_POSE = "vitpose-small-streampose"
DEFAULT_DETECTOR = "person-detector-streampose"


@dataclass(frozen=True, slots=True)
class KnownModel:
    """A recommended checkpoint; other checkpoints of the same architectures also work."""

    name: str
    role: Literal["pose", "detector"]
    parameters_m: float
    """Millions of parameters."""
    licence: str
    accuracy: str
    """The accuracy that its authors published (detectors: over all classes). This project measured only its own
    networks.
    """
    source: str
    """The source of the accuracy figure."""
    needs: str = ""
    """An additional package that is required to load it, beyond this project's dependencies."""


_VITPOSE = "github.com/ViTAE-Transformer/ViTPose README"
_RTDETR = "github.com/lyuwenyu/RT-DETR README"
_DFINE = "github.com/Peterande/D-FINE README"
_CARD = "its model card"

KNOWN_MODELS: tuple[KnownModel, ...] = (
    KnownModel(DEFAULT_POSE, "pose", 21.7, "Apache-2.0", "bundled; AP 36 on 10 labelled images", _CARD),
    KnownModel("usyd-community/vitpose-base-simple", "pose", 85.9, "Apache-2.0", "COCO val AP 75.5", _VITPOSE),
    KnownModel("usyd-community/vitpose-base", "pose", 90.0, "Apache-2.0", "COCO val AP 75.8", _VITPOSE),
    KnownModel("usyd-community/vitpose-base-coco-aic-mpii", "pose", 90.0, "Apache-2.0", "COCO val AP 77.1", _VITPOSE),
    KnownModel("usyd-community/vitpose-plus-small", "pose", 33.1, "Apache-2.0", "COCO val AP 75.8", _VITPOSE),
    KnownModel("usyd-community/vitpose-plus-base", "pose", 125.4, "Apache-2.0", "COCO val AP 77.0", _VITPOSE),
    KnownModel("usyd-community/vitpose-plus-large", "pose", 434.4, "Apache-2.0", "COCO val AP 78.6", _VITPOSE),
    KnownModel("usyd-community/vitpose-plus-huge", "pose", 899.4, "Apache-2.0", "COCO val AP 79.4", _VITPOSE),
    KnownModel(DEFAULT_DETECTOR, "detector", 14.7, "Apache-2.0", "bundled; AP50 41 on 10 labelled images", _CARD),
    KnownModel("PekingU/rtdetr_r18vd_coco_o365", "detector", 20, "Apache-2.0", "COCO val AP 49.2", _RTDETR),
    KnownModel("PekingU/rtdetr_r50vd_coco_o365", "detector", 42, "Apache-2.0", "COCO val AP 55.3", _RTDETR),
    KnownModel("PekingU/rtdetr_r50vd", "detector", 42, "Apache-2.0", "COCO val AP 53.1", _RTDETR),
    KnownModel("PekingU/rtdetr_v2_r18vd", "detector", 20, "Apache-2.0", "COCO val AP 48.1", _RTDETR),
    KnownModel("PekingU/rtdetr_v2_r50vd", "detector", 42, "Apache-2.0", "COCO val AP 53.4", _RTDETR),
    KnownModel("ustc-community/dfine-small-coco", "detector", 10, "Apache-2.0", "COCO val AP 48.5", _DFINE),
    KnownModel("ustc-community/dfine-large-coco", "detector", 31, "Apache-2.0", "COCO val AP 54.0", _DFINE),
    KnownModel(
        "hustvl/yolos-tiny", "detector", 6.5, "Apache-2.0", "COCO val AP 28.7", "github.com/hustvl/YOLOS README"
    ),
    KnownModel("facebook/detr-resnet-50", "detector", 41.5, "Apache-2.0", "COCO val AP 42.0", _CARD, needs="timm"),
)


Quality = Literal["bundled", "fast", "balanced", "best"]
DEFAULT_QUALITY: Quality = "bundled"


class Pair(NamedTuple):
    """The names of a pose network and a detector that are used together."""

    pose: str
    detector: str


PAIRS: dict[str, Pair] = {
    "bundled": Pair(DEFAULT_POSE, DEFAULT_DETECTOR),
    "fast": Pair("usyd-community/vitpose-plus-small", "PekingU/rtdetr_r18vd_coco_o365"),
    "balanced": Pair("usyd-community/vitpose-plus-base", "PekingU/rtdetr_r50vd_coco_o365"),
    "best": Pair("usyd-community/vitpose-plus-huge", "PekingU/rtdetr_r50vd_coco_o365"),
}
"""The pair of each quality. The detectors that also learned from Objects365 cost no more than those that did not, so
`balanced` has one too."""


def pair_of(quality: str, pose: str | None, detector: str | None) -> Pair:
    """Return the pair of a quality, with `pose` and `detector` in place of its networks where they are given."""
    usual = PAIRS[quality]
    return Pair(pose or usual.pose, detector or usual.detector)


def models_table() -> str:
    """Return `KNOWN_MODELS` as a text table."""
    rows = [("network", "role", "parameters", "licence", "published accuracy", "from")]
    for model in KNOWN_MODELS:
        accuracy = f"{model.accuracy} (needs {model.needs})" if model.needs else model.accuracy
        rows.append((model.name, model.role, f"{model.parameters_m:g} M", model.licence, accuracy, model.source))
    return _aligned(rows)


def qualities_table() -> str:
    """Return `PAIRS` as a text table."""
    return _aligned([("quality", "pose", "detector"), *((name, *pair) for name, pair in PAIRS.items())])


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def names_like(name: str) -> str:
    """Return a hint with the known names that resemble `name`, or with the kinds of valid names if none does."""
    by_short_name = {model.name.rpartition("/")[2].lower(): model.name for model in KNOWN_MODELS}
    wanted = name.rstrip("/").rpartition("/")[2].partition("@")[0].lower()
    close = [by_short_name[short] for short in difflib.get_close_matches(wanted, by_short_name, n=3, cutoff=0.6)]
    if close:
        return f"did you mean {' or '.join(close)}?"
    return (
        f"use {DEFAULT_POSE} or {DEFAULT_DETECTOR} (bundled), a folder in hub layout, or a hub id (organisation/model)"
    )
