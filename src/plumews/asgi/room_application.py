"""Room server as an ASGI application: its WebSockets, its page and its other HTTP routes, below any mount.

The checks, endpoints and routes are those of `serve_rooms`. Paths are matched behind ``root_path``, and the page has
relative addresses only, so the application works where it is mounted. It needs no lifespan: each WebSocket is one call
of the application, and its connection leaves the hub when the server ends it.

Invariant: a request that cannot be served is answered with a status. It is never an exception for the server.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Coroutine, Iterable, MutableMapping
from typing import TYPE_CHECKING, Any, Final, Protocol

from ..auth.credentials import AuthKeywords
from ..auth.interfaces import RoomAuth
from ..conn.handlers import cancel
from ..conn.logs import log_extra
from ..constants import CloseCode, ErrorCode
from ..errors import InvalidHandshake
from ..http11.handshake import check_upgrade, choose_subprotocol, offered_subprotocols, refusal
from ..http11.headers import Headers, HeadersLike
from ..http11.models import Response
from ..http11.origin import AllowedOrigin, check_origin
from ..hub.hub import Hub
from ..room_server.context import room_context
from ..room_server.options import RoomKeywords
from ..server.context import ServerContext, quoted_path
from ..server.hooks import SelectSubprotocol, selected_subprotocol
from ..server.routes import Route, Routes, answer_options, answer_route, answer_with_body
from ..validation import unknown_option
from .connection import opening_events, request_of
from .room_admission import decided, too_late

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from ..conn.connection import Conn
    from ..http11.request import Request
    from ..server.endpoints import Endpoint
    from .event_transport import Receive, Send
    from .scope import Scope

__all__ = ["AsgiApplication", "rooms"]

logger = logging.getLogger("plumews.server")


class RoomsKeywords(RoomKeywords, AuthKeywords, total=False):
    """Keywords of :func:`rooms`: see :func:`plumews.serve_rooms`."""

    allowed_hosts: Iterable[str] | None
    extra_headers: HeadersLike
    open_timeout: float
    origins: Iterable[AllowedOrigin] | None
    routes: Routes
    select_subprotocol: SelectSubprotocol | None
    subprotocols: Iterable[str] | None


class AsgiApplication(Protocol):
    """ASGI application."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send, /) -> None: ...


#: All keywords. The annotations of a class do not name those that it inherits.
_KEYWORDS: Final = {name for kind in (RoomsKeywords, RoomKeywords, AuthKeywords) for name in kind.__annotations__}

#: Options that the server has, and not its applications.
_OF_SERVER: Final = "PlumeProtocol.with_options(...) has the options of connections, and the server its own"


def rooms(hub: Hub, auth: RoomAuth | None, **options: Unpack[RoomsKeywords]) -> AsgiApplication:
    """Return the rooms of ``hub`` as an ASGI application, to run it or to mount it in another one.

    It serves what :func:`plumews.serve_rooms` serves: ``/ws``, ``/members``, ``/healthz``, and with ``page=True`` the
    page, each below its mount. The hub belongs to the event loop that runs the first request. As the application of a
    server, it also stops the hub with the server. A mounted application is not told of that: its connections are closed
    with the server, and leave the hub then.

    Args:
        hub: hub that connections join.
        auth: passwords and tokens, as in :func:`plumews.serve_rooms`.
        options: the options of :func:`plumews.serve_rooms` about rooms and authentication, and ``allowed_hosts``,
            ``extra_headers``, ``open_timeout``, ``origins``, ``routes``, ``select_subprotocol`` and ``subprotocols``.

    Raises:
        TypeError, ValueError: an argument is of the wrong kind, or contradicts another one.
    """
    unknown = [unknown_option(name, sorted(_KEYWORDS), {}) for name in sorted(options.keys() - _KEYWORDS)]
    if unknown:
        raise TypeError(f"unknown option {', '.join(unknown)}: {_OF_SERVER}")
    context, _ = room_context(hub, auth, options)
    return _Rooms(hub, context)


