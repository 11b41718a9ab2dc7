"""Decision about a client that asks for a room, before its WebSocket is open or after that."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TYPE_CHECKING

from ..auth.token_lifetime import wait_for_answer
from ..constants import ErrorCode
from ..errors import InvalidHandshake

if TYPE_CHECKING:
    from ..conn.connection import Conn

__all__ = ["decided", "too_late"]


async def decided(conn: Conn, decision: Awaitable[None] | None, seconds: float) -> bool:
    """Wait for ``decision``, which the end of ``conn`` cancels. Return False if the client has gone meanwhile.

    Args:
        conn: connection of the client.
        decision: what an endpoint returns, ``None`` if it has decided at once.
        seconds: time for the decision.

    Raises:
        InvalidHandshake: the client is refused, or the time is over (408).
    """
    if decision is not None:
        deciding = asyncio.ensure_future(decision)
        try:
            await wait_for_answer(conn, deciding, seconds)
        except asyncio.TimeoutError:
            raise too_late() from None
        except asyncio.CancelledError:
            if not _has_gone(conn) or not deciding.cancelled():
                raise
            return False
    return not _has_gone(conn)


def too_late() -> InvalidHandshake:
    """Return the refusal of a client whose request took too long."""
    return InvalidHandshake("the request took too long", status=408, code=ErrorCode.HANDSHAKE_TIMEOUT)


def _has_gone(conn: Conn) -> bool:
    return conn._transport is None or (conn._handshake is None and conn.closed)
