"""permessage-deflate on one connection: what was agreed, and how its messages are compressed (layer 3; RFC 7692).

Without context takeover a message is compressed before it is queued, by a compressor that all connections of a thread
share, and any number of connections may be sent the same bytes. With takeover it is compressed when the queue accepts
it: from then on nothing drops it but the end of the connection.

Invariant: memory for a connection that is idle is none, but for the inflater of a peer that uses takeover.
"""

from __future__ import annotations

import functools
import threading
from dataclasses import dataclass
from typing import TypeAlias

from .. import limits
from ..protocol.codec import build_frame
from ..protocol.message import EncodedMessage, encode
from ..transport.timers import Deadline, Timers
from .config import Agreement, Deflate
from .inbound import InboundDeflate
from .streams import Compressor, ContextCompressor

__all__ = ["CompressionInfo", "DeflateParams", "OutboundDeflate", "shared_compressor"]

_local = threading.local()

#: Back end, level, window bits, memory level.
Key: TypeAlias = "tuple[str, int, int, int]"


class DeflateParams:
    """Parameters of compression. Connections without takeover that have the same object can be sent the same bytes."""

    __slots__ = ("fragment_size", "key", "min_size")

    def __init__(self, key: Key, min_size: int, fragment_size: int) -> None:
        self.key = key
        self.min_size = min_size
        self.fragment_size = fragment_size

    def should_compress(self, size: int, requested: bool | None, most: int = limits.COUNT_MOST) -> bool:
        """Return whether to compress a message. Every way to send asks this.

        Args:
            size: bytes of the payload, or of the first piece of a message in pieces.
            requested: ``compress=`` of the application. ``None`` leaves the choice to the size.
            most: without a request a larger message is not compressed: that of a broadcast would hold the event loop.
        """
        return self.min_size <= size <= most if requested is None else requested


@dataclass(frozen=True)
class CompressionInfo:
    """What ``conn.compression`` tells: what was agreed on, and what came of it so far.

    Compressed messages that are sent in pieces, or to many at once, are not counted, and one that a full queue refuses
    is.

    Attributes:
        server_window_bits, client_window_bits: window of what each side sends, 9 to 15 bits.
        server_takeover, client_takeover: whether what each side sends refers to its earlier messages.
        context_bytes: what the back end and zlib hold for this connection now, about.
        sent_messages, received_messages: messages that were compressed.
        sent_payload_bytes, received_payload_bytes: their bytes before they were compressed.
        sent_wire_bytes, received_wire_bytes: their bytes on the wire.
    """

    server_window_bits: int
    client_window_bits: int
    server_takeover: bool
    client_takeover: bool
    context_bytes: int
    sent_messages: int
    sent_payload_bytes: int
    sent_wire_bytes: int
    received_messages: int
    received_payload_bytes: int
    received_wire_bytes: int


