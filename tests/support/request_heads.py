"""Helpers that feed request heads to a HeadReader."""

from __future__ import annotations

from plumews.errors import InvalidHandshake
from plumews.http11.models import Request
from plumews.http11.parser import HeadReader

__all__ = ["assert_refused", "read", "refused_after", "status_of", "with_lines"]


def read(data: bytes, step: int = 0, **bounds: int) -> Request:
    """Return the request in ``data``, fed in pieces of ``step`` bytes (0: whole)."""
    reader = HeadReader(**bounds)
    for start in range(0, len(data), step or len(data)):
        request = reader.feed(data[start : start + (step or len(data))])
        if request is not None:
            return request
    raise AssertionError("the head is not complete")


def refused_after(data: bytes, step: int = 1) -> tuple[int, int]:
    """Return the status of the refusal, and the number of bytes read before it."""
    reader = HeadReader()
    for start in range(0, len(data), step):
        try:
            request = reader.feed(data[start : start + step])
        except InvalidHandshake as exc:
            return exc.status, min(start + step, len(data))
        assert request is None, "accepted"
    raise AssertionError("neither accepted nor refused")


def status_of(data: bytes) -> int | None:
    """Return the status of the refusal of ``data``, or ``None``."""
    try:
        HeadReader().feed(data)
    except InvalidHandshake as exc:
        return exc.status
    return None


def with_lines(*lines: bytes) -> bytes:
    return b"\r\n".join([b"GET / HTTP/1.1", b"Host: a", *lines, b"", b""])


def assert_refused(data: bytes, status: int = 400) -> None:
    assert refused_after(data, len(data))[0] == status
    assert refused_after(data, 1)[0] == status
