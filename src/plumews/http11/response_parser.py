"""Parser of one HTTP/1.1 response, for clients (RFC 9112 sections 4, 6 and 7).

llhttp (`httptools`) parses the status line, the headers and the body. Stricter and bounded checks run before it, as in
:mod:`plumews.http11.parser`. HTTP/1.0 is accepted for the refusals of proxies and old servers.

Invariants: other protocols are refused at their first bytes, control bytes at the end of their line, and all else at
the end of the head, after ``max_size`` bytes at the latest. The parser takes time linear in the bytes, however they are
cut. It does not read beyond the head before `feed_body` is called.
"""

from __future__ import annotations

import re
from typing import Final

import httptools

from .. import limits
from ..errors import InvalidMessage
from .head_scan import BAD_END, CONTROL, count_lines
from .headers import BLANKS, Headers, name_of, value_of
from .models import Response
from .parser import default_headers

__all__ = ["ResponseReader"]

_END: Final = b"\r\n\r\n"
_BEGINNING: Final = b"HTTP/1."
_BLANKS: Final = BLANKS.encode()

#: Beginnings of what servers of other protocols answer.
_TLS_RECORDS: Final = (b"\x15\x03", b"\x16\x03")  # alert and handshake (RFC 8446 section 5.1)
_HTTP2_SETTINGS: Final = re.compile(rb"\x00\x00.\x04", re.DOTALL)  # RFC 9113 section 6.5

#: Bytes of a wrong beginning that an error shows.
_SHOWN: Final = 24

#: Status line. The reason is optional, and so is the space in front of it if it is empty.
_STATUS_LINE: Final = re.compile(rb"HTTP/1\.([01]) ([1-9][0-9]{2})(?: ([\t\x20-\x7e\x80-\xff]*))?")

#: Headers of the length of a body, in lower case.
_LENGTHS: Final = (b"content-length", b"transfer-encoding")


class _Fields:
    """Lines and body of one response, as llhttp tells them."""

    __slots__ = ("body", "complete", "ended", "lines")

    def __init__(self) -> None:
        self.lines: list[tuple[bytes, bytes]] = []
        self.body = bytearray()
        self.complete = False
        self.ended = False

    def on_header(self, name: bytes, value: bytes) -> None:
        """Add a line."""
        self.lines.append((name, value))

    def on_headers_complete(self) -> None:
        """Note the end of the head."""
        self.complete = True

    def on_body(self, data: bytes) -> None:
        """Keep a part of the body."""
        room = limits.RESPONSE_BODY - len(self.body)
        self.body += data[:room]

    def on_message_complete(self) -> None:
        """Note the end of the body."""
        self.ended = True


