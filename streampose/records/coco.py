"""Poses in the formats of COCO (https://cocodataset.org/#format-data, #format-results). All lengths are in pixels
of the frame.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from typing import IO, Any

from streampose.records.writer import Writer
from streampose.sinks.lines import LineFile
from streampose.sinks.target import create, failed, name_of

SOURCE_STEP = 1_000_000_000
"""More than the frames of a year at 30 fps."""
PERSON = 1
"""COCO's category of people."""
LABELLED_SCORE = 0.3
"""A keypoint with at least this score counts as visible in annotations; others are written as absent."""


class CocoResultsWriter(Writer):
    """COCO results: a list of people with `image_id`, `category_id`, `keypoints` (x, y, score), `bbox` (left, top,
    width, height) and `score`, and `track_id` if they have an identity; see `ImageNumbers` for `image_id`. The file is
    complete JSON after every frame.
    """

    _file: LineFile | None = None

    def begin(self, header: dict[str, Any]) -> None:  # noqa: ARG002 - results name no keypoints
        """Create the file."""
        self._file = LineFile(create(self.path, overwrite=self.overwrite))
        self._images = ImageNumbers()
        self._is_empty = True
        self._put(b"[\n]\n", over=0)

    def write(self, line: dict[str, Any]) -> None:
        """Add the people of a frame."""
        image = self._images.of(line)
        if line["people"]:
            items = (json.dumps(result_of(person, image), separators=(",", ":")) for person in line["people"])
            text = ("" if self._is_empty else ",\n") + ",\n".join(items)
            self._put(text.encode() + b"\n]\n", over=2 if self._is_empty else 3)
            self._is_empty = False

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()

    def _put(self, data: bytes, *, over: int) -> None:
        """Append to the file in place of its last `over` bytes, which close the list."""
        assert self._file is not None
        try:
            self._file.append(data, over=over)
        except OSError as error:
            raise failed(name_of(self.path), error) from error


class CocoAnnotationsWriter(Writer):
    """COCO annotations: images, people with `keypoints` (x, y, visibility 2, or three zeros for a score below
    `LABELLED_SCORE`), `num_keypoints`, `bbox` and `area` of the box, and the category with names and edges.

    Images have the keys `frame`, `pts_s` and `source` beside COCO's own, annotations `score` and `track_id`. The file
    appears when it is complete.
    """

    _parts: tuple[IO[str], IO[str]] | None = None

    def begin(self, header: dict[str, Any]) -> None:
        """Create the file, still empty."""
        os.close(create(self.path, overwrite=self.overwrite))
        self._header = header
        self._images = ImageNumbers()
        self._people = 0
        self._is_first = True
        self._parts = tempfile.TemporaryFile("w+"), tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed by `close`

    def write(self, line: dict[str, Any]) -> None:
        """Add a frame."""
        assert self._parts is not None
        image = self._images.of(line)
        entry = {
            "id": image,
            "file_name": line.get("file") or f"{line['source']}/{line['frame']:06d}.jpg",
            "width": line["width"],
            "height": line["height"],
            "source": line["source"],
            "frame": line["frame"],
            "pts_s": line["pts_s"],
        }
        try:
            _add(self._parts[0], entry, is_first=self._is_first)
            self._is_first = False
            for person in line["people"]:
                self._people += 1
                _add(self._parts[1], annotation_of(person, image, self._people), is_first=self._people == 1)
        except OSError as error:
            raise failed(name_of(self.path), error) from error

    def close(self) -> None:
        """Join the parts to the file."""
        parts, self._parts = self._parts, None
        if parts is None:
            return
        skeleton = self._header["skeleton"]
        category = {
            "id": PERSON,
            "name": "person",
            "supercategory": "person",
            "keypoints": skeleton["names"],
            "skeleton": [[a + 1, b + 1] for a, b in skeleton["edges"]],
        }
        try:
            with parts[0], parts[1], self.path.open("w", encoding="utf-8") as file:
                file.write('{"info":' + json.dumps({"description": self._header.get("source", "")}) + ',"licenses":[],')
                file.write('"categories":' + json.dumps([category]))
                for name, part in zip(("images", "annotations"), parts, strict=True):
                    file.write(f',\n"{name}":[\n')
                    part.seek(0)
                    shutil.copyfileobj(part, file, 1 << 16)
                    file.write("\n]")
                file.write("}\n")
        except OSError as error:
            raise failed(name_of(self.path), error) from error


class ImageNumbers:
    """The `image_id` of frames: the number of the frame in its source. For the second source of a file,
    `SOURCE_STEP` is added, for the third twice that, and so on.
    """

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def of(self, line: dict[str, Any]) -> int:
        """Return the `image_id` of a frame."""
        source = self._numbers.setdefault(line["source"], len(self._numbers))
        number: int = line["frame"]
        return source * SOURCE_STEP + number


def result_of(person: dict[str, Any], image: int) -> dict[str, Any]:
    """Return a person as a COCO result. What is `null` becomes 0."""
    flat = [value or 0.0 for point in person["keypoints"] for value in point]
    scores = flat[2::3]
    result = {
        "image_id": image,
        "category_id": PERSON,
        "keypoints": flat,
        "bbox": _bbox(person),
        "score": round(sum(scores) / max(len(scores), 1), 5),
    }
    return result if person.get("id") is None else result | {"track_id": person["id"]}


def annotation_of(person: dict[str, Any], image: int, number: int) -> dict[str, Any]:
    """Return a person as a COCO annotation."""
    keypoints: list[float] = []
    for x, y, score in person["keypoints"]:
        is_labelled = x is not None and y is not None and score >= LABELLED_SCORE
        keypoints += [x, y, 2] if is_labelled else [0, 0, 0]
    bbox = _bbox(person)
    annotation = {
        "id": number,
        "image_id": image,
        "category_id": PERSON,
        "keypoints": keypoints,
        "num_keypoints": sum(value == 2 for value in keypoints[2::3]),
        "bbox": bbox,
        "area": round(bbox[2] * bbox[3], 2),
        "iscrowd": 0,
        "score": person["box_score"],
    }
    return annotation if person.get("id") is None else annotation | {"track_id": person["id"]}


def _bbox(person: dict[str, Any]) -> list[float]:
    left, top, right, bottom = (value or 0.0 for value in person["box_xyxy"])
    return [left, top, round(right - left, 2), round(bottom - top, 2)]


def _add(file: IO[str], item: dict[str, Any], *, is_first: bool) -> None:
    file.write(("" if is_first else ",\n") + json.dumps(item, separators=(",", ":")))
