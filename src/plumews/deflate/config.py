"""Options of permessage-deflate, and their negotiation in the opening handshake (RFC 7692 sections 5 and 7.1).

A server accepts the first offer that it can keep and declines the others. A client fails the connection if the answer
does not fit its offer. Invariants: the values of a `Deflate` are in range and its back end is installed. An answer
states what is done. An offer with any error in it is declined.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from .. import limits
from ..errors import InvalidHeader
from ..http11.extensions import Parameter, parse_extensions
from ..validation import check_count, removed_options
from .streams import LEAST_WINDOW_BITS, backend

__all__ = ["Agreement", "Deflate", "check_answer", "negotiate", "offer"]

MOST_WINDOW_BITS: Final = 15

_NAME: Final = "permessage-deflate"
_SERVER_FRESH: Final = "server_no_context_takeover"
_CLIENT_FRESH: Final = "client_no_context_takeover"
_SERVER_BITS: Final = "server_max_window_bits"
_CLIENT_BITS: Final = "client_max_window_bits"

#: Values of the two parameters of bits: 8 to 15, without leading zeros (section 7.1.2).
_BITS: Final = {str(bits): bits for bits in range(8, MOST_WINDOW_BITS + 1)}

#: Characters of the longest offer whose answer is cached. Those of browsers are shorter.
_OFFER_SIZE: Final = 256


@removed_options(inflate_share="the share of an event loop that inflating takes is fixed")
@dataclass(frozen=True)
class Deflate:
    """Options of permessage-deflate: ``serve(compression=Deflate(...))``. ``compression="deflate"`` is all defaults.

    Args:
        level: 1 (fast) to 9 (small), or 0 to 3 with ``isal``. Default: 6, or 2 with ``isal``.
        server_window_bits: most bits of the window with which the server compresses, 9 to 15 (default 12).
        client_window_bits: the same for the client (default 12). A server can ask for less than 15 only if the client
            offers it, as Chromium does.
        server_takeover: messages of the server may refer to its earlier ones (default False). They get smaller, for the
            memory of one compressor for each connection. A broadcast is compressed for each such connection.
        client_takeover: messages of the client may refer to its earlier ones (default False), for the memory of an
            inflater for each connection. With False the client is asked for ``client_no_context_takeover``. Some
            clients agree and keep their context all the same, such as Safari of iOS 15. They are closed with 1007. True
            reads them, too.
        mem_level: memory of a compressor, 1 to 9 (default 5).
        min_size: smaller messages are not compressed, in bytes (default 128).
        backend: library that compresses: ``"zlib"`` (default), or ``"zlib-ng"`` or ``"isal"``, which are extras.
        max_ratio: most bytes that one received byte may become, 1 or more. A message beyond it is closed with 1009.
            Default ``None``: ``max_size`` is the only limit. DEFLATE itself reaches 1032.

    Raises:
        TypeError: a value is of the wrong type, or an option was removed.
        ValueError: a value is out of range.
        ImportError: the back end is not installed.
    """

    level: int | None = None
    server_window_bits: int = limits.WINDOW_BITS
    client_window_bits: int = limits.WINDOW_BITS
    server_takeover: bool = False
    client_takeover: bool = False
    mem_level: int = limits.MEM_LEVEL
    min_size: int = limits.COMPRESS_LEAST
    backend: str = "zlib"
    max_ratio: int | None = None

    def __post_init__(self) -> None:
        library = backend(self.backend)
        if self.level is None:
            object.__setattr__(self, "level", library.default_level)
        check_count("level", self.level, least=library.levels[0], most=library.levels[-1])
        for name in ("server_window_bits", "client_window_bits"):
            check_count(name, getattr(self, name), least=LEAST_WINDOW_BITS, most=MOST_WINDOW_BITS)
        for name in ("server_takeover", "client_takeover"):
            if not isinstance(getattr(self, name), bool):
                raise TypeError(f"{name} must be True or False, not {getattr(self, name)!r}")
        check_count("mem_level", self.mem_level, most=9)
        check_count("min_size", self.min_size, least=0)
        if self.max_ratio is not None:
            check_count("max_ratio", self.max_ratio)
        library.load()


class Agreement(NamedTuple):
    """Negotiated parameters: the bits of both windows, and the sides that may refer to earlier messages."""

    server_window_bits: int
    client_window_bits: int
    server_takeover: bool
    client_takeover: bool
    #: Value of ``Sec-WebSocket-Extensions`` in the server's answer.
    answer: str


class _Refused(Exception):
    """Error in the parameters of an offer or an answer."""


# --- server -----------------------------------------------------------------------------------------


def negotiate(values: Sequence[str], settings: Deflate) -> Agreement | None:
    """Accept the first offer that can be kept. Return ``None`` if there is none.

    Args:
        values: the values of ``Sec-WebSocket-Extensions``, one for each line.
        settings: options of the server.

    Raises:
        InvalidHeader: a line does not follow the grammar of the header (400).
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


#: Nearly all clients of a server are browsers, which make one of two offers.
_known = functools.lru_cache(maxsize=64)(lambda value, settings: _negotiate([value], settings))


def _read(parameters: Iterable[Parameter], *, answered: bool = False) -> dict[str, int | None]:
    """Return the parameters with their bits, if they have any.

    Only an offer may have a ``client_max_window_bits`` without a value.
    """
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


# --- client -----------------------------------------------------------------------------------------


def offer(settings: Deflate) -> str:
    """Return the offer of a client: the value of its ``Sec-WebSocket-Extensions``."""
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
    """Return the agreement in a server's answer to our :func:`offer`, or ``None`` if it declined.

    Raises:
        InvalidHeader: the answer does not fit the offer. The client must fail the connection.
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
    if not settings.server_takeover and _SERVER_FRESH not in answered:
        raise _Refused(f"{_SERVER_FRESH} is missing")
    client_takeover = settings.client_takeover and _CLIENT_FRESH not in answered
    return Agreement(server_bits, client_bits, _SERVER_FRESH not in answered, client_takeover, answer)
