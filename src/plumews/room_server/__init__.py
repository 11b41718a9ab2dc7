"""A hub behind a server: ``serve_rooms()``, its login, status routes and browser page.

May import every package but ``cli``.
"""

from __future__ import annotations

from .admin import admin_broadcast_route
from .server import serve_rooms
from .text_filter import TextPolicy, validate_text_message

__all__ = ["TextPolicy", "admin_broadcast_route", "serve_rooms", "validate_text_message"]
