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
from typing import TYPE_CHECKING, Any

from ..asyncio.connection import broadcast
from ..asyncio.server import Server, ServerConnection
from ..asyncio.server import serve as _serve
from ..datastructures import Headers
from ..http11 import Request, Response
from ..refused import missing
from ..typing import PathLike

__all__ = ["WebSocketServer", "WebSocketServerProtocol", "broadcast", "serve", "unix_serve"]

#: Server of the legacy API.
WebSocketServer = Server
#: Connection of the legacy API.
WebSocketServerProtocol = ServerConnection

_SUBCLASS = (
    "subclasses of WebSocketServerProtocol are not supported: use process_request, and create_connection for a "
    "subclass of ServerConnection"
)


def serve(
    handler: Callable[..., Awaitable[object]],
    host: str | Sequence[str] | None = None,
    port: int | None = None,
    *,
    create_protocol: None = None,
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
        create_protocol: refused; there is ``create_connection``.
        extra_headers: headers of the response, or ``f(path, headers)`` that returns them.
        process_request: ``f(path, headers)``, async or not. A tuple of status, headers and body takes the place of the
            WebSocket.
        select_subprotocol: ``f(offered, supported)`` in place of the default choice.
        subprotocols: supported subprotocols.
        options: as in :func:`plumews.compat.websockets.asyncio.server.serve`.

    Raises:
        TypeError, ValueError: as there.
    """
    if create_protocol is not None or options.pop("klass", None) is not None:
        raise TypeError(_SUBCLASS)
    if "timeout" in options:
        options.setdefault("close_timeout", options.pop("timeout"))
    if options.pop("read_limit", None) is not None:
        pass  # a size of asyncio's buffer, which no program can observe
    supported = tuple(subprotocols or ())
    if supported or select_subprotocol is not None:
        options["select_subprotocol"] = functools.partial(_select, select_subprotocol, supported)
    if process_request is not None:
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
    if not offered or not supported:
        return None
    if hook is not None:
        return hook(offered, supported)
    common = [name for name in supported if name in offered]
    return min(common, key=lambda name: offered.index(name) + supported.index(name), default=None)


async def _process_request(hook: Callable[..., Any], connection: ServerConnection, request: Request) -> Response | None:
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
            for name, value in Headers(headers).raw_items():
                response.headers[name] = value


if not TYPE_CHECKING:  # checkers would take it for a sign that there is any name
    __getattr__ = missing(__name__, {"HTTPResponse": "it is a tuple of status, headers and body"})
