"""Motions of people in the formats of motion capture: TRC and MOT text of OpenSim, and C3D.

TRC and MOT files are laid out as Sports2D writes them, and as `TRCFileAdapter.cpp`, `DelimFileAdapter.h` and
`Storage.cpp` of OpenSim (https://github.com/opensim-org/opensim-core) read them.
"""

from __future__ import annotations

import os
import re
import tempfile
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from streampose.errors import SinkError, UsageError, describe
from streampose.people.angles import AngleMeter
from streampose.people.names import plain_names
from streampose.records.coco import LABELLED_SCORE
from streampose.records.motions import BLOCK_ROWS, Block, Float64, Motions
from streampose.records.tables import needs
from streampose.records.writer import Writer
from streampose.sinks.target import create, failed, name_of, settle

MOST_FRAMES = 65535
"""Frames of a C3D file: its counts have 16 bits."""
# fmt: off
_TRC_KEYS = (
    "DataRate", "CameraRate", "NumFrames", "NumMarkers", "Units", "OrigDataRate", "OrigDataStartFrame", "OrigNumFrames",
)
# fmt: on


class MotionWriter(Writer):
    """A format with one person per file. The files are empty until `close`.

    The person who is present in most frames is in the file with the given name. Everybody else has a file beside it,
    with the identity in its name: `NAME_person3.trc`. People without identity are left out.

    A person has all frames from their first to their last one. Keypoints are the smoothed ones, if the poses have them.
    Those with a score below `LABELLED_SCORE` are missing.
    """

    _motions: Motions | None = None
    _others: tuple[Path, ...] = ()

    @classmethod
    def check(cls, path: Path, *, overwrite: bool, source_path: str | None) -> None:
        """Check the file and those beside it that have the name of a person."""
        super().check(path, overwrite=overwrite, source_path=source_path)
        for other in [] if overwrite else _beside(path):
            raise UsageError(f"{name_of(other)} exists: choose another name, or replace it with `overwrite`")

    def begin(self, header: dict[str, Any]) -> None:
        """Create the file, still empty. With `overwrite`, delete the files of other people."""
        names = header["skeleton"]["names"]
        self._prepare(names)
        try:
            os.close(create(self.path, overwrite=self.overwrite))
            for other in _beside(self.path) if self.overwrite else []:
                other.unlink()
            self._motions = Motions(len(names), self.path.absolute().parent)
        except OSError as error:
            raise failed(name_of(self.path), error) from error
        self._source: str | None = None
        self._height = 0
        self._nameless = 0

    def write(self, line: dict[str, Any]) -> None:
        """Add a frame."""
        assert self._motions is not None
        if self._source is None:
            self._source, self._height = line["source"], line["height"]
        elif line["source"] != self._source:
            self._motions.close()
            self._motions = None
            settle(self.path)
            raise SinkError(
                f"cannot write {name_of(self.path)}: the poses are from several sources ({self._source}, "
                f"{line['source']}); keep the lines of one source in the poses file"
            )
        if line["pts_s"] is None:
            return
        found = {person["id"]: _points(person) for person in line["people"] if person.get("id") is not None}
        self._nameless += len(line["people"]) - len(found)
        try:
            self._motions.add(line["frame"], line["pts_s"], found)
        except OSError as error:
            raise failed(name_of(self.path), error) from error

    def close(self) -> None:
        """Write the files."""
        motions, self._motions = self._motions, None
        if motions is None:
            return
        people = motions.people()
        path = self.path
        try:
            if not people:
                if self._nameless:
                    settle(path)
                    raise SinkError(
                        f"cannot write {name_of(path)}: nobody in the poses has an identity; record them with tracking"
                    )
                self._write_person(path, motions, None)
            for person in people:
                path = self._create(f"_person{person}") if person != people[0] else self.path
                self._write_person(path, motions, person)
        except OSError as error:
            raise failed(name_of(path), error) from error
        finally:
            motions.close()

    def shown(self) -> str:
        """Return the name, and how many files are beside it."""
        count = len(self._others)
        return super().shown() + (f" and {count} more {'file' if count == 1 else 'files'}" if count else "")

    def size_bytes(self) -> int:
        """Return the size of all files."""
        return super().size_bytes() + sum(path.stat().st_size for path in self._others if path.exists())

    def _prepare(self, names: Sequence[str]) -> None:
        """Note the names of the keypoints."""
        self._names = marker_names(names)

    @abstractmethod
    def _write_person(self, path: Path, motions: Motions, person: int | None) -> None:
        """Write a person to a file; None: a file without frames. Raises `OSError` and `SinkError`."""

    def _create(self, addition: str) -> Path:
        """Create a file with an addition to the name."""
        path = self.path.with_name(f"{self.path.stem}{addition}{self.path.suffix}")
        os.close(create(path, overwrite=self.overwrite))
        self._others += (path,)
        return path

    def _markers(self, block: Block) -> Float64:
        """Return positions (N, K, 3): x to the right, y upwards from the bottom of the frame, z 0; NaN if missing."""
        z = np.where(np.isnan(block.xy[..., 0]), np.nan, 0.0)
        return np.stack([block.xy[..., 0], self._height - 1 - block.xy[..., 1], z], axis=-1)


