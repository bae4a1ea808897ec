"""Shows drawn frames in a desktop window.

Handles OpenCV's windows and their quirks. Every call must come from the main thread.
"""

from __future__ import annotations

import math
import os
import subprocess
import sys
import time
from contextlib import suppress
from functools import cache

import cv2
import numpy as np

from streampose.errors import SinkError, describe
from streampose.frames import Image, Result, RunInfo, SourceInfo
from streampose.sinks.encode import letterboxed, square_pixels
from streampose.sinks.sink import SharedSink, Sink

MAX_WIDTH, MAX_HEIGHT = 1280, 800
"""Maximum initial window size in pixels. OpenCV does not report the screen size; this fits a laptop screen."""

PROBE_TIMEOUT_S = 20.0
"""The probe normally takes 0.5 s, but importing OpenCV from a cold disk takes longer."""

_PROBE = "cv2.namedWindow('streampose', cv2.WINDOW_AUTOSIZE); cv2.destroyAllWindows()"
_INSTEAD = "write to a file instead (`to`), such as out.mp4"
_QUIT_KEYS = {ord("q"), ord("Q"), 27}
_NO_KEY = -1
_LOOK_EVERY_MS = 20
"""Maximum interval between checks of the keys, the close button and Ctrl-C."""


class WindowSink(Sink):
    """A window that shows each frame. Pressing `q` or Esc, or closing the window, ends the run.

    A recording is shown at its own pace: each frame waits until it is due, counted from the previous frame. No frame is
    skipped if the networks are slower. Frames of a live source are shown as they arrive. A single still is shown until
    the user quits.
    """

    on_main_thread = True
    quits_run = True

    def __init__(self, title: str) -> None:
        """Check that a window can be opened. Raises `SinkError`."""
        super().__init__("window")
        _probe(os.environ.get("DISPLAY"), os.environ.get("WAYLAND_DISPLAY"))
        self._title = title
        self._run: RunInfo | None = None
        self._is_shown = False
        self._shown_pts_s = 0.0
        self._shown_at_s = 0.0
        self._interrupted = False

    def open(self, run: RunInfo) -> None:
        """Store the run. The window opens with the first frame."""
        self._run = run

    def write(self, result: Result) -> bool | None:
        """Show one frame when it is due. Return False if the user quits. Raises `SinkError`."""
        if self._run is None:
            raise SinkError("the window is not open")
        image = result.frame.image if result.drawn is None else result.drawn
        image = square_pixels(image, result.frame.pixel_aspect)
        try:
            return self._show(image, result.frame.pts_s, self._run)
        except cv2.error as error:
            raise SinkError(f"the window failed: {describe(error)}; {_INSTEAD}") from error

    def idle(self) -> bool | None:
        """Handle keys and the close button while no frame arrives. Return False if the user quits."""
        return None if not self._is_shown or self._stay_until(0.0) else False

    def interrupt(self) -> None:
        """Stop all waiting."""
        self._interrupted = True

    def close(self) -> None:
        """Close the window."""
        self._run = None
        if self._is_shown:
            self._is_shown = False
            with suppress(cv2.error):  # the user may have closed it already
                cv2.destroyWindow(self._title)
                cv2.waitKey(1)

    def _show(self, image: Image, pts_s: float, run: RunInfo) -> bool | None:
        if not self._is_shown:
            _open_window(self._title, image)
            self._is_shown = True
            due_s = time.monotonic()
        elif run.source.is_live:
            due_s = time.monotonic()
        else:
            # Count from the previous frame, so that frames after a late one are never shown faster than recorded.
            due_s = max(self._shown_at_s + pts_s - self._shown_pts_s, time.monotonic())
            if not self._stay_until(due_s):
                return False
        self._shown_pts_s, self._shown_at_s = pts_s, due_s
        cv2.imshow(self._title, image)
        if run.source.frame_count == 1:
            while not self._interrupted and self._stay_until(time.monotonic() + 1.0):
                pass
            return False
        return None if self._stay_until(due_s) else False

    def _stay_until(self, due_s: float) -> bool:
        """Process window events until `due_s`, at least once. Return False if the user quits."""
        while True:
            left_ms = round((due_s - time.monotonic()) * 1000)
            key = cv2.waitKey(min(max(left_ms, 1), _LOOK_EVERY_MS))
            if (key != _NO_KEY and key & 0xFF in _QUIT_KEYS) or not self._is_open():
                return False
            if self._interrupted or time.monotonic() >= due_s:
                return True

    def _is_open(self) -> bool:
        try:
            return cv2.getWindowProperty(self._title, cv2.WND_PROP_VISIBLE) >= 1
        except cv2.error:  # Qt raises this if the user has closed the window
            return False


