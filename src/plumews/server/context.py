"""Server context: the state that all connections of one server share.

It holds the options, the endpoints and routes by path, the admission of new connections, and the tasks that serve them.
A started task is referred to until it ends: the event loop itself keeps no strong reference.
"""

from __future__ import annotations

import asyncio
import ssl as ssl_module
from collections.abc import Awaitable, Callable, Collection, Iterable
from contextvars import Context, copy_context
from types import CoroutineType
from typing import Any, Final
from urllib.parse import quote

from ..conn.connection import Conn
from ..constants import ErrorCode
from ..counters import RequestCounters
from ..errors import InvalidHandshake
from ..http11.headers import Headers
from ..http11.origin import check_host
from ..http11.parser import default_headers
from ..http11.request import Request
from .admission import Admission
from .endpoints import Endpoint
from .options import ServerOptions

__all__ = ["ServerContext", "has_certificate", "quoted_path"]

#: Visible ASCII that browsers leave as it is in a path (URL Standard, path percent-encode set).
_UNQUOTED: Final = "!$&'()*+,-./:;=@[\\]^_|~"


class ServerContext:
    """State that all connections of one server share.

    Args:
        endpoints: by path; ``None`` is any path.
        options: the options of the server.
        requests: counters of the requests. A hub passes its own, shared by all its servers.
        doubts: each returns a reason why no client can enter, or an empty text. Called when the server starts.
    """

    __slots__ = (
        "_empty",
        "_end_task",
        "_newest_host",
        "admission",
        "allowed_hosts",
        "closing",
        "connections",
        "context",
        "doubts",
        "endpoints",
        "extra_lines",
        "logged_hints",
        "max_head",
        "max_headers",
        "open_timeout",
        "options",
        "origins",
        "process_request",
        "process_response",
        "requests",
        "routes",
        "secure",
        "select_subprotocol",
        "subprotocols",
        "tasks",
        "trusted_proxies",
    )

    def __init__(
        self,
        endpoints: dict[str | None, Endpoint],
        options: ServerOptions,
        requests: RequestCounters | None = None,
        doubts: Iterable[Callable[[], str]] = (),
    ) -> None:
        self.options = options
        # Options that each handshake asks for. It costs less to read them here, from a compiled object.
        self.max_head = options.max_head
        self.max_headers = default_headers(options.max_head)
        self.open_timeout = options.open_timeout
        self.origins = options.origins
        self.process_request = options.process_request
        self.process_response = options.process_response
        self.secure = options.ssl is not None
        self.select_subprotocol = options.select_subprotocol
        self.subprotocols = options.subprotocols
        self.trusted_proxies = options.trusted_proxies
        for path in (*endpoints, *options.routes):
            if path is not None and not path.startswith("/"):
                raise ValueError(f"invalid path {path!r}: a path begins with a slash")
        # Paths compare byte for byte: a path that a proxy has judged is not routed as another one.
        self.endpoints = {None if path is None else quoted_path(path): one for path, one in endpoints.items()}
        #: Routes by path as requests spell it.
        self.routes: dict[str, Any] = {quoted_path(path): route for path, route in options.routes.items()}
        #: Names that the ``Host`` header may have; ``None`` is any. Loopback only, if the server listens there only.
        self.allowed_hosts: Collection[str] | None = options.allowed_hosts
        #: Header lines added to the 101.
        self.extra_lines = Headers(options.extra_headers).serialize()[:-2]
        #: Admission of new connections.
        self.admission = Admission(options)
        #: Context variables of the caller of `serve`; each connection has a copy.
        self.context = copy_context()
        #: True if the server is stopping and rejects new connections.
        self.closing = False
        #: Counters of the requests.
        self.requests = RequestCounters() if requests is None else requests
        self.doubts = list(doubts)
        if options.ssl is not None:
            context = options.ssl
            self.doubts.append(lambda: "" if has_certificate(context) else "ssl has no certificate (load_cert_chain)")
        #: Kinds of refusals whose hint is logged already.
        self.logged_hints: set[str] = set()
        #: Tasks of requests that take time, and of handlers.
        self.tasks: set[asyncio.Future[Any]] = set()
        self._end_task = self.tasks.discard  # one method and one context for all tasks
        self._empty = Context()
        #: Value of ``Host`` of the newest request that passed :meth:`check_host`: most requests have the same one.
        self._newest_host: bytes | None = None
        #: Connections from accept to their end.
        self.connections: set[Conn] = set()

    def endpoint(self, path: str) -> Endpoint:
        """Return the endpoint of ``path``, as a request spells it; raise :class:`InvalidHandshake` (404) for none."""
        endpoint = self.endpoints.get(path) or self.endpoints.get(None)
        if endpoint is None:
            raise InvalidHandshake("not found", status=404, code=ErrorCode.NOT_FOUND)
        return endpoint

    def check_host(self, request: Request) -> None:
        """Raise unless ``request`` has an allowed host, as :func:`plumews.http11.origin.check_host`."""
        host = request._only(b"host")
        if host is None or host != self._newest_host:
            check_host(request, self.allowed_hosts)
            self._newest_host = host

    def start(self, work: Awaitable[Any]) -> asyncio.Future[Any]:
        """Run ``work`` as a task that the server waits for when it stops."""
        if isinstance(work, CoroutineType):  # of a handler, mostly
            task: asyncio.Future[Any] = asyncio.get_running_loop().create_task(work)
        else:
            task = asyncio.ensure_future(work)
        self.tasks.add(task)
        task.add_done_callback(self._end_task, context=self._empty)
        return task


def quoted_path(path: str) -> str:
    """Return ``path`` as a request spells it."""
    return quote(path, safe=_UNQUOTED)


def has_certificate(context: ssl_module.SSLContext) -> bool:
    """Return True if ``context`` answers a client that accepts any certificate and cipher.

    A context with a callback for the server name is trusted to have one.
    """
    if context.sni_callback is not None:
        return True
    anything = ssl_module.SSLContext(ssl_module.PROTOCOL_TLS_CLIENT)
    anything.check_hostname = False
    anything.verify_mode = ssl_module.CERT_NONE
    anything.minimum_version = ssl_module.TLSVersion.MINIMUM_SUPPORTED
    anything.set_ciphers("ALL:@SECLEVEL=0")
    hello, arrived = ssl_module.MemoryBIO(), ssl_module.MemoryBIO()
    try:  # noqa: SIM105 - compiled, a `with` that catches needs a traceback
        anything.wrap_bio(ssl_module.MemoryBIO(), hello).do_handshake()
    except ssl_module.SSLWantReadError:
        pass
    arrived.write(hello.read())
    found = True
    try:
        context.wrap_bio(arrived, ssl_module.MemoryBIO(), server_side=True).do_handshake()
    except ssl_module.SSLError as exc:
        found = exc.reason != "NO_SHARED_CIPHER"
    return found
