"""What several files of this folder take."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import tiny as networks
from tests.clips import make_clip


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Flags that name networks with random weights, quick to load and to run."""
    folder = tmp_path_factory.mktemp("networks")
    detector = networks.save_dense_detector(folder / "detector")
    pose = networks.save_pose(folder / "pose")
    return ["--detector", str(detector), "--pose", str(pose), "--box-threshold", "0", "--max-people", "3"]


@pytest.fixture(scope="session")
def long_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clip of 4000 frames, whose run takes longer than it takes to interrupt it."""
    return make_clip(tmp_path_factory.mktemp("long") / "clip.mp4", frames=4000)
