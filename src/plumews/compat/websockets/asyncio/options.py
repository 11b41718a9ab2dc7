"""Options of ``serve()`` and ``connect()`` in the `websockets` package, as options of those of plumews.

Defaults are theirs. A value that cannot mean the same raises here, when ``serve()`` is called. Options that only
plumews has are passed on, such as ``trusted_proxies`` and ``queue_bytes``.
"""

from __future__ import annotations

import inspect
import ssl as ssl_module
from collections.abc import Callable
from typing import Any, Final

from .... import errors, limits
from ....client.proxy import parse_proxy
from ....client.uri import parse_uri
from ....deflate.config import Deflate
from ..datastructures import Headers, HeadersLike
from ..exceptions import InvalidProxy, InvalidURI
from .connection import FOREVER

__all__ = [
    "check_hook",
    "client_options",
    "conn_options",
    "connect_options",
    "is_secure",
    "listening_options",
    "takes_path",
]

#: Bytes that may wait for a client before a broadcast closes it. A send waits much earlier, at ``write_limit``.
_QUEUE_BYTES: Final = 64 * limits.MiB

#: Seconds that stand for ``close_timeout=0``.
_AT_ONCE: Final = 0.001

#: ``compression="deflate"``: clients that keep their window are read, as Safari of iOS 15, whatever was agreed on.
_DEFLATE: Final = Deflate(client_takeover=True)

#: Default of ``max_queue``.
_MAX_QUEUE: Final = 16

#: Bytes of the largest request head.
_HEAD_SIZE: Final = 128 * limits.KiB

#: Options of plumews whose defaults are limits that the `websockets` package does not have.
_UNLIMITED: Final[dict[str, Any]] = {
    "origins": ["*"],  # the option `origins` is checked before
    "allowed_hosts": ["*"],
    "accept_rate_per_address": None,
    "max_connections_per_address": None,
    "max_head": _HEAD_SIZE,
    "queue_bytes": _QUEUE_BYTES,
    "queue_size": limits.COUNT_MOST,
    "send_timeout": None,
    "fragment_size": limits.COUNT_MOST,
}

_LEGACY: Final = "it is of the legacy API: import serve from plumews.compat.websockets.legacy.server"

#: Options of `websockets` and of `loop.create_server` that have no equal here.
_REFUSED: Final = {
    "create_protocol": "use create_connection for a subclass of ServerConnection",
    "klass": "use create_connection for a subclass of ServerConnection",
    "extra_headers": _LEGACY,
    "read_limit": "the receive buffer is shared by all connections: leave it out",
    "loop": "the server runs on the running loop: leave it out",
    "timeout": "use close_timeout",
    "family": "give host='0.0.0.0' for IPv4 alone, or host='::' for IPv6",
    "flags": "leave it out",
    "routes": "a response of process_request takes the place of a route; plumews.serve() has routes",
    "keep_alive": "ping_interval and ping_timeout find dead connections: leave it out",
    "ssl_handshake_timeout": "open_timeout bounds the TLS handshake, too: leave it out",
    "ssl_shutdown_timeout": "close_timeout bounds the end of TLS, too: leave it out",
    "extensions": "use compression='deflate', or compression=plumews.Deflate(...) for its parameters",
}

#: Limits of a client among those.
_OF_CLIENTS: Final = ("max_head", "queue_bytes", "queue_size", "fragment_size")

#: Options of `loop.create_connection` whose subject has no option here: addresses are always raced.
_OF_THE_DIALING: Final = frozenset({"happy_eyeballs_delay", "interleave", "all_errors"})

#: Options of clients that have no equal here.
_REFUSED_BY_CLIENTS: Final = {
    "family": "give sock=, a connected socket",
    "proto": "give sock=, a connected socket",
    "flags": "leave it out",
    "ssl_handshake_timeout": "open_timeout bounds the TLS handshake, too: leave it out",
    "ssl_shutdown_timeout": "close_timeout bounds the end of TLS, too: leave it out",
    "extensions": "use compression='deflate', or compression=plumews.Deflate(...) for its parameters",
}


def listening_options(given: dict[str, Any]) -> dict[str, Any]:
    """Return the keywords for `loop.create_server` as options of plumews, with those that only plumews has.

    Raises:
        TypeError: an option has no equal.
    """
    options = dict(given)
    if options.pop("reuse_address", None) is False:
        raise TypeError("reuse_address=False is not supported: the address is always reused")
    for name in _REFUSED.keys() & options.keys():
        if options.pop(name) is not None:
            raise TypeError(f"{name} is not supported: {_REFUSED[name]}")
    return {**_UNLIMITED, **options}


def client_options(given: dict[str, Any]) -> dict[str, Any]:
    """Return the other keywords of ``connect()`` as options of :func:`plumews.connect`.

    Raises:
        TypeError: an option has no equal.
    """
    options = {name: value for name, value in given.items() if name not in _OF_THE_DIALING}
    for name in _REFUSED_BY_CLIENTS.keys() & options.keys():
        if options.pop(name) is not None:
            raise TypeError(f"{name} is not supported: {_REFUSED_BY_CLIENTS[name]}")
    return {**{name: _UNLIMITED[name] for name in _OF_CLIENTS}, **options}


