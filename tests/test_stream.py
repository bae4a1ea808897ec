"""The main job from Python, and a long run of the real pipeline with tiny networks."""

from __future__ import annotations

import gc
import logging
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import psutil
import pytest
import supervision as sv

import streampose
from streampose.frames import NO_TRACK, Result, RunInfo
from streampose.networks.workers import worker_count
from tests import tiny as networks
from tests.clips import make_clip, numbered_image, read_number


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A detector and a pose network with random weights."""
    folder = tmp_path_factory.mktemp("networks")
    return {
        "detector": str(networks.save_dense_detector(folder / "detector")),
        "pose": str(networks.save_pose(folder / "pose")),
    }


def test_results_from_a_clip(tmp_path: Path, tiny: dict[str, str]) -> None:
    clip = make_clip(tmp_path / "clip.mp4", frames=20)
    seen = 0
    for result in streampose.stream(clip, **tiny, box_threshold=0.0, max_people=2, draw=True):
        assert result.frame.index == read_number(result.frame.image) == seen
        assert result.frame.pts_s == pytest.approx(seen / 25)
        assert len(result.people) == 2
        detections, key_points = result.to_detections(), result.to_key_points(0.3)
        assert isinstance(detections, sv.Detections)
        assert isinstance(key_points, sv.KeyPoints)
        assert key_points.xy.shape == (2, 17, 2)
        is_tracked = result.people.track_ids != NO_TRACK  # random networks: some poses are unreadable
        assert (detections.tracker_id is None) == (not is_tracked.all())
        assert list(detections.data["class_name"]) == ["person", "person"]
        assert result.drawn is not None
        assert result.drawn.shape == result.frame.image.shape
        assert not np.shares_memory(result.drawn, result.frame.image)
        seen += 1
    assert seen == 20


@pytest.mark.parametrize("every", [1, 3])
def test_identities_and_smoothing_can_be_turned_off(tmp_path: Path, tiny: dict[str, str], every: int) -> None:
    clip = make_clip(tmp_path / "clip.mp4", frames=12)
    options: dict[str, Any] = {**tiny, "box_threshold": 0.0, "max_people": 2, "detect_every": every}
    on = list(streampose.stream(clip, **options))
    assert all(result.people.smooth_xy is not None for result in on)
    for result in streampose.stream(clip, **options, track=False):
        assert set(result.people.track_ids.tolist()) <= {NO_TRACK}
        assert result.people.smooth_xy is None
    assert all(result.people.smooth_xy is None for result in streampose.stream(clip, **options, smooth="off"))


def test_smoothed_keypoints_can_replace_the_raw_ones(tmp_path: Path, tiny: dict[str, str]) -> None:
    clip = make_clip(tmp_path / "clip.mp4", frames=12)
    options: dict[str, Any] = {**tiny, "box_threshold": 0.0, "max_people": 2}
    beside = list(streampose.stream(clip, **options))
    for result, both in zip(streampose.stream(clip, **options, smooth="data"), beside, strict=True):
        assert result.people.smooth_xy is None
        assert both.people.smooth_xy is not None
        np.testing.assert_allclose(result.people.keypoints_xy, both.people.smooth_xy, atol=0.05)


def test_stills_have_no_identities(tmp_path: Path, tiny: dict[str, str]) -> None:
    for name in ("a.png", "b.png"):
        cv2.imwrite(str(tmp_path / name), numbered_image(1))
    for result in streampose.stream(tmp_path, **tiny, box_threshold=0.0, max_people=2):
        assert set(result.people.track_ids.tolist()) == {NO_TRACK}
        assert result.people.smooth_xy is None


class Collecting(streampose.Sink):
    """A sink of a user's own."""

    needs_drawn = False

    def __init__(self) -> None:
        super().__init__("collecting")
        self.indices: list[int] = []

    def open(self, run: RunInfo) -> None:
        assert run.source.source_id == "clip"

    def write(self, result: Result) -> None:
        self.indices.append(result.frame.index)

    def close(self) -> None:
        self.indices.append(-1)


