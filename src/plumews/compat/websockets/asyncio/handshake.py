"""Opening handshake of the `websockets` package, as hooks of :func:`plumews.serve`.

`Handshakes` makes the connection object when a request has arrived, calls the hooks of the program with it, and refuses
requests with the status and the text that clients of `websockets` servers get. The 101 is that of plumews. An
exception of a hook is logged, and answered with 500.
"""

from __future__ import annotations

import base64
import binascii
import email.utils
import http
import logging
import re
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from .... import errors
from ....conn.connection import Conn
from ....constants import CloseCode
from ....http11 import models as native
from ....http11.handshake import check_upgrade, is_handshake_header, offered_subprotocols
from ....http11.headers import Headers as NativeHeaders
from ....http11.headers import parse_tokens
from ..datastructures import Headers, MultipleValuesError
from ..exceptions import (
    ConnectionClosed,
    InvalidHandshake,
    InvalidHeader,
    InvalidHeaderValue,
    InvalidMessage,
    InvalidMethod,
    InvalidOrigin,
    InvalidProtocol,
    InvalidUpgrade,
    NegotiationError,
)
from ..http11 import Request, Response, native_response, response_of
from ..server import ServerProtocol
from ..typing import StatusLike

if TYPE_CHECKING:
    from .server import ServerConnection

__all__ = ["Handshakes", "plain_response"]

#: Result of a hook.
_Answer: TypeAlias = "Response | None"

_FAILED: Final = "Failed to open a WebSocket connection"
_SEE_LOG: Final = f"{_FAILED}.\nSee server log for more information.\n"
_BROWSER: Final = "\nYou cannot access a WebSocket server directly with a browser. You need a WebSocket client.\n"

#: Bytes of a key (RFC 6455 section 4.1).
_KEY_SIZE: Final = 16


def plain_response(status: StatusLike, text: str) -> Response:
    """Return a response with ``text`` that ends the connection."""
    known = http.HTTPStatus(status)
    body = text.encode()
    headers = Headers(
        [
            ("Date", email.utils.formatdate(usegmt=True)),
            ("Connection", "close"),
            ("Content-Length", str(len(body))),
            ("Content-Type", "text/plain; charset=utf-8"),
        ]
    )
    return Response(known.value, known.phrase, headers, body)


