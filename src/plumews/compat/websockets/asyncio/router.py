"""Handlers by path with the functions of ``websockets.asyncio.router``, over ``werkzeug.routing``.

``werkzeug`` is imported when :func:`route` is called. A native server has ``routes`` for plain HTTP, and its handler
sees ``conn.request.path``.
"""

from __future__ import annotations

import http
import importlib
import ssl as ssl_module
import urllib.parse
from collections.abc import Awaitable, Callable
from typing import Any, Literal

from ..http11 import Request, Response
from ..typing import PathLike
from .server import Server, ServerConnection, serve

__all__ = ["Router", "route", "unix_route"]


class Router:
    """Finder of the handler of a request.

    Args:
        url_map: ``werkzeug.routing.Map`` whose endpoints are handlers.
        server_name: name of the server in redirects (default: that of the ``Host`` header).
        url_scheme: scheme of redirects, ``"ws"`` or ``"wss"``.
    """

    def __init__(self, url_map: Any, server_name: str | None = None, url_scheme: str = "ws") -> None:
        self.url_map = url_map
        self.server_name = server_name
        self.url_scheme = url_scheme
        for rule in url_map.iter_rules():
            rule.websocket = True

    def get_server_name(self, connection: ServerConnection, request: Request) -> str:
        """Return the name of the server in redirects."""
        return request.headers["Host"] if self.server_name is None else self.server_name

    def redirect(self, connection: ServerConnection, url: str) -> Response:
        """Return the response that redirects to ``url``."""
        response = connection.respond(http.HTTPStatus.FOUND, f"Found at {url}")
        response.headers["Location"] = url
        return response

    def not_found(self, connection: ServerConnection) -> Response:
        """Return the response for a path that has no handler."""
        return connection.respond(http.HTTPStatus.NOT_FOUND, "Not Found")

    def route_request(self, connection: ServerConnection, request: Request) -> Response | None:
        """Find the handler of a request, as a ``process_request`` does."""
        routing = importlib.import_module("werkzeug.routing")
        not_found = importlib.import_module("werkzeug.exceptions").NotFound
        adapter = self.url_map.bind(server_name=self.get_server_name(connection, request), url_scheme=self.url_scheme)
        parsed = urllib.parse.urlparse(request.path)
        try:
            handler, parameters = adapter.match(path_info=parsed.path, query_args=parsed.query)
        except routing.RequestRedirect as exc:
            return self.redirect(connection, exc.new_url)
        except not_found:
            return self.not_found(connection)
        connection.handler, connection.handler_kwargs = handler, parameters
        return None

    async def handler(self, connection: ServerConnection) -> object:
        """Run the handler that was found."""
        return await connection.handler(connection, **connection.handler_kwargs)


def route(
    url_map: Any,
    *args: Any,
    server_name: str | None = None,
    ssl: ssl_module.SSLContext | Literal[True] | None = None,
    create_router: Callable[..., Router] | None = None,
    **kwargs: Any,
) -> Server:
    """Serve WebSockets on TCP, with a handler for each pattern of paths.

    Args:
        url_map: ``werkzeug.routing.Map``; each endpoint is ``async def handler(websocket, **parameters)``.
        args: ``host`` and ``port``.
        server_name: name of the server in redirects (default: that of the ``Host`` header).
        ssl: context of TLS; True if a proxy ends it.
        create_router: :class:`Router`, or a subclass.
        kwargs: options of :func:`plumews.compat.websockets.asyncio.server.serve`.

    Raises:
        ImportError: ``werkzeug`` is not installed.
    """
    try:
        importlib.import_module("werkzeug.routing")
    except ImportError:
        raise ImportError("route() requires werkzeug") from None
    if ssl is not None and ssl is not True:
        kwargs["ssl"] = ssl
    router = (create_router or Router)(url_map, server_name, "ws" if ssl is None else "wss")
    before = kwargs.pop("process_request", None)

    async def process_request(connection: ServerConnection, request: Request) -> Response | None:
        response = before(connection, request)
        if isinstance(response, Awaitable):
            response = await response
        return router.route_request(connection, request) if response is None else response

    chosen = router.route_request if before is None else process_request
    return serve(router.handler, *args, process_request=chosen, **kwargs)


def unix_route(url_map: Any, path: PathLike | None = None, **kwargs: Any) -> Server:
    """Serve WebSockets on a Unix socket, with a handler for each pattern of paths.

    Args:
        url_map: as in :func:`route`.
        path: path of the socket file.
        kwargs: options of :func:`route`.
    """
    return route(url_map, unix=True, path=path, **kwargs)
