"""A request to a `Route`: who may, then its body, then the answer (layer 5).

RFC 9110 section 10.1.1 (``Expect``) and RFC 9112 section 6.3. Invariants: nothing of a body is waited for before it is
known that who sends it may, and that it is small enough; never more than that is kept. Time is bounded by the opening,
which cancels what takes too long.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from typing import Final

from .. import limits
from ..errors import InvalidHandshake
from ..http11.models import Request, Response
from .routes import Route, checked_answer

__all__ = ["ArrivingBody", "answer_with_body"]

_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"


class ArrivingBody:
    """What comes behind the head, in ``rest``, to which somebody else adds and then calls :meth:`arrived`."""

    __slots__ = ("_ask_transport", "_complete", "_length", "_over", "_rest")

    def __init__(self, rest: bytearray, ask_transport: Callable[..., object]) -> None:
        """``ask_transport(name, *args)`` calls a method of the transport, and never raises."""
        self._rest = rest
        self._ask_transport = ask_transport
        self._length = 0
        self._complete: asyncio.Future[None] | None = None
        self._over = False

    def arrived(self) -> None:
        """More is in the rest: enough, or too much for now."""
        enough = len(self._rest) >= self._length
        if self._complete is not None and enough and not self._complete.done():
            self._complete.set_result(None)
        if enough and len(self._rest) > limits.HEAD_SIZE:
            self._ask_transport("pause_reading")

    def end(self) -> None:
        """No more comes, and who asks for it is to be cancelled: an authorizer may have ignored that he was."""
        self._over = True

    async def read(self, length: int, *, invite: bool) -> bytes:
        """The first ``length`` bytes; ``invite``: the client waits to be told that it may send them."""
        if self._over:
            raise asyncio.CancelledError
        if len(self._rest) < length:
            self._length = length
            self._complete = asyncio.get_running_loop().create_future()
            if invite and not self._rest:
                self._ask_transport("write", _CONTINUE)
            self._ask_transport("resume_reading")
            await self._complete
        with memoryview(self._rest) as view:
            return bytes(view[:length])


async def answer_with_body(route: Route, request: Request, body: ArrivingBody) -> Response:
    """The answer of ``route``, whose method was checked.

    Raises:
        InvalidHandshake: 413 for a body that is too large, 417 for an ``Expect`` that is not ``100-continue``, and
            what the functions of the route refuse with.
    """
    if route.authorize is not None:
        allowed = route.authorize(request)
        if inspect.isawaitable(allowed):
            await allowed
    length = request.content_length
    if length > route.max_body:
        raise InvalidHandshake("request body too large", status=413, code="WEBSOCKET_REQUEST_TOO_LARGE")
    if length:
        # RFC 9110 section 10.1.1: a client of HTTP/1.0 would take the 100 for the answer.
        expected = request.headers.get_all("Expect") if request.http_version == "1.1" else []
        if any(value.lower() != "100-continue" for value in expected):
            raise InvalidHandshake("unknown expectation: there is 100-continue", status=417, code="EXPECTATION_FAILED")
        request.body = await body.read(length, invite=bool(expected))
    answer = route.handler(request)
    return checked_answer(request, await answer if inspect.isawaitable(answer) else answer)
