"""Rules for every test: no thread is left behind, and nothing logs an error unless the test says so."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
import sysconfig
import threading
import time
import venv
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

PROJECT = Path(__file__).resolve().parent.parent
LABELLED_ENVIRONMENT = "STREAMPOSE_TEST_DATA"
"""Names the folder with the labelled pictures and real clips; by default `../shared/data` beside the project."""


@pytest.fixture(autouse=True)
def no_thread_left() -> Iterator[None]:
    """Fail a test that leaves one of our threads running."""
    before = set(threading.enumerate())
    yield
    deadline_s = time.monotonic() + 5.0
    left: list[threading.Thread] = []
    while time.monotonic() < deadline_s:
        left = [thread for thread in threading.enumerate() if thread not in before and "streampose" in thread.name]
        if not left:
            return
        time.sleep(0.01)
    pytest.fail(f"threads left running: {left}")


@pytest.fixture(autouse=True)
def no_error_logged(request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Fail a test during which something of ours logged an error unexpectedly."""
    yield
    if request.node.get_closest_marker("logs_errors") is None:
        errors = [
            record.getMessage()
            for record in caplog.get_records("call")
            if record.name.startswith("streampose") and record.levelno >= logging.ERROR
        ]
        assert not errors


@pytest.fixture(autouse=True, scope="session")
def modest_threads() -> None:
    """Two threads for torch at most: tests also run side by side with servers and child processes."""
    torch.set_num_threads(min(2, os.cpu_count() or 1))


@pytest.fixture(scope="session")
def labelled_data() -> Path:
    """The folder with the labelled pictures and real clips; skips where there is none, but not in CI."""
    beside = PROJECT.parent / "shared" / "data"
    folder = Path(os.environ.get(LABELLED_ENVIRONMENT, beside))
    if not (folder / "labelled" / "annotations.json").is_file():
        if os.environ.get("CI"):
            pytest.fail(f"no labelled data in {folder}: name its folder in {LABELLED_ENVIRONMENT}")
        pytest.skip(f"no labelled data in {folder}: name its folder in {LABELLED_ENVIRONMENT}")
    return folder


@pytest.fixture
def no_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    """As with HF_HUB_OFFLINE=1, which huggingface_hub reads when it is imported."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project's wheel, built from a copy so that nothing is left in the checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    tracked = subprocess.run(
        ["git", "-C", str(PROJECT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        capture_output=True,
        text=True,
    )
    names = [PROJECT / name for name in tracked.stdout.split("\0") if name]
    if tracked.returncode:  # not a git checkout, where whatever lies around is left out
        names = [*PROJECT.glob("*.*"), PROJECT / "LICENSE"]
        names += [path for room in ("assets", "streampose", "tests") for path in (PROJECT / room).rglob("*.*")]
    for name in names:
        if name.is_file():
            target = folder / "project" / name.relative_to(PROJECT)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(name, target)
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
        + ["--wheel-dir", str(folder), str(folder / "project")],
        check=True,
        timeout=300,
    )
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="session")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment in which the wheel is installed, and nothing of the checkout."""
    folder = tmp_path_factory.mktemp("installed") / "venv"
    venv.create(folder, with_pip=False)
    site = Path(sysconfig.get_path("purelib", vars={"base": str(folder)}))
    site.mkdir(parents=True, exist_ok=True)
    pip = [sys.executable, "-m", "pip", "--python", str(folder / "bin" / "python")]
    subprocess.run([*pip, "install", "--quiet", "--no-deps", str(wheel)], check=True, timeout=300)
    # Everything but streampose itself comes from the environment that runs the tests.
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder
