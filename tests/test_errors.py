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
