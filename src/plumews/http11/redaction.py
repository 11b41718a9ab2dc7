"""Redaction of what stands in logs: text from outside, tracebacks, and the secrets of a request.

A terminal interprets control characters, and a line break forges a line of the log. The exceptions of an application
may contain secrets: ``sessions[token]`` raises a ``KeyError`` whose text is the token.

This module lists the places of a request that may carry a secret. Authentication reads the same list. The parser
requires that the values of `SECRET_HEADERS` are ASCII.
"""

from __future__ import annotations

import re
import traceback
from collections.abc import Iterable, Iterator
from typing import Final
from urllib.parse import parse_qsl

from .. import limits
from .models import Request

__all__ = [
    "BEARER",
    "PASSWORD_HEADER",
    "QUERY_SECRETS",
    "SECRET_HEADERS",
    "TOKEN_HEADER",
    "cookies_of",
    "printable",
    "query_values",
    "quoted",
    "sanitize_for_logging",
    "secrets_of",
    "traceback_without",
]

_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_BAD_BYTES: Final = re.compile("[\ud800-\udfff]+")
_CUT: Final = "..."

#: Values that need no quotation marks in a line.
_NAME: Final = re.compile(r"[A-Za-z0-9._:/@+\-]+")


def sanitize_for_logging(data: str | bytes | bytearray | memoryview, max_bytes: int = 0) -> str:
    """Return ``data`` as one line without control characters, for a log.

    Each control character becomes a space, and each run of bytes that are not UTF-8 becomes one U+FFFD. Characters
    outside ASCII stay: :func:`ascii` escapes them.

    Args:
        data: Text or bytes from outside.
        max_bytes: Most bytes of the result (default 200). Longer data is cut between two characters and ends with
            ``...``.

    Returns:
        The line.

    Raises:
        TypeError: ``data`` is neither text nor bytes.
    """
    if not isinstance(data, (str, bytes, bytearray, memoryview)):
        raise TypeError(f"text or bytes are needed for a log, not {type(data).__name__}")
    most = max_bytes if max_bytes > 0 else limits.LOG_VALUE
    # A character has at least one byte: the rest is cut anyway.
    raw = data[: most + 1].encode("utf-8", "surrogatepass") if isinstance(data, str) else bytes(data[: most + 1])
    cut = len(raw) > most
    text = _text_of(raw[: _boundary(raw, most)] if cut else raw)
    return text + _CUT if cut else text


def _boundary(raw: bytes, position: int) -> int:
    """Return ``position``, or the start of the character that it would cut."""
    start = position
    while start > 0 and position - start < 3 and raw[start] & 0xC0 == 0x80:
        start -= 1
    lead = raw[start]
    size = 2 if 0xC2 <= lead < 0xE0 else 3 if 0xE0 <= lead < 0xF0 else 4 if 0xF0 <= lead < 0xF5 else 1
    return start if start < position < start + size else position


def _text_of(raw: bytes) -> str:
    return _CONTROL.sub(" ", _BAD_BYTES.sub("\ufffd", raw.decode("utf-8", "surrogateescape")))


def printable(text: str) -> str:
    """Return ``text`` in printable ASCII. Control characters become spaces, and others escapes."""
    return _CONTROL.sub(" ", text).encode("ascii", "backslashreplace").decode()


def quoted(value: object) -> str:
    """Return ``value`` in printable ASCII, in quotation marks unless it consists of characters of names."""
    text = sanitize_for_logging(str(value))
    return text if _NAME.fullmatch(text) else ascii(text)


# --- tracebacks -------------------------------------------------------------------------------------


def traceback_without(exc: BaseException, secrets: Iterable[str | None]) -> str:
    """Return the traceback of ``exc``. If an exception in it contains one of ``secrets``, leave all texts out."""
    parts = {part for secret in secrets if secret for part in _parts(secret)}
    if any(part in text for text in _texts(exc) for part in parts):
        lines = "".join(traceback.format_tb(exc.__traceback__))
        return f"{lines}{type(exc).__qualname__} (its text is left out: it holds what the client sent)"
    return "".join(traceback.format_exception(type(exc), exc, exc.__traceback__))


def _texts(exc: BaseException) -> Iterator[str]:
    """Yield the texts of ``exc``, of its causes and contexts, and of the exceptions in a group."""
    seen: set[int] = set()
    waiting: list[BaseException | None] = [exc]
    while waiting:
        one = waiting.pop()
        if one is not None and id(one) not in seen:
            seen.add(id(one))
            yield "".join(traceback.format_exception_only(type(one), one))
            waiting += [one.__cause__, one.__context__, *getattr(one, "exceptions", ())]


def _parts(secret: str) -> Iterator[str]:
    """Yield the forms of a secret in a text: itself, its ``repr``, and the parts of a JWT."""
    yield secret
    yield repr(secret)[1:-1]
    yield repr(secret.encode("utf-8", "surrogatepass"))[2:-1]
    if secret.count(".") == 2:  # a JWT
        yield from (part for part in secret.split(".") if part)


# --- secrets of a request ---------------------------------------------------------------------------

#: Headers that carry a token and a room password.
TOKEN_HEADER: Final = "Authorization"  # noqa: S105
PASSWORD_HEADER: Final = "X-WebSocket-Room-Password"  # noqa: S105
SECRET_HEADERS: Final = (TOKEN_HEADER, PASSWORD_HEADER)

#: Prefix of an offered subprotocol that carries a token: a browser cannot set headers.
BEARER: Final = "bearer."

#: Names of the query that carry a token and a room password. A cookie of any name may carry a token, too.
QUERY_SECRETS: Final = ("token", "room_password")


def cookies_of(request: Request) -> Iterator[tuple[str, str]]:
    """Yield the name and the value of each cookie (RFC 6265 section 4.2.1). A pair without ``=`` has no name."""
    for line in request.headers.get_all("Cookie"):
        for pair in line.split(";"):
            name, equals, value = pair.partition("=")
            yield (name.strip(" \t") if equals else ""), (value if equals else name).strip(" \t").strip('"')


def query_values(request: Request, name: str) -> list[str]:
    """Return all values of ``name`` in the query: behind an empty token the next one counts."""
    if name not in request.query:
        return []
    return [value for key, value in parse_qsl(request.query_string, keep_blank_values=True) if key == name]


def secrets_of(request: Request) -> Iterator[str]:
    """Yield the values that may be secrets, whatever the request looks like. Harmless cookies are among them."""
    for name in SECRET_HEADERS:
        yield from request.headers.get_all(name)
    for value in request.headers.get_all(TOKEN_HEADER):
        yield value.partition(" ")[2].strip()  # without the scheme
    for offers in request.headers.get_all("Sec-WebSocket-Protocol"):
        for offer in offers.split(","):
            if offer.strip().startswith(BEARER):
                yield offer.strip().removeprefix(BEARER)
    for _, value in cookies_of(request):
        yield value
    for name in QUERY_SECRETS:
        yield from query_values(request, name)
