"""Poses files smoothed both ways, and `streampose smooth`."""

from __future__ import annotations

import json
import re
import signal
import tracemalloc
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from streampose.errors import SinkError, SourceError, UsageError
from streampose.networks.pose import COCO_NAMES
from streampose.people.both_ways import AHEAD_S
from streampose.records import smooth as module
from streampose.records.lines import line_of, read_lines
from streampose.records.smooth import smooth_poses
from tests.cli.helpers import child, run, the_error, wait_for_lines
from tests.people.recorded import crossing, smoothness
from tests.people.scene import Body
from tests.sinks.helpers import file_size_limit

Frames = Iterable[dict[str, Any]]
HEADER = {"streampose": "0.1.0", "format": 2, "source": "clip.mp4", "skeleton": {"names": COCO_NAMES, "edges": []}}


def walk(seconds: float, fps: float, *, source: str = "clip", ids: tuple[int | None, ...] = (1,)) -> Iterator[Any]:
    """Yield frames in which everybody walks to the right, and back; found with noise."""
    rng = np.random.default_rng(len(source))
    for index in range(round(seconds * fps)):
        people = []
        for number in ids:
            body = Body(300 + 50 * abs(index / fps % 4 - 2))
            xy = np.round(body.xy + rng.normal(0, 3, (17, 2)), 2).tolist()
            keypoints = [[x, y, 0.8] for x, y in xy]
            people.append({"id": number, "box_xyxy": body.xyxy.tolist(), "box_score": 0.9, "keypoints": keypoints})
        yield {"source": source, "frame": index, "pts_s": index / fps, "width": 640, "height": 480, "people": people}


def write(path: Path, frames: Frames, head: dict[str, Any] = HEADER) -> Path:
    path.write_bytes(b"".join([line_of(head), *map(line_of, frames)]))
    return path


def frames_of(path: Path) -> list[dict[str, Any]]:
    return list(read_lines(path)[1])


def smoothed_xy(frames: Frames) -> Any:
    return np.array([person["smoothed"] for frame in frames for person in frame["people"]])


def without_smoothed(path: Path) -> bytes:
    return re.sub(rb',"smoothed":\[\[.*?\]\]', b"", path.read_bytes())


def crossing_frames() -> Iterator[dict[str, Any]]:
    for index, (pts_s, people) in enumerate(crossing()):
        points = np.concatenate([people.keypoints_xy, people.keypoint_scores[..., None]], axis=-1).astype(float)
        persons = [
            {"id": None if number < 0 else number, "box_xyxy": box, "box_score": 0.5, "keypoints": keypoints}
            for number, box, keypoints in zip(
                people.track_ids.tolist(), people.boxes_xyxy.tolist(), points.round(4).tolist(), strict=True
            )
        ]
        for person in persons[::2]:
            person |= {"smoothed": [[0.0, 0.0]] * 17, "class": "person"}
        yield {"source": "crossing", "frame": index, "pts_s": pts_s, "width": 1280, "height": 720} | {
            "people": persons,
            "new": {"key": [1e-07, "é"]},
        }


def test_the_crossing_clip_is_smoothed_and_all_else_stays(tmp_path: Path) -> None:
    source, target = write(tmp_path / "poses.jsonl", crossing_frames()), tmp_path / "new" / "smooth.jsonl"
    done = smooth_poses(source, target)
    assert without_smoothed(target) == without_smoothed(source)
    assert (done.frames, done.people, done.size_bytes) == (500, 7, target.stat().st_size)
    before, after = frames_of(source), frames_of(target)
    smooth_xy = []
    for old, new in zip(before, after, strict=True):
        for was, person in zip(old["people"], new["people"], strict=True):
            assert person["id"] is not None or person.get("smoothed") == was.get("smoothed")
            assert person["id"] is None or np.shape(person["smoothed"]) == (17, 2)
        smooth_xy.append(np.array([person.get("smoothed", [[0, 0]] * 17) for person in new["people"]]))
    raw = smoothness([frame.people.keypoints_xy for frame in crossing()])
    smooth = smoothness(smooth_xy)
    assert smooth.tremble_px[0] < 0.5 * raw.tremble_px[0]
    assert smooth.moving_error_px[0] < 0.97 * raw.moving_error_px[0]
    # Once more gives the same.
    smooth_poses(target, tmp_path / "again.jsonl")
    assert (tmp_path / "again.jsonl").read_bytes() == target.read_bytes()


