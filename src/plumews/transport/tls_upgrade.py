"""TLS on a transport that is open already, as behind the answer of a proxy.

A :class:`.tls.TLSTransport` stands between the transport and the protocol above from then on.
"""

from __future__ import annotations

import asyncio
import ssl
from typing import Any

from .loop_context import loop_context
from .tls import HANDSHAKE_TIMEOUT, SHUTDOWN_TIMEOUT, TLSTransport

__all__ = ["start_tls"]


async def start_tls(
    transport: Any,
    protocol: Any,
    context: ssl.SSLContext,
    *,
    server_side: bool = False,
    server_hostname: str | None = None,
    handshake_timeout: float = HANDSHAKE_TIMEOUT,
    shutdown_timeout: float = SHUTDOWN_TIMEOUT,
) -> TLSTransport:
    """Begin TLS on an open ``transport``, which may be TLS itself. ``protocol.connection_made`` is called.

    Returns:
        the transport of ``protocol``.

    Raises:
        OSError: the handshake failed, or took longer than ``handshake_timeout`` seconds. The transport is closed.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()

    def shaken(failure: BaseException | None) -> None:
        if done.done():
            return
        if failure is None:
            done.set_result(None)
        else:
            done.set_exception(failure)

    tls = TLSTransport(
        loop_context(loop),
        protocol,
        context,
        shaken,
        server_side=server_side,
        server_hostname=server_hostname,
        handshake_timeout=handshake_timeout,
        shutdown_timeout=shutdown_timeout,
    )
    transport.set_protocol(tls)
    tls.connection_made(transport)
    try:
        await done
    except asyncio.CancelledError:
        tls.abort()
        raise
    return tls
