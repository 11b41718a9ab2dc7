"""Log lines of plumews: fields of the connection, printable ASCII, no secrets, and a bound for each second.

A filter on each logger of plumews sets ``connection``, ``client``, ``server``, ``room`` and ``user`` on every record
and appends those that are known to the text. It is a filter and no adapter, because only a record can carry an escaped
traceback.

Invariants: no secret of the record's request appears in it, tracebacks included. Each line of a traceback is indented,
so that none looks like an entry. No second has more than ``limits.LOG_LINES`` lines of one event loop.
"""

from __future__ import annotations

import asyncio
import logging
import textwrap
import time
from collections import deque
from collections.abc import Iterable, MutableMapping
from contextvars import Context
from typing import Any, Final

from .. import limits
from ..counters import BoundedCounter
from ..http11.redaction import printable, quoted, secrets_of, traceback_without
from ..transport.loop_context import loop_context

__all__ = ["LOGGERS", "ConnLogger", "LineLimit", "log_extra", "request_line"]

#: Loggers of plumews. Each has the filter, because the filter of a parent does not see their records.
LOGGERS: Final = ("plumews.auth", "plumews.client", "plumews.conn", "plumews.hub", "plumews.server")

#: Kind of the lines that count those left out.
_SUMMARY: Final = "left out"

#: Lines of the last second from which on a line of a new kind is left out, except warnings.
_LOG_CALM: Final = 6

#: Seconds between two summaries.
_LOG_SUMMARY_EVERY: Final = 1.0

#: Kinds of lines that a summary names, the most frequent first.
_LOG_KINDS: Final = 8


def log_extra(conn: Any, kind: str | None = None, secrets: Iterable[str | None] = (), hint: str = "") -> dict[str, Any]:
    """Return the ``extra=`` of a record about a connection.

    Lines of one ``kind``, by default with one format, are left out for each other. ``secrets`` are those that are not
    in the request. ``hint`` ends the line, and has no values from outside.
    """
    return {"about": conn, "kind": kind, "secrets": tuple(secrets), "hint": hint}


def request_line(conn: Any) -> str:
    """Return the method and the path of the request of a connection, without the query."""
    request = conn._request
    return "no request" if request is None else f"{request.method} {quoted(request.target.partition('?')[0])}"


class ConnLogger(logging.LoggerAdapter):  # type: ignore[type-arg]  # no type argument on Python 3.10
    """Logger of one connection."""

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        """Add the connection to ``extra=``."""
        kwargs["extra"] = {**(kwargs.get("extra") or {}), **(self.extra or {})}
        return msg, kwargs


class LineLimit:
    """Lines of one event loop in a second. A flood of one kind hides no other, and lower levels hide no warning."""

    def __init__(self) -> None:
        #: Time and kind of each line of the last second.
        self._lines: deque[tuple[float, str]] = deque()
        self.left_out = BoundedCounter()

    def admit(self, kind: str, now: float, *, urgent: bool = False) -> bool:
        """Return whether a line of ``kind`` may be logged now, and count it if not. ``urgent`` is for warnings."""
        repeated = any(logged == kind for _, logged in self._recent(now))
        most = limits.LOG_REPEATED if repeated else limits.LOG_LINES - 1 if urgent else _LOG_CALM
        if len(self._lines) < most:
            self._lines.append((now, kind))
            return True
        self.left_out.add(kind)
        return False

    def take_left_out(self, now: float) -> dict[str, int]:
        """Return the lines left out since the last call, by kind, and count the line that says so."""
        if not self.left_out.total or len(self._recent(now)) >= limits.LOG_LINES:
            return {}
        counts, self.left_out = self.left_out.snapshot(), BoundedCounter()
        self._lines.append((now, _SUMMARY))
        return counts

    def _recent(self, now: float) -> deque[tuple[float, str]]:
        while self._lines and now - self._lines[0][0] >= 1.0:
            self._lines.popleft()
        return self._lines