def connect_options(
    given: dict[str, Any],
    *,
    ssl: ssl_module.SSLContext | bool | None,
    extensions: None,
    additional_headers: HeadersLike | None,
    compression: Any,
    of_request: dict[str, Any],
    **of_conn: Any,
) -> dict[str, Any]:
    """Return the options of ``connect()`` for plumews.

    Args:
        given: other keywords of ``connect()``.
        ssl: TLS context, or another value for the default one.
        extensions: ``None``.
        additional_headers: headers of the request.
        compression: ``"deflate"``, or ``None`` for none.
        of_request: options with the same name and meaning.
        of_conn: those of :func:`conn_options`.

    Raises:
        TypeError, ValueError: as :func:`client_options` and :func:`conn_options`.
    """
    options = client_options(given if extensions is None else {**given, "extensions": extensions})
    if isinstance(ssl, ssl_module.SSLContext):
        options["ssl"] = ssl
    if additional_headers is not None:
        options["additional_headers"] = list(Headers(additional_headers).raw_items())
    checked = conn_options(compression=compression, **of_conn)
    if compression == "deflate":
        checked["compression"] = "deflate"  # as a client
    return {**of_request, **checked, **options}


def conn_options(
    *,
    compression: Any,
    open_timeout: float | None,
    ping_interval: float | None,
    ping_timeout: float | None,
    close_timeout: float | None,
    max_size: int | tuple[int | None, int | None] | None,
    max_queue: int | tuple[int | None, int | None] | None,
    write_limit: int | tuple[int, int | None],
) -> dict[str, Any]:
    """Return the options of a connection for plumews.

    Raises:
        ValueError: a value cannot mean the same, or is out of range.
    """
    if compression not in (None, "deflate") and not isinstance(compression, Deflate):
        raise ValueError(f"unsupported compression: {compression}")
    _check_marks("write_limit", write_limit)
    high = max_queue[0] if isinstance(max_queue, tuple) else max_queue
    if isinstance(max_queue, tuple):
        _check_marks("max_queue", max_queue)
        if high is None and max_queue[1] is not None:
            high = 4 * max_queue[1]
    queue: dict[str, Any] = {}  # the default of `websockets` is small, and memory is bounded by `max_queue_bytes`
    if high is None:
        queue = {"max_queue": limits.COUNT_MOST, "max_queue_bytes": limits.COUNT_MOST}
    elif high != _MAX_QUEUE:
        queue = {"max_queue": max(1, high)}
    return {
        "compression": _DEFLATE if compression == "deflate" else compression,
        "open_timeout": FOREVER if open_timeout is None else open_timeout,
        "close_timeout": FOREVER if close_timeout is None else close_timeout or _AT_ONCE,
        "ping_interval": ping_interval,
        "ping_timeout": ping_timeout,
        "max_size": _message_size(max_size),
        **queue,
    }


def _message_size(max_size: int | tuple[int | None, int | None] | None) -> int | None:
    if not isinstance(max_size, tuple):
        return max_size
    message, fragment = max_size
    if fragment is not None and (message is None or fragment < message):
        raise ValueError(
            f"max_size={max_size} bounds fragments: plumews bounds messages, whose memory follows the bytes that have "
            f"arrived; use max_size={message}"
        )
    return message


def _check_marks(name: str, marks: int | tuple[int | None, int | None]) -> None:
    if not isinstance(marks, tuple):
        return
    high, low = marks
    if (high or 0) < 0 or (low or 0) < 0 or (high is not None and low is not None and low > high):
        raise ValueError(f"{name} must be (high, low) with high >= low >= 0, not {marks}")


def takes_path(handler: Callable[..., Any]) -> bool:
    """Return True if ``handler`` takes a connection and a path, as in the legacy API.

    Raises:
        TypeError: it takes neither a connection nor both.
    """
    if not callable(handler):
        raise TypeError(f"the handler must be an `async def` function, not {type(handler).__name__}")
    try:
        signature = inspect.signature(handler)
    except (TypeError, ValueError):
        return False
    for arguments in (("websocket",), ("websocket", "path")):
        try:
            signature.bind(*arguments)
        except TypeError:
            continue
        return len(arguments) == 2
    raise TypeError(f"the handler is called with (websocket), but takes {signature}")


def check_hook(name: str, hook: Callable[..., Any] | None, *parameters: str) -> None:
    """Raise ``TypeError`` unless ``hook`` is ``None`` or a function of ``parameters``, and not of the legacy API."""
    if hook is None:
        return
    if not callable(hook):
        raise TypeError(f"{name} must be a function, not {type(hook).__name__}")
    try:
        signature = inspect.signature(hook)
        signature.bind(*parameters)
    except ValueError:
        return
    except TypeError:
        raise TypeError(f"{name} is called with ({', '.join(parameters)}), but takes {signature}") from None
    if name == "process_request" and next(iter(signature.parameters), "") == "path":
        raise TypeError(f"process_request{signature} is not supported: {_LEGACY}")


# --- URIs -----------------------------------------------------------------------------------------

_NO_PASSWORD: Final = "username provided without password"  # noqa: S105 - a text


def is_secure(uri: str, proxy: object) -> bool:
    """Return True if the URI of a client is that of TLS. ``proxy`` is checked if it is a URL.

    Raises:
        InvalidURI, InvalidProxy: one of them is malformed, or has a user without a password.
    """
    try:
        parsed = parse_uri(uri)
    except errors.InvalidURI as exc:
        raise InvalidURI(uri, str(exc).removeprefix("invalid WebSocket URI: ")) from None
    if parsed.user is not None and parsed.password is None:
        raise InvalidURI(uri, _NO_PASSWORD)
    if isinstance(proxy, str):
        _check_proxy(proxy)
    return parsed.secure


def _check_proxy(url: str) -> None:
    if "://" not in url:  # plumews takes a host alone for an HTTP proxy
        raise InvalidProxy(url, "scheme  isn't supported")
    try:
        proxy = parse_proxy(url)
    except errors.InvalidURI as exc:
        raise InvalidProxy(url, str(exc).removeprefix("invalid proxy URL: ")) from None
    if proxy.user is not None and proxy.password is None:
        raise InvalidProxy(url, _NO_PASSWORD)
