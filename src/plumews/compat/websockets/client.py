"""State of the connections of a client, and the names of ``websockets.client``.

``connect``, ``unix_connect`` and ``WebSocketClientProtocol`` are those of the legacy API.
"""

from __future__ import annotations

import asyncio
import importlib
import os
import random
import traceback
from collections.abc import Callable, Generator, Iterator
from typing import TYPE_CHECKING, Any, Final

from .exceptions import InvalidMessage, InvalidStatus
from .refused import missing
from .server import ConnProtocol

if TYPE_CHECKING:
    from .legacy.client import WebSocketClientProtocol, connect, unix_connect

__all__ = ["ClientProtocol", "WebSocketClientProtocol", "backoff", "connect", "process_exception", "unix_connect"]

#: Statuses of responses that may be others soon.
_PASSING: Final = (500, 502, 503, 504)


class ClientProtocol(ConnProtocol):
    """State of one connection of a client."""

    __slots__ = ()

    _client = True


BACKOFF_INITIAL_DELAY = float(os.environ.get("WEBSOCKETS_BACKOFF_INITIAL_DELAY", "5"))
BACKOFF_MIN_DELAY = float(os.environ.get("WEBSOCKETS_BACKOFF_MIN_DELAY", "3.1"))
BACKOFF_MAX_DELAY = float(os.environ.get("WEBSOCKETS_BACKOFF_MAX_DELAY", "90.0"))
BACKOFF_FACTOR = float(os.environ.get("WEBSOCKETS_BACKOFF_FACTOR", "1.618"))


def backoff(
    initial_delay: float = BACKOFF_INITIAL_DELAY,
    min_delay: float = BACKOFF_MIN_DELAY,
    max_delay: float = BACKOFF_MAX_DELAY,
    factor: float = BACKOFF_FACTOR,
) -> Generator[float]:
    """Yield the seconds to wait after each failure. The defaults are those of the environment, as in `websockets`.

    Args:
        initial_delay: bound of the first delay, which is random.
        min_delay: second delay.
        max_delay: longest delay.
        factor: factor from each delay to the next.
    """
    yield random.random() * initial_delay  # noqa: S311 - no secret
    delay = min_delay
    while delay < max_delay:
        yield delay
        delay *= factor
    while True:
        yield max_delay


class Retries:
    """Failures of one iteration over connections of a client.

    Args:
        process_exception: ``f(exc)``: ``None`` tries again, an exception is raised.
        reconnect_delays: function that returns the seconds to wait after failures, one after the other.
        logger: logger of the client.
    """

    def __init__(
        self,
        process_exception: Callable[[Exception], Exception | None],
        reconnect_delays: Callable[[], Iterator[float]],
        logger: Any,
    ) -> None:
        self._process_exception = process_exception
        self._reconnect_delays = reconnect_delays
        self._logger = logger
        self._delays: Iterator[float] | None = None

    def succeeded(self) -> None:
        """Begin the delays anew."""
        self._delays = None

    def failed(self, exc: Exception) -> float:
        """Return the seconds to wait after ``exc``. Raise it, or that of ``process_exception``, to end."""
        try:
            raised = self._process_exception(exc)
        except Exception as of_hook:  # a frequent mistake
            raised = of_hook
        if raised is exc:
            raise exc
        if raised is not None:
            raise raised from exc
        if self._delays is None:
            self._delays = self._reconnect_delays()
        delay = next(self._delays)
        text = traceback.format_exception_only(type(exc), exc)[0].strip()
        self._logger.info("connect failed; reconnecting in %.1f seconds: %s", delay, text)
        return delay


def process_exception(exc: Exception) -> Exception | None:
    """Return ``None`` if ``async for websocket in connect(...)`` tries again after ``exc``, else ``exc``.

    Errors of the network, timeouts, an answer that the end of the connection cut, and the statuses 500, 502, 503 and
    504 may pass.
    """
    if isinstance(exc, (OSError, TimeoutError, asyncio.TimeoutError)):
        return None
    if isinstance(exc, InvalidMessage) and isinstance(exc.__cause__, EOFError):
        return None
    if isinstance(exc, InvalidStatus) and exc.response.status_code in _PASSING:
        return None
    return exc


_LEGACY: Final = frozenset({"WebSocketClientProtocol", "connect", "unix_connect"})

_missing = missing(__name__, {"ClientConnection": "import it from plumews.compat.websockets.asyncio.client"})

if not TYPE_CHECKING:  # checkers would take it for a sign that there is any name

    def __getattr__(name: str) -> Any:
        if name in _LEGACY:  # their module imports this one
            return getattr(importlib.import_module(f"{__package__}.legacy.client"), name)
        return _missing(name)
