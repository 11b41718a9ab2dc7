"""Which parts of a request are nobody's business (layer 2).

Wherever a client can put a secret, for those who must keep it out of what they say: the two headers for it, cookies,
the query, and what it offers as ``bearer.<token>``. Read without an error, whatever the request looks like.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final
from urllib.parse import parse_qsl

from .models import Request

__all__ = ["secrets_of"]

_BEARER: Final = "bearer."


def secrets_of(request: Request) -> Iterator[str]:
    """The secrets in ``request``; some of them may be none, such as the value of a cookie for the colour of a page."""
    headers = request.headers
    for value in headers.get_all("Authorization"):
        yield value.partition(" ")[2].strip() or value
    yield from headers.get_all("X-WebSocket-Room-Password")
    for offers in headers.get_all("Sec-WebSocket-Protocol"):
        for offer in offers.split(","):
            if offer.strip().startswith(_BEARER):
                yield offer.strip()[len(_BEARER) :]
    for cookies in headers.get_all("Cookie"):
        for cookie in cookies.split(";"):
            name, equals, value = cookie.partition("=")
            yield (value if equals else name).strip().strip('"')
    # Not only the first of each name: behind an empty token the next one counts.
    for name, value in parse_qsl(request.query_string, keep_blank_values=True):
        if name in ("token", "room_password"):
            yield value
