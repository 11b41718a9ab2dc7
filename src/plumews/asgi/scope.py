"""Scope of a WebSocket: what an ASGI application is told about the request."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypeAlias
from urllib.parse import unquote

from ..http11.request import address_of

if TYPE_CHECKING:
    from ..conn.connection import Conn
    from ..http11.request import Request
    from .context import AsgiContext

__all__ = ["Extension", "Scope", "build_scope", "note_client", "scope_like"]

Scope: TypeAlias = dict[str, Any]

#: Version of the ASGI specification for WebSockets that is followed.
_SPEC_VERSION: Final = "2.4"

#: Keys of a scope in their order.
_KEYS: Final = (
    *("type", "asgi", "http_version", "scheme", "server", "client", "root_path", "path", "raw_path", "query_string"),
    *("headers", "subprotocols", "state", "extensions"),
)


class Extension(dict[str, Any]):
    """``scope["extensions"]["plumews"]``: its ``"conn"`` is the connection, once it is accepted.

    Its maker sets the attributes: an ``__init__`` would cost more than the object.

    Attributes:
        opening: The connection, from the request on.
        on_open: Function that is called with the open connection, before its first message is read. ``None`` is none.
    """

    __slots__ = ("on_open", "opening")

    opening: Conn
    on_open: Callable[[Conn], None] | None

    def __copy__(self) -> Extension:
        return self  # a copy of the scope has the same connection

    def __deepcopy__(self, memo: object) -> Extension:
        return self

    def __missing__(self, name: str) -> NoReturn:
        if name == "conn":
            raise RuntimeError("the WebSocket is not open yet: await accept() before you use its connection")
        raise KeyError(name)


def scope_like(asgi_version: str, root_path: str) -> Scope:
    """Return the items that all scopes of a server have: a copy costs less than a dict that is filled."""
    asgi = {"version": asgi_version, "spec_version": _SPEC_VERSION}
    return {**dict.fromkeys(_KEYS), "type": "websocket", "asgi": asgi, "http_version": "1.1", "root_path": root_path}


def build_scope(
    context: AsgiContext, conn: Conn, request: Request, subprotocols: list[str], state: dict[str, Any]
) -> Scope:
    """Return the scope of ``request``.

    Args:
        context: state of the server.
        conn: connection, which has a transport.
        request: request.
        subprotocols: those that the client offers.
        state: state of the lifespan, of which each scope has a copy.
    """
    root_path, raw_path = context.root_path, request.raw_path
    path = unquote(raw_path) if "%" in raw_path else raw_path
    client, server = conn._peername, conn._sockname
    extension = Extension()
    extension.opening = conn
    extension.on_open = None
    scope = context.scope.copy()
    scope["asgi"] = scope["asgi"].copy()
    scope["scheme"] = "wss" if request.secure else "ws"
    scope["server"] = server if type(server) is tuple and len(server) == 2 else _server_address(server)
    scope["client"] = client if client is None or len(client) == 2 else client[:2]
    scope["path"] = root_path + path if root_path else path
    scope["raw_path"] = (root_path + raw_path).encode("ascii", "replace") if root_path else raw_path.encode()
    scope["query_string"] = request.query_string.encode()
    scope["headers"] = request._raw_lines()
    scope["subprotocols"] = subprotocols
    scope["state"] = state.copy()
    scope["extensions"] = {"websocket.http.response": {}, "plumews": extension}
    return scope


def note_client(request: Request, scope: Mapping[str, Any]) -> None:
    """Set the address of the client and its use of TLS in ``request``: a middleware knows them from a trusted proxy."""
    client = scope.get("client")
    if client and client is not request.remote_address:  # which is noted
        request.client_address = address_of((str(client[0]),))
    request.secure = scope.get("scheme") in ("wss", "https")


def _server_address(address: Any) -> tuple[str, int | None] | None:
    if isinstance(address, tuple):
        return address[:2]
    if isinstance(address, bytes):
        address = address.decode("utf-8", "surrogateescape")
    return (address, None) if isinstance(address, str) and address else None
