"""Accept connections on the listening sockets of one server, and reject the clients that are not admitted.

Each client is judged by its address (`admission`) before a transport or a `Conn` is made for it. A rejected client
costs one short response. An event loop that cannot watch sockets (Windows' proactor) accepts by itself, and `handshake`
asks `admission` instead.

A loop iteration accepts a bounded number of connections. After a failed accept, the socket is not watched for
a tenth of a second: it stays readable, and the loop would spin. The clients in the backlog of a stopping
server get a response.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import math
import os
import socket
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextvars import Context
from functools import partial
from typing import Any, Final

from .. import limits
from ..conn.connection import Conn
from ..constants import ErrorCode
from ..errors import InvalidHandshake, Refused
from ..http11.handshake import refusal
from ..http11.request import address_of
from ..transport.loop_context import loop_context
from ..transport.timers import Deadline, Timers
from ..transport.tls import TLSTransport
from .admission import ConnectionSlot
from .context import ServerContext
from .responder import stopping
from .sockets import InheritedSocket, OwnSocket, accept_from

__all__ = ["EXHAUSTED", "Listener", "RejectedSockets", "SpareDescriptor"]

logger = logging.getLogger("plumews.server")

#: Errors of ``accept`` when the process or the machine has no descriptor or memory for another connection.
EXHAUSTED: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})

#: Connections accepted in one event loop iteration: some 3 ms of work, then open connections continue.
_ACCEPTS_AT_ONCE: Final = 64

#: Seconds without accepting if the process has no descriptors left: short, so that accepting resumes at once.
_ACCEPT_PAUSE: Final = 0.1

#: Seconds between two log lines about connections that cannot be accepted.
_ACCEPT_LOG_EVERY: Final = 1.0

#: Seconds between two checks if rejected clients have gone.
_LINGER_EVERY: Final = 0.1

#: Reads of the data of a rejected client at a time, and their size: more than a request, less than a flood.
_READS: Final = 4
_READ_SIZE: Final = 16 * limits.KiB


class Listener:
    """Accepts connections of one server on ``sockets``. They already listen, and are closed with the server.

    ``connection(slot, address)`` makes the protocol of an admitted client, ``connection()`` of one that is not judged
    yet.
    """

    def __init__(
        self, context: ServerContext, sockets: Sequence[socket.socket], connection: Callable[..., Conn]
    ) -> None:
        self._context = context
        self._listening = tuple(sockets)
        self._backlog = context.options.backlog
        self._connection = connection
        self._secure = context.options.ssl is not None
        self._loop = asyncio.get_running_loop()
        # Of these loops it is known that they connect a plain socket without asking for the running task.
        self._steps = type(self._loop).__module__.partition(".")[0] in ("asyncio", "uvloop")
        self._state = loop_context(self._loop)
        self._timers = self._state.timers
        self._sockets: list[socket.socket] = []  # the watched ones; none if the loop's servers accept
        self._servers: list[asyncio.AbstractServer] = []
        self._paused: dict[socket.socket, Deadline] = {}
        self._spare: SpareDescriptor | None = None
        self._rejected = RejectedSockets(self._timers)
        #: Connections without a transport yet.
        self._connecting: dict[asyncio.Future[Any], socket.socket] = {}
        #: Connections in their TLS handshake, by their slots.
        self._handshakes: dict[object, TLSTransport] = {}
        self._turned_away = 0  # since the last log line about it
        self._next_line = -math.inf

    @property
    def sockets(self) -> tuple[socket.socket, ...]:
        """Listening sockets; empty after :meth:`close`."""
        return self._listening

    async def start_serving(self) -> None:
        """Begin to accept connections."""
        try:
            for sock in self._listening:
                sock.setblocking(False)
                self._watch(sock)
                self._sockets.append(sock)
            self._spare = SpareDescriptor()
        except NotImplementedError:  # a loop that cannot watch descriptors, such as the proactor of Windows
            self._servers = [await self._serve(sock) for sock in self._listening]

    def _serve(self, sock: socket.socket) -> Awaitable[asyncio.AbstractServer]:
        protocol = self._tls_connection if self._secure else self._connection
        serving = self._loop.create_server(protocol, sock=sock, backlog=self._backlog)
        return Context().run(self._loop.create_task, serving)

    def close(self) -> None:
        """Stop accepting. Reject the clients in the backlog.

        The backlog of an inherited socket is left to the next process that serves there.
        """
        for sock in self._sockets:
            self._loop.remove_reader(sock)
            if not isinstance(sock, InheritedSocket):
                self._empty(sock)
        for deadline in self._paused.values():
            deadline.cancel()
        self._paused.clear()
        if self._spare is not None:
            self._spare.close()
        for server in self._servers:
            server.close()
        for sock in self._listening:
            sock.close()
        self._listening, self._sockets = (), []

    def forked(self) -> list[int]:
        """Accept nothing in this process, a child of a fork. Return the descriptors that belong to the parent.

        Sockets that the application gave stay open: the child may serve there, too.
        """
        made = [sock for sock in self._listening if isinstance(sock, OwnSocket)]
        self._listening, self._sockets = (), []
        handshaking = [sock for tls in self._handshakes.values() if (sock := tls.get_extra_info("socket")) is not None]
        return [
            *(sock.fileno() for sock in [*made, *self._connecting.values(), *handshaking]),
            *self._rejected.forked(),
        ]

    async def wait_connected(self) -> None:
        """Wait until each admitted client has its transport. Over TLS it may still be in its handshake."""
        if self._connecting:
            await asyncio.wait(self._connecting)

    async def wait_rejected(self) -> None:
        """Wait until the rejected clients had time to read their response."""
        await self._rejected.wait_idle()

    def end_tls_handshakes(self) -> None:
        """End the connections that are in their TLS handshake."""
        for tls in list(self._handshakes.values()):
            tls.abort()

    def abort(self) -> None:
        """End the connections that are not connected yet, and the rejected ones."""
        self._rejected.close()
        self.end_tls_handshakes()
        for task in self._connecting:
            task.cancel()
        # Python 3.13 can end the connections that the loop's server has accepted.
        for server in self._servers:
            getattr(server, "abort_clients", lambda: None)()

    # --- accepting --------------------------------------------------------------------------------

    def _watch(self, sock: socket.socket) -> None:
        self._paused.pop(sock, None)
        Context().run(self._loop.add_reader, sock, self._accept, sock)

    def _accept(self, listening: socket.socket) -> None:
        left = _ACCEPTS_AT_ONCE
        while left:  # a range costs more, for one connection
            left -= 1
            try:
                sock, address = accept_from(listening)
            except (BlockingIOError, InterruptedError):
                return
            except ConnectionError:
                continue  # the client has gone meanwhile
            except OSError as exc:
                self._cannot_accept(listening, exc)
                return
            self._admit(sock, address)
            if len(self._connecting) == 1:
                return  # mostly there is no other: it costs less to be called again than to ask in vain

    def _admit(self, sock: socket.socket, address: Any) -> None:
        context = self._context
        if context.closing:
            self._reject(sock, stopping())
            return
        try:
            slot = context.admission.admit(address_of(address) or None, self._loop.time())
        except Refused as exc:
            self._reject(sock, exc)
            return
        protocol = self._tls_connection if self._secure else self._connection
        connecting = self._loop.connect_accepted_socket(partial(protocol, slot, address), sock)
        if self._steps:
            context.context.copy().run(self._step, connecting, sock, slot)
            return
        task = context.context.run(self._loop.create_task, connecting)
        self._connecting[task] = sock
        task.add_done_callback(partial(self._connected, sock, slot), context=Context())

    def _step(
        self,
        connecting: Coroutine[Any, Any, Any],
        sock: socket.socket,
        slot: ConnectionSlot,
        waited_for: asyncio.Future[Any] | None = None,
    ) -> None:
        """Let ``connecting`` go on until it waits for a future: once, for its transport. A task would cost more."""
        if waited_for is not None:
            self._connecting.pop(waited_for, None)
        try:
            waits_for = connecting.send(None)
        except StopIteration:
            return
        except BaseException as exc:
            self._failed(sock, slot, exc)
            if waited_for is None:
                sock.close()  # there is no transport
            if isinstance(exc, (KeyboardInterrupt, SystemExit)):
                raise
            return
        waits_for._asyncio_future_blocking = False  # as a task does
        self._connecting[waits_for] = sock
        waits_for.add_done_callback(partial(self._step, connecting, sock, slot))

    def _connected(self, sock: socket.socket, slot: ConnectionSlot, task: asyncio.Future[Any]) -> None:
        self._connecting.pop(task, None)
        if task.cancelled():
            self._failed(sock, slot, None)
        elif (failure := task.exception()) is not None:
            self._failed(sock, slot, failure)

    def _failed(self, sock: socket.socket, slot: ConnectionSlot, failure: BaseException | None) -> None:
        with contextlib.suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)  # the loop may still hold the socket
        self._handshake_ended(slot, slot, failure or asyncio.CancelledError())

    # --- TLS --------------------------------------------------------------------------------------

    def _tls_connection(self, slot: ConnectionSlot | None = None, address: Any = None) -> TLSTransport:
        """Make the protocol of a client that begins with a TLS handshake, bounded by the open timeout."""
        options = self._context.options
        assert options.ssl is not None
        key = slot or object()
        tls = self._handshakes[key] = TLSTransport(
            self._state,
            self._connection(slot, address),
            options.ssl,
            partial(self._handshake_ended, key, slot),
            server_side=True,
            handshake_timeout=options.open_timeout,
        )
        return tls

    def _handshake_ended(self, key: object, slot: ConnectionSlot | None, failure: BaseException | None) -> None:
        """Note the end of a TLS handshake. A ``failure``, in it or before it, ends the client before it is open."""
        self._handshakes.pop(key, None)
        if failure is None:
            return
        if slot is not None:
            slot.left()
        # An OSError is how TLS fails, or the client goes.
        if not isinstance(failure, (OSError, asyncio.CancelledError)):
            logger.error("connecting a client failed", exc_info=failure)

    # --- rejecting --------------------------------------------------------------------------------

    def _reject(self, sock: socket.socket, reason: InvalidHandshake, *, wait: bool = True) -> None:
        logger.debug("refused %d %s", reason.status, reason.code)
        self._context.requests.refused.add(reason.code)
        if not self._secure:
            self._rejected.answer(sock, reason, wait=wait)
        else:
            sock.close()  # a TLS handshake is the cost that the rejection saves

    def _empty(self, listening: socket.socket) -> None:
        """Reject the clients in the backlog: the server stops."""
        with contextlib.suppress(OSError):
            for _ in range(self._backlog):
                sock, _ = listening.accept()
                self._reject(sock, stopping())

    def _cannot_accept(self, listening: socket.socket, exc: OSError) -> None:
        """Reject some clients if descriptors are exhausted, and watch the socket again after a pause."""
        if exc.errno in EXHAUSTED and self._spare is not None:
            self._turned_away += self._spare.turn_away(
                listening, lambda sock: self._reject(sock, _exhausted(), wait=False)
            )
        self._loop.remove_reader(listening)
        self._paused[listening] = self._timers.after(_ACCEPT_PAUSE, lambda: self._watch(listening))
        now = self._loop.time()
        if now >= self._next_line:
            logger.error("cannot accept connections: %s (%d turned away)", exc.strerror, self._turned_away)
            self._turned_away, self._next_line = 0, now + _ACCEPT_LOG_EVERY


def _exhausted() -> Refused:
    return Refused.busy("the server has no room", ErrorCode.OUT_OF_DESCRIPTORS)


# --- without a descriptor for the client ----------------------------------------------------------


class SpareDescriptor:
    """Spare file descriptor, used to reject clients when the process hits its descriptor limit (EMFILE).

    Without it a client in the backlog can be neither accepted nor rejected, and the loop spins.
    """

    def __init__(self) -> None:
        self._held: int | None = None
        self._take()

    def turn_away(self, listening: socket.socket, tell: Callable[[socket.socket], None]) -> int:
        """Accept clients of the backlog one after the other, at most 64. Return their number.

        ``tell`` must close each socket. If another thread takes the free descriptor first, fewer are accepted.
        """
        turned = 0
        self.close()
        with contextlib.suppress(OSError):
            while turned < _ACCEPTS_AT_ONCE:
                sock, _ = listening.accept()
                turned += 1
                tell(sock)
        self._take()
        return turned

    def close(self) -> None:
        """Release the descriptor."""
        if self._held is not None:
            os.close(self._held)
            self._held = None

    def __del__(self) -> None:
        self.close()  # the loop may be closed without the server

    def _take(self) -> None:
        with contextlib.suppress(OSError):
            self._held = os.open(os.devnull, os.O_RDONLY)


# --- rejected clients -----------------------------------------------------------------------------


class RejectedSockets:
    """Bare sockets of rejected clients that have time to read their response.

    A rejection needs no task, no transport and no `Conn`. The request is discarded without parsing. Closing a socket
    with unread bytes resets the connection, and the response may be lost. So a socket stays open until the client hangs
    up, at most ``limits.REJECTED_SOCKET_TIME`` seconds. At most ``limits.REJECTED_SOCKETS`` sockets wait.
    """

    def __init__(self, timers: Timers) -> None:
        self._timers = timers
        self._waiting: deque[tuple[float, socket.socket]] = deque()  # each with its time limit
        self._check: Deadline | None = None
        self._idle: asyncio.Future[None] | None = None

    def answer(self, sock: socket.socket, reason: InvalidHandshake, *, wait: bool = True) -> None:
        """Send the refusal for ``reason`` and take over ``sock``. Without ``wait``, close it at once."""
        try:
            sock.setblocking(False)
            sock.send(refusal(reason).serialize())
            sock.shutdown(socket.SHUT_WR)
        except OSError:
            _close(sock)  # the client has gone, or the kernel takes nothing
            return
        if _has_gone(sock) or not wait or len(self._waiting) >= limits.REJECTED_SOCKETS:
            _close(sock)
            return
        self._waiting.append((self._timers.time() + limits.REJECTED_SOCKET_TIME, sock))
        if self._check is None:
            self._check = self._timers.after(_LINGER_EVERY, self._sweep)

    async def wait_idle(self) -> None:
        """Wait until no socket is left."""
        if self._waiting:
            if self._idle is None:
                self._idle = asyncio.get_running_loop().create_future()
            await asyncio.shield(self._idle)

    def forked(self) -> list[int]:
        """Return the descriptors that belong to the parent: this process is a child of a fork."""
        return [sock.fileno() for _, sock in self._waiting]

    def close(self) -> None:
        """Close all sockets."""
        for _, sock in self._waiting:
            _close(sock)
        self._waiting.clear()
        self._end_wait()

    def _sweep(self) -> None:
        self._check = None
        now, waiting = self._timers.time(), self._waiting
        self._waiting = deque()
        for until, sock in waiting:
            if _has_gone(sock) or now >= until:
                _close(sock)
            else:
                self._waiting.append((until, sock))
        if self._waiting:
            self._check = self._timers.after(_LINGER_EVERY, self._sweep)
        else:
            self._end_wait()

    def _end_wait(self) -> None:
        if self._check is not None:
            self._check.cancel()
            self._check = None
        if self._idle is not None:
            self._idle.set_result(None)
            self._idle = None


def _close(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):  # one failure must not keep the other sockets open
        sock.close()


def _has_gone(sock: socket.socket) -> bool:
    """Discard the received data. Return True if the client has hung up."""
    try:
        return any(not sock.recv(_READ_SIZE) for _ in range(_READS))
    except (BlockingIOError, InterruptedError):
        return False
    except OSError:
        return True
