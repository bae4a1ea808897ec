"""The window, on a virtual screen."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from streampose.frames import Image
from tests.screen import click, click_close, pixels_of, press, screenshot, virtual_screen, window_manager
from tests.sinks.helpers import child, frame_times, next_line

WINDOW = """
    import sys, threading, time
    from streampose.errors import StreamposeError
    from streampose.sinks.desk import WindowSettings
    from streampose.sinks.open import open_sink
    import numpy as np

    try:
        sink = open_sink("window", window=WindowSettings("a title", speed=float([*sys.argv, 1][2])))
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


RED = 0, 0, 255
BODY = 40, 40, 200
"""The colour of somebody in the scene,"""
GROUND = 90, 90, 90
"""of the ground,"""
DISC = 0, 0, 230
"""and of the mark of a recording."""


@pytest.fixture
def display() -> Iterator[str]:
    """Yield a screen for one test: keys that nobody took and what window managers set stay on a screen."""
    with virtual_screen() as name:
        yield name


@pytest.mark.parametrize("quit_by", ["q", "Escape", "close"])
def test_the_window_shows_the_picture_until_the_user_quits(display: str, quit_by: str) -> None:
    with child(WINDOW, "live", DISPLAY=display) as process:
        assert next_line(process) == "shown"
        becomes(display, lambda _: pixels_of(display, RED) > 0.9 * 500 * 300)
        press(display, "x")
        time.sleep(0.2)
        assert process.poll() is None, "only some keys quit"
        if quit_by == "close":
            click_close(display)
        else:
            press(display, quit_by)
        assert next_line(process, 30) == "quit"
        becomes(display, lambda _: pixels_of(display, RED) == 0)
        assert process.communicate(timeout=10)[1] == ""
        assert process.returncode == 0


def test_a_single_picture_stays_until_the_user_quits(display: str) -> None:
    with child(WINDOW, "one", DISPLAY=display) as process:
        assert next_line(process) == "shown"
        becomes(display, lambda _: pixels_of(display, RED) > 0.9 * 500 * 300)
        press(display, "q")
        assert next_line(process, 30) == "quit"


def test_a_recording_is_shown_at_its_own_pace(display: str) -> None:
    with child(WINDOW, "recorded", DISPLAY=display) as process:
        shown_s = [float(word) for word in next_line(process).split()]
        assert next_line(process, 30) == "quit"
    for at_s, index in zip(shown_s, (0, 1, 2, 10, 11), strict=True):
        assert index / 25 - 0.02 <= at_s < index / 25 + 3.0


def test_a_recording_is_shown_in_slow_motion(display: str) -> None:
    with child(WINDOW, "recorded", "0.5", DISPLAY=display) as process:
        shown_s = [float(word) for word in next_line(process).split()]
    for at_s, index in zip(shown_s, (0, 1, 2, 10, 11), strict=True):
        assert 2 * index / 25 - 0.02 <= at_s < 2 * index / 25 + 3.0


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


TOOL = """
    import os, sys, time
    from streampose.drawing.annotator import Annotator
    from streampose.frames import Frame, Result
    from streampose.people.only import Only
    from streampose.sinks.controls import Controls
    from streampose.sinks.desk import WindowSettings
    from streampose.sinks.open import open_sink
    from tests.people.scene import SKELETON
    from tests.sinks.helpers import run_info
    from tests.sinks.test_view import LEFT, RIGHT, result_of

    sink = open_sink("window", window=WindowSettings("a title", fullscreen="full" in sys.argv))
    only = Only(None)
    sink.take_controls(Controls(Annotator(SKELETON), only))
    assert not sink.needs_drawn
    os.chdir(sys.argv[1])
    sink.open(run_info(is_live=True))
    index, whom = 0, None
    while True:
        whole = result_of(LEFT, RIGHT)
        whole.frame.image[460:, :, 1] = index % 250
        frame = Frame("clip", index, index / 25, time.monotonic(), whole.frame.image)
        if sink.write(only(Result(frame, whole.people, SKELETON))) is False:
            break
        if index == 3:
            print("shown", flush=True)
        if only.whom != whom:
            whom = only.whom
            print("only", whom, flush=True)
        index += 1
        time.sleep(0.005)
    sink.close()
    print(sink.summary(), flush=True)
"""
SCENE = slice(0, 450), slice(0, 640)
"""Where the picture is still and has no notes."""


def becomes(display: str, wanted: Callable[[Image], bool], within_s: float = 20.0) -> Image:
    """Wait until the still part of the picture is as wanted, and return it."""
    deadline_s = time.monotonic() + within_s
    while not wanted(scene := screenshot(display)[SCENE]):
        assert time.monotonic() < deadline_s
        time.sleep(0.05)
    return scene


def until(wanted: Callable[[], bool], within_s: float = 20.0) -> None:
    """Wait for something."""
    deadline_s = time.monotonic() + within_s
    while not wanted():
        assert time.monotonic() < deadline_s
        time.sleep(0.05)