class TrcWriter(MotionWriter):
    """Markers of OpenSim: tab-separated text with frame, time, and x, y and z of every keypoint, in pixels. What is
    missing is `nan`.
    """

    def _write_person(self, path: Path, motions: Motions, person: int | None) -> None:
        rate, frames, markers = f"{motions.rate():.10g}", 0, len(self._names)
        if person is not None:
            frames = motions.length(person)
        first = next(motions.blocks(person)).frames[0] if person is not None else 0
        values = [rate, rate, frames, markers, "px", rate, first, frames]
        axes = [f"X{number}\tY{number}\tZ{number}" for number in range(1, markers + 1)]
        row = "\t".join(["%d", "%r", *["%.2f"] * 3 * markers]) + "\n"
        with path.open("w", encoding="utf-8", newline="\n") as file:
            file.write(f"PathFileType\t4\t(X/Y/Z)\t{name_of(path.name)}\n")
            file.write("\t".join(_TRC_KEYS) + "\n" + "\t".join(map(str, values)) + "\n")
            file.write("Frame#\tTime\t" + "\t\t\t".join(self._names) + "\t\t\n\t\t" + "\t".join(axes) + "\n")
            for block in motions.blocks(person) if person is not None else ():
                points = self._markers(block).reshape(len(block.frames), -1).tolist()
                for frame, time_s, point in zip(block.frames.tolist(), block.times_s.tolist(), points, strict=True):
                    file.write(row % (frame, time_s, *point))


class MotWriter(MotionWriter):
    """Joint and segment angles for OpenSim: tab-separated text with time and angles in degrees.

    OpenSim stops reading at the first number that is missing (`Storage.cpp` reads with `>>`). So a missing angle is
    interpolated linearly, or repeated at both ends. An angle that is never known has no column, and a frame in which
    none is known has no row.
    """

    def _prepare(self, names: Sequence[str]) -> None:
        self._meter = AngleMeter(names)
        if not self._meter.names:
            raise SinkError(f"cannot write {name_of(self.path)}: this skeleton has no angles")

    def _write_person(self, path: Path, motions: Motions, person: int | None) -> None:
        if person is None:
            self._write_angles(path, "angles", self._meter.names, np.empty(0), np.empty((len(self._meter.names), 0)))
            return
        with tempfile.TemporaryFile(dir=path.absolute().parent) as file:
            shape = 1 + len(self._meter.names), motions.length(person)
            if hasattr(os, "posix_fallocate"):  # a mapped file must not meet a full disk; macOS and Windows lack it
                os.posix_fallocate(file.fileno(), 0, 8 * shape[0] * shape[1])
            table = np.memmap(file, np.float64, "w+", shape=shape)
            done = 0
            for block in motions.blocks(person):
                degrees = self._meter.measure_points(block.xy, None).degrees
                is_known = np.isfinite(degrees).any(axis=1)
                end = done + int(is_known.sum())
                table[0, done:end], table[1:, done:end] = block.times_s[is_known], degrees[is_known].T
                done = end
            times_s, angles = table[0, :done], table[1:, :done]
            is_used = [fill_in(column, times_s) for column in angles]
            names = [name for name, used in zip(self._meter.names, is_used, strict=True) if used]
            self._write_angles(path, f"angles of person {person}", names, times_s, angles, is_used)

    def _write_angles(
        self,
        path: Path,
        title: str,
        names: Sequence[str],
        times_s: Float64,
        angles: Float64,
        is_used: Sequence[bool] = (),
    ) -> None:
        """Write a table of angles (A, N) at times (N,), of those that are used."""
        columns = ["time", *names]
        head = [title, "version=1", f"nRows={len(times_s)}", f"nColumns={len(columns)}", "inDegrees=yes", "endheader"]
        row = "\t".join(["%r", *["%.4f"] * len(names)]) + "\n"
        with path.open("w", encoding="utf-8", newline="\n") as file:
            file.writelines(line + "\n" for line in [*head, "\t".join(columns)])
            for start in range(0, len(times_s), BLOCK_ROWS):
                part = slice(start, start + BLOCK_ROWS)
                values = angles[np.array(is_used, np.bool_), part].T.tolist()
                for time_s, degrees in zip(times_s[part].tolist(), values, strict=True):
                    file.write(row % (time_s, *degrees))


