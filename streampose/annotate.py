"""Draws people on frames. This is the only module that uses supervision's drawing.

It has no state between frames: the same people on the same frame give the same pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import Literal, get_args

import cv2
import numpy as np
import numpy.typing as npt
import supervision as sv
from supervision.draw.base import ImageType
from supervision.utils.conversion import ensure_cv2_image_for_class_method

from streampose.errors import AnnotateError, UsageError, describe
from streampose.frames import NO_TRACK, Float32, Image, Int64, People, Skeleton

Style = Literal["lines", "weighted"]
STYLES: tuple[str, ...] = get_args(Style)
ColourBy = Literal["side", "person"]

_Bool = npt.NDArray[np.bool_]
_Float64 = npt.NDArray[np.float64]

# Okabe and Ito, "Color Universal Design", https://jfly.uni-koeln.de/color/: distinguishable with any colour vision.
_ORANGE, _SKY_BLUE, _GREEN, _YELLOW = "#e69f00", "#56b4e9", "#009e73", "#f0e442"
_BLUE, _VERMILLION, _PURPLE = "#0072b2", "#d55e00", "#cc79a7"

_MIDDLE = _YELLOW
_LEFT, _LEFT_LEG = _SKY_BLUE, _BLUE
_RIGHT, _RIGHT_LEG = _ORANGE, _VERMILLION
_LEG_WORDS = ("leg", "hip", "thigh", "knee", "shin", "calf", "ankle", "foot", "heel", "toe")

_RIM = "#202020"
"""The colour of a one-pixel rim around lines and points. Without a rim, no colour stands out from every background."""

_UNTRACKED = _GREEN
_TRACKED = (_SKY_BLUE, _ORANGE, _PURPLE, _YELLOW, _BLUE, _VERMILLION)
_TAG_COLORS = sv.ColorPalette.from_hex([*_TRACKED, _UNTRACKED])

# The ViTPose documentation's colours for COCO's points and edges; see `Annotator`.
_DOC_LEG, _DOC_TRUNK, _DOC_ARM, _DOC_HEAD = "#ff8000", "#ff33ff", "#3399ff", "#00ff00"
_DOC_POINTS = (*[_DOC_HEAD] * 5, *[_DOC_ARM] * 6, *[_DOC_LEG] * 6)
_DOC_EDGES = {
    **dict.fromkeys([(15, 13), (13, 11), (16, 14), (14, 12)], _DOC_LEG),
    **dict.fromkeys([(11, 12), (5, 11), (6, 12)], _DOC_TRUNK),
    **dict.fromkeys([(5, 6), (5, 7), (6, 8), (7, 9), (8, 10)], _DOC_ARM),
    **dict.fromkeys([(1, 2), (0, 1), (0, 2), (1, 3), (2, 4), (3, 5), (4, 6)], _DOC_HEAD),
}

_ANGLES = np.linspace(0, 2 * np.pi, 32, endpoint=False)
_CIRCLE = np.stack([np.cos(_ANGLES), np.sin(_ANGLES)], axis=1)
"""The unit circle as a polygon, (32, 2). 32 corners are enough for the sizes of points and limbs."""


class EdgeAnnotator(sv.EdgeAnnotator):
    """`sv.EdgeAnnotator` for one skeleton: the same pixels, an order of magnitude faster.

    supervision calls `np.allclose` twice for every edge and draws each edge separately. This class checks the edges of
    all people together and draws them with one OpenCV call.
    """

    def __init__(self, edges: Sequence[tuple[int, int]], color: sv.Color, thickness: int) -> None:
        """`edges` are pairs of 0-based indices (supervision's are 1-based). `thickness` is in pixels."""
        super().__init__(color=color, thickness=thickness, edges=[(a + 1, b + 1) for a, b in edges])
        self._ends = _ends(edges)

    @ensure_cv2_image_for_class_method
    def annotate(self, scene: ImageType, key_points: sv.KeyPoints) -> ImageType:
        """Draw the edges with two drawable ends on `scene` and return it."""
        assert isinstance(scene, np.ndarray)  # the decorator ensures this
        self.draw(scene, key_points.xy, _drawable(key_points))
        return scene

    def draw(self, scene: Image, xy: Float32, drawable: _Bool) -> None:
        """Draw on `scene` the edges between points `xy` (N, K, 2) if both ends are `drawable` (N, K)."""
        whole = drawable[:, self._ends].all(axis=2)
        segments = xy[:, self._ends, :2][whole].astype(np.int32)
        cv2.polylines(scene, list(segments), False, self.color.as_bgr(), self.thickness)


class VertexAnnotator(sv.VertexAnnotator):
    """`sv.VertexAnnotator` that processes all people together: the same pixels, an order of magnitude faster."""

    @ensure_cv2_image_for_class_method
    def annotate(self, scene: ImageType, key_points: sv.KeyPoints) -> ImageType:
        """Draw the drawable points on `scene` and return it."""
        assert isinstance(scene, np.ndarray)  # the decorator ensures this
        self.draw(scene, key_points.xy, _drawable(key_points))
        return scene

    def draw(self, scene: Image, xy: Float32, drawable: _Bool) -> None:
        """Draw on `scene` the points `xy` (N, K, 2) that are `drawable` (N, K)."""
        color = self.color.as_bgr()
        for center in xy[drawable, :2].astype(np.int32).tolist():
            cv2.circle(scene, center, self.radius, color, -1)


class Annotator:
    """Draws the people of a frame on a copy of the image. It keeps no state between calls, so threads can share it.

    Style `lines`: supervision's edges and vertices with a dark rim. The left, right and middle of the body have one
    colour each; legs are darker than arms. Large people are drawn over small ones, and all vertices over all edges.

    Style `weighted`: the second visualisation in the ViTPose documentation ("Visualization for advanced user" with
    `show_keypoint_weight`, https://huggingface.co/docs/transformers/model_doc/vitpose). Limbs are filled ellipses. Each
    point is blended with its score clamped to 0..1, and each limb with the mean score of its two ends. COCO's 17 points
    with 19 edges get the documentation's colours; other skeletons get those of `lines`. The documentation's code blends
    the image with itself, which has no effect; this class implements the intended result. Points are drawn over limbs,
    so that they stay visible.
    """

    def __init__(
        self,
        skeleton: Skeleton,
        *,
        style: Style = "lines",
        min_score: float = 0.3,
        boxes: bool = False,
        labels: bool = False,
        colour_by: ColourBy = "side",
    ) -> None:
        """Store the settings.

        Args:
            skeleton: names and edges of the points.
            style: `lines` or `weighted`.
            min_score: points with a lower score, and their edges, are not drawn.
            boxes: draw each person's box, coloured by track.
            labels: draw each person's track (or class) and box score, coloured by track.
            colour_by: `side` as described above; `person` draws each skeleton in the colour of its track.

        Raises:
            UsageError: the style is unknown.
        """
        if style not in STYLES:
            raise UsageError(f"unknown style {style!r}: choose one of {', '.join(STYLES)}")
        self._style = style
        self._min_score = min_score
        self._boxes = boxes
        self._labels = labels
        self._by_person = colour_by == "person"
        self._skeleton = skeleton
        colors = _documented_colors if style == "weighted" else _side_colors
        self.point_colors, self.edge_colors = colors(skeleton)
        """Hexadecimal RGB colours of the skeleton's points and edges, in the skeleton's order."""
        self._points_of = {color: np.array(self.point_colors) == color for color in self.point_colors}
        self._edges_of = {
            color: [edge for edge, its in zip(skeleton.edges, self.edge_colors, strict=True) if its == color]
            for color in self.edge_colors
        }

    def annotate(self, image: Image, people: People) -> Image:
        """Return a copy of `image`, (H, W, 3) uint8 BGR, with `people` drawn on it, at their smoothed keypoints if any.

        A point counts as not found if it is not finite, or if its distance from the image exceeds the image size.

        Raises:
            AnnotateError: the image has the wrong format, the people do not match the skeleton, or drawing fails.
        """
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
            raise AnnotateError(f"cannot draw on {image.dtype} {image.shape}: an image must be uint8 (H, W, 3)")
        if people.smooth_xy is not None:
            people = replace(people, keypoints_xy=people.smooth_xy)
        point_count = people.keypoints_xy.shape[1]
        if point_count != len(self._skeleton.names):
            raise AnnotateError(
                f"cannot draw {point_count} points with a skeleton of {len(self._skeleton.names)}: "
                "use the skeleton of the network that found them"
            )
        drawn: Image = image.copy()
        if len(people) == 0:
            return drawn
        try:
            self._draw(drawn, people)
        except Exception as error:
            raise AnnotateError(f"cannot draw {len(people)} people: {describe(error)}") from error
        return drawn

    def _draw(self, drawn: Image, people: People) -> None:
        people = replace(people, boxes_xyxy=_clipped(people.boxes_xyxy, drawn))
        visible = _drawable(people.to_key_points(self._min_score)) & _is_near(people.keypoints_xy, drawn)
        line_widths = _line_widths(people.boxes_xyxy, drawn)
        if self._boxes:
            _draw_boxes(drawn, _tags(people))
        if self._style == "weighted":
            self._draw_weighted(drawn, people, visible, line_widths)
        else:
            self._draw_lines(drawn, people, visible, line_widths)
        if self._labels:
            _draw_labels(drawn, _tags(people))

    def _draw_lines(self, drawn: Image, people: People, visible: _Bool, line_widths: Int64) -> None:
        colors = _person_colors(people) if self._by_person else np.full(len(people), "")
        groups = []
        for width, color in sorted({*zip(line_widths.tolist(), colors.tolist(), strict=True)}):
            chosen = (line_widths == width) & (colors == color)
            groups.append((width, color, people.keypoints_xy[chosen], visible[chosen]))
        # A line of one pixel has no rim, because the rim would hide most of it.
        for width, own, xy, shown in groups:
            if width > 1:
                EdgeAnnotator(self._skeleton.edges, _color(_RIM), width + 2).draw(drawn, xy, shown)
            for color, edges in ({own: self._skeleton.edges} if own else self._edges_of).items():
                EdgeAnnotator(edges, _color(color), width).draw(drawn, xy, shown)
        for width, own, xy, shown in groups:
            if width > 1:
                VertexAnnotator(_color(_RIM), width + 2).draw(drawn, xy, shown)
            for color, points in ({own: np.True_} if own else self._points_of).items():
                VertexAnnotator(_color(color), width + 1).draw(drawn, xy, shown & points)

    def _draw_weighted(self, drawn: Image, people: People, visible: _Bool, line_widths: Int64) -> None:
        small_first = np.argsort(line_widths, kind="stable")
        xy, visible = people.keypoints_xy[small_first].astype(np.float64), visible[small_first]
        opacities = people.keypoint_scores[small_first].clip(0, 1)
        widths = line_widths[small_first]
        own = _person_colors(people)[small_first] if self._by_person else None

        ends = _ends(self._skeleton.edges)
        person, edge = np.nonzero(visible[:, ends].all(axis=2))
        of_end = person[:, None], ends[edge]
        # At line width 2, these are the documentation's sizes: limbs of 2 pixels to each side, points of radius 4.
        limbs = _ellipses(xy[of_end], widths[person])
        colors = [self.edge_colors[i] for i in edge] if own is None else own[person].tolist()
        _blend(drawn, limbs, colors, opacities[of_end].mean(axis=1))

        person, point = np.nonzero(visible)
        points = xy[person, point, None] + (1.5 * widths[person] + 1)[:, None, None] * _CIRCLE
        colors = [self.point_colors[i] for i in point] if own is None else own[person].tolist()
        _blend(drawn, points, colors, opacities[person, point])


@cache
def _color(hexadecimal: str) -> sv.Color:
    return sv.Color.from_hex(hexadecimal)


def _ends(edges: Sequence[tuple[int, int]]) -> npt.NDArray[np.intp]:
    """Return the edges as an array (E, 2). E can be 0."""
    return np.array(edges, np.intp).reshape(-1, 2)


def _drawable(key_points: sv.KeyPoints) -> _Bool:
    """Return a mask (N, K) of the points that supervision draws: visible, finite, and not (0, 0), its missing point."""
    farthest = np.abs(key_points.xy[..., :2]).max(axis=2)  # NaN if x or y is NaN
    # 1e-8 is the tolerance of np.allclose, which supervision uses to detect missing points.
    drawable = np.asarray((farthest > 1e-8) & (farthest < np.inf))
    return drawable if key_points.visible is None else drawable & key_points.visible


def _is_near(xy: Float32, drawn: Image) -> _Bool:
    """Return a mask (N, K) of the points at most one image size outside the image.

    The limit avoids overflows of OpenCV's integer coordinates.
    """
    size = np.array(drawn.shape[1::-1])
    return np.asarray((np.abs(xy - size / 2) <= 1.5 * size).all(axis=2))


def _clipped(boxes_xyxy: Float32, drawn: Image) -> Float32:
    """Return the boxes (N, 4) made finite and clipped to the image. A box outside the image becomes empty."""
    height, width = drawn.shape[:2]
    return np.clip(np.nan_to_num(boxes_xyxy), 0, np.array([width - 1, height - 1] * 2, np.float32))


def _line_width(drawn: Image) -> int:
    """Return the line width in pixels: 1/270 of the image's shorter side (1080p: 4, 720p: 3), at least 2."""
    shorter_side: int = min(drawn.shape[:2])
    return max(2, round(shorter_side / 270))


def _line_widths(boxes_xyxy: Float32, drawn: Image) -> Int64:
    """Return each person's line width (N,) in pixels.

    It is 1/50 of the box's longer side, but at most the image's line width and at least 1.
    """
    sides = (boxes_xyxy[:, 2:] - boxes_xyxy[:, :2]).max(axis=1)
    widths: Int64 = np.clip(np.rint(sides / 50), 1, _line_width(drawn)).astype(np.int64)
    return widths


def _side_colors(skeleton: Skeleton) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the colours of points and edges by body side.

    The side of a point comes from `flip_pairs`. An edge has the side that both its ends share. A point or edge is
    darker if all its names belong to a leg.
    """
    left = {a for a, _ in skeleton.flip_pairs}
    right = {b for _, b in skeleton.flip_pairs}
    legs = {i for i, name in enumerate(skeleton.names) if any(word in name.lower() for word in _LEG_WORDS)}

    def color(*points: int) -> str:
        if left.issuperset(points):
            return _LEFT_LEG if legs.issuperset(points) else _LEFT
        if right.issuperset(points):
            return _RIGHT_LEG if legs.issuperset(points) else _RIGHT
        return _MIDDLE

    return tuple(color(i) for i in range(len(skeleton.names))), tuple(color(*edge) for edge in skeleton.edges)


def _documented_colors(skeleton: Skeleton) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the ViTPose documentation's colours of points and edges; for other skeletons, the colours by side."""
    by_edge = {frozenset(edge): color for edge, color in _DOC_EDGES.items()}
    edges = [frozenset(edge) for edge in skeleton.edges]
    if len(skeleton.names) != len(_DOC_POINTS) or set(edges) != set(by_edge):
        return _side_colors(skeleton)
    return _DOC_POINTS, tuple(by_edge[edge] for edge in edges)


def _ellipses(ends: _Float64, half_widths: Int64) -> _Float64:
    """Return outlines (M, 32, 2) of ellipses. The long axis of each ellipse joins the two points in `ends` (M, 2, 2).

    `cv2.ellipse2Poly` is not used: it rounds the axes to pixels and the angle to degrees, so limbs would miss their
    joints.
    """
    middle, half = ends.mean(axis=1), (ends[:, 1] - ends[:, 0]) / 2
    length = np.maximum(np.hypot(half[:, 0], half[:, 1]), 1e-3)  # avoids a division by zero if both ends coincide
    across = half[:, ::-1] * np.array([-1, 1]) * (half_widths / length)[:, None]
    outlines: _Float64 = middle[:, None] + _CIRCLE[:, :1] * half[:, None] + _CIRCLE[:, 1:] * across[:, None]
    return outlines


def _blend(drawn: Image, outlines: _Float64, colors: Sequence[str], opacities: Float32) -> None:
    """Blend the filled convex `outlines` (M, P, 2), in pixels, in order. Only each bounding rectangle is processed."""
    subpixel_bits, soft_edge_px = 4, 2
    height, width = drawn.shape[:2]
    low = np.maximum(np.floor(outlines.min(axis=1)) - soft_edge_px, 0).astype(int)
    high = np.minimum(np.ceil(outlines.max(axis=1)) + soft_edge_px + 1, (width, height)).astype(int)
    corners = np.rint((outlines - low[:, None]) * 2**subpixel_bits).astype(np.int32)
    bgr = {color: _color(color).as_bgr() for color in set(colors)}
    for (left, top), (right, bottom), polygon, color, opacity in zip(
        low.tolist(), high.tolist(), corners, colors, opacities.tolist(), strict=True
    ):
        if left >= right or top >= bottom:
            continue
        below = drawn[top:bottom, left:right]
        filled = below.copy()
        cv2.fillConvexPoly(filled, polygon, bgr[color], cv2.LINE_AA, subpixel_bits)
        cv2.addWeighted(filled, opacity, below, 1 - opacity, 0, dst=below)


def _tags(people: People) -> sv.Detections:
    """Return the people with a non-empty box. `track` and `score` are stored in `data`, where no value is optional."""
    detections = people.to_detections()
    detections.data |= {"track": people.track_ids, "score": people.box_scores}
    shown = detections[np.asarray((people.boxes_xyxy[:, 2:] > people.boxes_xyxy[:, :2]).all(axis=1))]
    assert isinstance(shown, sv.Detections)  # guaranteed for an index that is not a string
    return shown


def _person_colors(people: People) -> npt.NDArray[np.str_]:
    """Return each person's hexadecimal colour (N,), by track."""
    colors = np.array([*_TRACKED, _UNTRACKED])
    return colors[np.where(people.track_ids == NO_TRACK, len(_TRACKED), people.track_ids % len(_TRACKED))]


def _tag_colors(tags: sv.Detections) -> Int64:
    """Return (N,) indices into `_TAG_COLORS`."""
    tracks = np.asarray(tags.data["track"])
    return np.where(tracks == NO_TRACK, len(_TRACKED), tracks % len(_TRACKED))


def _draw_boxes(drawn: Image, tags: sv.Detections) -> None:
    sv.BoxAnnotator(_TAG_COLORS, thickness=(_line_width(drawn) + 1) // 2).annotate(drawn, tags, _tag_colors(tags))


def _draw_labels(drawn: Image, tags: sv.Detections) -> None:
    height, width = drawn.shape[:2]
    scale = max(0.4, min(height, width) / 1440)
    padding = round(10 * scale)
    texts = [
        f"{name if track == NO_TRACK else f'#{track}'} {score:.2f}"
        for name, track, score in zip(tags.data["class_name"], tags.data["track"], tags.data["score"], strict=True)
    ]
    places = tags.xyxy.copy()
    for place, text in zip(places, texts, strict=True):
        (text_width, text_height), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, 1)
        # supervision puts a label above the box's top left corner, even if that is outside the image.
        place[0] = max(0, min(place[0], width - 1 - text_width - 2 * padding))
        place[1] = max(place[1], text_height + 2 * padding)
    annotator = sv.LabelAnnotator(_TAG_COLORS, text_color=sv.Color.BLACK, text_scale=scale, text_padding=padding)
    annotator.annotate(drawn, sv.Detections(xyxy=places), texts, _tag_colors(tags))
