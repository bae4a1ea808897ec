"""That a secret of an address is told nowhere: neither in texts nor by the program, a traceback included."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest

from streampose.addresses import redact, redact_address
from streampose.cli.config import read_config
from streampose.cli.main import main
from streampose.errors import StreamposeError, UsageError
from streampose.options import options_of
from streampose.sinks.open import open_sink
from streampose.sources.open import open_source
from tests import tiny
from tests.cli.helpers import run
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


EVERYWHERE = f"rtmp://me:{SECRET}@127.0.0.1:9/live/{SECRET}?k={SECRET}#a={SECRET}"
WITH_SPACES = f"http://me:a {SECRET}@127.0.0.1:9/x;jsessionid={SECRET}?k=a {SECRET} {SECRET}"
NESTED = [f"http://proxy/rtsp://me:{SECRET}@host/a", f"http://x/rtmp://h/live/{SECRET}"]
TAKES_TEXT = [option for option in options_of("run") if option.kind.metavar and option.name not in ("pose", "detector")]


def said_by(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """What the program says of words that it refuses."""
    try:
        code = main(words)
    except SystemExit as ended:
        code = int(str(ended.code))
    assert code in (1, 2), words
    out, err = capsys.readouterr()
    assert len(err) > 20
    return out + err


@pytest.mark.parametrize("address", [EVERYWHERE, WITH_SPACES, *NESTED])
@pytest.mark.parametrize("debug", [False, True])
def test_no_word_of_the_command_line_is_told(
    address: str, debug: bool, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    refused = [
        [address],
        ["run", "demo", f"--nonsense={address}"],
        ["run", "demo", "--nonsense", address],
        ["run", f"cam 1={address}", "--to", "null"],
        ["run", f"x/cam={address}", "--to", "null"],
        ["run", address, address, "--to", "out.xyz"],
        ["run", f"a={address}", "demo", "--to", f"{address}{{what}}"],
        ["run", "demo", "--to", f"srt{address}", "--to", "out.xyz"],
        ["run", "demo", "--to", f"out/{address}"],
        *(["run", "demo", "--to", "out.xyz", option.flag, address] for option in TAKES_TEXT if option.name != "to"),
        *(
            ["run", "demo", "--to", "out.xyz", f"{option.flag}={address}"]
            for option in TAKES_TEXT
            if option.name != "to"
        ),
        ["bench", address],
        ["bench", "--json", address],
    ]
    for words in refused:
        words = [*words, "--debug"] if debug else words
        assert SECRET not in said_by(words, capsys), words


@pytest.mark.parametrize("address", [EVERYWHERE, WITH_SPACES, *NESTED])
def test_no_word_of_a_file_is_told(address: str, tmp_path: Path) -> None:
    file = tmp_path / "cameras.toml"
    for text in (
        f"{address} = 1",
        f"{json.dumps(address)} = 1\n[sources.a]\nsource = 'demo'",
        f"[sources.{json.dumps(address)}]\nsource = 'demo'",
        f"[sources.{json.dumps(address)}]\nsorce = 'demo'",
        f"sources = {json.dumps(address)}",
        f"[sources.a]\nsource = 'demo'\nsize = {json.dumps(address)}",
        f"[sources.a]\nsource = [{json.dumps(address)}]",
        f"[sources.a]\nsource = {{ url = {json.dumps(address)} }}",
    ):
        file.write_text(text)
        with pytest.raises(UsageError) as caught:
            read_config(file)
        assert SECRET not in str(caught.value), text
    with pytest.raises(UsageError) as caught:
        read_config(address)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    "words",
    [
        ["run", f"rtmp://127.0.0.1:9/live/{SECRET}?k={SECRET}", "--to", "null"],
        ["run", "demo", "--to", "null", "--pose", EVERYWHERE],
        ["run", "demo", "--to", "null", "--detector", WITH_SPACES],
        ["run", "demo", "--to", REFUSED[0]],
    ],
)
@pytest.mark.usefixtures("no_hub")
def test_the_program_tells_it_in_no_traceback(words: list[str], tmp_path: Path) -> None:
    code, out, err = run([*words, "--debug"], tmp_path)
    assert code in (1, 2)
    assert "Traceback" in err
    assert SECRET not in out + err


@contextmanager
def children_seen() -> Iterator[set[str]]:
    """Collect the command lines of all processes that this one starts within the block."""
    seen: set[str] = set()
    is_over = threading.Event()

    def look() -> None:
        while not is_over.wait(0.05):
            with suppress(psutil.Error):
                seen.update(" ".join(child.cmdline()) for child in psutil.Process().children(recursive=True))

    looking = threading.Thread(target=look)
    looking.start()
    try:
        yield seen
    finally:
        is_over.set()
        looking.join()


@pytest.mark.logs_errors  # one of its sources is away
def test_a_run_tells_it_nowhere(tmp_path: Path) -> None:
    """Neither in its words, nor in data and counts, nor to whoever lists the processes."""
    detector, pose = tiny.save_dense_detector(tmp_path / "detector"), tiny.save_pose(tmp_path / "pose")
    with RtmpServer(tmp_path / "server") as server:
        make_clip(tmp_path / "server" / "clip.mp4", frames=200)
        place = server.web_url(f"clip.mp4?token={SECRET}").replace("//", f"//me:{SECRET}@")
        away = f"away=rtsp://me:{SECRET}@127.0.0.1:9/1"
        sinks = ["--to", server.url(f"{SECRET}-{{source}}"), "--to", "{source}.jsonl", "--stats", "stats.json"]
        flags = ["--detector", str(detector), "--pose", str(pose), "--give-up-after", "1"]
        with children_seen() as children:
            _, out, err = run(["run", f"clip={place}", away, *flags, *sinks], tmp_path)
    assert any("sinks/publisher" in words for words in children), children
    data, counts = (tmp_path / "clip.jsonl").read_text(), (tmp_path / "stats.json").read_text()
    assert len(data.splitlines()) > 200
    assert "/live/***" in err
    for told in (out, err, data, counts, *children):
        assert SECRET not in told
    assert not [path.name for path in tmp_path.iterdir() if SECRET in path.name]
