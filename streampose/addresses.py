"""Where the user and the password of an address end, as people write it, and how FFmpeg wants them.

How an address is shown is in `errors.py`.
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
