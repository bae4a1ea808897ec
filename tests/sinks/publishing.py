"""A camera that publishes, for the tests against real servers."""

from __future__ import annotations

import threading
import time
from fractions import Fraction
from typing import Any

import numpy as np
import psutil

from streampose.frames import Frame, Image, People, Result, RunInfo, Skeleton, SourceInfo
from streampose.sinks.open import open_sink
from streampose.sinks.publish import PublishSink
from tests.clips import numbered_image
from tests.player import Shown
from tests.servers import NUMBERS

FPS = 25
SIZE = (320, 240)
SKELETON = Skeleton(("nose",), (), ())


def run_info(*, is_live: bool = True, fps: float | None = FPS, size: tuple[int, int] = SIZE) -> RunInfo:
    source = SourceInfo("cam", "cam", *size, fps, Fraction(1, 90_000), None, is_live)
    return RunInfo(source, SKELETON, {})


def result(pts_s: float, picture: Image) -> Result:
    return Result(Frame("cam", 0, pts_s, time.monotonic(), picture), People.none(1), SKELETON, picture)


def children() -> list[psutil.Process]:
    """The publishing processes of this one."""
    return [child for child in psutil.Process().children() if "publisher.py" in " ".join(child.cmdline())]


class Camera:
    """A thread that writes pictures, numbered with the machine's time, to a sink as the pipeline's thread would."""

    def __init__(self, sink: PublishSink, size: tuple[int, int] = SIZE, grain: int = 0) -> None:
        self.sink = sink
        self.size = size
        self.away = threading.Event()
        self.written = 0
        self.longest_write_s = 0.0
        noise = np.random.default_rng(0).integers(-grain, grain + 1, (4, size[1], size[0], 3), dtype=np.int16)
        self._noise = noise if grain else None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, name="streampose test camera")

    def __enter__(self) -> Camera:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(10)

    def _work(self) -> None:
        tick = int(time.monotonic() * FPS)
        next_idle_s = 0.0
        while not self._stop.wait(max(0.0, (tick + 1) / FPS - time.monotonic())):
            tick = int(time.monotonic() * FPS)
            began_s = time.monotonic()
            if not self.away.is_set():
                picture = numbered_image(tick % NUMBERS, self.size)
                if self._noise is not None:
                    picture = (picture + self._noise[tick % 4]).clip(0, 255).astype(np.uint8)
                self.sink.write(result(tick / FPS, picture))
                self.written += 1
                next_idle_s = time.monotonic() + 0.5
            elif began_s >= next_idle_s:
                self.sink.idle()
                next_idle_s = began_s + 0.5
            self.longest_write_s = max(self.longest_write_s, time.monotonic() - began_s)


def opened(url: str, run: RunInfo | None = None, **options: Any) -> PublishSink:
    sink = open_sink(url, **options)
    assert isinstance(sink, PublishSink)
    sink.open(run or run_info())
    return sink


def is_fresh(shown: Shown) -> bool:
    """Whether the picture was made within the last second before it was shown."""
    return shown.is_fresh(FPS)
