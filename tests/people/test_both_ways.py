"""Smoothing both ways: joints that rest, move, jump and vanish, and the crossing clip."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from streampose.frames import NO_TRACK, Float32, People
from streampose.people.both_ways import AHEAD_S, Timed, TwoWaySmoother
from streampose.people.smooth import RESTART_S, Smoother
from tests.people.recorded import crossing, smoothness
from tests.people.scene import Body, people_of

NOISE_PX = 2.0
FPS = 25


def somebody(xy: Float32, track_id: int = 1) -> People:
    people = people_of([Body(300)])
    return replace(people, keypoints_xy=xy[None].astype(np.float32), track_ids=np.array([track_id]))


def recording(seconds: float, px_per_s: float = 0, noise_px: float = NOISE_PX, seed: int = 0) -> list[Timed]:
    rng = np.random.default_rng(seed)
    times_s = np.arange(round(FPS * seconds)) / FPS
    return [Timed(float(t), somebody(Body(300 + px_per_s * t).xy + rng.normal(0, noise_px, (17, 2)))) for t in times_s]


def true_xy(frames: list[Timed], px_per_s: float) -> Float32:
    return np.stack([Body(300 + px_per_s * frame.pts_s).xy for frame in frames])


def found(frames: list[Timed]) -> Float32:
    return np.stack([frame.people.keypoints_xy[0] for frame in frames])


def smoothed(frames: list[Timed]) -> Float32:
    """Of a single person."""
    return np.stack([xy[0] for xy in TwoWaySmoother(17).smooth(frames)])


def smoothed_live(frames: list[Timed]) -> list[Float32]:
    smoother = Smoother(17)
    return [smoother.update(frame.people, frame.pts_s) for frame in frames]


def test_on_the_crossing_clip_it_is_steadier_and_nearer_to_the_truth_than_live() -> None:
    frames = crossing()
    raw = smoothness([frame.people.keypoints_xy for frame in frames])
    live = smoothness(smoothed_live(frames))
    both_ways = smoothness(TwoWaySmoother(17).smooth(frames))
    print(raw, live, both_ways)
    # Measured: tremble 3.82, 1.95 and 1.42 px; error 15.7, 15.5 and 14.8 px.
    for ours, others, unsmoothed in zip(both_ways.tremble_px, live.tremble_px, raw.tremble_px, strict=True):
        assert ours < 0.85 * others < 0.6 * unsmoothed
    for ours, others, unsmoothed in zip(
        both_ways.moving_error_px, live.moving_error_px, raw.moving_error_px, strict=True
    ):
        assert ours < 0.97 * min(others, unsmoothed)
    assert abs(both_ways.lag_s[1] - raw.lag_s[1]) < 0.001 < live.lag_s[1] - raw.lag_s[1]


def test_a_recording_that_is_reversed_gives_the_same() -> None:
    frames = crossing()[:150]
    backwards = [Timed(-frame.pts_s, frame.people) for frame in reversed(frames)]
    forwards_xy, backwards_xy = TwoWaySmoother(17).smooth(frames), TwoWaySmoother(17).smooth(backwards)
    for ours, theirs in zip(forwards_xy, reversed(backwards_xy), strict=True):
        assert ours == pytest.approx(theirs, abs=0.002)


def test_a_joint_that_rests_stays_at_its_mean() -> None:
    frames = recording(4)
    smooth, mean = smoothed(frames), found(frames).mean(axis=0)
    assert np.abs(smooth - mean)[FPS:-FPS].mean() < 0.2 * NOISE_PX
    assert np.abs(np.diff(smooth, axis=0)).mean() < 0.04 * np.abs(np.diff(found(frames), axis=0)).mean()


@pytest.mark.parametrize("px_per_s", [30, 100, 400])
def test_a_joint_that_moves_does_not_lag(px_per_s: float) -> None:
    exact = recording(3, px_per_s, noise_px=0)
    strays = np.abs(smoothed(exact) - true_xy(exact, px_per_s))
    assert strays.max() < 1.2  # at the ends, nothing is known of its speed
    assert strays[10:-10].max() < 0.02
    noisy = recording(3, px_per_s)
    true = true_xy(noisy, px_per_s)
    error, raw, live = (
        np.linalg.norm(some - true, axis=-1).mean()
        for some in (smoothed(noisy), found(noisy), np.concatenate(smoothed_live(noisy)))
    )
    assert error < 0.75 * live < 0.75 * raw
    lag_frames = (true - smoothed(noisy))[..., 0].mean() / px_per_s * FPS
    assert abs(lag_frames) < 0.1


def test_who_starts_to_move_is_not_smeared_over_the_start() -> None:
    times_s = np.arange(4 * FPS) / FPS
    true = np.stack([Body(300 + 150 * max(t - 2, 0)).xy for t in times_s])
    noise = np.random.default_rng(0).normal(0, NOISE_PX, true.shape)
    frames = [Timed(float(t), somebody(xy)) for t, xy in zip(times_s, true + noise, strict=True)]
    around = slice(2 * FPS - 5, 2 * FPS + 5)
    error, live = (
        np.linalg.norm(some - true, axis=-1)[around].mean()
        for some in (smoothed(frames), np.concatenate(smoothed_live(frames)))
    )
    assert error < 0.8 * live


def test_what_is_before_a_gap_and_what_is_after_it_do_not_matter_to_each_other() -> None:
    before, after = recording(1), recording(1, 50, seed=1)
    later_s = 1 + RESTART_S
    after = [Timed(frame.pts_s + later_s, frame.people) for frame in after]
    assert smoothed(before + after) == pytest.approx(np.concatenate([smoothed(before), smoothed(after)]), abs=1e-4)
    # Without a gap they do.
    after = [Timed(frame.pts_s - RESTART_S, frame.people) for frame in after]
    assert np.abs(smoothed(before + after)[: len(before)] - smoothed(before)).max() > 0.1


def test_dropped_frames_do_not_matter() -> None:
    frames = recording(6, 60)
    kept = [frame for frame in frames if np.random.default_rng(round(frame.pts_s * FPS)).random() < 0.6]
    assert 60 < len(kept) < 120
    true = true_xy(kept, 60)
    error, live, raw = (
        np.linalg.norm(some - true, axis=-1).mean()
        for some in (smoothed(kept), np.concatenate(smoothed_live(kept)), found(kept))
    )
    assert error < 0.8 * live < 0.8 * raw


def test_a_joint_that_is_wrong_for_one_frame_is_put_right() -> None:
    frames = recording(2)
    frames[25].people.keypoints_xy[0, 3] += 150
    assert smoothed(frames)[25] == pytest.approx(Body(300).xy, abs=1.5)


def test_a_real_jump_is_not_smeared() -> None:
    frames = recording(2)
    for frame in frames[25:]:
        frame.people.keypoints_xy[:] += 200
    smooth = smoothed(frames)
    assert smooth[24] == pytest.approx(Body(300).xy, abs=3)
    assert smooth[25] == pytest.approx(Body(300).xy + 200, abs=3)


def test_without_an_identity_nothing_is_smoothed() -> None:
    frames = recording(1)
    both = [
        Timed(frame.pts_s, people_of([Body(300), Body(500)]).untracked()) if index % 2 else frame
        for index, frame in enumerate(frames)
    ]
    smooth = TwoWaySmoother(17).smooth(both)
    for index, frame in enumerate(both):
        assert (smooth[index] == frame.people.keypoints_xy).all() == bool(index % 2)
        assert (frame.people.track_ids == NO_TRACK).all() == bool(index % 2)


def test_keypoints_that_are_not_finite_stay_so() -> None:
    frames = recording(1)
    frames[12].people.keypoints_xy[0, 3] = np.nan
    smooth = smoothed(frames)
    assert np.isnan(smooth).sum() == 2
    assert np.isnan(smooth[12, 3]).all()
    assert np.nanmax(np.abs(smooth - Body(300).xy)) < 2 * NOISE_PX


@pytest.mark.parametrize("size", [20, 60])
def test_blocks_give_what_a_single_one_gives(size: int) -> None:
    frames = crossing()[:440:2]
    whole = TwoWaySmoother(17).smooth(frames)

    def worst_in_blocks(ahead: int) -> float:
        smoother = TwoWaySmoother(17)
        parts = []
        for end in range(size, 61, size):
            parts += smoother.smooth(frames[end - size : end], frames[end : end + ahead])
        return max(float(np.abs(ours - theirs).max(initial=0)) for ours, theirs in zip(parts, whole, strict=False))

    assert worst_in_blocks(round(AHEAD_S * FPS / 2)) < 0.001
    assert worst_in_blocks(0) > 1


def test_nobody_is_an_ordinary_case() -> None:
    assert [xy.shape for xy in TwoWaySmoother(17).smooth([Timed(0.0, People.none(17))])] == [(0, 17, 2)]
    assert TwoWaySmoother(17).smooth([]) == []