class C3dWriter(MotionWriter):
    """C3D with a point per keypoint, in pixels. Needs `ezc3d`.

    A C3D file has a constant frame rate: each of its frames is the nearest one of the source. Points that are missing
    there, or for which there is none within half an interval, have the residual -1. A file has at most `MOST_FRAMES`
    frames; what follows is in `NAME_part2.c3d`. A further part without any point is left out. A part is completely in
    memory. If there is nobody, the file has one frame without any point.
    """

    @classmethod
    def check(cls, path: Path, *, overwrite: bool, source_path: str | None) -> None:
        """Check the same, and that `ezc3d` is installed."""
        super().check(path, overwrite=overwrite, source_path=source_path)
        needs("ezc3d", "mocap")

    def _write_person(self, path: Path, motions: Motions, person: int | None) -> None:
        rate = motions.rate()
        if person is None:
            self._write_part(path, np.full((1, len(self._names), 3), np.nan), rate, None, 0.0)
            return
        start_s = float(next(motions.blocks(person)).times_s[0])
        done, parts = 0, 0

        def put(points: Float64) -> None:
            nonlocal done, parts
            if done and np.isnan(points).all():
                done += len(points)
                return
            parts += 1
            stem = path.stem.removeprefix(self.path.stem)
            target = path if parts == 1 else self._create(f"{stem}_part{parts}")
            self._write_part(target, points, rate, person, start_s + done / rate)
            done += len(points)

        blocks = ((block.times_s, self._markers(block)) for block in motions.blocks(person))
        collected: list[Float64] = []
        for points in at_rate(blocks, rate):
            collected.append(points)
            while sum(map(len, collected)) > MOST_FRAMES:
                waiting = np.concatenate(collected)
                put(waiting[:MOST_FRAMES])
                collected = [waiting[MOST_FRAMES:]]
        put(np.concatenate(collected))

    def _write_part(self, path: Path, points: Float64, rate: float, person: int | None, start_s: float) -> None:
        """Write positions (N, K, 3) at a constant rate."""
        c3d = needs("ezc3d", "mocap").c3d()
        parameters = c3d["parameters"]["POINT"]
        parameters["RATE"]["value"] = [rate]
        parameters["UNITS"]["value"] = ["px"]
        parameters["LABELS"]["value"] = list(self._names)
        c3d.add_parameter("POINT", "X_SCREEN", ["+X"])
        c3d.add_parameter("POINT", "Y_SCREEN", ["+Y"])
        c3d.add_parameter("STREAMPOSE", "START_S", [start_s])
        c3d.add_parameter("STREAMPOSE", "PERSON", [-1 if person is None else person])
        is_missing = np.isnan(points).any(axis=-1)
        c3d["data"]["points"] = np.ones((4, points.shape[1], len(points)))
        c3d["data"]["points"][:3] = points.transpose(2, 1, 0)
        c3d["data"]["meta_points"]["residuals"] = np.where(is_missing, -1.0, 0.0).T[None]
        c3d["data"]["meta_points"]["camera_masks"] = np.zeros((7, points.shape[1], len(points)), np.bool_)
        first = round(start_s * rate)
        if first >= 0 and first + len(points) <= MOST_FRAMES:
            c3d["header"]["points"]["first_frame"] = first
        try:
            c3d.write(os.fspath(path))
        except RuntimeError as error:
            raise SinkError(f"cannot write {name_of(path)}: {describe(error)}") from error


