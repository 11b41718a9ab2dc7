"""How permessage-deflate is agreed on in the opening handshake, for both sides (layer 1; RFC 7692 sections 5 and 7.1).

A server takes the first offer that it can keep and declines the others; a client fails what it did not offer.
Invariants: what is answered is what is done; an offer with anything wrong in it is declined as if it were not there.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from typing import Final

from ..errors import InvalidHeader
from ..http11.extensions import Parameter, parse_extensions
from .config import LEAST_WINDOW_BITS, MOST_WINDOW_BITS, Agreement, Deflate

__all__ = ["check_answer", "negotiate", "offer"]

_NAME: Final = "permessage-deflate"
_SERVER_FRESH: Final = "server_no_context_takeover"
_CLIENT_FRESH: Final = "client_no_context_takeover"
_SERVER_BITS: Final = "server_max_window_bits"
_CLIENT_BITS: Final = "client_max_window_bits"

#: Section 7.1.2: 8 to 15, without leading zeros.
_BITS: Final = {str(bits): bits for bits in range(8, MOST_WINDOW_BITS + 1)}

#: Longer than what any browser offers: what is longer is not worth being remembered.
_OFFER_SIZE: Final = 256


class _Refused(Exception):
    """Parameters with something wrong in them, and what."""


def negotiate(values: Sequence[str], settings: Deflate) -> Agreement | None:
    """What a server answers to the lines of ``Sec-WebSocket-Extensions``; ``None``: it goes without.

    Raises `InvalidHeader` (400) where a line does not follow the grammar of the header.
    """
    if len(values) == 1 and len(values[0]) <= _OFFER_SIZE:
        return _known(values[0], settings)
    return _negotiate(values, settings)


def _negotiate(values: Sequence[str], settings: Deflate) -> Agreement | None:
    for name, parameters in parse_extensions(values):
        if name == _NAME:
            try:
                return _agree(_read(parameters), settings)
            except _Refused:
                continue
    return None


#: Nearly all clients of a server are browsers, which offer one of two things.
_known = functools.lru_cache(maxsize=64)(lambda value, settings: _negotiate([value], settings))


def _read(parameters: Iterable[Parameter], *, answered: bool = False) -> dict[str, int | None]:
    """The parameters and the bits of those that have them. Only in an offer may ``client_max_window_bits`` be bare."""
    found: dict[str, int | None] = {}
    for name, value in parameters:
        if name in found:
            raise _Refused(f"{name} stands there twice")
        if name in (_SERVER_FRESH, _CLIENT_FRESH):
            if value is not None:
                raise _Refused(f"{name} has a value")
            found[name] = None
        elif name in (_SERVER_BITS, _CLIENT_BITS):
            bare = value is None and name == _CLIENT_BITS and not answered
            if not bare and value not in _BITS:
                raise _Refused(f"{name} must be 8 to 15")
            found[name] = None if value is None else _BITS[value]
        else:
            raise _Refused("a parameter is unknown")
    return found


def _agree(offered: dict[str, int | None], settings: Deflate) -> Agreement:
    server_bits = min(settings.server_window_bits, offered.get(_SERVER_BITS) or MOST_WINDOW_BITS)
    if server_bits < LEAST_WINDOW_BITS:
        raise _Refused("we cannot compress with a window of 8 bits")
    server_takeover = settings.server_takeover and _SERVER_FRESH not in offered
    client_takeover = settings.client_takeover and _CLIENT_FRESH not in offered
    answer = [_NAME]
    if not server_takeover:
        answer.append(_SERVER_FRESH)
    if not client_takeover:
        answer.append(_CLIENT_FRESH)
    if server_bits < MOST_WINDOW_BITS or _SERVER_BITS in offered:
        answer.append(f"{_SERVER_BITS}={server_bits}")
    client_bits = MOST_WINDOW_BITS
    if _CLIENT_BITS in offered:
        client_bits = min(settings.client_window_bits, offered[_CLIENT_BITS] or MOST_WINDOW_BITS)
        answer.append(f"{_CLIENT_BITS}={client_bits}")
    return Agreement(server_bits, client_bits, server_takeover, client_takeover, "; ".join(answer))


def offer(settings: Deflate) -> str:
    """What a client asks for: the value of its ``Sec-WebSocket-Extensions``."""
    wanted = [_NAME]
    if not settings.server_takeover:
        wanted.append(_SERVER_FRESH)
    if not settings.client_takeover:
        wanted.append(_CLIENT_FRESH)
    if settings.server_window_bits < MOST_WINDOW_BITS:
        wanted.append(f"{_SERVER_BITS}={settings.server_window_bits}")
    wanted.append(f"{_CLIENT_BITS}={settings.client_window_bits}")
    return "; ".join(wanted)


def check_answer(values: Sequence[str], settings: Deflate) -> Agreement | None:
    """What a server's answer to our :func:`offer` agrees on; ``None``: it goes without.

    Raises `InvalidHeader` for an answer that does not fit the offer: the client must fail the connection.
    """
    extensions = parse_extensions(values)
    if not extensions:
        return None
    if len(extensions) > 1 or extensions[0][0] != _NAME:
        raise InvalidHeader(f"the server answered with extensions that were not offered: only {_NAME} was, once")
    try:
        return _settle(_read(extensions[0][1], answered=True), settings, ", ".join(values))
    except _Refused as exc:
        raise InvalidHeader(f"the server's answer about {_NAME} does not fit what was offered: {exc}") from None


def _settle(answered: dict[str, int | None], settings: Deflate, answer: str) -> Agreement:
    server_bits = answered.get(_SERVER_BITS) or MOST_WINDOW_BITS
    client_bits = answered.get(_CLIENT_BITS) or settings.client_window_bits
    if server_bits > settings.server_window_bits:
        raise _Refused(f"{_SERVER_BITS} must be {settings.server_window_bits} or less")
    if client_bits > settings.client_window_bits:
        raise _Refused(f"{_CLIENT_BITS} must be {settings.client_window_bits} or less")
    if client_bits < LEAST_WINDOW_BITS:
        raise _Refused("we cannot compress with a window of 8 bits")
    if not settings.server_takeover and _SERVER_FRESH not in answered:
        raise _Refused(f"{_SERVER_FRESH} is missing")
    client_takeover = settings.client_takeover and _CLIENT_FRESH not in answered
    return Agreement(server_bits, client_bits, _SERVER_FRESH not in answered, client_takeover, answer)
