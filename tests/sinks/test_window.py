"""The window, on a virtual screen."""

from __future__ import annotations

import ctypes
import os
import re
import select
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from typing import Any

import cv2

# isort: split
import pytest

from tests.sinks.helpers import child, next_line

WINDOW = """
    import sys, threading, time
    from streampose.errors import StreamposeError
    from streampose.sinks.desk import WindowSettings
    from streampose.sinks.open import open_sink
    import numpy as np

    try:
        sink = open_sink("window", window=WindowSettings("a title"))
    except StreamposeError as error:
        print(type(error).__name__, error)
        sys.exit(error.exit_code)
    from tests.sinks.helpers import result, run_info

    red = np.zeros((300, 500, 3), np.uint8)
    red[:] = 0, 0, 255
    if sys.argv[1] == "live":
        sink.open(run_info(is_live=True))
        index = 0
        while sink.write(result(index, image=red)) is not False:
            if index == 3:
                print("shown", flush=True)
            index += 1
            time.sleep(0.005)
    elif sys.argv[1] == "one":
        sink.open(run_info(frame_count=1))
        threading.Timer(0.5, print, ["shown"], {"flush": True}).start()
        assert sink.write(result(0, image=red)) is False
    elif sys.argv[1] == "recorded":
        sink.open(run_info())
        shown = []
        for index in (0, 1, 2, 10, 11):
            assert sink.write(result(index, image=red)) is None
            shown.append(time.monotonic())
        print(*(each - shown[0] for each in shown), flush=True)
    else:
        sink.close()
        sink.open(run_info())
    sink.close()
    sink.close()
    print("quit", flush=True)
    sys.stdin.read()
"""


@pytest.fixture(scope="session")
def display() -> Iterator[str]:
    """A screen of its own, 800 x 600; skips where there is no Xvfb, but not in CI, and where OpenCV has no windows."""
    if re.search(r"GUI: +NONE", cv2.getBuildInformation()):
        pytest.skip("this OpenCV has no windows (opencv-python-headless)")
    missing = [tool for tool in ("Xvfb", "xdotool") if shutil.which(tool) is None]
    if missing:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(
            f"needs {' and '.join(missing)} (apt-get install xvfb xdotool)"
        )
    reader, writer = os.pipe()
    server = subprocess.Popen(
        ["Xvfb", "-displayfd", str(writer), "-screen", "0", "800x600x24", "-nolisten", "tcp", "-noreset"],
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


GRAB = """
    import sys
    import av

    with av.open(sys.argv[1], format="x11grab", options={"video_size": "800x600", "framerate": "10"}) as screen:
        image = next(screen.decode(video=0)).to_ndarray(format="bgr24")
        print((image == (0, 0, 255)).all(2).sum())
"""


def red_pixels(display: str) -> int:
    """Count them on the screen; in a process without OpenCV, whose X library PyAV's does not survive."""
    with child(GRAB, display) as process:
        return int(next_line(process))


def find_window(display: str) -> str:
    found = subprocess.run(
        ["xdotool", "search", "--name", "a title"],
        env=os.environ | {"DISPLAY": display},
        capture_output=True,
        text=True,
    )
    return found.stdout.split()[-1]


def press(display: str, key: str) -> None:
    subprocess.run(
        ["xdotool", "key", "--window", find_window(display), key],
        env=os.environ | {"DISPLAY": display},
        check=True,
        capture_output=True,
    )


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

    x11 = ctypes.CDLL("libX11.so.6")
    x11.XOpenDisplay.restype = ctypes.c_void_p
    x11.XInternAtom.restype = ctypes.c_ulong
    x11.XInternAtom.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int]
    x11.XSendEvent.argtypes = [ctypes.c_void_p, ctypes.c_ulong, ctypes.c_int, ctypes.c_long, ctypes.c_void_p]
    x11.XCloseDisplay.argtypes = [ctypes.c_void_p]
    connection = x11.XOpenDisplay(display.encode())
    window = int(find_window(display))
    event = ClientMessage(type=33, window=window, format=32)
    event.message_type = x11.XInternAtom(connection, b"WM_PROTOCOLS", 0)
    event.data[0] = x11.XInternAtom(connection, b"WM_DELETE_WINDOW", 0)
    x11.XSendEvent(connection, window, 0, 0, ctypes.byref(event))
    x11.XCloseDisplay(connection)


@pytest.mark.parametrize("quit_by", ["q", "Escape", "close"])
def test_the_window_shows_the_picture_until_the_user_quits(display: str, quit_by: str) -> None:
    with child(WINDOW, "live", DISPLAY=display) as process:
        assert next_line(process) == "shown"
        assert red_pixels(display) > 0.9 * 500 * 300
        press(display, "x")
        time.sleep(0.2)
        assert process.poll() is None, "only some keys quit"
        if quit_by == "close":
            click_close(display)
        else:
            press(display, quit_by)
        assert next_line(process, 10) == "quit"
        assert red_pixels(display) == 0
        assert process.communicate(timeout=10)[1] == ""
        assert process.returncode == 0


def test_a_single_picture_stays_until_the_user_quits(display: str) -> None:
    with child(WINDOW, "one", DISPLAY=display) as process:
        assert next_line(process) == "shown"
        assert red_pixels(display) > 0.9 * 500 * 300
        press(display, "q")
        assert next_line(process, 10) == "quit"


def test_a_recording_is_shown_at_its_own_pace(display: str) -> None:
    with child(WINDOW, "recorded", DISPLAY=display) as process:
        shown_s = [float(word) for word in next_line(process).split()]
        assert next_line(process, 10) == "quit"
    for at_s, index in zip(shown_s, (0, 1, 2, 10, 11), strict=True):
        assert index / 25 - 0.02 <= at_s < index / 25 + 1.0


def test_a_window_without_frames_closes(display: str) -> None:
    with child(WINDOW, "none", DISPLAY=display) as process:
        assert next_line(process) == "quit"
        process.communicate(timeout=10)
        assert process.returncode == 0


@pytest.mark.parametrize("name", ["", ":9876"])
def test_without_a_display_one_line_names_what_to_use_instead(name: str) -> None:
    with child(WINDOW, "live", DISPLAY=name, WAYLAND_DISPLAY="") as process:
        line = next_line(process)
        assert line.startswith("SinkError no window can be opened")
        assert "`to`" in line
        assert process.wait(timeout=10) == 1
        assert process.stderr is not None
        assert process.stderr.read() == ""
