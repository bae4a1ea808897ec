"""What a killed run leaves on disk."""

from __future__ import annotations

import signal
from fractions import Fraction
from pathlib import Path

import cv2

# isort: split
import av
import numpy as np
import pytest

from streampose.records.lines import read_lines
from streampose.sinks.open import open_sink
from streampose.sinks.video import MIN_FRAGMENT_FRAMES
from tests.clips import make_clip, read_number
from tests.sinks.helpers import VIDEOS, child, frame_times, next_line, result, run_info, sound_packets

KILLED = """
    import sys, time
    from streampose.sinks.open import open_sink
    from tests.sinks.helpers import VIDEOS, result, run_info

    sinks = [open_sink(f"{sys.argv[1]}/{name}") for name in (*VIDEOS, "out.jsonl", "out/")]
    for sink in sinks:
        sink.open(run_info(path=sys.argv[2]))
    for index in range(150):
        for sink in sinks:
            sink.write(result(index))
    print("written", flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize("target", VIDEOS)
def test_of_a_camera_that_does_not_tell_its_rate_a_killed_run_loses_no_more(target: str, tmp_path: Path) -> None:
    with open_sink(tmp_path / target) as sink:
        sink.open(run_info(fps=None, time_base=Fraction(1, 90_000), is_live=True))
        for index in range(100):
            sink.write(result(index, pts_s=index / 5, image=np.full((120, 192, 3), 90, np.uint8)))
    with av.open(str(tmp_path / target)) as container:
        keyframes_s = [
            float(packet.pts * packet.time_base) for packet in container.demux(video=0) if packet.is_keyframe
        ]
    assert len(keyframes_s) > 5
    assert max(np.diff(keyframes_s)) == pytest.approx(MIN_FRAGMENT_FRAMES / 5, abs=0.01)


def test_a_killed_run_leaves_readable_files_that_lack_little(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "clip.mp4", frames=150, audio_s=6.0)
    with child(KILLED, str(tmp_path), str(clip)) as process:
        assert next_line(process) == "written"
        process.send_signal(signal.SIGKILL)
        process.wait(timeout=10)
    for target in VIDEOS:
        times = frame_times(tmp_path / target)
        assert times == [Fraction(index, 25) for index in range(len(times))], target
        assert sound_packets(tmp_path / target)[-1][0] > times[-1] - 0.5
        assert len(times) >= 150 - 50 - 25, "at most one fragment and what the encoder holds"
    assert [line["frame"] for line in read_lines(tmp_path / "out.jsonl")[1]] == list(range(150))
    pictures = sorted((tmp_path / "out").iterdir())
    assert [read_number(cv2.imread(str(path))) for path in pictures] == list(range(150))
