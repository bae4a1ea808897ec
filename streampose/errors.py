"""The errors a user can meet, each one sentence that names the thing and the remedy.

StreamposeError             a known failure: one line, exit code 1
├── UsageError              a value that cannot be right: exit code 2
├── SourceError             opening or reading a source
├── ModelError              finding, loading or running a network
├── AnnotateError           drawing
├── SinkError               opening, writing or closing a sink
└── StalledError            a step that does not come back

Messages of libraries may hold URLs with passwords: every text that enters an error here goes through `redact`.
"""

from __future__ import annotations

import re


class StreamposeError(Exception):
    """A known failure whose text is one line for the user, credentials redacted."""

    exit_code = 1
    is_reported = False
    """Whether it has been logged already, when it happened; it is raised all the same at the end of the run."""

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(redact(message).split()))


class UsageError(StreamposeError):
    """A value that cannot be right; the text names the right ones."""

    exit_code = 2


class SourceError(StreamposeError):
    """A source that cannot be opened or read further."""


class ModelError(StreamposeError):
    """A network that cannot be found, loaded or run."""


class AnnotateError(StreamposeError):
    """A picture that cannot be drawn."""


class SinkError(StreamposeError):
    """A sink that cannot be opened, written or closed."""


class StalledError(StreamposeError):
    """A step of the pipeline that did not come back in time."""


_SECRETS = "pass|pwd|pw|psk|token|secret|key|auth|sig|hmac|hdn|jwt|sess|cred|user|usr|login"
"""What the names of a query hold whose values are nobody's business (`access_token`, `X-Amz-Signature`, `hdnts`)."""
_SECRET_VALUE = re.compile(rf"(?i)([?&;#][^\s=&;#]*(?:{_SECRETS})[^\s=&;#]*=)[^&;#]*")
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
    """Return `text` with what is secret in every address in it replaced by `***`: user name and password, and the
    values of a query whose names tell of secrets.

    Where an address lies among other words its password is taken to reach up to the last `@` before the next address:
    it may itself contain `@`, `/`, spaces and quotation marks, and rather a word too many is hidden than one too few.
    For a text that is nothing but an address see `redact_address`.
    """
    return _IN_TEXT.sub(lambda found: redact_address(found[0]), text)


def redact_address(text: str) -> str:
    """Return an address (`scheme://...`, and nothing behind it) with what is secret in it replaced by `***`, as
    `redact` does, whatever characters it holds. Other texts come back as they are.
    """
    scheme, slashes, rest = text.partition("://")
    if not slashes:
        return text
    _, at, place = ("", "@", rest[4:]) if rest.startswith("***@") else rest.rpartition("@")
    shown = _SECRET_VALUE.sub(r"\1***", place)
    return f"{scheme}://***@{shown}" if at else f"{scheme}://{shown}"


def describe(error: BaseException) -> str:
    """Return one line for a library's error: its operating-system text where it has one, else its own text, else its
    type.
    """
    if isinstance(error, OSError) and error.strerror:
        return redact(error.strerror)
    return redact(" ".join(str(error).split())) or type(error).__name__