class _Rooms:
    """Room server as an application."""

    def __init__(self, hub: Hub, context: ServerContext) -> None:
        self._hub = hub
        self._context = context
        self._used = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        kind = scope["type"]
        if kind == "lifespan":
            await self._live(receive, send)
            return
        if not self._used:
            self._used = True
            for reason in filter(None, (doubt() for doubt in self._context.doubts)):
                logger.warning("nobody can come in: %s", reason)
        if kind == "websocket":
            await self._serve(scope, receive, send)
        elif kind == "http":
            response = await self._answer(scope, receive)
            await _respond(scope, response, send)

    async def _live(self, receive: Receive, send: Send) -> None:
        """Follow the lifespan of the server, which only the application of a server is told."""
        while True:
            event = await receive()
            if event["type"] == "lifespan.startup":
                await send({"type": "lifespan.startup.complete"})
            elif event["type"] == "lifespan.shutdown":
                await self._hub.stop()
                await send({"type": "lifespan.shutdown.complete"})
                return

    # --- HTTP -------------------------------------------------------------------------------------

    async def _answer(self, scope: Scope, receive: Receive) -> Response:
        path = _path_in(scope)
        if not path:  # the addresses of the page are relative to the mount with its slash
            return Response(308, [("Location", f"./{quoted_path(scope['path']).rpartition('/')[2]}/")])
        try:
            request = request_of(scope, quoted_path(path))
            return await asyncio.wait_for(self._answer_request(request, receive), self._context.open_timeout)
        except asyncio.TimeoutError:
            return self._refuse(too_late())
        except InvalidHandshake as exc:
            return self._refuse(exc)
        except Exception:
            logger.exception("a route failed")
            return self._refuse(InvalidHandshake("internal server error", status=500, code=ErrorCode.INTERNAL_ERROR))

    async def _answer_request(self, request: Request, receive: Receive) -> Response:
        context = self._context
        context.check_host(request)
        route = context.routes.get(request.raw_path)
        if request.method == "OPTIONS" and not (isinstance(route, Route) and "OPTIONS" in route.methods):
            if route is None:
                context.endpoint(request.raw_path)  # else 404
            return answer_options(route)
        if isinstance(route, Route):
            route.check_method(request)
            if request.method not in ("GET", "HEAD"):
                check_origin(request, context.origins, request.secure)
            if "Transfer-Encoding" in request.headers:
                raise InvalidHandshake("a body needs a Content-Length", status=411)
            return await answer_with_body(route, request, _Body(receive))
        response = answer_route(context.routes, request)
        if response is None:
            # A page cannot read why its WebSocket was refused. It may ask by plain HTTP.
            endpoint = context.endpoint(request.raw_path)
            check_origin(request, context.origins, request.secure)
            check = getattr(endpoint, "check", None)
            if check is not None:
                check(request)
            check_upgrade(request)
            raise InvalidHandshake("the server has not upgraded the request", status=426, code=ErrorCode.BAD_UPGRADE)
        return response

    def _refuse(self, exc: InvalidHandshake, request_id: str | None = None) -> Response:
        self._context.requests.refused.add(exc.code)
        logger.info("refused %d %s", exc.status, exc.code, extra={"kind": f"refused {exc.code}"})
        return refusal(exc, request_id)

    # --- WebSockets -------------------------------------------------------------------------------

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        context = self._context
        extension, receive, send = opening_events(scope, receive, send)
        conn = extension.opening
        await receive()  # websocket.connect
        due = conn._loop.time() + context.open_timeout
        try:
            endpoint = self._endpoint_of(scope, conn)
            admission = endpoint.admit(conn, conn.request)
            if not await decided(conn, admission, due - conn._loop.time()):
                return  # the client has gone
            subprotocol = self._subprotocol(conn)
        except InvalidHandshake as exc:
            await _deny(scope, self._refuse(exc, str(conn.id)), send)
            return
        except Exception:
            logger.exception("a handshake failed", extra=log_extra(conn))
            failed = InvalidHandshake("websocket handshake failed", status=500, code=ErrorCode.HANDSHAKE_FAILED)
            await _deny(scope, self._refuse(failed, str(conn.id)), send)
            return
        work: list[Coroutine[Any, Any, None]] = []

        def opened(conn: Conn) -> None:
            context.requests.opened += 1
            try:
                coroutine = endpoint.opened(conn, due)
            except Exception:
                logger.exception("opening a connection failed", extra=log_extra(conn))
                conn.close_nowait(CloseCode.INTERNAL_ERROR, "the handler failed")
            else:
                work.extend(() if coroutine is None else (coroutine,))

        extension.on_open = opened
        headers = _encoded(Headers(context.options.extra_headers))
        try:
            await send({"type": "websocket.accept", "subprotocol": subprotocol, "headers": headers})
        except OSError:
            return  # the client has gone
        await self._run(conn, work)

    def _endpoint_of(self, scope: Scope, conn: Conn) -> Endpoint:
        """Return the endpoint of the request of ``conn``."""
        context, request = self._context, conn.request
        context.check_host(request)
        endpoint = context.endpoint(quoted_path(_path_in(scope)))
        check_origin(request, context.origins, request.secure)
        offered_subprotocols(request)
        return endpoint

    def _subprotocol(self, conn: Conn) -> str | None:
        context = self._context
        if context.select_subprotocol is not None:
            return selected_subprotocol(context.select_subprotocol, conn, conn.request)
        return choose_subprotocol(offered_subprotocols(conn.request), context.subprotocols)

    async def _run(self, conn: Conn, work: list[Coroutine[Any, Any, None]]) -> None:
        """Run the handler, and wait until the connection is gone: then the server may end it."""
        tasks = {self._context.start(each) for each in work}
        try:
            if tasks:
                await asyncio.wait(tasks)
            await conn.wait_closed()
        except asyncio.CancelledError:  # the server stops, and waits no longer
            for task in tasks:
                cancel(task)
            if tasks:
                await asyncio.wait(tasks)
            conn.abort()
            raise


