"""Exceptions of ``websockets.legacy.exceptions``."""

from __future__ import annotations

from ..exceptions import AbortHandshake, InvalidMessage, InvalidStatusCode, RedirectHandshake, WebSocketProtocolError

__all__ = ["AbortHandshake", "InvalidMessage", "InvalidStatusCode", "RedirectHandshake", "WebSocketProtocolError"]
