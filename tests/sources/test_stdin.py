"""A container on standard input."""

from __future__ import annotations

import array
import fcntl
import os
import signal
import subprocess
import sys
import termios
import threading
import time
from pathlib import Path

import pytest

from streampose.frames import Frame
from streampose.sources.open import open_source
from tests.clips import make_clip

HEARS_INTERRUPTS = "import signal\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"
"""Tests that a shell runs in the background ignore interrupts, and so would a child."""


def pipe_holds(descriptor: int) -> int:
    """Return how many bytes of a pipe nobody has read yet."""
    count = array.array("i", [0])
    fcntl.ioctl(descriptor, termios.FIONREAD, count)
    return count[0]


class TestStandardInput:
    COUNT = (
        "from streampose.sources.open import open_source\n"
        "from tests.clips import read_number\n"
        "with open_source('-') as source:\n"
        "    print(source.info.is_live, source.info.source_id, [read_number(f.image) for f in source.frames()])\n"
    )

    def run(self, data: bytes) -> tuple[str, str]:
        """Return what a child that is piped `data` writes to stdout and stderr."""
        child = subprocess.run(
            [sys.executable, "-c", self.COUNT],
            input=data,
            capture_output=True,
            cwd=Path(__file__).parents[2],
            timeout=20,
            check=False,
        )
        return child.stdout.decode(), child.stderr.decode()

    @pytest.mark.parametrize("ending", ["ts", "mkv"])
    def test_every_frame_is_read(self, tmp_path: Path, ending: str) -> None:
        out, err = self.run(make_clip(tmp_path / f"clip.{ending}", frames=40).read_bytes())
        assert out == f"False stdin {list(range(40))}\n", err

    def test_an_interrupt_while_it_is_opened(self) -> None:
        reading, writing = os.pipe()
        with subprocess.Popen(
            # It tells when its imports are over, an interrupt of which is another matter.
            [
                sys.executable,
                "-c",
                f"{HEARS_INTERRUPTS}import streampose.sources.live\nprint(flush=True)\n{self.COUNT}",
            ],
            stdin=reading,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=Path(__file__).parents[2],
        ) as child:
            os.close(reading)
            assert child.stdout is not None
            child.stdout.readline()
            os.write(writing, b"\0")
            while pipe_holds(writing):  # until it reads, and waits for more
                assert child.poll() is None
                time.sleep(0.01)
            time.sleep(0.2)
            child.send_signal(signal.SIGINT)
            try:
                _, said = child.communicate(timeout=20)
            finally:
                child.kill()
                os.close(writing)
        assert said.endswith(b"KeyboardInterrupt\n")
        assert b"ignored" not in said

    def test_no_video(self) -> None:
        assert "SourceError: - is not a video" in self.run(b"no video")[1]

    def test_an_interrupt_while_nothing_comes(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        reading, writing = os.pipe()
        with os.fdopen(reading) as stdin, os.fdopen(writing, "wb", 0) as pipe:
            monkeypatch.setattr(sys, "stdin", stdin)
            feeder = threading.Thread(
                target=pipe.write, args=[make_clip(tmp_path / "clip.ts", frames=100, grain=30).read_bytes()]
            )
            feeder.start()
            source = open_source("-")
            got: list[Frame] = []
            reader = threading.Thread(target=lambda: got.extend(source.frames()))
            reader.start()
            feeder.join(10)
            time.sleep(0.3)
            assert reader.is_alive()
            source.interrupt()
            reader.join(1.0)
            assert not reader.is_alive()
            source.close()
        assert len(got) > 90
