"""All that is known of addresses and what is secret in them: how people write them, how FFmpeg wants them, how they are
shown.

Shown is neither user name nor password, no value of a query, and no key of an RTMP stream. Imports nothing of ours.
"""

from __future__ import annotations

import re
from urllib.parse import quote, urlsplit

_UNHARMFUL = ":%!$&()*+,;="
"""RTMP's are sent as they stand, so nothing is escaped without need; FFmpeg decodes those of the others."""


def split_userinfo(rest: str) -> tuple[str | None, str]:
    """Split what follows `://` into user information and place; a password may hold `@`, `/`, `?`, and a path `@`."""
    userinfo, at, _ = rest.rpartition("@")
    # host/path@x and host:554/path@x, and not a password with a slash: me:/word@x, me:12/34@a.host
    is_login = re.match(r"[^/?:]*:(?![0-9]+[/?])", userinfo) or (
        re.match(r"[^/?:.]*:", userinfo) and re.match(r"(localhost|[\w-]+(\.[\w-]+)+|\[)", rest[len(userinfo) + 1 :])
    )
    if re.search("[/?]", userinfo) and not is_login:
        userinfo, at, _ = re.split("[/?]", rest)[0].rpartition("@")
    return (userinfo, rest[len(userinfo) + 1 :]) if at else (None, rest)


def host_of(rest: str) -> str:
    """Return host and port of what follows `://`. Raises `ValueError` with the reason if they cannot be right."""
    host = re.split(r"[/?]", split_userinfo(rest)[1])[0]
    if not host:
        raise ValueError("has no host name")
    try:
        parts = urlsplit(f"//{host}")
    except ValueError as error:
        raise ValueError("has an invalid host name: write an IPv6 address as [::1]") from error
    try:
        _ = parts.port
    except ValueError as error:
        raise ValueError("has an invalid port: give a number up to 65535") from error
    return host


def for_ffmpeg(scheme: str, rest: str) -> str:
    """Return `scheme://rest` with those characters of its user name and password escaped at which FFmpeg would cut it.

    A `%` before two hexadecimal digits stays: there the user has escaped.
    """
    userinfo, place = split_userinfo(rest)
    if userinfo is None:
        return f"{scheme}://{place}"
    if not scheme.lower().startswith("rtmp"):
        userinfo = re.sub(r"%(?![0-9A-Fa-f]{2})", "%25", userinfo)
    return f"{scheme}://{quote(userinfo, safe=_UNHARMFUL)}@{place}"


_BEGIN = re.compile(r"[A-Za-z0-9+.-]*://|(?:rtmp|rtsp|http)[a-z]*:/", re.IGNORECASE)
"""How an address begins; with one slash where a path object was made of it."""
_USERINFO = re.compile(
    rf"""
    \*\*\*@  # redacted already
  | (?!\[) [^/?\#@:]* : (?! \d* (?: [/?\#\s'"),;\]] | $ ) )  # a user and a password, no host and port
    (?: (?: (?! [\s'"(\[=] (?: {_BEGIN.pattern} ) ) . )* @ | .*? @ )
  | [^\s'"]* @
    """,
    re.VERBOSE | re.DOTALL | re.IGNORECASE,
)
"""What follows the scheme in a text, up to the last `@` that can belong to the address."""
_OPENING = re.compile(r"(['\"])[^'\"\s]*$")
"""A quotation mark before an address, or before its name, as in 'cam=rtsp://...'."""
_MORE_QUERY = re.compile(rf"(?:(?!{_BEGIN.pattern})[^\n'\"])*(?:[=&]\S*|(?=:\s))", re.IGNORECASE)
_MOST_NESTED = 10
"""Addresses in an address; with more of them all of it is hidden."""
_MAY_BE_LOGIN = re.compile(
    r"(?!localhost:|[0-9]+(\.[0-9]+){3}:|\[) ([^/?@.]*:[0-9]+[/?].*@ | [^/?@]*:[0-9]+[/?].*@[^@/]*/)",
    re.VERBOSE | re.DOTALL,
)
"""A user whose password begins as a port does, or a host with an `@` in its path: a name without a dot, or any name
where a path follows the `@`. It is hidden, because it may be a password."""


