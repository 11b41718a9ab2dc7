"""Encodings of a message that many get: as it is, and compressed once for each set of parameters (RFC 7692).

All connections that compress without takeover and with the same parameters are sent the same bytes. An encoding is made
for the first of them and kept with the message. A connection with takeover compresses by itself, behind its queue.

Invariant: an encoding is made once.
"""

from __future__ import annotations

from .. import limits
from ..protocol.message import EncodedMessage, encode
from .outbound import DeflateParams, shared_compressor

__all__ = ["EncodingCache", "encoding_for", "known_encoding", "make_encoding"]


def encoding_for(message: EncodedMessage, params: DeflateParams | None) -> EncodedMessage:
    """Return ``message`` as it is sent to a connection with ``params``.

    Without parameters that is the message itself: the connection does not compress, or it does so by itself.
    """
    if params is None:
        return message
    return known_encoding(message, params) or make_encoding(message, params)


def known_encoding(message: EncodedMessage, params: DeflateParams) -> EncodedMessage | None:
    """Return the encoding that was made for ``params`` before, or ``None``."""
    encodings = message.encodings
    if encodings is None or params not in encodings:
        return None
    return encodings[params] or message


def make_encoding(message: EncodedMessage, params: DeflateParams) -> EncodedMessage:
    """Encode ``message`` for ``params``: as it is, if it is not to be compressed or does not get smaller."""
    encoding = message
    if params.should_compress(message.size, message.compress, limits.COMPRESS_PIECE):
        opcode, payload = message.message()
        if params.should_compress(len(payload), message.compress, limits.COMPRESS_PIECE):
            data = shared_compressor(params.key).compress(payload)
            if len(data) < len(payload) or message.compress:
                encoding = encode(opcode, data, fragment_size=params.fragment_size, rsv1=True)
    if message.encodings is None:
        message.encodings = {}
    message.encodings[params] = None if encoding is message else encoding  # a message must not hold itself
    return encoding


class EncodingCache:
    """Encodings of messages that are kept to be sent again.

    The messages and their encodings take ``most`` bytes at most. The encodings used least recently go first.
    """

    def __init__(self, most: int) -> None:
        self.bytes = 0
        self._most = most
        self._held: dict[EncodedMessage, int] = {}

    def __len__(self) -> int:
        """Return the number of messages that have encodings."""
        return len(self._held)

    def choose(
        self, messages: list[EncodedMessage], params: DeflateParams | None, compresses: bool
    ) -> list[EncodedMessage]:
        """Return ``messages`` for a connection as :func:`encoding_for` does.

        One call compresses at most 64 KiB. Messages beyond that are sent as they are.
        """
        if not compresses:
            return messages
        left = limits.COMPRESS_PIECE
        chosen: list[EncodedMessage] = []
        for message in messages:
            size = message.size
            encoding = None if params is None else self._known(message, params)
            if encoding is None and size > left and message.compress is not False:
                encoding = EncodedMessage(message.buffers, size, False)
            elif encoding is None:
                left -= size
                encoding = message if params is None else self._make(message, params)
            chosen.append(encoding)
        return chosen

    def clear(self) -> None:
        """Forget all encodings."""
        for message in self._held:
            message.encodings = None
        self._held.clear()
        self.bytes = 0

    def _known(self, message: EncodedMessage, params: DeflateParams) -> EncodedMessage | None:
        encoding = known_encoding(message, params)
        if encoding is not None and message in self._held:
            self._held[message] = self._held.pop(message)
        return encoding

    def _make(self, message: EncodedMessage, params: DeflateParams) -> EncodedMessage:
        encoding = make_encoding(message, params)
        before = self._held.pop(message, 0)
        size = before or message.size + limits.HISTORY_OVERHEAD
        size += 0 if encoding is message else encoding.size + limits.HISTORY_OVERHEAD
        self._held[message] = size
        self.bytes += size - before
        while self.bytes > self._most and self._held:
            oldest = next(iter(self._held))
            self.bytes -= self._held.pop(oldest)
            oldest.encodings = None
        return encoding
