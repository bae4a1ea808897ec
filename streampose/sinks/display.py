"""Whether a window can be opened on this machine."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import cache

from streampose.errors import SinkError

PROBE_TIMEOUT_S = 20.0
"""The probe normally takes 0.5 s, but importing OpenCV from a cold disk takes longer."""
INSTEAD = "write to a file instead (`to`), such as out.mp4"

_OPEN = "cv2.namedWindow('streampose', cv2.WINDOW_AUTOSIZE); cv2.destroyAllWindows()"


def check_display() -> None:
    """Open a window in a child process and close it. Raises `SinkError`."""
    _probe(os.environ.get("DISPLAY"), os.environ.get("WAYLAND_DISPLAY"))


@cache
def _probe(display: str | None, wayland: str | None) -> None:
    """Open a window in a child process, because some failures kill or hang the process. Raises `SinkError`.

    Without a display, Qt aborts the process. PyAV bundles its own X library: if a process imports PyAV before OpenCV,
    its first window hangs forever (https://github.com/opencv/opencv/issues/29195). Success is cached for this process.
    """
    if sys.platform == "linux" and not (display or wayland):
        raise SinkError(f"no window can be opened: no display (DISPLAY is not set); {INSTEAD}")
    imports = [name for name in sys.modules if name in {"av", "cv2"}]  # in the order of this process
    command = [sys.executable, "-c", f"import {', '.join(imports)}; {_OPEN}"]
    try:
        probe = subprocess.run(command, capture_output=True, timeout=PROBE_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired as error:
        cause = "import cv2 before av to avoid a hang" if imports[0] == "av" else "the display does not respond"
        raise SinkError(f"no window can be opened: {cause}; {INSTEAD}") from error
    if probe.returncode == 0:
        return
    if b"not implemented" in probe.stderr:
        raise SinkError(f"no window can be opened: this OpenCV lacks window support (use opencv-python); {INSTEAD}")
    raise SinkError(f"no window can be opened on display {display!r}; {INSTEAD}")
