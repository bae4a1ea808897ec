"""`streampose batch --ray`: worker processes of a local Ray give the files of one process, also if one is killed."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from streampose.archive.entry import State
from streampose.archive.manifest import peek
from tests.archive.helpers import check_outputs, files
from tests.cli.helpers import WITHIN_S, child, run
from tests.clips import make_clip

FRAMES = 480
"""Of the long clip; the others are short."""
OUTPUTS = ["--to", "{name}.mp4", "--to", "{name}.jsonl", "--to", "{name}.parquet"]
CLUSTER = ["--ray", "local", "--split-frames", "24", "--ray-processes"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, flags: list[str]) -> Path:
    """A folder with clips, and what one process makes of them."""
    folder = tmp_path_factory.mktemp("cluster")
    (folder / "in" / "day 1").mkdir(parents=True)
    for number in range(4):
        make_clip(folder / "in" / "day 1" / f"clip{number}.mp4", frames=30, b_frames=2, grain=40, first=100 * number)
    make_clip(folder / "in" / "a long one.mp4", frames=FRAMES, gop=24, b_frames=2, grain=40, audio_s=FRAMES / 25)
    (folder / "in" / "bad.mp4").write_bytes(b"no video" * 100)
    assert run(["batch", "in", "--out", "one", *OUTPUTS, *flags], folder)[0] == 1
    return folder


Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start(folder: Path, flags: list[str]) -> Iterator[Start]:
    """Start a batch on a local Ray. No process of it may be left."""
    begun: list[subprocess.Popen[str]] = []
    seen: list[psutil.Process] = []

    def start(out: str, processes: int) -> subprocess.Popen[str]:
        begun.append(child(["batch", "in", "--out", out, *OUTPUTS, *flags, *CLUSTER, str(processes)], folder))
        return begun[-1]

    yield start
    for process in begun:
        if process.poll() is None:
            seen += psutil.Process(process.pid).children(recursive=True)
            process.kill()
        process.communicate()
    _, alive = psutil.wait_procs(seen, timeout=20)
    for one in alive:
        one.kill()


def descendants(process: subprocess.Popen[str], name: str) -> list[psutil.Process]:
    """The processes below this one whose command begins with a name."""
    found = []
    for one in psutil.Process(process.pid).children(recursive=True):
        try:
            command = one.cmdline()
        except psutil.Error:
            continue
        if command and (command[0].startswith(name) or Path(command[0]).name == name):
            found.append(one)
    return found


def wait_until(true: Callable[[], object], process: subprocess.Popen[str]) -> None:
    deadline_s = time.monotonic() + WITHIN_S
    while not true():
        assert process.poll() is None, process.communicate()
        if time.monotonic() > deadline_s:
            process.kill()
            pytest.fail(f"it did not get there: {process.communicate()}")
        time.sleep(0.05)


def wait_for_pieces(process: subprocess.Popen[str], out: Path, count: int) -> None:
    wait_until(lambda: len(list(out.glob("batch.pieces/*/*.npz"))) >= count, process)


def assert_same(folder: Path, out: str) -> None:
    one = {path.relative_to(folder / "one") for path in (folder / "one").rglob("*") if path.suffix != ".sqlite"}
    other = {path.relative_to(folder / out) for path in (folder / out).rglob("*") if path.suffix != ".sqlite"}
    assert one == other
    for name in one:
        if name.suffix in (".mp4", ".jsonl", ".parquet"):
            assert (folder / "one" / name).read_bytes() == (folder / out / name).read_bytes(), name
    check_outputs(folder / out)
    for name, entry in files(folder / "one").items():
        theirs = files(folder / out)[name]
        same = ("state", "frames", "people", "error", "outputs")
        assert {key: entry[key] for key in same} == {key: theirs[key] for key in same}


def all_ended(processes: list[psutil.Process]) -> bool:
    return not psutil.wait_procs(processes, timeout=20)[1]


def test_three_workers_of_which_one_is_killed(folder: Path, start: Start) -> None:
    """The first start is interrupted as well; the second one uses its pieces."""
    out = folder / "several"
    process = start("several", 3)
    wait_for_pieces(process, out, 1)
    everything = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGINT)
    began_s = time.monotonic()
    _, stderr = process.communicate(timeout=WITHIN_S)
    assert process.returncode == 130, stderr
    assert time.monotonic() - began_s < 20
    assert "Traceback" not in stderr
    assert all_ended(everything)
    assert_nothing_is_running(out)
    pieces = list(out.glob("batch.pieces/*/*.npz"))

    process = start("several", 3)
    wait_for_pieces(process, out, len(pieces) + 1)
    wait_until(lambda: len(descendants(process, "ray::Worker")) == 3, process)
    everything = psutil.Process(process.pid).children(recursive=True)
    wait_until(lambda: busy(process), process)  # the others may still be loading
    busy(process)[0].send_signal(signal.SIGKILL)
    stdout, stderr = process.communicate(timeout=WITHIN_S)
    assert process.returncode == 1, stderr
    assert stdout == ""
    assert f"a long one.mp4 is split into 20 pieces, of which an earlier start has processed {len(pieces)}\n" in stderr
    assert "a worker on" in stderr
    assert "its tasks run again" in stderr
    assert "Traceback" not in stderr
    assert "5 done, 1 failed, 0 left" in stderr
    assert len(stderr.splitlines()) < 40, stderr
    assert_same(folder, "several")
    assert not (out / "batch.pieces").exists()
    assert all_ended(everything)


def test_a_cluster_that_goes_away(folder: Path, start: Start) -> None:
    process = start("gone", 1)
    wait_until(lambda: any((folder / "gone" / "day 1").glob("*.mp4")), process)
    everything = psutil.Process(process.pid).children(recursive=True)
    (server,) = descendants(process, "gcs_server")
    server.send_signal(signal.SIGKILL)
    _, stderr = process.communicate(timeout=WITHIN_S)
    assert process.returncode == 1, stderr
    assert stderr.splitlines()[-1].startswith("streampose: the Ray cluster at ")
    assert "Traceback" not in stderr
    assert_nothing_is_running(folder / "gone")
    for one in everything:  # those that wait for the server to come back
        with contextlib.suppress(psutil.Error):
            one.kill()


def busy(process: subprocess.Popen[str]) -> list[psutil.Process]:
    """The workers that are reading the long clip."""
    return [
        worker
        for worker in descendants(process, "ray::Worker")
        if any(Path(file.path).name == "a long one.mp4" for file in worker.open_files())
    ]


def assert_nothing_is_running(out: Path) -> None:
    """Check that the long clip waits, and that nothing counts as the cause of an end."""
    _, entries = peek(out)
    assert {entry.state for entry in entries.values()} <= {State.WAITING, State.DONE, State.FAILED}
    assert entries["a long one.mp4"].state is State.WAITING
    assert {entry.crashes for entry in entries.values()} == {0}


@pytest.mark.parametrize(
    ("address", "code", "text"),
    [
        ("somewhere", 2, "--ray somewhere: give auto, local, or HOST:PORT"),
        ("127.0.0.1:1", 1, "no Ray cluster answers at 127.0.0.1:1"),
    ],
)
def test_an_address_without_a_cluster(address: str, code: int, text: str, folder: Path, flags: list[str]) -> None:
    exit_code, _, stderr = run(["batch", "in", "--out", "nowhere", *flags, "--ray", address], folder)
    assert exit_code == code
    assert text in stderr
    assert {entry.state for entry in peek(folder / "nowhere")[1].values()} == {State.WAITING}


def test_a_machine_that_belongs_to_no_cluster(folder: Path, flags: list[str]) -> None:
    process = child(["batch", "in", "--out", "nowhere", *flags, "--ray", "auto"], folder, RAY_ADDRESS="")
    _, stderr = process.communicate(timeout=WITHIN_S)
    assert process.returncode == 1
    assert "this machine belongs to no Ray cluster" in stderr.splitlines()[-1]
    assert {entry.state for entry in peek(folder / "nowhere")[1].values()} == {State.WAITING}


def test_without_ray_one_line_names_the_extra(folder: Path, flags: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)  # importing it then fails
    exit_code, _, stderr = run(["batch", "in", "--out", "nowhere", *flags, "--ray", "auto"], folder)
    assert exit_code == 2
    assert "--ray needs Ray: pip install 'streampose[cluster]'" in stderr.splitlines()[-1]
