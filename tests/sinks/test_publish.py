"""Publishing against real servers that die, hang and return, watched by a player in a process of its own."""

from __future__ import annotations

import logging
import time
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path

import cv2

# isort: split
import av
import numpy as np
import pytest

from streampose.errors import SinkError, UsageError
from streampose.sinks.open import fill_in, open_sink
from streampose.sinks.publish import NO_SIGNAL_AFTER_S, Timeline, no_signal
from streampose.sinks.uplink import KEYFRAME_EVERY_S
from tests.clips import numbered_image, read_number
from tests.player import Player, wait_until
from tests.servers import NUMBERS, Relay, RtmpServer, RtspServer, age_s
from tests.sinks.publishing import FPS, SIZE, Camera, is_fresh, opened, result, run_info

pytestmark = pytest.mark.usefixtures("nothing_left")


def test_a_player_sees_every_picture_in_order_and_at_once(rtmp: RtmpServer) -> None:
    with opened(rtmp.url("cam")) as sink, Camera(sink) as camera:
        wait_until(lambda: sink.status()["published"])
        with Player(rtmp.url("cam")) as player:
            wait_until(lambda: len(player.shown) > 2 * FPS)
            shown = player.shown[5:]  # the first ones waited in the server
            assert all(picture.number is not None for picture in shown)
            # They begin again at `NUMBERS`.
            steps = [(other.number - one.number) % NUMBERS for one, other in pairwise(shown)]
            assert all(0 < step < FPS for step in steps), "in order, none twice"
            assert len(steps) >= 0.9 * sum(steps)
            ages_s = sorted(age_s(picture.number or 0, FPS) - (time.monotonic() - picture.at_s) for picture in shown)
            assert ages_s[len(ages_s) // 2] < 0.25
            for (one, other), step in zip(pairwise(shown), steps, strict=True):
                assert other.pts_s - one.pts_s == pytest.approx(step / FPS, abs=0.002)
    status = sink.status()
    assert status["connections"] == 1
    assert status["published"] + status["dropped"] == camera.written
    assert status["repeated"] == 0
    assert status["dropped"] <= FPS
    assert sink.summary() == f"{sink.text}: {status['published']} frames published" + (
        f", {status['dropped']} dropped without a connection" if status["dropped"] else ""
    )


def test_a_killed_server_is_published_to_again_within_two_seconds(
    rtmp: RtmpServer, caplog: pytest.LogCaptureFixture
) -> None:
    with opened(rtmp.url("cam")) as sink, Camera(sink) as camera:
        for outage in (1, 2):
            wait_until(lambda: "cam" in rtmp.streams() and rtmp.streams()["cam"]["bytes_in"] > 0)
            rtmp.kill()
            wait_until(lambda: str(sink.status()["state"]).startswith("no connection"))
            dropped = int(sink.status()["dropped"])
            time.sleep(1.5)
            assert int(sink.status()["dropped"]) >= dropped + FPS
            rtmp.start()
            connections = outage + 1
            assert wait_until(lambda: sink.status()["connections"] == connections) < 2.0  # noqa: B023 - called here
        with Player(rtmp.url("cam")) as player:
            player.wait_for(is_fresh)
    status = sink.status()
    assert status["published"] + status["dropped"] == camera.written
    assert camera.longest_write_s < 1.0
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == 2
    assert all("retrying" in warning for warning in warnings)
    given = [argument for record in caplog.records for argument in record.args or ()]
    assert not [one for one in given if not isinstance(one, str)], "who keeps the log keeps no picture"


@pytest.mark.parametrize("grain", [0, 60], ids=["few bytes, which the system keeps", "more than it keeps"])
def test_a_hung_server_gets_fresh_pictures_when_it_goes_on(rtmp: RtmpServer, grain: int) -> None:
    with opened(rtmp.url("cam")) as sink, Camera(sink, (1280, 720) if grain else SIZE, grain=grain) as camera:
        wait_until(lambda: int(sink.status()["published"]) > FPS)
        rtmp.pause()
        if grain:
            # It depends on the system's buffers and on the machine's speed when they are full.
            wait_until(lambda: sink.status()["state"] != "publishing", within_s=60.0)
        else:
            time.sleep(3.5)  # longer than a write may take
            assert sink.status()["state"] == "publishing"
        rtmp.resume()
        assert wait_until(lambda: sink.status()["state"] == "publishing") < 2.0
        with Player(rtmp.url("cam")) as player:
            player.wait_for(is_fresh, within_s=5.0)
    status = sink.status()
    assert status["published"] + status["dropped"] == camera.written
    assert camera.longest_write_s < 4.5


def test_players_stay_while_the_source_is_away_and_see_that_it_is(rtmp: RtmpServer) -> None:
    with opened(rtmp.url("cam")) as sink, Camera(sink) as camera:
        wait_until(lambda: sink.status()["published"])
        with Player(rtmp.url("cam")) as player:
            bright = player.wait_for(is_fresh).brightness
            camera.away.set()
            dark = player.wait_for(lambda shown: shown.brightness < bright / 2)
            player.wait_for(lambda shown: shown.pts_s > dark.pts_s + 3.0)
            camera.away.clear()
            back = player.wait_for(is_fresh)
            assert back.brightness == pytest.approx(bright, abs=20)
            player.wait_for(is_fresh)
            assert player.playing
            times_s = [shown.pts_s for shown in player.shown]
            assert times_s == sorted(set(times_s))
            keyframes_s = [shown.pts_s for shown in player.shown if shown.is_key]
            assert len(keyframes_s) >= 3
            assert max(np.diff(keyframes_s)) <= KEYFRAME_EVERY_S + 0.6, "also while its pictures are repeated"
            away = [shown for shown in player.shown if dark.at_s <= shown.at_s < back.at_s]
            assert all(shown.brightness < bright / 2 for shown in away), "the mark stays until a frame comes"
            assert back.pts_s - dark.pts_s == pytest.approx(back.at_s - dark.at_s, abs=0.5)
    status = sink.status()
    assert status["published"] + status["dropped"] == camera.written
    assert int(status["repeated"]) >= 4


def test_publishing_over_tls(rtmp: RtmpServer, tmp_path: Path) -> None:
    with (
        Relay(tmp_path / "tls", rtmp.port, tls=True) as relay,
        opened(f"rtmps://127.0.0.1:{relay.port}/live/cam") as sink,
        Camera(sink),
        Player(rtmp.url("cam")) as player,
    ):
        player.wait_for(is_fresh)
        assert sink.status()["connections"] == 1


def test_a_slow_camera_is_not_away(rtmp: RtmpServer) -> None:
    every_s = NO_SIGNAL_AFTER_S + 0.5
    with opened(rtmp.url("cam"), run_info(fps=None)) as sink, ExitStack() as playing:
        for number in range(5):
            if number == 2:
                player = playing.enter_context(Player(rtmp.url("cam")))
            sink.write(result(number * every_s, numbered_image(number, SIZE)))
            written_s = time.monotonic()
            while time.monotonic() - written_s < every_s:
                time.sleep(0.25)
                sink.idle()
        wait_until(lambda: player.shown and player.shown[-1].number == 4)
        assert min(shown.brightness for shown in player.shown) > 60, "none of its pictures is marked"


def test_frames_of_another_size_are_fitted_into_the_first_one(rtmp: RtmpServer) -> None:
    with opened(rtmp.url("cam")) as sink, Camera(sink, (319, 239)) as camera:
        wait_until(lambda: sink.status()["published"])
        with Player(rtmp.url("cam")) as player:
            player.wait_for(is_fresh)
            camera.size = (640, 480)
            player.wait_for(lambda shown: age_s(shown.number or 0, FPS) < 0.5)
            camera.size = (100, 300)
            player.wait_for(lambda shown: shown.brightness < 60, within_s=5)
            assert {shown.size for shown in player.shown} == {(320, 240)}


def test_a_name_in_use_is_asked_for_again_until_it_is_free(rtmp: RtmpServer) -> None:
    with opened(rtmp.url("cam")) as first:
        with Camera(first):
            wait_until(lambda: first.status()["published"])
        with opened(rtmp.url("cam")) as second, Camera(second):
            wait_until(lambda: "already publishing" in str(second.status()["state"]).lower())
            first.close()
            wait_until(lambda: second.status()["state"] == "publishing")


def recorded_numbers(path: Path) -> list[tuple[float, int]]:
    """Times and numbers in a server's recording, up to a last picture that it may have cut off."""
    shown = []
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
        for place, packet in enumerate(packets):
            try:
                frames = packet.decode()
            except av.InvalidDataError:
                assert place == len(packets) - 1
                continue
            shown += [(float(frame.time or 0), read_number(frame.to_ndarray(format="bgr24"))) for frame in frames]
        flushed = container.streams.video[0].codec_context.decode(None)
        shown += [(float(frame.time or 0), read_number(frame.to_ndarray(format="bgr24"))) for frame in flushed]
    return shown


@pytest.mark.parametrize(
    ("digest", "password"),
    [(False, "p/s@5%"), (True, "/p"), (False, "12/34")],
    ids=["basic", "a slash first", "like a port and a path"],
)
def test_an_rtsp_server_takes_the_password(tmp_path: Path, digest: bool, password: str) -> None:
    with (
        RtspServer(tmp_path, user="me", password=password, digest=digest) as server,
        opened(server.url("record", f"me:{password}"), run_info(is_live=False), give_up_after_s=0) as sink,
    ):
        for index in range(5):
            sink.write(result(100 + index / FPS, numbered_image(index, SIZE)))
        assert sink.status()["published"] == 5


def test_a_recording_arrives_whole_at_an_rtsp_server_and_at_its_own_pace(tmp_path: Path) -> None:
    frames = 40
    with RtspServer(tmp_path, user="me", password="p/s@5%", digest=True) as server:
        began_s = time.monotonic()
        with opened(server.url("record", "me:p/s@5%"), run_info(is_live=False), give_up_after_s=0) as sink:
            for index in range(frames):
                sink.write(result(100 + index / FPS, numbered_image(index, SIZE)))
            elapsed_s = time.monotonic() - began_s
            sink.interrupt()  # from here on nothing waits, so that much is under way when it is closed
            for index in range(frames, 2 * frames):
                sink.write(result(100 + index / FPS, numbered_image(index, SIZE)))
        wait_until(lambda: [path for path in server.recordings() if path.stat().st_size])
        (recording,) = server.recordings()
        size_bytes = 0
        while size_bytes != (size_bytes := recording.stat().st_size):  # the server still writes
            time.sleep(1.0)
        shown = recorded_numbers(recording)
    assert sink.status()["published"] == 2 * frames
    assert elapsed_s >= (frames - 1) / FPS
    numbers = [number for _, number in shown]
    assert numbers == list(range(numbers[0], numbers[-1] + 1))
    assert numbers[0] <= 5, "the server itself may need some pictures to begin"
    assert numbers[-1] >= 2 * frames - 2, "nor does it always keep the last one before the end"
    paced_s = [at_s for at_s, number in shown if number < frames]  # the server notes when a picture came
    assert paced_s[-1] - paced_s[0] == pytest.approx((len(paced_s) - 1) / FPS, abs=0.1)


@pytest.mark.parametrize(
    ("name", "userinfo", "reason"), [("record", "me:wrong", "401 Unauthorized"), ("nothing", "me:secret", "404")]
)
def test_what_an_rtsp_server_refuses_is_said_in_its_words(
    tmp_path: Path, name: str, userinfo: str, reason: str
) -> None:
    with RtspServer(tmp_path, user="me", password="secret") as server:
        sink = opened(server.url(name, userinfo), run_info(is_live=False), give_up_after_s=0)
        with sink, pytest.raises(SinkError, match=reason):
            sink.write(result(0.0, numbered_image(0)))


@pytest.mark.parametrize("url", ["http://host/x", "srt://u:secret@host:1", "rtmpt://host/live", "rtsp://"])
def test_another_scheme_is_refused_and_the_right_ones_are_named(url: str) -> None:
    with pytest.raises(UsageError) as caught:
        open_sink(url)
    for scheme in ("rtmp://", "rtmps://", "rtsp://"):
        assert scheme in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("rtmp://host/live/cam1", "rtmp://host/live/***"),
        ("rtmp://u:p@w/x@host:1935/live/cam1", "rtmp://***@host:1935/live/***"),
        ("rtmps://a.example.com/live2/abcd-efgh-ijkl-mnop-qrst", "rtmps://a.example.com/live2/***"),
        ("rtmp://host/live/cam1?pass=secret", "rtmp://host/live/***"),
        ("RTSP://u:p@host/a-name-that-is-longer-than-a-key", "RTSP://***@host/a-name-that-is-longer-than-a-key"),
    ],
)
def test_what_is_secret_in_an_address_is_not_shown(url: str, text: str) -> None:
    sink = open_sink(url)
    assert sink.text == text
    assert sink.summary() is None


