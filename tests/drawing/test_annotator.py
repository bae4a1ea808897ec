"""The drawn picture: supervision's own pixels, confidence as opacity, and people that nobody can draw."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import supervision as sv
from hypothesis import given, settings
from hypothesis import strategies as st

from streampose.drawing.annotator import STYLES, Annotator
from streampose.drawing.parts import EdgeAnnotator, VertexAnnotator
from streampose.errors import AnnotateError, UsageError
from streampose.frames import NO_TRACK, Boxes, Image, People, Skeleton
from streampose.people.rounding import as_recorded

ASSETS = Path(__file__).resolve().parents[2] / "assets"
CONFIG = json.loads((ASSETS / "models/vitpose-small-streampose/config.json").read_text())
COCO = Skeleton(
    tuple(CONFIG["id2label"][str(i)] for i in range(17)),
    tuple((a, b) for a, b in CONFIG["edges"]),
    tuple((a, b) for a, b in CONFIG["flip_pairs"]),
)
BIRD = Skeleton(
    ("beak", "wing tip of the left", "wing tip of the right", "left foot", "right foot", "tail", "left toe"),
    ((0, 1), (0, 2), (0, 5), (3, 4), (5, 3), (1, 3), (3, 6)),
    ((1, 2), (3, 4), (6, 4)),
)
"""Seven points, told apart by pairs; the left leg has a joint more."""

ORANGE, SKY_BLUE, YELLOW, BLUE, VERMILLION = "#e69f00", "#56b4e9", "#f0e442", "#0072b2", "#d55e00"
GREEN_BGR = (115, 158, 0)
STRANGE = np.array([np.nan, np.inf, -np.inf, 0, 1e-9, -0.9, -40, 1e4, -3e9, 3e38], np.float32)


def noise(height: int, width: int, seed: int = 0) -> Image:
    """A picture on which every wrong pixel shows, read-only: nobody may draw on it."""
    image = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    image.flags.writeable = False
    return image


def people_at(xy: np.ndarray, scores: np.ndarray | float, boxes: np.ndarray | None = None) -> People:
    """People with keypoints `xy`, (N, K, 2), in boxes around them unless given."""
    xy = np.asarray(xy, np.float32)
    if boxes is None:
        boxes = np.concatenate([xy.min(axis=1), xy.max(axis=1)], axis=1)
    count = len(xy)
    found = Boxes(np.asarray(boxes, np.float32), np.full(count, 0.82, np.float32), np.zeros(count, np.int64))
    return People.of(found, xy, np.broadcast_to(np.float32(scores), xy.shape[:2]).copy(), label_of={0: "person"})


def random_people(skeleton: Skeleton, rng: np.random.Generator, count: int, height: int, width: int) -> People:
    """People of all sizes, partly outside, with every tenth coordinate one that no network should give."""
    shape = (count, len(skeleton.names), 2)
    size = rng.uniform(5, 1.2 * height, (count, 1, 1))
    middle = rng.uniform(0, (width, height), (count, 2))
    xy = (middle[:, None] + size * rng.uniform(-0.5, 0.5, shape)).astype(np.float32)
    boxes = np.concatenate([xy.min(axis=1), xy.max(axis=1)], axis=1)
    xy = np.where(rng.random(shape) < 0.1, rng.choice(STRANGE, shape), xy)
    xy[rng.random(shape[:2]) < 0.1] = 0
    return people_at(xy, rng.uniform(-0.2, 1.3, shape[:2]), boxes)


def demo_people() -> list[People]:
    """The people of the demo clip, hidden points with a middling score and those outside with a low one."""
    truth = json.loads((ASSETS / "demo_truth.json").read_text())
    score = np.array([0.1, 0.5, 0.9])
    people = []
    for frame in truth["frames"][::10]:
        points = np.array([person["keypoints"] for person in frame["people"]])
        boxes = np.array([person["box_xyxy"] for person in frame["people"]])
        people.append(people_at(points[..., :2], score[points[..., 2].astype(int)], boxes))
    return people


def line_width(box_xyxy: np.ndarray, height: int, width: int) -> int:
    """The documented formula for one person."""
    limits = np.array([width - 1, height - 1] * 2)
    left, top, right, bottom = np.clip(box_xyxy, 0, limits)
    return int(np.clip(np.rint(max(right - left, bottom - top) / 50), 1, max(2, round(min(height, width) / 270))))


def near(point: np.ndarray, height: int, width: int) -> bool:
    return -width <= point[0] <= 2 * width and -height <= point[1] <= 2 * height


def supervisions_lines(skeleton: Skeleton, image: Image, people: People, min_score: float) -> Image:
    """The style `lines` by supervision's own annotators, one for each colour and line width."""
    people = as_recorded(people)
    annotator = Annotator(skeleton)
    picture = image.copy()
    height, width = image.shape[:2]
    widths = np.array([line_width(box, height, width) for box in people.boxes_xyxy])
    visible = people.keypoint_scores >= min_score
    visible &= np.array([[near(point, height, width) for point in person] for person in people.keypoints_xy])
    groups = [(w, people.keypoints_xy[widths == w], visible[widths == w]) for w in sorted(set(widths.tolist()))]
    rim = sv.Color.from_hex("#202020")
    one_based = [(a + 1, b + 1) for a, b in skeleton.edges]
    for w, xy, shown in groups:
        key_points = sv.KeyPoints(xy=xy, visible=shown)
        if w > 1:
            sv.EdgeAnnotator(rim, w + 2, one_based).annotate(picture, key_points)
        for color in dict.fromkeys(annotator.edge_colors):
            edges = [edge for edge, its in zip(one_based, annotator.edge_colors, strict=True) if its == color]
            sv.EdgeAnnotator(sv.Color.from_hex(color), w, edges).annotate(picture, key_points)
    for w, xy, shown in groups:
        if w > 1:
            sv.VertexAnnotator(rim, w + 2).annotate(picture, sv.KeyPoints(xy=xy, visible=shown))
        for color in dict.fromkeys(annotator.point_colors):
            of_color = shown & [its == color for its in annotator.point_colors]
            key_points = sv.KeyPoints(xy=xy, visible=of_color)
            sv.VertexAnnotator(sv.Color.from_hex(color), w + 1).annotate(picture, key_points)
    return picture