class OutboundDeflate:
    """The sending half of permessage-deflate on one connection, and what is known of both."""

    __slots__ = (
        "_compressor",
        "_context",
        "_idle",
        "_messages",
        "_payload_bytes",
        "_quick_size",
        "_timers",
        "_wire_bytes",
        "agreement",
        "params",
        "shared_params",
    )

    def __init__(
        self, agreement: Agreement, settings: Deflate, fragment_size: int, timers: Timers, *, client: bool
    ) -> None:
        self.agreement = agreement
        self._quick_size = min(fragment_size, limits.COPY_SIZE)
        self._timers = timers
        self._idle: Deadline | None = None
        self._messages = self._payload_bytes = self._wire_bytes = 0
        bits, takeover = agreement.server_window_bits, agreement.server_takeover
        if client:
            bits, takeover = agreement.client_window_bits, agreement.client_takeover
        assert settings.level is not None
        key = (settings.backend, settings.level, bits, settings.mem_level)
        self.params = _params(key, settings.min_size, fragment_size)
        #: The same, or ``None`` with takeover: then no other connection can be sent the same bytes.
        self.shared_params: DeflateParams | None = None
        self._context: ContextCompressor | None = None
        self._compressor: Compressor | ContextCompressor
        if takeover:
            self._context = self._compressor = ContextCompressor(*key)
        else:
            self.shared_params = self.params
            self._compressor = shared_compressor(key)

    def encode(self, opcode: int, payload: bytes, compress: bool | None = None) -> EncodedMessage:
        """The frames of a message for this connection; with takeover it is to be queued as it is, by `enter`.

        ``compress`` is True or False, or ``None`` for what the size says. Where compressing makes it no smaller it
        leaves as it is, unless it must be compressed, or has become part of the context.
        """
        wanted = self.params.should_compress(len(payload), compress)
        if wanted and self._context is None:
            data = self._compressor.compress(payload)
            if len(data) < len(payload) or compress:
                return self._counted(opcode, payload, data)
            wanted = False
        return encode(opcode, payload, fragment_size=self.params.fragment_size, compress=wanted)

    def frame(self, opcode: int, message: str | bytes) -> bytes | None:
        """The same for a message that is one frame in one buffer; ``None``: ask the long way."""
        if self._context is not None or len(message) > self._quick_size:
            return None
        payload = message.encode() if isinstance(message, str) else message
        size = len(payload)
        if size > self._quick_size:
            return None
        if self.params.should_compress(size, None):
            data = self._compressor.compress(payload)
            if len(data) < size:
                frame: bytes = build_frame(opcode, data, rsv1=True)
                self._messages += 1
                self._payload_bytes += size
                self._wire_bytes += len(data)
                return frame
        return build_frame(opcode, payload)

    def enter(self, message: EncodedMessage) -> EncodedMessage:
        """``message``, which the queue accepts now, as it leaves (with takeover)."""
        params = self.params
        if not params.should_compress(message.size, message.compress, limits.COMPRESS_PIECE):
            return message
        opcode, payload = message.message()
        if not params.should_compress(len(payload), message.compress, limits.COMPRESS_PIECE):
            return message
        try:
            data = self._compressor.compress(payload)
            self._keep_context()
            return self._counted(opcode, payload, data)
        except BaseException:
            self.reset()  # the peer will not get it: nothing may refer to it
            raise

    def begin(self, size: int, compress: bool | None) -> ContextCompressor | None:
        """What compresses the pieces of a message of which the first has ``size`` bytes; ``None``: it leaves as it is.

        Behind the last piece comes `EMPTY`.
        """
        if not self.params.should_compress(size, compress):
            return None
        if self._context is not None:
            self._keep_context()
            return self._context
        return ContextCompressor(*self.params.key)

    def _keep_context(self) -> None:
        if self._idle is None:
            self._idle = self._timers.after(limits.CONTEXT_IDLE, self._release)

    def _counted(self, opcode: int, payload: bytes, data: bytes) -> EncodedMessage:
        encoded = encode(opcode, data, fragment_size=self.params.fragment_size, rsv1=True)
        self._messages += 1
        self._payload_bytes += len(payload)
        self._wire_bytes += len(data)
        return encoded

    # --- the context ------------------------------------------------------------------------------

    def reset(self) -> None:
        """Messages that were accepted will not leave, nor will any that refers to them."""
        if self._context is not None:
            self._context.reset()

    def _release(self) -> None:
        self._idle = None
        context = self._context
        if context is not None and context.used:
            context.used = False
            self._idle = self._timers.after(limits.CONTEXT_IDLE, self._release)
        else:
            self.reset()

    def held(self, received: InboundDeflate) -> int:
        """Bytes that zlib holds for this connection now, about."""
        return received.context_size + (0 if self._context is None else self._context.size)

    def info(self, received: InboundDeflate) -> CompressionInfo:
        """What is known of this, and of the receiving half."""
        return CompressionInfo(
            *self.agreement[:4],
            self.held(received),
            self._messages,
            self._payload_bytes,
            self._wire_bytes,
            received.messages,
            received.payload_bytes,
            received.wire_bytes,
        )

    def end(self) -> None:
        """The connection is gone."""
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None
        self.reset()


@functools.lru_cache(maxsize=64)
def _params(key: Key, min_size: int, fragment_size: int) -> DeflateParams:
    """Return one object for all connections with equal parameters."""
    return DeflateParams(key, min_size, fragment_size)


def shared_compressor(key: Key) -> Compressor:
    """The compressor with these parameters of this thread."""
    compressors: dict[Key, Compressor] | None = getattr(_local, "compressors", None)
    if compressors is None:
        compressors = _local.compressors = {}
    found = compressors.get(key)
    if found is None:
        found = compressors[key] = Compressor(*key)
    return found
