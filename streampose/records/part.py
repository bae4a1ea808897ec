"""Parts of recorded poses: the lines of the frames between two times, or only every Nth. Knows no file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from streampose.frames import WHOLE, Part
from streampose.picker import Picker, nothing_in, starts_behind


class LinePicker:
    """Says which lines of a poses file are in a part. If there are several sources, the part is taken of each."""

    def __init__(self, part: Part, name: str) -> None:
        """Pick from the first line on. `name` is the file, for the message."""
        self._part = part
        self._name = name
        self._pickers: dict[str, Picker] = {}
        self._has_any = False
        self._last_s: float | None = None
        self._behind_s: float | None = None
        """Time of the first frame behind the part."""

    def takes(self, line: dict[str, Any]) -> bool:
        """Return whether the next line is in the part. A frame without a time is only in the whole."""
        if self._part == WHOLE:
            return True
        pts_s = line.get("pts_s")
        if pts_s is None:
            return False
        picker = self._pickers.setdefault(line.get("source", ""), Picker(self._part))
        is_taken = picker.takes(pts_s)
        self._has_any = self._has_any or is_taken
        self._last_s = pts_s if self._last_s is None else max(self._last_s, pts_s)
        if self._behind_s is None and picker.is_over(pts_s):
            self._behind_s = pts_s
        return is_taken

    def check(self) -> None:
        """Raise `UsageError` if there were frames, but none in the part."""
        if self._has_any or self._last_s is None:
            return
        if self._behind_s is None:
            raise starts_behind(self._part, self._name, self._last_s)
        raise nothing_in(self._part, self._name, self._behind_s)


def lines_of_part(lines: Iterable[dict[str, Any]], part: Part, name: str) -> Iterator[dict[str, Any]]:
    """Yield the lines in a part; see `LinePicker`.

    Raises:
        UsageError: no frame is in the part.
    """
    picker = LinePicker(part, name)
    yield from filter(picker.takes, lines)
    picker.check()