def bgr(hexadecimal: str) -> tuple[int, int, int]:
    red, green, blue = bytes.fromhex(hexadecimal[1:])
    return blue, green, red


def blended(picture: np.ndarray, outline: list[tuple[float, float]], color: str, opacity: float) -> np.ndarray:
    """`picture` with a filled outline over all of it at `opacity`: the documentation's addWeighted, as it was meant."""
    filled = picture.copy()
    corners = np.rint(np.array(outline) * 16).astype(np.int32)
    cv2.fillConvexPoly(filled, corners, bgr(color), cv2.LINE_AA, 4)
    return np.rint(opacity * filled.astype(float) + (1 - opacity) * picture).astype(np.uint8)


def ellipse(center: tuple[float, float], axes: tuple[float, float], angle: float) -> list[tuple[float, float]]:
    outline = []
    for step in range(32):
        along, across = axes[0] * math.cos(step * math.pi / 16), axes[1] * math.sin(step * math.pi / 16)
        x = center[0] + along * math.cos(angle) - across * math.sin(angle)
        y = center[1] + along * math.sin(angle) + across * math.cos(angle)
        outline.append((x, y))
    return outline


def documented_weighted(skeleton: Skeleton, image: Image, people: People, min_score: float) -> Image:
    """The style `weighted`, one shape over the whole picture after the other."""
    people = as_recorded(people)
    annotator = Annotator(skeleton, style="weighted")
    picture = image.copy()
    height, width = image.shape[:2]
    widths = [line_width(box, height, width) for box in people.boxes_xyxy]
    small_first = sorted(range(len(people)), key=lambda i: widths[i])

    def shown(person: int, point: int) -> bool:
        xy = people.keypoints_xy[person, point]
        return bool(people.keypoint_scores[person, point] >= min_score and near(xy, height, width) and xy.any())

    def opacity(person: int, point: int) -> float:
        return max(0.0, min(1.0, float(people.keypoint_scores[person, point])))

    for person in small_first:
        for (a, b), color in zip(skeleton.edges, annotator.edge_colors, strict=True):
            if shown(person, a) and shown(person, b):
                (x1, y1), (x2, y2) = people.keypoints_xy[person, [a, b]].astype(float)
                length, angle = math.hypot(x2 - x1, y2 - y1), math.atan2(y2 - y1, x2 - x1)
                outline = ellipse(((x1 + x2) / 2, (y1 + y2) / 2), (length / 2, widths[person]), angle)
                picture = blended(picture, outline, color, (opacity(person, a) + opacity(person, b)) / 2)
    for person in small_first:
        for point, color in enumerate(annotator.point_colors):
            if shown(person, point):
                x, y = people.keypoints_xy[person, point].astype(float)
                radius = 1.5 * widths[person] + 1
                picture = blended(picture, ellipse((x, y), (radius, radius), 0), color, opacity(person, point))
    return picture


