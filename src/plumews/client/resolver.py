"""Resolution of host names in threads of our own.

The executor of an event loop is shared with its application, and a resolver that does not answer would occupy it. Here
it occupies one thread for each name, and at most 32 in all. The threads are daemons: a lookup never keeps a process
alive.

Invariant: concurrent lookups of one name are one call of ``getaddrinfo``. Results are not kept.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Final, TypeAlias

__all__ = ["AddressInfo", "Resolver", "literal_address", "resolver"]

#: Family, type, protocol, canonical name and socket address, as ``socket.getaddrinfo`` returns them.
AddressInfo: TypeAlias = "tuple[int, int, int, str, tuple[Any, ...]]"

_Key: TypeAlias = "tuple[str, int]"

_THREADS: Final = 32

#: Seconds that an idle thread waits for the next lookup.
_IDLE: Final = 5.0


class Resolver:
    """Resolver with threads of its own.

    Args:
        getaddrinfo: Function that resolves a name (default: that of :mod:`socket`).
        threads: Most threads (default 32). Further names wait.
        idle: Seconds after which an idle thread ends (default 5).
    """

    def __init__(
        self, getaddrinfo: Callable[..., Any] | None = None, threads: int = _THREADS, idle: float = _IDLE
    ) -> None:
        self._getaddrinfo = getaddrinfo
        self._most = threads
        self._idle = idle
        self.forget()

    def forget(self) -> None:
        """Begin anew, as in the child of a fork: the threads of the parent are not there."""
        self._changed = threading.Condition()
        self._queue: deque[_Key] = deque()
        self._waiters: dict[_Key, list[Future[list[AddressInfo]]]] = {}
        self._threads = 0
        self._idle_threads = 0

    def resolve(self, host: str, port: int) -> Future[list[AddressInfo]]:
        """Resolve a host for TCP. The future has the addresses in the order of preference, or an ``OSError``.

        A canceled future does not stop the lookup, which other futures may wait for.
        """
        future: Future[list[AddressInfo]] = Future()
        key = host, port
        with self._changed:
            waiting = self._waiters.get(key)
            if waiting is not None:
                waiting.append(future)
                return future
            self._waiters[key] = [future]
            self._queue.append(key)
            if self._idle_threads >= len(self._queue) or self._threads >= self._most:
                self._changed.notify()
                return future
            self._threads += 1
        try:
            threading.Thread(target=self._run, name="plumews-resolver", daemon=True).start()
        except RuntimeError as exc:  # the machine has no more threads
            with self._changed:
                self._threads -= 1
                if not self._threads:
                    self._queue.remove(key)
                    self._finish(key, None, OSError(f"cannot start a thread: {exc}"))
        return future

    def _run(self) -> None:
        changed = self._changed
        while True:
            with changed:
                self._idle_threads += 1
                found = changed.wait_for(lambda: self._queue, self._idle)
                self._idle_threads -= 1
                if not found:
                    self._threads -= 1
                    return
                key = self._queue.popleft()
            addresses, error = None, None
            try:
                addresses = self._look_up(*key)
            except Exception as exc:
                # A name that the codec of the resolver refuses is a UnicodeError.
                error = exc if isinstance(exc, OSError) else OSError(f"cannot resolve {key[0]!r}: {exc}")
            with changed:
                waiting = self._waiters.pop(key)
            _tell(waiting, addresses, error)

    def _finish(self, key: _Key, addresses: list[AddressInfo] | None, error: OSError | None) -> None:
        _tell(self._waiters.pop(key), addresses, error)

    def _look_up(self, host: str, port: int) -> list[AddressInfo]:
        found = (self._getaddrinfo or socket.getaddrinfo)(host, port, type=socket.SOCK_STREAM)
        if not found:
            raise OSError(f"the name {host!r} has no address")
        return [_with_zone(one) for one in found]


def _tell(waiting: list[Future[list[AddressInfo]]], addresses: list[AddressInfo] | None, error: OSError | None) -> None:
    for future in waiting:
        if not future.set_running_or_notify_cancel():
            continue
        with contextlib.suppress(RuntimeError):  # the loop of this waiter is closed
            if error is None:
                future.set_result(list(addresses or ()))
            else:
                future.set_exception(error)


def literal_address(host: str, port: int) -> AddressInfo | None:
    """Return the address that ``host`` is, without a lookup, or ``None`` if it is a name.

    Raises:
        OSError: The zone of an IPv6 address does not exist.
    """
    if ":" in host:
        if "%" in host:
            return _with_zone(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)[0])
        return socket.AF_INET6, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (host, port, 0, 0)
    if host.rpartition(".")[2].isdigit():
        return socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (host, port)
    return None


def _with_zone(info: Any) -> AddressInfo:
    """Write the zone of an IPv6 address behind it: ``sock_connect`` of uvloop drops the number of the zone."""
    family, kind, protocol, name, address = info
    if family == socket.AF_INET6 and len(address) == 4 and address[3] and "%" not in address[0]:
        address = (f"{address[0]}%{address[3]}", *address[1:])
    return family, kind, protocol, name, address


#: Resolver of this process.
resolver: Final = Resolver()

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=resolver.forget)
