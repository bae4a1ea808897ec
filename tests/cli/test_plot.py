"""`streampose plot`: files, flags and one-line errors."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from pathlib import Path

import cv2
import matplotlib as mpl
import numpy as np
import pytest

from streampose.cli.plot import frame_of
from streampose.kinds import one_of
from streampose.options import options_of
from streampose.records.plot import KINDS, Plot
from streampose.records.poses import read_poses
from tests.cli.helpers import run, run_child, the_error
from tests.clips import make_clip, read_number
from tests.records.walkers import FPS, walk, write
from tests.sinks.helpers import file_size_limit

CLIP_SIZE = (192, 144)
"""A clip of the shape of the frames that `walk` makes."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with poses.jsonl and the small clip.mp4 of 60 frames that they could be of."""
    write(tmp_path / "poses.jsonl", walk(60, {1: range(60), 3: range(20, 50)}))
    make_clip(tmp_path / "clip.mp4", frames=60, fps=FPS, size=CLIP_SIZE)
    return tmp_path


@pytest.mark.parametrize("what", KINDS)
def test_every_plot_is_written_as_png_and_as_svg(what: str, folder: Path) -> None:
    on_a_frame = ["--frame", "clip.mp4"] if what in ("path", "heatmap") else []
    arguments = ["plot", "poses.jsonl", "--what", what, *on_a_frame]
    code, stdout, stderr = run([*arguments, "-o", "new/plot.png"], folder)
    assert (code, stdout) == (0, ""), stderr
    assert re.fullmatch(r"written  new/plot\.png: \d+\.\d k?M?B\n", stderr)
    image = cv2.imread(str(folder / "new" / "plot.png"))
    assert image is not None
    assert min(image.shape[:2]) >= 200
    assert (image != 255).mean() > 0.005
    assert (np.ptp(image.astype(int), axis=2) > 60).mean() > 0.0005, "there are colours"

    assert run([*arguments, "--to", "plot.SVG"], folder)[0] == 0
    first = (folder / "plot.SVG").read_bytes()
    assert ET.fromstring(first).tag == "{http://www.w3.org/2000/svg}svg"
    assert len(first) < 1_000_000


def test_the_flag_has_all_plots() -> None:
    (what,) = [option for option in options_of("plot") if option.name == "what"]
    assert what.kind.called == one_of(*KINDS).called


def test_without_further_flags_it_plots_angles(folder: Path) -> None:
    write(folder / "poses.jsonl", walk(10))
    code, _, stderr = run_child(["plot", "poses.jsonl", "-o", "angles.png"], folder)
    assert code == 0, stderr
    assert (folder / "angles.png").stat().st_size > 10_000


def test_the_state_of_matplotlib_stays_as_it_is(folder: Path) -> None:
    before, backend = dict(mpl.rcParams), mpl.get_backend(auto_select=False)
    assert run(["plot", "poses.jsonl", "-o", "angles.png"], folder)[0] == 0
    assert dict(mpl.rcParams) == before
    assert mpl.get_backend(auto_select=False) == backend


