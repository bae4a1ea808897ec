"""Parts of a recording, from the command line and a TOML file to the files."""

from __future__ import annotations

import json
from pathlib import Path

import av
import pytest

import streampose
from streampose.cli.config import read_config
from streampose.errors import UsageError
from streampose.options import OPTIONS
from streampose.records.lines import read_lines
from tests.cli.helpers import run, the_error
from tests.clips import make_clip, read_number

END = next(option for option in OPTIONS if option.name == "end_s")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("10", 10), ("10s", 10), ("1.5m", 90), ("1m20s", 80), ("1m20", 80), ("1h2m3.5s", 3723.5), ("2h30s", 7230)],
)
def test_durations(text: str, seconds: float) -> None:
    assert END.parse(text, "end") == seconds


@pytest.mark.parametrize("text", ["", "s", "1s2m", "1m20x", "-1", "1 m", "1:20", "0", "0m0s"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(UsageError, match=r"^end: .* is not a duration above 0"):
        END.parse(text, "end")


def test_a_part_in_slow_motion(tmp_path: Path, tiny: list[str]) -> None:
    make_clip(tmp_path / "clip.mp4", frames=60, audio_s=2.4)
    part = ["--start", "0m1s", "--end", "1.6s", "--every", "3"]
    sinks = ["--to", "out.mp4", "--to", "out.jsonl", "--to", "drawn/"]
    code, _, stderr = run(["run", "clip.mp4", *tiny, *part, *sinks, "--speed", "0.25", "--stats", "s.json"], tmp_path)
    assert code == 0, stderr
    assert "out.mp4: omitting the sound, because --speed is not 1" in stderr
    assert "frames   5 in" in stderr
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert [frame.time for frame in container.decode(video=0)] == pytest.approx([0.0, 0.48, 0.96, 1.44, 1.92])
    lines = list(read_lines(tmp_path / "out.jsonl")[1])
    assert [(line["frame"], line["pts_s"]) for line in lines] == [(k, k / 25) for k in range(25, 40, 3)]
    assert sorted(path.name for path in (tmp_path / "drawn").iterdir()) == [f"{k:06d}.jpg" for k in range(25, 40, 3)]
    counts = json.loads((tmp_path / "s.json").read_text())["sources"]["clip"]
    assert (counts["captured"], counts["delivered"], counts["dropped"]) == (5, 5, {})


def test_each_source_has_its_part(tmp_path: Path, tiny: list[str]) -> None:
    make_clip(tmp_path / "clip.mp4", frames=60)
    (tmp_path / "parts.toml").write_text(
        "every = 2\nend = '2s'\nto = ['{source}.jsonl']\n"
        "[sources.first]\nsource = 'clip.mp4'\nend = '0m0.4s'\n"
        "[sources.second]\nsource = 'clip.mp4'\nstart = 1.8\nevery = 1\n"
    )
    inputs, _ = read_config(tmp_path / "parts.toml")
    assert [(one.start_s, one.end_s, one.every) for one in inputs] == [(None, 0.4, 2), (1.8, 2.0, 1)]
    code, _, stderr = run(["run", "--config", "parts.toml", *tiny], tmp_path)
    assert code == 0, stderr
    for name, wanted in (("first", [0, 2, 4, 6, 8]), ("second", [45, 46, 47, 48, 49])):
        assert [line["frame"] for line in read_lines(tmp_path / f"{name}.jsonl")[1]] == wanted


def test_errors_name_the_flags(tmp_path: Path) -> None:
    make_clip(tmp_path / "clip.mp4", frames=30)
    for words, says in (
        (["clip.mp4", "--start", "2s", "--end", "1s"], "--end (1 s) must be after --start (2 s)"),
        (["clip.mp4", "--start", "1h"], "the last frame of clip.mp4 is at 1.16 s: --start (3600 s) is later"),
        (["rtsp://127.0.0.1:1/cam", "--start", "1s"], "is live: --start applies only to recordings"),
        (["0", "--speed", "0.5", "--to", "window"], "window: --speed applies only to a single recording"),
        (["clip.mp4", "a=clip.mp4", "--speed", "2", "--to", "window"], "window: --speed applies only to a single"),
        (["clip.mp4", "--speed", "0.5", "--to", "rtmp://host/live/key"], "--speed applies only to files"),
    ):
        code, _, stderr = run(["run", *words, *([] if "--to" in words else ["--to", "null"])], tmp_path)
        assert says in the_error(code, stderr, 2)


def test_python_takes_a_part(tmp_path: Path, tiny: list[str]) -> None:
    clip = make_clip(tmp_path / "clip.mp4", frames=60)
    options = dict(zip((flag.removeprefix("--") for flag in tiny[::2]), tiny[1::2], strict=True))
    part = streampose.Input(clip, start_s=1.0, end_s=1.4, every=4)
    results = list(streampose.stream(part, pose=options["pose"], detector=options["detector"]))
    found = [(read_number(result.frame.image), result.frame.index, result.frame.pts_s) for result in results]
    assert found == [(25, 25, 1.0), (29, 29, 1.16), (33, 33, 1.32)]
