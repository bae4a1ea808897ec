"""What only a process of its own shows: signals, readers that go away, and missing libraries."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import av
import pytest

from streampose.records.lines import read_lines
from tests.cli.helpers import PROJECT, WITHIN_S, child, run, wait_for_lines
from tests.clips import make_clip


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
    reading, writing = os.pipe()

    def read_one_line() -> None:
        with os.fdopen(reading) as reader:
            reader.readline()

    reader = threading.Thread(target=read_one_line)
    reader.start()
    try:
        code, _, said = run(
            ["run", "clip.mp4", *tiny, "--to", "-", "--to", "out.jsonl", "--quiet"], tmp_path, stdout=writing
        )
    finally:
        os.close(writing)
        reader.join()
    assert (code, said) == (0, "")
    assert len(list(read_lines(tmp_path / "out.jsonl")[1])) == 60


def full() -> int:
    return os.open("/dev/full", os.O_WRONLY)


def unread() -> int:
    """A pipe whose reader has gone."""
    reading, writing = os.pipe()
    os.close(reading)
    return writing


@pytest.mark.parametrize("opened", [full, unread])
def test_that_nobody_reads_standard_error_does_not_matter(
    tmp_path: Path, tiny: list[str], opened: Callable[[], int]
) -> None:
    make_clip(tmp_path / "clip.mp4", frames=60)
    stderr = opened()
    try:
        assert run(["run", "clip.mp4", *tiny, "--to", "out.jsonl"], tmp_path, stderr=stderr)[0] == 0
    finally:
        os.close(stderr)
    assert len(list(read_lines(tmp_path / "out.jsonl")[1])) == 60


@pytest.mark.parametrize(("number", "is_heard"), [(signal.SIGINT, True), (signal.SIGTERM, False)])
def test_an_interrupt_finishes_cleanly(
    tmp_path: Path, tiny: list[str], long_clip: Path, number: signal.Signals, is_heard: bool
) -> None:
    """Also where nobody reads standard error."""
    with child(["run", str(long_clip), *tiny, "--to", "out.mp4", "--to", "out.jsonl"], tmp_path) as process:
        wait_for_lines(tmp_path / "out.jsonl", 20, process)
        assert process.stderr is not None
        if not is_heard:
            process.stderr.close()
        process.send_signal(number)
        stderr = process.communicate(timeout=WITHIN_S)[1] if is_heard else ""
        assert process.wait(WITHIN_S) == 130, stderr
    assert "Traceback" not in stderr
    _, lines = read_lines(tmp_path / "out.jsonl")
    indices = [line["frame"] for line in lines]
    assert indices == list(range(len(indices)))
    assert 20 <= len(indices) < 4000
    with av.open(tmp_path / "out.mp4") as container:
        assert sum(1 for _ in container.decode(video=0)) == len(indices), "every sink has the same frames"


def test_a_second_interrupt_forces_the_end(tmp_path: Path, tiny: list[str], long_clip: Path) -> None:
    with child(["run", str(long_clip), *tiny, "--to", "out.mp4", "--to", "out.jsonl"], tmp_path) as process:
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


def test_killed_in_the_middle_leaves_readable_files(tmp_path: Path, tiny: list[str], long_clip: Path) -> None:
    sinks = ["--to", "out.mp4", "--to", "out.jsonl", "--to", "out.mkv"]
    with child(["run", str(long_clip), *tiny, *sinks], tmp_path) as process:
        wait_for_lines(tmp_path / "out.jsonl", 200, process)
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
