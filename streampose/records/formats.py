"""Maps the name of an output to the writer of its format."""

from __future__ import annotations

from pathlib import Path

from streampose.records.coco import CocoAnnotationsWriter, CocoResultsWriter
from streampose.records.table_files import AnglesCsvWriter, AnglesParquetWriter, CsvWriter, ParquetWriter
from streampose.records.writer import Writer

_WRITER_OF: dict[str, type[Writer]] = {
    ".angles.csv": AnglesCsvWriter,
    ".angles.parquet": AnglesParquetWriter,
    ".csv": CsvWriter,
    ".parquet": ParquetWriter,
    ".results.json": CocoResultsWriter,
    ".coco.json": CocoAnnotationsWriter,
}
UNDERSTOOD = (
    "a table (.csv, .parquet), joint angles (.angles.csv, .angles.parquet), COCO results (.results.json) or COCO "
    "annotations (.coco.json)"
)


def writer_of(path: Path) -> type[Writer] | None:
    """Return the writer of the format that the name's ending says; None if it says none."""
    name = path.name.lower()
    for ending, writer in _WRITER_OF.items():
        if name.endswith(ending) and name != ending:
            return writer
    return None
