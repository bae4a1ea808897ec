"""Recorded poses are drawn again: the same pictures as those of the run, and one line for files that do not fit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest

import streampose
from streampose.frames import Image, Result, RunInfo
from streampose.records.lines import read_lines
from tests.cli.helpers import run, run_child, the_error
from tests.clips import make_clip

FRAMES = 12


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory, tiny: list[str]) -> Path:
    """A folder with a clip and the poses that a run found in it."""
    folder = tmp_path_factory.mktemp("recorded")
    make_clip(folder / "clip.mp4", frames=FRAMES, size=(320, 240), audio_s=0.4)
    code, _, stderr = run(["run", "clip.mp4", *tiny, "--to", "poses.jsonl"], folder)
    assert code == 0, stderr
    return folder


def frames_of(path: Path) -> list[Image]:
    with av.open(path) as container:
        return [frame.to_ndarray(format="bgr24") for frame in container.decode(video=0)]


@pytest.mark.parametrize(
    "options",
    [
        [],
        ["--style", "weighted", "--ellipses", "--colour-by", "person"],
        ["--boxes", "--labels", "--keypoint-threshold", "0.05", "--angles", "knee,elbow,trunk_lean"],
        ["--smooth", "off", "--hide", "background"],
        ["--blur", "faces", "--only", "largest"],
    ],
    ids=" ".join,
)
def test_the_same_picture_and_sound_as_the_run(tmp_path: Path, tiny: list[str], options: list[str]) -> None:
    make_clip(tmp_path / "clip.mp4", frames=FRAMES, size=(320, 240), audio_s=0.4)
    targets = ["--to", "run.mp4", "--to", "run/"]
    code, _, stderr = run(["run", "clip.mp4", *tiny, *targets, "--to", "poses.jsonl", *options], tmp_path)
    assert code == 0, stderr
    targets = ["--to", "again.mp4", "--to", "again/"]
    code, _, stderr = run(["draw", "clip.mp4", "poses.jsonl", *targets, *options], tmp_path)
    assert code == 0, stderr
    assert f"{FRAMES} frames" in stderr
    assert (tmp_path / "again.mp4").read_bytes() == (tmp_path / "run.mp4").read_bytes()
    stills = sorted(path.name for path in (tmp_path / "run").iterdir())
    assert len(stills) == FRAMES
    for name in stills:
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "run" / name).read_bytes()
    plain = frames_of(tmp_path / "clip.mp4")
    assert not any(np.array_equal(*pair) for pair in zip(plain, frames_of(tmp_path / "again.mp4"), strict=True))


def test_faces_are_hidden_as_in_a_run_also_from_poses_of_a_run_that_showed_them(
    recorded: Path, tmp_path: Path, tiny: list[str]
) -> None:
    code, _, stderr = run(["run", "clip.mp4", *tiny, "--to", f"{tmp_path}/run.mp4", "--blur", "faces"], recorded)
    assert code == 0, stderr
    code, _, stderr = run(
        ["draw", "clip.mp4", "poses.jsonl", "--to", f"{tmp_path}/again.mp4", "--blur", "faces"], recorded
    )
    assert code == 0, stderr
    assert (tmp_path / "again.mp4").read_bytes() == (tmp_path / "run.mp4").read_bytes()


class Kept(streampose.Sink):
    """Keeps what it is given."""

    def __init__(self) -> None:
        super().__init__("kept")
        self.run: RunInfo | None = None
        self.results: list[Result] = []

    def open(self, run: RunInfo) -> None:
        self.run = run

    def write(self, result: Result) -> None:
        self.results.append(result)

    def close(self) -> None:
        pass


def drawn_again(folder: Path, poses: str = "poses.jsonl", **options: Any) -> list[Result]:
    sink = Kept()
    with streampose.draw(folder / "clip.mp4", folder / poses, to=sink, **options) as drawing:
        results = list(drawing)
    assert [id(result) for result in results] == [id(result) for result in sink.results]
    assert sink.run is not None
    assert sink.run.models == {key: str(value) for key, value in read_lines(folder / poses)[0]["models"].items()}
    return results


def test_from_python(recorded: Path) -> None:
    known = list(streampose.read_poses(recorded / "poses.jsonl"))
    results = drawn_again(recorded)
    assert [result.frame.index for result in results] == list(range(FRAMES))
    for result, frame in zip(results, known, strict=True):
        np.testing.assert_array_equal(result.people.keypoints_xy, frame.people.keypoints_xy)
        assert result.frame.pts_s == frame.pts_s
        assert result.drawn is not None
        assert result.people.smooth_xy is not None
    (first, *_) = drawn_again(recorded, smooth="off")
    assert first.people.smooth_xy is None
    (first, *_) = drawn_again(recorded, smooth="data")
    np.testing.assert_array_equal(first.people.keypoints_xy, known[0].people.smooth_xy)


def test_one_person(recorded: Path) -> None:
    known = list(streampose.read_poses(recorded / "poses.jsonl"))
    someone = max(int(frame.people.track_ids.max()) for frame in known)
    kept = [result.people.track_ids.tolist() for result in drawn_again(recorded, only=someone)]
    assert kept == [[someone] if someone in frame.people.track_ids else [] for frame in known]
    assert [someone] in kept


def test_data_of_one_person_and_of_all_are_written_too(recorded: Path, tmp_path: Path) -> None:
    code, _, stderr = run(["draw", "clip.mp4", "poses.jsonl", "--to", str(tmp_path / "all.jsonl")], recorded)
    assert code == 0, stderr
    assert (tmp_path / "all.jsonl").read_bytes() == (recorded / "poses.jsonl").read_bytes()


def test_no_network_is_loaded(recorded: Path, tmp_path: Path) -> None:
    script = tmp_path / "sitecustomize.py"
    script.write_text("import sys\nsys.modules['torch'] = sys.modules['transformers'] = None\n")
    code, _, stderr = run_child(
        ["draw", "clip.mp4", "poses.jsonl", "--to", str(tmp_path / "out.mp4"), "--style", "weighted", "--labels"],
        recorded,
        PYTHONPATH=f"{tmp_path}:{Path(streampose.__file__).parents[1]}",
    )
    assert code == 0, stderr
    assert len(frames_of(tmp_path / "out.mp4")) == FRAMES


def test_a_hidden_background_is_transparent_in_png_stills(recorded: Path, tmp_path: Path) -> None:
    code, _, stderr = run(
        ["draw", "clip.mp4", "poses.jsonl", "--to", f"{tmp_path}/cut/", "--hide", "background"], recorded
    )
    assert code == 0, stderr
    stills = sorted((tmp_path / "cut").iterdir())
    assert [path.name for path in stills] == [f"{number:06d}.png" for number in range(FRAMES)]
    cut = cv2.imread(str(stills[0]), cv2.IMREAD_UNCHANGED)
    assert cut.shape == (240, 320, 4)
    assert cut[..., 3].min() == 0
    assert cut[..., 3].max() == 255
    black = drawn_again(recorded, hide="background")[0].drawn
    assert np.abs(cut[..., :3] * (cut[..., 3:] / 255) - black).max() <= 2, "on black it is what videos show"


def changed(recorded: Path, tmp_path: Path, change: Any) -> Path:
    """A copy of the poses file with its lines changed by a function of their list."""
    lines = [json.loads(line) for line in (recorded / "poses.jsonl").read_text().splitlines()]
    path = tmp_path / "changed.jsonl"
    path.write_text("".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in change(lines)))
    return path


def renamed(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The lines of two sources in turn."""
    return [lines[0], *(one for line in lines[1:] for one in ({**line, "source": "hall"}, {**line, "source": "door"}))]


