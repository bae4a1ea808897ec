"""A screen of its own for tests of windows: what it shows, and keys and clicks as a user's."""

from __future__ import annotations

import ctypes
import os
import re
import select
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import cv2
import numpy as np
import pytest

from streampose.frames import Image

SIZE = (800, 600)
"""Width and height of the screen, in pixels."""


@contextmanager
def virtual_screen() -> Iterator[str]:
    """Yield the name of a display; skip where there is no Xvfb, but not in CI, and where OpenCV has no windows."""
    if re.search(r"GUI: +NONE", cv2.getBuildInformation()):
        pytest.skip("this OpenCV has no windows (opencv-python-headless)")
    missing = [tool for tool in ("Xvfb", "xdotool") if shutil.which(tool) is None]
    if missing:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(
            f"needs {' and '.join(missing)} (apt-get install xvfb xdotool)"
        )
    reader, writer = os.pipe()
    server = subprocess.Popen(
        ["Xvfb", "-displayfd", str(writer), "-screen", "0", f"{SIZE[0]}x{SIZE[1]}x24", "-nolisten", "tcp", "-noreset"],
        pass_fds=[writer],
        stderr=subprocess.DEVNULL,
    )
    os.close(writer)
    try:
        with os.fdopen(reader) as number:
            assert select.select([number], [], [], 20.0)[0], "Xvfb does not start"
            yield f":{number.readline().strip()}"
    finally:
        server.terminate()
        server.wait(timeout=10)


@contextmanager
def window_manager(display: str) -> Iterator[None]:
    """Let a window manager run on the display; skip where there is none, but not in CI."""
    if shutil.which("openbox") is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("needs openbox (apt-get install openbox)")
    environment = os.environ | {"DISPLAY": display}
    with subprocess.Popen(["openbox"], env=environment, stderr=subprocess.DEVNULL) as manager:
        try:
            deadline_s = time.monotonic() + 20
            while subprocess.run(["xdotool", "get_desktop"], env=environment, capture_output=True).returncode:
                assert time.monotonic() < deadline_s, "openbox does not start"
                time.sleep(0.05)
            yield
        finally:
            manager.terminate()


class _XImage(ctypes.Structure):
    """The first fields of Xlib's XImage."""

    _fields_: Sequence[tuple[str, Any]] = (
        ("width", ctypes.c_int),
        ("height", ctypes.c_int),
        ("xoffset", ctypes.c_int),
        ("format", ctypes.c_int),
        ("data", ctypes.POINTER(ctypes.c_ubyte)),
        ("byte_order", ctypes.c_int),
        ("bitmap_unit", ctypes.c_int),
        ("bitmap_bit_order", ctypes.c_int),
        ("bitmap_pad", ctypes.c_int),
        ("depth", ctypes.c_int),
        ("bytes_per_line", ctypes.c_int),
        ("bits_per_pixel", ctypes.c_int),
    )


@contextmanager
def _connection(display: str) -> Iterator[tuple[Any, Any]]:
    """Yield Xlib and a connection to the display."""
    x11 = ctypes.CDLL("libX11.so.6")
    x11.XOpenDisplay.restype = ctypes.c_void_p
    x11.XDefaultRootWindow.restype = ctypes.c_ulong
    x11.XDefaultRootWindow.argtypes = [ctypes.c_void_p]
    x11.XInternAtom.restype = ctypes.c_ulong
    x11.XInternAtom.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int]
    x11.XSendEvent.argtypes = [ctypes.c_void_p, ctypes.c_ulong, ctypes.c_int, ctypes.c_long, ctypes.c_void_p]
    x11.XCloseDisplay.argtypes = [ctypes.c_void_p]
    x11.XGetImage.restype = ctypes.POINTER(_XImage)
    x11.XGetImage.argtypes = [ctypes.c_void_p, ctypes.c_ulong, *[ctypes.c_int] * 4, ctypes.c_ulong, ctypes.c_int]
    connection = x11.XOpenDisplay(display.encode())
    try:
        yield x11, connection
    finally:
        x11.XCloseDisplay(connection)


def screenshot(display: str) -> Image:
    """Return what the screen shows, (600, 800, 3) uint8 BGR."""
    every_plane, by_pixel = 2**64 - 1, 2
    with _connection(display) as (x11, connection):
        root = x11.XDefaultRootWindow(connection)
        image = x11.XGetImage(connection, root, 0, 0, *SIZE, every_plane, by_pixel).contents
        assert (image.bits_per_pixel, image.bytes_per_line) == (32, 4 * SIZE[0])
        pixels = np.ctypeslib.as_array(image.data, (SIZE[1], SIZE[0], 4))
        return np.ascontiguousarray(pixels[:, :, :3])


def pixels_of(display: str, bgr: tuple[int, int, int]) -> int:
    """Count the pixels of a colour on the screen."""
    return int((screenshot(display) == bgr).all(axis=2).sum())


def _xdotool(display: str, *arguments: str) -> str:
    done = subprocess.run(
        ["xdotool", *arguments], env=os.environ | {"DISPLAY": display}, check=True, capture_output=True, text=True
    )
    return done.stdout


def find_window(display: str, title: str = "a title") -> str:
    return _xdotool(display, "search", "--name", title).split()[-1]


def press(display: str, key: str, title: str = "a title") -> None:
    _xdotool(display, "key", "--window", find_window(display, title), key)


def click(display: str, x: int, y: int, title: str = "a title") -> None:
    """Click on a point of the window, in pixels of the screen."""
    _xdotool(display, "mousemove", "--window", find_window(display, title), str(x), str(y), "click", "1")


def click_close(display: str) -> None:
    """Send what a window manager sends when its close button is clicked (ICCCM 4.2.8.1)."""

    class ClientMessage(ctypes.Structure):
        _fields_: Sequence[tuple[str, Any]] = (
            ("type", ctypes.c_int),
            ("serial", ctypes.c_ulong),
            ("send_event", ctypes.c_int),
            ("display", ctypes.c_void_p),
            ("window", ctypes.c_ulong),
            ("message_type", ctypes.c_ulong),
            ("format", ctypes.c_int),
            ("data", ctypes.c_long * 5),
            ("rest", ctypes.c_long * 12),
        )

    window = int(find_window(display))
    with _connection(display) as (x11, connection):
        event = ClientMessage(type=33, window=window, format=32)
        event.message_type = x11.XInternAtom(connection, b"WM_PROTOCOLS", 0)
        event.data[0] = x11.XInternAtom(connection, b"WM_DELETE_WINDOW", 0)
        x11.XSendEvent(connection, window, 0, 0, ctypes.byref(event))
