"""Compression of one blocking connection, on the streams of :mod:`plumews.deflate`. The caller's thread computes.

The sending half is used under the writing lock, the receiving half by the owner of reading.
"""

from __future__ import annotations

from collections.abc import Iterator

from .. import limits, violations
from ..constants import Opcode
from ..deflate.config import Agreement, Deflate
from ..deflate.outbound import CompressionInfo, DeflateParams
from ..deflate.streams import LEAST_WINDOW_BITS, Compressor, ContextCompressor, Inflater, inflate_whole
from ..errors import InvalidData
from ..protocol.codec import Utf8Validator

__all__ = ["ConnDeflate"]


class ConnDeflate:
    """Both halves of permessage-deflate on one connection.

    Args:
        agreement: Negotiated parameters.
        settings: Options of the client.
        fragment_size: Bytes of the largest fragment.
    """

    def __init__(self, agreement: Agreement, settings: Deflate, fragment_size: int) -> None:
        assert settings.level is not None
        self.agreement = agreement
        bits = agreement.client_window_bits
        key = (settings.backend, settings.level, max(bits, LEAST_WINDOW_BITS), settings.mem_level)
        # zlib cannot compress with a window of 8 bits (RFC 7692 section 7.1.2.2 allows to send uncompressed messages).
        self._params = DeflateParams(
            key, settings.min_size if bits >= LEAST_WINDOW_BITS else limits.COUNT_MOST, fragment_size
        )
        self._compressor = ContextCompressor(*key) if agreement.client_takeover else Compressor(*key)
        self._bits = agreement.server_window_bits
        self._takeover = agreement.server_takeover or settings.server_takeover
        self._max_ratio = settings.max_ratio
        self._inflater: Inflater | None = None
        self._utf8: Utf8Validator | None = None
        #: True while a compressed message arrives as a stream.
        self.streaming = False
        self._sent = [0, 0, 0]  # messages, bytes, compressed bytes
        self._received = [0, 0, 0]

    # --- sending ----------------------------------------------------------------------------------

    def compress(self, payload: bytes, requested: bool | None) -> tuple[bytes, bool]:
        """Return the payload to send, and True if it is compressed. It must be sent."""
        if not self._params.should_compress(len(payload), requested):
            return payload, False
        data = self._compressor.compress(payload)
        if len(data) >= len(payload) and not requested and isinstance(self._compressor, Compressor):
            return payload, False
        _count(self._sent, payload, data)
        return data, True

    def begin(self, size: int, requested: bool | None) -> ContextCompressor | None:
        """Return the compressor of a message in pieces whose first one has ``size`` bytes, or ``None`` for none."""
        if not self._params.should_compress(size, requested):
            return None
        if isinstance(self._compressor, ContextCompressor):
            return self._compressor
        return ContextCompressor(*self._params.key)

    # --- receiving --------------------------------------------------------------------------------

    def inflate(self, opcode: int, data: bytes, max_size: int | None) -> str | bytes:
        """Return a whole message.

        Raises:
            ProtocolError: The message is malformed, or too large.
        """
        message = None if self._takeover else inflate_whole(data, self._bits, max_size)
        if message is None:
            self._start(max_size)
            assert self._inflater is not None
            self._inflater.feed(data)
            self._inflater.finish()
            message = b"".join(self._steps())
        _count(self._received, message, data)
        if opcode != Opcode.TEXT:
            return message
        try:
            return str(message, "utf-8")
        except UnicodeDecodeError:
            pass
        cut = Utf8Validator().feed(message)
        raise InvalidData(violations.TEXT_CUT if cut else violations.TEXT_NOT_UTF8)

    def begin_stream(self, opcode: int, max_size: int | None) -> None:
        """Begin a message that arrives in chunks."""
        self._utf8 = Utf8Validator() if opcode == Opcode.TEXT else None
        self._received[0] += 1
        self.streaming = True
        self._start(max_size)

    def chunks(self, data: bytes | None) -> Iterator[bytes]:
        """Yield what ``data`` inflates to; ``None`` ends the message.

        Raises:
            ProtocolError: The message is malformed, or too large.
        """
        assert self._inflater is not None
        if data is None:
            self._inflater.finish()
        else:
            self._received[2] += len(data)
            self._inflater.feed(data)
        for part in self._steps():
            self._received[1] += len(part)
            if self._utf8 is not None and not self._utf8.feed(part):
                raise InvalidData(violations.TEXT_NOT_UTF8)
            if part:
                yield part
        if data is None:
            self.streaming = False
            if self._utf8 is not None and not self._utf8.complete:
                raise InvalidData(violations.TEXT_CUT)

    def _start(self, max_size: int | None) -> None:
        if self._inflater is None:
            self._inflater = Inflater(
                self._bits, takeover=self._takeover, max_ratio=self._max_ratio, earlier=self._received[0] > 0
            )
        self._inflater.start(max_size)

    def _steps(self) -> Iterator[bytes]:
        inflater = self._inflater
        assert inflater is not None
        while inflater.pending:
            yield inflater.step()

    def info(self) -> CompressionInfo:
        """Return the parameters and the statistics of both halves."""
        held = 0 if self._inflater is None else self._inflater.size
        if isinstance(self._compressor, ContextCompressor):
            held += self._compressor.size
        return CompressionInfo(*self.agreement[:4], held, *self._sent, *self._received)


def _count(counts: list[int], payload: bytes, data: bytes) -> None:
    counts[0] += 1
    counts[1] += len(payload)
    counts[2] += len(data)
