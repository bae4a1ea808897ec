"""`run --resume` after a process was killed or interrupted."""

from __future__ import annotations

import random
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.helpers import WITHIN_S, child, run, run_child, the_error
from tests.clips import make_clip
from tests.player import wait_until

OUTPUTS = ["video.mp4", "poses.jsonl", "poses.parquet"]


def command(clip: Path, tiny: list[str], *more: str) -> list[str]:
    return ["run", str(clip), *tiny, *(word for name in OUTPUTS for word in ("--to", name)), *more]


def contents(folder: Path) -> dict[str, bytes]:
    """What is in a folder, which has nothing but the outputs."""
    assert sorted(path.name for path in folder.iterdir()) == sorted(OUTPUTS)
    return {name: (folder / name).read_bytes() for name in OUTPUTS}


def savepoints(folder: Path) -> int:
    return len(list(folder.glob("video.mp4.resume/*.npz")))


def end(process: subprocess.Popen[str], number: signal.Signals, when: Callable[[], object]) -> str:
    """Send a signal once something is the case. Return what the process says."""
    wait_until(lambda: when() or process.poll() is not None, WITHIN_S)
    process.send_signal(number)
    _, stderr = process.communicate(timeout=WITHIN_S)
    return stderr


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_clip(tmp_path_factory.mktemp("clip") / "clip.mp4", size=(96, 64), frames=760, b_frames=2, audio_s=30.4)


@pytest.fixture(scope="module")
def whole(clip: Path, tiny: list[str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of a run that nobody has interrupted."""
    folder = tmp_path_factory.mktemp("whole")
    assert run(command(clip, tiny), folder)[0] == 0
    return contents(folder)


def test_a_run_that_was_killed_again_and_again(
    clip: Path, tiny: list[str], whole: dict[str, bytes], tmp_path: Path
) -> None:
    end(child(command(clip, tiny), tmp_path), signal.SIGKILL, lambda: savepoints(tmp_path) >= 2)
    code, _, stderr = run(command(clip, tiny), tmp_path)
    said = the_error(code, stderr, 2)
    assert "video.mp4 is half done" in said
    assert "--resume" in said
    assert "--overwrite" in said
    # While the frames of the first run are copied, and again once the second one has gone on.
    again = child(command(clip, tiny, "--resume"), tmp_path)
    end(again, signal.SIGKILL, lambda: list(tmp_path.glob("video.mp4.kept-*")))
    again = child(command(clip, tiny, "--resume"), tmp_path)
    end(again, signal.SIGKILL, lambda: (tmp_path / "video.mp4.resume" / "000000000750.npz").exists())
    code, _, stderr = run(command(clip, tiny, "--resume"), tmp_path)
    assert code == 0, stderr
    assert contents(tmp_path) == whole
    code, _, stderr = run(command(clip, tiny, "--resume"), tmp_path)
    assert (code, "nothing to do: video.mp4 and poses.jsonl and poses.parquet are complete" in stderr) == (0, True)


def test_a_run_that_was_interrupted(clip: Path, tiny: list[str], whole: dict[str, bytes], tmp_path: Path) -> None:
    said = end(child(command(clip, tiny), tmp_path), signal.SIGTERM, lambda: savepoints(tmp_path) >= 2)
    assert "half done: repeat the command with --resume to continue" in said
    code, _, stderr = run_child(command(clip, tiny, "--resume"), tmp_path)
    assert code == 0, stderr
    assert contents(tmp_path) == whole


@pytest.mark.long
def test_twenty_kills_at_random_moments(tiny: list[str], tmp_path: Path) -> None:
    """Every kill comes later than the start of the work, so that the run ends in the end."""
    moments = random.Random(0)
    clip = make_clip(tmp_path / "clip.mp4", frames=3000, b_frames=2, audio_s=120.0)
    (tmp_path / "whole").mkdir()
    assert run(command(clip, tiny), tmp_path / "whole")[0] == 0
    wanted = contents(tmp_path / "whole")
    kills = 0
    for trial in range(10):
        folder = tmp_path / str(trial)
        folder.mkdir()
        for more in ([], ["--resume"]):
            process = child(command(clip, tiny, *more), folder)
            try:
                process.communicate(timeout=moments.uniform(3.0, 25.0))
            except subprocess.TimeoutExpired:
                process.kill()
                process.communicate()
                kills += 1
        code, _, stderr = run_child(command(clip, tiny, "--resume"), folder)
        assert code == 0, stderr
        assert contents(folder) == wanted, trial
    assert kills > 10
