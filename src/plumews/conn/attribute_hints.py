"""Hints for attributes that a connection does not have but other WebSocket packages do.

The names are those of the `websockets` package (its new and its legacy API), aiohttp, picows and Starlette. Each is a
descriptor on the class, so existing attributes cost nothing more, and type checkers know none of the names. Invariant:
each raises ``AttributeError`` on a connection, so ``hasattr`` and ``getattr`` with a default work.
"""

from __future__ import annotations

import sys
from typing import Any, Final, NoReturn

from ..validation import near_name

__all__ = ["MissingAttribute", "add_hints", "missing_blocking", "missing_name", "refuse_attribute"]

_METADATA: Final = "use conn.metadata, a dict for what belongs to the connection"
_OPTION: Final = "it is an option of plumews.serve()"
_ADDRESS: Final = "use conn.remote_address, or conn.client_address for what is behind a trusted proxy"
_CLOSING: Final = "use conn.close(code, reason), conn.close_nowait(code, reason) or conn.abort()"
_OPENED: Final = (
    "the opening handshake is done when a handler runs; conn.request and conn.response have both sides of it"
)
_PINGS: Final = "pings are answered and sent by the connection; conn.ping() sends one of your own"
_RECEIVE: Final = "use conn.recv(), which returns str for text and bytes for binary"
_ITERATE: Final = "use `async for message in conn`"
_HUB: Final = "rooms belong to a plumews.Hub"
_PIECES: Final = "conn.send() takes an iterator or an asynchronous iterator for a message in pieces"
_STATE: Final = "use conn.state, or conn.closed"
_ENDED: Final = "use conn.close_code and conn.close_reason"
_CALLBACK: Final = "it is an option of plumews.serve(): a plain function that gets the connection"

