"""permessage-deflate (RFC 7692): negotiation, shared and per-connection streams, compressed broadcasts.

The decision to compress a message is `outbound.DeflateParams.should_compress`.

May import the root vocabulary, ``protocol``, ``http11`` and ``transport``. Exports nothing: import its modules.
"""
