"""That no text tells a password, and that what is no password stays readable."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streampose.addresses import redact, redact_address
from streampose.errors import StreamposeError

ANYTHING = st.text(st.characters(codec="ascii", exclude_categories=["Cc"]))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("cannot open rtsp://me:secret@host/cam: refused", "cannot open rtsp://***@host/cam: refused"),
        ("cannot open 'rtsp://me:pa ss@host/cam', try again", "cannot open 'rtsp://***@host/cam', try again"),
        ("rtsp://me:p'a\"s s@host:554/cam is lost: no answer", "rtsp://***@host:554/cam is lost: no answer"),
        (
            "rtsp://me:a@b /c@host/1 and rtmp://you:x y@there/2 failed",
            "rtsp://***@host/1 and rtmp://***@there/2 failed",
        ),
        ("['rtsp://a:b c@host/1', 'rtsp://a:b c@host/2']", "['rtsp://***@host/1', 'rtsp://***@host/2']"),
        ("rtsp://my name:secret@host/cam is lost", "rtsp://***@host/cam is lost"),
        ("rtsp://me:a b://c@host/cam is lost", "rtsp://***@host/cam is lost"),
        ("rtsp://token@host/cam is lost", "rtsp://***@host/cam is lost"),
        ("http://h/a.m3u8?token=t0p&n=1 (404)", "http://h/a.m3u8?*** (404)"),
        (
            "http://h/a?n=1&X-Amz-Signature=abc#access_token=def is lost",
            "http://h/a?*** is lost",
        ),
        ("http://h/cgi?usr=admin&pwd=1234&n=1", "http://h/cgi?***"),
        ("cannot open http://h/a?token=SEC RET&n=1: refused", "cannot open http://h/a?***: refused"),
        ("x/cam=http://h/a?token=a SEC RET: no pictures there", "x/cam=http://h/a?***: no pictures there"),
        ("[Errno 111] refused: 'http://h/a?token=SEC RET'", "[Errno 111] refused: 'http://h/a?***'"),
        ("['http://h/a?t=SEC RET', 'rtmp://h/live/SEC RET']", "['http://h/a?***', 'rtmp://h/live/***']"),
        ("http://proxy/rtsp://me:SEC RET@host/a is lost", "http://proxy/rtsp://***@host/a is lost"),
        ("http://x/rtmp://h/live/SECRET: lost", "http://x/rtmp://h/live/***: lost"),
        ("http://x/me:SEC/RET@host/a is lost", "http://x/***@host/a is lost"),
        ("rtsp://me.x:12/SECRET@host/cam is lost", "rtsp://***@host/cam is lost"),
        ("http://h/a;jsessionid=SECRET/b;v=1?c=2: 404", "http://h/a;***/b;***?***: 404"),
        ("rtsp://10.0.0.7/user=me_password=SEC_RET_channel=1", "rtsp://10.0.0.7/user=me_password=***"),
        ("rtmp://host/live?key=SECRET: lost", "rtmp://host/live?***: lost"),
        ("rtmp://host/live/SEC#RET is lost", "rtmp://host/live/*** is lost"),
        ("rtmpte://h/live/SECRET, RTMPT://h/a/SECRET", "rtmpte://h/live/***, RTMPT://h/a/***"),
        ("no such file: 'rtmp:/host/live/SECRET'", "no such file: 'rtmp:/host/live/***'"),
        ("name='cam=rtmp://host/live/SECRET' there", "name='cam=rtmp://host/live/***' there"),
    ],
)
def test_what_is_secret_in_the_midst_of_a_text(text: str, shown: str) -> None:
    assert redact(text) == shown
    assert redact(shown) == shown, "a text may be redacted on every door that it passes"
    assert str(StreamposeError(text)) == shown


@pytest.mark.parametrize(
    "text",
    [
        "rtsp://host/cam is lost: tell admin@example.com",
        "rtsp://host:554/cam is lost: tell admin@example.com",
        "rtsp://host:554 is lost at 12:30: tell admin@example.com",
        "rtsp://[::1]:554/cam is lost: tell admin@example.com",
        "rtsp://***@host/cam is lost: tell admin@example.com, it is 'urgent' @ night",
        "give rtsp(s)://, rtmp(s)://, http(s):// or - and write to a@b",
        "is rtsp://10.0.0.7/cam@main there?",
        "is 'rtsp://10.0.0.7:554/cam@main' there, or http://proxy/rtsp://host/cam?",
        "rtsp://localhost:554/cam@main",
        "rtmp://host/live",
        "http://h/a;b/c#top is read; x=1",
        "rtmp://host/live and rtmp://host/live/***: refused",
        "a colon: and an @, no address",
    ],
)
def test_what_is_not_secret_stays(text: str) -> None:
    assert redact(text) == text


@given(ANYTHING)
def test_no_password_is_told(password: str) -> None:
    secret = f"SECRET{password}SECRET"
    address = f"rtsp://me:{secret}@host/cam"
    assert redact_address(address) == "rtsp://***@host/cam"
    for text in (f"cannot open {address}: refused", f"[{address!r}, {address!r}]", f"name={address}"):
        assert "SECRET" not in redact(text)


@given(ANYTHING)
def test_nothing_behind_an_application_or_a_question_mark_is_told(secret: str) -> None:
    secret = f"SECRET{secret}SECRET"
    for address in (
        f"rtmp://host/live/{secret}",
        f"https://host/a?{secret}",
        f"http://proxy/rtmp://host/live/{secret}",
    ):
        assert "SECRET" not in redact_address(address)


@given(ANYTHING)
def test_no_value_of_a_query_is_told(value: str) -> None:
    secret = "SECRET" + value.translate(dict.fromkeys(map(ord, "&;#@"))) + "SECRET"
    assert redact_address(f"https://host/a?n=1&token={secret}&m=2") == "https://host/a?***"


@pytest.mark.parametrize("name", ["Policy", "hash", "md5", "code", "ticket", "st", "sid", "otp", "k", "anything"])
@pytest.mark.parametrize(
    "address", ["http://host/a?{}=SECRET", "rtmp://host/live/x?{}=SECRET", "https://u:SECRET@host/a#{}=SECRET"]
)
def test_whatever_its_name_no_value_is_told(name: str, address: str) -> None:
    told = [str(StreamposeError(f"cannot open {address.format(name)}: refused")), redact_address(address.format(name))]
    assert not any("SECRET" in text for text in told)
    assert told[0].endswith(": refused")


@pytest.mark.parametrize("address", ["rtmp://host/live/SECRET", "rtmps://a.b:443/app/SECRET/more", "RTMP://h/a/SECRET"])
def test_no_key_of_a_stream_is_told(address: str) -> None:
    for text in (address, f"{address}: 3 frames published", f"[{address!r}] is lost"):
        assert "SECRET" not in redact(text)


def test_an_at_sign_in_a_path_is_no_password() -> None:
    for address in ("rtsp://10.0.0.7/cam@main", "rtsp://10.0.0.7:554/cam@main"):
        assert redact_address(address) == redact(address) == address
    assert redact_address("rtsp://me:12/34@host/cam") == "rtsp://***@host/cam"


def test_addresses_in_addresses_without_end() -> None:
    text = "http://a/" * 3000 + "rtsp://me:SECRET@h"
    assert "SECRET" not in redact(text) + redact_address(text)
