"""An installed wheel is whole; tests/test_demo.py runs its program."""

from __future__ import annotations

import os
import subprocess
import zipfile
from pathlib import Path


def test_the_wheel_holds_networks_clip_and_licence_and_nothing_of_the_tests(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    for wanted in (
        "streampose/assets/demo.mp4",
        "streampose/assets/models/vitpose-small-streampose/model.safetensors",
        "streampose/assets/models/vitpose-small-streampose/README.md",
        "streampose/assets/models/person-detector-streampose/config.json",
        "streampose/sinks/video.py",
        "streampose/py.typed",
    ):
        assert wanted in names
    assert any(name.endswith("/LICENSE") for name in names)
    assert not any("test" in name or name.endswith("truth.json") for name in names)


def test_an_installed_program_finds_its_own_files(installed: Path, tmp_path: Path) -> None:
    """From any folder, and those of the wheel."""
    where = subprocess.run(
        [
            str(installed / "bin" / "python"),
            "-c",
            "from streampose.networks.checkpoints import assets_folder, demo_clip, resolve; "
            "from streampose.networks.known import DEFAULT_DETECTOR, DEFAULT_POSE; "
            "networks = [resolve(name).folder for name in (DEFAULT_POSE, DEFAULT_DETECTOR)]; "
            "print(assets_folder(), demo_clip(), *networks, sep='\\n')",
        ],
        cwd=tmp_path,
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert len(where.stdout.splitlines()) == 4
    assert all(line.startswith(str(installed)) for line in where.stdout.splitlines()), where.stdout
