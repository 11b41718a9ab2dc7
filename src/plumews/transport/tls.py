"""TLS between a transport of the event loop and a connection, with OpenSSL's records in memory.

A :class:`TLSTransport` is the protocol of the transport below it, and the transport of the protocol above it, an
:class:`asyncio.BufferedProtocol`. It is one object for the two that event loops have, and calls nothing later that it
can do at once: records are decrypted straight into the buffer of the protocol above, and encrypted ones go straight to
the socket, if the transport below is a plain one and holds nothing.

It counts the records (:mod:`.tls_records`), and so asks OpenSSL for data only when one is complete: to be told that
there is none costs an exception. The number of records that may have data is an upper bound, because some have none,
such as session tickets.

Invariants: while the protocol above has paused reading, nothing is decrypted and the transport below is paused. That
goes on once everything before is decrypted. So at most one read of encrypted bytes waits. What OpenSSL has to say while
it reads, as in a renegotiation, leaves with that read. A peer that asks for such answers and does not read them is cut.
After the peer's end of the stream, everything before it is delivered, then the end.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Iterable
from contextvars import Context
from typing import Any, Final

from . import sendmsg
from .loop_context import LoopContext
from .timers import Deadline
from .tls_records import RecordCounter

__all__ = ["HANDSHAKE_TIMEOUT", "SHUTDOWN_TIMEOUT", "TLSCore", "TLSTransport"]

#: Seconds for the TLS handshake and for the peer's close_notify, as in asyncio.
HANDSHAKE_TIMEOUT: Final = 60.0
SHUTDOWN_TIMEOUT: Final = 30.0

#: Bytes of one read of encrypted bytes. The connections of a loop share the buffer.
_READ_SIZE: Final = 128 * 1024
#: Bytes that are encrypted before they are sent: they are still in the cache then.
_PIECE: Final = 64 * 1024
#: Bytes that OpenSSL answers by itself, as to a KeyUpdate, while the peer reads nothing.
_MOST_ANSWERS: Final = 64 * 1024

#: Stages. The third ends with the peer's close_notify, the last with the transport below.
_HANDSHAKE: Final = 0
_OPEN: Final = 1
_CLOSING: Final = 2
_CLOSED: Final = 3

#: Bytes that OpenSSL read or took if it has to wait for the peer.
_NOTHING: Final = -1

_SSLError, _SSLWantReadError = ssl.SSLError, ssl.SSLWantReadError


class TLSCore:
    """Fields and methods of :class:`TLSTransport`. Used by the thread of the loop only.

    Args:
        state: context of the event loop.
        above: protocol of the decrypted bytes, an :class:`asyncio.BufferedProtocol`.
        context: of the handshake.
        on_handshake: called with ``None`` after the handshake, behind ``above.connection_made``, or with the exception
            that ended it. ``above`` is not called at all then.
        server_side: True for the server's role.
        server_hostname: name that the server's certificate must have, for the client's role.
        handshake_timeout: seconds for the handshake (default 60).
        shutdown_timeout: seconds from :meth:`close` to the peer's close_notify (default 30).
    """

    # fmt: off
    __slots__ = (
        "_above", "_answers", "_at_end", "_below", "_buffer", "_connected", "_context", "_counter", "_deadline", "_fd",
        "_fin", "_full", "_handed", "_handshake_timeout", "_held", "_incoming", "_loop", "_object", "_on_handshake",
        "_outgoing", "_paused", "_reading", "_records", "_shutdown_timeout", "_speaks", "_ssl", "_stage", "_state",
        "_stopped", "_view", "failure",
    )
    # fmt: on

    def __init__(
        self,
        state: LoopContext,
        above: Any,
        context: ssl.SSLContext,
        on_handshake: Callable[[BaseException | None], object],
        *,
        server_side: bool,
        server_hostname: str | None = None,
        handshake_timeout: float = HANDSHAKE_TIMEOUT,
        shutdown_timeout: float = SHUTDOWN_TIMEOUT,
    ) -> None:
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = context.wrap_bio(incoming, outgoing, server_side=server_side, server_hostname=server_hostname)
        if state.tls_view is None:
            state.tls_buffer = bytearray(_READ_SIZE)
            state.tls_view = memoryview(state.tls_buffer)
        self._loop = asyncio.get_running_loop()
        self._state = state
        self._above = above
        self._below: Any = None
        self._context = context
        self._on_handshake: Callable[[BaseException | None], object] | None = on_handshake
        self._object = tls
        #: Object of the ``_ssl`` module in it: without a call of Python code before each of its methods.
        self._ssl: Any = getattr(tls, "_sslobj", tls) if type(tls) is ssl.SSLObject else tls
        self._incoming = incoming
        self._outgoing = outgoing
        self._buffer: bytearray = state.tls_buffer
        self._view: memoryview = state.tls_view
        self._handshake_timeout = handshake_timeout
        self._shutdown_timeout = shutdown_timeout
        self._deadline: Deadline | None = None
        #: Exception that has ended the connection, if any.
        self.failure: BaseException | None = None
        self._stage = _HANDSHAKE
        self._connected = False  # the protocol above knows of it
        # --- reading
        self._counter = RecordCounter()
        self._records = 0  # complete ones that may have data for the protocol above
        self._paused = False  # the protocol above wants no data
        self._stopped = False  # the transport below was told so
        self._reading = False  # data is being read: no other call of `_read` is needed
        self._speaks = False  # OpenSSL may have made records by itself
        self._at_end = False  # no data follows
        self._fin = False  # the transport below is at its end
        # --- writing
        self._fd = -1  # of the socket, if the transport below is a plain one
        self._handed = True  # the transport below was given data and was not seen empty since
        self._full = False  # it asks to wait
        self._answers = 0  # bytes that OpenSSL has answered by itself since then
        self._held: list[bytes] | None = None  # data that waits for the end of a renegotiation

    # --- called by the transport below ------------------------------------------------------------

    def connection_made(self, transport: Any) -> None:
        """Begin the handshake."""
        if self._stage == _CLOSED:  # it was aborted before
            transport.abort()
            return
        self._below = transport
        try:
            self._fd = sendmsg.descriptor(transport)
            self._deadline = self._state.timers.after(self._handshake_timeout, self._time_out)
            self._shake()
        except BaseException as exc:
            self._fail(exc)

    def get_buffer(self, sizehint: int) -> memoryview:
        """Return the memory for the next encrypted bytes. They leave it before anything else is called."""
        return self._view

    def buffer_updated(self, nbytes: int) -> None:
        """Take the first ``nbytes`` bytes of the buffer."""
        if self._stage == _CLOSED:
            return
        try:
            self._records += self._counter.count(self._buffer, nbytes)
            self._incoming.write(self._view[:nbytes])
            if self._stage == _OPEN:
                self._read()
            elif self._stage == _HANDSHAKE:
                self._shake()
            else:
                self._drain()
                self._answer()
                if self._held is not None:
                    self._write_held()
                elif self._at_end:
                    self._close_below()
        except BaseException as exc:
            self._fail(exc)

    def data_received(self, data: bytes) -> None:
        """Take ``data`` from a transport that does not ask for buffers."""
        left = memoryview(data)
        while left:
            size = min(len(left), _READ_SIZE)
            self._view[:size] = left[:size]
            self.buffer_updated(size)
            left = left[size:]

    def eof_received(self) -> bool:
        """Take the peer's FIN, with or without a close_notify before it."""
        self._fin = self._at_end = True
        if self._stage == _HANDSHAKE:
            self._fail(ConnectionResetError("the peer has gone in the TLS handshake"))
        elif self._stage == _OPEN:
            if self._paused:
                return True  # the protocol above gets what waits first
            try:
                self._read()
            except BaseException as exc:
                self._fail(exc)
        return False

    def pause_writing(self) -> None:
        """Let the protocol above wait."""
        self._full = True
        if self._connected and self._held is None:
            self._above.pause_writing()

    def resume_writing(self) -> None:
        """Let the protocol above go on."""
        self._full = False
        self._answers = 0
        if self._connected and self._held is None:
            self._above.resume_writing()

    def connection_lost(self, exc: BaseException | None) -> None:
        """Tell the protocol above that the transport is gone."""
        self._stage = _CLOSED
        self._fd = -1
        self._below = None
        self._held = None
        if self._deadline is not None:
            self._deadline.cancel()
        above, self._above = self._above, None
        self._tell(exc or self.failure or ConnectionResetError("the peer has gone in the TLS handshake"))
        if self._connected:
            self._connected = False
            above.connection_lost(exc or self.failure)

    # --- the handshake ----------------------------------------------------------------------------

    def _shake(self) -> None:
        """Go on with the handshake."""
        done = False
        try:
            self._ssl.do_handshake()
            done = True
        except _SSLWantReadError:
            pass
        self._send()
        if not done:
            return
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        self._stage = _OPEN
        self._connected = True
        self._above.connection_made(self)
        self._tell(None)
        if self._full and self._above is not None:
            self._above.pause_writing()
        self._records = self._incoming.pending + self._ssl.pending()  # not more of them than bytes
        self._read()

    def _tell(self, failure: BaseException | None) -> None:
        """Tell the outcome of the handshake, once."""
        on_handshake, self._on_handshake = self._on_handshake, None
        if on_handshake is not None:
            on_handshake(failure)

    def _time_out(self) -> None:
        """End a handshake or a shutdown that takes too long."""
        self._deadline = None
        if self._stage == _HANDSHAKE:
            self.failure = ConnectionAbortedError("the TLS handshake takes too long")
        self.abort()

    def _fail(self, exc: BaseException) -> None:
        """End the connection after ``exc``, behind an alert to the peer. Report a failure that is not the peer's."""
        if self._stage != _CLOSED:
            handshake = self._stage == _HANDSHAKE
            self._stage = _CLOSED
            self.failure = exc
            if not handshake and not isinstance(exc, OSError):
                problem = {"message": "a TLS connection failed", "exception": exc, "protocol": self._above}
                self._loop.call_exception_handler(problem)
            try:
                self._send()
                if self._below.get_write_buffer_size():
                    self._below.abort()
                else:
                    self._below.close()
            finally:
                if handshake:
                    self._tell(exc)
        if not isinstance(exc, Exception):
            raise exc

    # --- reading ----------------------------------------------------------------------------------

    def _read(self) -> None:
        """Decrypt complete records into the buffer of the protocol above, and tell it. Then tell it the end, if any."""
        if self._reading:
            return
        self._reading = True
        done = False
        try:
            while self._records > 0 and not self._paused and self._stage == _OPEN:
                room = self._above.get_buffer(-1)
                if type(room) is not memoryview:
                    room = memoryview(room)
                filled = self._fill(room, len(room))
                if filled > 0:
                    self._above.buffer_updated(filled)
                if self.failure is not None:
                    break
            done = True
        finally:
            self._reading = False
            if not done and self._records > 0:  # a signal handler raised
                self._loop.call_soon(self._go_on, context=Context())
        if self._speaks:
            self._speaks = False
            if self._stage != _CLOSED:
                self._answer()
        if self.failure is not None and self._stage == _OPEN:
            self._fail(self.failure)
        if self._held is not None:
            self._write_held()
        if self._at_end and self._records <= 0 and not self._paused and self._stage == _OPEN:
            self._above.eof_received()
            self.close()

    def _fill(self, room: Any, size: int) -> int:
        """Decrypt into ``room``, which has ``size`` bytes. Return how many have come."""
        filled = 0
        if self._records > 1:
            self._speaks = True
        while True:
            got = _NOTHING
            try:
                got = self._ssl.read(size - filled, room[filled:] if filled else room)
            except _SSLWantReadError:
                self._speaks = True
            except ssl.SSLZeroReturnError:
                got = 0
            except Exception as exc:
                self.failure = exc
            if got <= 0:
                self._at_end |= got == 0
                self._records = 0
                return filled
            filled += got
            if filled < size:
                self._records -= 1
                if self._records <= 0:
                    return filled
            else:
                if not self._ssl.pending():
                    self._records -= 1
                return filled

    def _go_on(self) -> None:
        """Read what came while the protocol above did not want it."""
        if self._stage == _OPEN:
            try:
                self._read()
                if self._stage == _OPEN and not self._paused:
                    self._resume_below()
            except BaseException as exc:
                self._fail(exc)

    def _resume_below(self) -> None:
        """Let the transport below read again."""
        if self._stopped and not self._fin:
            self._stopped = False
            self._below.resume_reading()

    # --- the transport of the protocol above: reading ---------------------------------------------

    def pause_reading(self) -> None:
        """Deliver no more data until :meth:`resume_reading`."""
        if not self._paused and self._stage == _OPEN:
            self._paused = True
            if not self._stopped and not self._fin:
                self._stopped = True
                self._below.pause_reading()

    def resume_reading(self) -> None:
        """Deliver data again, from the next loop iteration on."""
        if self._paused and self._stage == _OPEN:
            self._paused = False
            if self._records > 0 or self._at_end:
                self._loop.call_soon(self._go_on, context=Context())
            else:
                self._resume_below()

    def is_reading(self) -> bool:
        """Return True if data is delivered."""
        return self._stage == _OPEN and not self._paused

    # --- the transport of the protocol above: writing ---------------------------------------------

    def write(self, data: Any) -> None:
        """Encrypt ``data`` and send it, or let the transport below hold it."""
        if self._stage != _OPEN:
            return
        if type(data) is not bytes:
            data = memoryview(data).cast("B")
        size = len(data)
        if self._held is not None:
            self._held.append(bytes(data))
        elif 0 < size <= _PIECE:
            taken = self._encrypt(data)
            if taken == _NOTHING:
                self._hold(data)
                return
            self._send()
            if taken < size:
                self._write_long(memoryview(data)[taken:])
        elif size:
            self._write_long(memoryview(data))

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview]) -> None:
        """Write all of ``list_of_data``, in as few records as possible."""
        self.write(b"".join(list_of_data))

    def _write_long(self, data: memoryview) -> None:
        """Encrypt and send ``data`` piece by piece."""
        at = 0
        while at < len(data) and self._stage == _OPEN:
            taken = self._encrypt(data[at : at + _PIECE])
            if taken == _NOTHING:
                self._hold(data[at:])
                return
            at += taken
            self._send()

    def _encrypt(self, data: Any) -> int:
        """Return how much of ``data`` OpenSSL took, `_NOTHING` if it has to read first, as in a renegotiation."""
        taken = _NOTHING
        try:
            taken = self._ssl.write(data)
        except _SSLWantReadError:
            pass
        except _SSLError as exc:
            taken = len(data)  # lost with the connection
            if self.failure is None:  # else a read is about to end it
                self._fail(exc)
        return taken

    def _hold(self, data: Any) -> None:
        """Keep ``data`` until OpenSSL takes it, and let the protocol above wait."""
        data = memoryview(data)
        self._held = [bytes(data[at : at + _PIECE]) for at in range(0, len(data), _PIECE)]
        self._send()
        if not self._full:
            self._above.pause_writing()

    def _write_held(self) -> None:
        """Write what waits for the end of a renegotiation."""
        held = self._held
        while held and self._stage != _CLOSED:
            taken = self._encrypt(held[0])  # the same bytes again, as OpenSSL wants it
            self._send()
            if taken == _NOTHING:
                return
            if taken < len(held[0]):
                held[0] = held[0][taken:]
            else:
                del held[0]
        self._held = None
        if self._stage == _CLOSING:
            self._shut_down()
        elif not self._full and self._connected:
            self._above.resume_writing()

    def _send(self) -> None:
        """Send the records that OpenSSL has made."""
        data: bytes | memoryview = self._outgoing.read()
        if not data:
            return
        # While a read of ours is handled, the loop does not close the socket, unless a write to its transport fails.
        if (self._handed or not self._reading or self._stage != _OPEN) and self._below.is_closing():
            return
        if self._handed and self._fd >= 0:
            self._handed = self._below.get_write_buffer_size() != 0
        if not self._handed and self._fd >= 0:
            sent = sendmsg.send(self._fd, [data])
            if sent < 0:
                return
            if sent > 0:
                data = memoryview(data)[sent:]
        self._handed = True
        Context().run(self._below.write, data)  # asyncio keeps the context until the socket takes the data

    def _answer(self) -> None:
        """Send what OpenSSL has made while it read. Cut a peer that causes much of it and does not read it."""
        if self._full:
            self._answers += self._outgoing.pending
            if self._answers > _MOST_ANSWERS:
                self._fail(ConnectionAbortedError("the peer does not read the answers of TLS"))
                return
        self._send()

    def can_write_eof(self) -> bool:
        """Return False: one direction alone cannot end."""
        return False

    def write_eof(self) -> None:
        """Raise ``NotImplementedError``, as a transport does whose :meth:`can_write_eof` is False."""
        raise NotImplementedError

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Set the bytes of encrypted data at which the protocol above has to wait, and at which it goes on."""
        if self._below is not None:
            self._below.set_write_buffer_limits(high, low)

    def get_write_buffer_limits(self) -> tuple[int, int]:
        """Return the low and the high limit."""
        return (0, 0) if self._below is None else self._below.get_write_buffer_limits()

    def get_write_buffer_size(self) -> int:
        """Return the bytes that the socket has not taken."""
        size = 0 if self._below is None else int(self._below.get_write_buffer_size())
        if self._held is not None:
            size += sum(map(len, self._held))
        return size

    # --- the end ----------------------------------------------------------------------------------

    def is_closing(self) -> bool:
        """Return True if the transport is closing or closed."""
        if self._stage != _OPEN:
            return self._stage != _HANDSHAKE
        return not self._reading and bool(self._below.is_closing())

    def close(self) -> None:
        """Send what waits, then a close_notify. Close the transport below after that of the peer."""
        if self._stage == _HANDSHAKE:
            self.abort()
        elif self._stage == _OPEN:
            self._stage = _CLOSING
            self._deadline = self._state.timers.after(self._shutdown_timeout, self._time_out)
            if self._held is None:
                self._shut_down()

    def _shut_down(self) -> None:
        """Send our close_notify behind all data."""
        self._drain()  # to OpenSSL, data between both close_notify is an error
        try:
            self._object.unwrap()
            self._at_end = True
        except _SSLError:  # that of the peer has not come
            pass
        self._send()
        if self._at_end:
            self._close_below()
        else:
            self._paused = False
            self._resume_below()

    def _drain(self) -> None:
        """Drop the peer's data, up to its close_notify."""
        try:
            while self._records > 0:
                if not self._ssl.read(_READ_SIZE):
                    self._at_end = True
                    self._records = 0
        except _SSLWantReadError:
            self._records = 0
        except _SSLError:  # its close_notify, or an error that does not matter any more
            self._at_end = True
            self._records = 0

    def _close_below(self) -> None:
        self._stage = _CLOSED
        self._below.close()

    def abort(self) -> None:
        """Close the transport below at once. What it holds is lost."""
        self._stage = _CLOSED
        if self._below is not None:
            self._below.abort()
        self._tell(self.failure or ConnectionAbortedError("the TLS handshake was aborted"))

    # --- information ------------------------------------------------------------------------------

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Return information about TLS by the names of asyncio, or that of the transport below."""
        if name == "ssl_object":
            return self._object
        if name == "sslcontext":
            return self._context
        if name in ("peercert", "cipher", "compression"):
            if not self._connected:
                return default
            ask = self._object.getpeercert if name == "peercert" else getattr(self._object, name)
            found = ask()
            return default if found is None else found
        return default if self._below is None else self._below.get_extra_info(name, default)

    def get_protocol(self) -> Any:
        """Return the protocol of the decrypted bytes."""
        return self._above

    def set_protocol(self, protocol: Any) -> None:
        """Deliver to ``protocol`` from now on."""
        self._above = protocol


class TLSTransport(TLSCore, asyncio.BufferedProtocol):
    """TLS over a transport, for the protocol above. See :class:`TLSCore`."""

    __slots__ = ()
