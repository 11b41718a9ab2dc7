"""Our own accept on the listening sockets (layer 5).

An event loop accepts whoever comes and has no descriptor in reserve; here each client is looked at by its address
(`admission`) before anything is made for it, and who is refused costs an answer and no more (`turning_away`). A loop
that cannot watch sockets (Windows' proactor) accepts by itself: then admission is left to `opening`. Invariants: a
bounded number is accepted in one wake-up; a socket that cannot be accepted from is not looked at for a moment, so that
nothing spins; who is in the backlog of a server that stops gets an answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import socket
from collections.abc import Awaitable, Callable, Sequence
from contextvars import Context
from functools import partial
from typing import Any

from .. import limits
from ..conn.connection import Conn
from ..constants import ErrorCode
from ..errors import InvalidHandshake, Refused
from ..http11.proxies import address_of
from ..transport.loop_context import loop_context
from ..transport.timers import Deadline
from .admission import ConnectionSlot
from .context import ServerContext
from .reserve import EXHAUSTED, SpareDescriptor
from .responder import stopping
from .sockets import InheritedSocket, OwnSocket
from .turning_away import RejectedSockets

__all__ = ["Listener"]

logger = logging.getLogger("plumews.server")


class Listener:
    """Accepts for one server on ``sockets``, which listen already and are closed with it.

    ``connection(visit)`` makes the protocol of who was admitted, ``connection()`` that of who was not looked at yet.
    """

    def __init__(
        self, site: ServerContext, sockets: Sequence[socket.socket], backlog: int, connection: Callable[..., Conn]
    ) -> None:
        self._site = site
        self._listening = tuple(sockets)
        self._backlog = backlog
        self._connection = connection
        self._tls = _tls_options(site)
        self._loop = asyncio.get_running_loop()
        self._timers = loop_context(self._loop).timers
        self._sockets: list[socket.socket] = []  # those that are watched; none if the loop's servers accept
        self._servers: list[asyncio.AbstractServer] = []
        self._paused: dict[socket.socket, Deadline] = {}
        self._reserve: SpareDescriptor | None = None
        self._turning_away = RejectedSockets(self._timers)
        #: Connections on their way to a transport; over TLS until hands are shaken.
        self._connecting: dict[asyncio.Task[Any], socket.socket] = {}
        self._turned = 0  # since the last line about it
        self._next_line = -math.inf

    @property
    def sockets(self) -> tuple[socket.socket, ...]:
        """The listening sockets; none once it is closed."""
        return self._listening

    async def start_serving(self) -> None:
        """Accept from now on."""
        try:
            for sock in self._listening:
                sock.setblocking(False)
                self._watch(sock)
                self._sockets.append(sock)
            self._reserve = SpareDescriptor()
        except NotImplementedError:
            self._servers = [await self._serve(sock) for sock in self._listening]

    def _serve(self, sock: socket.socket) -> Awaitable[asyncio.AbstractServer]:
        serving = self._loop.create_server(self._connection, sock=sock, backlog=self._backlog, **self._tls)
        return Context().run(self._loop.create_task, serving)

    def close(self) -> None:
        """Accept nobody any more: who is in the backlog is told that the server stops.

        The backlog of an inherited socket is left to whoever serves there next.
        """
        for sock in self._sockets:
            self._loop.remove_reader(sock)
            if not isinstance(sock, InheritedSocket):
                self._empty(sock)
        for deadline in self._paused.values():
            deadline.cancel()
        self._paused.clear()
        if self._reserve is not None:
            self._reserve.close()
        for server in self._servers:
            server.close()
        for sock in self._listening:
            sock.close()
        self._listening, self._sockets = (), []

    def forked(self) -> list[int]:
        """Accept nothing in this process, which is a child. Return the descriptors that are the parent's.

        A socket that was given is left to the child, which may serve there, too.
        """
        made = [sock for sock in self._listening if isinstance(sock, OwnSocket)]
        self._listening, self._sockets = (), []
        return [*(sock.fileno() for sock in [*made, *self._connecting.values()]), *self._turning_away.forked()]

    async def wait_connected(self) -> None:
        """Until whoever was admitted last has its transport; over TLS that may take too long."""
        if self._connecting and self._site.ssl is None:
            await asyncio.wait(self._connecting)

    async def wait_told(self) -> None:
        """Until those who were turned away had the time to read why."""
        await self._turning_away.wait_idle()

    def end_tls_handshakes(self) -> None:
        """End the connections that have not shaken hands for TLS."""
        if self._site.ssl is not None:
            for task in self._connecting:
                task.cancel()

    def abort(self) -> None:
        """End what has not even shaken hands for TLS."""
        self._turning_away.close()
        for task in self._connecting:
            task.cancel()
        # Python 3.13 can end those that the loop's server has accepted.
        for server in self._servers:
            getattr(server, "abort_clients", lambda: None)()

    # --- accepting --------------------------------------------------------------------------------

    def _watch(self, sock: socket.socket) -> None:
        self._paused.pop(sock, None)
        Context().run(self._loop.add_reader, sock, self._accept, sock)

    def _accept(self, listening: socket.socket) -> None:
        """Somebody is in the backlog."""
        for _ in range(limits.ACCEPTS_AT_ONCE):
            try:
                sock, address = listening.accept()
            except (BlockingIOError, InterruptedError):
                return
            except ConnectionError:
                continue  # it has gone meanwhile
            except OSError as exc:
                self._cannot_accept(listening, exc)
                return
            self._admit(sock, address)

    def _admit(self, sock: socket.socket, address: Any) -> None:
        site = self._site
        if site.closing:
            self._refuse(sock, stopping())
            return
        try:
            visit = site.admission.admit(address_of(address) or None, self._loop.time())
        except Refused as exc:
            self._refuse(sock, exc)
            return
        connecting = self._loop.connect_accepted_socket(partial(self._connection, visit), sock, **self._tls)
        task = self._site.context.run(self._loop.create_task, connecting)
        self._connecting[task] = sock
        task.add_done_callback(partial(self._connected, sock, visit), context=Context())

    def _connected(self, sock: socket.socket, visit: ConnectionSlot, task: asyncio.Task[Any]) -> None:
        self._connecting.pop(task, None)
        failure = None if task.cancelled() else task.exception()
        if not task.cancelled() and failure is None:
            return
        visit.left()
        with contextlib.suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)  # whoever holds it now, it ends
        if failure is not None and not isinstance(failure, OSError):  # which is how TLS fails, or the client goes
            logger.error("connecting a client failed", exc_info=failure)

    # --- refusing ---------------------------------------------------------------------------------

    def _refuse(self, sock: socket.socket, reason: InvalidHandshake, *, wait: bool = True) -> None:
        logger.debug("refused %d %s", reason.status, reason.code)
        self._site.requests.refused.add(reason.code)
        if self._site.ssl is None:
            self._turning_away.answer(sock, reason, wait=wait)
        else:
            sock.close()  # shaking hands first would be what the refusal is to save

    def _empty(self, listening: socket.socket) -> None:
        """Tell the backlog that the server stops."""
        with contextlib.suppress(OSError):
            for _ in range(self._backlog):
                sock, _ = listening.accept()
                self._refuse(sock, stopping())

    def _cannot_accept(self, listening: socket.socket, exc: OSError) -> None:
        """Turn some away, and look again in a moment: the socket stays readable, and would wake us without end."""
        if exc.errno in EXHAUSTED and self._reserve is not None:
            self._turned += self._reserve.turn_away(
                listening, lambda sock: self._refuse(sock, _exhausted(), wait=False)
            )
        self._loop.remove_reader(listening)
        self._paused[listening] = self._timers.after(limits.ACCEPT_PAUSE, lambda: self._watch(listening))
        now = self._loop.time()
        if now >= self._next_line:
            logger.error("cannot accept connections: %s (%d turned away)", exc.strerror, self._turned)
            self._turned, self._next_line = 0, now + limits.ACCEPT_LOG_EVERY


def _tls_options(site: ServerContext) -> dict[str, Any]:
    """What the loop wants to know for TLS, whose handshake is a part of the opening."""
    return {} if site.ssl is None else {"ssl": site.ssl, "ssl_handshake_timeout": site.open_timeout}


def _exhausted() -> Refused:
    return Refused.busy("the server has no room", ErrorCode.OUT_OF_DESCRIPTORS)
