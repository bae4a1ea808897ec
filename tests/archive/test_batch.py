"""`streampose batch`: folders of good and broken recordings, and starts that go on where another one ended."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from streampose.archive.manifest import peek
from tests.archive.helpers import (
    FRAMES,
    MOST_PIXELS,
    broken_clips,
    check_outputs,
    files,
    good_clips,
    picture,
    report,
    state_of,
)
from tests.cli.helpers import WITHIN_S, child, run, run_child
from tests.clips import make_clip

JSONL = ["--to", "{name}.jsonl"]


def wait_until(true: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    deadline_s = time.monotonic() + WITHIN_S
    while not true():
        assert process.poll() is None, process.stderr and process.stderr.read()
        assert time.monotonic() < deadline_s
        time.sleep(0.02)


def states(out: Path) -> dict[str, str]:
    """The states in the manifest, also while a batch is running."""
    return {name: entry.state.value for name, entry in peek(out)[1].items()}


def test_good_files_are_done_and_broken_ones_are_reported(flags: list[str], tmp_path: Path) -> None:
    clips = good_clips(tmp_path / "in", 7)
    reasons = broken_clips(tmp_path / "in" / "bad")
    command = ["batch", "in", "--out", "out", "--max-pixels", str(MOST_PIXELS), *flags]
    code, stdout, stderr = run(command, tmp_path)
    assert code == 1
    assert stdout == ""
    assert "files    7 done, 12 failed, 0 left" in stderr
    assert "Traceback" not in stderr
    found = files(tmp_path / "out")
    for clip in clips:
        one = found[clip.relative_to(tmp_path / "in").as_posix()]
        assert (one["state"], one["frames"], one["attempts"], one["error"]) == ("done", FRAMES, 1, None)
        assert len(one["outputs"]) == 2
        inside = clip.relative_to(tmp_path / "in").parent
        for suffix in (".mp4", ".jsonl"):
            assert (tmp_path / "out" / inside / f"{clip.stem}{suffix}").is_file(), "the tree is mirrored"
    for name, reason in reasons.items():
        one = found[f"bad/{name}"]
        assert one["state"] == "failed"
        assert reason in one["error"]
        assert f"bad/{name}" in one["error"]
        assert one["error"].replace("`max_pixels`", "--max-pixels") in stderr
        assert bool(one["outputs"]) == (name in ("cut off.mp4", "damaged.mp4")), "intact frames are kept"
        assert bool(one["frames"]) == bool(one["outputs"])
    check_outputs(tmp_path / "out")

    # A second start does nothing.
    before = state_of(tmp_path / "out")
    code, _, stderr = run(command, tmp_path)
    assert code == 1, "files are still failed"
    assert "7 done (7 of them before), 12 failed, 0 left" in stderr
    after = state_of(tmp_path / "out")
    changing = {"batch.sqlite", "batch.lock"}
    assert {name: after[name] for name in after.keys() - changing} == {
        name: before[name] for name in before.keys() - changing
    }

    # Files that are repaired are done by the next start; the others only with --retry-failed.
    shutil.copyfile(clips[0], tmp_path / "in" / "bad" / "empty.mp4")
    code, _, stderr = run(command, tmp_path)
    assert code == 1
    assert "8 done (7 of them before), 11 failed" in stderr
    assert "empty.mp4 has changed since it was processed" in stderr
    code, _, stderr = run([*command, "--retry-failed"], tmp_path)
    assert code == 1
    assert "8 done (8 of them before), 11 failed" in stderr
    found = files(tmp_path / "out")
    assert {found[f"bad/{name}"]["attempts"] for name in reasons} == {2}
    assert found["clip0.mp4"]["attempts"] == 1
    check_outputs(tmp_path / "out")


def test_outputs_are_those_of_a_run(flags: list[str], tmp_path: Path) -> None:
    clips = good_clips(tmp_path / "in", 4, frames=25)
    options = ["--detect-every", "3", "--start", "0.2", "--end", "0.8", "--every", "2"]
    assert run(["batch", "in", "--out", "out", *options, *flags], tmp_path)[0] == 0
    for clip in clips:
        relative = clip.relative_to(tmp_path)
        assert run(["run", str(relative), "--to", "a.mp4", "--to", "a.jsonl", *options, *flags], tmp_path)[0] == 0
        made = tmp_path / "out" / clip.relative_to(tmp_path / "in").parent / clip.stem
        for suffix in (".jsonl", ".mp4"):
            assert made.with_suffix(suffix).read_bytes() == (tmp_path / f"a{suffix}").read_bytes()
        (tmp_path / "a.mp4").unlink()
        (tmp_path / "a.jsonl").unlink()


def test_a_killed_batch_goes_on_and_gives_the_same_outputs(flags: list[str], tmp_path: Path) -> None:
    good_clips(tmp_path / "in", 18, frames=25)
    assert run(["batch", "in", "--out", "whole", *flags], tmp_path)[0] == 0
    out = tmp_path / "out"
    command = ["batch", "in", "--out", "out", *flags]
    for kill in range(2):
        with child(command, tmp_path) as process:
            least = 3 + 6 * kill
            wait_until(lambda: list(states(out).values()).count("done") >= least, process)  # noqa: B023 - at once
            code, _, stderr = run(command, tmp_path)
            assert code == 2
            assert "another program is processing the batch in out" in stderr
            process.send_signal(signal.SIGKILL)
        left = peek(out)[1]
        done = [name for name, entry in left.items() if entry.state == "done"]
        running = [name for name, entry in left.items() if entry.state == "running"]
        assert len(done) >= least
        assert running
        assert len(done) < 18
    done_before = {name: state_of(out)[outputs[0].path] for name in done if (outputs := left[name].outputs)}
    code, _, stderr = run(command, tmp_path)
    assert code == 0
    assert f"18 done ({len(done)} of them before), 0 failed, 0 left" in stderr
    found = files(out)
    for name, state in done_before.items():
        assert state_of(out)[found[name]["outputs"][0]["path"]] == state, "what is done is not done again"
    assert all(found[name]["attempts"] >= 2 and found[name]["crashes"] == 0 for name in running)
    check_outputs(out)
    for made in [*(tmp_path / "whole").rglob("*.jsonl"), *(tmp_path / "whole").rglob("*.mp4")]:
        assert made.read_bytes() == (out / made.relative_to(tmp_path / "whole")).read_bytes()
    names = {path.relative_to(tmp_path / "whole") for path in (tmp_path / "whole").rglob("*")}
    assert {path.relative_to(out) for path in out.rglob("*")} == names, "nothing is left of the killed attempts"


def test_a_long_file_continues_where_the_batch_was_killed(flags: list[str], tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    make_clip(tmp_path / "in" / "long.mp4", frames=700, size=(96, 64), audio_s=28.0)
    assert run(["batch", "in", "--out", "whole", *flags], tmp_path)[0] == 0
    command = ["batch", "in", "--out", "out", *flags]
    with child(command, tmp_path) as process:
        wait_until(lambda: len(list((tmp_path / "out").glob("long.mp4.resume/*.npz"))) >= 2, process)
        process.send_signal(signal.SIGKILL)
    code, _, stderr = run([*command, "--progress", "json"], tmp_path)
    assert code == 0
    told = [source["frames"] for line in stderr.splitlines() for source in json.loads(line)["sources"]]
    assert all(frames >= 250 for frames in told), "it does not begin again"
    whole, out = files(tmp_path / "whole")["long.mp4"], files(tmp_path / "out")["long.mp4"]
    assert {key: out[key] for key in ("frames", "people", "outputs")} == {
        key: whole[key] for key in ("frames", "people", "outputs")
    }
    assert out["attempts"] == 2
    check_outputs(tmp_path / "out")


def test_a_file_that_ends_the_program_each_time_is_given_up(flags: list[str], tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    make_clip(tmp_path / "in" / "a.mp4")
    make_clip(tmp_path / "in" / "crash.mp4", frames=1500)
    command = ["batch", "in", "--out", "out", *JSONL, *flags]

    def attempts() -> int:
        known = peek(tmp_path / "out")[1]
        return known["crash.mp4"].attempts if known and known["a.mp4"].state == "done" else 0

    for kill in range(3):
        with child(command, tmp_path) as process:
            wait_until(lambda: attempts() == kill + 1, process)  # noqa: B023 - at once
            process.send_signal(signal.SIGKILL)
    code, _, stderr = run(command, tmp_path)
    assert code == 1
    assert "crash.mp4: the program ended 3 times while it was processed" in stderr
    assert files(tmp_path / "out")["a.mp4"]["attempts"] == 1


def test_a_file_under_suspicion_is_processed_after_all_others_and_alone(flags: list[str], tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    make_clip(tmp_path / "in" / "a long.mp4", frames=1500)
    command = ["batch", "in", "--out", "out", *JSONL, *flags]
    with child(command, tmp_path) as process:
        wait_until(lambda: states(tmp_path / "out") == {"a long.mp4": "running"}, process)
        process.send_signal(signal.SIGKILL)
    for name in "bcdef":
        make_clip(tmp_path / "in" / f"{name}.mp4")
    with child(command, tmp_path) as process:
        wait_until(lambda: peek(tmp_path / "out")[1]["a long.mp4"].attempts == 2, process)
        assert set(states(tmp_path / "out").values()) == {"running", "done"}
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130


def test_an_interrupted_batch_ends_soon_and_goes_on(flags: list[str], tmp_path: Path) -> None:
    good_clips(tmp_path / "in", 6)
    make_clip(tmp_path / "in" / "a long.mp4", frames=4000)
    out = tmp_path / "out"
    command = ["batch", "in", "--out", "out", *flags]
    with child(command, tmp_path) as process:
        wait_until(lambda: list(states(out).values()).count("done") == 6, process)
        process.send_signal(signal.SIGINT)
        began_s = time.monotonic()
        _, stderr = process.communicate(timeout=30)
    assert process.returncode == 130, stderr
    assert time.monotonic() - began_s < 20
    assert "6 done, 0 failed, 1 left" in stderr
    long = files(out)["a long.mp4"]
    assert (long["state"], long["attempts"], long["crashes"]) == ("waiting", 1, 0)
    make_clip(tmp_path / "in" / "a long.mp4", frames=10)  # so that the test is quick
    code, _, stderr = run(command, tmp_path)
    assert code == 0, stderr
    assert files(out)["a long.mp4"]["frames"] == 10
    check_outputs(out)


def test_other_options_are_refused_by_name(flags: list[str], tmp_path: Path) -> None:
    good_clips(tmp_path / "in", 1)
    command = ["batch", "in", "--out", "out", *flags]
    assert run([*command, *JSONL, "--labels"], tmp_path)[0] == 0
    before = state_of(tmp_path / "out")
    for options, told in (
        ([*JSONL], "with --labels, but this start is without --labels"),
        ([*JSONL, "--labels", "--no-track"], "without --no-track, but this start is with --no-track"),
        ([*JSONL, "--labels", "--every", "2"], "with --every 1, but this start is with --every 2"),
        (["--labels"], "with --to {name}.jsonl, but this start is with --to {name}.mp4 {name}.jsonl"),
    ):
        code, _, stderr = run([*command, *options], tmp_path)
        assert code == 2
        assert f"out holds a batch {told}: use the same options, or another --out" in stderr
    (tmp_path / "other").mkdir()
    shutil.copyfile(tmp_path / "in" / "clip0.mp4", tmp_path / "other" / "clip0.mp4")
    code, _, stderr = run(["batch", "other", "--out", "out", *JSONL, "--labels", *flags], tmp_path)
    assert code == 2
    assert "/in, but the input is" in stderr
    # Options that change no output may differ.
    assert run([*command, *JSONL, "--labels", "--files-at-once", "1", "--pose-batch", "3"], tmp_path)[0] == 0
    assert state_of(tmp_path / "out").keys() == before.keys()


def test_a_dry_run_tells_and_changes_nothing(flags: list[str], tmp_path: Path) -> None:
    good_clips(tmp_path / "in", 2)
    command = ["batch", "in", "--out", "out", *JSONL, *flags]
    code, stdout, _ = run([*command, "--dry-run"], tmp_path)
    assert code == 0
    assert stdout.splitlines() == [
        "process in/clip0.mp4 -> clip0.jsonl",
        "process in/clip1.mkv -> clip1.jsonl",
        "2 to process, 0 done, 0 failed; nothing was changed",
    ]
    assert not (tmp_path / "out").exists()
    (tmp_path / "in" / "bad.mp4").touch()
    assert run(command, tmp_path)[0] == 1
    make_clip(tmp_path / "in" / "clip0.mp4", frames=3)
    make_clip(tmp_path / "in" / "new.mp4", frames=3)
    before = state_of(tmp_path)
    code, stdout, _ = run([*command, "--dry-run"], tmp_path)
    assert code == 0
    assert stdout.splitlines() == [
        "failed  in/bad.mp4: bad.mp4 is empty (0 bytes)",
        "again   in/clip0.mp4 -> clip0.jsonl",
        "done    in/clip1.mkv",
        "process in/new.mp4 -> new.jsonl",
        "2 to process, 1 done, 1 failed; nothing was changed",
    ]
    assert state_of(tmp_path) == before


def test_files_that_are_there_already_are_kept(flags: list[str], tmp_path: Path) -> None:
    good_clips(tmp_path / "in", 2)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "clip0.jsonl").write_text("mine")
    command = ["batch", "in", "--out", "out", *JSONL, *flags]
    code, _, stderr = run(command, tmp_path)
    assert code == 1
    assert "clip0.mp4: out/clip0.jsonl exists: choose another file, or replace it with --overwrite" in stderr
    assert run([*command, "--retry-failed"], tmp_path)[0] == 1
    assert (tmp_path / "out" / "clip0.jsonl").read_text() == "mine"
    assert run([*command, "--retry-failed", "--overwrite"], tmp_path)[0] == 0
    check_outputs(tmp_path / "out")


def test_files_come_change_and_go(flags: list[str], tmp_path: Path) -> None:
    good_clips(tmp_path / "in", 3)
    (tmp_path / "in" / "bad.mp4").touch()
    command = ["batch", "in", "--out", "out", *JSONL, *flags]
    assert run(command, tmp_path)[0] == 1
    (tmp_path / "in" / "bad.mp4").unlink()
    (tmp_path / "in" / "clip1.mkv").unlink()
    make_clip(tmp_path / "in" / "clip0.mp4", frames=3)
    make_clip(tmp_path / "in" / "clip0.mkv", frames=4)
    code, _, stderr = run(command, tmp_path)
    assert code == 0
    assert "clip0.mp4 has changed since it was processed: it is processed again" in stderr
    assert "4 done (2 of them before), 0 failed, 0 left" in stderr
    found = files(tmp_path / "out")
    assert found["clip0.mp4"]["frames"] == 3
    assert [output["path"] for output in found["clip0.mkv"]["outputs"]] == ["clip0.mkv.jsonl"], "names do not collide"
    assert found["clip1.mkv"]["state"] == "done"
    check_outputs(tmp_path / "out")


@pytest.mark.parametrize("kind", ["list", "stdin", "paths", "glob"])
def test_every_way_to_name_the_recordings(flags: list[str], tmp_path: Path, kind: str) -> None:
    good_clips(tmp_path / "in", 4)
    chosen = ["in/clip0.mp4", "in/day 2/clip2.MOV", "in/clip3.mp4"]
    lists = tmp_path / "some.txt"
    lists.write_text("\n".join(["", *chosen, chosen[0], "in/missing.mp4", ""]))
    inputs = {"list": ["some.txt"], "stdin": ["-"], "paths": chosen, "glob": ["in/**/*[023].m*4"]}[kind]
    code, _, stderr = run(
        ["batch", *inputs, "--out", "out", *JSONL, *flags], tmp_path, stdin=lists if kind == "stdin" else os.devnull
    )
    found = files(tmp_path / "out")
    if kind in ("list", "stdin"):
        assert code == 1
        assert "in/missing.mp4 does not exist" in stderr
        assert found.pop("in/missing.mp4")["state"] == "failed"
    else:
        assert code == 0, stderr
    names = ["clip0.mp4", "clip3.mp4"] if kind == "glob" else chosen
    assert sorted(found) == sorted(names)
    for name in names:
        assert (tmp_path / "out" / Path(name).with_suffix(".jsonl")).is_file()


def test_odd_names(flags: list[str], tmp_path: Path) -> None:
    (tmp_path / "in" / "a {b}").mkdir(parents=True)
    clip = make_clip(tmp_path / "clip.mp4", frames=2)
    names = [b"a {b}/{time}.mp4", b"two\nlines.mp4", b"\xff.mp4", b"-.mp4", b"50%.mp4", b"[x].mp4", b"DEMO.MP4"]
    for name in names:
        shutil.copyfile(clip, os.fsencode(tmp_path / "in") + b"/" + name)
    picture(tmp_path / "in" / "picture.mp4")
    code, _, stderr = run(["batch", "in", "--out", "out", *JSONL, *flags], tmp_path)
    assert "7 done, 1 failed, 0 left" in stderr
    assert code == 1
    assert "picture.mp4 is not a supported video format" in stderr
    assert len(stderr.splitlines()) == 5, "no name makes a line of its own"
    found = files(tmp_path / "out")
    assert found["a {b}/{time}.mp4"]["outputs"][0]["path"] == "a (b)/(time).jsonl"
    assert {"\\xff.mp4", "two\nlines.mp4", "DEMO.MP4"} < set(found)
    assert run(["batch", "in", "--out", "out", *JSONL, *flags], tmp_path)[0] == 1


@pytest.mark.logs_errors
def test_a_full_disk_stops_the_batch_in_one_line(flags: list[str], tmp_path: Path) -> None:
    good_clips(tmp_path / "in", 6)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "clip1.jsonl").symlink_to("/dev/full")
    command = ["batch", "in", "--out", "out", *JSONL, "--files-at-once", "1", "--overwrite", *flags]
    code, _, stderr = run(command, tmp_path)
    assert code == 1
    (line,) = [line for line in stderr.splitlines() if line.startswith("streampose: ")]
    assert "no space left" in line
    found = files(tmp_path / "out")
    assert found["clip1.mkv"]["state"] == "waiting"
    assert {one["state"] for one in found.values()} <= {"waiting", "done"}
    (tmp_path / "out" / "clip1.jsonl").unlink()
    assert run(command, tmp_path)[0] == 0


@pytest.mark.logs_errors
def test_a_sink_that_fails_fails_its_file_only(flags: list[str], tmp_path: Path) -> None:
    good_clips(tmp_path / "in", 3)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "day 2").write_text("a file where a folder is needed")
    code, _, stderr = run(["batch", "in", "--out", "out", *flags], tmp_path)
    assert code == 1
    assert "2 done, 1 failed, 0 left" in stderr
    assert "day 2/clip2.MOV: cannot write out/day 2/clip2.mp4" in stderr


def test_every_kind_of_output(flags: list[str], tmp_path: Path) -> None:
    good_clips(tmp_path / "in", 2, frames=3)
    targets = ["{name}.parquet", "{name}.csv", "stills/{name}/", "{name}.openpose", "{name}.coco.json", "{name}.mkv"]
    to = [word for target in targets for word in ("--to", target)]
    command = ["batch", "in", "--out", "out", *to, *flags]
    assert run(command, tmp_path)[0] == 0
    outputs = {output["path"]: output for output in files(tmp_path / "out")["clip1.mkv"]["outputs"]}
    assert list(outputs) == [
        target.replace("{name}", "clip1") + ("/" if "openpose" in target else "") for target in targets
    ]
    assert outputs["stills/clip1/"]["size_bytes"] == sum(
        file.stat().st_size for file in (tmp_path / "out" / "stills" / "clip1").iterdir()
    )
    make_clip(tmp_path / "in" / "clip1.mkv", frames=2)
    assert run(command, tmp_path)[0] == 0, "what the batch has written may be replaced"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["in"], "no output folder given: name one with --out"),
        (["nowhere", "--out", "out"], "nowhere does not exist"),
        (["empty", "--out", "out"], "empty: no video files found"),
        (["in", "--out", "in"], "--out in holds the recordings"),
        (["in/clip0.mp4", "in", "--out", "out"], "in is a folder: give one folder, or several recordings"),
        (["in/clip0.jpg", "--out", "out"], "in/clip0.jpg is neither a video file nor a list of video files"),
        (["in", "--out", "out", "--to", "window"], "window: the outputs of a batch are files"),
        (["in", "--out", "out", "--to", "a.mp4"], "write {name} in it"),
        (["in", "--out", "out", "--to", "{source}.mp4"], "write {name} in it"),
        (["in", "--out", "out", "--to", "../{name}.mp4"], "are in its --out folder"),
        (["in", "--out", "out", "--to", "{name}.doc"], "unknown output"),
        (["in", "--out", "out", "--to", "{name}.mp4", "--to", "./{name}.mp4"], "{name}.mp4 is given twice"),
        (["in", "--out", "out", "--detect-every", "auto"], "--detect-every auto depends on the speed"),
        (["in", "--out", "out", "--start", "5", "--end", "3"], "--end (3 s) must be after --start"),
        (["in", "--out", "out", "--only", "2", "--no-track"], "--only names identity 2, but --no-track is off"),
    ],
)
def test_wrong_usage_is_told_in_one_line(tmp_path: Path, arguments: list[str], told: str) -> None:
    good_clips(tmp_path / "in", 1)
    picture(tmp_path / "in" / "clip0.jpg")
    (tmp_path / "empty").mkdir()
    before = state_of(tmp_path)
    code, _, stderr = run(["batch", *arguments], tmp_path)
    assert code in (1, 2)
    (line,) = stderr.splitlines()
    assert told in line
    assert state_of(tmp_path) == before


def test_networks_that_cannot_be_loaded_leave_the_files_waiting(tmp_path: Path) -> None:
    good_clips(tmp_path / "in", 2)
    code, _, stderr = run_child(["batch", "in", "--out", "out", "--pose", "nobody/nothing"], tmp_path)
    assert code == 1
    assert len([line for line in stderr.splitlines() if line.startswith("streampose: ")]) == 1
    assert states(tmp_path / "out") == {"clip0.mp4": "waiting", "clip1.mkv": "waiting"}


def test_memory_and_threads_do_not_grow_with_the_files(flags: list[str], tmp_path: Path) -> None:
    """Hundreds of files: what is held after two thirds of them is what is held after one."""
    import psutil

    clip = make_clip(tmp_path / "clip.mp4", frames=3)
    (tmp_path / "in").mkdir()
    for number in range(300):
        shutil.copyfile(clip, tmp_path / "in" / f"{number}.mp4")
    held: dict[int, tuple[int, int, int]] = {}
    with child(["batch", "in", "--out", "out", *flags], tmp_path) as process:
        watched = psutil.Process(process.pid)
        while process.poll() is None:
            try:
                done = list(states(tmp_path / "out").values()).count("done") // 100
                held.setdefault(done, (watched.memory_info().rss, watched.num_threads(), watched.num_fds()))
            except psutil.Error:
                break
            time.sleep(0.05)
        assert process.wait() == 0
    assert report(tmp_path / "out")["summary"]["done"] == 300
    (first, threads, fds), (second, threads_later, fds_later) = held[1], held[2]
    assert second - first < 30e6
    assert threads_later < threads + 15
    assert fds_later < fds + 15
