"""The progress of a run: a bar on a terminal, lines in a log, JSON for programs."""

from __future__ import annotations

import json
import re
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from streampose.cli import progress
from streampose.cli.progress import Now, RecentRate, SourceNow, duration_text, left_s, lines_of
from streampose.cli.progress_bar import Bar
from tests.cli.helpers import on_a_terminal, run
from tests.clips import make_clip

RECORDING = SourceNow("tape", "running", False, 500, 2000, 25.0, 900, 60.0)
LIVE = SourceNow(
    *("cam", "live", True, 500, None, 24.5, 900),
    fps_in=25.0,
    dropped={"busy": 3},
    latency_ms={"p50": 80.4, "p95": 120.0, "p99": 200.0},
)
BATCH = Now(20.0, 5000, 9000, 250.0, [RECORDING], 7300.0, files_done=40, files_failed=2, files_total=300)


def events(stderr: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stderr.splitlines()]


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_clip(tmp_path_factory.mktemp("clip") / "clip.mp4", frames=300)


class TestValues:
    def test_the_rate_is_that_of_the_last_seconds(self) -> None:
        now_s = [0.0]
        rate = RecentRate(clock=lambda: now_s[0])
        found = []
        for second in range(1, 61):
            now_s[0] = second
            found.append(rate.per_s(second * 10 if second <= 30 else 300 + (second - 30) * 100))
        assert found[29] == pytest.approx(10)
        assert found[59] == pytest.approx(100)

    def test_a_run_that_is_continued_does_not_begin_with_a_jump(self) -> None:
        now_s = [0.0]
        rate = RecentRate(1000, clock=lambda: now_s[0])
        now_s[0] = 10.0
        assert rate.per_s(1050) == pytest.approx(5)

    @pytest.mark.parametrize(("frames", "total", "fps", "expected"), [(50, 100, 10.0, 5.0), (100, 100, 9.0, 0.0)])
    def test_time_left(self, frames: int, total: int, fps: float, expected: float) -> None:
        assert left_s(frames, total, fps) == expected

    @pytest.mark.parametrize(
        ("frames", "total", "fps"), [(0, 100, 1.0), (5, None, 1.0), (5, 100, 0.0), (101, 100, 1.0)]
    )
    def test_time_left_is_not_guessed(self, frames: int, total: int | None, fps: float) -> None:
        assert left_s(frames, total, fps) is None

    @pytest.mark.parametrize(
        ("seconds", "text"), [(0.4, "0 s"), (119, "119 s"), (600, "10 min"), (12_000, "3 h 20 min")]
    )
    def test_durations(self, seconds: float, text: str) -> None:
        assert duration_text(seconds) == text

    def test_lines(self) -> None:
        alone = Now(20.0, 500, 900, 25.0, [RECORDING])
        assert lines_of(alone) == ["500/2000 frames, 25.0 fps, 900 people, 60 s left"]
        both = Now(20.0, 500, 900, 25.0, [RECORDING, LIVE], notes=["rtmp://host/live publishing"])
        assert lines_of(both) == [
            "tape 500/2000 frames, 25.0 fps, 900 people, 60 s left",
            "cam live, 25.0 fps in, 24.5 out, 900 people, dropped busy 3, latency 80/120/200 ms",
            "rtmp://host/live publishing",
        ]
        assert lines_of(BATCH) == ["42/300 files (2 failed), 5000 frames, 250.0 fps, 9000 people, 2 h 2 min left"]


class TestBar:
    def drawn(self, now: Now, width: int, monkeypatch: pytest.MonkeyPatch) -> list[str]:
        monkeypatch.setenv("COLUMNS", str(width))
        bar = Bar()
        console = bar._console
        with console.capture() as capture:
            console.print(bar._drawn(now))
        return [line.rstrip() for line in capture.get().splitlines()]

    def test_of_a_batch(self, monkeypatch: pytest.MonkeyPatch) -> None:
        whole, tape = self.drawn(BATCH, 140, monkeypatch)
        assert re.fullmatch(r"all files +━+.* 42/300 files \(2 failed\), 5000 frames.* 2 h 2 min left", whole)
        assert re.fullmatch(r"tape +━+.* 500/2000  25.0 fps  900 people  60 s left", tape)

    @pytest.mark.parametrize("width", [30, 40, 60, 80])
    def test_fits_on_the_terminal(self, width: int, monkeypatch: pytest.MonkeyPatch) -> None:
        for now in (BATCH, Now(1.0, 1, 1, 1.0, [RECORDING, LIVE, RECORDING])):
            lines = self.drawn(now, width, monkeypatch)
            assert len(lines) <= 3
            assert max(map(len, lines)) <= width

    def test_of_a_recording_of_unknown_length(self, monkeypatch: pytest.MonkeyPatch) -> None:
        source = SourceNow("stdin", "running", False, 12, None, 3.0, 4)
        (line,) = self.drawn(Now(1.0, 12, 4, 3.0, [source]), 80, monkeypatch)
        assert line.endswith("12  3.0 fps  4 people")


