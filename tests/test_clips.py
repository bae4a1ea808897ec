"""Real clips from end to end through the program: every frame at its own time, in every output. Minutes each."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import av
import pytest

from streampose.records.lines import read_lines
from tests.cli.helpers import PROJECT

pytestmark = pytest.mark.long


@pytest.mark.parametrize("name", ["sign_walk.mkv", "sign_book.mkv", "one-by-one-person-detection.mp4"])
def test_every_frame_of_a_real_clip(labelled_data: Path, tmp_path: Path, name: str) -> None:
    clip = labelled_data / "clips" / name
    run = subprocess.run(
        [sys.executable, "-m", "streampose", "run", str(clip), "--to", "out.mp4", "--to", "out.jsonl"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(PROJECT), "HF_HUB_OFFLINE": "1", "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=1800,
    )
    assert run.returncode == 0, run.stderr
    with av.open(clip) as container:
        times_s = [frame.time for frame in container.decode(video=0)]
    with av.open(tmp_path / "out.mp4") as container:
        assert [frame.time for frame in container.decode(video=0)] == pytest.approx(times_s, abs=1e-6)
    lines = list(read_lines(tmp_path / "out.jsonl")[1])
    assert [line["pts_s"] for line in lines] == pytest.approx(times_s, abs=1e-6)
    people = sum(len(line["people"]) for line in lines)
    print(f"{name}: {len(lines)} frames, {people} people")
    assert people > 0.2 * len(lines)
