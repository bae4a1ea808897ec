"""Tables of figures in Markdown, with a column for each network or file that is compared."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from streampose.records.evaluate_coco import CocoFigures
from streampose.records.evaluate_keypoints import KeypointAccuracy

_T = TypeVar("_T")
Rows = list[tuple[str, list[str]]]
"""The name of a figure, and its value in each column."""
UNKNOWN = "-"
"""The value of a figure that is not known."""


def coco_rows(of_columns: Sequence[CocoFigures | None]) -> Rows:
    """Return the rows of AP and AR."""
    return share_rows(
        of_columns,
        {
            "AP": "ap",
            "AP50": "ap50",
            "AP75": "ap75",
            "AP, medium people": "ap_medium",
            "AP, large people": "ap_large",
            "AR": "ar",
            "AR, medium people": "ar_medium",
            "AR, large people": "ar_large",
        },
    )


def keypoint_rows(of_columns: Sequence[KeypointAccuracy | None]) -> Rows:
    """Return the rows of the people found, the first, and of PCK."""
    names = {"people found": "found", "PCK@0.05": "pck", "PCK@0.05, visible": "pck_visible", "PCKh@0.5": "pckh"}
    return share_rows(of_columns, names)


def share_rows(of_columns: Sequence[object | None], names: Mapping[str, str]) -> Rows:
    """Return rows of shares from 0 to 1: `names` maps the name of each to the attribute that has it, or None."""
    rows = []
    for name, attribute in names.items():
        values = [None if one is None else getattr(one, attribute) for one in of_columns]
        rows.append(row(name, values, lambda value: f"{value:.3f}"))
    return rows


def row(name: str, values: Sequence[_T | None], show: Callable[[_T], str | None]) -> tuple[str, list[str]]:
    """Return a row: each value as `show` writes it. None becomes a dash."""
    return name, [UNKNOWN if value is None else show(value) or UNKNOWN for value in values]


def markdown(columns: Sequence[str], rows: Rows) -> str:
    """Return a table in Markdown that is aligned as text. Rows without any value are left out."""
    lines = [["", *(column.replace("|", "\\|") for column in columns)]]
    lines += [[name, *cells] for name, cells in rows if set(cells) != {UNKNOWN}]
    widths = [max(3, *(len(line[place]) for line in lines)) for place in range(len(lines[0]))]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    return "\n".join(
        "| " + " | ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])]) + " |"
        for line in [lines[0], rule, *lines[1:]]
    )
