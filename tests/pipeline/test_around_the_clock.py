"""From an RTSP camera through the pipeline to an RTMP player, while servers die, hang and return.

The networks are fakes: what is tested is the way in, the way out and the counts between. Pictures carry the time at
which they were made, so the player knows how old they are.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import random
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import psutil
import pytest

from streampose.drawing.annotator import Annotator
from streampose.frames import Boxes, SourceInfo
from streampose.pipeline.parts import Feed
from streampose.pipeline.pipeline import Pipeline
from streampose.sinks.open import open_sink
from streampose.sinks.sink import Sink
from streampose.sources.open import open_source
from tests.fakes import SKELETON, FakeDetector, FakePose
from tests.player import Player, wait_until
from tests.servers import Namespace, Publisher, RtmpServer, RtspServer, free_port

LONG = pytest.mark.long
FPS = 25
BACK_WITHIN_S = 2.0
"""After a server's return frames flow again within this; a connection of a fresh player or reader takes part of it."""


class Nobody(FakeDetector):
    """Finds nobody, so that nothing is drawn over the numbers."""

    def _people(self, _index: int) -> Boxes:
        return super()._people(0)


class Running:
    """A pipeline served by a thread, as the program's main thread would."""

    def __init__(self, feeds: list[Feed]) -> None:
        self.pipeline = Pipeline(feeds, Nobody(), FakePose(), Annotator(SKELETON))
        self.latest_s: dict[str, float] = {}
        """By source: when its last result came."""
        self._thread = threading.Thread(target=self._consume, name="streampose test run")
        self._thread.start()

    def _consume(self) -> None:
        for result in self.pipeline:
            self.latest_s[result.frame.source_id] = time.monotonic()

    def stop(self) -> dict[str, Any]:
        """End the run; return its counts, which add up."""
        began_s = time.monotonic()
        self.pipeline.stop()
        self._thread.join(15)
        assert not self._thread.is_alive()
        assert time.monotonic() - began_s < 6, "everything ends soon"
        stats = self.pipeline.stats()
        for counts in stats["sources"].values():
            assert counts["captured"] == counts["delivered"] + sum(counts["dropped"].values())
        return stats

    def flows(self, name: str = "cam", within_s: float = 0.3) -> bool:
        return time.monotonic() - self.latest_s.get(name, 0.0) < within_s


@contextmanager
def running(feeds: list[Feed]) -> Iterator[Running]:
    run = Running(feeds)
    try:
        yield run
    finally:
        run.stop()


@pytest.fixture
def rtmp(tmp_path: Path) -> Iterator[RtmpServer]:
    with RtmpServer(tmp_path / "rtmp") as server:
        yield server


@pytest.fixture
def camera(tmp_path: Path) -> Iterator[RtspServer]:
    with RtspServer(tmp_path / "rtsp", fps=FPS) as server:
        yield server


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    """No file descriptor and no child process of ours is left behind."""
    process = psutil.Process()
    before, children = process.num_fds(), len(process.children())
    yield
    gc.collect()
    wait_until(lambda: process.num_fds() <= before and len(process.children()) <= children, 6)


def resident_mb() -> float:
    """The memory that is in use: what the C library keeps of what was freed is given back first, which it else does
    when it likes, after growing for some dozen reconnections.
    """
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    return float(psutil.Process().memory_info().rss / 2**20)


def feed(url: str, *sinks: Sink, name: str = "cam") -> Feed:
    return Feed(open_source(url, name=name, is_alone=False), sinks)


def wait_until_published(rtmp: RtmpServer, name: str = "out", within_s: float = 10.0) -> None:
    wait_until(lambda: rtmp.streams().get(name, {}).get("publishers") == 1, within_s)


def outage_lengths(count: int, longest_s: float) -> list[float]:
    lengths = random.Random(7)
    return [lengths.uniform(0.2, longest_s) for _ in range(count)]


