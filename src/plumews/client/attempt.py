"""Attempts of a client without I/O: options, request, redirects, errors, and what one attempt leaves to the next.

The asyncio client (:mod:`plumews.client.connector`) and the blocking one (:mod:`plumews.sync.connector`) are built on
it. They ask, dial, and shake hands.

Invariant: each attempt begins at the original URI, or at the target of permanent redirects.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar, Generic, Protocol, TypeAlias, TypeVar

from ..errors import ConcurrencyError, ConnectError, InvalidHandshake, InvalidStatus
from ..http11.headers import Headers
from .handshake import ClientHandshake
from .options import split_options
from .proxy import proxy_for
from .reconnect import Reconnector, Resumption
from .redirects import REDIRECT_STATUSES, Redirects
from .uri import parse_uri

__all__ = ["BaseAttempt", "BaseClient", "UnixPath"]

#: Path of a Unix socket.
UnixPath: TypeAlias = "str | bytes | os.PathLike[str] | os.PathLike[bytes]"


class BaseClient:
    """Options of a client, and its state over all attempts."""

    #: Name in the `repr`.
    _shown: ClassVar[str] = "plumews"

    def _prepare(self, uri: str, path: UnixPath | None, options: Mapping[str, Any]) -> None:
        """Check the arguments of the client.

        Args:
            uri: URI of the first request.
            path: Path of a Unix socket, or ``None``.
            options: Keywords of the application.
        """
        self._uri = parse_uri(uri)
        self._path = None if path is None else _checked_path(path)
        self._options, self._config = split_options(options)
        if self._options.ssl is not None and not self._uri.secure:
            raise ValueError("ssl needs a URI that begins with wss://")
        self._redirects = Redirects(self._uri)
        self._reconnector = Reconnector(
            self._options.reconnect_delays,
            process_exception=self._options.process_exception,
            fresh_token=callable(self._options.token),
        )
        self._resumption = Resumption(self._options.position_of)
        self._elsewhere = False
        self._in_use = False
        self._attempting = threading.Lock()

    def _use(self) -> None:
        """Begin a ``with`` block. Raise `ConcurrencyError` in another one."""
        if self._in_use:
            raise _in_use()
        self._in_use = True

    def _begin_attempt(self) -> None:
        """Take the lock of the attempts, which share their redirects. Raise `ConcurrencyError` while one runs."""
        if not self._attempting.acquire(blocking=False):
            raise _in_use()

    @property
    def attempt(self) -> int:
        """Number of the attempt that runs, or has led to the open connection. The first is 1."""
        return self._reconnector.attempt

    @property
    def last_error(self) -> BaseException | None:
        """Error that ended the attempt or the connection before, or ``None``."""
        return self._reconnector.last_error

    def __repr__(self) -> str:
        return f"<{self._shown}.{type(self).__name__} {self._uri}>"


def _in_use() -> ConcurrencyError:
    return ConcurrencyError("this client is in use: call connect() for each connection")


def _checked_path(path: UnixPath) -> str:
    if not isinstance(path, (str, bytes, os.PathLike)):
        raise TypeError(f"path must be a str, bytes or an os.PathLike, not {type(path).__name__}")
    name = os.fsdecode(path)
    if not name or "\0" in name[1:]:
        raise ValueError("the path of a Unix socket must not be empty, or have a NUL in it")
    return name


class _Dialing(Protocol):
    @property
    def step(self) -> str: ...

    @property
    def address(self) -> str: ...


C = TypeVar("C", bound=BaseClient)
D = TypeVar("D", bound=_Dialing)


class BaseAttempt(Generic[C, D]):
    """One attempt of a client, with its redirects.

    Args:
        client: Client.

    Attributes:
        uri: URI of the next request.
    """

    def __init__(self, client: C) -> None:
        self._client = client
        self._dialing: D | None = None
        self._step = "resolve"
        self._headers: Headers | None = None
        self._token: str | None = None
        self._kept = False
        self.uri = client._uri

    @property
    def step(self) -> str:
        """Step that runs."""
        return self._step if self._dialing is None else self._dialing.step

    @property
    def address(self) -> str:
        """Address that is tried."""
        return "" if self._dialing is None else self._dialing.address

    @contextlib.contextmanager
    def asking(self, step: str) -> Iterator[None]:
        """Name the step, and the errors of a function of the application, that the block calls.

        Raises:
            ConnectError: In place of any exception.
        """
        self._step, self._dialing = step, None
        try:
            yield
        except Exception as exc:
            raise ConnectError(step, "", f"the function of the option failed: {type(exc).__name__}") from exc

    @staticmethod
    def checked(step: str, value: Any, check: Callable[[Any], Any]) -> Any:
        """Return the checked value that a function of the application has returned.

        Raises:
            ConnectError: In place of any exception. Its text quotes only that of a token, which has nothing secret.
        """
        try:
            return check(value)
        except Exception as exc:
            wrong = str(exc) if step == "token" else type(exc).__name__
            raise ConnectError(step, "", f"the function of the option returned a wrong value: {wrong}") from exc

    def begin(self, headers: Headers | None, token: str | None) -> None:
        """Begin at the first URI, with checked headers and the value of ``Authorization``, or ``None``."""
        self._headers, self._token = headers, token
        redirects = self._client._redirects
        self.uri = self._client._resumption.uri(redirects.begin())
        self._kept = redirects.is_kept

    def handshake(self) -> ClientHandshake:
        """Return the opening handshake with `uri`."""
        client, uri = self._client, self.uri
        options, redirects = client._options, client._redirects
        token = self._token if redirects.sends_credentials else None
        return ClientHandshake(
            uri.host_header,
            uri.resource,
            origin=options.origin,
            subprotocols=options.subprotocols,
            deflate=client._config.deflate,
            user_agent=options.user_agent_header,
            authorization=uri.authorization if token is None else token,
            headers=None if self._headers is None else redirects.headers(self._headers.raw_items()),
            max_head=options.max_head,
        )

    def dial_options(self) -> dict[str, Any]:
        """Return the arguments of a dialing to `uri`, behind a proxy if there is one."""
        client, options, uri = self._client, self._client._options, self.uri
        direct = options.sock is not None or client._path is not None
        return {
            "uri": options.dialed(uri, client._uri),
            "proxy": None if direct else proxy_for(uri, options.proxy),
            "ssl": options.ssl,
            # It is the name of the first origin.
            "server_hostname": (client._redirects.sends_credentials and options.server_hostname) or uri.tls_name,
            "proxy_ssl": options.proxy_ssl,
            "proxy_server_hostname": options.proxy_server_hostname,
            "local_addr": options.local_addr,
            "sock": options.sock,
            "path": client._path,
        }

    def follow(self, refusal: InvalidStatus) -> None:
        """Follow a redirect. Raise ``refusal`` if it is none, or if there is but one way to connect."""
        client = self._client
        if refusal.status not in REDIRECT_STATUSES or client._options.sock is not None or client._path is not None:
            raise refusal
        self.uri = client._redirects.follow(refusal.status, refusal.response.headers.get_all("Location"))

    def failed(self) -> None:
        """Close a socket of the application that was not dialed, and forget a kept redirect that has failed.

        The next attempt goes to the original URI.
        """
        client = self._client
        if client._options.sock is not None and self._dialing is None:
            client._options.sock.close()
        client._elsewhere = self._kept
        if self._kept:
            client._redirects.forget()

    def name_error(self, exc: BaseException) -> None:
        """Name step and address in an error of the handshake.

        Raises:
            ConnectError: In place of an error of the socket.
        """
        if isinstance(exc, InvalidHandshake):
            exc.args = (f"cannot connect: handshake ({self.address}): {exc}",)
        elif isinstance(exc, OSError) and not isinstance(exc, (ConnectError, TimeoutError)):
            raise ConnectError.of("handshake", self.address, exc) from None
