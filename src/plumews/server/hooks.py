"""Hooks of the application in the opening handshake, and the checks of their results.

`select_subprotocol` chooses the subprotocol, `process_response` sees the response and may change it. A result is a
response that every client understands, or an exception before the first byte is written. A mistake of the application
is a 500 and a log entry. It is never a broken handshake, a header of two lines, or a token that is sent back.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextvars import copy_context
from typing import Any, TypeAlias

from ..conn.connection import Conn
from ..http11.handshake import is_handshake_header, offered_subprotocols
from ..http11.headers import Headers
from ..http11.models import Request, Response
from ..http11.redaction import BEARER

__all__ = [
    "ProcessRequest",
    "ProcessResponse",
    "SelectSubprotocol",
    "changed_answer",
    "changed_upgrade",
    "copy_of",
    "selected_subprotocol",
    "with_context",
]

ProcessRequest: TypeAlias = Callable[[Conn, Request], "Response | Awaitable[Response | None] | None"]
ProcessResponse: TypeAlias = Callable[[Conn, Request, Response], "Response | Awaitable[Response | None] | None"]
SelectSubprotocol: TypeAlias = Callable[[Conn, Sequence[str]], "str | None"]


def selected_subprotocol(select: SelectSubprotocol, conn: Conn, request: Request) -> str | None:
    """Return the choice of ``select`` among the offered subprotocols, without the tokens among them.

    Raises:
        TypeError, ValueError: it chose something else. Exceptions of ``select`` are raised as well.
    """
    offered = [subprotocol for subprotocol in offered_subprotocols(request) if not subprotocol.startswith(BEARER)]
    chosen = select(conn, tuple(offered))
    if chosen is not None and not isinstance(chosen, str):
        if isinstance(chosen, Awaitable):
            getattr(chosen, "close", lambda: None)()  # or Python warns that it was never awaited
        raise TypeError(f"select_subprotocol must return a str or None, not {type(chosen).__name__}")
    if chosen is not None and chosen not in offered:
        raise ValueError("select_subprotocol returned a subprotocol that the client did not offer")
    return chosen


def copy_of(response: Response) -> Response:
    """Return a copy of ``response`` that a hook may change. The original may be sent again."""
    return Response(response.status, Headers(response.headers), response.body, response.reason)


def changed_answer(given: Response, returned: object) -> Response:
    """Return the response that ``process_response`` made of ``given``, a response that is no 101."""
    response = _response(given, returned)
    if response.status < 200:
        raise ValueError(f"process_response must leave a refusal a final status, from 200 on, not {response.status}")
    return response


def changed_upgrade(before: Headers, given: Response, returned: object) -> Response:
    """Return the response that ``process_response`` made of ``given``, a 101 with the headers ``before``.

    Another status refuses the client.
    """
    response = _response(given, returned)
    if response.status == 101:
        if _of_handshake(response.headers) != _of_handshake(before):
            raise ValueError("process_response must leave the headers of the handshake as they are")
    elif response.status < 200:
        raise ValueError(f"process_response must return status 101, or one from 200 on, not {response.status}")
    elif response is given:  # a refusal has no use for the headers of the handshake
        for name in [name for name in response.headers if is_handshake_header(name)]:
            del response.headers[name]
    return response


async def with_context(conn: Conn, work: Awaitable[Any]) -> Any:
    """Return the result of ``work``. The handler of ``conn`` sees the context variables that a hook has set in it."""
    try:
        return await work
    finally:
        conn._context = copy_context()


def _response(given: Response, returned: object) -> Response:
    if returned is None:
        return given
    if not isinstance(returned, Response):
        raise TypeError(f"process_response must return a Response or None, not {type(returned).__name__}")
    return returned


def _of_handshake(headers: Headers) -> list[tuple[str, str]]:
    return [(name.lower(), value) for name, value in headers.raw_items() if is_handshake_header(name)]
