"""Tiny networks with random weights, saved as checkpoints in hub layout, for tests that need one of a certain shape."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import (
    RTDetrConfig,
    RTDetrForObjectDetection,
    RTDetrImageProcessorPil,
    RTDetrResNetConfig,
    VitPoseBackboneConfig,
    VitPoseConfig,
    VitPoseForPoseEstimation,
    YolosConfig,
    YolosForObjectDetection,
    YolosImageProcessorPil,
)

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def vitpose(
    *,
    maps: int = 17,
    experts: int = 1,
    simple: bool = True,
    scale: int = 4,
    image_size: tuple[int, int] = (64, 48),
    stages: tuple[int, ...] = (2,),
) -> VitPoseForPoseEstimation:
    """Return a ViTPose of three layers with patches of 16 pixels of which stages `stages`, of 0..3, are given out.

    The spread of its weights is so wide that no term of the forward pass is lost in rounding.
    """
    torch.manual_seed(0)
    backbone = VitPoseBackboneConfig(
        image_size=image_size,
        patch_size=(16, 16),
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_experts=experts,
        part_features=8,
        out_indices=list(stages),
        initializer_range=0.3,
    )
    config = VitPoseConfig(
        backbone_config=backbone, num_labels=maps, use_simple_decoder=simple, scale_factor=scale, initializer_range=0.3
    )
    return VitPoseForPoseEstimation(config).eval()


def save_pose(folder: Path, model: VitPoseForPoseEstimation | None = None, **config: Any) -> Path:
    """Save a pose network, by default `vitpose()`, with entries added to its config.json; None removes one."""
    (model or vitpose()).save_pretrained(folder)
    edit_json(folder / "config.json", config)
    return folder


def save_dense_detector(folder: Path, model: VitPoseForPoseEstimation | None = None) -> Path:
    """Save a network of the bundled detector's sort."""
    model = model or vitpose(maps=5, image_size=(96, 96))
    return save_pose(folder, model, streampose_task="person-detection", streampose_tokens=36, streampose_cell=4)


def save_rt_detr(folder: Path, labels: Sequence[str]) -> Path:
    """Save an RT-DETR of these classes whose 40 best boxes have scores around 0.5."""
    torch.manual_seed(0)
    backbone = RTDetrResNetConfig(
        embedding_size=8,
        hidden_sizes=[8, 16, 24, 32],
        depths=[1, 1, 1, 1],
        layer_type="basic",
        out_features=["stage2", "stage3", "stage4"],
    )
    config = RTDetrConfig(
        backbone_config=backbone,
        encoder_hidden_dim=16,
        encoder_in_channels=[16, 24, 32],
        encoder_ffn_dim=16,
        encoder_attention_heads=2,
        d_model=16,
        num_queries=40,
        decoder_in_channels=[16, 16, 16],
        decoder_ffn_dim=16,
        decoder_layers=2,
        decoder_attention_heads=2,
        id2label=dict(enumerate(labels)),
    )
    model = RTDetrForObjectDetection(config)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "class_embed" in name and name.endswith("weight"):
                weight.normal_(std=0.5)
            elif "class_embed" in name:
                weight.zero_()
    model.save_pretrained(folder)
    RTDetrImageProcessorPil(size={"height": 160, "width": 160}).save_pretrained(folder)
    return folder


def save_yolos(folder: Path, labels: Sequence[str]) -> Path:
    """Save a YOLOS of these classes with thirty boxes, no two alike."""
    torch.manual_seed(0)
    config = YolosConfig(
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=16,
        image_size=[64, 96],
        patch_size=16,
        num_detection_tokens=30,
        initializer_range=0.5,
        id2label=dict(enumerate(labels)),
    )
    model = YolosForObjectDetection(config)
    with torch.no_grad():  # otherwise all boxes are alike
        model.class_labels_classifier.layers[-1].weight.normal_()
        model.vit.embeddings.detection_tokens.normal_()
        model.vit.embeddings.position_embeddings.normal_()
    model.save_pretrained(folder)
    YolosImageProcessorPil(size={"shortest_edge": 64, "longest_edge": 96}).save_pretrained(folder)
    return folder


def into_hub_cache(cache: Path, repo: str, folder: Path) -> None:
    """Copy a checkpoint to where huggingface_hub keeps what it has fetched of the `main` revision of `repo`."""
    place = cache / f"models--{repo.replace('/', '--')}"
    shutil.copytree(folder, place / "snapshots" / COMMIT)
    (place / "refs").mkdir()
    (place / "refs" / "main").write_text(COMMIT)


def edit_json(file: Path, entries: dict[str, Any]) -> None:
    """Change entries of a JSON object in a file; None removes one."""
    values = json.loads(file.read_text()) if file.exists() else {}
    values |= entries
    file.write_text(json.dumps({key: value for key, value in values.items() if value is not None}))
