"""Clients with the names of ``websockets.legacy.client``, for programs written before its version 14.

The connections are those of the new API, which have the attributes of the legacy one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..asyncio import client
from ..asyncio.client import ClientConnection
from ..datastructures import HeadersLike
from ..exceptions import InvalidStatus, InvalidStatusCode
from ..typing import PathLike

__all__ = ["WebSocketClientProtocol", "connect", "unix_connect"]


class WebSocketClientProtocol(ClientConnection):
    """Connection of a client of the legacy API."""


class connect(client.connect):  # noqa: N801 - the name of a function: it is called as one
    """Client with the options of the legacy API. A response other than 101 raises ``InvalidStatusCode``.

    Args:
        uri: ``ws`` or ``wss`` URI.
        create_protocol: a subclass of :class:`WebSocketClientProtocol`, or a function that takes its arguments.
        extra_headers: headers of the request.
        options: as in :class:`plumews.compat.websockets.asyncio.client.connect`.

    Raises:
        InvalidURI, TypeError, ValueError: as there.
    """

    def __init__(
        self,
        uri: str,
        *,
        create_protocol: Callable[..., ClientConnection] | None = None,
        extra_headers: HeadersLike | None = None,
        **options: Any,
    ) -> None:
        klass = options.pop("klass", None)
        options["create_connection"] = create_protocol or klass or WebSocketClientProtocol
        if extra_headers is not None:
            options["additional_headers"] = extra_headers
        timeout = options.pop("timeout", None)
        if timeout is not None and options.get("close_timeout") is None:
            options["close_timeout"] = timeout
        for name in ("loop", "read_limit", "legacy_recv"):
            options.pop(name, None)  # a program cannot observe them
        super().__init__(uri, **options)

    def _translated(self, exc: Exception) -> Exception:
        translated = super()._translated(exc)
        if isinstance(translated, InvalidStatus):
            return InvalidStatusCode(translated.response.status_code, translated.response.headers)
        return translated


def unix_connect(path: PathLike | None = None, uri: str = "ws://localhost/", **options: Any) -> connect:
    """Connect over a Unix socket, with the options of the legacy API.

    Args:
        path: path of the socket.
        uri: URI of the request.
        options: as for :class:`connect`.
    """
    return connect(uri, unix=True, path=path, **options)
