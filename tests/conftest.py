"""Rules for every test: no thread is left behind, and nothing logs an error unless the test says so."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

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
    beside = Path(__file__).resolve().parent.parent.parent / "shared" / "data"
    folder = Path(os.environ.get(LABELLED_ENVIRONMENT, beside))
    if not (folder / "labelled" / "annotations.json").is_file():
        if os.environ.get("CI"):
            pytest.fail(f"no labelled data in {folder}: name its folder in {LABELLED_ENVIRONMENT}")
        pytest.skip(f"no labelled data in {folder}: name its folder in {LABELLED_ENVIRONMENT}")
    return folder
