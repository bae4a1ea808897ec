"""Smoothed keypoints: joints that rest, move, jump and vanish."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from streampose.frames import NO_TRACK, Float32, People
from streampose.people.smooth import RESTART_S, Smoother
from tests.people.scene import Body, people_of

NOISE_PX = 2.0


def walk(fps: float, seconds: float, px_per_s: float) -> tuple[Float32, Float32, Float32]:
    """Return times, true keypoints (T, K, 2) and found ones, with noise, of somebody who sways at this top speed."""
    times_s = np.arange(round(fps * seconds)) / fps
    sway = px_per_s / (2 * np.pi) * np.sin(2 * np.pi * times_s)
    true = Body(300).xy[None] + np.stack([sway, np.zeros_like(sway)], axis=-1)[:, None]
    found = true + np.random.default_rng(0).normal(0, NOISE_PX, true.shape)
    return times_s.astype(np.float32), true.astype(np.float32), found.astype(np.float32)


def somebody(xy: Float32, score: float = 0.8, track_id: int = 1) -> People:
    people = people_of([Body(300, pose_score=score)])
    return replace(people, keypoints_xy=xy[None].astype(np.float32), track_ids=np.array([track_id]))


def smoothed(times_s: Float32, found: Float32) -> Float32:
    smoother = Smoother(17)
    return np.stack([smoother.update(somebody(xy), float(pts_s))[0] for pts_s, xy in zip(times_s, found, strict=True)])


@pytest.mark.parametrize("fps", [10, 25, 60])
def test_resting_joints_stop_trembling(fps: float) -> None:
    times_s, _, found = walk(fps, 4, 0)
    smooth = smoothed(times_s, found)
    start = round(fps)
    raw = np.abs(np.diff(found[start:], axis=0)).mean()
    assert np.abs(np.diff(smooth[start:], axis=0)).mean() < raw / 3


@pytest.mark.parametrize("fps", [25, 60])
@pytest.mark.parametrize("px_per_s", [100, 400])
def test_moving_joints_gain_and_do_not_lag(fps: float, px_per_s: float) -> None:
    times_s, true, found = walk(fps, 4, px_per_s)
    smooth = smoothed(times_s, found)
    error, raw = (np.linalg.norm(some - true, axis=-1)[round(fps) :].mean() for some in (smooth, found))
    assert error < raw
    speed = np.gradient(true[..., 0], times_s, axis=0)
    is_fast = np.abs(speed) > 0.5 * px_per_s
    lag_s = np.median(((true - smooth)[..., 0] / np.where(is_fast, speed, 1))[is_fast])
    assert abs(lag_s) * fps < 0.5


def test_doubtful_keypoints_weigh_less() -> None:
    steady, strays = [], []
    for deviation_px, found in ((2.0, steady), (40.0, strays)):
        smoother = Smoother(17)
        covariances = np.broadcast_to(np.float32(deviation_px**2) * np.eye(2, dtype=np.float32), (1, 17, 2, 2))
        for index in range(26):
            xy = Body(300).xy + (8 if index == 25 else 0)
            people = replace(somebody(xy), keypoint_covariances=covariances)
            found.append(smoother.update(people, index / 25)[0])
    away_steady, away_stray = (np.abs(found[-1] - found[-2]).mean() for found in (steady, strays))
    assert away_stray < 0.5 * away_steady


def test_a_gap_starts_the_filter_again() -> None:
    smoother = Smoother(17)
    for index in range(25):
        smoother.update(somebody(Body(300).xy), index / 25)
    moved = Body(320).xy
    assert smoother.update(somebody(moved), 1.0 + RESTART_S + 0.1)[0] == pytest.approx(moved)


def test_a_jump_is_followed_at_once() -> None:
    smoother = Smoother(17)
    for index in range(25):
        smoother.update(somebody(Body(300).xy), index / 25)
    moved = Body(500).xy
    assert smoother.update(somebody(moved), 1.0)[0] == pytest.approx(moved, abs=1.0)


def test_each_identity_has_its_own_filter() -> None:
    smoother = Smoother(17)
    both = people_of([Body(200), Body(400)])
    for index in range(10):
        order = [0, 1] if index % 2 else [1, 0]
        people = replace(both[np.array(order)], track_ids=np.array(order) + 1)
        smooth = smoother.update(people, index / 25)
        for row, body in enumerate(order):
            assert smooth[row] == pytest.approx(Body(200 if body == 0 else 400).xy, abs=1e-3)


def test_without_an_identity_nothing_is_smoothed() -> None:
    smoother = Smoother(17)
    smoother.update(somebody(Body(300).xy, track_id=NO_TRACK), 0.0)
    moved = Body(303).xy
    assert (smoother.update(somebody(moved, track_id=NO_TRACK), 0.04)[0] == moved).all()


def test_keypoints_that_are_not_finite_stay_so_and_the_filter_goes_on() -> None:
    smoother = Smoother(17)
    for index in range(10):
        xy = Body(300).xy.copy()
        if index == 5:
            xy[3] = np.nan
        smooth = smoother.update(somebody(xy), index / 25)[0]
        assert np.isnan(smooth[3]).all() == (index == 5)
        assert np.isfinite(np.delete(smooth, 3, axis=0)).all()
    assert smooth == pytest.approx(Body(300).xy, abs=1e-3)
