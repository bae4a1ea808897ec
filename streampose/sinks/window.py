"""Drawn frames in a window of the desktop.

Knows OpenCV's windows and their quirks; every call has to come from the main thread.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from contextlib import suppress

import cv2

from streampose.errors import SinkError, describe
from streampose.frames import Image, Result, RunInfo
from streampose.sinks import Sink

MAX_WIDTH, MAX_HEIGHT = 1280, 800
"""Pixels a window takes at first; OpenCV does not say how large the screen is, and this fits a laptop's."""

PROBE_TIMEOUT_S = 20.0
"""An answer takes half a second; importing OpenCV from a cold disk takes longer."""

_PROBE = "cv2.namedWindow('streampose', cv2.WINDOW_AUTOSIZE); cv2.destroyAllWindows()"
_INSTEAD = "write a file instead, e.g. --to out.mp4"
_QUIT_KEYS = {ord("q"), ord("Q"), 27}
_NO_KEY = -1
_LOOK_EVERY_MS = 20
"""The longest wait between two looks at keys, the close button and Ctrl-C."""


class WindowSink(Sink):
    """A window that shows each frame; `q`, Esc or closing it ends the run.

    A recording is shown at its own pace: no frame before its time, counted from the one before it, and none is left out
    when the networks are slower. A live source is shown as it comes. A source of a single picture stays until the user
    quits.
    """

    on_main_thread = True

    def __init__(self, title: str) -> None:
        """Find out whether a window can be had. Raises `SinkError`."""
        super().__init__("window")
        _probe()
        self._title = title
        self._run: RunInfo | None = None
        self._is_shown = False
        self._shown_pts_s = 0.0
        self._shown_at_s = 0.0
        self._interrupted = False

    def open(self, run: RunInfo) -> None:
        """Remember the pace; the window appears with its first frame."""
        self._run = run

    def write(self, result: Result) -> bool | None:
        """Show one frame at its time; False when the user quits. Raises `SinkError`."""
        if self._run is None:
            raise SinkError("the window is not open")
        picture = result.frame.image if result.picture is None else result.picture
        try:
            return self._show(picture, result.frame.pts_s, self._run)
        except cv2.error as error:
            raise SinkError(f"the window failed: {describe(error)}; {_INSTEAD}") from error

    def interrupt(self) -> None:
        """Wait for nothing any more."""
        self._interrupted = True

    def close(self) -> None:
        """Remove the window."""
        self._run = None
        if self._is_shown:
            self._is_shown = False
            with suppress(cv2.error):  # the user may have closed it already
                cv2.destroyWindow(self._title)
                cv2.waitKey(1)

    def _show(self, picture: Image, pts_s: float, run: RunInfo) -> bool | None:
        if not self._is_shown:
            _open_window(self._title, picture)
            self._is_shown = True
            due_s = time.monotonic()
        elif run.source.is_live:
            due_s = time.monotonic()
        else:
            # A late frame does not make those behind it early: the pace is never above the recording's.
            due_s = max(self._shown_at_s + pts_s - self._shown_pts_s, time.monotonic())
            if not self._stay_until(due_s):
                return False
        self._shown_pts_s, self._shown_at_s = pts_s, due_s
        cv2.imshow(self._title, picture)
        if run.source.frame_count == 1:
            while not self._interrupted and self._stay_until(time.monotonic() + 1.0):
                pass
            return False
        return None if self._stay_until(due_s) else False

    def _stay_until(self, due_s: float) -> bool:
        """Serve the window until `due_s`, at least once; return False when the user quits."""
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
        except cv2.error:  # Qt's answer for a window that the user has closed
            return False


def _open_window(title: str, picture: Image) -> None:
    height, width = picture.shape[:2]
    scale = min(1.0, MAX_WIDTH / width, MAX_HEIGHT / height)
    cv2.namedWindow(title, cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO | cv2.WINDOW_GUI_NORMAL)
    cv2.resizeWindow(title, max(1, round(width * scale)), max(1, round(height * scale)))


def _probe() -> None:
    """Open a window in a child process, for what a process does not survive.

    Without a display Qt aborts it. In a process that imports PyAV, which brings an X library of its own, before OpenCV,
    the first window hangs for ever (https://github.com/opencv/opencv/issues/29195).
    """
    if sys.platform == "linux" and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        raise SinkError(f"no window can be opened: there is no display (DISPLAY is not set); {_INSTEAD}")
    imports = [name for name in sys.modules if name in {"av", "cv2"}]  # in the order of this process
    command = [sys.executable, "-c", f"import {', '.join(imports)}; {_PROBE}"]
    try:
        probe = subprocess.run(command, capture_output=True, timeout=PROBE_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired as error:
        cause = "import cv2 before av, else it hangs" if imports[0] == "av" else "the display does not answer"
        raise SinkError(f"no window can be opened: {cause}; {_INSTEAD}") from error
    if probe.returncode == 0:
        return
    if b"not implemented" in probe.stderr:
        raise SinkError(f"no window can be opened: this OpenCV has none (opencv-python has them); {_INSTEAD}")
    raise SinkError(f"no window can be opened on display {os.environ.get('DISPLAY')!r}; {_INSTEAD}")