@pytest.mark.parametrize(
    ("change", "frames", "code", "says"),
    [
        (lambda lines: [{**line, "width": 640} for line in lines], 0, 2, "frame 0 is 640x240 in the file and 320x240"),
        (lambda lines: lines[:6], 5, 1, "it ends with frame 4, and the rest was not drawn"),
        (lambda lines: lines[:1], 0, 1, "it has no frames"),
        (
            lambda lines: [*lines, {**lines[-1], "frame": FRAMES}],
            FRAMES,
            2,
            f"it has frame {FRAMES}, and the clip only {FRAMES} frames",
        ),
        (lambda lines: [*lines[:6], "{", *lines[7:]], 5, 2, "is damaged at line 7"),
        (lambda lines: [*lines[:6], {"frame": 5}], 5, 2, "is damaged at line 7: not a frame"),
        (lambda lines: [*lines[:6], *lines[1:]], 5, 2, "is damaged at line 7: frame 0 follows frame 4"),
        (renamed, 1, 2, "has several sources (door, hall): name one, as in NAME=clip.mp4"),
    ],
    ids=["size", "shorter", "empty", "longer", "damaged", "no frame", "twice", "several sources"],
)
def test_poses_that_do_not_fit(recorded: Path, tmp_path: Path, change: Any, frames: int, code: int, says: str) -> None:
    poses = changed(recorded, tmp_path, change)
    out = tmp_path / "out.mp4"
    found, _, stderr = run(["draw", "clip.mp4", str(poses), "--to", str(out), "--quiet"], recorded)
    line = the_error(found, stderr, code)
    assert says in line
    assert "changed.jsonl" in line
    assert (len(frames_of(out)) if out.exists() else 0) == frames, "what precedes the error is drawn"


