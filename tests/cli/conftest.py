"""What several files of this folder take."""

from __future__ import annotations

import pytest

from tests import tiny as networks


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Flags that name networks with random weights, quick to load and to run."""
    folder = tmp_path_factory.mktemp("networks")
    detector = networks.save_dense_detector(folder / "detector")
    pose = networks.save_pose(folder / "pose")
    return ["--detector", str(detector), "--pose", str(pose), "--box-threshold", "0", "--max-people", "3"]