def is_not(before: Image) -> Callable[[Image], bool]:
    return lambda scene: not np.array_equal(scene, before)


def people_at(scene: Image) -> list[bool]:
    """Whether skeletons are drawn in the left and the right half."""
    middles = (scene == (66, 228, 240)).all(axis=2)  # the colour of what is neither left nor right
    return [bool(half.any()) for half in (middles[:, :320], middles[:, 320:])]


def test_keys_and_clicks_change_what_is_shown(display: str, tmp_path: Path) -> None:
    with child(TOOL, str(tmp_path), DISPLAY=display) as process:
        assert next_line(process) == "shown"
        plain = screenshot(display)[SCENE]
        assert people_at(plain) == [True, True]

        press(display, "m")
        mirrored = becomes(display, is_not(plain))
        reds = [int((half == BODY).all(axis=2).sum()) for half in (mirrored[:, 320:], plain[:, :320])]
        assert reds[0] == pytest.approx(reds[1], abs=100)
        press(display, "m")
        becomes(display, lambda scene: np.array_equal(scene, plain))

        for key in ("t", "t", "l", "l", "plus", "minus", "i", "i", "h", "h"):
            before = screenshot(display)[SCENE]
            press(display, key)
            becomes(display, is_not(before))

        click(display, 500, 200)
        assert next_line(process) == "only 2"
        becomes(display, lambda scene: people_at(scene) == [False, True])
        click(display, 20, 20)
        assert next_line(process) == "only None"
        becomes(display, lambda scene: people_at(scene) == [True, True])
        press(display, "1")
        assert next_line(process) == "only 1"
        becomes(display, lambda scene: people_at(scene) == [True, False])

        press(display, "space")
        until(lambda: np.array_equal(screenshot(display), screenshot(display)))
        for key in ("0", "m"):
            paused = screenshot(display)
            press(display, key)
            until(lambda: not np.array_equal(screenshot(display), paused))  # noqa: B023 - it is called here
        becomes(display, lambda scene: people_at(scene) == [False, True])
        press(display, "s")
        until(lambda: bool(list(tmp_path.glob("*.png"))))
        press(display, "space")
        assert next_line(process) == "only None"

        press(display, "r")
        until(lambda: pixels_of(display, DISC) > 0)
        time.sleep(1.0)
        press(display, "r")
        until(lambda: pixels_of(display, DISC) == 0)
        press(display, "q")
        recording, still = next_line(process, 30).split(", ")
        assert process.wait(timeout=30) == 0
    image = cv2.imread(str(tmp_path / still))
    assert image is not None
    assert image.shape == (480, 640, 3)
    assert (image[:460] == BODY).all(axis=2).any()
    assert len(frame_times(tmp_path / recording)) > 1
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([still, recording])


def test_full_screen(display: str, tmp_path: Path) -> None:
    with window_manager(display), child(TOOL, str(tmp_path), "full", DISPLAY=display) as process:
        assert next_line(process) == "shown"
        # The picture of 640 x 480 fills the screen of 800 x 600; the grey is the scene's ground.
        becomes(display, lambda _: pixels_of(display, GROUND) > 640 * 480)
        press(display, "f")
        becomes(display, lambda _: pixels_of(display, GROUND) < 640 * 480)
        press(display, "f")
        becomes(display, lambda _: pixels_of(display, GROUND) > 640 * 480)
        click(display, 625, 250)
        assert next_line(process) == "only 2"
        press(display, "q")
        assert process.wait(timeout=30) == 0


GRID = """
    import sys, time
    from streampose.frames import SourceInfo
    from streampose.sinks.desk import WindowSettings
    from streampose.sinks.window import Grid
    from tests.sinks.helpers import run_info
    from tests.sinks.test_view import LEFT, RIGHT, result_of
    from dataclasses import replace

    grid = Grid(2, WindowSettings("a title"))
    infos = [replace(run_info(is_live=True), source=replace(run_info().source, source_id=name)) for name in "ab"]
    sinks = [grid.of_source(info.source) for info in infos]
    for sink, info in zip(sinks, infos):
        sink.open(info)
    results = [result_of(LEFT), result_of(RIGHT)]
    count = 0
    while all([sink.write(result) is None for sink, result in zip(sinks, results)]):
        count += 1
        if count == 3:
            print("shown", flush=True)
        time.sleep(0.01)
    for sink in sinks:
        sink.close()
    print("quit", flush=True)
"""


def test_a_window_for_several_sources(display: str, tmp_path: Path) -> None:
    with child(GRID, str(tmp_path), DISPLAY=display) as process:
        assert next_line(process) == "shown"
        both = screenshot(display)
        # The window is 1280 x 800: its right cell is partly outside the screen.
        assert (both[:, :640] == BODY).all(axis=2).any()
        press(display, "i")
        becomes(display, is_not(both[SCENE]))
        press(display, "q")
        assert next_line(process, 30) == "quit"
