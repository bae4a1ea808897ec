"""Shows drawn frames in a window on the screen, for one source or for several.

Every call must come from the main thread.
"""

from __future__ import annotations

import math
import time
from abc import abstractmethod

import cv2
import numpy as np

from streampose.errors import SinkError, describe
from streampose.frames import Image, Result, RunInfo, SourceInfo
from streampose.sinks.captions import text_scale, write_line
from streampose.sinks.controls import Controls
from streampose.sinks.desk import MAX_HEIGHT, MAX_WIDTH, Desk, Layout, WindowSettings
from streampose.sinks.display import INSTEAD
from streampose.sinks.encode import letterboxed
from streampose.sinks.sink import SharedSink, Sink
from streampose.sinks.view import View

GRID_NAME = "streampose"
"""The name that stills and recordings of a window with several sources begin with."""


class _ViewSink(Sink):
    """The view of one source in a window. Pressing `q` or Esc, or closing the window, ends the run."""

    on_main_thread = True
    quits_run = True
    leaves_nothing = True

    def __init__(self, desk: Desk, view: View) -> None:
        super().__init__("window")
        self._desk = desk
        self._view = view
        self._run: RunInfo | None = None

    def take_controls(self, controls: Controls) -> None:
        """Let the user change the drawing and choose a person. The window draws for itself from now on."""
        self._view.take(controls)
        self.needs_drawn = self._view.needs_drawn

    def open(self, run: RunInfo) -> None:
        """Store the run. The window opens with the first frame."""
        self._run = run
        self._view.begin(run.source)

    def write(self, result: Result) -> bool | None:
        """Show one frame when it is due. Return False if the user quits. Raises `SinkError`."""
        if self._run is None:
            raise SinkError("the window is not open")
        try:
            return None if self._show(result, self._run.source) else False
        except cv2.error as error:
            raise SinkError(f"the window failed: {describe(error)}; {INSTEAD}") from error

    @abstractmethod
    def _show(self, result: Result, source: SourceInfo) -> bool:
        """Show one frame. Return False if the user quits."""

    def _wait_for_a_pause(self) -> bool:
        """Wait while the user looks at a frame of a recording. Return False if the user quits."""
        while self._desk.is_paused and not self._desk.interrupted:
            if not self._desk.stay_until(time.monotonic() + 1.0):
                return False
        return True

    def idle(self) -> bool | None:
        """Handle keys, clicks and the close button while no frame arrives. Return False if the user quits."""
        return None if self._desk.serve() else False

    def summary(self) -> str | None:
        """Return the names of the stills and recordings that the user has saved; None if there are none. A window tells
        them once.
        """
        keepsakes = self._desk.keepsakes
        return keepsakes.summary() if keepsakes is not None and self._view is self._desk.first_view else None

    def interrupt(self) -> None:
        """Stop all waiting."""
        self._desk.interrupted = True

    def close(self) -> None:
        """Close the window."""
        self._run = None
        self._desk.close()


class WindowSink(_ViewSink):
    """A window that shows one source.

    A recording is shown at its own pace, times the speed in the settings: each frame waits until it is due, counted
    from the previous frame. No frame is skipped if the networks are slower. Frames of a live source are shown as they
    arrive; a paused window leaves them out, while the other sinks go on. A single still is shown until the user quits.
    """

    def __init__(self, settings: WindowSettings | None = None) -> None:
        """Check that a window can be opened. Raises `SinkError`."""
        settings = settings or WindowSettings()
        view = View(mirror=settings.mirror)
        super().__init__(Desk(_Whole(view), settings), view)
        self._speed = settings.speed
        self._shown_pts_s = 0.0
        self._due_s: float | None = None
        """When the latest frame was due; None before the first one."""

    def open(self, run: RunInfo) -> None:
        """Store the run. The window opens with the first frame."""
        super().open(run)
        self._desk.begin(run, run.source.source_id)

    def _show(self, result: Result, source: SourceInfo) -> bool:
        desk, pts_s = self._desk, result.frame.pts_s
        if source.is_live and desk.is_paused:
            return desk.stay_until(0.0)
        if self._due_s is not None and not source.is_live:
            # Count from the previous frame, so that frames after a late one are never shown faster than recorded.
            self._due_s = max(self._due_s + (pts_s - self._shown_pts_s) / self._speed, time.monotonic())
            if not desk.stay_until(self._due_s):
                return False
            if desk.is_paused:
                if not self._wait_for_a_pause():
                    return False
                self._due_s = time.monotonic()
        self._shown_pts_s = pts_s
        self._view.put(result)
        desk.update(pts_s)
        self._due_s = self._due_s or time.monotonic()  # opening the window takes longer than a frame
        if source.frame_count == 1:
            while not desk.interrupted and desk.stay_until(time.monotonic() + 1.0):
                pass
            return False
        return desk.stay_until(0.0)


