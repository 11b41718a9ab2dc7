"""Clients: ``connect()`` and ``unix_connect()``.

May import the root vocabulary, and the packages up to ``conn``. Does not import ``server``. Public names are
:class:`connect` and :class:`unix_connect`.

A handshake is the request of one client and the check of its answer, without I/O. An attempt is one try to connect,
with its redirects. Dialing is its first part, up to a transport. A connection that `connect` returns is a
:class:`plumews.Conn`, as those of a server are. Its frames are masked by its transport.
"""

from __future__ import annotations

from .connector import connect, unix_connect

__all__ = ["connect", "unix_connect"]
