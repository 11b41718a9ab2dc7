"""Telling a client on a bare socket why it is turned away (layer 5).

Cheap, since those who are turned away come in crowds: no task, no transport, no `Conn`; the request is not read, only
thrown away. A socket that is closed with unread bytes resets the connection, which may swallow the answer, so the
client gets a moment to read it and to hang up first. Invariant: at most ``limits.LINGERING`` sockets wait, and none
longer than ``limits.LINGER_TIME``.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections import deque

from .. import limits
from ..errors import InvalidHandshake
from ..http11.handshake import refusal
from ..transport.timers import Deadline, Timers

__all__ = ["RejectedSockets"]

#: Reads of what a client sends at a time, and their size: more than a request, less than a flood.
_READS = 4
_READ_SIZE = 16 * limits.KiB


class RejectedSockets:
    """Those who are turned away by one server."""

    def __init__(self, timers: Timers) -> None:
        self._timers = timers
        self._waiting: deque[tuple[float, socket.socket]] = deque()  # until when, and who
        self._look: Deadline | None = None
        self._idle: asyncio.Future[None] | None = None

    def answer(self, sock: socket.socket, reason: InvalidHandshake, *, wait: bool = True) -> None:
        """Send the refusal for ``reason``, and the end; the socket is taken.

        Without ``wait`` it is closed at once, for those whose descriptor is needed.
        """
        try:
            sock.setblocking(False)
            sock.send(refusal(reason).serialize())
            sock.shutdown(socket.SHUT_WR)
        except OSError:
            _close(sock)  # it has gone, or its kernel takes nothing
            return
        if _has_gone(sock) or not wait or len(self._waiting) >= limits.LINGERING:
            _close(sock)
            return
        self._waiting.append((self._timers.time() + limits.LINGER_TIME, sock))
        if self._look is None:
            self._look = self._timers.after(limits.LINGER_EVERY, self._sweep)

    async def wait_idle(self) -> None:
        """Until nobody is waited for."""
        if self._waiting:
            if self._idle is None:
                self._idle = asyncio.get_running_loop().create_future()
            await asyncio.shield(self._idle)

    def forked(self) -> list[int]:
        """This process is a child. Return the descriptors of those who are waited for in the parent."""
        return [sock.fileno() for _, sock in self._waiting]

    def close(self) -> None:
        """Wait for nobody any more."""
        for _, sock in self._waiting:
            _close(sock)
        self._waiting.clear()
        self._rest()

    def _sweep(self) -> None:
        self._look = None
        now, waiting = self._timers.time(), self._waiting
        self._waiting = deque()
        for until, sock in waiting:
            if _has_gone(sock) or now >= until:
                _close(sock)
            else:
                self._waiting.append((until, sock))
        if self._waiting:
            self._look = self._timers.after(limits.LINGER_EVERY, self._sweep)
        else:
            self._rest()

    def _rest(self) -> None:
        if self._look is not None:
            self._look.cancel()
            self._look = None
        if self._idle is not None:
            self._idle.set_result(None)
            self._idle = None


def _close(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):  # one that fails keeps the others from nothing
        sock.close()


def _has_gone(sock: socket.socket) -> bool:
    """Throw away what has come; whether the client has hung up."""
    try:
        return any(not sock.recv(_READ_SIZE) for _ in range(_READS))
    except (BlockingIOError, InterruptedError):
        return False
    except OSError:
        return True
