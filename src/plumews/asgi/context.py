"""State that all connections of one uvicorn server share: what its configuration says, and our own options.

It is made for the first connection and kept as long as the configuration. Headers of the server change each second:
their serialized form is kept until then.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import logging
from collections.abc import Mapping
from typing import Any, Final, Protocol
from urllib.parse import quote, unquote
from weakref import ref

from ..conn.config import ConnConfig
from ..http11.headers import Headers
from ..http11.origin import AllowedOrigin, allowed_origins
from ..http11.redaction import QUERY_SECRETS
from ..validation import check_count, unknown_option
from .scope import Scope, scope_like
from .shutdown import ShutdownQueue

__all__ = ["AsgiContext", "AsgiOptions", "ServerConfig", "ServerState", "log_access"]

logger = logging.getLogger("uvicorn.error")


class ServerConfig(Protocol):
    """Part of ``uvicorn.Config`` that is used."""

    loaded: bool
    loaded_app: Any
    root_path: str
    asgi_version: str
    ws_max_size: int | None
    ws_max_queue: int | None
    ws_ping_interval: float | None
    ws_ping_timeout: float | None
    ws_per_message_deflate: bool
    timeout_graceful_shutdown: int | None
    forwarded_allow_ips: Any
    proxy_headers: bool

    def load(self) -> None: ...


class ServerState(Protocol):
    """Part of ``uvicorn.server.ServerState`` that is used."""

    connections: set[Any]
    tasks: set[Any]
    default_headers: list[tuple[bytes, bytes]]


class AsgiOptions:
    """Options of :meth:`plumews.asgi.PlumeProtocol.with_options`, checked where they are given.

    Attributes:
        max_connections: WebSockets at a time, above which requests are refused. ``None`` is no limit.
        origins: Origins whose pages may connect, beside the server's own. ``None`` checks no origin.
        conn: Options of connections. They replace those of uvicorn.
        waits: True if ``send`` waits for the transport, False if it returns when the message is queued.
    """

    __slots__ = ("checks", "conn", "given", "max_connections", "origins", "waits")

    def __init__(self, given: Mapping[str, Any]) -> None:
        #: The options as they were given.
        self.given = dict(given)
        conn = dict(given)
        self.origins: tuple[AllowedOrigin, ...] | None = allowed_origins(conn.pop("origins", None))
        self.max_connections: int | None = conn.pop("max_connections", None)
        if self.max_connections is not None:
            check_count("max_connections", self.max_connections)
        self.conn: Mapping[str, Any] = conn
        #: True if a request is checked beyond what uvicorn checks.
        self.checks = self.max_connections is not None or self.origins is not None
        self.waits = not {"queue_size", "queue_bytes", "send_behavior", "send_timeout"} & conn.keys()
        known = sorted(["max_connections", "origins", *(field.name for field in dataclasses.fields(ConnConfig))])
        unknown = [unknown_option(name, known, {}) for name in sorted(conn.keys() - set(known))]
        if unknown:
            raise TypeError(
                f"unknown option {', '.join(unknown)}: there are {', '.join(known)}; uvicorn has the others"
            )
        ConnConfig(**conn)


class AsgiContext:
    """State that all connections of one server share."""

    __slots__ = (
        "__weakref__",
        "_defaults",
        "_given",
        "app",
        "close_timeout",
        "config",
        "conn_config",
        "connections",
        "deflate",
        "options",
        "reset_contextvars",
        "root_path",
        "scope",
        "shutdown_queue",
        "trusted_hosts",
    )

    def __init__(self, config: ServerConfig, options: AsgiOptions) -> None:
        #: Weak reference to the configuration.
        self.config = ref(config)
        self.app: Any = config.loaded_app
        self.root_path: str = config.root_path
        #: Items that all scopes have.
        self.scope = scope_like(config.asgi_version, self.root_path)
        self.reset_contextvars: bool = getattr(config, "reset_contextvars", False)
        self.options = options
        #: WebSockets of the server, open ones and those that wait for the application.
        self.connections = 0
        self.shutdown_queue = ShutdownQueue()
        settings: dict[str, Any] = {
            "max_size": None if config.ws_max_size is None else max(1, config.ws_max_size),
            "max_queue": max(1, config.ws_max_queue or 0),
            "ping_interval": _positive(config.ws_ping_interval),
            "ping_timeout": _positive(config.ws_ping_timeout),
            "compression": "deflate" if config.ws_per_message_deflate else None,
            "send_timeout": None,
        }
        self.conn_config = ConnConfig(**{**settings, **options.conn})
        self.deflate = self.conn_config.deflate
        #: Seconds for the closing handshakes when the server stops, so that applications see the end before uvicorn
        #: cancels their tasks.
        self.close_timeout: float = self.conn_config.close_timeout
        if config.timeout_graceful_shutdown is not None:
            self.close_timeout = min(self.close_timeout, config.timeout_graceful_shutdown * _SHUTDOWN_SHARE)
        #: Proxies whose headers uvicorn trusts, ``None`` if it trusts none.
        self.trusted_hosts: Any = config.forwarded_allow_ips if config.proxy_headers else None
        #: Headers of the server and their lines, made of the list before.
        self._given: list[tuple[bytes, bytes]] | None = None
        self._defaults = Headers(), b""

    def defaults(self, state: ServerState) -> tuple[Headers, bytes]:
        """Return the server's own headers, such as ``Date``, as they are now, and their lines."""
        given = state.default_headers
        if given is not self._given:  # uvicorn makes a new list each second
            headers = Headers([(name.decode("latin-1"), value.decode("latin-1")) for name, value in given])
            self._defaults = headers, headers.serialize()[:-2]
            self._given = given
        return self._defaults

    def behind_proxies(self, scope: Scope) -> Scope:
        """Return the ``scheme`` and ``client`` of ``scope`` as uvicorn's middleware for trusted proxies sets them."""
        seen = dict(scope)
        if self.trusted_hosts is not None:
            module = importlib.import_module("uvicorn.middleware.proxy_headers")  # loaded by the configuration
            middleware = module.ProxyHeadersMiddleware(_no_application, trusted_hosts=self.trusted_hosts)
            with contextlib.suppress(StopIteration):
                middleware(seen, _no_event, _no_event).send(None)  # it awaits nothing but its application
        return seen


