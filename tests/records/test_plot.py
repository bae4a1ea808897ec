"""Plots of recorded poses: what is in the figures."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure

import streampose
from streampose.errors import UsageError
from streampose.records import plot, thin
from streampose.records.plot import KINDS, Plot
from streampose.records.plot_curves import BAND
from tests.records.made import poses_file
from tests.records.walkers import FPS, HEADER, PX_PER_S, walk, write


def curves(figure: Figure, panel: int = 0) -> list[np.ndarray]:
    """Return the points (n, 2) of the lines in a panel."""
    return [np.asarray(line.get_xydata()) for line in figure.axes[panel].lines if line.get_linestyle() != "None"]


def band(figure: Figure, panel: int = 0) -> np.ndarray:
    """Return the corners of the band in a panel."""
    (found,) = [one for one in figure.axes[panel].collections if isinstance(one, PolyCollection)]
    return np.concatenate([path.vertices for path in found.get_paths()])


def texts(figure: Figure) -> str:
    legend = [text.get_text() for legend in figure.legends for text in legend.get_texts()]
    return "; ".join([figure.get_suptitle(), *legend, *(axes.get_ylabel() for axes in figure.axes)])


def test_angle_curves_are_those_of_the_table(tmp_path: Path) -> None:
    poses = streampose.read_poses(poses_file(tmp_path / "poses.jsonl", 60))
    figure = poses.plot("angles", person=2, angles="left_knee", keypoint_threshold=0)
    table = poses.to_dataframe("angles").query("id == 2")
    raw, smooth = curves(figure)
    is_known = np.isfinite(smooth[:, 1])
    np.testing.assert_array_equal(smooth[is_known, 0], table["pts_s"])
    np.testing.assert_allclose(smooth[is_known, 1], table["left_knee"], atol=0.006)
    assert raw[is_known, 1] == pytest.approx(smooth[is_known, 1], abs=1e-3), "all is shifted by one pixel"
    # Person 2 is missing in every fourth and fifth frame.
    assert (~is_known).sum() == len(table) // 3 - 1
    corners = band(figure)
    top = np.minimum(table["left_knee"] + BAND * table["left_knee_sd"], 180)
    for pts_s, height in zip(table["pts_s"], top, strict=True):
        assert corners[corners[:, 0] == pts_s, 1].max() == pytest.approx(height, abs=0.02)
    assert texts(figure) == (
        "Angles of person 2; left; as found; smoothed; holds the true value with 90 % probability; knee (°)"
    )


def test_keypoint_curves_have_the_band_of_their_covariances(tmp_path: Path) -> None:
    poses = streampose.read_poses(write(tmp_path / "poses.jsonl", walk(50)))
    figure = poses.plot("keypoints", keypoints=["nose"])
    raw, smooth = curves(figure, 0)
    np.testing.assert_allclose(raw[:, 1], 100 + np.arange(50) * PX_PER_S / FPS)
    np.testing.assert_allclose(smooth[:, 1], raw[:, 1] + 1)
    corners = band(figure, 0)
    assert np.ptp(corners[corners[:, 0] == 0.4, 1]) == pytest.approx(2 * BAND * 2, abs=1e-6), "variance 4"
    assert np.ptp(band(figure, 1)[:, 1]) == pytest.approx(2 * BAND * 3, abs=1e-6), "variance 9"
    assert figure.axes[1].yaxis_inverted(), "y increases downwards in the picture"
    assert not figure.axes[0].yaxis_inverted()


@pytest.mark.parametrize("what", ["angles", "keypoints"])
def test_without_covariances_or_smoothing_there_is_one_curve(what: Any, tmp_path: Path) -> None:
    path = write(tmp_path / "poses.jsonl", walk(20, has_covariances=False, is_smoothed=False))
    figure = streampose.read_poses(path).plot(what)
    assert len(curves(figure)) == 2, "left and right"
    assert not figure.axes[0].collections
    legend = texts(figure).split("; ")
    assert legend[1:3] == ["left", "right"]
    assert "as found" not in legend


def test_a_person_who_lost_the_covariances_is_not_certain(tmp_path: Path) -> None:
    def change(index: int, people: list[dict[str, Any]]) -> None:
        if index >= 10:
            del people[0]["covariances"]

    path = write(tmp_path / "poses.jsonl", walk(20, change=change))
    corners = band(streampose.read_poses(path).plot(angles="left_knee"))
    assert corners[:, 0].max() == 9 / FPS


def test_gaps_in_the_data_are_gaps_in_the_curve(tmp_path: Path) -> None:
    def change(index: int, people: list[dict[str, Any]]) -> None:
        if index == 25:
            people[0]["keypoints"][0][2] = 0.1

    lines = walk(50, {1: [*range(10), *range(14, 50)]}, change=change)
    for line in lines[40:]:
        line["pts_s"] += 2  # the source was lost
    lines[5]["pts_s"] = None
    lines[7]["pts_s"] = 0.01  # a clock that stepped back
    poses = streampose.read_poses(write(tmp_path / "poses.jsonl", lines))
    _, smooth = curves(poses.plot("keypoints", keypoints="nose"))
    torn = smooth[np.isnan(smooth[:, 1]), 0]
    assert (len(torn), torn[1]) == (3, 1.0)
    assert 9 / FPS < torn[0] < 14 / FPS
    assert 39 / FPS < torn[2] < 40 / FPS + 2
    assert len(smooth) == 50 - 4 - 2 + 2
    _, all_of_it = curves(poses.plot("keypoints", keypoints="nose", keypoint_threshold=0.05))
    assert np.isnan(all_of_it[:, 1]).sum() == 2


def test_a_direction_that_turns_round_is_not_joined(tmp_path: Path) -> None:
    def change(index: int, people: list[dict[str, Any]]) -> None:
        turn = np.radians(index * 7)
        x, y = 300 + 50 * np.cos(turn), 200 + 50 * np.sin(turn)
        people[0]["keypoints"][13] = [300, 200, 0.9]  # left knee
        people[0]["keypoints"][15] = [x, y, 0.9]  # left ankle

    path = write(tmp_path / "poses.jsonl", walk(300, change=change, is_smoothed=False))
    (curve,) = curves(streampose.read_poses(path).plot(angles="left_shank"))
    steps = np.abs(np.diff(curve[:, 1]))
    assert np.nanmax(steps) == pytest.approx(7, abs=0.1)
    assert np.isnan(curve[:, 1]).sum() == 300 * 7 // 360 + 1


def test_the_speed_is_that_of_the_walk(tmp_path: Path) -> None:
    poses = streampose.read_poses(write(tmp_path / "poses.jsonl", walk(700)))
    for keypoints, count in ((None, 1), ("wrist,nose", 3)):
        figure = poses.plot("speed", keypoints=keypoints)
        found = [curve for panel in range(len(figure.axes)) for curve in curves(figure, panel)]
        assert len(found) == count
        for curve in found:
            assert len(curve) == 700
            np.testing.assert_allclose(curve[:, 1], PX_PER_S, atol=0.01)


def test_a_person_is_chosen_who_is_in_most_frames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "poses.jsonl", walk(30, {1: range(9), 4: range(3, 30), 6: range(20)}))
    poses = streampose.read_poses(path)
    assert "person 4" in poses.plot().get_suptitle()
    two = poses.plot("speed", person=[6, 1])
    assert [axes.get_title() for axes in two.axes] == ["person 6", "person 1"]
    with pytest.raises(UsageError, match=r"no person 3 in .*poses.jsonl: there are 1, 4, 6"):
        poses.plot(person=3)
    monkeypatch.setattr(plot, "MOST_PANELS", 5)
    with pytest.raises(UsageError, match="choose fewer people with `person`, or fewer curves with `angles`"):
        poses.plot(person=[1, 4])
    assert poses.plot(person=[1, 4], angles="knee,hip").axes


def test_a_heat_map_adds_up_to_the_time_people_were_there(tmp_path: Path) -> None:
    path = write(tmp_path / "poses.jsonl", walk(100, {1: range(100), 3: range(50), None: range(20)}))
    poses = streampose.read_poses(path)
    for person, seconds in ((None, 170 / FPS), (1, 100 / FPS), ([1, 3], 150 / FPS)):
        figure = poses.plot("heatmap", person=person)
        heat = np.asarray(figure.axes[0].images[-1].get_array())
        cells_per_square = (10 / 2) ** 2  # 10 px, in cells of 2 px
        assert figure.axes[1].get_ylabel() == "seconds per 10 x 10 px"
        assert heat.sum() / cells_per_square == pytest.approx(seconds, rel=0.01)
        row = np.unravel_index(heat.argmax(), heat.shape)[0]
        assert row * 2 == pytest.approx(300, abs=4), "the lower edge of the box"
    wrists = np.asarray(poses.plot("heatmap", person=1, keypoints="wrist").axes[0].images[0].get_array())
    assert wrists.sum() / 25 == pytest.approx(2 * 100 / FPS, rel=0.01)
    assert np.unravel_index(wrists.argmax(), wrists.shape)[0] * 2 == pytest.approx(200, abs=4)


def test_a_path_goes_where_the_hips_went(tmp_path: Path) -> None:
    path = write(tmp_path / "poses.jsonl", walk(100, {1: [*range(40), *range(60, 100)], 2: range(50)}))
    frame = np.full((480, 640, 3), (200, 100, 50), np.uint8)
    figure = streampose.read_poses(path).plot("path", person=1, frame=frame)
    (shown,) = [line for line in figure.axes[0].lines if line.get_label() == "person 1"]
    xy = np.asarray(shown.get_xydata())
    assert xy[0] == pytest.approx([101, 204]), "the smoothed ones"
    assert xy[-1] == pytest.approx([101 + 99 * PX_PER_S / FPS, 204])
    assert np.isnan(xy[:, 0]).sum() == 1
    background = np.asarray(figure.axes[0].images[0].get_array())[0, 0]
    assert background[0] < background[1] < background[2], "BGR was drawn as RGB"
    with pytest.raises(UsageError, match="`frame` is 640x640, but the poses are of frames of 640x480"):
        streampose.read_poses(path).plot("path", frame=np.zeros((640, 640, 3), np.uint8))
    with pytest.raises(UsageError, match="a plot of speed has no picture"):
        streampose.read_poses(path).plot("speed", frame=frame)


def test_a_time_line_has_a_bar_for_each_time(tmp_path: Path) -> None:
    path = write(tmp_path / "poses.jsonl", walk(1000, {2: [*range(500), *range(600, 1000)], 1: range(900, 1000)}))
    axes = streampose.read_poses(path).plot("timeline").axes[0]
    bars = [[box.get_extents() for box in found.get_paths()] for found in axes.collections]
    starts_and_ends = [[(round(box.x0, 2), round(box.x1, 2)) for box in boxes] for boxes in bars]
    assert starts_and_ends == [[(0.0, 20.0), (24.0, 40.0)], [(36.0, 40.0)]]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["person 2", "person 1"]


def test_several_sources_are_told_apart(tmp_path: Path) -> None:
    lines = [line for pair in zip(walk(20, source="door"), walk(20, source="hall"), strict=True) for line in pair]
    poses = streampose.read_poses(write(tmp_path / "poses.jsonl", lines))
    figure = poses.plot("speed", person=1)
    assert [axes.get_title() for axes in figure.axes] == ["person 1 of door", "person 1 of hall"]
    labels = poses.plot("timeline").axes[0].get_yticklabels()
    assert [label.get_text() for label in labels] == ["person 1 of door", "person 1 of hall"]
    with pytest.raises(UsageError, match=r"has several sources \(door, hall\): choose one with `source_name`"):
        poses.plot("heatmap")
    assert np.asarray(poses.plot("heatmap", source_name="hall").axes[0].images[0].get_array()).max() > 0
    with pytest.raises(UsageError, match="no source 'yard'"):
        poses.plot(source_name="yard")


def test_people_without_identities_have_a_heat_map_only(tmp_path: Path) -> None:
    poses = streampose.read_poses(write(tmp_path / "poses.jsonl", walk(20, {None: range(20)})))
    assert poses.plot("heatmap").axes
    for what in set(KINDS) - {"heatmap"}:
        with pytest.raises(UsageError, match=r"no identities \(it is of stills, or the run had none\)"):
            poses.plot(what)
    lines = [*walk(20, source="door"), *walk(20, {None: range(20)}, source="hall")]
    mixed = streampose.read_poses(write(tmp_path / "mixed.jsonl", lines))
    with pytest.raises(UsageError, match="has no people with identities in hall"):
        mixed.plot(person=1, source_name="hall")
    old = write(tmp_path / "old.jsonl", walk(20, {None: range(20)}), HEADER | {"format": 1})
    with pytest.raises(UsageError, match=r"no identities \(it has format 1\)"):
        streampose.read_poses(old).plot()
    nobody = write(tmp_path / "nobody.jsonl", walk(20, {1: ()}))
    with pytest.raises(UsageError, match="has no people"):
        streampose.read_poses(nobody).plot()


def test_a_hidden_joint_is_said(tmp_path: Path) -> None:
    poses = streampose.read_poses(write(tmp_path / "poses.jsonl", walk(20)))
    figure = poses.plot(angles="knee", keypoint_threshold=0.99)
    assert [text.get_text() for text in figure.axes[0].texts] == ["not seen"]


def test_a_long_file_needs_no_more_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(thin, "COLUMNS", 100)
    monkeypatch.setattr(thin, "MOST_ROWS", 400)

    def peak(frames: int) -> int:
        poses = streampose.read_poses(write(tmp_path / f"{frames}.jsonl", walk(frames)))
        poses.plot("angles", angles="knee")  # matplotlib is loaded now
        tracemalloc.start()
        try:
            figure = poses.plot("angles", angles="knee")
            assert all(len(curve) < 600 for curve in curves(figure))
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    assert peak(2400) < 1.15 * peak(600)


def test_a_damaged_file_is_plotted_up_to_the_damage(tmp_path: Path) -> None:
    path = write(tmp_path / "poses.jsonl", walk(40))
    lines = path.read_bytes().splitlines(keepends=True)
    for damage in (b"{\n", b'{"source": "clip", "pts_s": 0.1}\n', lines[11].replace(b"[[", b"[[0,0,0],[", 1), b"7\n"):
        path.write_bytes(b"".join([*lines[:11], damage, *lines[12:]]))
        made = Plot(streampose.read_poses(path), "keypoints", keypoints=["nose"])
        assert "poses.jsonl is damaged at line 12" in str(made.damage)
        assert len(curves(made.draw())[0]) == 10
        with pytest.raises(UsageError, match="damaged at line 12"):
            streampose.read_poses(path).plot()
    path.write_bytes(b"".join([*lines[:11], lines[11].replace(b"0.8]", b'"high"]', 1), *lines[12:]]))
    for what in ("angles", "heatmap"):
        with pytest.raises(UsageError, match=r"poses\.jsonl is damaged: a person is not what a run writes"):
            streampose.read_poses(path).plot(what, keypoints="nose" if what == "heatmap" else None)  # type: ignore[arg-type]
