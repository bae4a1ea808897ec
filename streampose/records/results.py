"""One result as a table or in COCO's format, as if it had been recorded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from streampose.frames import Result
from streampose.records.coco import result_of
from streampose.records.lines import frame_line
from streampose.records.tables import columns_by, needs

if TYPE_CHECKING:
    import pandas as pd


def dataframe_of(result: Result, rows: str) -> pd.DataFrame:
    """Return the people of a result as a pandas table; see `streampose.RecordedPoses.to_dataframe`.

    Raises:
        UsageError: pandas is not installed, or there are no such rows.
    """
    columns = columns_by(rows)
    table: pd.DataFrame = needs("pandas").DataFrame(columns([frame_line(result)], result.skeleton.names))
    return table


def coco_of(result: Result, image_id: int) -> list[dict[str, Any]]:
    """Return the people of a result as COCO results of one image."""
    return [result_of(person, image_id) for person in frame_line(result)["people"]]