class GridCellSink(WindowSink):
    """The cell of one source in a window that several sources share. Otherwise it behaves like `WindowSink`.

    The window is redrawn when any cell has a new frame. Recordings are not paced here: a cell shows each frame as it
    arrives.
    """

    def __init__(self, title: str, grid: Grid, cell: int) -> None:
        """Use the cell number `cell` of `grid`. Raises `SinkError`."""
        super().__init__(title)
        self._grid = grid
        self._cell = cell

    def _show(self, image: Image, pts_s: float, run: RunInfo) -> bool | None:  # noqa: ARG002 - cells are not paced
        canvas = self._grid.put(self._cell, image, run.source.source_id)
        if not self._is_shown:
            self._grid.show_window()
            self._is_shown = True
        cv2.imshow(self._title, canvas)
        return None if self._stay_until(0.0) else False


class Grid(SharedSink):
    """A window with one cell per source. Use it from the main thread."""

    def __init__(self, title: str, count: int) -> None:
        """Create a grid for `count` cells, as square as possible."""
        self._title = title
        self.columns = math.ceil(math.sqrt(count))
        self.rows = math.ceil(count / self.columns)
        self._taken = 0
        self._is_shown = False
        self._cell_width, self._cell_height = MAX_WIDTH // self.columns, MAX_HEIGHT // self.rows
        self._canvas = np.zeros((self._cell_height * self.rows, self._cell_width * self.columns, 3), np.uint8)

    def of_source(self, source: SourceInfo) -> GridCellSink:  # noqa: ARG002 - cells are assigned in order
        """Return the sink of the next free cell. Raises `SinkError`."""
        self._taken += 1
        return GridCellSink(self._title, self, self._taken - 1)

    def put(self, cell: int, image: Image, label: str) -> Image:
        """Fit `image` into its cell with its label. Return the whole grid as a (H, W, 3) uint8 BGR image."""
        row, column = divmod(cell, self.columns)
        top, left = row * self._cell_height, column * self._cell_width
        place = self._canvas[top : top + self._cell_height, left : left + self._cell_width]
        place[:] = letterboxed(image, self._cell_width, self._cell_height)
        for color, thickness in ((0, 0, 0), 3), ((255, 255, 255), 1):
            cv2.putText(place, label, (8, 20), cv2.FONT_HERSHEY_SIMPLEX, 0.5, color, thickness, cv2.LINE_AA)
        return self._canvas

    def show_window(self) -> None:
        """Open the window once for all cells."""
        if not self._is_shown:
            self._is_shown = True
            _open_window(self._title, self._canvas)


def _open_window(title: str, image: Image) -> None:
    height, width = image.shape[:2]
    scale = min(1.0, MAX_WIDTH / width, MAX_HEIGHT / height)
    cv2.namedWindow(title, cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO | cv2.WINDOW_GUI_NORMAL)
    cv2.resizeWindow(title, max(1, round(width * scale)), max(1, round(height * scale)))


@cache
def _probe(display: str | None, wayland: str | None) -> None:
    """Open a window in a child process, because some failures kill or hang the process. Raises `SinkError`.

    Without a display, Qt aborts the process. PyAV bundles its own X library: if a process imports PyAV before OpenCV,
    its first window hangs forever (https://github.com/opencv/opencv/issues/29195). Success is cached for this process.
    """
    if sys.platform == "linux" and not (display or wayland):
        raise SinkError(f"no window can be opened: no display (DISPLAY is not set); {_INSTEAD}")
    imports = [name for name in sys.modules if name in {"av", "cv2"}]  # in the order of this process
    command = [sys.executable, "-c", f"import {', '.join(imports)}; {_PROBE}"]
    try:
        probe = subprocess.run(command, capture_output=True, timeout=PROBE_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired as error:
        cause = "import cv2 before av to avoid a hang" if imports[0] == "av" else "the display does not respond"
        raise SinkError(f"no window can be opened: {cause}; {_INSTEAD}") from error
    if probe.returncode == 0:
        return
    if b"not implemented" in probe.stderr:
        raise SinkError(f"no window can be opened: this OpenCV lacks window support (use opencv-python); {_INSTEAD}")
    raise SinkError(f"no window can be opened on display {display!r}; {_INSTEAD}")
