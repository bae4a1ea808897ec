"""Maps the name of an output to the writer of its format."""

from __future__ import annotations

from pathlib import Path

from streampose.records.coco import CocoAnnotationsWriter, CocoResultsWriter
from streampose.records.mocap import C3dWriter, MotWriter, TrcWriter
from streampose.records.openpose import OpenPoseWriter
from streampose.records.table_files import AnglesCsvWriter, AnglesParquetWriter, CsvWriter, ParquetWriter
from streampose.records.writer import Writer

_WRITER_OF: dict[str, type[Writer]] = {
    ".angles.csv": AnglesCsvWriter,
    ".angles.parquet": AnglesParquetWriter,
    ".csv": CsvWriter,
    ".parquet": ParquetWriter,
    ".results.json": CocoResultsWriter,
    ".coco.json": CocoAnnotationsWriter,
    ".openpose": OpenPoseWriter,
    ".trc": TrcWriter,
    ".mot": MotWriter,
    ".sto": MotWriter,
    ".c3d": C3dWriter,
}
UNDERSTOOD = (
    "a table (.csv, .parquet), joint angles (.angles.csv, .angles.parquet), COCO results (.results.json), COCO "
    "annotations (.coco.json), a folder of OpenPose JSON (.openpose), markers (.trc) or joint angles (.mot, .sto) for "
    "OpenSim, or C3D (.c3d)"
)


def writer_of(path: Path) -> type[Writer] | None:
    """Return the writer of the format that the name's ending says; None if it says none."""
    name = path.name.lower()
    for ending, writer in _WRITER_OF.items():
        if name.endswith(ending) and name != ending:
            return writer
    return None