class Handshakes:
    """Handshakes and handlers of one server.

    Args:
        handler: coroutine function of the program, which gets the connection.
        create: makes the connection object from the state of a :class:`plumews.Conn`.
        logger: logger of the server.
        origins: acceptable origins, ``None`` for any.
        subprotocols: supported subprotocols; a client must offer one of them.
        select_subprotocol: hook that chooses the subprotocol in place of ``subprotocols``.
        process_request: hook for the request.
        process_response: hook for the response.
        server_header: value of the ``Server`` header, ``None`` for no such header.
    """

    def __init__(
        self,
        *,
        handler: Callable[[ServerConnection], Awaitable[object]],
        create: Callable[[ServerProtocol], ServerConnection],
        logger: Any,
        origins: Sequence[str | re.Pattern[str] | None] | None,
        subprotocols: Sequence[str],
        select_subprotocol: Callable[[Any, Sequence[Any]], Any] | None,
        process_request: Callable[[Any, Request], Any] | None,
        process_response: Callable[[Any, Request, Response], Any] | None,
        server_header: str | None,
    ) -> None:
        self._handler = handler
        self._create = create
        self._logger = logger
        self._origins = None if origins is None else tuple(origins)
        self._subprotocols = tuple(subprotocols)
        self._select_subprotocol = select_subprotocol
        self._process_request = process_request
        self._process_response = process_response
        self._server_header = server_header
        #: Connection objects from the request to the end of the connection.
        self.connections: dict[Conn, ServerConnection] = {}

    def options(self) -> dict[str, Any]:
        """Return the hooks as options of :func:`plumews.serve`."""
        options: dict[str, Any] = {"process_request": self.process_request}
        if self._process_response is not None:
            options["process_response"] = self.process_response
        if self._subprotocols or self._select_subprotocol is not None:
            options["select_subprotocol"] = lambda conn, offered: conn.subprotocol  # chosen before
        if self._server_header is not None:
            options["extra_headers"] = [("Server", self._server_header)]
        return options

    # --- the handler ------------------------------------------------------------------------------

    async def handle(self, conn: Conn) -> None:
        """Run the handler of the program. An exception closes with 1011 and is logged."""
        connection = self.connections[conn]
        self._note(connection, "connection open")
        code = CloseCode.NORMAL_CLOSURE
        try:
            await self._handler(connection)
        except Exception as exc:
            if not (isinstance(exc, ConnectionClosed) and conn.closed):  # the client has gone: that is no failure
                connection.logger.error("connection handler failed", exc_info=True)
                code = CloseCode.INTERNAL_ERROR
        if connection._replaces("close"):
            await connection.close(code)
        elif code is not CloseCode.NORMAL_CLOSURE:
            conn.close_nowait(code)

    def _gone(self, conn: Conn) -> None:
        connection = self.connections.pop(conn, None)
        if connection is not None:
            self._note(connection, "connection closed")

    def _note(self, connection: ServerConnection, text: str, *args: object) -> None:
        if self._logger.isEnabledFor(logging.INFO):
            connection.logger.info(text, *args)

    # --- the request ------------------------------------------------------------------------------

    def process_request(self, conn: Conn, request: native.Request) -> Any:
        """Make the connection object, and decide on the request."""
        protocol = ServerProtocol(conn)
        conn._rules = protocol
        conn._parser = protocol.parser
        connection = self.connections[conn] = self._create(protocol)
        conn.add_close_callback(self._gone)
        if self._process_request is None:
            return self._decide(connection, request, None)
        asked = connection.request
        assert asked is not None
        before = list(asked.headers.raw_items())
        try:
            answer = self._process_request(connection, asked)
        except Exception:
            answer = self._failed(connection, "process_request failed")
        if isinstance(answer, Awaitable):
            return self._decide_later(connection, request, answer, before)
        return self._decide(connection, request, answer, before)

    async def _decide_later(
        self,
        connection: ServerConnection,
        request: native.Request,
        work: Awaitable[_Answer],
        before: list[tuple[str, str]],
    ) -> native.Response | None:
        try:
            answer = await work
        except Exception:
            answer = self._failed(connection, "process_request failed")
        return self._decide(connection, request, answer, before)

    def _decide(
        self,
        connection: ServerConnection,
        request: native.Request,
        answer: _Answer,
        before: list[tuple[str, str]] | None = None,
    ) -> native.Response | None:
        """Return the response that takes the place of the WebSocket, or ``None``."""
        judged = answer is None
        if answer is None:
            if before is not None and connection.request is not None:
                headers = connection.request.headers
                if before != list(headers.raw_items()):  # the hook has changed them
                    request.headers = NativeHeaders(headers)
            answer = self._refusal(connection, request)
            if answer is None:
                return None
        response = native_response(answer)  # raises what the hook has done wrong
        if self._server_header is not None and "Server" not in answer.headers:
            answer.headers["Server"] = self._server_header
            response.headers["Server"] = self._server_header
        connection._answered(answer)
        if self._process_response is None:
            self._log_response(connection, answer, judged)
        return response

    def _log_response(self, connection: ServerConnection, response: Response, judged: bool) -> None:
        text = "connection rejected (%d %s)" if judged else "HTTP response sent (%d %s)"
        self._note(connection, text, response.status_code, response.reason_phrase)

    def _failed(self, connection: ServerConnection, text: str) -> Response:
        connection.logger.error(text, exc_info=True)
        return plain_response(http.HTTPStatus.INTERNAL_SERVER_ERROR, _SEE_LOG)

    # --- refusals ---------------------------------------------------------------------------------

    def _refusal(self, connection: ServerConnection, request: native.Request) -> Response | None:
        """Return the response that refuses a request, or ``None`` if it opens a WebSocket."""
        try:
            self._check(connection, request)
        except InvalidOrigin as exc:
            return plain_response(http.HTTPStatus.FORBIDDEN, f"{_FAILED}: {exc}.\n")
        except InvalidMethod as exc:
            response = plain_response(http.HTTPStatus.METHOD_NOT_ALLOWED, f"{_FAILED}: {exc}.\n")
            response.headers["Allow"] = "GET"
            return response
        except InvalidProtocol as exc:
            return plain_response(http.HTTPStatus.HTTP_VERSION_NOT_SUPPORTED, f"{_FAILED}: {exc}.\n")
        except InvalidUpgrade as exc:
            response = plain_response(http.HTTPStatus.UPGRADE_REQUIRED, f"{_FAILED}: {exc}.\n{_BROWSER}")
            response.headers["Upgrade"] = "websocket"
            return response
        except errors.InvalidHandshake as exc:
            text, cause = str(exc), exc.__cause__
            while cause is not None:
                text, cause = f"{text}; {cause}", cause.__cause__
            return plain_response(http.HTTPStatus.BAD_REQUEST, f"{_FAILED}: {text}.\n")
        except Exception:
            return self._failed(connection, "opening handshake failed")
        return None

    def _check(self, connection: ServerConnection, request: native.Request) -> None:
        try:
            check_upgrade(request)
        except errors.InvalidHandshake as exc:
            assert connection.request is not None
            raise _explained(connection.request, exc) from None
        if self._origins is not None:
            self._check_origin(request)
        offered = offered_subprotocols(request)
        if self._select_subprotocol is not None:
            chosen = self._select_subprotocol(connection, offered)
        else:
            chosen = self._supported(offered)
        connection.plumews.subprotocol = chosen

    def _check_origin(self, request: native.Request) -> None:
        values = request._values_of(b"origin")
        if len(values) > 1:
            raise InvalidHeader("Origin", "multiple values")
        origin = values[0] if values else None
        for entry in self._origins or ():
            if entry == origin or (isinstance(entry, re.Pattern) and origin is not None and entry.fullmatch(origin)):
                return
        raise InvalidOrigin(origin)

    def _supported(self, offered: Sequence[str]) -> str | None:
        if not self._subprotocols:
            return None
        if not offered:
            raise NegotiationError("missing subprotocol")
        for subprotocol in self._subprotocols:
            if subprotocol in offered:
                return subprotocol
        raise NegotiationError(f"invalid subprotocol; expected one of {', '.join(self._subprotocols)}")

    # --- the response -----------------------------------------------------------------------------

    def process_response(self, conn: Conn, request: native.Request, response: native.Response) -> Any:
        """Call the hook of the program with a response."""
        connection = self.connections.get(conn)
        if connection is None or self._process_response is None:
            return None
        asked, answer = connection.request, connection.response
        assert asked is not None
        if answer is None:
            answer = response_of(response)
            connection._answered(answer)
        try:
            returned = self._process_response(connection, asked, answer)
        except Exception:
            returned = self._failed(connection, "process_response failed")
        if isinstance(returned, Awaitable):
            return self._respond_later(connection, response, answer, returned)
        return self._respond(connection, response, answer, returned)

    async def _respond_later(
        self, connection: ServerConnection, before: native.Response, answer: Response, work: Awaitable[_Answer]
    ) -> native.Response:
        try:
            returned = await work
        except Exception:
            returned = self._failed(connection, "process_response failed")
        return self._respond(connection, before, answer, returned)

    def _respond(
        self, connection: ServerConnection, before: native.Response, answer: Response, returned: _Answer
    ) -> native.Response:
        final = answer if returned is None else returned
        response = native_response(final)
        connection._answered(final)
        if response.status != http.HTTPStatus.SWITCHING_PROTOCOLS:
            if before.status == http.HTTPStatus.SWITCHING_PROTOCOLS and returned is None:
                for name in [name for name in response.headers if is_handshake_header(name)]:
                    del response.headers[name]
            self._log_response(connection, final, judged=True)
        return response


