"""Recorded poses: reads a poses file frame by frame, as arrays or as tables."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from streampose.errors import UsageError
from streampose.frames import NO_TRACK, WHOLE, Boxes, Float32, Part, People, Skeleton
from streampose.options import check
from streampose.people.names import side_pairs
from streampose.picker import part_of
from streampose.records.lines import matrices, read_lines
from streampose.records.part import lines_of_part
from streampose.records.tables import Columns, columns_by, needs
from streampose.sinks.target import name_of

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa
    from matplotlib.figure import Figure

    from streampose.frames import Image
    from streampose.records.plot import What

BLOCK_FRAMES = 2000
"""Frames that are turned into columns at once."""

Rows = Literal["keypoints", "people", "angles"]


@dataclass(frozen=True, slots=True)
class RecordedFrame:
    """One frame of a poses file."""

    source_id: str
    index: int
    """Number of the frame in its source, from 0."""
    pts_s: float
    """Time of the frame in the source, in seconds."""
    width: int
    """In pixels."""
    height: int
    people: People
    file: str | None = None
    """For stills, the path of the file relative to the folder of the source. Otherwise None."""
    faces_xyxy: Float32 | None = None
    """(M, 4) pixels: rectangles around faces that the run has made unrecognizable; None if it did not do so."""


class RecordedPoses:
    """A poses file. Iterating over it reads it frame by frame, so files of hours need little memory.

    poses = streampose.read_poses("poses.jsonl")
    for frame in poses:
        print(frame.pts_s, frame.people.keypoints_xy)
    table = poses.to_dataframe()
    """

    def __init__(self, path: str | os.PathLike[str], part: Part = WHOLE) -> None:
        """Read the header. The poses are those of the frames in `part`.

        Raises:
            UsageError: the file cannot be read, is not a poses file or has a format version of the future.
        """
        self.path = os.fspath(path)
        self.part = part
        self.header, _ = read_lines(path)
        """The first line; see docs/formats.md."""
        self.skeleton = skeleton_of(self.header)
        """Names and edges of the keypoints."""
        self.source: str = self.header.get("source", "")
        """The source as the user of the run wrote it, credentials redacted."""

    def __repr__(self) -> str:
        return f"RecordedPoses({self.path!r}, source={self.source!r}, {len(self.skeleton.names)} keypoints)"

    def lines(self) -> Iterator[dict[str, Any]]:
        """Iterate over the frames as they are in the file; see docs/formats.md.

        Raises:
            UsageError: a line is damaged, or no frame is in the part. An incomplete last line is skipped.
        """
        return lines_of_part(read_lines(self.path)[1], self.part, name_of(self.path))

    def __iter__(self) -> Iterator[RecordedFrame]:
        for line in self.lines():
            yield self.frame_of(line)

    def frame_of(self, line: dict[str, Any]) -> RecordedFrame:
        """Return a line of the file as arrays."""
        return RecordedFrame(
            line["source"],
            line["frame"],
            float("nan") if line["pts_s"] is None else line["pts_s"],
            line["width"],
            line["height"],
            people_of(line["people"], len(self.skeleton.names)),
            line.get("file"),
            None if (faces := line.get("faces")) is None else np.array(faces, np.float32).reshape(-1, 4),
        )

    def blocks(self) -> Iterator[list[dict[str, Any]]]:
        """Iterate over the frames in lists of at most `BLOCK_FRAMES`."""
        block: list[dict[str, Any]] = []
        try:
            for line in self.lines():
                block.append(line)
                if len(block) == BLOCK_FRAMES:
                    yield block
                    block = []
        except UsageError:
            if block:
                yield block
            raise
        if block:
            yield block

    def to_dataframe(self, rows: Rows = "keypoints") -> pd.DataFrame:
        """Return everybody as a pandas table. Needs the extra `data`.

        Args:
            rows: `keypoints`: a row per frame, person and keypoint. `people`: a row per frame and person, with the
                columns of CSV and Parquet files. `angles`: the same with joint and segment angles. docs/numbers.md
                lists the columns.

        Raises:
            UsageError: pandas is not installed, there are no such rows, or a line is damaged.
        """
        pandas = needs("pandas")
        return pandas.concat(map(pandas.DataFrame, self._columns(rows)), ignore_index=True)

    def to_arrow(self, rows: Rows = "keypoints") -> pa.Table:
        """Return the same as a pyarrow table. Needs the extra `data`. See `to_dataframe`."""
        arrow = needs("pyarrow")
        return arrow.concat_tables(map(arrow.table, self._columns(rows)))

    def plot(
        self,
        what: What = "angles",
        *,
        person: int | Sequence[int] | None = None,
        angles: str | Sequence[str] | None = None,
        keypoints: str | Sequence[str] | None = None,
        source_name: str | None = None,
        frame: Image | None = None,
        keypoint_threshold: float = 0.3,
    ) -> Figure:
        """Return a matplotlib figure; `figure.savefig("plot.png")` writes it. docs/numbers.md describes the plots.

        Args:
            what: `angles`, `keypoints` or `speed`: curves over time. `path`: where somebody went. `heatmap`: where
                people were. `timeline`: when each person was there.
            person: an identity, or several. None: for curves the person who is in most frames, otherwise everybody.
            angles: names of angles, such as `left_knee`, or `knee` for both sides. None: knee, hip, elbow, shoulder.
            keypoints: names of keypoints in the same way. None: for keypoints wrist and ankle, otherwise the person as
                a whole.
            source_name: one of the sources, if the file has several.
            frame: (H, W, 3) uint8 BGR, a frame to draw a path or a heat map on.
            keypoint_threshold: keypoints with a lower score are gaps.

        Raises:
            UsageError: there is no such person, angle, keypoint or source, nobody has an identity, or a line is
                damaged.
        """
        from streampose.records.plot import Plot

        plot = Plot(
            self,
            what,
            person=person,
            angles=angles,
            keypoints=keypoints,
            source_name=source_name,
            keypoint_threshold=keypoint_threshold,
        )
        if plot.damage is not None:
            raise plot.damage
        return plot.draw(frame)

    def _columns(self, rows: str) -> list[Columns]:
        """Return the columns of a table, block by block; of a file without frames, a block without rows."""
        columns = columns_by(rows)
        return [columns(block, self.skeleton.names) for block in self.blocks()] or [columns([], self.skeleton.names)]


def read_poses(
    path: str | os.PathLike[str], *, start_s: float | None = None, end_s: float | None = None, every: int = 1
) -> RecordedPoses:
    """Open a poses file, as `--to poses.jsonl` writes it.

    Args:
        path: the file.
        start_s: leave out the frames before this time of their source, in seconds.
        end_s: leave out this time and everything behind it.
        every: keep the first and then every Nth frame of each source.

    Raises:
        UsageError: the file cannot be read, is not a poses file or has a format version of the future, or the part is
            empty.
    """
    given = {"start_s": start_s, "end_s": end_s, "every": every}
    return RecordedPoses(path, part_of(**check(given, given)))


def no_identities(path: str | os.PathLike[str], version: int) -> UsageError:
    """Return the error for a file in which nobody has an identity, where identities are needed."""
    why = "it has format 1" if version == 1 else "it is of stills, or the run had none"
    return UsageError(f"{name_of(path)} has no identities ({why}): run streampose again on the video, with them")


def skeleton_of(header: dict[str, Any]) -> Skeleton:
    """Return the skeleton of a poses file. Older files tell left and right only by the names of the keypoints."""
    skeleton = header["skeleton"]
    names = tuple(skeleton["names"])
    pairs = skeleton.get("flip_pairs", side_pairs(names))
    return Skeleton(names, tuple((a, b) for a, b in skeleton["edges"]), tuple((a, b) for a, b in pairs))


def people_of(persons: list[dict[str, Any]], keypoint_count: int) -> People:
    """Return the people of a line of a poses file as arrays. What is `null` there is NaN here.

    Somebody who is not smoothed, although others are, has their raw keypoints as smoothed ones.
    """
    if not persons:
        return People.none(keypoint_count)
    keypoints = np.array([person["keypoints"] for person in persons], np.float32)
    classes = [person.get("class", "person") for person in persons]
    labels = list(dict.fromkeys(classes))
    ids = [person.get("id") for person in persons]
    triples = _all(persons, "covariances")
    return replace(
        People.of(
            Boxes(
                np.array([person["box_xyxy"] for person in persons], np.float32),
                np.array([person["box_score"] for person in persons], np.float32),
                np.array([labels.index(one) for one in classes], np.int64),
            ),
            keypoints[..., :2],
            keypoints[..., 2],
            None if triples is None else matrices(triples),
            label_of=dict(enumerate(labels)),
        ),
        track_ids=np.array([NO_TRACK if one is None else one for one in ids], np.int64),
        smooth_xy=_smoothed(persons, keypoints),
    )


def _smoothed(persons: list[dict[str, Any]], keypoints: Float32) -> Float32 | None:
    """Return the smoothed keypoints (N, K, 2); None if nobody has any."""
    if not any("smoothed" in person for person in persons):
        return None
    smooth_xy = keypoints[..., :2].copy()
    for xy, person in zip(smooth_xy, persons, strict=True):
        if "smoothed" in person:
            xy[:] = person["smoothed"]
    return smooth_xy


def _all(persons: list[dict[str, Any]], key: str) -> Float32 | None:
    """Return a key of all persons as an array; None if somebody lacks it."""
    if any(key not in person for person in persons):
        return None
    return np.array([person[key] for person in persons], np.float32)