def _positive(seconds: float | None) -> float | None:
    """Return ``seconds``, or ``None`` for 0 and less: uvicorn's classes send no pings then."""
    return seconds if seconds is not None and seconds > 0 else None


async def _no_application(scope: object, receive: object, send: object) -> None:
    """Do nothing."""


async def _no_event(event: object = None) -> Any:
    """Do nothing."""


#: Share of uvicorn's graceful time-out that the closing handshakes may take.
_SHUTDOWN_SHARE: Final = 0.5


def log_access(scope: Mapping[str, Any], result: str) -> None:
    """Log the request of ``scope`` and its ``result``, in the form of uvicorn's own classes."""
    if logger.isEnabledFor(logging.INFO):
        client = scope.get("client")
        shown = f"{client[0]}:{client[1]}" if client else ""
        logger.info('%s - "WebSocket %s" %s', shown, _shown_path(scope), result)


def _shown_path(scope: Mapping[str, Any]) -> str:
    path = quote(scope["path"], errors="replace")
    query = scope["query_string"].decode("ascii", "backslashreplace")
    return f"{path}?{_without_secrets(query)}" if query else path


def _without_secrets(query: str) -> str:
    """Return ``query`` without the values of the fields that carry a token or a password."""
    if "%" not in query and not any(name in query for name in QUERY_SECRETS):
        return query
    fields = [field.partition("=") for field in query.split("&")]
    return "&".join(
        f"{name}=***" if unquote(name) in QUERY_SECRETS else name + equals + value for name, equals, value in fields
    )
