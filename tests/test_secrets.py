"""That a secret of an address is told nowhere: neither in texts nor by the program, a traceback included."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from streampose.addresses import redact, redact_address
from streampose.errors import StreamposeError
from streampose.sinks.open import open_sink
from streampose.sources.open import open_source
from tests import tiny as networks
from tests.clips import make_clip
from tests.servers import RtmpServer

SECRET = "S3CRET"
NAMES = ("Policy", "hash", "md5", "code", "ticket", "st", "sid", "otp", "k", "token")
ADDRESSES = [
    f"rtsp://me:{SECRET}@127.0.0.1:9/cam",
    f"rtmp://127.0.0.1:9/live/{SECRET}",
    f"rtmps://me:{SECRET}@127.0.0.1:9/live/{SECRET}?k={SECRET}",
    *(
        f"{place}?a=1&{name}={SECRET}"
        for name in NAMES
        for place in ("https://127.0.0.1:9/a", "rtmp://127.0.0.1:9/live/x")
    ),
    f"https://127.0.0.1:9/a#k={SECRET}",
    f"https://127.0.0.1:9/a;jsessionid={SECRET}/b",
    f"https://127.0.0.1:9/rtsp://me:{SECRET}@host/cam",
    f"https://127.0.0.1:9/rtmp://host/live/{SECRET}",
]
REFUSED = [f"{scheme}://127.0.0.1:9/live/{SECRET}?k={SECRET}" for scheme in ("rtmpt", "rtmpe", "RTMPTE")]


@pytest.mark.parametrize("address", ADDRESSES + REFUSED)
@pytest.mark.parametrize("sentence", ["cannot open {}: refused", "[{0!r}, {0!r}]", "cam={}", "{0} and ({0}), tell a@b"])
def test_no_text_tells_it(address: str, sentence: str) -> None:
    text = sentence.format(address)
    for told in (redact_address(address), redact(text), redact(redact(text)), str(StreamposeError(text))):
        assert SECRET not in told


@pytest.mark.parametrize("address", ADDRESSES)
def test_no_source_and_no_sink_tells_it(address: str) -> None:
    with open_source(address) as source:
        assert SECRET not in json.dumps([source.info.text, source.info.source_id]) + repr(source.info)
        assert "*" not in source.info.source_id
    if address.startswith("rt"):
        with open_sink(address) as sink:
            assert SECRET not in sink.text


@pytest.mark.parametrize(
    "words",
    [
        ["run", f"rtmp://127.0.0.1:9/live/{SECRET}?k={SECRET}", "--to", "null"],
        ["run", "--config", f"rtmp://me:{SECRET}@127.0.0.1:9/live/{SECRET}?k={SECRET}"],
        ["run", "demo", "--to", REFUSED[0]],
    ],
)
def test_the_program_tells_it_in_no_traceback(words: list[str], tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "streampose", *words, "--debug"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ended.returncode in (1, 2)
    assert "Traceback" in ended.stderr
    assert SECRET not in ended.stdout + ended.stderr


def test_a_query_in_quotation_marks_may_hold_spaces() -> None:
    assert redact(f"refused: 'http://h/a?x=1 {SECRET}' (2)") == "refused: 'http://h/a?***' (2)"


def test_no_output_of_a_run_tells_it(tmp_path: Path) -> None:
    with RtmpServer(tmp_path / "server") as server:
        make_clip(server.folder / "clip.mp4", frames=10)
        source = server.web_url("clip.mp4").replace("http://", f"http://me:{SECRET}@") + f"?k={SECRET}"
        words = ["run", source, "--stats", "counts.json", "--to", "out.jsonl", "--to", server.url(SECRET)]
        words += ["--detector", str(networks.save_dense_detector(tmp_path / "detector"))]
        words += ["--pose", str(networks.save_pose(tmp_path / "pose")), "--debug"]
        program = [sys.executable, "-m", "streampose", *words]
        told = []
        with subprocess.Popen(program, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as running:
            while running.poll() is None:
                for process in psutil.Process().children(recursive=True):
                    with contextlib.suppress(psutil.Error):
                        if process.pid not in (running.pid, server.pid):
                            told.append(" ".join(process.cmdline()) + str(process.environ()))
                time.sleep(0.05)
            assert running.stdout is not None
            told.append(running.stdout.read().decode())
        assert running.returncode == 0, told[-1]
    assert len(told) > 1, "the publishing process was seen"
    told += [(tmp_path / name).read_text() for name in ("counts.json", "out.jsonl")]
    assert [text for text in told if SECRET in text] == []