class _Body:
    """Body of one request, as the server gives it."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive

    async def read(self, length: int, *, invite: bool) -> bytes:
        """Return ``length`` bytes. The server itself invites a client that waits for 100 Continue."""
        body = bytearray()
        while len(body) < length:
            event = await self._receive()
            if event["type"] == "http.disconnect":
                raise InvalidHandshake("the request is not complete")
            body += event.get("body", b"")
            if not event.get("more_body", False):
                break
        return bytes(body[:length])


def _path_in(scope: Scope) -> str:
    """Return the path behind the mounts of ``scope``, empty for a mount without its slash.

    ``root_path`` has the mounts behind the root path of the server. Most servers put that before the path, too.
    """
    path: str = scope["path"]
    root: str = scope.get("root_path") or ""
    for mount in (root, root.removeprefix(scope.get("app_root_path") or "")):  # the second is a key of Starlette
        mount = mount.rstrip("/")
        if mount and path.startswith(mount) and path[len(mount) :][:1] in ("", "/"):
            return path[len(mount) :]
    return path


async def _respond(scope: Scope, response: Response, send: Send) -> None:
    """Send ``response`` to an HTTP request."""
    if scope.get("http_version", "1.1") not in ("1.0", "1.1"):
        response.headers.pop("Connection", None)  # RFC 9113 section 8.2.2
    with contextlib.suppress(OSError):  # the client has gone
        await _send_response(response, send, "http.response", body=scope["method"] != "HEAD")


async def _deny(scope: Scope, response: Response, send: Send) -> None:
    """Send ``response`` in place of the WebSocket, or 403 where the server allows no other."""
    response.headers.pop("Connection", None)  # the server has its own
    with contextlib.suppress(OSError):  # the client has gone
        if "websocket.http.response" in (scope.get("extensions") or {}):
            await _send_response(response, send, "websocket.http.response")
            await asyncio.sleep(0)  # uvicorn's own class logs an error if we return before it has closed the transport
        else:
            await send({"type": "websocket.close", "code": int(CloseCode.FORBIDDEN)})


def _encoded(headers: Headers) -> list[tuple[bytes, bytes]]:
    """Return ``headers`` as events have them."""
    return [(name.lower().encode(), value.encode("latin-1")) for name, value in headers.raw_items()]


async def _send_response(response: Response, send: Send, prefix: str, *, body: bool = True) -> None:
    headers = _encoded(response.headers)
    if response.status not in (204, 304) and "Content-Length" not in response.headers:
        headers.append((b"content-length", b"%d" % len(response.body)))
    start: MutableMapping[str, Any] = {"type": f"{prefix}.start", "status": response.status, "headers": headers}
    await send(start)
    await send({"type": f"{prefix}.body", "body": response.body if body else b""})