def marker_names(names: Sequence[str]) -> tuple[str, ...]:
    """Return the names of keypoints as Pose2Sim and its OpenSim models write them: `LBigToe` for `left_big_toe`."""
    plain = plain_names(names)
    short = [re.sub("^(left|right)_", lambda side: f"{side[1][0]}_", name) for name in plain]
    found = tuple("".join(word[:1].upper() + word[1:] for word in name.split("_")) for name in short)
    return found if len(set(found)) == len(found) else plain


def at_rate(blocks: Iterator[tuple[Float64, Float64]], rate: float) -> Iterator[Float64]:
    """Resample consecutive blocks of times (N,) and values (N, ...) to a constant rate from the first time on.

    A value is that of the nearest time, or NaN if there is none within half an interval. The result has blocks of at
    most `BLOCK_ROWS` values.
    """
    done, start = 0, 0.0
    times, values = np.empty(0), np.empty(0)

    def pick(numbers: npt.NDArray[np.int64]) -> Float64:
        wanted = start + numbers / rate
        after = np.clip(np.searchsorted(times, wanted), 1, max(len(times) - 1, 1))
        nearest = np.where(
            wanted - times[after - 1] <= times[np.minimum(after, len(times) - 1)] - wanted, after - 1, after
        )
        nearest = np.minimum(nearest, len(times) - 1)
        found: Float64 = values[nearest].copy()
        found[np.abs(times[nearest] - wanted) > 0.501 / rate] = np.nan
        return found

    for new_times, new_values in blocks:
        if done == 0:
            start, times, values = float(new_times[0]), new_times, new_values
        else:
            times, values = np.concatenate([times[-1:], new_times]), np.concatenate([values[-1:], new_values])
        end = int(np.floor((times[-1] - start) * rate + 1e-6)) + 1
        for first in range(done, end, BLOCK_ROWS):  # a pause of the source can be as long as a day
            yield pick(np.arange(first, min(first + BLOCK_ROWS, end)))
        done = max(done, end)
    if len(times) and round((times[-1] - start) * rate) >= done:
        yield pick(np.arange(done, done + 1))


def fill_in(degrees: Float64, times_s: Float64) -> bool:
    """Replace angles (N,) that are NaN: linearly over time, the short way round, and at both ends by the nearest one.

    Return whether any is known.
    """
    is_known = np.isfinite(degrees)
    if is_known.any() and not is_known.all():
        turning = np.unwrap(degrees[is_known], period=360)
        found = np.interp(times_s[~is_known], times_s[is_known], turning)
        degrees[~is_known] = found - 360 * np.round(found / 360)
    return bool(is_known.any())


def _points(person: dict[str, Any]) -> Float64:
    """Return the keypoints (K, 2) of a person, NaN where missing."""
    keypoints = np.array(person["keypoints"], np.float64)
    xy = np.array(person["smoothed"], np.float64) if person.get("smoothed") else keypoints[:, :2]
    return np.where(keypoints[:, 2:] >= LABELLED_SCORE, xy, np.nan)


def _beside(path: Path) -> list[Path]:
    """Return the existing files of other people and further parts."""
    pattern = re.compile(rf"{re.escape(path.stem)}(_person[0-9]+)?(_part[0-9]+)?{re.escape(path.suffix)}")
    if not path.parent.is_dir():
        return []
    return sorted(file for file in path.parent.iterdir() if file.name != path.name and pattern.fullmatch(file.name))