def test_a_half_written_line_ends_the_file(recorded: Path, tmp_path: Path) -> None:
    whole = (recorded / "poses.jsonl").read_bytes()
    (tmp_path / "half.jsonl").write_bytes(whole[: -len(whole.splitlines()[-1]) // 2])
    found, _, stderr = run(
        ["draw", "clip.mp4", str(tmp_path / "half.jsonl"), "--to", f"{tmp_path}/out.mp4", "--quiet"], recorded
    )
    assert f"half.jsonl does not cover clip.mp4: it ends with frame {FRAMES - 2}" in the_error(found, stderr, 1)
    assert len(frames_of(tmp_path / "out.mp4")) == FRAMES - 1


def test_poses_of_a_part_need_the_same_part(recorded: Path, tmp_path: Path) -> None:
    poses = changed(recorded, tmp_path, lambda lines: [lines[0], *lines[1:-1:2]])
    words = ["draw", "clip.mp4", str(poses), "--to", f"{tmp_path}/out.mp4", "--overwrite"]
    found, _, stderr = run(words, recorded)
    assert found == 1
    assert "frames were left out: the poses file does not have them" in stderr
    assert stderr.rstrip().endswith("if the poses are of a part, draw with the same --start, --end and --every")
    found, _, stderr = run([*words, "--every", "2", "--end", str((FRAMES - 1) / 25)], recorded)
    assert found == 0, stderr


def test_a_source_of_several_is_chosen_by_name(recorded: Path, tmp_path: Path) -> None:
    poses = changed(recorded, tmp_path, renamed)
    code, _, stderr = run(["draw", "door=clip.mp4", str(poses), "--to", f"{tmp_path}/out.jsonl"], recorded)
    assert code == 0, stderr
    assert {line["source"] for line in read_lines(tmp_path / "out.jsonl")[1]} == {"door"}
    code, _, stderr = run(["draw", "roof=clip.mp4", str(poses), "--to", "null", "--quiet"], recorded)
    assert "it has no frames of a source named roof, but of door, hall" in the_error(code, stderr, 1)


def test_frames_that_the_run_dropped_are_left_out(recorded: Path, tmp_path: Path) -> None:
    poses = changed(recorded, tmp_path, lambda lines: [line for line in lines if line.get("frame") not in (0, 4, 5)])
    sink = Kept()
    with streampose.draw(recorded / "clip.mp4", poses, to=sink) as drawing:
        assert [result.frame.index for result in drawing] == [1, 2, 3, 6, 7, 8, 9, 10, 11]
    counts = drawing.stats()["sources"]["clip"]
    assert (counts["captured"], counts["delivered"], counts["dropped"]) == (FRAMES, 9, {"unrecorded": 3})


def test_stills_are_recognized_by_their_names(tmp_path: Path, tiny: list[str]) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    for number in range(3):
        image = np.full((120, 160, 3), 60 * number, np.uint8)
        cv2.imwrite(str(tmp_path / "a" / f"{number}.png"), image)
        cv2.imwrite(str(tmp_path / "b" / f"{number + 1}.png"), image)
    code, _, stderr = run(["run", "a/", *tiny, "--to", "run/", "--to", "poses.jsonl", "--blur", "faces"], tmp_path)
    assert code == 0, stderr
    code, _, stderr = run(["draw", "a/", "poses.jsonl", "--to", "again/", "--blur", "faces"], tmp_path)
    assert code == 0, stderr
    for name in ("0.png", "1.png", "2.png"):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "run" / name).read_bytes()
    code, _, stderr = run(["draw", "b/", "poses.jsonl", "--to", "null", "--quiet"], tmp_path)
    assert "poses.jsonl is not of b/: frame 0 is 0.png in the file and 1.png in the clip" in the_error(code, stderr, 2)


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["clip.mp4", "clip.mp4"], 2, "clip.mp4 is not a poses file"),
        (["clip.mp4", "none.jsonl"], 2, "cannot read none.jsonl"),
        (["none.mp4", "poses.jsonl"], 1, "none.mp4 does not exist"),
        (["rtsp://127.0.0.1:9/x", "poses.jsonl"], 2, "is live: name the recording"),
        (["clip.mp4", "poses.jsonl", "--to", "./poses.jsonl", "--overwrite"], 2, "is the poses file itself"),
        (["clip.mp4", "poses.jsonl", "--to", "clip.mp4", "--overwrite"], 2, "is the source itself"),
        (["clip.mp4", "poses.jsonl", "--angles", "wing"], 2, "--angles: unknown angle 'wing': this skeleton has"),
    ],
)
def test_what_cannot_be_drawn_is_one_line(recorded: Path, arguments: list[str], code: int, says: str) -> None:
    if "--to" not in arguments:
        arguments = [*arguments, "--to", "null"]
    before = (recorded / "poses.jsonl").read_bytes()
    found, _, stderr = run(["draw", *arguments], recorded)
    assert says in the_error(found, stderr, code)
    assert (recorded / "poses.jsonl").read_bytes() == before


def test_a_part_is_drawn_from_the_poses_of_the_whole_and_from_its_own(
    recorded: Path, tiny: list[str], tmp_path: Path
) -> None:
    part = ["--start", "0.2s", "--end", "0.8s", "--every", "2"]
    code, _, stderr = run(
        ["run", "clip.mp4", *tiny, *part, "--to", f"{tmp_path}/run/", "--to", f"{tmp_path}/part.jsonl"], recorded
    )
    assert code == 0, stderr
    for poses, name in ((f"{tmp_path}/part.jsonl", "own"), ("poses.jsonl", "whole")):
        code, _, stderr = run(["draw", "clip.mp4", poses, *part, "--to", f"{tmp_path}/{name}/"], recorded)
        assert code == 0, stderr
        stills = sorted(path.name for path in (tmp_path / name).iterdir())
        assert stills == sorted(path.name for path in (tmp_path / "run").iterdir())
        assert len(stills) >= 3
    for path in (tmp_path / "run").iterdir():
        assert path.read_bytes() == (tmp_path / "own" / path.name).read_bytes(), "the same pixels"
