"""What a server offers, and to whom: checked once, where it is given (layer 5).

A site is what all connections of a server share: endpoints and routes by path, who may come from where, and the
tasks that serve them. A wrong value is an error of the call that gives it, never of the first handshake (section 8
point 31 of the seed's review). Invariant: a task that was started here is referred to until it ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl as ssl_module
from collections.abc import Awaitable, Callable, Collection, Coroutine, Mapping, Sequence
from contextvars import Context, copy_context
from dataclasses import dataclass, field, fields
from typing import Any, Final, Protocol
from urllib.parse import quote

from .. import limits
from ..conn.connection import Conn
from ..constants import ErrorCode
from ..counters import RequestCounters
from ..errors import InvalidHandshake
from ..http11.handshake import application_headers
from ..http11.headers import HeadersLike, is_token
from ..http11.models import Request
from ..http11.origin import AllowedOrigin, allowed_hosts, allowed_origins
from ..http11.proxies import TrustedProxies
from ..validation import check_call, check_count, check_function, check_time, entries_of, is_plain_function
from .admission import Admission, AdmissionLimits
from .hooks import ProcessRequest, ProcessResponse, SelectSubprotocol
from .routes import Route, Routes

__all__ = ["Endpoint", "ServerContext", "has_certificate"]

#: The functions of an application around the handshake, and what they are called with.
_HOOKS: Final = {
    "process_request": ("conn", "request"),
    "process_response": ("conn", "request", "response"),
    "select_subprotocol": ("conn", "offered"),
}

#: Visible ASCII that browsers leave as it is in a path (URL Standard, path percent-encode set).
_AS_IT_IS: Final = "!$&'()*+,-./:;=@[\\]^_|~"


class Endpoint(Protocol):
    """What a site does with the WebSockets of one path."""

    def admit(self, conn: Conn, request: Request) -> Awaitable[None] | None:
        """Raise :class:`InvalidHandshake` to refuse; return an awaitable if it takes time."""

    def opened(self, conn: Conn, deadline: float) -> Coroutine[Any, Any, None] | None:
        """The connection is open. Called before the first frame is looked at, right behind the 101.

        Returns what is to run as a task of the site, if anything. ``deadline`` is the time of the loop's clock at
        which the open timeout ends, for those who authenticate on the open connection.
        """


@dataclass(eq=False)
class ServerContext:
    """The site. What the fields mean is told by :class:`plumews.server.options.SiteOptions`."""

    endpoints: dict[str | None, Endpoint]  # by path; None is any path
    ssl: ssl_module.SSLContext | None = None
    origins: Collection[AllowedOrigin] | None = None
    allowed_hosts: Collection[str] | None = None
    trusted_proxies: Collection[str] | None = None
    subprotocols: Sequence[str] = ()
    select_subprotocol: SelectSubprotocol | None = None
    process_request: ProcessRequest | None = None
    process_response: ProcessResponse | None = None
    extra_headers: HeadersLike = ()
    routes: Routes = field(default_factory=dict)
    open_timeout: float = limits.OPEN_TIMEOUT
    max_head: int = limits.HEAD_SIZE
    max_connections: int | None = limits.MAX_CONNECTIONS
    max_opening: int | None = limits.MAX_OPENING
    max_connections_per_address: int | None = limits.CONNECTIONS_PER_ADDRESS
    accept_rate: float | None = None
    accept_rate_per_address: float | None = limits.ACCEPT_RATE_PER_ADDRESS
    #: Who may connect.
    admission: Admission = field(init=False)
    #: The context in which the server was asked for; each connection has a copy of it.
    context: Context = field(default_factory=copy_context, init=False)
    #: Whether the server is stopping: nobody is let in any more.
    closing: bool = field(default=False, init=False)
    #: The extra headers as they stand in an answer.
    extra_lines: bytes = field(default=b"", init=False)
    #: Those whose word about their clients is taken; ``None`` if there are none.
    proxies: TrustedProxies | None = field(default=None, init=False)
    #: What became of the requests; a hub counts those of all its servers in one.
    requests: RequestCounters = field(default_factory=RequestCounters, init=False)
    #: Each says why nobody can come in, or nothing; asked when the server starts.
    doubts: list[Callable[[], str]] = field(default_factory=list, init=False)
    #: Kinds of refusals of which the log has told what to do about them.
    told: set[str] = field(default_factory=set, init=False)
    #: Requests that take time to answer, and handlers; the loop itself keeps no strong reference to tasks.
    tasks: set[asyncio.Future[Any]] = field(default_factory=set, init=False)
    #: Connections from accept to their end.
    connections: set[Conn] = field(default_factory=set, init=False)

    def __post_init__(self) -> None:
        if self.ssl is not None and not isinstance(self.ssl, ssl_module.SSLContext):
            raise TypeError(f"ssl must be an ssl.SSLContext, not {type(self.ssl).__name__}")
        if self.ssl is not None:
            _check_tls(self.ssl)
        self.origins = allowed_origins(self.origins)
        self.allowed_hosts = allowed_hosts(self.allowed_hosts)
        if self.trusted_proxies is not None:
            self.proxies = TrustedProxies(self.trusted_proxies)
        # None, as the websockets package says it.
        self.subprotocols = entries_of("subprotocols", self.subprotocols or (), '"chat"')
        for subprotocol in self.subprotocols:
            if not is_token(subprotocol):
                raise ValueError(f"invalid subprotocol {subprotocol!r}: expected a token, such as chat.v1")
        for name, parameters in _HOOKS.items():
            hook = getattr(self, name)
            if hook is not None:
                check_function(name, hook)
                check_call(name, hook, *parameters)
        if self.select_subprotocol is not None and not is_plain_function(self.select_subprotocol):
            raise TypeError("select_subprotocol must be a plain function: what takes time belongs into process_request")
        if self.select_subprotocol is not None and self.subprotocols:
            raise TypeError("give either subprotocols or select_subprotocol")
        extra = self.extra_headers = application_headers(self.extra_headers)
        self.extra_lines = extra.serialize()[:-2]
        if not isinstance(self.routes, (Mapping, type(None))):
            raise TypeError(f"routes must be a mapping of paths to functions, not {type(self.routes).__name__}")
        self.routes = dict(self.routes or {})
        for path, route in self.routes.items():
            if isinstance(route, Route):
                continue
            if not is_plain_function(route):
                raise TypeError(
                    f"the route of {path} must be a plain function, which is called on the loop; "
                    "plumews.Route(function) takes an `async def` as well"
                )
            check_call(f"the route of {path}", route, "request")
        for given in (*self.endpoints, *self.routes):
            if given is not None and not given.startswith("/"):
                raise ValueError(f"invalid path {given!r}: a path begins with a slash")
        # Paths compare byte for byte: what a proxy in front has judged by its path is not routed by another one.
        self.endpoints = {None if path is None else _spelled(path): one for path, one in self.endpoints.items()}
        self.routes = {_spelled(path): route for path, route in self.routes.items()}
        context = self.ssl
        if context is not None:
            self.doubts.append(lambda: "" if has_certificate(context) else "ssl has no certificate (load_cert_chain)")
        check_time("open_timeout", self.open_timeout)
        check_count("max_head", self.max_head, least=limits.HEAD_SIZE_LEAST, most=limits.HEAD_SIZE_MOST)
        self.admission = Admission(
            AdmissionLimits(**{one.name: getattr(self, one.name) for one in fields(AdmissionLimits)}),
            None if self.proxies is None else self.proxies.is_proxy,
        )

    def endpoint(self, path: str) -> Endpoint:
        """The endpoint of ``path``, as sent; raises :class:`InvalidHandshake` 404 if there is none."""
        endpoint = self.endpoints.get(path) or self.endpoints.get(None)
        if endpoint is None:
            raise InvalidHandshake("not found", status=404, code=ErrorCode.NOT_FOUND)
        return endpoint

    def start(self, work: Awaitable[Any]) -> asyncio.Future[Any]:
        """Run ``work`` as a task that the server waits for when it stops."""
        task = asyncio.ensure_future(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return task


def _spelled(path: str) -> str:
    """Return ``path`` as a request spells it."""
    return quote(path, safe=_AS_IT_IS)


def _check_tls(context: ssl_module.SSLContext) -> None:
    try:
        context.wrap_bio(ssl_module.MemoryBIO(), ssl_module.MemoryBIO(), server_side=True)
    except (ValueError, ssl_module.SSLError) as exc:
        raise ValueError(
            "ssl must be a context for servers, such as ssl.create_default_context(ssl.Purpose.CLIENT_AUTH): "
            f"{exc.args[-1]}"
        ) from None


def has_certificate(context: ssl_module.SSLContext) -> bool:
    """Return whether ``context`` answers a client that takes any certificate and cipher.

    One with a callback for the name of the server is believed.
    """
    if context.sni_callback is not None:
        return True
    anything = ssl_module.SSLContext(ssl_module.PROTOCOL_TLS_CLIENT)
    anything.check_hostname = False
    anything.verify_mode = ssl_module.CERT_NONE
    anything.minimum_version = ssl_module.TLSVersion.MINIMUM_SUPPORTED
    anything.set_ciphers("ALL:@SECLEVEL=0")
    hello, arrived = ssl_module.MemoryBIO(), ssl_module.MemoryBIO()
    with contextlib.suppress(ssl_module.SSLWantReadError):
        anything.wrap_bio(ssl_module.MemoryBIO(), hello).do_handshake()
    arrived.write(hello.read())
    try:
        context.wrap_bio(arrived, ssl_module.MemoryBIO(), server_side=True).do_handshake()
    except ssl_module.SSLError as exc:
        return exc.reason != "NO_SHARED_CIPHER"
    return True
