"""Close frames of a connection, and the names of ``websockets.server``.

`ConnProtocol` is the ``protocol`` of a connection. It is the state machine of plumews with three habits of the
`websockets` package: it remembers which side closed first, it echoes the reason of the peer, and its exceptions are
those of :mod:`plumews.compat.websockets.exceptions`. So all calls of a connection raise these.

``serve``, ``broadcast`` and the ``WebSocketServer`` names are those of the legacy API.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, ClassVar, Final, NoReturn

from ...conn.connection import Conn
from ...constants import CloseCode
from ...protocol.state import ProtocolState
from .exceptions import ConnectionClosed, ConnectionClosedError, ConnectionClosedOK
from .frames import Close, close_of
from .refused import SANS_IO, missing

if TYPE_CHECKING:
    from .legacy.server import WebSocketServer, WebSocketServerProtocol, broadcast, serve, unix_serve

__all__ = [
    "ServerProtocol",
    "WebSocketServer",
    "WebSocketServerProtocol",
    "broadcast",
    "serve",
    "unix_serve",
]

_NO_STATUS = CloseCode.NO_STATUS_RCVD

#: Hints for attributes of the class in `websockets` that the state of a connection does not have here.
_HINTS: Final = {
    "subprotocol": "use websocket.subprotocol",
    "origin": 'use websocket.request.headers.get("Origin")',
    "extensions": "use websocket.plumews.compression",
    "id": "use websocket.id",
    **dict.fromkeys(("logger", "debug"), "use websocket.logger"),
    **dict.fromkeys(("max_size", "max_message_size"), "use websocket.plumews.read_limit"),
    **dict.fromkeys(("send_text", "send_binary", "send_continuation"), "use websocket.send()"),
    **dict.fromkeys(("send_close", "fail"), "use websocket.close()"),
    **dict.fromkeys(("send_ping", "send_pong"), "use websocket.ping() and websocket.pong()"),
    **dict.fromkeys(("accept", "reject", "send_response"), "use websocket.respond(status, text) in process_request"),
    **dict.fromkeys(("receive_data", "receive_eof", "events_received", "data_to_send"), SANS_IO),
}


class ConnProtocol(ProtocolState):
    """State of one connection, its close frames, and the exception that tells its end.

    Attributes:
        close_rcvd: Close frame of the peer, ``None`` without one.
        close_sent: Our close frame, ``None`` without one.
        state: State of the connection.
    """

    __slots__ = ("_rcvd_first", "conn")

    _client: ClassVar = False

    def __init__(self, *options: Any, **keywords: Any) -> None:
        """Take the place of the state of a connection that is not open yet, the only argument."""
        if keywords or len(options) != 1 or not isinstance(options[0], Conn):
            raise TypeError(f"a {type(self).__name__} is a part of a connection: {SANS_IO}")
        conn: Conn = options[0]
        super().__init__(client=self._client, max_size=conn.read_limit)
        self.late = True
        self._rcvd_first = False
        #: The connection, until its `plumews.compat.websockets.asyncio.connection.Connection` has taken it.
        self.conn: Conn | None = conn

    @property
    def close_rcvd_then_sent(self) -> bool | None:
        """True if the peer closed first, False if we did, ``None`` unless there are both frames."""
        return None if self.close_rcvd is None or self.close_sent is None else self._rcvd_first

    @property
    def close_code(self) -> int | None:
        """Close code of the peer, 1006 without one; ``None`` until the connection is closed."""
        return self.end_code

    @property
    def close_reason(self) -> str | None:
        """Close reason of the peer; ``None`` until the connection is closed."""
        return self.end_reason

    @property
    def close_exc(self) -> ConnectionClosed:
        """Exception that tells the end."""
        return self.closed()

    if not TYPE_CHECKING:  # checkers would take it for a sign that there is any attribute

        def __getattr__(self, name: str) -> NoReturn:
            hint = f": {_HINTS[name]}" if name in _HINTS else ""
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}{hint}")

    # --- called by the connection -----------------------------------------------------------------

    def peer_closed(self, code: int, reason: str) -> None:
        """Note the close frame of the peer, and whether it was the first one."""
        self._rcvd_first = self.close_sent is None
        super().peer_closed(code, reason)
        self.close_rcvd = Close(code, reason)

    def close_frame(self, code: int | None, reason: str = "") -> bytes:
        """Build our close frame."""
        frame = super().close_frame(code, reason)
        self.close_sent = close_of(self.close_sent)
        return frame

    def reply_frame(self) -> bytes:
        """Build our close frame in answer to that of the peer, with its code and its reason."""
        rcvd = self.close_rcvd
        if self.error is not None or rcvd is None or rcvd.code == _NO_STATUS:
            return super().reply_frame()
        return self.close_frame(rcvd.code, rcvd.reason)

    def closed(self) -> ConnectionClosed:
        """Return the exception that tells how the connection ended, or is ending."""
        kind = ConnectionClosedOK if self.ends_well() else ConnectionClosedError
        exc = kind(self.close_rcvd, self.close_sent, self.close_rcvd_then_sent)
        exc.__cause__ = self.error
        return exc


class ServerProtocol(ConnProtocol):
    """State of one connection of a server."""

    __slots__ = ()


_LEGACY: Final = frozenset({"WebSocketServer", "WebSocketServerProtocol", "broadcast", "serve", "unix_serve"})


_missing = missing(__name__, {"ServerConnection": "import it from plumews.compat.websockets.asyncio.server"})

if not TYPE_CHECKING:  # checkers would take it for a sign that there is any name

    def __getattr__(name: str) -> Any:
        if name in _LEGACY:  # their module imports this one
            return getattr(importlib.import_module(f"{__package__}.legacy.server"), name)
        return _missing(name)
