"""What several files of this folder take."""

from __future__ import annotations

import pytest

from tests.pipeline.helpers import BAD, Every


@pytest.fixture(params=[1, BAD, "auto"], ids=lambda every: f"every {every}")
def every(request: pytest.FixtureRequest) -> Every:
    """How often the detector looks: the networks in two steps, or in one that follows people between detections."""
    chosen: Every = request.param
    return chosen
