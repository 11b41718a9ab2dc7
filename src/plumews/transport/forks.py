"""Isolation of a forked child process from the connections, servers and hubs of its parent.

A fork copies the loop, the connections and their descriptors. Both processes would then close, answer and read the same
sockets, and change the same epoll instance. The child therefore replaces each inherited descriptor by the null device
at once, so that the parent's own close reaches its peers, too. A loop with a server gets an empty poller.

Invariants: a child touches no open descriptor of its parent. A server that the child starts works as usual.
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

__all__ = [
    "FOREIGN",
    "Owner",
    "after_fork",
    "check_owner",
    "detach_on_fork",
    "foreign_error",
    "loop_descriptors",
]

#: Thread id, in a child, of connections and hubs that belong to the parent. No thread has this id.
FOREIGN: Final = 0


class Owner(Protocol):
    """Object that belongs to the process that made it."""

    def _forked(self) -> Iterable[int]:
        """Refuse calls from now on. Return the descriptors of the parent."""


_owners: Final[weakref.WeakSet[Any]] = weakref.WeakSet()
_actions: Final[list[Callable[[], object]]] = []


def detach_on_fork(owner: Owner) -> None:
    """Make ``owner`` unusable in each child of this process."""
    _owners.add(owner)


def after_fork(action: Callable[[], object]) -> None:
    """Call ``action()`` in each child before any other code runs there."""
    _actions.append(action)


def foreign_error(what: str) -> ConcurrencyError:
    """Return the error for a call in a child process to ``what``, an object of its parent."""
    return ConcurrencyError(
        f"this {what} belongs to the process that has forked this one, and goes on there: "
        f"start a server, with its own {what}, in the child process"
    )


def check_owner(thread: int | None, what: str) -> None:
    """Raise `ConcurrencyError` if ``what`` belongs to the parent, which ``thread`` tells."""
    if thread == FOREIGN:
        raise foreign_error(what)


# --- in the child ---------------------------------------------------------------------------------


def loop_descriptors(loop: asyncio.AbstractEventLoop) -> Iterable[int]:
    """Give ``loop`` an empty poller. Return its descriptors that wake the parent."""
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
    """Replace ``fds`` by the null device. The numbers stay in use until their owners close them."""
    fds.discard(-1)
    if not fds:
        return
    try:
        null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    except OSError:  # no descriptor is left: use one of these
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
    with contextlib.suppress(ValueError):  # before Python 3.12 a signal to the child would wake the parent
        signal.set_wakeup_fd(-1)
    fds: set[int] = set()
    failure: Exception | None = None
    for owner in list(_owners):
        try:
            fds.update(owner._forked())
        except Exception as exc:  # noqa: PERF203 - the other owners must be detached, too
            failure = exc
    _owners.clear()
    _replace(fds)
    if failure is not None:
        raise failure


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_in_child)
