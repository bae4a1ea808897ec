"""A player of network streams in a process of its own, which tells of every picture what it shows and when."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from typing import NamedTuple

from tests.servers import NUMBERS


def wait_until(what: Callable[[], object], within_s: float = 10.0) -> float:
    """Return after how many seconds `what` was true."""
    began_s = time.monotonic()
    while not what():
        assert time.monotonic() - began_s < within_s, "it never happened"
        time.sleep(0.02)
    return time.monotonic() - began_s


class Shown(NamedTuple):
    at_s: float
    """`time.monotonic()`, one clock for all processes of a machine."""
    pts_s: float
    number: int | None
    """None: no number can be read."""
    brightness: float
    size: tuple[int, int]
    is_key: bool

    def is_fresh(self, fps: int, within_s: float = 1.0) -> bool:
        """Whether the picture was made within so many seconds before it was shown, by a source of numbered pictures."""
        return self.age_s(fps) < within_s

    def age_s(self, fps: int) -> float:
        """How long before it was shown the picture was made; endless for one without a number."""
        return float("inf") if self.number is None else ((self.at_s * fps - self.number) % NUMBERS) / fps


class Player:
    """Plays an address in a process of its own until it ends or is told to stop."""

    PROGRAM = textwrap.dedent("""
        import json, sys, time
        import av
        from tests.clips import read_number

        options = {"fflags": "nobuffer", "probesize": "4096", "analyzeduration": "100000"}
        with av.open(sys.argv[1], options=options, timeout=(10, 20)) as container:
            for frame in container.decode(video=0):
                image = frame.to_ndarray(format="bgr24")
                try:
                    number = read_number(image)
                except ValueError:
                    number = None
                size = [frame.width, frame.height]
                shown = [time.monotonic(), frame.time, number, float(image.mean()), size, frame.key_frame]
                print(json.dumps(shown), flush=True)
    """)

    def __init__(self, url: str) -> None:
        self.shown: list[Shown] = []
        self._process = subprocess.Popen([sys.executable, "-c", self.PROGRAM, url], stdout=subprocess.PIPE)
        self._thread = threading.Thread(target=self._read, name="streampose test player")
        self._thread.start()

    @property
    def playing(self) -> bool:
        return self._process.poll() is None

    def wait_for(self, what: Callable[[Shown], bool], within_s: float = 10.0) -> Shown:
        """Wait for a picture, from the next one on."""
        known = len(self.shown)
        wait_until(lambda: any(what(shown) for shown in self.shown[known:]), within_s)
        return next(shown for shown in self.shown[known:] if what(shown))

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                at_s, pts_s, number, brightness, size, is_key = json.loads(line)
                self.shown.append(Shown(at_s, pts_s, number, brightness, tuple(size), is_key))

    def __enter__(self) -> Player:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        self._thread.join(5)
