"""Sockets and the event loop: timers, the channel of one connection with its send queue, reading and writing.

A `Channel` is the output of one connection. It writes to the socket directly where it can, else through the transport
of the event loop, or our own `tls`. A client's channel writes to `masking`. `waiters`, `displacing`, `message_run` and
`flow_control` are its slow parts.

Terms: the *loop context* is the state that all connections of one event loop share. A *time slice* is the time that one
piece of work may hold the loop. A *flush* writes the queued frames of a connection. To *gather* is to let the output of
several connections leave together. To *displace* is to drop queued messages for a newer one. A *loss report* is a frame
of a hub about messages that a slow consumer did not get.

May import the root vocabulary, ``protocol`` and ``http11``. Exports nothing: import its modules.
"""
