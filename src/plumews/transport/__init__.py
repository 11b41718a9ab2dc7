"""Sockets and the event loop: timers, the send queue of one connection, reading and writing.

Terms: the *loop context* is the state that all connections of one event loop share. A *time slice* is the time that one
piece of work may hold the loop. A *flush* writes the queued frames of a connection. A *loss report* is a frame of a
hub about messages that a slow consumer did not get.

May import the root vocabulary, ``protocol`` and ``http11``. Exports nothing: import its modules.
"""