class _Filter(logging.Filter):
    def __init__(self, logger: logging.Logger) -> None:
        super().__init__()
        self._logger = logger

    def filter(self, record: logging.LogRecord) -> bool:
        conn = record.__dict__.pop("about", None)
        hint = record.__dict__.pop("hint", "")
        exc = record.exc_info[1] if record.exc_info else None
        secrets: Iterable[str | None] = ()
        if self._logger.name != "plumews.conn":  # the application's own lines are not counted
            secrets = record.__dict__.pop("secrets", ())
            kind = record.__dict__.pop("kind", None) or str(record.msg)
            if not self._admit(record, kind if exc is None else f"{kind} ({type(exc).__name__})"):
                return False
        fields = {} if conn is None else _fields_of(conn)
        for name in ("connection", "client", "server", "room", "user"):
            setattr(record, name, printable(fields.get(name, "-"))[: limits.LOG_VALUE])
        suffix = " ".join(f"{name}={quoted(value)}" for name, value in fields.items())
        text = printable(record.getMessage())[: limits.LOG_LINE]
        record.msg = (f"{text} [{suffix}]" if suffix else text) + (f"; {hint}" if hint else "")
        record.args = None
        if exc is not None:
            private = bool(secrets)
            if conn is not None and conn._request is not None:
                secrets = (*secrets, *secrets_of(conn._request))
            _set_traceback(record, exc, secrets, private)
        return True

    def _admit(self, record: logging.LogRecord, kind: str) -> bool:
        """Return whether a record may be logged; one that may not is counted in a line a second later."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return True  # no peer causes lines outside of a loop
        if kind == _SUMMARY:
            return True
        context = loop_context(loop)
        limit = context.log_lines = context.log_lines or LineLimit()
        pending = limit.left_out.total
        if limit.admit(kind, time.monotonic(), urgent=record.levelno >= logging.WARNING):
            return True
        if not pending:
            loop.call_later(_LOG_SUMMARY_EVERY, self._log_left_out, loop, record.levelno, context=Context())
        return False

    def _log_left_out(self, loop: asyncio.AbstractEventLoop, level: int) -> None:
        counts = loop_context(loop).log_lines.take_left_out(time.monotonic())
        most = sorted(counts.items(), key=lambda item: -item[1])[:_LOG_KINDS]
        told = ", ".join(f"{count} of {quoted(kind)}" for kind, count in most)
        if told:
            self._logger.log(level, "%d lines left out: %s", sum(counts.values()), told, extra={"kind": _SUMMARY})
        else:  # this second has no place for the line
            loop.call_later(_LOG_SUMMARY_EVERY, self._log_left_out, loop, level, context=Context())


def _set_traceback(record: logging.LogRecord, exc: BaseException, secrets: Iterable[str | None], private: bool) -> None:
    """Give a record the escaped traceback of ``exc``, and remove ``exc`` itself if it holds a secret."""
    told = traceback_without(exc, secrets)
    if private or told != traceback_without(exc, ()):
        record.exc_info = None  # handlers could read the variables of its frames
    lines = told.replace("\r", " ").strip("\n").split("\n")
    record.exc_text = textwrap.indent("\n".join(map(printable, lines)), "  ")


def _fields_of(conn: Any) -> dict[str, str]:
    """Return the known fields of a connection: ``client`` on the side of a server, ``server`` on that of a client."""
    peer, is_client = conn.remote_address, conn._rules.client
    host = (peer[0] if peer else "") if is_client else conn.client_address
    if isinstance(peer, tuple) and peer[0] == host:  # the port of a proxy is not that of the client
        host = f"[{host}]:{peer[1]}" if ":" in host else f"{host}:{peer[1]}"
    fields = {"connection": str(conn.id), "server" if is_client else "client": host or "unix"}
    room = conn._metadata.get("room") if conn._metadata else None
    if isinstance(room, str):
        fields["room"] = room
    if conn.user_info is not None and conn.user_info.id:
        fields["user"] = conn.user_info.id
    return fields


for _name in LOGGERS:
    _logger = logging.getLogger(_name)
    _logger.addFilter(_Filter(_logger))
