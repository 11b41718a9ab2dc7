"""Listening sockets and the opening handshake: ``serve()`` and ``unix_serve()``.

May import the root vocabulary and the packages up to ``conn``, and ``auth``. Does not import ``hub``.
"""

from __future__ import annotations

from .routes import Route, restricted
from .server import Server, Serving, serve, unix_serve

__all__ = ["Route", "Server", "Serving", "restricted", "serve", "unix_serve"]
