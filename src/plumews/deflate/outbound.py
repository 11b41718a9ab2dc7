"""Sending half of permessage-deflate on one connection (RFC 7692), and the decision to compress a message.

Without context takeover a message is compressed before it is queued. All connections of a thread share a compressor,
and any number of connections may be sent the same bytes. With takeover a message is compressed when the queue accepts
it. Later messages refer to it, so `reset` is called if the queue drops it: for ``max_queued_bytes``, or at the end.

The rule is :meth:`DeflateParams.should_compress`. A change of it needs the same change of
:meth:`DeflateParams.never_compressed`.

Invariant: an idle connection holds no memory, except for the inflater of a peer that uses takeover.
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
from .streams import LEAST_WINDOW_BITS, Compressor, ContextCompressor

__all__ = ["CompressionInfo", "DeflateParams", "OutboundDeflate", "shared_compressor"]

_local = threading.local()

#: Back end, level, bits of the window, and memory level of a compressor.
Key: TypeAlias = "tuple[str, int, int, int]"


class DeflateParams:
    """Parameters of compression. Connections without takeover that have the same object can be sent the same bytes."""

    __slots__ = ("fragment_size", "key", "min_size")

    def __init__(self, key: Key, min_size: int, fragment_size: int) -> None:
        self.key = key
        self.min_size = min_size
        self.fragment_size = fragment_size

    def should_compress(self, size: int, requested: bool | None, most: int = limits.COUNT_MOST) -> bool:
        """Return whether to compress a message. All ways to send call it, except for sizes in `never_compressed`.

        A ``min_size`` of ``COUNT_MOST`` stands for never, whatever is requested.

        Args:
            size: bytes of the payload, or of the first piece of a message in pieces. A caller that has only the frames
                passes their bytes first, and then the payload's.
            requested: ``compress=`` of the application. ``None`` leaves the choice to the size.
            most: without a request a larger message is not compressed: that of a broadcast would hold the event loop.
        """
        return self.min_size <= size <= most if requested is None else requested and self.min_size < limits.COUNT_MOST

    def never_compressed(self) -> int:
        """Return the bytes of the largest message that is not compressed without a request, as are all smaller ones."""
        return self.min_size - 1


@dataclass(frozen=True)
class CompressionInfo:
    """Negotiated parameters and statistics of permessage-deflate on one connection: ``conn.compression``.

    Sent messages in pieces are not counted. With takeover each other one is counted when the queue accepts it.
    Without takeover a message is counted before it is queued, even if a full queue refuses it. Broadcasts, whose bytes
    several connections share, and messages of the history are then not counted.

    Attributes:
        server_window_bits, client_window_bits: bits of the window of each side, 8 to 15. With 8 we send no compressed
            messages, because zlib cannot.
        server_takeover, client_takeover: True if messages of that side may refer to its earlier ones.
        context_bytes: approximate bytes that the back end and zlib hold for this connection now.
        sent_messages, received_messages: number of compressed messages.
        sent_payload_bytes, received_payload_bytes: their uncompressed bytes.
        sent_wire_bytes, received_wire_bytes: their compressed bytes.
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
    """The sending half of permessage-deflate on one connection, and the agreement of both halves."""

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
        key = (settings.backend, settings.level, max(bits, LEAST_WINDOW_BITS), settings.mem_level)
        # zlib cannot compress with a window of 8 bits (RFC 7692 section 7.1.2.2 allows to send uncompressed messages).
        min_size = settings.min_size if bits >= LEAST_WINDOW_BITS else limits.COUNT_MOST
        self.params = _params(key, min_size, fragment_size)
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
        """Return the frames of a message for this connection. With takeover, `enter` compresses them later.

        A message that does not get smaller is sent as it is, unless ``compress`` is True or the message has become part
        of the context.
        """
        wanted = self.params.should_compress(len(payload), compress)
        if wanted and self._context is None:
            data = self._compressor.compress(payload)
            if len(data) < len(payload) or compress:
                return self._counted(opcode, payload, data)
            wanted = False
        return encode(opcode, payload, fragment_size=self.params.fragment_size, compress=wanted)

    def frame(self, opcode: int, message: str | bytes) -> bytes | None:
        """Return the frame of a short message, or ``None`` if it takes `encode`."""
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
        """Compress ``message``, which the queue accepts now, with takeover. Return the message to send."""
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
            self.reset()  # it is not sent, so no message may refer to it
            raise

    def begin(self, size: int, compress: bool | None) -> ContextCompressor | None:
        """Return the compressor for the pieces of a message, or ``None`` if they are sent as they are.

        ``size`` is that of the first piece. `EMPTY` is sent behind the last one.
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
        """Forget the context: accepted messages are dropped, and no message may refer to them."""
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
        """Return the approximate bytes that zlib holds for this connection now."""
        return received.context_size + (0 if self._context is None else self._context.size)

    def info(self, received: InboundDeflate) -> CompressionInfo:
        """Return the parameters and the statistics of both halves."""
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
        """Free all memory: the connection is closed."""
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None
        self.reset()


@functools.lru_cache(maxsize=64)
def _params(key: Key, min_size: int, fragment_size: int) -> DeflateParams:
    """Return one object for all connections with equal parameters."""
    return DeflateParams(key, min_size, fragment_size)


def shared_compressor(key: Key) -> Compressor:
    """Return the compressor of this thread for ``key``."""
    compressors: dict[Key, Compressor] | None = getattr(_local, "compressors", None)
    if compressors is None:
        compressors = _local.compressors = {}
    found = compressors.get(key)
    if found is None:
        found = compressors[key] = Compressor(*key)
    return found
