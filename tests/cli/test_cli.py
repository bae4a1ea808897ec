"""The program as a person runs it: a child process, its exit code, its one line, and what it leaves on disk."""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryFile

import av
import cv2
import numpy as np
import pytest

from streampose.cli.main import main
from streampose.cli.terminal import CLEAR
from streampose.sinks.poses import read_poses
from tests import tiny as networks
from tests.clips import make_clip

pytestmark = pytest.mark.logs_errors
PROJECT = Path(__file__).resolve().parents[2]
WITHIN_S = 120.0
"""More than any of these needs on a slow machine."""


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Flags that name networks with random weights, quick to load and to run."""
    folder = tmp_path_factory.mktemp("networks")
    detector = networks.save_dense_detector(folder / "detector")
    pose = networks.save_pose(folder / "pose")
    return ["--detector", str(detector), "--pose", str(pose), "--box-threshold", "0", "--max-people", "3"]


def child(arguments: Sequence[str], cwd: Path, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "streampose", *arguments],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(PROJECT), "HF_HUB_OFFLINE": "1", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(arguments: Sequence[str], cwd: Path) -> tuple[int, str, str]:
    """Run the program in this process, which has loaded the libraries; return its exit code and what it wrote."""
    logger = logging.getLogger("streampose")
    handlers, level, streams = logger.handlers, logger.level, (sys.stdout, sys.stderr)
    kept = [os.dup(1), os.dup(2)]
    with TemporaryFile("w+") as stdout, TemporaryFile("w+") as stderr:
        try:
            os.dup2(stdout.fileno(), 1)
            os.dup2(stderr.fileno(), 2)
            sys.stdout, sys.stderr = os.fdopen(os.dup(1), "w"), os.fdopen(os.dup(2), "w", buffering=1)
            with contextlib.chdir(cwd):
                try:
                    code = main(list(arguments))
                except SystemExit as error:
                    code = int(error.code or 0)
            sys.stdout.close()
            sys.stderr.close()
        finally:
            sys.stdout, sys.stderr = streams
            logger.handlers, logger.level = handlers, level
            for number, descriptor in enumerate(kept, 1):
                os.dup2(descriptor, number)
                os.close(descriptor)
        stdout.seek(0)
        stderr.seek(0)
        return code, stdout.read(), stderr.read()


def run_child(arguments: Sequence[str], cwd: Path, **environment: str) -> tuple[int, str, str]:
    """Run the program in a process of its own, where that or the environment is what is tested."""
    with child(arguments, cwd, **environment) as process:
        try:
            stdout, stderr = process.communicate(timeout=WITHIN_S)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
    return process.returncode, stdout, stderr


def the_error(code: int, stderr: str, expected: int) -> str:
    """The one line that a failed run says."""
    assert code == expected, stderr
    assert "Traceback" not in stderr
    lines = [line for line in stderr.splitlines() if line.startswith("streampose: ")]
    assert len(lines) == 1, stderr
    return lines[0]


def test_several_sinks_at_once_get_every_frame(tmp_path: Path, tiny: list[str]) -> None:
    make_clip(tmp_path / "clip.mp4", frames=30)
    sinks = ["out/drawn.mp4", "out/drawn.mkv", "out/poses.jsonl", "pictures/"]
    code, stdout, stderr = run(
        ["run", "clip.mp4", *tiny, *(word for sink in sinks for word in ("--to", sink)), "--boxes", "--labels"],
        tmp_path,
    )
    assert code == 0, stderr
    assert stdout == ""
    for video in sinks[:2]:
        with av.open(tmp_path / video) as container:
            assert sum(1 for _ in container.decode(video=0)) == 30
    head, lines = read_poses(tmp_path / "out/poses.jsonl")
    assert head["source"] == "clip.mp4"
    assert [line["frame"] for line in lines] == list(range(30))
    assert len(list((tmp_path / "pictures").iterdir())) == 30
    for sink in sinks:
        assert sink.rstrip("/") in stderr


def test_keypoints_on_standard_output_and_nothing_else(tmp_path: Path, tiny: list[str]) -> None:
    make_clip(tmp_path / "clip.mp4", frames=5)
    code, stdout, stderr = run(["run", "clip.mp4", *tiny, "--to", "-"], tmp_path)
    assert code == 0, stderr
    lines = [json.loads(line) for line in stdout.splitlines()]
    assert [line.get("frame") for line in lines] == [None, 0, 1, 2, 3, 4]
    people = lines[1]["people"]
    assert 1 <= len(people) <= 3
    assert np.array(people[0]["keypoints"]).shape == (17, 3)


def test_a_reader_that_goes_away_is_an_end(tmp_path: Path, tiny: list[str]) -> None:
    make_clip(tmp_path / "clip.mp4", frames=400)
    with child(["run", "clip.mp4", *tiny, "--to", "-"], tmp_path) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.wait(WITHIN_S) == 0
        assert "Traceback" not in process.stderr.read()


def test_a_reader_that_goes_away_leaves_the_other_sinks_alone(tmp_path: Path, tiny: list[str]) -> None:
    make_clip(tmp_path / "clip.mp4", frames=60)
    with child(["run", "clip.mp4", *tiny, "--to", "-", "--to", "out.jsonl", "--quiet"], tmp_path) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.wait(WITHIN_S) == 0
    assert len(list(read_poses(tmp_path / "out.jsonl")[1])) == 60


def test_that_nobody_reads_standard_error_does_not_matter(tmp_path: Path, tiny: list[str]) -> None:
    make_clip(tmp_path / "clip.mp4", frames=60)
    full = os.open("/dev/full", os.O_WRONLY)
    for how in ("full", "closed"):
        process = subprocess.Popen(
            [sys.executable, "-m", "streampose", "run", "clip.mp4", *tiny, "--to", f"{how}.jsonl"],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(PROJECT)},
            stderr=subprocess.PIPE if how == "closed" else full,
        )
        if process.stderr is not None:
            process.stderr.close()
        assert process.wait(WITHIN_S) == 0
        assert len(list(read_poses(tmp_path / f"{how}.jsonl")[1])) == 60
    os.close(full)


def test_an_interrupt_counts_although_nobody_reads_standard_error(tmp_path: Path, tiny: list[str]) -> None:
    make_clip(tmp_path / "clip.mp4", frames=4000)
    with child(["run", "clip.mp4", *tiny, "--to", "out.jsonl"], tmp_path) as process:
        wait_for_lines(tmp_path / "out.jsonl", 20, process)
        assert process.stderr is not None
        process.stderr.close()
        process.send_signal(signal.SIGINT)
        assert process.wait(WITHIN_S) == 130


def test_one_failing_sink_is_one_line(tmp_path: Path, tiny: list[str]) -> None:
    make_clip(tmp_path / "clip.mp4", frames=20)
    (tmp_path / "full").symlink_to("/dev/full")
    code, _, stderr = run(["run", "clip.mp4", *tiny, "--to", "full", "--to", "out.jsonl", "--overwrite"], tmp_path)
    assert code == 2, "a sink is known by its ending"
    (tmp_path / "full.jsonl").symlink_to("/dev/full")
    code, _, stderr = run(
        ["run", "clip.mp4", *tiny, "--to", "full.jsonl", "--to", "out.jsonl", "--overwrite"], tmp_path
    )
    assert "no space left" in the_error(code, stderr, 1)
    assert len(list(read_poses(tmp_path / "out.jsonl")[1])) == 20


def test_a_picture_and_a_folder_of_pictures_keep_their_names(tmp_path: Path, tiny: list[str]) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for name, size in (("a.jpg", (64, 48)), ("b.png", (90, 120))):
        cv2.imwrite(str(folder / name), np.full((*size, 3), 90, np.uint8))
    code, _, stderr = run(["run", "photos", *tiny, "--to", "drawn/", "--to", "photos.jsonl"], tmp_path)
    assert code == 0, stderr
    assert sorted(path.name for path in (tmp_path / "drawn").iterdir()) == ["a.jpg", "b.png"]
    _, lines = read_poses(tmp_path / "photos.jsonl")
    assert [(line["file"], line["height"]) for line in lines] == [("a.jpg", 64), ("b.png", 90)]
    code, _, stderr = run(["run", "photos/a.jpg", *tiny, "--to", "one.png", "--style", "weighted"], tmp_path)
    assert code == 0, stderr
    assert cv2.imread(str(tmp_path / "one.png")).shape == (64, 48, 3)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["run", "demo", "--to", "out.xyz"], "out.xyz"),
        (["run", "demo", "--to", "a.mp4", "--to", "{cwd}/a.mp4", "--overwrite"], "a.mp4"),
        (["run", "--to", "null"], "SOURCE"),
        (["run", "demo", "--config", "x.toml"], "--config"),
        (["run", "--config", "missing.toml"], "missing.toml"),
        (["run", "demo", "demo", "--to", "null"], "NAME=SOURCE"),
        (["run", "a=demo", "b=demo", "--to", "x.jsonl"], "{source}"),
        (["run", "demo", "--to", "null", "--device", "tpu"], "cpu"),
        (["run", "demo", "--to", "null", "--dtype", "float8"], "float32"),
        (["run", "demo", "--to", "null", "--classes", "unicorn"], "person"),
        (["run", "demo", "--to", "null", "--dataset-index", "3"], "3"),
        (["run", "srtp://user:secret@camera/1", "--to", "null"], "srtp://***@camera/1"),
    ],
)
def test_wrong_values_name_the_right_ones(tmp_path: Path, arguments: list[str], says: str) -> None:
    code, stdout, stderr = run([word.replace("{cwd}", str(tmp_path)) for word in arguments], tmp_path)
    assert says in the_error(code, stderr, 2)
    assert stdout == ""
    assert "secret" not in stderr


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["run", "demo", "--to", "null", "--box-threshold", "2"], "0 to 1"),
        (["run", "demo", "--to", "null", "--pose-batch", "0"], "from 1 up"),
        (["run", "demo", "--style", "fancy"], "weighted"),
        (["run", "demo", "--stall-timeout", "-1"], "above 0"),
        (["walk"], "run"),
        ([], "COMMAND"),
    ],
)
def test_wrong_flags_are_wrong_usage(arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert says in capsys.readouterr().err


def empty(path: Path) -> None:
    path.touch()


def text(path: Path) -> None:
    path.write_text("this is no video\n" * 100)


def cut_off(path: Path) -> None:
    whole = make_clip(path, frames=200).read_bytes()
    path.write_bytes(whole[: len(whole) // 2])  # an MP4's index comes last


@pytest.mark.parametrize("damage", [empty, text, cut_off])
def test_files_that_are_no_video(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    damage(tmp_path / "bad.mp4")
    code, _, stderr = run(["run", "bad.mp4", "--to", "out.mp4", "--to", "out.jsonl"], tmp_path)
    assert "bad.mp4" in the_error(code, stderr, 1)
    assert [path.name for path in tmp_path.iterdir()] == ["bad.mp4"], "nothing was begun"


def test_a_damaged_file_gives_every_good_frame_and_then_the_error(tmp_path: Path, tiny: list[str]) -> None:
    clip = make_clip(tmp_path / "clip.mkv", frames=100)
    whole = clip.read_bytes()
    (tmp_path / "cut.mkv").write_bytes(whole[: len(whole) // 2])
    code, _, stderr = run(["run", "cut.mkv", *tiny, "--to", "out.mkv", "--to", "out.jsonl"], tmp_path)
    assert "cut.mkv" in the_error(code, stderr, 1)
    _, lines = read_poses(tmp_path / "out.jsonl")
    count = len(list(lines))
    assert 30 <= count < 70
    with av.open(tmp_path / "out.mkv") as container:
        assert sum(1 for _ in container.decode(video=0)) == count


def test_passwords_are_told_by_no_error_and_no_traceback(tmp_path: Path) -> None:
    for arguments in (
        ["run", "rtsp://me:SEC ret@s@127.0.0.1:9/1", "--to", "null", "--debug"],
        ["run", "--to", "null", "--quiet", "rtsp://me:SEC ret@s@127.0.0.1:9/1", "--style", "rtmp://me:SEC r@h/1"],
        ["run", "--to", "null", "cam 1=rtsp://me:SEC ret@s@127.0.0.1:9/1"],
        ["run", "--to", "null", "x/cam=rtsp://me:SEC ret@s@127.0.0.1:9/1"],
        ["run", "--to", "rtmp://me:SEC ret@s@127.0.0.1/{what}", "demo"],
        ["run", "demo", "--to", "null", "--pose", "http://me:SEC ret@s@127.0.0.1/model?token=SEC"],
        ["run", "--config", "cameras.toml"],
    ):
        (tmp_path / "cameras.toml").write_text("[sources.a]\nsource = ['rtsp://me:SEC ret@s@h', \"rtsp://me:SEC'r@h\"]")
        code, stdout, stderr = run(arguments, tmp_path)
        assert code in (1, 2), arguments
        assert len(stderr) > 50
        assert "SEC" not in stdout + stderr, arguments
        assert "ret@s" not in stderr, arguments


def test_counts_that_cannot_be_written(tmp_path: Path, tiny: list[str]) -> None:
    make_clip(tmp_path / "clip.mp4", frames=5)
    for file, says in (
        ("nowhere/stats.json", "nowhere"),
        ("folder", "folder"),
        ("clip.mp4", "the source itself"),
        ("./out.jsonl", "a sink writes there"),
    ):
        (tmp_path / "folder").mkdir(exist_ok=True)
        code, _, stderr = run(["run", "clip.mp4", *tiny, "--to", "out.jsonl", "--stats", file], tmp_path)
        assert says in the_error(code, stderr, 2)
        assert not (tmp_path / "out.jsonl").exists(), "nothing was begun"
    code, _, stderr = run(["run", "clip.mp4", *tiny, "--to", "null", "--stats", "/dev/full"], tmp_path)
    assert "cannot write /dev/full" in the_error(code, stderr, 1)
    code, _, stderr = run(["run", "rtsp://127.0.0.1:9/1", *tiny, "--to", "null", "--stats", "/dev/full"], tmp_path)
    assert code == 1
    first, last = (line for line in stderr.splitlines() if line.startswith("streampose: "))
    assert "cannot write /dev/full" in first
    assert "refused" in last


def on_a_terminal(arguments: Sequence[str], cwd: Path, until: Callable[[str], bool]) -> str:
    """What a run writes to a terminal of 60 columns, which is interrupted when `until` is true of it."""
    ours, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 60, 0, 0))
    process = subprocess.Popen(
        [sys.executable, "-m", "streampose", *arguments],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=its,
    )
    os.close(its)
    written = b""
    deadline_s = time.monotonic() + WITHIN_S
    try:
        while time.monotonic() < deadline_s:
            try:
                written += os.read(ours, 65536)
            except OSError:  # how a terminal tells that nobody writes to it any more
                break
            if until is not None and until(written.decode(errors="replace")):
                process.send_signal(signal.SIGINT)
                until = None
        assert process.wait(10) == 130
    finally:
        process.kill()
        process.wait()
        os.close(ours)
    return written.decode()


def test_the_status_is_drawn_while_every_source_is_away(tmp_path: Path, tiny: list[str]) -> None:
    sources = [f"{name}=rtsp://127.0.0.1:9/{name}" for name in ("left", "right")]
    shown = on_a_terminal(
        ["run", *sources, *tiny, "--to", "null"], tmp_path, lambda text: text.count("right opening: refused") > 5
    )
    words = re.sub(r"\x1b\[[0-9]*[A-Z]", "", shown).replace("\r", "\n")
    status = [line for line in words.splitlines() if " opening: " in line]
    assert "left opening: refused: no server listens" in shown
    assert max(map(len, status)) < 60, "a line that is wrapped would stay"
    assert shown.count(f"{CLEAR}streampose: left is unavailable") == 1, "the log does not run into the status"
    assert "Traceback" not in shown


def test_a_status_line_is_written_while_the_source_is_away(tmp_path: Path, tiny: list[str]) -> None:
    with child(["run", "rtsp://127.0.0.1:9/1", *tiny, "--to", "null", "--give-up-after", "11"], tmp_path) as process:
        _, stderr = process.communicate(timeout=WITHIN_S)
    assert process.returncode == 1
    assert stderr.count("127.0.0.1_9_1 is unavailable: refused") == 1
    assert stderr.count("127.0.0.1_9_1 opening: refused") == 1


def test_a_camera_that_is_not_there_is_one_line(tmp_path: Path, tiny: list[str]) -> None:
    code, _, stderr = run(["run", "rtsp://user:secret@127.0.0.1:9/1", *tiny, "--to", "null"], tmp_path)
    line = the_error(code, stderr, 1)
    assert "rtsp://***@127.0.0.1:9/1" in line
    assert "refused" in line
    assert "secret" not in stderr
    code, _, stderr = run(["run", "/dev/video87", *tiny, "--to", "null"], tmp_path)
    assert "/dev/video87" in the_error(code, stderr, 1)


def test_a_container_on_standard_input_and_the_counts_of_the_run(tmp_path: Path, tiny: list[str]) -> None:
    clip = make_clip(tmp_path / "clip.mkv", frames=50)
    with clip.open("rb") as stdin:
        ran = subprocess.run(
            [
                sys.executable,
                "-m",
                "streampose",
                "run",
                "cam=-",
                *tiny,
                "--to",
                "{source}.jsonl",
                "--stats",
                "stats.json",
            ],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(PROJECT)},
            stdin=stdin,
            capture_output=True,
            text=True,
            timeout=WITHIN_S,
        )
    assert ran.returncode == 0, ran.stderr
    assert len(list(read_poses(tmp_path / "cam.jsonl")[1])) == 50
    stats = json.loads((tmp_path / "stats.json").read_text())
    counts = stats["sources"]["cam"]
    assert counts["captured"] == counts["delivered"] + sum(counts["dropped"].values()) == 50
    assert counts["latency_ms"]["p50"] > 0
    assert stats["sinks"]["cam.jsonl"]["written"] == 50


def test_several_recordings_named_on_the_command_line_and_in_a_file(tmp_path: Path, tiny: list[str]) -> None:
    for name, frames in (("a", 10), ("b", 25)):
        make_clip(tmp_path / f"{name}.mp4", frames=frames)
    code, _, stderr = run(["run", "left=a.mp4", "right=b.mp4", *tiny, "--to", "{source}.jsonl"], tmp_path)
    assert code == 0, stderr
    for name, frames in (("left", 10), ("right", 25)):
        lines = list(read_poses(tmp_path / f"{name}.jsonl")[1])
        assert [(line["source"], line["frame"]) for line in lines] == [(name, index) for index in range(frames)]
    (tmp_path / "two.toml").write_text(
        'to = ["null"]\n[sources.one]\nsource = "a.mp4"\nto = ["{source}.jsonl"]\n[sources.two]\nsource = "b.mp4"\n'
    )
    code, _, stderr = run(["run", "--config", "two.toml", *tiny, "--to", "{source}-all.jsonl"], tmp_path)
    assert code == 0, stderr
    assert len(list(read_poses(tmp_path / "one.jsonl")[1])) == 10, "a source's own sinks stay"
    assert len(list(read_poses(tmp_path / "two-all.jsonl")[1])) == 25, "a flag wins over the file"


def test_a_step_that_does_not_come_back_is_one_line(tmp_path: Path) -> None:
    code, _, stderr = run_child(["run", "demo", "--to", "null", "--stall-timeout", "0.0001", "--quiet"], tmp_path)
    assert "aborted" in the_error(code, stderr, 1)


def test_missing_things_are_named(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for source, says in (("nowhere.mp4", "nowhere.mp4"), ("empty", "stills"), ("*.jpg", "stills")):
        code, _, stderr = run(["run", source, "--to", "null"], tmp_path)
        assert says in the_error(code, stderr, 1)


def test_an_existing_file_is_refused_and_untouched(tmp_path: Path, tiny: list[str]) -> None:
    make_clip(tmp_path / "clip.mp4", frames=5)
    (tmp_path / "out.jsonl").write_text("precious")
    code, _, stderr = run(["run", "clip.mp4", *tiny, "--to", "out.jsonl"], tmp_path)
    assert "--overwrite" in the_error(code, stderr, 2)
    assert (tmp_path / "out.jsonl").read_text() == "precious"
    code, _, stderr = run(["run", "clip.mp4", *tiny, "--to", "out.jsonl", "--overwrite"], tmp_path)
    assert code == 0, stderr
    assert len(list(read_poses(tmp_path / "out.jsonl")[1])) == 5


def test_the_source_is_never_overwritten(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "clip.mp4", frames=5)
    before = clip.read_bytes()
    code, _, stderr = run(["run", "clip.mp4", "--to", "./clip.mp4", "--overwrite"], tmp_path)
    assert "source" in the_error(code, stderr, 2)
    assert clip.read_bytes() == before


def test_an_unknown_network_is_one_line(tmp_path: Path) -> None:
    for flag in ("--pose", "--detector"):
        code, _, stderr = run_child(["run", "demo", "--to", "null", flag, "nobody/nothing"], tmp_path)
        line = the_error(code, stderr, 1)
        assert "nobody/nothing" in line
        assert "hf download" in line


def test_without_a_display_the_window_is_one_line(tmp_path: Path) -> None:
    code, _, stderr = run_child(["run", "demo"], tmp_path, DISPLAY="", WAYLAND_DISPLAY="")
    assert code in (1, 2)
    assert "--to" in the_error(code, stderr, code)


def wait_for_lines(path: Path, count: int, process: subprocess.Popen[str]) -> None:
    deadline_s = time.monotonic() + WITHIN_S
    while not path.exists() or path.read_bytes().count(b"\n") <= count:
        assert process.poll() is None, process.stderr and process.stderr.read()
        assert time.monotonic() < deadline_s
        time.sleep(0.05)


LONG = ["--to", "out.mp4", "--to", "out.jsonl"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_finishes_cleanly(tmp_path: Path, tiny: list[str], number: signal.Signals) -> None:
    make_clip(tmp_path / "clip.mp4", frames=4000)
    with child(["run", "clip.mp4", *tiny, *LONG], tmp_path) as process:
        wait_for_lines(tmp_path / "out.jsonl", 20, process)
        process.send_signal(number)
        _, stderr = process.communicate(timeout=WITHIN_S)
    assert process.returncode == 130, stderr
    assert "Traceback" not in stderr
    _, lines = read_poses(tmp_path / "out.jsonl")
    indices = [line["frame"] for line in lines]
    assert indices == list(range(len(indices)))
    assert 20 <= len(indices) < 4000
    with av.open(tmp_path / "out.mp4") as container:
        assert sum(1 for _ in container.decode(video=0)) == len(indices), "every sink has the same frames"


def test_a_second_interrupt_forces_the_end(tmp_path: Path, tiny: list[str]) -> None:
    make_clip(tmp_path / "clip.mp4", frames=4000)
    with child(["run", "clip.mp4", *tiny, *LONG], tmp_path) as process:
        wait_for_lines(tmp_path / "out.jsonl", 20, process)
        process.send_signal(signal.SIGSTOP)  # so that both arrive before it can finish
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGCONT)
        _, stderr = process.communicate(timeout=WITHIN_S)
    assert process.returncode == 130, stderr
    assert "Traceback" not in stderr
    for line in (tmp_path / "out.jsonl").read_bytes().splitlines():
        json.loads(line)


def test_an_interrupt_while_loading_is_quiet(tmp_path: Path) -> None:
    with child(["run", "demo", "--to", "null"], tmp_path) as process:
        deadline_s = time.monotonic() + WITHIN_S
        while "libtorch" not in Path(f"/proc/{process.pid}/maps").read_text():
            assert time.monotonic() < deadline_s
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=WITHIN_S)
    assert process.returncode == 130, stderr
    assert "Traceback" not in stderr


def test_an_interrupt_that_a_library_swallows_while_loading_counts(tmp_path: Path, tiny: list[str]) -> None:
    program = (
        "import signal, sys\n"
        "import streampose.cli.main as program\n"
        "stream = program.run.stream\n"
        "def loading(*arguments, **options):\n"
        "    try:\n"
        "        signal.raise_signal(signal.SIGINT)\n"
        "    except KeyboardInterrupt:\n"
        "        pass\n"
        "    return stream(*arguments, **options)\n"
        "program.run.stream = loading\n"
        "sys.exit(program.main(['run', 'demo', '--to', 'out.jsonl', *sys.argv[1:]]))\n"
    )
    process = subprocess.run(
        [sys.executable, "-c", program, *tiny],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
        timeout=120,
    )
    assert process.returncode == 130
    assert not (tmp_path / "out.jsonl").exists()


def test_killed_in_the_middle_leaves_readable_files(tmp_path: Path, tiny: list[str]) -> None:
    make_clip(tmp_path / "clip.mp4", frames=4000)
    with child(["run", "clip.mp4", *tiny, *LONG, "--to", "out.mkv"], tmp_path) as process:
        wait_for_lines(tmp_path / "out.jsonl", 300, process)
        process.kill()
        process.wait(WITHIN_S)
    lines = (tmp_path / "out.jsonl").read_bytes()
    assert lines.endswith(b"\n")
    count = sum(1 for line in lines.splitlines() if json.loads(line)) - 1
    for video in ("out.mp4", "out.mkv"):
        shown = 0
        with av.open(tmp_path / video) as container:
            try:
                for _ in container.decode(video=0):
                    shown += 1
            except av.FFmpegError:
                pass  # the last picture may be half there
        assert shown >= 0.5 * count, f"{video}: {shown} of {count}"


def test_an_unwritable_target_is_one_line(tmp_path: Path, tiny: list[str]) -> None:
    make_clip(tmp_path / "clip.mp4", frames=5)
    (tmp_path / "file").touch()
    code, _, stderr = run(["run", "clip.mp4", *tiny, "--to", "file/out.mp4"], tmp_path)
    assert "file" in the_error(code, stderr, 2)
    code, _, stderr = run(["run", "clip.mp4", *tiny, "--to", "/proc/out.mp4"], tmp_path)
    assert "/proc/out.mp4" in the_error(code, stderr, 1)


def test_models_lists_the_known_networks(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["models"]) == 0
    printed = capfd.readouterr().out
    for name in ("vitpose-small-streampose", "usyd-community/vitpose-plus-huge", "PekingU/rtdetr_r50vd_coco_o365"):
        assert name in printed


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    code, _, stderr = run_child(["run", "nowhere.mp4", "--to", "null", "--debug"], tmp_path)
    assert code == 1
    assert "Traceback" in stderr


def test_a_missing_system_library_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "cv2").mkdir()
    (tmp_path / "cv2" / "__init__.py").write_text(
        "raise ImportError('libGL.so.1: cannot open shared object file: No such file or directory')"
    )
    done = subprocess.run(
        [sys.executable, "-m", "streampose", "run", "demo", "--to", "null"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{PROJECT}"},
        timeout=120,
        check=False,
    )
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert "libGL.so.1" in done.stderr
    assert "opencv-python-headless" in done.stderr


def test_a_server_without_the_libraries_of_windows(tmp_path: Path) -> None:
    # In a mount namespace of its own, in which the library is hidden.
    maps = subprocess.run(
        [sys.executable, "-c", "import cv2; print(open('/proc/self/maps').read())"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    libraries = set(re.findall(r"/\S*/libGL\.so\S*", maps))
    probe = subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False)
    if not libraries or probe.returncode != 0:
        pytest.skip("OpenCV is without windows here, or no mount namespace can be made")
    hide = " && ".join(f"mount --bind /dev/null {library}" for library in libraries)
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", f'{hide} && exec "$0" -m streampose run demo --to null', sys.executable],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
        cwd=tmp_path,
        timeout=120,
        check=False,
    )
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert "libGL.so" in done.stderr
    assert "opencv-python-headless" in done.stderr


def test_sigterm_ends_the_program_while_the_networks_load() -> None:
    # In a process that ignores SIGTERM by itself, as the first one of a container does.
    program = (
        "import signal, sys, threading, os\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "import streampose.api\n"
        "import streampose.cli.main as program\n"
        "def loading(*_, **__):\n"
        "    print('loading', flush=True)\n"
        "    threading.Event().wait(60)\n"
        "program.run.stream = loading\n"
        "sys.exit(program.main(['run', 'demo', '--to', 'null']))\n"
    )
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, cwd=PROJECT)
    assert process.stdout is not None
    with process:
        assert process.stdout.readline() == "loading\n"
        process.terminate()
        assert process.wait(20) == 130


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["demo", "--fps", "abc"], "frames per second"),
        (["demo", "demo2=demo", "--to", "-"], "only one sink can use standard output"),
    ],
)
def test_wrong_words_are_told_by_their_kind(
    arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        code = main(["run", *arguments])
    except SystemExit as ended:
        code = int(str(ended.code))
    assert code == 2
    assert says in capsys.readouterr().err


def test_a_table_without_a_sink_beside_others_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "cameras.toml"
    file.write_text("[sources.door]\nsource = 'demo'\nto = ['null']\n[sources.hall]\nsource = 'demo'\n")
    assert main(["run", "--config", str(file)]) == 2
    assert "[sources.hall] names no sink" in capsys.readouterr().err


def test_the_counts_never_replace_what_a_sink_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["run", "cam=demo", "--to", "{source}.jsonl", "--stats", "cam.jsonl"]) == 2
    assert "a sink writes there" in capsys.readouterr().err