@pytest.mark.parametrize(("outages", "longest_s"), [(3, 2.0), pytest.param(20, 4.0, marks=LONG)])
def test_a_camera_that_dies_and_returns(camera: RtspServer, rtmp: RtmpServer, outages: int, longest_s: float) -> None:
    used_mb, returns_s = [], []
    with running([feed(camera.url(), open_sink(rtmp.url("out")))]) as run:
        wait_until(run.flows)
        wait_until_published(rtmp)
        with Player(rtmp.url("out")) as player:
            player.wait_for(lambda shown: shown.is_fresh(FPS))
            for length_s in outage_lengths(outages, longest_s):
                camera.kill()
                time.sleep(length_s)
                camera.restart()  # returns when the server listens
                returns_s.append(wait_until(run.flows, 10))
                player.wait_for(lambda shown: shown.is_fresh(FPS))
                assert player.playing
                time.sleep(0.5)
                used_mb.append(resident_mb())
            times_s = [shown.pts_s for shown in player.shown]
            assert times_s == sorted(times_s)
    print("back after", [round(value, 2) for value in returns_s], "s; MB", [round(mb) for mb in used_mb])
    assert max(returns_s) < BACK_WITHIN_S
    assert run.pipeline.stats()["sources"]["cam"]["reconnects"] == outages
    assert used_mb[-1] - used_mb[0] < 20


def test_a_camera_that_hangs_gives_no_old_pictures(camera: RtspServer, rtmp: RtmpServer) -> None:
    with running([feed(camera.url(), open_sink(rtmp.url("out")))]) as run:
        wait_until(run.flows)
        wait_until_published(rtmp)
        with Player(rtmp.url("out")) as player:
            player.wait_for(lambda shown: shown.is_fresh(FPS))
            camera.pause()
            time.sleep(2.0)
            camera.resume()
            wait_until(run.flows)
            time.sleep(1.0)
            known = len(player.shown)
            time.sleep(1.0)
            assert player.playing
            ages_s = [shown.age_s(FPS) for shown in player.shown[known:]]
            assert len(ages_s) > FPS // 2
            assert max(ages_s) < 1.0


def test_a_player_server_that_dies_or_hangs_does_not_touch_the_run(camera: RtspServer, rtmp: RtmpServer) -> None:
    with running([feed(camera.url(), open_sink(rtmp.url("out")), open_sink("null"))]) as run:
        wait_until(run.flows)
        wait_until_published(rtmp)
        for trouble, end in ((rtmp.kill, rtmp.restart), (rtmp.pause, rtmp.resume)):
            trouble()
            for _ in range(8):
                time.sleep(0.25)
                assert run.flows(), "the pipeline goes on"
            end()
            wait_until_published(rtmp)
            with Player(rtmp.url("out")) as player:
                player.wait_for(lambda shown: shown.is_fresh(FPS))
        stats = run.stop()
    assert stats["sources"]["cam"]["reconnects"] == 0
    assert stats["sinks"]["null"]["dropped"] == {}
    (published,) = (counts for name, counts in stats["sinks"].items() if name.startswith("rtmp"))
    assert published["connections"] >= 2
    assert published["dropped"]["disconnected"] > 0
    assert published["written"] == published["published"] + published["dropped"]["disconnected"]


def test_a_camera_that_returns_as_another(tmp_path: Path, rtmp: RtmpServer) -> None:
    port, before = free_port(), {"size": (1280, 720), "fps": 10}
    others = {"1080p": {"size": (1920, 1080)}, "h265": {"codec": "h265"}, "mjpeg": {"codec": "jpeg", "fps": 5}}
    sinks = open_sink(rtmp.url("out")), open_sink(tmp_path / "all.mp4"), open_sink(tmp_path / "{time}.mkv", segment_s=2)
    with RtspServer(tmp_path / "before", port=port, **before) as first, running([feed(first.url(), *sinks)]) as run:
        wait_until(lambda: run.flows(within_s=0.5))
        wait_until_published(rtmp)
        with Player(rtmp.url("out")) as player:
            player.wait_for(lambda shown: shown.is_fresh(10))
            first.kill()
            for name, after in others.items():
                with RtspServer(tmp_path / name, port=port, **{**before, **after}) as other:
                    player.wait_for(lambda shown: shown.is_fresh(other.fps))
                    time.sleep(2.0)
                    assert player.playing
                    assert {shown.size for shown in player.shown} == {(1280, 720)}, "the stream keeps its first size"
            stats = run.stop()
    assert stats["sources"]["cam"]["reconnects"] == len(others)
    assert {name: sink["error"] for name, sink in stats["sinks"].items() if sink["error"]} == {}
    written = [stats["sinks"][sink.text]["written"] for sink in sinks[1:]]
    recordings = {path: shown_in(path) for path in (tmp_path / "all.mp4", *sorted(tmp_path.glob("*.mkv")))}
    whole, *segments = recordings.values()
    assert [len(whole), sum(map(len, segments))] == written
    assert {size for _, size in whole} == {(1280, 720)}
    begun = [segment[0][1] for segment in segments]
    assert (1920, 1080) in begun, "a new file begins with the picture's own size"
    assert begun[0] == begun[-1] == (1280, 720)
    for times_s in ([time_s for time_s, _ in shown] for shown in recordings.values()):
        assert times_s == sorted(set(times_s))