def test_a_sink_that_was_never_opened_closes_without_a_trace() -> None:
    with open_sink("rtmp://127.0.0.1:9/live/cam") as sink:
        sink.interrupt()
    sink.close()
    with pytest.raises(SinkError, match="not open"):
        sink.write(result(0.0, numbered_image(0)))


def test_a_picture_too_large_for_the_encoder_is_one_line() -> None:
    sink = opened("rtmp://127.0.0.1:9/live/cam")
    with sink, pytest.raises(SinkError, match="17000 x 2 pixels"):
        sink.write(result(0.0, np.zeros((2, 17000, 3), np.uint8)))


def test_the_words_in_braces() -> None:
    assert fill_in("{source}.jsonl", "front door") == "front door.jsonl"
    assert fill_in("rtmp://host/live/{source}", "front door") == "rtmp://host/live/front%20door"
    assert fill_in("rec/{source}-{time}.mkv", "a{time}") == "rec/a{time}-{time}.mkv"
    for text in ("{sources}.jsonl", "{}.mkv", "rtmp://u:{secret}@host/live"):
        with pytest.raises(UsageError, match=r"\{source\}") as caught:
            fill_in(text, "cam")
        assert "secret" not in str(caught.value)


def test_the_streams_clock_follows_the_source_and_never_stands_still_or_jumps() -> None:
    timeline = Timeline()
    assert [timeline.at(500 + s, 10 + s) for s in (0.0, 0.04, 0.08)] == [0, 40, 80]
    assert timeline.at(500.12, 10.0801) == 120, "a burst keeps its own times"
    assert [timeline.at(None, 10.58), timeline.at(None, 11.08)] == [620, 1120]
    assert timeline.at(501.5, 11.5) == 1500, "the source's clock has gone on"
    assert timeline.at(3.0, 11.54) == 1540, "a new clock"
    assert timeline.at(3.04, 11.58) == 1580
    assert timeline.at(9000.0, 11.62) == 1620, "a jump ahead"
    assert timeline.at(9000.0, 11.62) == 1621


def test_no_signal_is_dim_and_says_so() -> None:
    for size in ((640, 360), (32, 32), (100, 400), (1920, 1080)):
        picture = numbered_image(5, size)
        marked = no_signal(picture)
        assert marked.shape == picture.shape
        words = cv2.inRange(marked, (200, 200, 200), (255, 255, 255))
        assert 0.002 < (words > 0).mean() < 0.2 or size == (32, 32)
        assert marked[: size[1] // 8].max() < 80
        assert picture.max() > 200, "the picture itself is not drawn on"
    assert NO_SIGNAL_AFTER_S < 5
