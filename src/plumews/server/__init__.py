"""Listening sockets and the opening handshake: ``serve()`` and ``unix_serve()``.

May import the root vocabulary, the packages up to ``conn``, and ``auth``. Does not import ``hub``. Public names are
:class:`Server`, :class:`Serving`, :class:`Route`, :func:`serve`, :func:`unix_serve` and :func:`restricted`.

The server context is the state that all connections of one server share, with its options. An admitted connection has
a connection slot until it is closed. An endpoint owns the WebSockets of one path, a route answers its plain HTTP. A
hook is a function of the application that takes part in the opening handshake.
"""

from __future__ import annotations

from .routes import Route, restricted
from .server import Server, Serving, serve, unix_serve

__all__ = ["Route", "Server", "Serving", "restricted", "serve", "unix_serve"]
