"""An installed wheel is whole: from any folder the program finds its networks and its clip."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

from streampose.sinks.poses import read_poses
from tests import tiny as networks

PROJECT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project's wheel, built from a copy so that nothing is left in the checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    tracked = subprocess.run(
        ["git", "-C", str(PROJECT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        capture_output=True,
        text=True,
    )
    if tracked.returncode:
        pytest.skip("not a git checkout: a copy to build from would hold whatever lies around")
    for name in filter(None, tracked.stdout.split("\0")):
        if (PROJECT / name).is_file():
            target = folder / "project" / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(PROJECT / name, target)
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
        + ["--wheel-dir", str(folder), str(folder / "project")],
        check=True,
        timeout=300,
    )
    (built,) = folder.glob("*.whl")
    return built


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
    assert not any("test" in name or "truth" in name for name in names)


def test_the_demo_runs_offline_from_any_folder(wheel: Path, tmp_path: Path) -> None:
    venv.create(tmp_path / "venv", with_pip=False)
    python = tmp_path / "venv" / "bin" / "python"
    site = Path(sysconfig.get_path("purelib", vars={"base": str(tmp_path / "venv")}))
    site.mkdir(parents=True, exist_ok=True)
    install = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-deps", str(wheel)]
    subprocess.run(install, check=True, timeout=300)
    # Everything but streampose itself comes from the environment that runs the tests.
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")

    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    tiny = networks.save_pose(tmp_path / "pose")  # the bundled pose network on the whole clip is test_demo's
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    run = subprocess.run(
        [str(tmp_path / "venv" / "bin" / "streampose"), "run", "demo", "--to", "out.mp4", "--to", "out.jsonl"]
        + ["--pose", str(tiny)],
        cwd=elsewhere,
        env={**environment, "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert run.returncode == 0, run.stderr
    assert len(list(read_poses(elsewhere / "out.jsonl")[1])) == 200
    where = subprocess.run(
        [str(python), "-c", "from streampose.networks.checkpoints import assets_folder; print(assets_folder())"],
        cwd=elsewhere,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert where.stdout.startswith(str(tmp_path))
    listed = subprocess.run(
        [
            str(python),
            "-c",
            "from streampose.networks.checkpoints import resolve; "
            "from streampose.networks.known import DEFAULT_DETECTOR, DEFAULT_POSE; "
            "[resolve(n) for n in (DEFAULT_POSE, DEFAULT_DETECTOR)]",
        ],
        cwd=elsewhere,
        env=environment,
        timeout=120,
    )
    assert listed.returncode == 0
