"""ASGI events of a WebSocket: what an application may send, and what its end means.

Functions that check one event and return its content. Of keys that may be missing or ``None`` only other values count,
empty ones included. A wrong event raises an exception that tells the application what was expected.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from .. import limits
from ..conn.handlers import leaves_of
from ..constants import CloseCode, is_valid_close_code
from ..errors import ConnectionClosed
from ..http11.handshake import application_headers
from ..http11.headers import Headers
from ..protocol.state import cut_reason

if TYPE_CHECKING:
    from ..conn.connection import Conn

__all__ = [
    "ClientDisconnected",
    "Event",
    "accept_headers",
    "accept_subprotocol",
    "checked_payload",
    "close_of",
    "disconnect_event",
    "headers_of",
    "tells_disconnect",
    "unsent_close",
]

Event: TypeAlias = MutableMapping[str, Any]

#: Names of the exceptions with which frameworks tell their applications that the client has gone.
_DISCONNECTS: Final = frozenset(
    {"ClientDisconnect", "ClientDisconnected", "WebSocketDisconnect", "WebSocketDisconnected"}
)


class ClientDisconnected(OSError):
    """The client has gone: the event cannot be sent, or no event will come any more."""


# --- the end --------------------------------------------------------------------------------------


def disconnect_event(conn: Conn) -> Event:
    """Return the event that tells how ``conn`` has ended: by the peer's close frame, by a violation, or without one."""
    rules = conn._rules
    received = rules.close_rcvd
    if received is not None:
        return {"type": "websocket.disconnect", "code": int(received[0]), "reason": received[1]}
    if rules.error is not None:
        return {"type": "websocket.disconnect", "code": int(rules.error.close_code), "reason": str(rules.error)}
    return {"type": "websocket.disconnect", "code": int(CloseCode.ABNORMAL_CLOSURE)}


def tells_disconnect(exc: BaseException) -> bool:
    """Return True if ``exc`` only tells that a client has gone, alone or in the group of a task group."""
    told = [each for each in leaves_of(exc) if not isinstance(each, asyncio.CancelledError)]
    return bool(told) and all(map(_is_disconnect, told))


def _is_disconnect(exc: BaseException) -> bool:
    if isinstance(exc, (ClientDisconnected, ConnectionClosed)):
        return True
    return any(kind.__name__ in _DISCONNECTS for kind in type(exc).__mro__)


# --- websocket.accept -----------------------------------------------------------------------------


def headers_of(event: Mapping[str, Any]) -> Headers:
    """Return the headers of an event. Raise ``TypeError`` or ``ValueError`` for one that cannot be sent."""
    given = event.get("headers")
    return Headers(list(_decoded(given))) if given else Headers()


def _decoded(given: Iterable[Any]) -> Iterator[tuple[str, str]]:
    for name, value in given:
        if not isinstance(name, (bytes, bytearray)) or not isinstance(value, (bytes, bytearray)):
            raise TypeError(
                f"a header of an event is a pair of bytes, not {type(name).__name__}, {type(value).__name__}"
            )
        yield name.decode("latin-1"), value.decode("latin-1")


def accept_headers(event: Mapping[str, Any]) -> Headers:
    """Return the headers of a ``websocket.accept``. Raise ``ValueError`` for one that belongs to the handshake."""
    headers = headers_of(event)
    if "Sec-WebSocket-Protocol" in headers:
        raise ValueError(
            "the header Sec-WebSocket-Protocol belongs to the handshake: give the key 'subprotocol' of websocket.accept"
        )
    return application_headers(headers)


def accept_subprotocol(event: Mapping[str, Any], offered: Iterable[str]) -> str | None:
    """Return the subprotocol of a ``websocket.accept``, which must be one of those ``offered``."""
    subprotocol = event.get("subprotocol")
    if subprotocol is None:
        return None
    if not isinstance(subprotocol, str):
        raise TypeError(f"a subprotocol is a str, not {type(subprotocol).__name__}")
    if subprotocol not in offered:
        told = ", ".join(offered) or "none"
        raise ValueError(
            f"Sec-WebSocket-Protocol: subprotocol {subprotocol!r} was not offered by the client (it offered {told}), "
            "which would have to fail"
        )
    return subprotocol


# --- websocket.send -------------------------------------------------------------------------------


def checked_payload(event: Mapping[str, Any]) -> str | bytes | bytearray | memoryview:
    """Return the message of a ``websocket.send``: ``bytes`` if it is not ``None``, else ``text``."""
    data, text = event.get("bytes"), event.get("text")
    if data is not None:
        if not isinstance(data, (bytes, bytearray, memoryview)):
            raise TypeError(f"'bytes' of websocket.send must be bytes, not {type(data).__name__}")
        return data
    if text is None:
        raise ValueError("websocket.send needs 'bytes' or 'text': both are missing or None")
    if not isinstance(text, str):
        raise TypeError(f"'text' of websocket.send must be a str, not {type(text).__name__}")
    return text


# --- websocket.close ------------------------------------------------------------------------------


def close_of(event: Mapping[str, Any], logger: logging.Logger) -> tuple[int, str]:
    """Return the code and the reason that a ``websocket.close`` may send. Log what is changed about them."""
    code, reason = event.get("code"), event.get("reason")
    if code is None:
        code = CloseCode.NORMAL_CLOSURE
    if reason is None:
        reason = ""
    if isinstance(code, bool) or not isinstance(code, int):
        raise TypeError(f"'code' of websocket.close must be an int, not {type(code).__name__}")
    if not isinstance(reason, str):
        raise TypeError(f"'reason' of websocket.close must be a str, not {type(reason).__name__}")
    if not is_valid_close_code(code):
        no_code = code == CloseCode.NO_STATUS_RCVD
        instead = CloseCode.NORMAL_CLOSURE if no_code else CloseCode.INTERNAL_ERROR
        logger.warning("close code %d may not be sent (RFC 6455 section 7.4): %d is sent instead", code, instead)
        code = instead
    cut = cut_reason(reason)
    if len(cut) < len(reason):
        logger.warning("close reason of more than %d bytes is cut: %r", limits.CLOSE_REASON, cut)
    return int(code), cut


def unsent_close(event: Mapping[str, Any]) -> str:
    """Return the hint for a ``websocket.close`` before accept whose code or reason the client does not see, or ""."""
    code, reason = event.get("code"), event.get("reason")
    if code in (None, CloseCode.NORMAL_CLOSURE) and not reason:
        return ""
    shown = CloseCode.NORMAL_CLOSURE if code is None else code
    return f"close code {shown} was not sent, because the WebSocket was not open: accept first, then close"