def test_a_bar_on_a_terminal(tiny: list[str], tmp_path: Path, long_clip: Path) -> None:
    arguments = ["run", str(long_clip), *tiny, "--to", "null"]
    shown = on_a_terminal(arguments, tmp_path, lambda text: text.count("/4000") > 3)
    assert "━" in shown
    assert re.search(r"[0-9]+/4000  [0-9.]+ fps  [0-9]+ people", shown)
    assert "streampose: finishing the frames in progress" in shown
    summary = shown[shown.rindex("frames   ") :]
    assert "━" not in summary, "the bar is gone when the summary is there"
    assert "\x1b[?25h" in shown, "the cursor is there again"


def test_a_terminal_that_cannot_draw_gets_lines(
    tiny: list[str], tmp_path: Path, long_clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "dumb")
    shown = on_a_terminal(["run", str(long_clip), *tiny, "--to", "null"], tmp_path, lambda text: " left" in text)
    assert "━" not in shown
    assert "\x1b" not in shown


def test_no_colours_if_nobody_wants_any(
    tiny: list[str], tmp_path: Path, long_clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    arguments = ["run", str(long_clip), *tiny, "--to", "null"]
    shown = on_a_terminal(arguments, tmp_path, lambda text: text.count("/4000") > 1)
    assert "/4000  " in shown
    assert not re.search(r"\x1b\[[0-9;]*[1-9][0-9]?m", shown)


def test_lines_in_a_log_begin_with_the_time(
    tiny: list[str], tmp_path: Path, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress.Log, "every_s", 0.2)  # instead of 10
    code, _, stderr = run(["run", str(clip), *tiny, "--to", "null"], tmp_path)
    assert code == 0
    found = re.findall(r"^(\S+) ([0-9]+)/300 frames, [0-9.]+ fps, [0-9]+ people", stderr, re.MULTILINE)
    assert found, stderr
    assert all(datetime.fromisoformat(time).utcoffset() is not None for time, _ in found)
    counts = [int(count) for _, count in found]
    assert counts == sorted(counts)


def test_json_for_programs(tiny: list[str], tmp_path: Path, clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress.Json, "every_s", 0.2)  # instead of 1
    arguments = ["run", str(clip), *tiny, "--to", "-", "--to", "poses.csv", "--progress", "json"]
    code, stdout, stderr = run(arguments, tmp_path)
    assert code == 0
    assert len(stdout.splitlines()) == 301, "data are where they are without it"
    *told, end = events(stderr)
    assert {event["event"] for event in told} == {"progress"}
    assert end["event"] == "end"
    assert end["frames"] == 300
    (source,) = end["sources"]
    assert source == source | {"name": "clip", "state": "ended", "frames": 300, "total": 300, "left_s": 0.0}
    assert any("poses.csv: 300 frames" in line for line in end["outputs"])


def test_json_of_errors_and_messages(tiny: list[str], tmp_path: Path, clip: Path) -> None:
    code, _, stderr = run(["run", "nothing.mp4", *tiny, "--to", "null", "--progress", "json"], tmp_path)
    assert code == 1
    (error,) = events(stderr)
    assert error["event"] == "log"
    assert error["level"] == "error"
    assert str(error["message"]).startswith("nothing.mp4 does not exist")
    code, _, stderr = run(["run", str(clip), *tiny, "--to", "a.jsonl", "--compile", "--progress", "json"], tmp_path)
    assert code == 0
    assert "nothing is compiled on a CPU" in str(events(stderr)[0]["message"])


def test_nothing_but_the_summary(tiny: list[str], tmp_path: Path, clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress.Log, "every_s", 0.1)
    _, _, stderr = run(["run", str(clip), *tiny, "--to", "null", "--progress", "off"], tmp_path)
    assert stderr.splitlines()[0].startswith("frames   300")