def redact(text: str) -> str:
    """Return `text` with what is secret in every address in it replaced by `***`; see `redact_address`.

    Where an address ends among other words is a guess: a password reaches up to the last `@` before the next address,
    an address in quotation marks up to the closing one, a query with spaces up to the last word with `=` or `&` or the
    last colon. One word too many is hidden rather than one too few.
    """
    parts, position = [], 0
    while begin := _BEGIN.search(text, position):
        end = _end(text, begin)
        # Punctuation behind an address belongs to the sentence.
        address = text[begin.start() : end].rstrip(":,;.)]}'\"")
        parts += [text[position : begin.start()], redact_address(address)]
        position = begin.start() + len(address)
    return "".join(parts) + text[position:]


def _end(text: str, begin: re.Match[str]) -> int:
    """Return where the address ends that begins with the match `begin` in `text`."""
    end = 0
    inner: re.Match[str] | None = begin
    while inner is not None:  # an address may hold another one
        userinfo = _USERINFO.match(text, inner.end())
        start = userinfo.end() if userinfo else inner.end()
        opening = _OPENING.search(text[: inner.start()])
        closing = text.find(opening[1], start) if opening else -1
        end = max(end, closing if closing >= 0 else _word_end(text, start))
        inner = _BEGIN.search(text, start, end)
    query = text.find("?", start, end)
    if closing < 0 and query >= 0 and not text.startswith("?***", query):
        more = _MORE_QUERY.match(text, end)
        return more.end() if more else end
    return end


def _word_end(text: str, start: int) -> int:
    space = re.compile(r"\s").search(text, start)
    return space.start() if space else len(text)


def redact_address(text: str) -> str:
    """Return an address (`scheme://...`, with nothing behind it) with what is secret in it replaced by `***`.

    Hidden are the user information, everything behind `?`, the values that a fragment, a path's `;name=value` or a
    path's `password=value` assigns, and of RTMP everything behind the application: the key of the stream. The same
    holds for an address inside the address. Texts without an address come back as they are.
    """
    begin = _BEGIN.search(text)
    if begin is None:
        return text
    rest = text[begin.end() :]
    userinfo, place = ("***", rest[4:]) if rest.startswith("***@") else split_userinfo(rest)
    if userinfo is None and _MAY_BE_LOGIN.match(place):
        userinfo, _, place = place.rpartition("@")
    if text.count("://") > _MOST_NESTED:
        return text[: begin.end()] + "***"
    inner = _BEGIN.search(place)
    nested = redact_address(place[inner.start() :]) if inner else ""
    place = place[: inner.start()] if inner else place
    login = re.search(r"/[^/@:?]*:(.*)@", place, re.DOTALL)
    if login:  # with a ? in it, nobody knows where it ends
        place = place[: login.start()] + "/***" + ("" if "?" in login[1] else place[login.end() - 1 :])
    place = _without_values(place + nested, is_rtmp="rtmp" in begin[0].lower())
    return text[: begin.end()] + ("" if userinfo is None else "***@") + place


def _without_values(place: str, *, is_rtmp: bool) -> str:
    """Return what follows `://` and the user information without the values that may be secret."""
    if is_rtmp:
        place = re.sub(r"^([^/?#]*/[^/?#;\s]*[/?#;\s]).+", r"\1***", place, flags=re.DOTALL)
    place = re.sub(r"\?.+", "?***", place, flags=re.DOTALL)
    place = re.sub(r"#.*=.*", "#***", place, flags=re.DOTALL)
    place = re.sub(r";[^/;?#]*=[^/;?#]*", ";***", place)
    return re.sub(r"(?i)((?:pass|pwd|token|secret|auth|key)[^/=?#]*=)[^/?#]+", r"\1***", place)
