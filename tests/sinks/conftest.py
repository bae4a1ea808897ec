"""A server and a check that several files of this folder use."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.servers import RtmpServer
from tests.sinks.publishing import children


@pytest.fixture
def rtmp(tmp_path: Path) -> Iterator[RtmpServer]:
    with RtmpServer(tmp_path / "rtmp") as server:
        yield server


@pytest.fixture
def nothing_left() -> Iterator[None]:
    """No child process and no file descriptor is left behind."""
    before = psutil.Process().num_fds()
    yield
    assert not children()
    assert psutil.Process().num_fds() <= before