def test_several_sources_in_a_file_and_the_size_of_blocks_do_not_matter(tmp_path: Path) -> None:
    door, hall = list(walk(36, 4, source="door")), list(walk(36, 4, source="hallway", ids=(1, 2)))
    mixed = [frame for both in zip(door, hall, strict=True) for frame in both]
    results = {}
    for name, frames, lines_per_look in (
        ("door", door, 10_000),
        ("hallway", hall, 10_000),
        ("mixed", mixed, 10_000),
        ("small", mixed, 20),
        ("follow", door + hall, 20),
    ):
        source = write(tmp_path / f"{name}.jsonl", frames)
        smooth_poses(source, tmp_path / f"{name}.smooth.jsonl", lines_per_look=lines_per_look)
        results[name] = frames_of(tmp_path / f"{name}.smooth.jsonl")
        assert [(line["source"], line["frame"]) for line in results[name]] == [
            (line["source"], line["frame"]) for line in frames
        ]
    for source_id in ("door", "hallway"):
        alone = smoothed_xy(results[source_id])
        for name in ("mixed", "small", "follow"):
            same = smoothed_xy(line for line in results[name] if line["source"] == source_id)
            assert same == pytest.approx(alone, abs=0.0101)
    lines = [module._line(frame) for frame in mixed]
    sizes = [(len(block), len(ahead)) for block, ahead in module._blocks(lines, 20)]
    assert len(sizes) > 1
    assert sum(size for size, _ in sizes) == len(mixed)
    assert all(ahead >= 2 * 4 * AHEAD_S for _, ahead in sizes[:-1])


def test_keypoints_with_large_covariances_count_less(tmp_path: Path) -> None:
    frames = list(walk(3, 10))
    for frame in frames:
        person = frame["people"][0]
        is_wrong = frame["frame"] % 3 == 0
        person["covariances"] = [[400.0 if is_wrong else 4.0, 0.0, 400.0 if is_wrong else 4.0]] * 17
        person["keypoints"] = [[x, y + 30 * is_wrong, score] for x, y, score in person["keypoints"]]
    true_y = Body(300).xy[:, 1]

    def error(frames: Frames) -> float:
        smooth_poses(write(tmp_path / "poses.jsonl", frames), tmp_path / "smooth.jsonl", overwrite=True)
        return float(np.abs(smoothed_xy(frames_of(tmp_path / "smooth.jsonl"))[..., 1] - true_y).mean())

    with_covariances = error(frames)
    for frame in frames:
        del frame["people"][0]["covariances"]
    assert with_covariances < 0.7 * error(frames)


def test_a_longer_file_needs_no_more_memory(tmp_path: Path) -> None:
    def peak_bytes(seconds: float) -> int:
        source = write(tmp_path / f"{seconds}.jsonl", walk(seconds, 2))
        tracemalloc.start()
        try:
            smooth_poses(source, tmp_path / f"{seconds}.smooth.jsonl", lines_per_look=5)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak_bytes(4)
    assert peak_bytes(100) < 1.2 * peak_bytes(30)


