"""Runs the program: in the test's own process, in one of its own, or on a terminal."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryFile

from streampose.cli.main import main

PROJECT = Path(__file__).resolve().parents[2]
WITHIN_S = 120.0
"""More than any of these needs on a slow machine."""


def child(arguments: Sequence[str], cwd: Path, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "streampose", *arguments],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(PROJECT), "HF_HUB_OFFLINE": "1", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@contextlib.contextmanager
def redirected(stdin: Path | str, stdout: int, stderr: int) -> Iterator[None]:
    """Replace the standard streams of this process, as a shell does for the program."""
    kept = [os.dup(number) for number in range(3)]
    streams = sys.stdin, sys.stdout, sys.stderr
    try:
        with open(stdin, "rb") as opened:  # noqa: PTH123 - a path or a name
            os.dup2(opened.fileno(), 0)
        os.dup2(stdout, 1)
        os.dup2(stderr, 2)
        sys.stdin, sys.stdout = os.fdopen(os.dup(0)), os.fdopen(os.dup(1), "w")
        sys.stderr = os.fdopen(os.dup(2), "w", buffering=1)
        yield
    finally:
        for stream in (sys.stdin, sys.stdout, sys.stderr):
            with contextlib.suppress(OSError):  # nobody reads it
                stream.close()
        sys.stdin, sys.stdout, sys.stderr = streams
        for number, descriptor in enumerate(kept):
            os.dup2(descriptor, number)
            os.close(descriptor)


def run(
    arguments: Sequence[str],
    cwd: Path,
    *,
    stdin: Path | str = os.devnull,
    stdout: int | None = None,
    stderr: int | None = None,
) -> tuple[int, str, str]:
    """Run the program in this process, which has loaded the libraries; return its exit code and what it wrote.

    What it writes to descriptors of the caller's is not returned.
    """
    logger = logging.getLogger("streampose")
    handlers, level = logger.handlers, logger.level
    with TemporaryFile("w+") as out, TemporaryFile("w+") as err:
        try:
            with (
                redirected(stdin, stdout or out.fileno(), stderr or err.fileno()),
                contextlib.chdir(cwd),
            ):
                try:
                    code = main(list(arguments))
                except SystemExit as error:
                    code = int(error.code or 0)
        finally:
            logger.handlers, logger.level = handlers, level
        out.seek(0)
        err.seek(0)
        return code, out.read(), err.read()


def run_child(
    arguments: Sequence[str], cwd: Path, within_s: float = WITHIN_S, **environment: str
) -> tuple[int, str, str]:
    """Run the program in a process of its own, where that or the environment is what is tested."""
    with child(arguments, cwd, **environment) as process:
        try:
            stdout, stderr = process.communicate(timeout=within_s)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
    return process.returncode, stdout, stderr


def the_error(code: int, stderr: str, expected: int) -> str:
    """The one line that a failed run says."""
    assert code == expected, stderr
    assert "Traceback" not in stderr
    lines = [line for line in stderr.splitlines() if line.startswith("streampose: ")]
    assert len(lines) == 1, stderr
    return lines[0]


def on_a_terminal(arguments: Sequence[str], cwd: Path, until: Callable[[str], bool]) -> str:
    """What a run writes to a terminal of 60 columns, which is interrupted when `until` is true of it."""
    ours, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 60, 0, 0))
    process = subprocess.Popen(
        [sys.executable, "-m", "streampose", *arguments],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=its,
    )
    os.close(its)
    written = b""
    deadline_s = time.monotonic() + WITHIN_S
    try:
        while time.monotonic() < deadline_s:
            try:
                written += os.read(ours, 65536)
            except OSError:  # how a terminal tells that nobody writes to it any more
                break
            if until is not None and until(written.decode(errors="replace")):
                process.send_signal(signal.SIGINT)
                until = None
        assert process.wait(10) == 130
    finally:
        process.kill()
        process.wait()
        os.close(ours)
    return written.decode()


def wait_for_lines(path: Path, count: int, process: subprocess.Popen[str]) -> None:
    deadline_s = time.monotonic() + WITHIN_S
    while not path.exists() or path.read_bytes().count(b"\n") <= count:
        assert process.poll() is None, process.stderr and process.stderr.read()
        assert time.monotonic() < deadline_s
        time.sleep(0.05)