class _Whole(Layout):
    """One view that fills the window."""

    def __init__(self, view: View) -> None:
        self.views = [view]

    def picture(self, *, shows_pace: bool) -> Image:
        picture = self.views[0].picture()
        if shows_pace:
            picture = picture.copy()
            write_line(picture, self.views[0].pace(), "top left", text_scale(picture))
        return picture

    def view_at(self, x: int, y: int) -> tuple[View, float, float]:
        return self.views[0], x, y


class GridCellSink(_ViewSink):
    """The cell of one source in a window that several sources share.

    The window is redrawn when any cell has a new frame. Recordings are not paced here: a cell shows each frame as it
    arrives.
    """

    def _show(self, result: Result, source: SourceInfo) -> bool:
        if source.is_live and self._desk.is_paused:
            return self._desk.stay_until(0.0)
        if not self._wait_for_a_pause():
            return False
        self._view.put(result)
        self._desk.update(time.monotonic())
        return self._desk.stay_until(0.0)

    def open(self, run: RunInfo) -> None:
        """Store the run. The window opens with the first frame."""
        super().open(run)
        self._desk.begin(run, GRID_NAME)


class Grid(SharedSink):
    """A window with one cell per source. Use it from the main thread."""

    def __init__(self, count: int, settings: WindowSettings | None = None) -> None:
        """Create a grid for `count` cells, as square as possible. Raises `SinkError`."""
        self._settings = settings or WindowSettings()
        self._cells = Cells(count)
        self._desk = Desk(self._cells, self._settings)

    def of_source(self, source: SourceInfo) -> GridCellSink:
        """Return the sink of the next free cell."""
        view = View(mirror=self._settings.mirror)
        self._cells.add(view, source.source_id)
        return GridCellSink(self._desk, view)


class Cells(Layout):
    """Views in rows and columns, each with the name of its source."""

    def __init__(self, count: int) -> None:
        """Make room for `count` views, as square as possible."""
        self.columns = math.ceil(math.sqrt(count))
        self.rows = math.ceil(count / self.columns)
        self._width, self._height = MAX_WIDTH // self.columns, MAX_HEIGHT // self.rows
        self.views: list[View] = []
        self._names: list[str] = []
        self._canvas = np.zeros((self._height * self.rows, self._width * self.columns, 3), np.uint8)
        self._shown: list[tuple[Image | None, str]] = []
        """What each cell of the canvas shows: a cell is drawn again only if that changes."""

    def add(self, view: View, name: str) -> None:
        """Put a view into the next free cell."""
        self.views.append(view)
        self._names.append(name)
        self._shown.append((None, ""))

    def picture(self, *, shows_pace: bool) -> Image:
        """Return all cells, (H, W, 3) uint8 BGR. A cell without a frame is black."""
        for number, (view, name) in enumerate(zip(self.views, self._names, strict=True)):
            picture = None if view.result is None else view.picture()
            text = f"{name}  {view.pace()}" if shows_pace else name
            before, text_before = self._shown[number]
            if picture is not before or text != text_before:
                self._shown[number] = picture, text
                self._show(number, picture, text)
        return self._canvas

    def _show(self, number: int, picture: Image | None, text: str) -> None:
        row, column = divmod(number, self.columns)
        top, left = row * self._height, column * self._width
        place = self._canvas[top : top + self._height, left : left + self._width]
        place[:] = 0 if picture is None else letterboxed(picture, self._width, self._height)
        write_line(place, text, "top left", text_scale(place))

    def view_at(self, x: int, y: int) -> tuple[View, float, float] | None:
        """Return the view in the cell at a point, and the point in its picture."""
        column, row = x // self._width, y // self._height
        number = row * self.columns + column
        if not (0 <= column < self.columns and 0 <= number < len(self.views)):
            return None
        view = self.views[number]
        if view.result is None:
            return None
        height, width = view.picture().shape[:2]
        scale = min(self._width / width, self._height / height)
        left, top = (self._width - round(width * scale)) // 2, (self._height - round(height * scale)) // 2
        return view, (x % self._width - left) / scale, (y % self._height - top) / scale