class ResponseReader:
    """Reader of one response: its head of at most ``max_size`` bytes, and then its body.

    Args:
        max_size: Bytes of the largest head, with the empty line at its end (default 16 KiB).
        max_headers: Most header lines (default: 100 for each 16 KiB of ``max_size``).
        tunnel: True for the response to a CONNECT. One with a status of 2xx has no body, whatever length it names (RFC
            9110 section 9.3.6).

    Attributes:
        rest: Bytes behind the head, once `feed` has returned a response.
    """

    __slots__ = ("_buffer", "_fields", "_lines", "_max_headers", "_max_size", "_parser", "_read", "_tunnel", "rest")

    def __init__(
        self, max_size: int = limits.HEAD_SIZE, max_headers: int | None = None, *, tunnel: bool = False
    ) -> None:
        self._max_size = max_size
        self._max_headers = default_headers(max_size) if max_headers is None else max_headers
        self._tunnel = tunnel
        self._buffer = bytearray()
        self._lines = 0
        self._read = 0  # bytes of complete lines that were checked
        self._fields = _Fields()
        self._parser = httptools.HttpResponseParser(self._fields)
        self.rest = b""

    @property
    def body(self) -> bytes:
        """Bytes of the body so far, the first 64 KiB at most."""
        return bytes(self._fields.body)

    @property
    def started(self) -> bool:
        """True if a byte of the response has arrived."""
        return bool(self._buffer)

    def feed(self, data: bytes | bytearray | memoryview) -> Response | None:
        """Read the next bytes. Return the response without its body once its head is complete, ``None`` before.

        Raises:
            InvalidMessage: The head is malformed, or larger than the limits.
        """
        buffer = self._buffer
        room = self._max_size - len(buffer)
        searched = max(0, len(buffer) - len(_END) + 1)
        buffer += data[:room]
        self._check_beginning()
        end = buffer.find(_END, searched)
        stop = buffer.rfind(b"\n", max(self._read, searched)) + 1 if end < 0 else end + len(_END)
        if stop > self._read:
            self._check_lines(bytes(buffer[self._read : stop]), end >= 0)
            self._read = stop
        if end >= 0:
            self.rest = bytes(buffer[stop:]) + bytes(data[room:])
            return self._finish(bytes(buffer[:stop]))
        if len(buffer) >= self._max_size:
            raise InvalidMessage(f"response head too large: more than {self._max_size} bytes")
        return None

    def feed_body(self, data: bytes | bytearray | memoryview) -> bool:
        """Read the next bytes of the body. Return True once it is complete, or 64 KiB of it are kept.

        A malformed body ends where its error is.
        """
        fields = self._fields
        if not fields.ended and data:
            try:
                self._parser.feed_data(data)
            except (httptools.HttpParserError, httptools.HttpParserUpgrade):
                fields.ended = True
        return fields.ended or len(fields.body) >= limits.RESPONSE_BODY

    # --- inside -----------------------------------------------------------------------------------

    def _check_beginning(self) -> None:
        beginning = bytes(self._buffer[: len(_BEGINNING)])
        if _BEGINNING.startswith(beginning):
            return
        if beginning.startswith(_TLS_RECORDS):
            raise InvalidMessage("not an HTTP response, but the beginning of TLS: the server wants wss://, not ws://")
        if _HTTP2_SETTINGS.match(beginning):
            raise InvalidMessage("not an HTTP/1.1 response, but the beginning of HTTP/2")
        shown = ascii(bytes(self._buffer[:_SHOWN]))
        raise InvalidMessage(f"not an HTTP response: it does not begin with HTTP/1.1, but with {shown}")

    def _check_lines(self, new: bytes, ended: bool) -> None:
        ends = count_lines(new)
        if ends == CONTROL:
            raise InvalidMessage("control byte in the response head")
        if ends == BAD_END:
            raise InvalidMessage("response lines must end with CR LF")
        self._lines += ends
        if self._lines - 1 - ended > self._max_headers:  # without the status line and the empty line
            raise InvalidMessage(f"too many headers in the response: more than {self._max_headers}")

    def _finish(self, head: bytes) -> Response:
        line, _, fields = head.partition(b"\r\n")
        found = _STATUS_LINE.fullmatch(line)
        if found is None:
            shown = ascii(line[:_SHOWN])
            raise InvalidMessage(f"malformed status line {shown}: expected HTTP/1.1, three digits and a reason")
        status = int(found[2])
        if status == 101 and found[1] == b"0":
            raise InvalidMessage("the response 101 is in HTTP/1.0, which has no upgrades")
        if (status < 200 or (self._tunnel and status < 300)) and _names_length(fields):
            # Lengths mean nothing there (RFC 9112 section 6.3, items 1 and 2), and llhttp would check them.
            head = b"\r\n".join([line, *filter(_is_no_length, fields.split(b"\r\n"))])
        try:
            self._parser.feed_data(head)
        except httptools.HttpParserUpgrade:
            pass  # a 101, which the handshake checks itself
        except httptools.HttpParserError as exc:
            if not (status == 101 and self._fields.complete):  # llhttp stops behind each 101
                raise InvalidMessage(f"malformed response head: {exc}") from exc
        if not self._fields.complete:  # llhttp disagrees about the end of the head
            raise InvalidMessage("malformed response head")
        pairs = []
        for raw, value in self._fields.lines:
            name = name_of(raw)
            pairs.append((name, value_of(name, value.strip(_BLANKS))))
        reason = (found[3] or b"").decode("ascii", "backslashreplace").replace("\t", " ")
        return Response(status, Headers.read(pairs), b"", reason)


def _names_length(fields: bytes) -> bool:
    fields = fields.lower()
    return any(name in fields for name in _LENGTHS)


def _is_no_length(line: bytes) -> bool:
    return line.partition(b":")[0].lower() not in _LENGTHS
