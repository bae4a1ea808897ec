"""Boxes and labels of people."""

from __future__ import annotations

import cv2
import numpy as np
import supervision as sv

from streampose.drawing.colours import TAG_COLORS, TRACKED
from streampose.drawing.shapes import line_width
from streampose.frames import NO_TRACK, Image, Int64, People


def tags_of(people: People) -> sv.Detections:
    """Return the people with a non-empty box. `track` and `score` are stored in `data`, where no value is optional."""
    detections = people.to_detections()
    detections.data |= {"track": people.track_ids, "score": people.box_scores}
    shown = detections[np.asarray((people.boxes_xyxy[:, 2:] > people.boxes_xyxy[:, :2]).all(axis=1))]
    assert isinstance(shown, sv.Detections)  # guaranteed for an index that is not a string
    return shown


def _tag_colors(tags: sv.Detections) -> Int64:
    """Return (N,) indices into `TAG_COLORS`."""
    tracks = np.asarray(tags.data["track"])
    return np.where(tracks == NO_TRACK, len(TRACKED), tracks % len(TRACKED))


def draw_boxes(drawn: Image, tags: sv.Detections) -> None:
    sv.BoxAnnotator(TAG_COLORS, thickness=(line_width(drawn) + 1) // 2).annotate(drawn, tags, _tag_colors(tags))


def draw_labels(drawn: Image, tags: sv.Detections) -> None:
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
    annotator = sv.LabelAnnotator(TAG_COLORS, text_color=sv.Color.BLACK, text_scale=scale, text_padding=padding)
    annotator.annotate(drawn, sv.Detections(xyxy=places), texts, _tag_colors(tags))