def test_a_source_that_ends_does_not_hold_up_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its last frames are never followed by others of their own."""
    lines = [module._line(frame) for frame in [*walk(1, 5, source="door"), *walk(60, 5, source="hallway")]]
    monkeypatch.setattr(module, "MOST_HELD", 200)
    sizes = [(len(block), len(ahead)) for block, ahead in module._blocks(lines, 10)]
    assert max(map(sum, sizes)) <= 101
    assert sum(size for size, _ in sizes) == len(lines)


def test_times_that_are_null_or_step_back_are_survived(tmp_path: Path) -> None:
    frames = [*walk(2, 10), *walk(2, 10)]
    frames[5]["pts_s"] = None
    frames[8]["people"][0]["keypoints"][3] = [None, None, 0.1]
    done = smooth_poses(write(tmp_path / "poses.jsonl", frames), tmp_path / "smooth.jsonl")
    assert done.frames == 40
    after = frames_of(tmp_path / "smooth.jsonl")
    assert [index for index, line in enumerate(after) if "smoothed" not in line["people"][0]] == [5]
    assert after[8]["people"][0]["smoothed"].count([None, None]) == 1
    # Where the time steps back, the filters start again.
    smooth_poses(write(tmp_path / "second.jsonl", walk(2, 10)), tmp_path / "second.smooth.jsonl")
    assert after[20:] == frames_of(tmp_path / "second.smooth.jsonl")


def test_a_file_without_identities_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    source, target = tmp_path / "poses.jsonl", tmp_path / "smooth.jsonl"
    write(source, walk(1, 10, ids=(None,)))
    with pytest.raises(UsageError, match=r"no identities.*run streampose again"):
        smooth_poses(source, target)
    write(source, walk(1, 10, ids=(None,)), HEADER | {"format": 1})
    with pytest.raises(UsageError, match=r"no identities \(it has format 1\)"):
        smooth_poses(source, target)
    assert not target.exists()
    # Nobody at all is an ordinary case.
    assert smooth_poses(write(source, walk(1, 10, ids=())), target).people == 0
    assert target.read_bytes() == source.read_bytes()


def test_of_a_damaged_file_what_is_before_the_damage_is_written(tmp_path: Path) -> None:
    source, target = write(tmp_path / "poses.jsonl", walk(2, 10)), tmp_path / "smooth.jsonl"
    lines = source.read_bytes().splitlines(keepends=True)
    source.write_bytes(b"".join(lines)[:-30])
    assert smooth_poses(source, target).frames == 19

    for damage in (b"{\n", b"7\n", b'{"source": "clip", "pts_s": 0.1}\n', lines[9].replace(b"0.8]", b"0.8,1]", 1)):
        source.write_bytes(b"".join([*lines[:9], damage, *lines[10:]]))
        with pytest.raises(SourceError, match=r"poses.jsonl is damaged at line 10.*; the 8 frames before it are in"):
            smooth_poses(source, target, overwrite=True)
        assert [line["frame"] for line in frames_of(target)] == list(range(8))
        assert smoothed_xy(frames_of(target)).shape == (8, 17, 2)


def test_a_full_disk_leaves_complete_lines(tmp_path: Path) -> None:
    source, target = write(tmp_path / "poses.jsonl", walk(2, 10)), tmp_path / "smooth.jsonl"
    with file_size_limit(8000), pytest.raises(SinkError, match="no space left"):
        smooth_poses(source, target)
    assert target.read_bytes().endswith(b"\n")
    assert 2 <= len(frames_of(target)) < 20


# --- the command -----------------------------------------------------------------------------------------------------


def test_the_command_writes_the_file_and_says_so(tmp_path: Path) -> None:
    write(tmp_path / "poses.jsonl", walk(2, 10, ids=(1, 4)))
    code, stdout, stderr = run(["smooth", "poses.jsonl", "--to", "smooth.jsonl"], tmp_path)
    assert (code, stdout) == (0, "")
    assert re.fullmatch(r"written  smooth\.jsonl: 20 frames, \d+\.\d kB, 2 people smoothed\n", stderr)
    assert len(smoothed_xy(frames_of(tmp_path / "smooth.jsonl"))) == 40


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (
            ["poses.jsonl", "--to", "old.jsonl"],
            2,
            "old.jsonl exists: choose another file, or replace it with --overwri",
        ),
        (["poses.jsonl", "--to", "poses.jsonl", "--overwrite"], 2, "poses.jsonl is the source itself"),
        (["poses.jsonl", "--to", "link.jsonl", "--overwrite"], 2, "link.jsonl is the source itself"),
        (["poses.jsonl", "--to", "folder.jsonl"], 2, "folder.jsonl is a folder"),
        (["poses.jsonl", "--to", "smooth.mp4"], 2, "name a .jsonl file"),
        (["poses.jsonl", "--to", "old.jsonl/a.jsonl"], 2, "old.jsonl is a file"),
        (["poses.jsonl", "--to", "/proc/a.jsonl"], 1, "cannot write /proc/a.jsonl"),
        (["none.jsonl", "--to", "a.jsonl"], 2, "cannot read none.jsonl"),
        (["folder.jsonl", "--to", "a.jsonl"], 2, "cannot read folder.jsonl"),
        (["old.jsonl", "--to", "a.jsonl"], 2, "old.jsonl is not a poses file"),
        (["damaged.jsonl", "--to", "a.jsonl"], 1, "damaged.jsonl is damaged at line 6"),
    ],
)
def test_a_failure_is_one_line(arguments: list[str], code: int, says: str, tmp_path: Path) -> None:
    source = write(tmp_path / "poses.jsonl", walk(1, 10))
    before = source.read_bytes()
    (tmp_path / "old.jsonl").write_text("old\n")
    (tmp_path / "link.jsonl").symlink_to(source)
    (tmp_path / "folder.jsonl").mkdir()
    (tmp_path / "damaged.jsonl").write_bytes(b"\n".join([*before.splitlines()[:5], b"{", b""]))
    found, _, stderr = run(["smooth", *arguments], tmp_path)
    assert says in the_error(found, stderr, code)
    assert source.read_bytes() == before
    assert (tmp_path / "old.jsonl").read_text() == "old\n"


def test_an_existing_file_is_replaced_if_asked(tmp_path: Path) -> None:
    write(tmp_path / "poses.jsonl", walk(1, 10))
    (tmp_path / "old.jsonl").write_text("old\n" * 10_000)
    assert run(["smooth", "poses.jsonl", "--to", "old.jsonl", "--overwrite"], tmp_path)[0] == 0
    assert len(frames_of(tmp_path / "old.jsonl")) == 10


def test_an_interrupt_leaves_complete_lines(tmp_path: Path) -> None:
    lines = [line_of(frame) for frame in walk(40, 2.5)]
    with (tmp_path / "poses.jsonl").open("wb") as file:
        file.write(line_of(HEADER))
        for round_ in range(100):
            file.writelines(line.replace(b'"clip"', b'"%d"' % round_) for line in lines)
    with child(["smooth", "poses.jsonl", "--to", "smooth.jsonl"], tmp_path) as process:
        wait_for_lines(tmp_path / "smooth.jsonl", 10, process)
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    assert "Traceback" not in stderr
    written = (tmp_path / "smooth.jsonl").read_bytes()
    assert written.endswith(b"\n")
    assert 10 < len([json.loads(line) for line in written.splitlines()]) < 10_000
