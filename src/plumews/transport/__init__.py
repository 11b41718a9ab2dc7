"""Sockets and the event loop: timers, the send queue of one socket, reading and writing.

May import the root vocabulary, ``protocol`` and ``http11``. Exports nothing: import its modules.
"""
