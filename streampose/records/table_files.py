"""Poses as table files: CSV and Parquet, with a row per frame and person."""

from __future__ import annotations

import csv
import io
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from streampose.errors import SinkError
from streampose.records.tables import Columns, angle_columns, needs, person_columns, person_names
from streampose.records.writer import Writer
from streampose.sinks.lines import LineFile
from streampose.sinks.target import create, failed, make_folder, name_of

if TYPE_CHECKING:
    import pyarrow as pa

GROUP_FRAMES = 5000
"""Frames of a Parquet row group. A killed run loses the frames of the group that is not complete."""
BLOCK_FRAMES = 250
"""Frames that become columns at once. Columns take less memory than lines, and the garbage collector ignores them."""
_NOTHING: tuple[None, ...] = (None, None, None)


class CsvWriter(Writer):
    """CSV (RFC 4180, but with line feeds). The rows of a frame are written at once, so that a killed run leaves only
    complete rows.
    """

    _file: LineFile | None = None

    def begin(self, header: dict[str, Any]) -> None:
        """Create the file and write the names of the columns."""
        names = header["skeleton"]["names"]
        self._file = LineFile(create(self.path, overwrite=self.overwrite))
        self._write([self._columns(names)])

    def write(self, line: dict[str, Any]) -> None:
        """Add the rows of a frame."""
        if line["people"]:
            self._write(self._rows(line))

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()

    def _columns(self, names: Sequence[str]) -> list[str]:
        """Return the names of the columns, for keypoints with these names."""
        self._count = len(names)
        return person_names(names)

    def _rows(self, line: dict[str, Any]) -> list[list[Any]]:
        """Return the rows of a frame."""
        return [self._row(line, person) for person in line["people"]]

    def _row(self, line: dict[str, Any], person: dict[str, Any]) -> list[Any]:
        row = [line["source"], line["frame"], line["pts_s"], person.get("id"), person.get("class", "person")]
        row += [*person["box_xyxy"], person["box_score"]]
        missing = [_NOTHING] * self._count
        smoothed = person.get("smoothed") or [_NOTHING[:2]] * self._count
        for parts in zip(person["keypoints"], smoothed, person.get("covariances") or missing, strict=True):
            for part in parts:
                row += part
        return row

    def _write(self, rows: list[list[Any]]) -> None:
        assert self._file is not None
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(rows)
        try:
            self._file.append(text.getvalue().encode())
        except OSError as error:
            raise failed(name_of(self.path), error) from error


class AnglesCsvWriter(CsvWriter):
    """The same with joint and segment angles."""

    def _columns(self, names: Sequence[str]) -> list[str]:
        self._names = names
        return list(angle_columns([], names))

    def _rows(self, line: dict[str, Any]) -> list[list[Any]]:
        columns = angle_columns([line], self._names)
        values = [column if isinstance(column, list) else column.tolist() for column in columns.values()]
        return [["" if value != value else value for value in row] for row in zip(*values, strict=True)]


class ParquetWriter(Writer):
    """Parquet, with a row group per `GROUP_FRAMES` frames.

    A Parquet file is readable only when it is complete. Until then its row groups are files of their own in a folder
    beside it, `NAME.parquet.parts`, which pandas and pyarrow read as a whole. Closing joins them.
    """

    columns_of: Callable[[Sequence[dict[str, Any]], Sequence[str]], Columns] = staticmethod(person_columns)
    """Makes the columns of some frames."""
    _names: list[str] | None = None
    _lines: list[dict[str, Any]]
    _blocks: list[pa.RecordBatch]
    _parts = 0

    @property
    def folder(self) -> Path:
        """Where the row groups are until the file is complete."""
        return self.path.with_name(f"{self.path.name}.parts")

    def begin(self, header: dict[str, Any]) -> None:
        """Create the folder of the row groups. What a killed run has left there is replaced with `overwrite` only."""
        needs("pyarrow")
        name = name_of(self.path)
        if self.folder.exists():
            if not self.overwrite:
                raise SinkError(f"{name_of(self.folder)} is left of a run that was killed: move it, or use `overwrite`")
            shutil.rmtree(self.folder, ignore_errors=True)
        os.close(create(self.path, overwrite=self.overwrite))  # its name is taken from now on
        make_folder(self.folder, name)
        self._names, self._lines, self._blocks, self._parts = header["skeleton"]["names"], [], [], 0

    def write(self, line: dict[str, Any]) -> None:
        """Add the rows of a frame."""
        self._lines.append(line)
        if len(self._lines) >= BLOCK_FRAMES:
            self._end_block()
            if len(self._blocks) * BLOCK_FRAMES >= GROUP_FRAMES:
                self._write_group()

    def close(self) -> None:
        """Write the last row group and join all of them."""
        if self._names is None:
            return
        from pyarrow import ArrowException, parquet

        try:
            if self._lines or not (self._blocks or self._parts):
                self._end_block()
            if self._blocks:
                self._write_group()
            files = [self._part(number) for number in range(self._parts)]
            with parquet.ParquetWriter(self.path, parquet.read_schema(files[0])) as joined:
                for file in files:
                    joined.write_table(parquet.read_table(file))
            shutil.rmtree(self.folder)
        except (OSError, ArrowException) as error:
            raise _failed(self.path, error) from error
        finally:
            self._names = None

    def _end_block(self) -> None:
        """Turn the lines into columns."""
        import pyarrow as pa

        assert self._names is not None
        columns = self.columns_of(self._lines, self._names)
        self._lines = []
        types = {name: pa.type_for_alias(_TYPE_OF.get(name, "float32")) for name in columns}
        # Missing numbers are NaN in the columns, and null in the file.
        arrays = [pa.array(values, types[name], from_pandas=True) for name, values in columns.items()]
        self._blocks.append(pa.record_batch(arrays, list(columns)))

    def _write_group(self) -> None:
        import pyarrow as pa
        from pyarrow import parquet

        table = pa.Table.from_batches(self._blocks)
        self._blocks = []
        # Under another name first: a file with the right name is complete.
        part = self._part(self._parts)
        try:
            parquet.write_table(table, part.with_suffix(".new"))
            part.with_suffix(".new").replace(part)
        except (OSError, pa.ArrowException) as error:
            raise _failed(self.path, error) from error
        self._parts += 1

    def _part(self, number: int) -> Path:
        return self.folder / f"{number:06d}.parquet"


class AnglesParquetWriter(ParquetWriter):
    """The same with joint and segment angles."""

    columns_of = staticmethod(angle_columns)


_TYPE_OF = {"source": "string", "frame": "int64", "pts_s": "float64", "id": "int64", "class": "string"}


def _failed(path: Path, error: Exception) -> SinkError:
    name = name_of(path)
    return failed(name, error) if isinstance(error, OSError) else SinkError(f"cannot write {name}: {error}")