#: Hint for each missing attribute.
_HINTS: Final = {
    # --- the request
    "path": "use conn.request.path",
    "raw_path": "use conn.request.raw_path",
    **dict.fromkeys(("url", "uri", "rel_url", "target", "resource"), "use conn.request.target"),
    **dict.fromkeys(("query", "query_params", "query_string", "path_params"), "use conn.request.query"),
    **dict.fromkeys(("headers", "request_headers", "raw_request_headers", "extra_headers"), "use conn.request.headers"),
    "cookies": 'use conn.request.headers.get("Cookie")',
    "response_headers": "use conn.response.headers",
    "origin": 'use conn.request.headers.get("Origin")',
    "host": 'use conn.request.headers.get("Host"), conn.local_address or conn.remote_address',
    "port": "use conn.local_address or conn.remote_address",
    **dict.fromkeys(("secure", "is_secure"), "use conn.request.secure"),
    **dict.fromkeys(("handshake", "accept", "prepare", "prepared", "can_prepare"), _OPENED),
    **dict.fromkeys(("username", "user", "current_user", "auth"), "use conn.user_info"),
    "user_id": "use conn.user_info.id, and conn.user_info is None without a token",
    "protocol": "use conn.subprotocol for the subprotocol",
    "ws_protocol": "use conn.subprotocol",
    # --- the transport
    **dict.fromkeys(
        ("transport", "underlying_transport"), 'use conn.get_extra_info(name), such as "socket" or "cipher"'
    ),
    **dict.fromkeys(("socket", "sock", "fileno", "stream"), 'use conn.get_extra_info("socket")'),
    **dict.fromkeys(("reader", "writer"), "use conn.recv() and conn.send()"),
    **dict.fromkeys(("peername", "client", "remote", "address", "addr", "ip", "remote_ip", "getpeername"), _ADDRESS),
    **dict.fromkeys(("sockname", "getsockname"), "use conn.local_address"),
    **dict.fromkeys(("peercert", "getpeercert"), 'use conn.get_extra_info("peercert")'),
    "cipher": 'use conn.get_extra_info("cipher")',
    "ssl_object": 'use conn.get_extra_info("ssl_object")',
    **dict.fromkeys(("loop", "get_loop"), "use asyncio.get_running_loop()"),
    # --- state and end
    **dict.fromkeys(("open", "is_open", "connected", "connection_open"), "use `not conn.closed`"),
    **dict.fromkeys(("client_state", "application_state", "ready_state", "readyState"), _STATE),
    **dict.fromkeys(("close_rcvd", "close_sent", "close_rcvd_then_sent", "close_exc", "close_handshake"), _ENDED),
    **dict.fromkeys(("exception", "connection_exc", "connection_closed_exc"), _ENDED),
    **dict.fromkeys(("disconnect", "send_close", "fail_connection", "close_connection", "close_transport"), _CLOSING),
    **dict.fromkeys(("terminate", "force_close", "close_socket", "shutdown"), _CLOSING),
    **dict.fromkeys(("wait_disconnected", "wait_for_connection_lost"), "use conn.wait_closed()"),
    "ensure_open": "use conn.closed; conn.send() and conn.recv() raise plumews.ConnectionClosed",
    # --- messages
    **dict.fromkeys(("receive", "receive_text", "receive_str", "receive_bytes", "read", "recv_messages"), _RECEIVE),
    **dict.fromkeys(("receive_json", "recv_json", "read_json"), "use json.loads(await conn.recv())"),
    **dict.fromkeys(("iter_text", "iter_bytes", "messages"), _ITERATE),
    "iter_json": f"{_ITERATE}, and json.loads(message)",
    "recv_streaming": "use conn.read_stream()",
    **dict.fromkeys(("send_text", "send_str"), "use conn.send(text) or conn.write_text(text)"),
    **dict.fromkeys(("send_bytes", "send_binary"), "use conn.send(data) or conn.write_binary(data)"),
    **dict.fromkeys(("send_json", "send_json_bytes"), "use conn.write_json(obj)"),
    **dict.fromkeys(("send_frame", "write_frame", "send_data", "write"), f"use conn.send(); {_PIECES}"),
    **dict.fromkeys(
        ("pong", "send_ping", "send_pong", "keepalive", "keepalive_ping", "pings", "pending_pings"), _PINGS
    ),
    "broadcast": "use plumews.broadcast(connections, message), or hub.broadcast_room(room, message)",
    **dict.fromkeys(("join", "leave", "emit", "publish", "to"), f"{_HUB}: hub.join(room, conn), hub.broadcast_room()"),
    **dict.fromkeys(("room", "rooms"), f"{_HUB}: hub.rooms_of(conn); serve_rooms sets conn.metadata['room']"),
    # --- settings
    "max_size": "use conn.read_limit",
    "ping_interval": "use conn.ping_period",
    "ping_timeout": "use conn.pong_wait, the seconds of silence at which the connection is dead",
    **dict.fromkeys(("close_timeout", "open_timeout", "max_queue", "queue_size", "subprotocols", "origins"), _OPTION),
    **dict.fromkeys(("available_subprotocols", "process_request", "process_response", "select_subprotocol"), _OPTION),
    **dict.fromkeys(("write_limit", "recv_bufsize"), "plumews.serve() has queue_size and queue_bytes"),
    **dict.fromkeys(("extensions", "compress", "enable_compression"), "use conn.compression"),
    **dict.fromkeys(("on_message", "on_open", "on_close"), _CALLBACK),
    **dict.fromkeys(("server", "ws_server"), "use what `async with plumews.serve(...) as server` gives"),
    **dict.fromkeys(("ws_handler", "handler"), _OPTION),
    **dict.fromkeys(
        ("is_client", "is_client_side", "side"), "a connection of plumews.serve() is always the server's side"
    ),
    # --- an application's own
    **dict.fromkeys(("data", "context", "ctx", "session", "scope", "app", "extra", "userdata", "user_data"), _METADATA),
    **dict.fromkeys(("name", "nickname", "tags", "info", "attributes"), _METADATA),
}

#: Hint for each missing attribute of a blocking connection. websocket-client and `websockets` have many of the names.
_BLOCKING_HINTS: Final = {
    **dict.fromkeys(("settimeout", "gettimeout", "timeout", "sock_opt"), "give timeout= to conn.recv() and the others"),
    **dict.fromkeys(("receive", "recv_data", "recv_frame", "read", "recv_messages"), _RECEIVE),
    **dict.fromkeys(("recv_json", "read_json", "receive_json"), "use json.loads(conn.recv())"),
    **dict.fromkeys(("iter_text", "iter_bytes", "messages"), "use `for message in conn`"),
    **{name: _HINTS[name] for name in ("recv_streaming", "send_text", "send_str", "send_bytes", "send_binary")},
    **{name: _HINTS[name] for name in ("send_json", "response_headers", "connected", "open", "origin", "protocol")},
    **dict.fromkeys(("send_frame", "send_data", "write"), "use conn.send(), which takes an iterator of pieces, too"),
    **dict.fromkeys(("pong", "send_ping", "send_pong"), _PINGS),
    **dict.fromkeys(("headers", "getheaders"), "use conn.response.headers"),
    **dict.fromkeys(("status", "getstatus"), "use conn.response.status"),
    **dict.fromkeys(("getsubprotocol", "handshake_response"), "use conn.subprotocol and conn.response"),
    **dict.fromkeys(("shutdown", "send_close", "terminate"), "use conn.close(code, reason) or conn.abort()"),
    **dict.fromkeys(("ping_interval", "ping_timeout", "max_size"), "it is an option of plumews.sync.connect()"),
}

