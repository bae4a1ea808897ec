"""Servers that several files of this folder use."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.servers import RtmpServer


@pytest.fixture(scope="module")
def rtmp(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RtmpServer]:
    with RtmpServer(tmp_path_factory.mktemp("rtmp")) as server:
        yield server