coordinates = st.one_of(
    st.floats(-300, 900, width=32), st.sampled_from([0.0, -0.0, 1e-9, 2e-8, math.nan, math.inf, -math.inf])
)


@settings(max_examples=150, deadline=None)
@given(
    points=st.lists(st.tuples(coordinates, coordinates, st.booleans()), min_size=7, max_size=7),
    thickness=st.integers(1, 9),
    with_visible=st.booleans(),
)
def test_each_annotator_draws_supervisions_pixels(
    points: list[tuple[float, float, bool]], thickness: int, with_visible: bool
) -> None:
    table = np.array(points)
    key_points = sv.KeyPoints(
        xy=table[None, :, :2].astype(np.float32), visible=table[None, :, 2] > 0 if with_visible else None
    )
    color = sv.Color(10, 200, 90)
    image = noise(480, 640)

    plain = sv.EdgeAnnotator(color, thickness, [(a + 1, b + 1) for a, b in BIRD.edges])
    ours = EdgeAnnotator(BIRD.edges, color, thickness)
    assert ours.edges == plain.edges
    assert np.array_equal(ours.annotate(image.copy(), key_points), plain.annotate(image.copy(), key_points))

    vertices = sv.VertexAnnotator(color, thickness).annotate(image.copy(), key_points)
    assert np.array_equal(VertexAnnotator(color, thickness).annotate(image.copy(), key_points), vertices)


def test_lines_are_supervisions_pixels_on_the_demo_clip() -> None:
    image = noise(720, 1280)
    annotator = Annotator(COCO)
    for people in demo_people():
        assert np.array_equal(annotator.annotate(image, people), supervisions_lines(COCO, image, people, 0.3))


def test_lines_are_supervisions_pixels_on_the_labelled_pictures(labelled_data: Path) -> None:
    labels = json.loads((labelled_data / "labelled/annotations.json").read_text())
    for entry in labels["images"]:
        own = [label for label in labels["annotations"] if label["image_id"] == entry["id"]]
        points = np.array([label["keypoints"] for label in own]).reshape(-1, 17, 3)
        boxes = np.array([label["bbox"] for label in own])
        boxes[:, 2:] += boxes[:, :2]
        people = people_at(points[..., :2], points[..., 2] / 2, boxes)
        image = cv2.imread(str(labelled_data / "labelled/images" / entry["file_name"]))
        assert np.array_equal(Annotator(COCO).annotate(image, people), supervisions_lines(COCO, image, people, 0.3))


@pytest.mark.parametrize("skeleton", [COCO, BIRD], ids=["coco", "bird"])
@pytest.mark.parametrize("seed", range(5))
def test_lines_are_supervisions_pixels_on_strange_people(skeleton: Skeleton, seed: int) -> None:
    rng = np.random.default_rng(seed)
    height, width = int(rng.integers(60, 1200)), int(rng.integers(60, 1200))
    image = noise(height, width)
    people = random_people(skeleton, rng, 8, height, width)
    drawn = Annotator(skeleton, min_score=0.5).annotate(image, people)
    assert np.array_equal(drawn, supervisions_lines(skeleton, image, people, 0.5))


@pytest.mark.parametrize("skeleton", [COCO, BIRD], ids=["coco", "bird"])
@pytest.mark.parametrize("seed", range(3))
def test_weighted_is_the_documented_blend(skeleton: Skeleton, seed: int) -> None:
    rng = np.random.default_rng(seed)
    height, width = int(rng.integers(60, 700)), int(rng.integers(60, 700))
    image = noise(height, width)
    people = random_people(skeleton, rng, 6, height, width)
    drawn = Annotator(skeleton, style="weighted", min_score=0.3).annotate(image, people)
    wanted = documented_weighted(skeleton, image, people, 0.3)
    assert np.abs(drawn.astype(int) - wanted).max() <= 1
    assert not np.array_equal(drawn, image)