def _explained(request: Request, exc: errors.InvalidHandshake) -> InvalidHandshake:
    """Return the exception for a request that plumews refuses with ``exc``."""
    if request.method != "GET":
        return InvalidMethod(request.method)
    if request.protocol != "HTTP/1.1":
        return InvalidProtocol(request.protocol)
    for name, token in (("Connection", "upgrade"), ("Upgrade", "websocket")):
        try:
            tokens = parse_tokens(request.headers.get_all(name), name)
        except errors.InvalidHeader:
            tokens = request.headers.get_all(name)
        if token not in (each.lower() for each in tokens):
            return InvalidUpgrade(name, ", ".join(tokens) if tokens else None)
    try:
        key = request.headers.get("Sec-WebSocket-Key")
        if key is None:
            return InvalidHeader("Sec-WebSocket-Key")
        if not _is_key(key):
            return InvalidHeaderValue("Sec-WebSocket-Key", key)
    except MultipleValuesError:
        return InvalidHeader("Sec-WebSocket-Key", "multiple values")
    try:
        version = request.headers.get("Sec-WebSocket-Version")
        if version is None:
            return InvalidHeader("Sec-WebSocket-Version")
        if version != "13":
            return InvalidHeaderValue("Sec-WebSocket-Version", version)
    except MultipleValuesError:
        return InvalidHeader("Sec-WebSocket-Version", "multiple values")
    return InvalidMessage(str(exc))


def _is_key(key: str) -> bool:
    try:
        return len(base64.b64decode(key.encode(), validate=True)) == _KEY_SIZE
    except (binascii.Error, ValueError):
        return False
