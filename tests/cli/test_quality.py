"""Published networks in one word: which ones run, and what is said where they are missing."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import streampose
from streampose.networks.known import DEFAULT_DETECTOR, PAIRS
from tests import tiny as networks
from tests.cli.helpers import on_a_terminal, run, the_error
from tests.clips import make_clip

FAST = PAIRS["fast"]
HINT = "for published accuracy: --quality balanced"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_hub: None) -> Path:  # noqa: ARG001
    """The hub's local cache, empty, on a machine without a network."""
    folder = tmp_path / "cache"
    folder.mkdir()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(folder))
    return folder


@pytest.fixture
def fetched(cache: Path, tmp_path: Path) -> None:
    """The pair `fast` in the cache: networks of its kinds, mixture of experts and all, with random weights."""
    pose = networks.save_pose(tmp_path / "pose", networks.vitpose(experts=6))
    detector = networks.save_rt_detr(tmp_path / "detector", ["person", "bicycle"])
    networks.into_hub_cache(cache, FAST.pose, pose)
    networks.into_hub_cache(cache, FAST.detector, detector)


@pytest.mark.usefixtures("fetched")
def test_a_word_selects_both_networks(tmp_path: Path) -> None:
    make_clip(tmp_path / "clip.mkv", frames=3)
    code, _, stderr = run(["run", "clip.mkv", "--quality", "fast", "--to", "poses.jsonl"], tmp_path)
    assert code == 0, stderr
    assert streampose.read_poses(tmp_path / "poses.jsonl").header["models"] == FAST._asdict()
    assert HINT not in stderr
    with streampose.load(quality="fast") as estimator:
        assert estimator.models == FAST._asdict()
    with streampose.stream(tmp_path / "clip.mkv", quality="fast") as pipeline:
        assert pipeline.models == FAST._asdict()


@pytest.mark.usefixtures("fetched")
def test_networks_that_are_named_win(tmp_path: Path) -> None:
    pose = str(networks.save_pose(tmp_path / "mine"))
    with streampose.load(quality="fast", pose=pose) as estimator:
        assert estimator.models == {"pose": pose, "detector": FAST.detector}
    with streampose.load(quality="fast", detector=DEFAULT_DETECTOR) as estimator:
        assert estimator.models == {"pose": FAST.pose, "detector": DEFAULT_DETECTOR}


def test_the_bench_takes_the_word_too(tmp_path: Path, cache: Path) -> None:
    code, _, stderr = run(["bench", "--quality", "best", "--quick"], tmp_path)
    said = the_error(code, stderr, 1)
    assert PAIRS["best"].pose in said
    assert str(cache) in said


def test_what_is_missing_is_told_in_one_line(tmp_path: Path, cache: Path) -> None:
    code, stdout, stderr = run(["run", "demo", "--quality", "fast", "--to", "poses.jsonl"], tmp_path)
    said = the_error(code, stderr, 1)
    assert f"cannot download {FAST.detector} and {FAST.pose} (" in said
    assert f"they are not in the local cache ({cache}): run `hf download {FAST.detector}` and `hf download " in said
    assert "HF_HUB_CACHE" in said
    assert stdout == ""
    assert not (tmp_path / "poses.jsonl").exists(), "other networks are no substitute"
    networks.into_hub_cache(cache, FAST.detector, networks.save_rt_detr(tmp_path / "detector", ["person"]))
    code, _, stderr = run(["run", "demo", "--quality", "fast", "--to", "poses.jsonl"], tmp_path)
    assert f"cannot download {FAST.pose} (" in the_error(code, stderr, 1)


def test_a_file_has_the_word_as_well(tmp_path: Path, cache: Path) -> None:
    (tmp_path / "a.toml").write_text("quality = 'best'\nto = ['null']\n[sources.a]\nsource = 'demo'\n")
    code, _, stderr = run(["run", "--config", "a.toml"], tmp_path)
    assert PAIRS["best"].pose in the_error(code, stderr, 1)
    assert cache.is_dir()


def test_the_last_lines_of_a_bundled_run_name_the_flag_on_a_terminal(tmp_path: Path, tiny: list[str]) -> None:
    def has_frames(text: str) -> bool:
        return re.search("[1-9][0-9]*/[0-9]+  [0-9.]+ fps", text) is not None

    shown = on_a_terminal(["run", "demo", "--to", "null"], tmp_path, has_frames)
    assert shown.splitlines()[-1] == f"networks bundled, small; {HINT}"
    make_clip(tmp_path / "clip.mkv", frames=2000)
    shown = on_a_terminal(["run", "clip.mkv", *tiny, "--to", "null"], tmp_path, has_frames)
    assert "per frame" in shown
    assert HINT not in shown
