"""Clients: ``connect()`` and ``unix_connect()``.

May import the root vocabulary, and the packages up to ``conn``. Does not import ``server``.

A handshake is the request of one client and the check of its answer, without I/O. An attempt is one try to connect,
with its redirects. A connection that `connect` returns is a :class:`plumews.Conn`, as those of a server are.
"""

from __future__ import annotations