@pytest.mark.parametrize(("score", "opacity"), [(0.3, 0.3), (0.5, 0.5), (1.0, 1.0), (1.7, 1.0)])
def test_a_weighted_point_is_as_opaque_as_it_is_sure(score: float, opacity: float) -> None:
    scores = np.zeros((1, 17))
    scores[0, 16] = score
    people = people_at(np.full((1, 17, 2), 50), scores, np.array([[0, 0, 99, 99]]))
    drawn = Annotator(COCO, style="weighted").annotate(np.full((100, 100, 3), 100, np.uint8), people)
    ankle_bgr = np.array([0, 128, 255])
    assert np.abs(drawn[50, 50] - (opacity * ankle_bgr + (1 - opacity) * 100)).max() <= 1
    assert (drawn[50, 60] == 100).all()


def test_sides_have_colours_and_legs_darker_ones() -> None:
    annotator = Annotator(COCO)
    color_of = dict(zip(COCO.names, annotator.point_colors, strict=True))
    assert (color_of["Nose"], color_of["L_Wrist"], color_of["R_Wrist"]) == (YELLOW, SKY_BLUE, ORANGE)
    assert (color_of["L_Ankle"], color_of["R_Ankle"]) == (BLUE, VERMILLION)
    color_of_edge = dict(zip(COCO.edges, annotator.edge_colors, strict=True))
    assert color_of_edge[5, 6] == color_of_edge[11, 12] == YELLOW
    assert (color_of_edge[5, 11], color_of_edge[6, 12]) == (SKY_BLUE, ORANGE)
    assert (color_of_edge[13, 11], color_of_edge[14, 12]) == (BLUE, VERMILLION)


def test_sides_come_from_the_pairs_of_any_skeleton() -> None:
    bird = Annotator(BIRD)
    assert bird.point_colors == (YELLOW, SKY_BLUE, ORANGE, BLUE, VERMILLION, YELLOW, BLUE)
    assert bird.edge_colors == (YELLOW, YELLOW, YELLOW, YELLOW, YELLOW, SKY_BLUE, BLUE)
    mirrored = Annotator(replace(BIRD, flip_pairs=tuple((b, a) for a, b in BIRD.flip_pairs)))
    assert mirrored.point_colors == (YELLOW, ORANGE, SKY_BLUE, VERMILLION, BLUE, YELLOW, VERMILLION)
    assert set(Annotator(replace(BIRD, flip_pairs=())).edge_colors) == {YELLOW}


def test_weighted_has_the_documented_colours_for_coco_alone() -> None:
    orange, pink, blue, green = "#ff8000", "#ff33ff", "#3399ff", "#00ff00"
    coco = Annotator(COCO, style="weighted")
    assert coco.edge_colors == (*[orange] * 4, *[pink] * 3, *[blue] * 5, *[green] * 7)
    assert coco.point_colors == (*[green] * 5, *[blue] * 6, *[orange] * 6)
    shuffled = replace(COCO, edges=tuple((b, a) for a, b in reversed(COCO.edges)))
    assert Annotator(shuffled, style="weighted").edge_colors == coco.edge_colors[::-1]
    for other in (BIRD, replace(COCO, edges=COCO.edges[:-2])):
        assert Annotator(other, style="weighted").edge_colors == Annotator(other).edge_colors


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize(
    ("x", "score"), [(math.nan, 1), (math.inf, 1), (-3e38, 1), (261, 1), (-131, 1), (60, 0.29), (60, math.nan)]
)
def test_a_point_that_was_not_found_leaves_no_trace(style: str, x: float, score: float) -> None:
    xy = np.array([[[x, 50], [20, 50]]], np.float32)
    pair = Skeleton(("a", "b"), ((0, 1),), ())
    people = people_at(xy, np.array([[score, 1]]), np.array([[0, 0, 99, 99]]))
    image = noise(100, 130)
    drawn = Annotator(pair, style=style).annotate(image, people)
    changed = np.argwhere((drawn != image).any(axis=2))
    assert len(changed)
    assert np.abs(changed - (50, 20)).max() <= 5


