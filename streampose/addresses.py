"""Addresses (URLs) and the secrets in them: converts addresses for FFmpeg, and redacts them for messages.

A redacted address shows no user name, password, query value or RTMP stream key. Imports no other module of the package.
"""

from __future__ import annotations

import re
from urllib.parse import quote, urlsplit

_UNHARMFUL = ":%!$&()*+,;="
"""Characters of user names and passwords that are not escaped. RTMP sends user information as written, so only
necessary characters are escaped. For other protocols, FFmpeg decodes the escapes."""


def split_userinfo(rest: str) -> tuple[str | None, str]:
    """Split the text after `://` into user information (None if there is none) and the rest, starting at the host.

    A password may contain `@`, `/` and `?`. A path may contain `@`.
    """
    userinfo, at, _ = rest.rpartition("@")
    # Distinguish a path with an @ (host/path@x, host:554/path@x) from a password with a slash (me:/word@x,
    # me:12/34@a.host).
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
    """Return `scheme://rest` with the characters escaped at which FFmpeg would cut off the user name or password.

    A `%` before two hexadecimal digits is kept, because it is an escape written by the user.
    """
    userinfo, place = split_userinfo(rest)
    if userinfo is None:
        return f"{scheme}://{place}"
    if not scheme.lower().startswith("rtmp"):
        userinfo = re.sub(r"%(?![0-9A-Fa-f]{2})", "%25", userinfo)
    return f"{scheme}://{quote(userinfo, safe=_UNHARMFUL)}@{place}"


_BEGIN = re.compile(r"[A-Za-z0-9+.-]*://|(?:rtmp|rtsp|http)[a-z]*:/", re.IGNORECASE)
"""The beginning of an address. It has only one slash if the address was converted to a path object."""
_USERINFO = re.compile(
    rf"""
    \*\*\*@  # already redacted
  | (?!\[) [^/?\#@:]* : (?! \d* (?: [/?\#\s'"),;\]] | $ ) )  # user and password, not host and port
    (?: (?: (?! [\s'"(\[=] (?: {_BEGIN.pattern} ) ) . )* @ | .*? @ )
  | [^\s'"]* @
    """,
    re.VERBOSE | re.DOTALL | re.IGNORECASE,
)
"""The user information after the scheme, up to the last `@` that can belong to the address."""
_OPENING = re.compile(r"(['\"])[^'\"\s]*$")
"""An opening quotation mark before an address, or before its name as in 'cam=rtsp://...'."""
_MORE_QUERY = re.compile(rf"(?:(?!{_BEGIN.pattern})[^\n'\"])*(?:[=&]\S*|(?=:\s))", re.IGNORECASE)
_MOST_NESTED = 10
"""Maximum number of nested addresses. An address with more of them is hidden completely."""
_MAY_BE_LOGIN = re.compile(
    r"(?!localhost:|[0-9]+(\.[0-9]+){3}:|\[) ([^/?@.]*:[0-9]+[/?].*@ | [^/?@]*:[0-9]+[/?].*@[^@/]*/)",
    re.VERBOSE | re.DOTALL,
)
"""Either a user whose password begins like a port number, or a host whose path contains an `@`. Matches names without
a dot, and any name if a path follows the `@`. The match is hidden, because it may be a password."""


def redact(text: str) -> str:
    """Return `text` with the secrets in every address replaced by `***`; see `redact_address`.

    Within a text, the end of an address can only be guessed. A password extends to the last `@` before the next
    address. An address in quotation marks extends to the closing quotation mark. A query with spaces extends to the
    last word with `=` or `&`, or to the last colon. In doubt, more is hidden rather than less.
    """
    parts, position = [], 0
    while begin := _BEGIN.search(text, position):
        end = _end(text, begin)
        # Punctuation after an address belongs to the sentence.
        address = text[begin.start() : end].rstrip(":,;.)]}'\"")
        parts += [text[position : begin.start()], redact_address(address)]
        position = begin.start() + len(address)
    return "".join(parts) + text[position:]


def _end(text: str, begin: re.Match[str]) -> int:
    """Return the end of the address in `text` that starts with the match `begin`."""
    end = 0
    inner: re.Match[str] | None = begin
    while inner is not None:  # an address may contain another one
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
    """Return an address (`scheme://...`, without any text after it) with its secrets replaced by `***`.

    These parts are hidden: the user information; everything after `?`; a fragment with `=`; the parts `;name=value` and
    the values of `password=value` and similar in a path; and, for RTMP, everything after the application, which is the
    stream key. The same applies to an address inside the address. A text without an address is returned unchanged.
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
    if login:  # if it contains a ?, its end is unknown
        place = place[: login.start()] + "/***" + ("" if "?" in login[1] else place[login.end() - 1 :])
    place = _without_values(place + nested, is_rtmp="rtmp" in begin[0].lower())
    return text[: begin.end()] + ("" if userinfo is None else "***@") + place


def _without_values(place: str, *, is_rtmp: bool) -> str:
    """Return `place`, an address without scheme and user information, with values that may be secret replaced."""
    if is_rtmp:
        place = re.sub(r"^([^/?#]*/[^/?#;\s]*[/?#;\s]).+", r"\1***", place, flags=re.DOTALL)
    place = re.sub(r"\?.+", "?***", place, flags=re.DOTALL)
    place = re.sub(r"#.*=.*", "#***", place, flags=re.DOTALL)
    place = re.sub(r";[^/;?#]*=[^/;?#]*", ";***", place)
    return re.sub(r"(?i)((?:pass|pwd|token|secret|auth|key)[^/=?#]*=)[^/?#]+", r"\1***", place)
