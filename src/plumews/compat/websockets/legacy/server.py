"""Servers with the names of ``websockets.legacy.server``, for programs written before its version 14.

`serve` takes the hooks of the legacy API: ``process_request(path, headers)`` returns a tuple of status, headers and
body, ``select_subprotocol(offered, supported)`` gets both lists, and ``extra_headers`` are added to the response. A
client without a common subprotocol is let in. The connections are those of the new API, which have the attributes of
the legacy one.
"""

from __future__ import annotations

import functools
import http
import inspect
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeAlias

from ..asyncio.connection import broadcast
from ..asyncio.server import Server, ServerConnection
from ..asyncio.server import serve as _serve
from ..datastructures import Headers, HeadersLike
from ..http11 import Request, Response
from ..typing import PathLike, StatusLike

__all__ = [
    "HTTPResponse",
    "HeadersLike",
    "WebSocketServer",
    "WebSocketServerProtocol",
    "broadcast",
    "serve",
    "unix_serve",
]

#: Result of ``process_request``: status, headers and body.
HTTPResponse: TypeAlias = tuple[StatusLike, HeadersLike, bytes]

#: Server of the legacy API.
WebSocketServer = Server


class WebSocketServerProtocol(ServerConnection):
    """Connection of a server of the legacy API. A subclass may override its two hooks."""

    async def process_request(self, path: str, request_headers: Headers) -> Any:
        """Return a tuple of status, headers and body in place of the WebSocket, or ``None``.

        Args:
            path: path of the request, with its query.
            request_headers: headers of the request.
        """
        return None

    def select_subprotocol(self, client_subprotocols: Sequence[Any], server_subprotocols: Sequence[Any]) -> Any:
        """Return the subprotocol that both lists name first, or ``None``.

        Args:
            client_subprotocols: names that the client offers.
            server_subprotocols: names that the server supports.
        """
        common = [name for name in server_subprotocols if name in client_subprotocols]
        places = (client_subprotocols, server_subprotocols)
        return min(common, key=lambda name: sum(names.index(name) for names in places), default=None)


def serve(
    handler: Callable[..., Awaitable[object]],
    host: str | Sequence[str] | None = None,
    port: int | None = None,
    *,
    create_protocol: Callable[..., WebSocketServerProtocol] | None = None,
    extra_headers: Any = None,
    process_request: Callable[..., Any] | None = None,
    select_subprotocol: Callable[..., Any] | None = None,
    subprotocols: Sequence[str] | None = None,
    **options: Any,
) -> Server:
    """Serve WebSockets on TCP, with the hooks of the legacy API.

    Args:
        handler: ``async def handler(websocket)``, or with a second parameter ``path``.
        host: address or name to listen on, or several; ``None`` is all interfaces.
        port: port to listen on; ``None`` and 0 take a free one.
        create_protocol: a subclass of :class:`WebSocketServerProtocol`, or a function that takes its arguments.
        extra_headers: headers of the response, or ``f(path, headers)`` that returns them.
        process_request: ``f(path, headers)``, async or not. A tuple of status, headers and body takes the place of the
            WebSocket.
        select_subprotocol: ``f(offered, supported)`` in place of the method of the connection.
        subprotocols: supported subprotocols.
        options: as in :func:`plumews.compat.websockets.asyncio.server.serve`.

    Raises:
        TypeError, ValueError: as there.
    """
    klass = options.pop("klass", None)
    options["create_connection"] = create_protocol or klass or WebSocketServerProtocol
    if "timeout" in options:
        options.setdefault("close_timeout", options.pop("timeout"))
    for name in ("loop", "read_limit"):
        options.pop(name, None)  # a program cannot observe them
    if subprotocols:
        options["subprotocols"] = subprotocols
        options["select_subprotocol"] = functools.partial(_select, select_subprotocol, tuple(subprotocols))
    if process_request is not None or options["create_connection"] is not WebSocketServerProtocol:
        options["process_request"] = functools.partial(_process_request, process_request)
    if extra_headers is not None:
        options["process_response"] = functools.partial(_add_headers, extra_headers)
    return _serve(handler, host, port, **options)


def unix_serve(handler: Callable[..., Awaitable[object]], path: PathLike | None = None, **options: Any) -> Server:
    """Serve WebSockets on a Unix socket, with the hooks of the legacy API.

    Args:
        handler: as in :func:`serve`.
        path: path of the socket file.
        options: as in :func:`serve`.
    """
    return serve(handler, unix=True, path=path, **options)


def _select(
    hook: Callable[..., Any] | None, supported: Sequence[str], connection: ServerConnection, offered: Sequence[Any]
) -> Any:
    if not offered:
        return None
    if hook is None:
        hook = connection.select_subprotocol  # type: ignore[attr-defined]
    return hook(offered, supported)


async def _process_request(
    hook: Callable[..., Any] | None, connection: ServerConnection, request: Request
) -> Response | None:
    if hook is None:
        hook = connection.process_request  # type: ignore[attr-defined]
    answer = hook(request.path, request.headers)
    if inspect.isawaitable(answer):
        answer = await answer
    if answer is None or isinstance(answer, Response):
        return answer
    status, headers, body = answer
    known = http.HTTPStatus(status)
    return Response(known.value, known.phrase, Headers(headers or ()), body or b"")


def _add_headers(extra: Any, connection: ServerConnection, request: Request, response: Response) -> None:
    if response.status_code == http.HTTPStatus.SWITCHING_PROTOCOLS:
        headers = extra(request.path, request.headers) if callable(extra) else extra
        if headers is not None:
            if "Server" in Headers(headers) and "Server" in response.headers:
                del response.headers["Server"]  # the default one
            for name, value in Headers(headers).raw_items():
                response.headers[name] = value
