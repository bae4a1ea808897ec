"""What several files of this folder take."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests import tiny as networks
from tests.clips import make_clip

FRAMES = 130


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Options that name networks with random weights, quick to load and to run."""
    folder = tmp_path_factory.mktemp("networks")
    detector = networks.save_dense_detector(folder / "detector")
    pose = networks.save_pose(folder / "pose")
    return {"detector": str(detector), "pose": str(pose), "box_threshold": 0.0, "max_people": 3, "dtype": "float32"}


@pytest.fixture(scope="session")
def flags(tiny: dict[str, Any]) -> list[str]:
    """The same for the command line."""
    return [word for name, value in tiny.items() for word in (f"--{name.replace('_', '-')}", str(value))]


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clip with sound and B-frames."""
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    return make_clip(path, frames=FRAMES, gop=24, b_frames=2, audio_s=FRAMES / 25, grain=40)
