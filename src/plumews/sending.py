"""How an application writes, and what happens when the queue is full (layer 3).

A send returns when its message is queued. Beyond the bounds of the queue the seed's three behaviours
apply: BLOCK waits up to the send timeout, DROP refuses, CLOSE closes with 1013. The order of checks is the
seed's: the connection, the message, the queue.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

from .constants import CloseCode, Opcode, SendBehavior, State
from .errors import SendQueueFull, SendTimeout
from .outgoing import Data, Encoded, encode, encode_json, opcode_of, payload_of
from .receiving import Receiving

__all__ = ["Sending"]


class Sending(Receiving):
    """The writing half of :class:`plumews.Conn`."""

    __slots__ = ()

    async def send(self, message: Data, text: bool | None = None) -> None:
        """Queue a message: ``str`` as text, bytes-like as binary.

        Args:
            message: what to send; bytes-like objects that can change are copied.
            text: ``True`` sends bytes (which must be UTF-8) as text, ``False`` sends ``str`` as binary.

        Raises:
            ConnectionClosed: the connection is closed, or closing.
            SendTimeout: the queue had no space within the send timeout (``SendBehavior.BLOCK``).
            SendQueueFull: the queue is full (``DROP``), or was and the connection was closed (``CLOSE``).
            TypeError, ValueError: the message is not one.
        """
        if text is None and self._send_now(message):
            return
        opcode = opcode_of(message)
        if text is not None:
            opcode = Opcode.TEXT if text else Opcode.BINARY
        await self.write_message(opcode, message)

    async def write_message(self, opcode: int, data: Data) -> None:
        """Queue ``data`` as a message of ``opcode``: ``Opcode.TEXT`` or ``Opcode.BINARY``. Raises as :meth:`send`."""
        message = self._outgoing(opcode, data)
        if not self._writer.offer(message):
            await self._overflow(message)
        self._kick()

    async def write_text(self, text: str) -> None:
        """Queue a text message. Raises as :meth:`send`."""
        if not isinstance(text, str):
            raise TypeError(f"write_text takes a str, not {type(text).__name__}")
        await self.write_message(Opcode.TEXT, text)

    async def write_binary(self, data: bytes | bytearray | memoryview) -> None:
        """Queue a binary message. Raises as :meth:`send`."""
        if isinstance(data, str):
            raise TypeError("write_binary takes bytes, not str")
        await self.write_message(Opcode.BINARY, data)

    async def write_json(self, obj: Any) -> None:
        """Queue ``obj`` as compact JSON in a text message.

        Raises as :meth:`send`; an object that JSON cannot express is a TypeError or ValueError, and nothing
        is queued.
        """
        await self.write_message(Opcode.TEXT, encode_json(obj))

    async def write_many(self, messages: Iterable[Data]) -> None:
        """Queue several messages, ``str`` as text and bytes-like as binary, that leave together.

        The same as a :meth:`send` for each, in fewer writes. Raises as :meth:`send`; the messages before the one that
        raised are queued, those behind it are not.
        """
        try:
            for message in messages:
                outgoing = self._outgoing(opcode_of(message), message)
                if not self._writer.offer(outgoing):
                    await self._overflow(outgoing)
        finally:
            self._kick()

    # --- inside -----------------------------------------------------------------------------------

    def _send_nowait_slowly(self, message: Data) -> None:
        outgoing = self._outgoing(opcode_of(message), message)
        if not self._writer.offer(outgoing):
            self._refuse()
        self._kick()

    def _send_shared(self, message: Encoded) -> None:
        """Queue what others get, too; it leaves with everything else of this tick. Raises as :meth:`send_nowait`."""
        self._check_thread()
        self._catch_up_open()
        if not self._writer.offer(message):
            self._refuse()
        self._kick_later()

    def _catch_up_open(self) -> None:
        """Take what must come before what is to be sent now; that may overflow the queue, and close."""
        if self._behind is not None:
            self._catch_up()
            if self._rules.state is not State.OPEN:
                raise self._closed_error()

    def _outgoing(self, opcode: int, data: Data) -> Encoded:
        """Check what can be checked before the queue, and encode."""
        self._check_thread()
        if self._rules.state is not State.OPEN:
            raise self._closed_error()
        payload = payload_of(opcode, data)
        self._catch_up_open()
        return encode(opcode, payload, fragment_size=self._config.fragment_size)

    async def _overflow(self, message: Encoded) -> None:
        if self._config.send_behavior is SendBehavior.BLOCK:
            await self._wait_for_space(message)
        else:
            self._refuse()

    async def _wait_for_space(self, message: Encoded) -> None:
        timeout = self._config.send_timeout
        outcome: asyncio.Future[bool | None] = self._loop.create_future()

        def done(accepted: bool | None) -> None:
            if not outcome.done():
                outcome.set_result(accepted)

        def give_up() -> None:
            if self._writer.withdraw(waiter):
                done(None)

        waiter = self._writer.wait(message, done)
        deadline = None if timeout is None else self._state.timers.after(timeout, give_up)
        try:
            accepted = await outcome
        except asyncio.CancelledError:
            self._writer.withdraw(waiter)
            raise
        finally:
            if deadline is not None:
                deadline.cancel()
        if accepted is None:
            self._writer.dropped += 1
            raise SendTimeout(f"the send queue had no space for {timeout:g} s")
        if not accepted:
            raise self._closed_error()

    def _refuse(self) -> None:
        """The queue is full and nobody may wait."""
        self._writer.dropped += 1
        if self._config.send_behavior is SendBehavior.CLOSE:
            self._begin_close(CloseCode.TRY_AGAIN_LATER, "send queue full", discard=True)
            raise SendQueueFull("connection closed")
        raise SendQueueFull("dropped")
