"""One window on the screen: its picture, keys and clicks. Handles OpenCV's windows and their quirks.

Every call must come from the main thread.
"""

from __future__ import annotations

import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

import cv2

from streampose.errors import StreamposeError
from streampose.frames import Image, RunInfo
from streampose.sinks.captions import mark_recording, text_scale, write_line, write_table
from streampose.sinks.display import check_display
from streampose.sinks.keepsakes import Keepsakes
from streampose.sinks.view import View

log = logging.getLogger("streampose")

MAX_WIDTH, MAX_HEIGHT = 1280, 800
"""Maximum initial window size in pixels. OpenCV does not report the screen size; this fits a laptop screen."""
NOTE_S = 2.5
"""How long a note about what a key has done stays in the picture."""

KEYS = (
    ("f", "full screen"),
    ("m", "mirror"),
    ("space", "pause"),
    ("s", "save a still"),
    ("r", "record, stop recording"),
    ("+ -", "fewer, more keypoints"),
    ("t", "drawing style"),
    ("l", "labels"),
    ("e", "how sure keypoints are"),
    ("click, 1-9", "keep one person; again: all"),
    ("i", "frame rate and latency"),
    ("h", "this help"),
    ("q, Esc", "quit"),
)
"""Keys and what they do, for the help in the window."""

_NO_KEY = -1
_ESCAPE = 27
_LOOK_EVERY_MS = 20
"""Maximum interval between checks of the keys, the close button and Ctrl-C."""


@dataclass(frozen=True, slots=True)
class WindowSettings:
    """How a window opens."""

    title: str = "streampose"
    mirror: bool | None = None
    """Show pictures mirrored; None mirrors only cameras of this machine."""
    speed: float = 1.0
    """Speed of a recording that has the window for itself, relative to its own pace."""
    fullscreen: bool = False


class Layout(ABC):
    """How the pictures of some sources fill a window."""

    views: list[View]

    @abstractmethod
    def picture(self, *, shows_pace: bool) -> Image:
        """Return the picture of the whole window, (H, W, 3) uint8 BGR. It is shared: copy it before drawing on it."""

    @abstractmethod
    def view_at(self, x: int, y: int) -> tuple[View, float, float] | None:
        """Return the view at a point of the picture, and the point in the view's picture; None beside all views."""