def shown_in(path: Path) -> list[tuple[float, tuple[int, int]]]:
    """The time and the size of every picture of a recording."""
    with av.open(str(path)) as container:
        return [(float(frame.time or 0), (frame.width, frame.height)) for frame in container.decode(video=0)]


def test_an_anamorphic_stream_stays_so_and_a_square_one_is_fitted_into_it(tmp_path: Path, rtmp: RtmpServer) -> None:
    wide = Fraction(4, 3)
    sinks = open_sink(rtmp.url("out")), open_sink(tmp_path / "rec-{time}.mkv", segment_s=60)
    with running([feed(rtmp.url("in"), *sinks)]) as run:
        with Publisher(tmp_path / "wide", rtmp.url("in"), fps=FPS, size=(480, 360), pixel_aspect=wide):
            wait_until(run.flows)
            wait_until_published(rtmp)
            with av.open(rtmp.url("out"), timeout=10) as player:
                shown = next(player.decode(video=0))
                assert (shown.width, shown.height) == (480, 360)
                assert player.streams.video[0].codec_context.sample_aspect_ratio == wide
        wait_until(lambda: not run.flows())
        with Publisher(tmp_path / "square", rtmp.url("in"), fps=FPS, size=(640, 360)):
            wait_until(run.flows)
            with Player(rtmp.url("out")) as player:
                fitted = player.wait_for(lambda shown: shown.is_fresh(FPS))
                assert fitted.size == (480, 360), "and its number can be read: no border"
        run.stop()
    (file,) = tmp_path.glob("rec-*.mkv")
    with av.open(str(file)) as container:
        assert container.streams.video[0].sample_aspect_ratio == wide
        pictures = [frame.to_ndarray(format="gray") for frame in container.decode(video=0)]
    assert pictures[-1].shape == (360, 480)
    assert min(pictures[-1][180, 0], pictures[-1][0, 240], pictures[-1][-1, 240]) > 25, "the same shape: no border"


def test_dead_and_hung_cameras_cost_the_healthy_ones_nothing(tmp_path: Path) -> None:
    with ExitStack() as servers:
        fast = servers.enter_context(RtspServer(tmp_path / "fast", fps=30))
        slow = servers.enter_context(RtspServer(tmp_path / "slow", fps=5))
        hung = servers.enter_context(RtspServer(tmp_path / "hung", fps=30))
        dead = f"rtsp://127.0.0.1:{free_port()}/cam"
        healthy = [("fast", fast.url()), ("slow", slow.url())]
        delivered: dict[str, list[dict[str, Any]]] = {"fast": [], "slow": []}
        for sick in ([], [("hung", hung.url()), ("dead", dead)]):
            with running([feed(url, name=name) for name, url in healthy + sick]) as run:
                wait_until(lambda run=run: run.flows("fast") and "slow" in run.latest_s)  # type: ignore[misc]
                if sick:
                    wait_until(lambda run=run: run.flows("hung"))  # type: ignore[misc]
                    hung.pause()
                time.sleep(3.0)
                stats = run.stop()["sources"]
            for name, counts in delivered.items():
                counts.append(stats[name])
        print(json.dumps(delivered))
        for name, fps in (("fast", 30), ("slow", 5)):
            alone, beside = delivered[name]
            assert beside["fps_out"] >= 0.9 * alone["fps_out"] >= 0.8 * fps
            assert beside["latency_ms"]["p95"] < alone["latency_ms"]["p95"] + 50


