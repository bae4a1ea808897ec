"""Shows one result: the drawn frame, and for notebooks HTML with the frame in a limited size and a table."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from html import escape
from typing import Any

import cv2
import numpy as np

from streampose.drawing.annotator import Annotator
from streampose.errors import AnnotateError, UsageError
from streampose.frames import NO_TRACK, Image, Result
from streampose.options import DEFAULT_KEYPOINT_THRESHOLD, check, default_of

SHOWN_EDGE = 960
"""Longest edge of a frame in a notebook, in pixels. A notebook keeps every output in its file."""
SHOWN_BYTES = 300_000
"""Maximum size of a frame in a notebook before base64; noisy frames are compressed more."""
SHOWN_PEOPLE = 20
"""Maximum rows of the table."""
_QUALITIES = (85, 60, 35, 10)
"""JPEG qualities, in the order in which they are tried."""
_SETTINGS = ("style", "keypoint_threshold", "boxes", "labels", "colour_by", "ellipses")


def drawn_of(result: Result, settings: Mapping[str, Any]) -> Image:
    """Return the frame of a result with its people drawn on it.

    Args:
        result: what to draw.
        settings: drawing options, by the names in the table of options; the others have their defaults.

    Raises:
        UsageError: a setting is unknown or invalid.
        AnnotateError: drawing fails.
    """
    for name in settings:
        if name not in _SETTINGS:
            raise UsageError(f"`{name}` is not a drawing setting: choose from {', '.join(_SETTINGS)}")
    asked = check({name: default_of(name) for name in _SETTINGS} | dict(settings), _SETTINGS)
    min_score = asked.pop("keypoint_threshold")
    return Annotator(result.skeleton, min_score=min_score, **asked).annotate(result.frame.image, result.people)


def html_of(result: Result) -> str:
    """Return HTML with the drawn frame, a caption and a table of the people."""
    return f"<figure>{_image(result)}<figcaption>{escape(repr(result))}</figcaption></figure>{_table(result)}"


def _image(result: Result) -> str:
    drawn = result.drawn if result.drawn is not None else drawn_of(result, {})
    height, width = drawn.shape[:2]
    scale = min(1.0, SHOWN_EDGE / max(height, width))
    shown = (max(1, round(width * scale)), max(1, round(height * scale)))
    small = drawn if scale == 1.0 else cv2.resize(drawn, shown, interpolation=cv2.INTER_AREA)
    data = b""
    for quality in _QUALITIES:
        is_encoded, encoded = cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, quality])
        if not is_encoded:
            raise AnnotateError(f"cannot encode a frame of {shown[0]}x{shown[1]} as JPEG")
        data = encoded.tobytes()
        if len(data) <= SHOWN_BYTES:
            break
    text = base64.b64encode(data).decode("ascii")
    return f'<img width="{shown[0]}" height="{shown[1]}" alt="drawn frame" src="data:image/jpeg;base64,{text}">'


def _table(result: Result) -> str:
    people = result.people
    if len(people) == 0:
        return ""
    names = ["person", "box (x1, y1, x2, y2)", "box score", "keypoints", "mean score"]
    has_ids = bool((people.track_ids != NO_TRACK).any())
    has_classes = bool(set(people.label_of.values()) - {"person"})
    if has_ids:
        names.append("id")
    if has_classes:
        names.append("class")
    rows = []
    for number in range(min(len(people), SHOWN_PEOPLE)):
        scores = people.keypoint_scores[number]
        track_id, class_id = int(people.track_ids[number]), int(people.class_ids[number])
        cells = [
            str(number),
            ", ".join(f"{edge:.0f}" for edge in people.boxes_xyxy[number]),
            f"{people.box_scores[number]:.2f}",
            f"{int((scores >= DEFAULT_KEYPOINT_THRESHOLD).sum())} of {len(scores)}",
            f"{float(np.mean(scores)):.2f}",
        ]
        if has_ids:
            cells.append("" if track_id == NO_TRACK else str(track_id))
        if has_classes:
            cells.append(people.label_of.get(class_id, str(class_id)))
        rows.append(_row("td", cells))
    left_out = len(people) - len(rows)
    more = f"<p>and {left_out} more</p>" if left_out else ""
    return f"<table><thead>{_row('th', names)}</thead><tbody>{''.join(rows)}</tbody></table>{more}"


def _row(cell: str, texts: list[str]) -> str:
    return "<tr>" + "".join(f"<{cell}>{escape(text)}</{cell}>" for text in texts) + "</tr>"