class Desk:
    """A window that shows a layout and lets the user change it."""

    def __init__(self, layout: Layout, settings: WindowSettings) -> None:
        """Check that a window can be opened. It opens with the first picture. Raises `SinkError`."""
        check_display()
        self._layout = layout
        self._title = settings.title
        self._is_full = settings.fullscreen
        self._is_shown = False
        self.is_paused = False
        self.interrupted = False
        """Whether all waiting ends."""
        self._shows_pace = False
        self._shows_help = False
        self._note = ""
        self._note_until_s = 0.0
        self._clicks: list[tuple[int, int]] = []
        self._picture: Image | None = None
        self.keepsakes: Keepsakes | None = None

    @property
    def first_view(self) -> View:
        """The first view of the layout."""
        return self._layout.views[0]

    def begin(self, run: RunInfo, name: str) -> None:
        """Prepare for saving stills and recordings, whose names begin with `name`."""
        self.keepsakes = self.keepsakes or Keepsakes(run, name)

    def update(self, pts_s: float) -> None:
        """Show what the views have now, and record it at a time of the recording."""
        self._draw()
        self._tell(self._try(lambda kept, picture: kept.record(picture, pts_s)))

    def _draw(self) -> None:
        picture = self._layout.picture(shows_pace=self._shows_pace)
        if not self._is_shown:
            self._open(picture)
        self._picture = picture
        is_recording = self.keepsakes is not None and self.keepsakes.is_recording
        note = self._note or ("paused" if self.is_paused else "")
        shown = picture.copy() if is_recording or note or self._shows_help else picture
        if is_recording:
            mark_recording(shown)
        if note:
            write_line(shown, note, "bottom left", text_scale(shown))
        if self._shows_help:
            write_table(shown, KEYS)
        cv2.imshow(self._title, shown)

    def stay_until(self, due_s: float) -> bool:
        """Serve the user until `due_s`, at least once. Return False if the user quits."""
        while True:
            left_ms = round((due_s - time.monotonic()) * 1000)
            key = cv2.waitKey(min(max(left_ms, 1), _LOOK_EVERY_MS))
            if not self._obey(key) or not self._is_open():
                return False
            if self.interrupted or time.monotonic() >= due_s:
                return True

    def serve(self) -> bool:
        """Serve the user once, if there is a window. Return False if the user quits."""
        return not self._is_shown or self.stay_until(0.0)

    def close(self) -> None:
        """End the recording and close the window. Raises `SinkError`."""
        if self._is_shown:
            self._is_shown = False
            with suppress(cv2.error):  # the user may have closed it already
                cv2.destroyWindow(self._title)
                cv2.waitKey(1)
        if self.keepsakes is not None:
            self.keepsakes.stop()

    def _open(self, picture: Image) -> None:
        height, width = picture.shape[:2]
        scale = min(1.0, MAX_WIDTH / width, MAX_HEIGHT / height)
        cv2.namedWindow(self._title, cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO | cv2.WINDOW_GUI_NORMAL)
        cv2.resizeWindow(self._title, max(1, round(width * scale)), max(1, round(height * scale)))
        cv2.setMouseCallback(self._title, self._clicked)
        self._is_shown = True
        if self._is_full:
            self._set_full()

    def _clicked(self, event: int, x: int, y: int, *_: object) -> None:
        if event == cv2.EVENT_LBUTTONDOWN:
            self._clicks.append((x, y))

    def _obey(self, key: int) -> bool:
        """Do what the user wants. Return False to quit."""
        note = None
        clicks, self._clicks = self._clicks, []
        for x, y in clicks:
            if (hit := self._layout.view_at(x, y)) is not None:
                view, *place = hit
                note = view.click(*place)
        if key != _NO_KEY:
            if key & 0xFF == _ESCAPE or (word := chr(key & 0xFF).lower()) == "q":
                return False
            note = self._do(word)
        if note is not None:
            self._tell(note)
            self._draw()
        elif self._note and time.monotonic() >= self._note_until_s:
            self._note = ""
            self._draw()
        return True

    def _tell(self, note: str | None) -> None:
        """Show a note for a while, from the next picture on."""
        if note is not None:
            self._note, self._note_until_s = note, time.monotonic() + NOTE_S

    def _do(self, key: str) -> str | None:
        """Do what a key means. Return a note about it; None if the key means nothing."""
        match key:
            case "f":
                self._is_full = not self._is_full
                self._set_full()
                return ""
            case "m":
                return self._change(View.mirror)
            case " ":
                self.is_paused = not self.is_paused
                return ""
            case "s":
                return self._try(lambda kept, picture: f"saved {kept.save_still(picture)}")
            case "r":
                return self._try(self._start_or_stop)
            case "+" | "=" | "-" | "_":
                return self._change(lambda view: view.move_threshold(1 if key in "+=" else -1))
            case "t":
                return self._change(View.change_style)
            case "l":
                return self._change(View.toggle_labels)
            case "e":
                return self._change(View.toggle_ellipses)
            case "i":
                self._shows_pace = not self._shows_pace
                return ""
            case "h" | "?":
                self._shows_help = not self._shows_help
                return ""
            case _ if key.isdecimal() and key.isascii():
                return self._choose(int(key))
        return None

    def _change(self, change: Callable[[View], str]) -> str:
        """Change all views. Return the note about the first one."""
        notes = [change(view) for view in self._layout.views]
        return notes[0]

    def _choose(self, identity: int) -> str:
        """Keep a person by identity, which is unique only if there is one source."""
        if len(self._layout.views) > 1:
            return "there are several sources: click on a person"
        return self._layout.views[0].choose(identity)

    def _start_or_stop(self, kept: Keepsakes, _: Image) -> str:
        if kept.is_recording:
            return f"saved {kept.stop()}"
        kept.start()
        return "recording"

    def _try(self, work: Callable[[Keepsakes, Image], str | None]) -> str | None:
        """Save something, if there is a picture. A failure becomes a note: the window goes on."""
        if self.keepsakes is None or self._picture is None:
            return None
        try:
            return work(self.keepsakes, self._picture)
        except StreamposeError as error:
            log.error("%s", error)
            return str(error)

    def _set_full(self) -> None:
        full = cv2.WINDOW_FULLSCREEN if self._is_full else cv2.WINDOW_NORMAL
        cv2.setWindowProperty(self._title, cv2.WND_PROP_FULLSCREEN, full)

    def _is_open(self) -> bool:
        try:
            return cv2.getWindowProperty(self._title, cv2.WND_PROP_VISIBLE) >= 1
        except cv2.error:  # Qt raises this if the user has closed the window
            return False
