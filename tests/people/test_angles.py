"""Joint and segment angles, and how sure they are."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.linalg import sqrtm

from streampose.errors import UsageError
from streampose.networks.pose import COCO_NAMES
from streampose.people.angles import CORRELATION, DEFINITIONS, NEIGHBOURS, AngleMeter

STANDING = {
    "left_ear": (52, 10), "right_ear": (48, 10), "left_shoulder": (60, 30), "right_shoulder": (40, 30),
    "left_elbow": (60, 60), "right_elbow": (40, 60), "left_wrist": (60, 90), "right_wrist": (40, 90),
    "left_hip": (60, 80), "right_hip": (40, 80), "left_knee": (60, 130), "right_knee": (40, 130),
    "left_ankle": (60, 180), "right_ankle": (40, 180), "nose": (50, 12), "left_eye": (51, 9), "right_eye": (49, 9),
}  # fmt: skip
"""Somebody who stands upright with hanging arms, seen from the front."""


def points(**moved: tuple[float, float]) -> np.ndarray:
    return np.array([[moved.get(name, STANDING[name]) for name in COCO_NAMES]], np.float64)


def angles_of(xy: np.ndarray, covariances: np.ndarray | None = None) -> dict[str, tuple[float, float]]:
    found = AngleMeter(COCO_NAMES).measure_points(xy, covariances)
    return {
        name: (float(degrees), float(deviation))
        for name, degrees, deviation in zip(found.names, found.degrees[0], found.deviations[0], strict=True)
    }


def test_somebody_who_stands_upright() -> None:
    found = angles_of(points())
    upright = {"knee": 0, "hip": 0, "elbow": 0, "shoulder": 0, "thigh": 90, "shank": 90, "upper_arm": 90, "forearm": 90}
    for name, degrees in upright.items():
        for side in ("left", "right"):
            assert found[f"{side}_{name}"][0] == pytest.approx(degrees), name
    assert (found["neck"][0], found["trunk_lean"][0], found["trunk"][0]) == pytest.approx((0, 0, 90))
    assert "left_ankle" not in found, "COCO has no toes"
    assert all(np.isnan(deviation) for _, deviation in found.values()), "nothing is known about the keypoints' errors"


@pytest.mark.parametrize(
    ("moved", "name", "degrees"),
    [
        ({"left_ankle": (110, 130)}, "left_knee", 90),
        ({"left_ankle": (10, 130)}, "left_knee", 90),
        ({"left_knee": (110, 80)}, "left_hip", 90),
        ({"left_wrist": (60, 31)}, "left_elbow", 180),
        ({"left_elbow": (90, 30)}, "left_shoulder", 90),
        ({"left_elbow": (60, 0)}, "left_shoulder", 180),
        ({"left_elbow": (90, 30)}, "left_upper_arm", -180),
        ({"right_elbow": (10, 30)}, "right_upper_arm", 0),
        ({"left_knee": (110, 80)}, "left_thigh", -180),
        ({"left_ankle": (110, 180)}, "left_shank", 135),
        ({"left_shoulder": (110, 30), "right_shoulder": (90, 30)}, "trunk_lean", -45),
        ({"left_shoulder": (110, 30), "right_shoulder": (90, 30)}, "trunk", 45),
        ({"left_shoulder": (10, 30), "right_shoulder": (-10, 30)}, "trunk_lean", 45),
        ({"left_shoulder": (110, 90), "right_shoulder": (90, 70)}, "trunk_lean", -90),
        ({"left_shoulder": (50, 140), "right_shoulder": (50, 140)}, "trunk_lean", -180),
        ({"left_ear": (72, 10), "right_ear": (68, 10)}, "neck", 45),
    ],
)
def test_angles_have_their_zero_and_sign(moved: dict[str, tuple[float, float]], name: str, degrees: float) -> None:
    assert angles_of(points(**moved))[name][0] == pytest.approx(degrees)


def test_ankles_need_toes() -> None:
    names = ("left_knee", "left_ankle", "left_big_toe")
    meter = AngleMeter(names)
    assert "left_ankle" in meter.names
    flat = np.array([[[50, 50], [50, 100], [80, 100]], [[50, 50], [50, 100], [71.2132, 78.7868]]])
    number = meter.names.index("left_ankle")
    found = meter.measure_points(flat, None).degrees[:, number]
    assert found == pytest.approx([0, -45], abs=1e-3)


def test_deviations_are_those_of_noisy_keypoints() -> None:
    """Against a simulation, with another covariance at each keypoint, and errors of neighbours that go together."""
    rng = np.random.default_rng(0)
    bent = points(left_ankle=(100, 160), right_wrist=(10, 70), left_elbow=(85, 50))
    mixes = rng.normal(0, 0.7, (17, 2, 2))
    covariances = np.einsum("kij,klj->kil", mixes, mixes)
    roots = np.array([sqrtm(covariance).real for covariance in covariances])
    correlations = np.eye(17)
    for side in ("left", "right"):
        for pair in NEIGHBOURS[:-1]:
            one, other = (COCO_NAMES.index(f"{side}_{name}") for name in pair)
            correlations[[one, other], [other, one]] = CORRELATION
    errors = np.einsum("kl,nlj->nkj", np.linalg.cholesky(correlations), rng.normal(size=(20_000, 17, 2)))
    noisy = bent + np.einsum("kij,nkj->nki", roots, errors)
    meter = AngleMeter(COCO_NAMES)
    simulated = meter.measure_points(noisy, None).degrees
    found = meter.measure_points(bent, covariances[None])
    for number, name in enumerate(meter.names):
        if abs(found.degrees[0, number]) < 5 and "trunk" not in name:
            continue  # near 0, an angle without a sign is folded
        assert found.deviations[0, number] == pytest.approx(simulated[:, number].std(), rel=0.05), name


def test_what_is_missing() -> None:
    xy = points()
    xy[0, COCO_NAMES.index("left_knee")] = np.nan
    covariances = np.tile(np.eye(2), (1, 17, 1, 1))
    covariances[0, COCO_NAMES.index("left_knee")] = np.nan
    found = angles_of(xy, covariances)
    missing = {name for name, (degrees, deviation) in found.items() if np.isnan(degrees) and np.isnan(deviation)}
    assert missing == {"left_knee", "left_hip", "left_thigh", "left_shank"}
    assert found["right_knee"][1] > 0
    coincident = angles_of(points(left_ankle=STANDING["left_knee"]), np.tile(np.eye(2), (1, 17, 1, 1)))
    assert np.isnan(coincident["left_knee"][0])
    huge = angles_of(points(), np.tile(np.eye(2) * 1e9, (1, 17, 1, 1)))
    assert huge["left_knee"][1] == pytest.approx(104, abs=0.1)
    assert AngleMeter(COCO_NAMES).measure_points(np.zeros((0, 17, 2)), None).degrees.shape == (0, 19)


def test_names_that_are_wanted() -> None:
    assert AngleMeter(COCO_NAMES, ["knee", "trunk"]).names == ("left_knee", "right_knee", "trunk")
    assert AngleMeter(COCO_NAMES, ["right_elbow"]).names == ("right_elbow",)
    assert AngleMeter(["nose"]).names == ()
    with pytest.raises(UsageError, match="unknown angle 'toe': this skeleton has left_knee, right_knee"):
        AngleMeter(COCO_NAMES, ["toe"])
    with pytest.raises(UsageError, match="unknown angle 'ankle'"):
        AngleMeter(COCO_NAMES, ["ankle"])
    assert len({one.name for one in DEFINITIONS}) == len(DEFINITIONS)


def test_corners_show_the_same_angles() -> None:
    rng = np.random.default_rng(0)
    xy = rng.uniform(0, 200, (20, 17, 2))
    meter = AngleMeter(COCO_NAMES)
    degrees, corners = meter.measure_points(xy, None).degrees, meter.corners(xy)
    turns = np.degrees(corners.to_radians - corners.from_radians)
    is_signed = np.array([definition.is_signed for definition in DEFINITIONS if definition.name in meter.names])
    np.testing.assert_allclose(np.abs(turns[:, ~is_signed]), degrees[:, ~is_signed])
    np.testing.assert_allclose(turns[:, is_signed], degrees[:, is_signed])
    knee = meter.names.index("left_knee")
    np.testing.assert_allclose(corners.places[:, knee], xy[:, 13])
    np.testing.assert_allclose(corners.ends[:, knee], xy[:, 15])
    neck = meter.names.index("neck")
    np.testing.assert_allclose(corners.places[:, neck], xy[:, 5:7].mean(axis=1))
    xy[0, 13] = np.nan
    assert np.isnan(meter.corners(xy).places[0, knee]).all()
