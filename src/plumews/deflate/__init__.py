"""permessage-deflate (RFC 7692): negotiation, shared and per-connection streams, compressed broadcasts.

May import the root vocabulary, ``protocol``, ``http11`` and ``transport``. Exports nothing: import its modules.
"""
