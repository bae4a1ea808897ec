"""All that is known of addresses and what is secret in them: how people write them, how FFmpeg wants them, how they are
shown.

Shown is neither user name nor password, no value of a query, and no key of an RTMP stream. Imports nothing of ours.
"""

from __future__ import annotations

import re
from urllib.parse import quote

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


_SCHEME = r"[A-Za-z][A-Za-z0-9+.-]*://"
_IN_TEXT = re.compile(
    rf"""
    {_SCHEME}
    (?:
        \*\*\*@  # redacted already
      | (?!\[) [^/?\#@:]* : (?! \d* (?: [/?\#\s'"),;\]] | $ ) )  # a user and a password, no host and port
        (?: (?: (?! [\s'"(\[=] {_SCHEME} ) . )* @ | .*? @ )
      | [^\s'"]* @
    )?
    [^\s'"]*
    """,
    re.VERBOSE | re.DOTALL,
)


def redact(text: str) -> str:
    """Return `text` with what is secret in every address in it replaced by `***`; see `redact_address`.

    Where an address lies among other words its password is taken to reach up to the last `@` before the next address:
    it may itself contain `@`, `/`, spaces and quotation marks, and rather a word too many is hidden than one too few.
    """

    def shown(found: re.Match[str]) -> str:
        # Punctuation behind an address belongs to the sentence.
        address, punctuation = re.fullmatch(r"(.*?)([:,;.)\]]*)", found[0], re.DOTALL).groups()  # type: ignore[union-attr]
        return redact_address(address) + punctuation

    return _QUOTED_QUERY.sub(r"\1\2\1", _IN_TEXT.sub(shown, text))


def redact_address(text: str) -> str:
    """Return an address (`scheme://...`, and nothing behind it) with what is secret in it replaced by `***`, whatever
    characters it holds: the user information, everything behind `?`, what a fragment assigns, and of RTMP the part
    behind the application, which is the key of the stream. Other texts come back as they are.
    """
    scheme, slashes, rest = text.partition("://")
    if not slashes:
        return text
    userinfo, place = ("***", rest[4:]) if rest.startswith("***@") else split_userinfo(rest)
    if userinfo is None and _MAY_BE_LOGIN.match(place):
        userinfo, _, place = place.rpartition("@")
    inner = re.search(_SCHEME, place)
    if inner is not None:  # an address within, as of a proxy
        place = place[: inner.start()] + redact_address(place[inner.start() :])
    if re.search(r"(?i)rtmp[a-z]*$", scheme):  # rtmps as well, and those that are refused, such as rtmpt
        place = re.sub(r"^([^/?#]*/[^/?#]*/)[^?#]+", r"\1***", place)
    place = re.sub(r";[^/?#;]*=[^/?#]*", ";***", place)
    place = re.sub(r"\?.+", "?***", place, flags=re.DOTALL)
    place = re.sub(r"#.*=.*", "#***", place, flags=re.DOTALL)
    return f"{scheme}://{place}" if userinfo is None else f"{scheme}://***@{place}"


_QUOTED_QUERY = re.compile(r"(['\"])([^\s'\"]+\?\*\*\*)[^'\"]*\1")
"""An address in quotation marks, whose query may hold spaces."""
_MAY_BE_LOGIN = re.compile(r"[^/?@.]*:[0-9]+[/?].*@", re.DOTALL)
"""A user whose password begins as a port does, or a host without a dot: what may be a password is hidden."""
