"""What stands in a line that plumews logs: who it is about, in printable ASCII, and not too often (layer 3).

A filter on each logger of plumews sets ``connection``, ``client``, ``room`` and ``user`` on every record and writes
them behind the text, escapes what is not printable ASCII, and leaves out what `log_limit` finds too much; one line a
second says so. Invariants: no secret of the request that a record is about stands in it, tracebacks included; a line
of a traceback cannot pass for an entry.
"""

from __future__ import annotations

import asyncio
import logging
import textwrap
import threading
import time
import weakref
from collections.abc import Iterable
from contextvars import Context
from functools import partial
from typing import Any, Final, TypeAlias

from .. import limits
from ..http11.log_text import printable, quoted
from ..http11.redaction import traceback_without
from ..http11.request_secrets import secrets_of
from ..transport.forks import after_fork
from .log_limit import LogLimit

__all__ = ["LOGGERS", "log_context", "request_line"]

#: A :class:`plumews.Conn`, which logs by these functions, too.
Conn: TypeAlias = Any

#: The loggers of plumews; a filter on one that stands above them would not see their records.
LOGGERS: Final = ("plumews.auth", "plumews.conn", "plumews.hub", "plumews.server")

#: What applications log about connections (`conn.logger`), which is theirs to bound.
_UNBOUNDED: Final = "plumews.conn"

#: What a record says of a connection, in this order.
_FIELDS: Final = ("connection", "client", "room", "user")

#: The kind of the line that tells what was left out.
_SUMMARY: Final = "left out"


def log_context(
    conn: Conn, kind: str | None = None, secrets: Iterable[str | None] = (), hint: str = ""
) -> dict[str, Any]:
    """The ``extra=`` of a record that is about ``conn``.

    Args:
        kind: lines of one kind are alike, and may be left out for each other (default: those of one text).
        secrets: what must not be told, beside what is secret in its request.
        hint: what to do about it, which stands at the end of the line; nothing that comes from outside.
    """
    return {"about": conn, "kind": kind, "secrets": tuple(secrets), "hint": hint}


def request_line(conn: Conn) -> str:
    """What ``conn`` asked for, without the query; as it was sent, which is printable."""
    request = conn._request
    return "no request" if request is None else f"{request.method} {quoted(request.target.partition('?')[0])}"


class _Limits:
    """The limit of each event loop, and one for what is logged outside of them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._of_loop: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, LogLimit] = weakref.WeakKeyDictionary()
        self._of_others = LogLimit()
        self._telling: weakref.WeakSet[asyncio.AbstractEventLoop] = weakref.WeakSet()

    def forked(self) -> None:
        self._lock = threading.Lock()

    def admit(self, record: logging.LogRecord, kind: str, logger: logging.Logger) -> bool:
        """Whether ``record`` may be logged; if not, that is going to be told."""
        loop = _running_loop()
        with self._lock:
            limit = self._of(loop)
            if limit.admit(kind, time.monotonic(), urgent=record.levelno >= logging.WARNING):
                return True
            if loop is not None and loop not in self._telling:
                self._telling.add(loop)
                tell = partial(self._tell, loop, logger, record.levelno)
                loop.call_later(limits.LOG_SUMMARY_EVERY, tell, context=Context())
        return False

    def _of(self, loop: asyncio.AbstractEventLoop | None) -> LogLimit:
        return self._of_others if loop is None else self._of_loop.setdefault(loop, LogLimit())

    def _tell(self, loop: asyncio.AbstractEventLoop, logger: logging.Logger, level: int) -> None:
        with self._lock:
            self._telling.discard(loop)
            counts = self._of(loop).take_left_out(time.monotonic())
        if not counts:
            return
        most = sorted(counts.items(), key=lambda item: -item[1])[: limits.LOG_KINDS]
        told = ", ".join(f"{count} of {quoted(kind)}" for kind, count in most)
        logger.log(level, "%d lines left out: %s", sum(counts.values()), told, extra={"kind": _SUMMARY})


_limits: Final = _Limits()
after_fork(_limits.forked)  # another thread may have had the lock at that moment


class _Filter(logging.Filter):
    """See the top of this file."""

    def __init__(self, logger: logging.Logger) -> None:
        super().__init__()
        self._logger = logger

    def filter(self, record: logging.LogRecord) -> bool:
        conn: Conn | None = record.__dict__.pop("about", None)
        hint = record.__dict__.pop("hint", "")
        exc = record.exc_info[1] if record.exc_info else None
        secrets: Iterable[str | None] = ()
        if self._logger.name != _UNBOUNDED:
            secrets = record.__dict__.pop("secrets", ())
            kind = record.__dict__.pop("kind", None) or str(record.msg)
            if exc is not None:
                kind = f"{kind} ({type(exc).__name__})"
            if kind != _SUMMARY and not _limits.admit(record, kind, self._logger):
                return False
        fields = _fields_of(conn)
        for name in _FIELDS:
            setattr(record, name, printable(fields.get(name, "-"))[: limits.LOG_VALUE])
        suffix = " ".join(f"{name}={quoted(value)}" for name, value in fields.items())
        text = printable(record.getMessage())[: limits.LOG_LINE]
        record.msg = (f"{text} [{suffix}]" if suffix else text) + (f"; {hint}" if hint else "")
        record.args = None
        if exc is not None:
            private = bool(secrets)
            if conn is not None and conn._request is not None:
                secrets = (*secrets, *secrets_of(conn._request))
            _tell_exception(record, exc, secrets, private)
        return True


def _tell_exception(
    record: logging.LogRecord, exc: BaseException, secrets: Iterable[str | None], private: bool
) -> None:
    """Let formatters show the traceback of ``exc``, harmless; handlers get ``exc`` itself unless it tells a secret."""
    told = traceback_without(exc, secrets)
    if private or told != traceback_without(exc, ()):
        record.exc_info = None  # what handlers see of its frames is all that was in their variables
    lines = told.replace("\r", " ").strip("\n").split("\n")
    record.exc_text = textwrap.indent("\n".join(map(printable, lines)), "  ")


def _fields_of(conn: Conn | None) -> dict[str, str]:
    """What is known about ``conn``."""
    if conn is None:
        return {}
    fields = {"connection": str(conn.id), "client": _client(conn)}
    room = conn._metadata.get("room") if conn._metadata else None
    if isinstance(room, str):
        fields["room"] = room
    if conn.user_info is not None and conn.user_info.id:
        fields["user"] = conn.user_info.id
    return fields


def _client(conn: Conn) -> str:
    """The address of the client, with the port of the socket where it is that of the client."""
    host, peer = conn.client_address, conn.remote_address
    if isinstance(peer, tuple) and peer[0] == host:
        return f"[{host}]:{peer[1]}" if ":" in host else f"{host}:{peer[1]}"
    return host or "unix"


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


for _name in LOGGERS:
    _logger = logging.getLogger(_name)
    _logger.addFilter(_Filter(_logger))
