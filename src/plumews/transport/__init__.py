"""Sockets and the event loop: timers, the send queue of one connection, reading and writing.

Terms: the *loop context* is the state that all connections of one event loop share. A *time slice* is the time that one
piece of work may hold the loop. A *flush* writes the queued frames of a connection. A *loss report* is a frame that
tells the peer about dropped messages.

May import the root vocabulary, ``protocol`` and ``http11``. Exports nothing: import its modules.
"""