def test_the_picture_is_fresh_when_it_is_shown(camera: RtspServer, rtmp: RtmpServer) -> None:
    with running([feed(camera.url(), open_sink(rtmp.url("out")))]) as run:
        wait_until(run.flows)
        wait_until_published(rtmp)
        with Player(rtmp.url("out")) as player:
            player.wait_for(lambda shown: shown.is_fresh(FPS))
            time.sleep(1.0)
            known = len(player.shown)
            time.sleep(3.0)
            ages_ms = 1000 * np.array([shown.age_s(FPS) for shown in player.shown[known:]])
        p50, p95 = np.percentile(ages_ms, [50, 95])
        stats = run.stop()["sources"]["cam"]
    print(f"camera to player: p50 {p50:.0f} ms, p95 {p95:.0f} ms; within the pipeline: {stats['latency_ms']}")
    assert len(ages_ms) > 2 * FPS
    assert p50 < 400
    assert stats["latency_ms"]["p50"] < 60


def faults(cameras: list[RtspServer], rtmp: RtmpServer, seconds: float, every_s: float) -> Iterator[str]:
    """Do harm to one server after another, each for a while, and name what was done."""
    chance = random.Random(3)
    ends_s = time.monotonic() + seconds
    while time.monotonic() < ends_s:
        server = chance.choice([*cameras, rtmp])
        kind = chance.choice(["kill", "pause"])
        length_s = chance.uniform(0.5, min(15.0, every_s / 3))
        (server.kill if kind == "kill" else server.pause)()
        time.sleep(length_s)
        (server.restart if kind == "kill" else server.resume)()
        yield f"{type(server).__name__} {kind} {length_s:.1f} s"
        time.sleep(max(0.0, every_s - length_s))


@pytest.mark.parametrize(
    ("seconds", "every_s", "may_grow_mb"),
    [
        (12.0, 4.0, 80),  # in so short a time decoders and encoders still take what they need
        pytest.param(float(os.environ.get("SOAK_S", "3600")), 60.0, 20, marks=LONG),
    ],
)
def test_a_soak_on_two_cameras(
    tmp_path: Path, rtmp: RtmpServer, seconds: float, every_s: float, may_grow_mb: float
) -> None:
    process = psutil.Process()
    with ExitStack() as servers:
        cameras = [servers.enter_context(RtspServer(tmp_path / name, fps=FPS)) for name in ("a", "b")]
        feeds = [feed(camera.url(), open_sink(rtmp.url(name)), name=name) for camera, name in zip(cameras, "ab")]  # noqa: B905 - of equal length
        with running(feeds) as run:
            wait_until(lambda: run.flows("a") and run.flows("b"))
            used_mb, descriptors, returns_s = [], [], []
            for done in faults(cameras, rtmp, seconds, every_s):
                returns_s.append(wait_until(lambda: run.flows("a") and run.flows("b"), 15))
                used_mb.append(resident_mb())
                descriptors.append(process.num_fds())
                print(f"{done}: both flow after {returns_s[-1]:.2f} s; {used_mb[-1]:.0f} MB, {descriptors[-1]} fds")
            for name in "ab":
                wait_until_published(rtmp, name, within_s=15)
            stats = run.stop()
    print(json.dumps(stats))
    third = max(1, len(used_mb) // 3)
    assert max(used_mb[-third:]) - max(used_mb[:third]) < may_grow_mb
    assert max(descriptors[-third:]) <= max(descriptors[:third]) + 6, "a connection or a child may be on its way out"


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("ip") is None, reason="needs root and iproute2")
def test_a_link_that_goes_down_and_comes_up(tmp_path: Path) -> None:
    with (
        Namespace() as camera_host,
        RtspServer(tmp_path / "rtsp", fps=FPS, namespace=camera_host) as camera,
        running([feed(camera.url())]) as run,
    ):
        wait_until(run.flows)
        for down_s in (1.0, 7.0):
            camera_host.link("down")
            time.sleep(down_s)
            assert not run.flows()
            camera_host.link("up")
            print(f"down for {down_s} s: flows again after {wait_until(run.flows, 8):.2f} s")
            time.sleep(1.0)
            assert run.flows()
        latency_ms = run.stop()["sources"]["cam"]["latency_ms"]
    assert latency_ms["p99"] < 200


def test_an_unknown_size_is_no_obstacle() -> None:
    source = open_source("rtsp://127.0.0.1:9/cam", is_alone=False)
    assert isinstance(source.info, SourceInfo)
    assert (source.info.width, source.info.height) == (0, 0)
    source.close()
