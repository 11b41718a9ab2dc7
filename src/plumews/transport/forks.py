"""What a child process does not inherit: the connections, servers and hubs of the process that forked it (layer 3).

A fork copies the loop, the connections and their descriptors. Both processes would then close, answer and read the same
sockets, and change the same epoll instance. So in the child each inherited descriptor is replaced by one of the null
device at once: whatever the child does, on purpose or while it ends, no byte and no end reaches a peer of the parent.
And the parent's own close reaches its peers, because no copy of the socket is left open. A loop on which a server runs
gets an empty poller and its own wake-up descriptors in the child, for the same reason.

Invariants: nothing in a child touches what its parent has open; what a child starts by itself works as anywhere.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import signal
import sys
import weakref
from collections.abc import Callable, Iterable
from typing import Any, Final, Protocol

from ..errors import ConcurrencyError

__all__ = ["FOREIGN", "Owner", "after_fork", "check_owner", "foreign", "loop_descriptors", "own"]

#: The thread to which a connection or a hub of the parent belongs in a child: none has this number.
FOREIGN: Final = 0


class Owner(Protocol):
    """Object that belongs to the process that made it."""

    def _forked(self) -> Iterable[int]:
        """Refuse calls from now on. Return the descriptors that are the parent's."""


_owners: Final[weakref.WeakSet[Any]] = weakref.WeakSet()
_actions: Final[list[Callable[[], object]]] = []


def own(owner: Owner) -> None:
    """Take ``owner`` from the children of this process."""
    _owners.add(owner)


def after_fork(action: Callable[[], object]) -> None:
    """Call ``action`` in each child, before anything else happens there."""
    _actions.append(action)


def foreign(what: str) -> ConcurrencyError:
    """Return the error of a call in a child process to ``what``, which is its parent's."""
    return ConcurrencyError(
        f"this {what} belongs to the process that has forked this one, and goes on there: "
        f"start a server, with its own {what}, in the child process"
    )


def check_owner(thread: int | None, what: str) -> None:
    """Raise `ConcurrencyError` if ``thread`` says that ``what`` is the parent's."""
    if thread == FOREIGN:
        raise foreign(what)


# --- in the child ---------------------------------------------------------------------------------


def loop_descriptors(loop: asyncio.AbstractEventLoop) -> Iterable[int]:
    """Give ``loop`` an empty poller, and return its descriptors that wake the parent."""
    fds: list[int] = []
    poller = -1
    with contextlib.suppress(AttributeError, ValueError, OSError, RuntimeError):
        if hasattr(loop, "_get_backend_id"):  # uvloop
            poller = loop._get_backend_id()
        else:
            fds = [loop._ssock.fileno(), loop._csock.fileno()]  # type: ignore[attr-defined]
            poller = loop._selector.fileno()  # type: ignore[attr-defined]
    if poller >= 0 and sys.platform == "linux":
        with contextlib.suppress(OSError), select.epoll() as empty:
            os.dup2(empty.fileno(), poller, inheritable=False)
    return fds


def _replace(fds: set[int]) -> None:
    """Put the null device in the place of ``fds``: their numbers stay taken until whoever has them closes them."""
    fds.discard(-1)
    if not fds:
        return
    try:
        null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    except OSError:  # there are no descriptors left: one of these is
        os.close(next(iter(fds)))
        null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    for fd in fds:
        if fd != null:
            os.dup2(null, fd, inheritable=False)
    if null not in fds:
        os.close(null)


def _after_in_child() -> None:
    for action in _actions:
        action()
    if not _owners:
        return
    with contextlib.suppress(ValueError):  # before Python 3.12 a signal of the child would wake the parent
        signal.set_wakeup_fd(-1)
    fds: set[int] = set()
    failure: Exception | None = None
    for owner in list(_owners):
        try:
            fds.update(owner._forked())
        except Exception as exc:  # noqa: PERF203 - the others are still to be taken from this process
            failure = exc
    _owners.clear()
    _replace(fds)
    if failure is not None:
        raise failure


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_in_child)
