"""``connect()`` and ``unix_connect()``: from a URI to an open connection, once or again and again.

An attempt asks for token and headers, dials, and shakes hands, also behind redirects. It runs in a task of its own, so
that the open timeout and a cancellation end it in every state.

Invariants: a connection that no caller got is closed. A cancellation of the caller is never swallowed or counted as a
failure. What an abandoned attempt does later has no effect. Messages behind the 101 arrive like all others.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Generator
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final

from .. import limits
from ..conn import closing, receive_backlog
from ..conn.connection import Conn
from ..conn.handlers import CallbackEndpoint, OnMessage, OnOpenOrClose, endpoint_for
from ..conn.logs import log_extra
from ..conn.opening import opened, use_deflate
from ..errors import ConcurrencyError, ConnectError, ConnectTimeout, InvalidHandshake, InvalidStatus
from ..http11.models import Request
from ..transport.masking import MaskingTransport
from .attempt import BaseAttempt, BaseClient, UnixPath
from .dialing import Dialing
from .handshake import Accepted, ClientHandshake, bearer, check_headers
from .options import ConnectKeywords
from .reconnect import Resumption
from .suspension import watch_suspension
from .uri import WebSocketURI

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["connect", "unix_connect"]

logger = logging.getLogger("plumews.client")

#: Seconds for the end of an attempt that was canceled. Only a callable of the application can take any.
_UNWIND: Final = 0.5


class connect(BaseClient):  # noqa: N801 - the name of a function: it is called as one
    """Client of a WebSocket server: ``await connect(uri)``, ``async with connect(uri)`` or ``async for``.

    ``await`` returns an open :class:`plumews.Conn`. ``async with`` closes it at the end. ``async for conn in
    connect(uri)`` connects again after each end and after each failure that may pass::

        async for conn in plumews.connect("wss://example.com/feed"):
            async for message in conn:
                ...

    Args:
        uri: ``ws`` or ``wss`` URI. A user and a password in it are sent as basic authentication.
        on_message: ``f(conn, message)``, a plain function, called for each message as soon as it is read. It is the
            way with the least latency. Without it messages are received by ``recv()`` or ``async for``.
        on_close: ``f(conn)``, called when a connection is gone. It needs ``on_message``.
        options: those of :class:`plumews.client.options.ConnectOptions` and :class:`plumews.ConnConfig`.

    Raises:
        InvalidURI: ``uri`` is malformed.
        TypeError, ValueError: an option is unknown, of the wrong kind, or out of range.

    ``await``, ``async with`` and ``async for`` raise:
        ConnectError: a step failed: ``exc.step`` and ``exc.address`` tell which. ``ConnectTimeout`` after
            ``open_timeout``.
        InvalidStatus: the server refused. ``exc.response`` is its response.
        InvalidHandshake: the answer of the server is wrong.
        ConcurrencyError: another attempt of this client runs, or another ``async with`` block.
    """

    def __init__(
        self,
        uri: str,
        *,
        on_message: OnMessage | None = None,
        on_close: OnOpenOrClose | None = None,
        **options: Unpack[ConnectKeywords],
    ) -> None:
        self._begin(uri, None, on_message, on_close, options)

    def _begin(
        self,
        uri: str,
        path: UnixPath | None,
        on_message: OnMessage | None,
        on_close: OnOpenOrClose | None,
        options: Any,
    ) -> None:
        self._prepare(uri, path, options)
        self._endpoint: Any = None
        if on_message is not None:
            self._endpoint = endpoint_for(None, None, on_message, on_close)
        elif on_close is not None:
            raise TypeError("on_close needs on_message: else conn.add_close_callback() is there")
        self._conn: Conn | None = None

    if not TYPE_CHECKING:  # type checkers report an attribute that does not exist themselves

        def __getattr__(self, name: str) -> Any:
            text = f"{type(self).__name__!r} object has no attribute {name!r}"
            if hasattr(Conn, name):
                text += ": open a connection with `async with connect(uri) as conn:` or `conn = await connect(uri)`"
            raise AttributeError(text)

    # --- three ways to use it ---------------------------------------------------------------------

    def __await__(self) -> Generator[Any, None, Conn]:
        return self._open().__await__()

    async def __aenter__(self) -> Conn:
        self._use()
        try:
            self._conn = await self._open()
        except BaseException:
            self._in_use = False
            raise
        return self._conn

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        assert self._conn is not None
        self._in_use = False
        await self._conn.__aexit__(exc_type, exc, tb)

    async def __aiter__(self) -> AsyncIterator[Conn]:
        if self._options.sock is not None:
            raise TypeError("sock is one connection: async for cannot connect again")
        while True:
            try:
                conn = await self._open()
            except ConcurrencyError:
                raise
            except Exception as exc:
                delay = self._reconnector.failed(exc, elsewhere=self._elsewhere)
            else:
                self._reconnector.opened()
                try:
                    yield conn
                finally:
                    await conn.close()
                delay = self._reconnector.closed(conn._rules.closed())
            await asyncio.sleep(delay)

    # --- one attempt ------------------------------------------------------------------------------

    async def _open(self) -> Conn:
        """Return an open connection, within the open timeout."""
        self._begin_attempt()
        attempt = _Attempt(self)
        try:
            return await self._done(attempt)
        except BaseException:
            attempt.failed()
            raise
        finally:
            self._attempting.release()

    async def _done(self, attempt: _Attempt) -> Conn:
        task = asyncio.get_running_loop().create_task(attempt.run())
        seconds = self._options.open_timeout
        try:
            await asyncio.wait((task,), timeout=seconds)
        except BaseException:
            await _abandon(task)
            raise
        if not task.done():
            await _abandon(task)
            raise ConnectTimeout(attempt.step, attempt.address, f"not done after {seconds:g} s")
        try:
            return task.result()
        except asyncio.CancelledError:  # this call is not canceled
            raise ConnectError(attempt.step, attempt.address, "a function of an option raised CancelledError") from None

    def _made(self, conn: Conn) -> None:
        """Prepare a connection that is not dialed yet. A subclass overrides it."""


class unix_connect(connect):  # noqa: N801
    """:class:`connect` over a Unix socket.

    Args:
        path: path of the socket.
        uri: URI of the request (default ``ws://localhost/``).
        on_message, on_close, options: as for :class:`connect`.
    """

    def __init__(
        self,
        path: UnixPath,
        uri: str = "ws://localhost/",
        *,
        on_message: OnMessage | None = None,
        on_close: OnOpenOrClose | None = None,
        **options: Unpack[ConnectKeywords],
    ) -> None:
        if options.get("sock") is not None:
            raise TypeError("give either path or sock")
        self._begin(uri, path, on_message, on_close, options)


async def _abandon(task: asyncio.Task[Conn]) -> None:
    """Cancel an attempt. If it has a connection, or gets one all the same, close that."""
    task.cancel()
    task.add_done_callback(_discard)
    await asyncio.wait((task,), timeout=_UNWIND)


def _discard(task: asyncio.Task[Conn]) -> None:
    if not task.cancelled() and task.exception() is None:
        closing.abort(task.result())


class _Attempt(BaseAttempt[connect, Dialing]):
    """One attempt of a client, with its redirects."""

    async def run(self) -> Conn:
        """Return an open connection."""
        options = self._client._options
        headers = await self._asked("additional_headers", options.additional_headers, check_headers)
        self.begin(headers, await self._asked("token", options.token, bearer))
        while True:
            try:
                return await self._connect(self.handshake())
            except InvalidStatus as exc:  # noqa: PERF203
                self.follow(exc)

    async def _asked(self, step: str, value: Any, check: Callable[[Any], Any]) -> Any:
        """Return the checked value of an option that may be a function."""
        if value is None:
            return None
        if not callable(value):
            return check(value)
        with self.asking(step):
            value = value()
            if isinstance(value, Awaitable):
                value = await value
        return self.checked(step, value, check)

    async def _connect(self, handshake: ClientHandshake) -> Conn:
        client = self._client
        conn = Conn(client._config, client=True)
        conn._attempt = (client._reconnector.attempt, client._reconnector.last_error)
        client._made(conn)
        opening = _Opening(conn, self.uri, handshake, client._endpoint, client._resumption)
        self._dialing = dialing = Dialing(**self.dial_options())
        try:
            await dialing.open(lambda: conn)
            await opening.done
        except BaseException as exc:
            opening.give_up()  # it may be open already, if the attempt was canceled
            self.name_error(exc)
            raise
        return conn


class _Opening:
    """Opening handshake of one connection (a :class:`plumews.conn.opening.OpeningHandshake`).

    Attributes:
        done: Future of the open connection. Its error is that of the handshake.
    """

    __slots__ = ("_conn", "_deadline", "_endpoint", "_handshake", "_resumption", "_transport", "_uri", "done")

    def __init__(
        self,
        conn: Conn,
        uri: WebSocketURI,
        handshake: ClientHandshake,
        endpoint: CallbackEndpoint | None,
        resumption: Resumption,
    ) -> None:
        self._conn = conn
        self._uri = uri
        self._handshake = handshake
        self._endpoint = endpoint
        self._resumption = resumption
        self._deadline: Any = None
        self._transport: asyncio.Transport | None = None
        self.done: asyncio.Future[None] = conn._loop.create_future()
        conn._handshake = self

    # --- called by the connection -----------------------------------------------------------------

    def connected(self) -> None:
        conn = self._conn
        if conn._transport is None:
            return  # it has failed
        try:
            self._transport = transport = conn._transport
            conn._attach(MaskingTransport(transport))
            transport.write(self._handshake.request)
        except Exception as exc:
            closing.transport_failed(conn, exc)

    def received(self, data: bytes) -> None:
        if self.done.done():
            return
        try:
            accepted = self._handshake.feed(data)
        except InvalidHandshake as exc:
            self._fail(exc)
            return
        if accepted is not None:
            self._open(accepted)
        elif self._handshake.refusal is not None and self._deadline is None:
            # Without a length the body ends with the connection, which the server may keep open.
            refusal = self._handshake.refusal
            self._deadline = self._conn._state.timers.after(limits.RESPONSE_BODY_TIME, partial(self._fail, refusal))

    def lost(self) -> None:
        self._cancel_deadline()
        if self.done.done():
            return
        try:
            self._handshake.feed_eof()
        except InvalidStatus as exc:
            self.done.set_exception(exc)
        except ConnectionResetError as exc:
            # With TLS 1.3, the server refuses the certificate of a client behind the client's handshake.
            failure = getattr(self._transport, "failure", None)
            self.done.set_exception(failure if isinstance(failure, OSError) else exc)

    # --- called by the attempt --------------------------------------------------------------------

    def give_up(self) -> None:
        """Close the connection."""
        self._cancel_deadline()
        self.done.cancel()
        closing.abort(self._conn)

    # --- inside -----------------------------------------------------------------------------------

    def _cancel_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _fail(self, exc: InvalidHandshake) -> None:
        self._cancel_deadline()
        if not self.done.done():
            self.done.set_exception(exc)
        closing.abort(self._conn)

    def _open(self, accepted: Accepted) -> None:
        conn = self._conn
        conn._request = Request("GET", self._uri.resource, self._handshake.headers, secure=self._uri.secure)
        conn._response = accepted.response
        conn._subprotocol = accepted.subprotocol
        if accepted.agreement is not None:
            use_deflate(conn, accepted.agreement, client=True)
        opened(conn)
        if not conn._open:
            return  # the transport has failed: `lost` tells it
        self.done.set_result(None)
        if conn._config.ping_interval is not None:
            watch_suspension(conn)
        if self._resumption.observes:
            conn._filter = self._observe
        if self._endpoint is not None:
            self._endpoint.opened(conn)
        if accepted.rest:
            receive_backlog.receive(conn, accepted.rest)

    def _observe(self, conn: Conn, message: str | bytes) -> bool:
        """Note the position of a message, before the application gets it."""
        try:
            self._resumption.observe(message)
            if not self._resumption.observes:
                conn._filter = None
        except Exception:
            conn._filter = None
            logger.exception("position_of failed", extra=log_extra(conn))
        return False
