"""A run that continues an interrupted one makes the same files as a run without the interruption."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

import streampose
from streampose.archive.journal import Journal, folder_of
from streampose.errors import NothingToDo, SinkError, StreamposeError, UsageError
from streampose.inputs import Input
from streampose.pipeline import lane
from tests.archive.conftest import FRAMES
from tests.clips import make_clip
from tests.sinks.helpers import file_size_limit

EVERY = 20
"""Frames between two savepoints here."""


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lane, "SAVEPOINT_FRAMES", EVERY)


def run(source: object, folder: Path, names: Sequence[str], *, until: float = float("inf"), **options: Any) -> int:
    """Run into files of a folder; interrupt the run at frame `until`. Return the number of the first frame."""
    first = -1
    with streampose.stream(source, to=[f"{folder}/{name}" for name in names], **options) as pipeline:
        for result in pipeline:
            first = result.frame.index if first < 0 else first
            if result.frame.index >= until:
                break
    return first


def packets_of_file(path: Path) -> list[tuple[int, int | None, bytes]]:
    """The stream, time and content of every packet. The headers of Matroska files hold random numbers."""
    with av.open(str(path)) as container:
        return [(packet.stream_index, packet.pts, bytes(packet)) for packet in container.demux() if packet.size]


def assert_same(folder: Path, other: Path, names: Sequence[str]) -> None:
    assert sorted(path.name for path in folder.iterdir()) == sorted(path.name for path in other.iterdir())
    for name in names:
        if (folder / name).is_dir():
            assert_same(folder / name, other / name, [path.name for path in (folder / name).iterdir()])
        else:
            assert (folder / name).read_bytes() == (other / name).read_bytes(), name


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    """Where the outputs of a run without an interruption go."""
    folder = tmp_path / "whole"
    folder.mkdir()
    return folder


@pytest.fixture
def parts(tmp_path: Path) -> Path:
    """Where those of an interrupted run go."""
    folder = tmp_path / "parts"
    folder.mkdir()
    return folder


ALL = ["video.mp4", "poses.jsonl", "poses.csv", "poses.parquet", "angles.angles.csv", "poses.coco.json", "stills/"]


class TestTheSameFiles:
    def test_after_several_interruptions(self, clip: Path, tiny: dict[str, Any], whole: Path, parts: Path) -> None:
        run(clip, whole, ALL, **tiny)
        run(clip, parts, ALL, until=47, **tiny)
        assert folder_of(parts / "video.mp4").is_dir()
        starts = [run(clip, parts, ALL, until=until, resume=True, **tiny) for until in (50, 75, 999)]
        assert 0 < starts[0] <= 40
        assert starts[2] > starts[0]
        assert all(start % EVERY == 0 for start in starts)
        assert_same(whole, parts, ALL)

    @pytest.mark.parametrize(
        "options",
        [
            {"detect_every": 3},
            {"blur": "faces", "only": "largest"},
            {"smooth": "data", "labels": True},
            {"track": False},
            {"max_people": 1, "only": "centre", "detect_every": 2},
            {"speed": 0.5},
        ],
    )
    def test_with(self, options: dict[str, Any], clip: Path, tiny: dict[str, Any], whole: Path, parts: Path) -> None:
        names = ["a.mp4", "a.jsonl"]
        run(clip, whole, names, **tiny | options)
        run(clip, parts, names, until=70, **tiny | options)
        assert run(clip, parts, names, resume=True, **tiny | options) > 0
        assert_same(whole, parts, names)

    @pytest.mark.parametrize("names", [["a.mkv"], ["a.mov", "a.csv"], ["a.parquet", "a.csv"], ["a.trc"], ["a/"]])
    def test_of(self, names: list[str], clip: Path, tiny: dict[str, Any], whole: Path, parts: Path) -> None:
        one = tiny | {"only": "largest"}
        run(clip, whole, names, **one)
        run(clip, parts, names, until=70, **one)
        assert run(clip, parts, names, resume=True, **one) > 0
        if names == ["a.mkv"]:  # its header holds a random number
            assert packets_of_file(whole / "a.mkv") == packets_of_file(parts / "a.mkv")
        else:
            assert_same(whole, parts, names)

    @pytest.mark.parametrize(
        "part", [{"every": 2}, {"start_s": 1.0, "end_s": 4.0}, {"start_s": 0.4, "every": 2}, {"end_s": 4.8}]
    )
    def test_of_a_part(self, part: dict[str, Any], clip: Path, tiny: dict[str, Any], whole: Path, parts: Path) -> None:
        names = ["a.mp4", "a.jsonl"]
        run(Input(clip, **part), whole, names, **tiny)
        run(Input(clip, **part), parts, names, until=95, **tiny)
        assert run(Input(clip, **part), parts, names, resume=True, **tiny) > 0
        assert_same(whole, parts, names)

    @pytest.mark.parametrize(
        "made",
        [
            {"times_s": [number / 25 + (number % 7) / 200 for number in range(FRAMES)], "b_frames": 2},
            {"codec": "mpeg4", "b_frames": 2},
            {"codec_options": {"x264-params": "open-gop=1"}, "gop": 30, "b_frames": 3},
            {"start_s": 2.0, "audio_s": 7.0},
            {"rotation": 90},
        ],
    )
    def test_of_any_recording(
        self, made: dict[str, Any], tmp_path: Path, tiny: dict[str, Any], whole: Path, parts: Path
    ) -> None:
        clip = make_clip(tmp_path / "made.mp4", frames=FRAMES, **made)
        names = ["a.mp4", "a.jsonl"]
        run(clip, whole, names, **tiny)
        run(clip, parts, names, until=70, **tiny)
        assert run(clip, parts, names, resume=True, **tiny) > 0
        assert_same(whole, parts, names)

    def test_of_a_folder_of_stills(self, tmp_path: Path, tiny: dict[str, Any], whole: Path, parts: Path) -> None:
        stills = tmp_path / "stills"
        stills.mkdir()
        run(make_clip(tmp_path / "clip.mp4", frames=50), stills, ["./"], **tiny)
        run(stills, whole, ["drawn/", "a.jsonl"], **tiny)
        run(stills, parts, ["drawn/", "a.jsonl"], until=30, **tiny)
        assert run(stills, parts, ["drawn/", "a.jsonl"], resume=True, **tiny) > 0
        assert_same(whole, parts, ["drawn", "a.jsonl"])

    def test_before_its_first_savepoint(self, clip: Path, tiny: dict[str, Any], whole: Path, parts: Path) -> None:
        run(clip, whole, ALL, **tiny)
        run(clip, parts, ALL, until=0, **tiny)
        for file in folder_of(parts / "video.mp4").glob("*.npz"):
            file.unlink()
        assert run(clip, parts, ALL, resume=True, **tiny) == 0
        assert_same(whole, parts, ALL)

    def test_when_the_latest_savepoints_were_damaged(
        self, clip: Path, tiny: dict[str, Any], whole: Path, parts: Path
    ) -> None:
        names = ["a.mp4", "a.jsonl", "a.parquet"]
        run(clip, whole, names, **tiny)
        run(clip, parts, names, until=90, **tiny)
        newest = max(folder_of(parts / "a.mp4").glob("*.npz"))
        newest.write_bytes(newest.read_bytes()[:100])
        assert run(clip, parts, names, resume=True, **tiny) in range(1, int(newest.stem))
        assert_same(whole, parts, names)

    def test_when_the_video_lost_its_end(self, clip: Path, tiny: dict[str, Any], whole: Path, parts: Path) -> None:
        names = ["a.mkv", "a.jsonl"]
        run(clip, whole, names, **tiny)
        run(clip, parts, names, until=100, **tiny)
        latest = int(max(folder_of(parts / "a.mkv").glob("*.npz")).stem)
        content = (parts / "a.mkv").read_bytes()
        (parts / "a.mkv").write_bytes(content[: len(content) * 6 // 10])
        assert 0 < run(clip, parts, names, resume=True, **tiny) < latest
        assert (whole / "a.jsonl").read_bytes() == (parts / "a.jsonl").read_bytes()
        assert packets_of_file(whole / "a.mkv") == packets_of_file(parts / "a.mkv")

    def test_with_outputs_in_another_order(self, clip: Path, tiny: dict[str, Any], whole: Path, parts: Path) -> None:
        names = ["a.mp4", "b.csv", "c.jsonl"]
        run(clip, whole, names, **tiny)
        run(clip, parts, names, until=70, **tiny)
        assert run(clip, parts, names[::-1], resume=True, **tiny) > 0
        assert_same(whole, parts, names)

    def test_of_several_sources(self, clip: Path, tiny: dict[str, Any], whole: Path, parts: Path) -> None:
        shutil.copy(clip, whole.parent / "other.mp4")
        sources = [clip, Input(whole.parent / "other.mp4", end_s=2.0)]
        names = ["{source}.mp4", "{source}.jsonl"]
        run(sources, whole, names, **tiny)
        run(sources, parts, names, until=110, **tiny)  # the other one is complete by now
        run(sources, parts, names, resume=True, **tiny)
        assert_same(whole, parts, ["clip.mp4", "clip.jsonl", "other.mp4", "other.jsonl"])

    @pytest.mark.logs_errors
    def test_after_a_failure_of_a_sink(self, clip: Path, tiny: dict[str, Any], whole: Path, parts: Path) -> None:
        names = ["a.mp4", "a.jsonl"]
        run(clip, whole, names, **tiny)
        size = (whole / "a.jsonl").stat().st_size
        with file_size_limit(size * 6 // 10), pytest.raises(SinkError, match="no space left"):
            run(clip, parts, names, **tiny)
        assert run(clip, parts, names, resume=True, **tiny) > 0
        assert_same(whole, parts, names)

    def test_next_to_a_sink_that_leaves_nothing(
        self, clip: Path, tiny: dict[str, Any], whole: Path, parts: Path
    ) -> None:
        run(clip, whole, ["a.jsonl"], **tiny)
        run(clip, parts, ["a.jsonl"], until=70, **tiny)
        with streampose.stream(clip, to=[parts / "a.jsonl", "null"], resume=True, **tiny) as pipeline:
            assert next(iter(pipeline)).frame.index > 0
        assert run(clip, parts, ["a.jsonl"], resume=True, **tiny) > 0
        assert_same(whole, parts, ["a.jsonl"])


class TestRefused:
    @pytest.fixture
    def begun(self, clip: Path, tiny: dict[str, Any], parts: Path) -> Path:
        """A folder with the outputs of an interrupted run."""
        run(clip, parts, ["a.jsonl", "a.csv"], until=50, **tiny)
        return parts

    def test_without_a_word_about_what_to_do(self, clip: Path, tiny: dict[str, Any], begun: Path) -> None:
        with pytest.raises(UsageError, match=r"a\.jsonl is half done: continue it with `resume`, or .* `overwrite`"):
            run(clip, begun, ["a.jsonl", "a.csv"], **tiny)

    def test_with_both_words(self, clip: Path, tiny: dict[str, Any], begun: Path) -> None:
        with pytest.raises(UsageError, match="`resume` continues"):
            run(clip, begun, ["a.jsonl", "a.csv"], resume=True, overwrite=True, **tiny)

    @pytest.mark.parametrize(
        ("options", "said"),
        [
            ({"box_threshold": 0.1}, r"a\.jsonl was begun with `box_threshold` 0\.0, not 0\.1"),
            ({"smooth": "off"}, r"with `smooth` drawn, not off"),
            ({"blur": "faces"}, r"with `blur` nothing, not faces"),
            ({"dtype": "bfloat16"}, r"with `dtype` float32, not bfloat16"),
        ],
    )
    def test_with_another_option(
        self, options: dict[str, Any], said: str, clip: Path, tiny: dict[str, Any], begun: Path
    ) -> None:
        before = (begun / "a.jsonl").read_bytes()
        with pytest.raises(UsageError, match=said):
            run(clip, begun, ["a.jsonl", "a.csv"], resume=True, **tiny | options)
        assert (begun / "a.jsonl").read_bytes() == before
        assert run(clip, begun, ["a.jsonl", "a.csv"], resume=True, **tiny) > 0

    def test_with_another_part(self, clip: Path, tiny: dict[str, Any], begun: Path) -> None:
        with pytest.raises(UsageError, match="with `every` 1, not 2"):
            run(Input(clip, every=2), begun, ["a.jsonl", "a.csv"], resume=True, **tiny)

    def test_with_another_source(self, tmp_path: Path, tiny: dict[str, Any], begun: Path) -> None:
        other = make_clip(tmp_path / "clip.mp4", frames=60)
        with pytest.raises(UsageError, match="begun with another source"):
            run(other, begun, ["a.jsonl", "a.csv"], resume=True, **tiny)

    def test_with_another_network(self, clip: Path, tiny: dict[str, Any], begun: Path, tmp_path: Path) -> None:
        other = tmp_path / "other"
        shutil.copytree(tiny["pose"], other)
        with pytest.raises(UsageError, match="with `pose`"):
            run(clip, begun, ["a.jsonl", "a.csv"], resume=True, **tiny | {"pose": str(other)})

    def test_with_other_outputs(self, clip: Path, tiny: dict[str, Any], begun: Path) -> None:
        with pytest.raises(UsageError, match=r"with `to` a\.jsonl and a\.csv: name the same"):
            run(clip, begun, ["a.jsonl"], resume=True, **tiny)

    def test_by_another_version(
        self, clip: Path, tiny: dict[str, Any], begun: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("streampose.archive.resume.__version__", "9.9")
        with pytest.raises(UsageError, match=r"begun by streampose .*, and this is 9\.9"):
            run(clip, begun, ["a.jsonl", "a.csv"], resume=True, **tiny)

    def test_of_standard_output(self, clip: Path, tiny: dict[str, Any]) -> None:
        with pytest.raises(UsageError, match="cannot continue standard output"):
            streampose.stream(clip, to="-", resume=True, **tiny)

    def test_of_segments(self, clip: Path, tiny: dict[str, Any], tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="cannot continue"):
            streampose.stream(clip, to=tmp_path / "{time}.mp4", segment_s=1.0, resume=True, **tiny)

    def test_with_half_of_the_outputs_gone(self, clip: Path, tiny: dict[str, Any], parts: Path) -> None:
        run(clip, parts, ["a.jsonl", "a.csv"], **tiny)
        (parts / "a.csv").unlink()
        with pytest.raises(UsageError, match=r"a\.jsonl exists, but not by a run that was interrupted"):
            run(clip, parts, ["a.jsonl", "a.csv"], resume=True, **tiny)

    def test_while_it_runs(self, clip: Path, tiny: dict[str, Any], parts: Path, whole: Path) -> None:
        run(clip, whole, ["a.jsonl"], **tiny)
        target = parts / "a.jsonl"
        with streampose.stream(clip, to=target, **tiny) as pipeline:
            results = iter(pipeline)
            next(results)
            for options in ({"resume": True}, {"overwrite": True}):
                with pytest.raises(UsageError, match=r"a\.jsonl is being written by another run"):
                    streampose.stream(clip, to=target, **options, **tiny)
            for _ in results:
                pass
        assert_same(whole, parts, ["a.jsonl"])

    def test_by_any_error_with_a_journal_that_is_not_one(self, tmp_path: Path) -> None:
        folder = tmp_path / "a.jsonl.resume"
        folder.mkdir()
        (folder / "run.json").write_text("{")
        assert Journal.read(folder) is None


def test_a_complete_run_has_nothing_to_do(clip: Path, tiny: dict[str, Any], parts: Path) -> None:
    run(clip, parts, ["a.jsonl"], **tiny)
    before = (parts / "a.jsonl").stat()
    with pytest.raises(NothingToDo, match=r"nothing to do: .*a\.jsonl is complete"):
        run(clip, parts, ["a.jsonl"], resume=True, **tiny)
    assert (parts / "a.jsonl").stat() == before


def test_resume_begins_a_run_that_was_never_begun(clip: Path, tiny: dict[str, Any], parts: Path) -> None:
    assert run(clip, parts, ["a.jsonl"], resume=True, **tiny) == 0
    assert [path.name for path in parts.iterdir()] == ["a.jsonl"]


def test_overwrite_begins_again(clip: Path, tiny: dict[str, Any], whole: Path, parts: Path) -> None:
    names = ["a.mp4", "a.jsonl"]
    run(clip, whole, names, **tiny)
    run(clip, parts, names, until=70, **tiny)
    run(clip, parts, names, until=75, resume=True, **tiny)
    assert run(clip, parts, names[::-1], overwrite=True, **tiny) == 0
    assert_same(whole, parts, names)


def test_a_damaged_recording_is_complete_when_it_was_read_to_its_end(
    clip: Path, tmp_path: Path, tiny: dict[str, Any], parts: Path
) -> None:
    cut = tmp_path / "cut.mkv"
    with av.open(str(clip)) as source, av.open(str(cut), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    content = cut.read_bytes()
    cut.write_bytes(content[: len(content) // 2])
    with pytest.raises(StreamposeError, match="cut off"):
        run(cut, parts, ["a.jsonl"], **tiny)
    assert [path.name for path in parts.iterdir()] == ["a.jsonl"]


def test_a_journal_runs_no_code(clip: Path, tiny: dict[str, Any], parts: Path) -> None:
    """What a stranger puts there may be wrong, but is data."""
    run(clip, parts, ["a.jsonl"], until=70, **tiny)
    for file in folder_of(parts / "a.jsonl").glob("*.npz"):
        np.savez(file, record=np.array([object()], object), allow_pickle=True)
    assert run(clip, parts, ["a.jsonl"], resume=True, **tiny) == 0