#: Attributes of a connection that can be set.
_SETTABLE: Final = ("ping_period", "pong_wait", "read_limit", "user_info")

_REFUSING: Final = "return conn.respond(status, text) from process_request, or raise plumews.Refused"

#: Hint for each missing name of the package.
_PACKAGE_HINTS: Final = {
    **dict.fromkeys(
        ("exceptions", "asyncio", "legacy"),
        "all names are in plumews itself, such as plumews.Refused; plumews.compat.websockets has those of websockets",
    ),
    **dict.fromkeys(
        ("ClientConnection", "ServerConnection", "WebSocketServerProtocol", "Connection", "WebSocket"),
        "use plumews.Conn",
    ),
    "WebSocketServer": "use plumews.Server",
    "WebSocketDisconnect": "use plumews.ConnectionClosed",
    "AbortHandshake": _REFUSING,
    **dict.fromkeys(("basic_auth", "basic_auth_protocol_factory"), f"{_REFUSING}; for tokens there is authenticator="),
    **dict.fromkeys(("Origin", "Subprotocol"), "it is a plain str here"),
}


def missing_name(name: str) -> AttributeError:
    """Return the ``AttributeError`` for a missing name of the package, with its hint."""
    hint = f": {_PACKAGE_HINTS[name]}" if name in _PACKAGE_HINTS else ""
    return AttributeError(f"module 'plumews' has no attribute {name!r}{hint}", name=name, obj=sys.modules["plumews"])


def missing_blocking(conn: object, name: str) -> AttributeError:
    """Return the ``AttributeError`` for a missing attribute of a blocking connection, with its hint."""
    hint = _BLOCKING_HINTS.get(name) or near_name(name, [known for known in dir(type(conn)) if known[0] != "_"])
    text = f"a plumews.sync.Conn has no attribute {name!r}{f': {hint}' if hint else ''}"
    return AttributeError(text, name=name, obj=conn)


class MissingAttribute:
    """Descriptor of an attribute that a connection does not have; ``__doc__`` is the hint."""

    def __init__(self, name: str, hint: str) -> None:
        self.__doc__ = f"Not here: {hint}."
        self._name = name
        self._hint = hint

    def __get__(self, instance: object, owner: type | None = None) -> Any:
        if instance is None:
            return self
        own = getattr(instance, "__dict__", {})  # of a subclass, whose own attribute comes first
        if self._name in own:
            return own[self._name]
        raise AttributeError(f"{self}: {self._hint}")

    def __set__(self, instance: object, value: object) -> None:
        own = getattr(instance, "__dict__", None)
        if own is None:
            self.set()
        own[self._name] = value

    def __delete__(self, instance: object) -> None:
        if getattr(instance, "__dict__", {}).pop(self._name, self) is self:
            raise AttributeError(f"{self}: {self._hint}")

    def __str__(self) -> str:
        return f"a plumews.Conn has no attribute {self._name!r}"

    def set(self) -> NoReturn:
        """Raise the ``AttributeError`` for setting the attribute."""
        raise AttributeError(f"{self}: {self._hint}; for one of your own use conn.metadata[{self._name!r}]") from None


def refuse_attribute(conn: object, name: str) -> None:
    """Raise ``AttributeError`` with a hint if ``conn`` has no attribute ``name``. Return if it is read-only."""
    found = getattr(type(conn), name, None)
    if isinstance(found, MissingAttribute):
        found.set()
    if found is None:
        text = f"a plumews.Conn takes no attribute {name!r} of your own: use conn.metadata[{name!r}]"
        near = near_name(name, _SETTABLE)
        raise AttributeError(f"{text} ({near})" if near else text) from None


def add_hints(cls: type) -> None:
    """Add the descriptors to a class."""
    for name, hint in _HINTS.items():
        setattr(cls, name, MissingAttribute(name, hint))