@pytest.mark.parametrize("style", STYLES)
def test_points_lie_above_all_edges_and_large_people_above_small_ones(style: str) -> None:
    crossing = Skeleton(("middle", "left", "right"), ((0, 1),), ((1, 2),))
    xy = np.array([[[100, 100], [300, 100], [0, 0]], [[200, 30], [200, 100], [0, 0]], [[300, 100], [300, 200], [0, 0]]])
    boxes = np.array([[0, 0, 399, 399], [0, 0, 20, 20], [0, 0, 20, 20]])
    drawn = Annotator(crossing, style=style).annotate(np.zeros((400, 400, 3), np.uint8), people_at(xy, 1.0, boxes))
    yellow, sky_blue = bgr(YELLOW), bgr(SKY_BLUE)
    assert tuple(drawn[100, 200]) == sky_blue, "a small person's point is above a large one's limb"
    assert tuple(drawn[100, 300]) == sky_blue, "a large person's point is above a small one's"
    assert tuple(drawn[100, 150]) == yellow


@pytest.mark.parametrize("style", STYLES)
def test_nobody_is_a_plain_copy(style: str) -> None:
    image = noise(48, 64)
    drawn = Annotator(COCO, style=style, boxes=True, labels=True).annotate(image, People.none(17))
    assert np.array_equal(drawn, image)
    assert not np.shares_memory(drawn, image)


@pytest.mark.parametrize("style", STYLES)
def test_the_image_is_never_drawn_on(style: str) -> None:
    image = noise(240, 320)
    before = image.copy()
    people = random_people(COCO, np.random.default_rng(1), 3, 240, 320)
    drawn = Annotator(COCO, style=style, boxes=True, labels=True).annotate(image[:, ::-1], people)
    assert np.array_equal(image, before)
    assert not np.array_equal(drawn, image[:, ::-1])
    assert drawn.flags.c_contiguous
    assert drawn.flags.writeable


def tagged(boxes: list[list[float]], tracks: list[int]) -> People:
    """People without a visible point."""
    people = people_at(np.zeros((len(boxes), 17, 2)), 0.0, np.array(boxes))
    return replace(people, track_ids=np.array(tracks))


def test_boxes_have_their_tracks_colour() -> None:
    people = tagged([[10, 30, 60, 90], [100, 30, 160, 90], [200, 30, 260, 90]], [7, 8, NO_TRACK])
    image = np.zeros((120, 300, 3), np.uint8)
    first, second, untracked = (
        tuple(Annotator(COCO, boxes=True).annotate(image, people)[60, x]) for x in (10, 100, 200)
    )
    assert len({first, second, untracked, (0, 0, 0)}) == 4
    assert untracked == GREEN_BGR
    later = tagged([[10, 30, 60, 90]], [8])
    assert tuple(Annotator(COCO, boxes=True).annotate(image, later)[60, 10]) == second


@pytest.mark.parametrize(("track", "text"), [(NO_TRACK, "person 0.82"), (3, "#3 0.82")])
def test_labels_are_supervisions_with_track_or_class(track: int, text: str) -> None:
    people = tagged([[40, 60, 200, 180]], [track])
    image = noise(240, 320)
    drawn = Annotator(COCO, labels=True).annotate(image, people)
    color = sv.Color(*drawn[59, 41, ::-1].tolist())
    plain = sv.LabelAnnotator(color, text_color=sv.Color.BLACK, text_scale=0.4, text_padding=4)
    assert np.array_equal(drawn, plain.annotate(image.copy(), people.to_detections(), [text]))
    assert color.as_bgr() == GREEN_BGR or track != NO_TRACK


@pytest.mark.parametrize("box", [[-50, -50, 100, 100], [290, 0, 320, 100], [319, 239, 400, 400], [-1e30, 5, 1e30, 6]])
def test_a_label_stays_within_the_picture(box: list[float]) -> None:
    annotator = Annotator(COCO, labels=True)
    image = np.full((240, 320, 3), 255, np.uint8)
    inside = annotator.annotate(image, tagged([[100, 100, 200, 200]], [NO_TRACK]))
    at_the_rim = annotator.annotate(image, tagged([box], [NO_TRACK]))
    visible = box[0] < 319
    assert (at_the_rim != 255).any(axis=2).sum() == visible * (inside != 255).any(axis=2).sum()


@pytest.mark.parametrize("style", STYLES)
def test_strange_boxes_are_drawable(style: str) -> None:
    boxes = [[math.nan] * 4, [-math.inf, 0, math.inf, 50], [90, 90, 10, 10], [-3e38, 0, 3e38, 50]]
    people = replace(tagged(boxes, [1, 2, 3, 4]), keypoint_scores=np.ones((4, 17), np.float32))
    image = noise(100, 100)
    drawn = Annotator(COCO, style=style, boxes=True, labels=True).annotate(image, people)
    assert not np.array_equal(drawn, image)


