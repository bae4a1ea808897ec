"""The publishing process, against servers that are not there or do not answer."""

from __future__ import annotations

import json
import select
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from streampose.errors import SinkError
from streampose.sinks import publisher
from tests.clips import numbered_image
from tests.player import wait_until
from tests.servers import RtmpServer, free_port
from tests.sinks.publishing import FPS, Camera, children, opened, result, run_info

pytestmark = pytest.mark.usefixtures("nothing_left")


def test_a_refused_connection_is_retried_and_told_once(caplog: pytest.LogCaptureFixture) -> None:
    port = free_port()
    with opened(f"rtmp://user:p@ss/w%rd@127.0.0.1:{port}/live/cam?token=t0p") as sink, Camera(sink) as camera:
        wait_until(lambda: "connection refused" in str(sink.status()["state"]))
        time.sleep(1.2)
        said = json.dumps([sink.status(), sink.summary(), sink.text, caplog.text, repr(sink)])
    assert not any(secret in said for secret in ("user", "p@ss", "ss/w", "rd@", "t0p"))
    assert sink.status()["dropped"] == camera.written
    assert camera.longest_write_s < 0.5
    assert caplog.text.count("connection refused") == 1


@pytest.mark.parametrize("is_live", [True, False])
def test_the_only_sink_can_fail_fast_with_the_reason(is_live: bool, caplog: pytest.LogCaptureFixture) -> None:
    sink = opened(f"rtmp://user:secret@127.0.0.1:{free_port()}/live/cam", run_info(is_live=is_live), give_up_after_s=0)

    def write() -> None:
        for index in range(500):
            sink.write(result(index / FPS, numbered_image(index)))
            time.sleep(0.01)

    with sink, pytest.raises(SinkError) as caught:
        write()
    assert str(caught.value) == f"cannot publish to {sink.text}: connection refused"
    assert "secret" not in sink.text
    assert not caplog.text, "it does not say that it tries again"


def test_a_connection_that_was_there_once_is_never_given_up(rtmp: RtmpServer) -> None:
    with opened(rtmp.url("cam"), give_up_after_s=0) as sink, Camera(sink):
        wait_until(lambda: sink.status()["published"])
        rtmp.kill()
        wait_until(lambda: str(sink.status()["state"]).startswith("no connection"))
        rtmp.start()
        wait_until(lambda: sink.status()["connections"] == 2)


def test_a_server_that_says_no_is_not_pestered() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.1)
        with opened(f"rtmp://127.0.0.1:{server.getsockname()[1]}/live/cam") as sink, Camera(sink):
            times_s: list[float] = []
            began_s = time.monotonic()
            while time.monotonic() - began_s < 4.5:
                try:
                    connection, _ = server.accept()
                except TimeoutError:
                    continue
                connection.close()
                times_s.append(time.monotonic())
            assert "closed the connection" in str(sink.status()["state"])
    pauses_s = np.diff(times_s)
    assert len(pauses_s) == 3
    assert pauses_s[0] == pytest.approx(0.5, abs=0.4)
    assert pauses_s[1] == pytest.approx(1.0, abs=0.4)
    assert pauses_s[2] == pytest.approx(2.0, abs=0.4)


def test_a_black_hole_holds_up_neither_write_nor_close_nor_the_interpreter() -> None:
    beats_s: list[float] = []
    stop = threading.Event()

    def beat() -> None:
        while not stop.is_set():
            beats_s.append(time.monotonic())
            time.sleep(0.005)

    heart = threading.Thread(target=beat, name="streampose test heart")
    with socket.create_server(("127.0.0.1", 0)) as hole:
        sink = opened(f"rtmp://127.0.0.1:{hole.getsockname()[1]}/live/cam")
        heart.start()
        with Camera(sink) as camera:
            time.sleep(1.0)
            assert sink.status()["state"] == "connecting"
        began_s = time.monotonic()
        sink.close()
        sink.close()
        closed_s = time.monotonic() - began_s
        stop.set()
        heart.join()
    assert closed_s < 0.5
    assert camera.longest_write_s < 0.3
    assert max(np.diff(beats_s)) < 0.3


def test_a_try_that_nobody_answers_is_ended_and_repeated() -> None:
    hole = socket.create_server(("127.0.0.1", 0))
    url = f"rtsp://127.0.0.1:{hole.getsockname()[1]}/cam"
    with hole, opened(url) as sink, Camera(sink):
        assert wait_until(lambda: "does not answer" in str(sink.status()["state"])) < publisher.CONNECT_WITHIN_S + 1.5
        hole.settimeout(2.0)
        for _ in ("the first try", "the next one"):
            connection, _ = hole.accept()
            connection.close()


def test_close_on_a_hung_server_is_bounded(rtmp: RtmpServer) -> None:
    sink = opened(rtmp.url("cam"))
    with Camera(sink, (640, 480), grain=60) as camera:
        wait_until(lambda: sink.status()["published"])
        rtmp.pause()
        written = -1
        while written != camera.written:  # until a write waits for the server
            written = camera.written
            time.sleep(0.4)
        began_s = time.monotonic()
        sink.interrupt()
    sink.close()
    assert time.monotonic() - began_s < 5.0
    status = sink.status()
    assert status["published"] + status["dropped"] == camera.written


def test_the_childs_title_and_environment_hold_no_address(rtmp: RtmpServer) -> None:
    with opened(rtmp.url("cam") + "?pass=secret") as sink, Camera(sink):
        wait_until(lambda: sink.status()["published"])
        (child,) = children()
        proc = Path(f"/proc/{child.pid}")
        assert b"publisher.py" in (proc / "cmdline").read_bytes()
        for place in ("cmdline", "environ"):
            assert b"secret" not in (proc / place).read_bytes()
            assert b"rtmp://" not in (proc / place).read_bytes()


def test_a_killed_child_is_replaced(rtmp: RtmpServer) -> None:
    with opened(rtmp.url("cam")) as sink, Camera(sink):
        wait_until(lambda: sink.status()["published"])
        (child,) = children()
        child.kill()
        wait_until(lambda: sink.status()["connections"] == 2)


def test_the_child_ends_with_a_killed_parent(rtmp: RtmpServer) -> None:
    program = textwrap.dedent("""
        import sys, time
        from tests.player import wait_until
        from tests.sinks.publishing import Camera, children, opened

        with opened(sys.argv[1]) as sink, Camera(sink):
            wait_until(lambda: sink.status()["published"])
            print(children()[0].pid, flush=True)
            time.sleep(60)
    """)
    parent = subprocess.Popen([sys.executable, "-c", program, rtmp.url("cam")], stdout=subprocess.PIPE)
    try:
        assert parent.stdout is not None
        with parent.stdout:
            assert select.select([parent.stdout], [], [], 20)[0]
            child = psutil.Process(int(parent.stdout.readline()))
            parent.send_signal(signal.SIGKILL)
            parent.wait()
        wait_until(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE)
    finally:
        parent.kill()
        parent.wait()


def test_nothing_is_sent_before_the_first_frame() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.7)
        with opened(f"rtmp://127.0.0.1:{server.getsockname()[1]}/live/cam") as sink:
            sink.idle()
            with pytest.raises(TimeoutError):
                server.accept()
    assert sink.summary() is None