def test_on_a_cpu_nothing_is_compiled(tmp_path: Path, tiny: dict[str, str], caplog: pytest.LogCaptureFixture) -> None:
    clip = make_clip(tmp_path / "clip.mp4", frames=3)
    with caplog.at_level(logging.INFO, "streampose"):
        assert sum(1 for _ in streampose.stream(clip, **tiny, device="cpu", warm_up=True)) == 3
    assert "nothing is compiled on a CPU" in caplog.text


def test_a_sink_of_ones_own_beside_a_file(tmp_path: Path, tiny: dict[str, str]) -> None:
    clip = make_clip(tmp_path / "clip.mp4", frames=5)
    sink = Collecting()
    with streampose.stream(clip, to=[sink, tmp_path / "out.jsonl"], **tiny) as pipeline:
        count = sum(1 for _ in pipeline)
    assert count == 5
    assert sink.indices == [0, 1, 2, 3, 4, -1]
    assert (tmp_path / "out.jsonl").read_bytes().count(b"\n") == 6


def test_leaving_the_loop_early_ends_everything(tmp_path: Path, tiny: dict[str, str]) -> None:
    clip = make_clip(tmp_path / "clip.mp4", frames=300)
    with streampose.stream(clip, to=[tmp_path / "out.jsonl"], **tiny) as pipeline:
        for result in pipeline:
            if result.frame.index == 3:
                break
    lines = (tmp_path / "out.jsonl").read_bytes()
    assert lines.count(b"\n") >= 5
    assert lines.endswith(b"\n")


@pytest.mark.skipif(Path("/dev/video0").exists(), reason="there is a camera")
@pytest.mark.parametrize("camera", [0, np.int64(0), [0], streampose.Input(0), "0"])
def test_a_camera_by_its_number(tiny: dict[str, str], camera: Any) -> None:
    with streampose.stream(camera, **tiny) as pipeline:
        (source,) = pipeline.sources
        assert (source.info.source_id, source.info.is_camera, source.info.is_live) == ("camera0", True, True)
        with pytest.raises(streampose.SourceError, match="no such camera"):
            next(iter(pipeline))


def test_nothing_stays_open_when_a_network_is_missing(tmp_path: Path, tiny: dict[str, str]) -> None:
    clip = make_clip(tmp_path / "clip.mp4", frames=5)
    before = psutil.Process().num_fds()
    with pytest.raises(streampose.ModelError, match="nowhere"):
        streampose.stream(clip, to=[tmp_path / "out.jsonl"], **{**tiny, "pose": "nowhere"})
    gc.collect()
    assert psutil.Process().num_fds() <= before
    assert not (tmp_path / "out.jsonl").exists()


def test_six_hundred_frames_leave_no_thread_and_take_no_memory(tmp_path: Path, tiny: dict[str, str]) -> None:
    clip = make_clip(tmp_path / "clip.mp4", frames=600, size=(320, 180))
    process = psutil.Process()
    worker_count()  # those of the CPU stay
    threads = threading.active_count()
    resident_mb: list[float] = []

    def watched(results: Iterator[Result]) -> int:
        count = 0
        for result in results:
            assert result.frame.index == count
            count += 1
            if count % 150 == 0:
                resident_mb.append(process.memory_info().rss / 2**20)
        return count

    sinks = [tmp_path / "out.mp4", tmp_path / "out.jsonl"]
    assert watched(iter(streampose.stream(clip, to=sinks, **tiny, box_threshold=0.0, max_people=3))) == 600
    assert threading.active_count() == threads
    print("resident MB after every 150 frames:", [round(value) for value in resident_mb])
    # The first 300 frames fill channels, caches and the encoder; 300 frames of 173 kB would be 52 MB.
    settled, end = resident_mb[1], max(resident_mb[-2:])
    assert end - settled < 20