def test_the_frame_is_in_the_middle_of_what_is_plotted(folder: Path) -> None:
    poses = read_poses(folder / "poses.jsonl")
    clip = str(folder / "clip.mp4")
    assert read_number(frame_of(clip, Plot(poses, "path", person=3))) == 35
    assert read_number(frame_of(clip, Plot(poses, "heatmap"))) == 30
    make_clip(folder / "short.mp4", frames=10, fps=FPS, size=CLIP_SIZE)
    assert read_number(frame_of(str(folder / "short.mp4"), Plot(poses, "heatmap"))) == 9


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["poses.jsonl", "-o", "old.png"], "old.png exists: choose another file, or replace it with --overwrite"),
        (["poses.jsonl", "-o", "plot.gif"], "unknown output 'plot.gif': name a .png or .svg file"),
        (["poses.jsonl", "-o", "plot"], "unknown output 'plot': name a .png or .svg file"),
        (["poses.jsonl", "-o", "folder.png"], "folder.png is a folder"),
        (["poses.jsonl", "-o", "still.png", "--what", "path", "--frame", "still.png", "--overwrite"], "source itself"),
        (["none.jsonl", "-o", "a.png"], "cannot read none.jsonl"),
        (["old.png", "-o", "a.png"], "old.png is not a poses file"),
        (["poses.jsonl", "-o", "a.png", "--person", "2,7"], "no person 2 in poses.jsonl: there are 1, 3"),
        (["poses.jsonl", "-o", "a.png", "--person", "one"], "'one' is not an identity from 1 up"),
        (["poses.jsonl", "-o", "a.png", "--angles", "toe"], "unknown angle 'toe': this skeleton has left_knee, right"),
        (["poses.jsonl", "-o", "a.png", "--what", "pie"], "argument --what: 'pie' is not angles or keypoints or speed"),
        (["poses.jsonl", "-o", "a.png", "--keypoints", "wrist"], "--keypoints is for plots of keypoints, speed"),
        (["poses.jsonl", "-o", "a.png", "--what", "speed", "--angles", "knee"], "--angles is for plots of angles"),
        (["poses.jsonl", "-o", "a.png", "--what", "path", "--keypoints", "toe"], "unknown keypoint 'toe'"),
        (["poses.jsonl", "-o", "a.png", "--frame", "none.mp4"], "--frame is for path and heatmap: a plot of angles"),
        (["poses.jsonl", "-o", "a.png", "--what", "path", "--frame", "0"], "--frame: 0 is not a file"),
        (["poses.jsonl", "-o", "a.png", "--what", "path", "--frame", "wide.png"], "--frame is 200x100, but the poses"),
        (["poses.jsonl", "-o", "a.png", "--source", "door"], "no source 'door' in poses.jsonl: there are clip"),
        (["nameless.jsonl", "-o", "a.png"], "nameless.jsonl has no identities"),
    ],
)
def test_a_failure_is_one_line_and_writes_nothing(arguments: list[str], says: str, folder: Path) -> None:
    write(folder / "nameless.jsonl", walk(9, {None: range(9)}))
    (folder / "old.png").write_text("old\n")
    (folder / "folder.png").mkdir()
    cv2.imwrite(str(folder / "wide.png"), np.zeros((100, 200, 3), np.uint8))
    cv2.imwrite(str(folder / "still.png"), np.zeros((120, 160, 3), np.uint8))
    before = sorted(folder.iterdir())
    code, _, stderr = run(["plot", *arguments], folder)
    assert says in the_error(code, stderr, 2)
    assert sorted(folder.iterdir()) == before
    assert (folder / "old.png").read_text() == "old\n"


def test_a_missing_video_is_a_failure_of_the_source(folder: Path) -> None:
    code, _, stderr = run(["plot", "poses.jsonl", "-o", "a.png", "--what", "path", "--frame", "clip.mov"], folder)
    assert "clip.mov does not exist; did you mean clip.mp4?" in the_error(code, stderr, 1)


def test_an_existing_file_is_replaced_if_asked(folder: Path) -> None:
    (folder / "old.png").write_text("old\n" * 100_000)
    assert run(["plot", "poses.jsonl", "-o", "old.png", "--overwrite"], folder)[0] == 0
    assert cv2.imread(str(folder / "old.png")) is not None


def test_what_precedes_damage_is_plotted(folder: Path) -> None:
    lines = (folder / "poses.jsonl").read_bytes().splitlines(keepends=True)
    (folder / "poses.jsonl").write_bytes(b"".join([*lines[:30], b"{\n", *lines[30:]]))
    code, _, stderr = run(["plot", "poses.jsonl", "-o", "a.png"], folder)
    assert "poses.jsonl is damaged at line 31" in the_error(code, stderr, 2)
    assert "what precedes it was plotted" in stderr
    assert cv2.imread(str(folder / "a.png")) is not None


def test_a_full_disk_leaves_no_file(folder: Path) -> None:
    with file_size_limit(1000):
        code, _, stderr = run(["plot", "poses.jsonl", "-o", "a.png"], folder)
    assert "cannot write a.png: no space left" in the_error(code, stderr, 1)
    assert not (folder / "a.png").exists()
