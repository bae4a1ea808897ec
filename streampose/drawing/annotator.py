"""Draws people on frames.

It has no state between frames: the same people on the same frame give the same pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal, get_args

import cv2
import numpy as np
import numpy.typing as npt

from streampose.drawing.angles import draw_angles
from streampose.drawing.colours import RIM, documented_colors, person_colors, side_colors, sv_color
from streampose.drawing.parts import EdgeAnnotator, VertexAnnotator, drawable, edge_ends
from streampose.drawing.shapes import (
    CIRCLE,
    SUBPIXEL_BITS,
    blend,
    clipped,
    is_near,
    limb_outlines,
    person_line_widths,
    spread_outlines,
)
from streampose.drawing.tags import draw_boxes, draw_labels, tags_of
from streampose.errors import AnnotateError, UsageError, describe
from streampose.frames import Image, Int64, People, Skeleton
from streampose.people.angles import AngleMeter
from streampose.people.rounding import as_recorded

Style = Literal["lines", "weighted"]
STYLES: tuple[str, ...] = get_args(Style)
ColourBy = Literal["side", "person"]
Hide = Literal["background"]
ELLIPSE_SHARE = 0.9
_SETTINGS = ("style", "min_score", "boxes", "labels", "colour_by", "ellipses", "angles", "hide")

_Bool = npt.NDArray[np.bool_]


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
        ellipses: bool = False,
        angles: Sequence[str] | None = None,
        hide: Hide | None = None,
    ) -> None:
        """Store the settings.

        Args:
            skeleton: names and edges of the points.
            style: `lines` or `weighted`.
            min_score: points with a lower score, and their edges, are not drawn.
            boxes: draw each person's box, coloured by track.
            labels: draw each person's track (or class) and box score, coloured by track.
            colour_by: `side` as described above; `person` draws each skeleton in the colour of its track.
            ellipses: draw around each keypoint the ellipse that holds its true place with a probability of
                `ELLIPSE_SHARE`, by `People.keypoint_covariances`.
            angles: names of angles to draw, such as `left_knee`, or `knee` for both sides; see
                `streampose.people.angles`.
            hide: `background` draws on black instead of the image.

        Raises:
            UsageError: the style or an angle is unknown, or the skeleton lacks the keypoints of an angle.
        """
        if style not in STYLES:
            raise UsageError(f"unknown style {style!r}: choose one of {', '.join(STYLES)}")
        self.skeleton = skeleton
        self.style = style
        self.min_score = min_score
        self.boxes = boxes
        self.labels = labels
        self.colour_by = colour_by
        self.ellipses = ellipses
        self.angles = angles
        self.hide = hide
        self._meter = None if angles is None else AngleMeter(skeleton.names, angles)
        colors = documented_colors if style == "weighted" else side_colors
        self.point_colors, self.edge_colors = colors(skeleton)
        """Hexadecimal RGB colours of the skeleton's points and edges, in the skeleton's order."""
        self._points_of = {color: np.array(self.point_colors) == color for color in self.point_colors}
        self._edges_of = {
            color: [edge for edge, its in zip(skeleton.edges, self.edge_colors, strict=True) if its == color]
            for color in self.edge_colors
        }

    def but(self, **settings: Any) -> Annotator:
        """Return an annotator with some settings changed, as in the constructor."""
        own = {name: getattr(self, name) for name in _SETTINGS}
        return Annotator(self.skeleton, **{**own, **settings})

    def annotate(self, image: Image, people: People) -> Image:
        """Return a copy of `image`, (H, W, 3) uint8 BGR, with `people` drawn on it, at their smoothed keypoints if any.

        People are drawn with the precision of a poses file, so that they can be drawn again from one. A point counts as
        not found if it is not finite, or if its distance from the image exceeds the image size.

        Raises:
            AnnotateError: the image has the wrong format, the people do not match the skeleton, or drawing fails.
        """
        people = self._prepared(image, people)
        return self._drawn_on(image.copy() if self.hide is None else np.zeros_like(image), people)

    def cut_out(self, image: Image, people: People) -> Image:
        """Return what `annotate` draws on `image`, without the image: (H, W, 4) uint8 BGR with opacity.

        Raises:
            AnnotateError: see `annotate`.
        """
        people = self._prepared(image, people)
        on_black, on_white = (self._drawn_on(np.full_like(image, level), people).astype(int) for level in (0, 255))
        # What shines through is the difference between both grounds. Rounding makes channels differ by 1.
        opacity = 255 - (on_white - on_black).min(axis=2, keepdims=True)
        color = np.minimum(on_black * 255 // np.maximum(opacity, 1), 255)
        return np.concatenate([color, opacity], axis=2).astype(np.uint8)

    def _prepared(self, image: Image, people: People) -> People:
        """Return the people as they are drawn. Raises `AnnotateError`."""
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
            raise AnnotateError(f"cannot draw on {image.dtype} {image.shape}: an image must be uint8 (H, W, 3)")
        people = as_recorded(people)
        if people.smooth_xy is not None:
            people = replace(people, keypoints_xy=people.smooth_xy)
        point_count = people.keypoints_xy.shape[1]
        if point_count != len(self.skeleton.names):
            raise AnnotateError(
                f"cannot draw {point_count} points with a skeleton of {len(self.skeleton.names)}: "
                "use the skeleton of the network that found them"
            )
        return people

    def _drawn_on(self, drawn: Image, people: People) -> Image:
        if len(people) == 0:
            return drawn
        try:
            self._draw(drawn, people)
        except Exception as error:
            raise AnnotateError(f"cannot draw {len(people)} people: {describe(error)}") from error
        return drawn

    def _draw(self, drawn: Image, people: People) -> None:
        people = replace(people, boxes_xyxy=clipped(people.boxes_xyxy, drawn))
        visible = drawable(people.to_key_points(self.min_score)) & is_near(people.keypoints_xy, drawn)
        widths = person_line_widths(people.boxes_xyxy, drawn)
        if self.ellipses and people.keypoint_covariances is not None:
            self._draw_ellipses(drawn, people, visible, widths)
        if self.boxes:
            draw_boxes(drawn, tags_of(people))
        if self.style == "weighted":
            self._draw_weighted(drawn, people, visible, widths)
        else:
            self._draw_lines(drawn, people, visible, widths)
        if self._meter is not None:
            draw_angles(drawn, people, visible, widths, self._meter)
        if self.labels:
            draw_labels(drawn, tags_of(people))

    def _draw_ellipses(self, drawn: Image, people: People, visible: _Bool, widths: Int64) -> None:
        assert people.keypoint_covariances is not None
        is_known = np.asarray(np.isfinite(people.keypoint_covariances).all(axis=(2, 3)))
        person, point = np.nonzero(visible & is_known)
        outlines = spread_outlines(
            people.keypoints_xy[person, point].astype(np.float64),
            people.keypoint_covariances[person, point].astype(np.float64),
            ELLIPSE_SHARE,
        )
        # A wider ellipse says nothing that can be drawn, and would overflow OpenCV's coordinates.
        largest = 2 * max(drawn.shape[:2])
        own = person_colors(people) if self.colour_by == "person" else None
        for one, at, outline in zip(person.tolist(), point.tolist(), outlines.clip(-largest, largest), strict=True):
            color = sv_color(self.point_colors[at] if own is None else own[one]).as_bgr()
            points = np.rint(outline * 2**SUBPIXEL_BITS).astype(np.int32)
            cv2.polylines(drawn, [points], True, color, max(1, int(widths[one]) // 2), cv2.LINE_AA, SUBPIXEL_BITS)

    def _draw_lines(self, drawn: Image, people: People, visible: _Bool, line_widths: Int64) -> None:
        colors = person_colors(people) if self.colour_by == "person" else np.full(len(people), "")
        groups = []
        for width, color in sorted({*zip(line_widths.tolist(), colors.tolist(), strict=True)}):
            chosen = (line_widths == width) & (colors == color)
            groups.append((width, color, people.keypoints_xy[chosen], visible[chosen]))
        # A line of one pixel has no rim, because the rim would hide most of it.
        for width, own, xy, shown in groups:
            if width > 1:
                EdgeAnnotator(self.skeleton.edges, sv_color(RIM), width + 2).draw(drawn, xy, shown)
            for color, edges in ({own: self.skeleton.edges} if own else self._edges_of).items():
                EdgeAnnotator(edges, sv_color(color), width).draw(drawn, xy, shown)
        for width, own, xy, shown in groups:
            if width > 1:
                VertexAnnotator(sv_color(RIM), width + 2).draw(drawn, xy, shown)
            for color, points in ({own: np.True_} if own else self._points_of).items():
                VertexAnnotator(sv_color(color), width + 1).draw(drawn, xy, shown & points)

    def _draw_weighted(self, drawn: Image, people: People, visible: _Bool, line_widths: Int64) -> None:
        small_first = np.argsort(line_widths, kind="stable")
        xy, visible = people.keypoints_xy[small_first].astype(np.float64), visible[small_first]
        opacities = people.keypoint_scores[small_first].clip(0, 1)
        widths = line_widths[small_first]
        own = person_colors(people)[small_first] if self.colour_by == "person" else None

        ends = edge_ends(self.skeleton.edges)
        person, edge = np.nonzero(visible[:, ends].all(axis=2))
        of_end = person[:, None], ends[edge]
        # At line width 2, these are the documentation's sizes: limbs of 2 pixels to each side, points of radius 4.
        limbs = limb_outlines(xy[of_end], widths[person])
        colors = [self.edge_colors[i] for i in edge] if own is None else own[person].tolist()
        blend(drawn, limbs, colors, opacities[of_end].mean(axis=1))

        person, point = np.nonzero(visible)
        points = xy[person, point, None] + (1.5 * widths[person] + 1)[:, None, None] * CIRCLE
        colors = [self.point_colors[i] for i in point] if own is None else own[person].tolist()
        blend(drawn, points, colors, opacities[person, point])