def test_an_unknown_style_names_the_right_ones() -> None:
    with pytest.raises(UsageError, match=r"'fancy'.*lines, weighted"):
        Annotator(COCO, style="fancy")


@pytest.mark.parametrize("image", [np.zeros((9, 9), np.uint8), np.zeros((9, 9, 4), np.uint8), np.zeros((9, 9, 3))])
def test_what_is_no_picture_is_refused(image: np.ndarray) -> None:
    with pytest.raises(AnnotateError, match=r"an image must be uint8 \(H, W, 3\)"):
        Annotator(COCO).annotate(image, People.none(17))


def test_people_of_another_skeleton_are_refused() -> None:
    with pytest.raises(AnnotateError, match="7 points with a skeleton of 17"):
        Annotator(COCO).annotate(noise(9, 9), People.none(7))


@pytest.mark.parametrize("style", STYLES)
def test_an_unexpected_failure_becomes_one_known_error(style: str) -> None:
    broken = replace(BIRD, edges=((0, 99),))
    people = random_people(BIRD, np.random.default_rng(0), 1, 100, 100)
    with pytest.raises(AnnotateError, match=r"cannot draw 1 people: .*99") as caught:
        Annotator(broken, style=style).annotate(noise(100, 100), people)
    assert isinstance(caught.value.__cause__, IndexError)


def test_ellipses_hold_nine_of_ten_points_of_their_distribution() -> None:
    """A tilted one, found on the picture by its outline."""
    covariance = np.array([[900.0, 400.0], [400.0, 400.0]])
    people = replace(
        people_at(np.full((1, 17, 2), 150.0), np.array([[1.0] + [0.0] * 16])),
        keypoint_covariances=np.tile(covariance, (1, 17, 1, 1)).astype(np.float32),
    )
    image = np.zeros((300, 300, 3), np.uint8)
    plain = Annotator(COCO).annotate(image, people)
    drawn = Annotator(COCO, ellipses=True).annotate(image, people)
    rows, columns = np.nonzero((drawn != plain).any(axis=2))
    away = np.stack([columns, rows], axis=1) - 150.0
    distances = np.sqrt(np.einsum("ni,ij,nj->n", away, np.linalg.inv(covariance), away))
    expected = math.sqrt(-2 * math.log(1 - 0.9))
    assert distances.min() > expected * 0.93
    assert distances.max() < expected * 1.07
    drawn_points = np.random.default_rng(0).multivariate_normal([0, 0], covariance, 20_000)
    inside = np.einsum("ni,ij,nj->n", drawn_points, np.linalg.inv(covariance), drawn_points) < expected**2
    assert inside.mean() == pytest.approx(0.9, abs=0.01)


def test_ellipses_of_hidden_points_and_of_unknown_size_are_left_out() -> None:
    people = random_people(COCO, np.random.default_rng(2), 2, 240, 320)
    image = noise(240, 320)
    plain = Annotator(COCO).annotate(image, people)
    assert np.array_equal(Annotator(COCO, ellipses=True).annotate(image, people), plain), "there are none"
    for covariance in (math.nan, math.inf):
        unknown = replace(people, keypoint_covariances=np.full((2, 17, 2, 2), covariance, np.float32))
        assert np.array_equal(Annotator(COCO, ellipses=True).annotate(image, unknown), plain)
    huge = replace(people, keypoint_covariances=np.tile(np.eye(2, dtype=np.float32) * 1e30, (2, 17, 1, 1)))
    Annotator(COCO, ellipses=True).annotate(image, huge)


def test_but_changes_only_what_is_named() -> None:
    annotator = Annotator(COCO, style="weighted", labels=True, min_score=0.2, ellipses=True)
    annotator = annotator.but(angles=["knee"], hide="background")
    changed = annotator.but(labels=False)
    assert (changed.angles, changed.hide) == (["knee"], "background")
    assert (changed.style, changed.labels, changed.min_score, changed.ellipses) == ("weighted", False, 0.2, True)
    assert annotator.labels
    with pytest.raises(UsageError, match="fancy"):
        annotator.but(style="fancy")
