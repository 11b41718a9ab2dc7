"""``connect()`` and ``unix_connect()`` for threads: from a URI to an open connection, once or again and again.

An attempt asks for token and headers, dials, and shakes hands, also behind redirects, in the thread of the caller.

Invariants: an attempt that fails, or is interrupted, closes what it has opened. Messages behind the 101 arrive like all
others.
"""

from __future__ import annotations

import dataclasses
import inspect
import time
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any

from .. import limits
from ..client.attempt import BaseAttempt, BaseClient, UnixPath
from ..client.handshake import Accepted, ClientHandshake, bearer, check_headers
from ..client.options import ConnectKeywords
from ..errors import ConcurrencyError, ConnectError, ConnectTimeout, InvalidStatus
from ..http11.models import Request
from ..protocol.state import ProtocolState
from .connection import Conn
from .dialing import LONGEST_WAIT, Deadline, Dialing, Wire

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["connect", "unix_connect"]


class connect(BaseClient):  # noqa: N801 - the name of a function: it is called as one
    """Blocking client of a WebSocket server: ``with connect(uri)`` or ``for conn in connect(uri)``.

    ``with`` closes the connection at its end. ``for`` connects again after each end and after each failure that may
    pass. :meth:`open` returns a connection that the caller closes. The thread of the caller does the work::

        with plumews.sync.connect("ws://localhost:8000") as conn:
            conn.send("hello")
            print(conn.recv(timeout=5))

    Args:
        uri: ``ws`` or ``wss`` URI. A user and a password in it are sent as basic authentication.
        options: Those of :func:`plumews.connect`, but for its callbacks. There is no send queue: options of it have no
            effect. Functions for ``token`` and ``additional_headers`` must be plain ones. They run in the thread of the
            caller, which cannot interrupt them: ``open_timeout`` ends an attempt when they have returned.

    Raises:
        InvalidURI: ``uri`` is malformed.
        TypeError, ValueError: An option is unknown, of the wrong kind, or out of range.

    ``with``, ``for`` and :meth:`open` raise as :func:`plumews.connect` does.
    """

    _shown = "plumews.sync"

    def __init__(self, uri: str, **options: Unpack[ConnectKeywords]) -> None:
        self._begin(uri, None, options)

    def _begin(self, uri: str, path: UnixPath | None, options: Any) -> None:
        self._prepare(uri, path, options)
        if self._config.close_timeout > LONGEST_WAIT:
            self._config = dataclasses.replace(self._config, close_timeout=LONGEST_WAIT)
        for name in ("additional_headers", "token"):
            if inspect.iscoroutinefunction(getattr(self._options, name)):
                raise TypeError(f"{name} must be a plain function: a blocking client has no event loop")
        self._conn: Conn | None = None

    if not TYPE_CHECKING:  # type checkers report an attribute that does not exist themselves

        def __getattr__(self, name: str) -> Any:
            text = f"{type(self).__name__!r} object has no attribute {name!r}"
            if hasattr(Conn, name):
                text += ": open a connection with `with connect(uri) as conn:` or `conn = connect(uri).open()`"
            raise AttributeError(text)

    def _new_rules(self) -> ProtocolState:
        """Return the protocol state of a new connection. A subclass overrides it."""
        return ProtocolState(client=True, max_size=self._config.max_size)

    # --- three ways to use it ---------------------------------------------------------------------

    def open(self) -> Conn:
        """Connect once. Return the open connection, which the caller closes."""
        self._begin_attempt()
        attempt = _Attempt(self)
        try:
            return self._done(attempt)
        except BaseException:
            attempt.failed()
            raise
        finally:
            self._attempting.release()

    def _done(self, attempt: _Attempt) -> Conn:
        try:
            return attempt.run()
        except TimeoutError as exc:
            if isinstance(exc, ConnectError):
                raise
            if exc.errno is not None:  # the system has given up, not the deadline
                raise ConnectError.of(attempt.step, attempt.address, exc) from None
            seconds = self._options.open_timeout or 0.0
            raise ConnectTimeout(attempt.step, attempt.address, f"not done after {seconds:g} s") from None

    def __enter__(self) -> Conn:
        self._use()
        try:
            self._conn = self.open()
        except BaseException:
            self._in_use = False
            raise
        return self._conn

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        assert self._conn is not None
        self._in_use = False
        self._conn.__exit__(exc_type, exc, tb)

    def __iter__(self) -> Iterator[Conn]:
        if self._options.sock is not None:
            raise TypeError("sock is one connection: for cannot connect again")
        while True:
            try:
                conn = self.open()
            except ConcurrencyError:
                raise
            except Exception as exc:
                delay = self._reconnector.failed(exc, elsewhere=self._elsewhere)
            else:
                self._reconnector.opened()
                try:
                    yield conn
                finally:
                    conn.close()
                delay = self._reconnector.closed(conn._rules.closed())
            time.sleep(min(delay, LONGEST_WAIT))


class unix_connect(connect):  # noqa: N801
    """:class:`connect` over a Unix socket.

    Args:
        path: Path of the socket.
        uri: URI of the request (default ``ws://localhost/``).
        options: As for :class:`connect`.
    """

    def __init__(self, path: UnixPath, uri: str = "ws://localhost/", **options: Unpack[ConnectKeywords]) -> None:
        if options.get("sock") is not None:
            raise TypeError("give either path or sock")
        self._begin(uri, path, options)


class _Attempt(BaseAttempt[connect, Dialing]):
    """One attempt of a client, with its redirects, until its deadline."""

    def __init__(self, client: connect) -> None:
        super().__init__(client)
        self._deadline = Deadline(client._options.open_timeout)

    def run(self) -> Conn:
        """Return an open connection."""
        options = self._client._options
        headers = self._asked("additional_headers", options.additional_headers, check_headers)
        self.begin(headers, self._asked("token", options.token, bearer))
        while True:
            try:
                return self._connect(self.handshake())
            except InvalidStatus as exc:  # noqa: PERF203
                self.follow(exc)

    def _asked(self, step: str, value: Any, check: Callable[[Any], Any]) -> Any:
        """Return the checked value of an option that may be a function."""
        if value is None:
            return None
        if not callable(value):
            return check(value)
        with self.asking(step):
            value = value()
        return self.checked(step, value, check)

    def _connect(self, handshake: ClientHandshake) -> Conn:
        client, uri = self._client, self.uri
        self._dialing = dialing = Dialing(deadline=self._deadline, **self.dial_options())
        wire = dialing.open()
        try:
            accepted = self._shake_hands(wire, handshake)
            request = Request("GET", uri.resource, handshake.headers, secure=uri.secure)
            attempt = client._reconnector.attempt, client._reconnector.last_error
            return Conn(wire, client._config, request, accepted, attempt, client._resumption, client._new_rules())
        except BaseException as exc:
            wire.sock.close()
            self.name_error(exc)
            raise

    def _shake_hands(self, wire: Wire, handshake: ClientHandshake) -> Accepted:
        deadline = self._deadline
        wire.send(handshake.request, deadline)
        while True:
            try:
                data = wire.receive(deadline)
            except TimeoutError:
                if handshake.refusal is not None:
                    raise handshake.refusal from None
                raise
            if not data:
                handshake.feed_eof()
            accepted = handshake.feed(data)
            if accepted is not None:
                return accepted
            if handshake.refusal is not None and deadline is self._deadline:
                # Without a length the body ends with the connection, which the server may keep open.
                left = deadline.left()
                deadline = Deadline(limits.RESPONSE_BODY_TIME if left is None else min(limits.RESPONSE_BODY_TIME, left))
