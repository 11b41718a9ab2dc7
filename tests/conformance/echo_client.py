"""An echo client for the fuzzing server of a conformance suite, made of the parts of plumews that know no sockets.

    python echo_client.py PORT      runs every case that the server has, and has it write its reports

It is no client for anything else: what it shows is that parser, frames, negotiation and compression hold on that side,
too. ``PLUMEWS_PURE=1`` takes the plain body of the codec.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import sys
from typing import Any

import plumews
from plumews.constants import COMPRESSED, CloseCode, Opcode
from plumews.deflate.config import check_answer, offer
from plumews.deflate.streams import ContextCompressor, Inflater
from plumews.errors import InvalidData, ProtocolError
from plumews.http11.websocket_key import accept_value
from plumews.protocol.codec import Parser, build_frame, fragment, new_mask

LIMIT = 32 * 1024 * 1024
DEFLATE = plumews.Deflate(
    server_window_bits=15, client_window_bits=15, server_takeover=True, client_takeover=True, mem_level=8, min_size=0
)


class Case:
    """One connection: it says back what it hears until the other side, or a fault, ends it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.parser = Parser(client=True, max_size=LIMIT)
        self.inflater: Inflater | None = None
        self.context: ContextCompressor | None = None
        self.fresh = False  # each message stands for itself
        self.last: Any = None

    async def open(self, port: int, path: str) -> None:
        key = base64.b64encode(os.urandom(16)).decode()
        head = [
            f"GET {path} HTTP/1.1",
            f"Host: 127.0.0.1:{port}",
            "Upgrade: websocket",
            "Connection: Upgrade",
            f"Sec-WebSocket-Key: {key}",
            "Sec-WebSocket-Version: 13",
            f"Sec-WebSocket-Extensions: {offer(DEFLATE)}",
        ]
        self.writer.write(("\r\n".join(head) + "\r\n\r\n").encode())
        status, *lines = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = [(name.lower(), value.strip()) for name, _, value in (line.partition(":") for line in lines if line)]
        assert status.split(" ")[1] == "101", status
        assert ("sec-websocket-accept", accept_value(key).decode()) in headers
        agreement = check_answer([value for name, value in headers if name == "sec-websocket-extensions"], DEFLATE)
        if agreement is not None:
            self.parser = Parser(client=True, max_size=LIMIT, allow_rsv1=True)
            self.inflater = Inflater(agreement.server_window_bits, takeover=agreement.server_takeover)
            assert DEFLATE.level is not None
            self.context = ContextCompressor("zlib", DEFLATE.level, agreement.client_window_bits, DEFLATE.mem_level)
            self.fresh = not agreement.client_takeover

    async def run(self) -> None:
        open_ = True
        while data := await self.reader.read(65536):
            if not open_:
                continue
            for event in self.parser.feed(data):
                try:
                    open_ = self.take(*event)
                except ProtocolError as exc:
                    open_ = self.fail(exc)
                if not open_:
                    break
            if open_ and self.parser.error is not None:
                open_ = self.fail(self.parser.error)
            await self.writer.drain()
        self.writer.close()

    def take(self, kind: int, data: Any) -> bool:
        """Answer one event; whether more are wanted."""
        if kind == Opcode.PING:
            self.writer.write(build_frame(Opcode.PONG, data, masked=True))
        elif kind == Opcode.CLOSE:
            code, _ = data
            payload = b"" if code == CloseCode.NO_STATUS_RCVD else code.to_bytes(2, "big")
            self.writer.write(build_frame(Opcode.CLOSE, payload, masked=True))
            return False
        elif kind != Opcode.PONG:
            opcode = kind & ~COMPRESSED
            payload = self.inflated(data) if kind & COMPRESSED else data.encode() if isinstance(data, str) else data
            if opcode == Opcode.TEXT:
                self.last = text_of(payload)
            self.say(opcode, payload)
        return True

    def inflated(self, data: bytes) -> bytes:
        assert self.inflater is not None
        self.inflater.start(LIMIT)
        self.inflater.feed(data)
        self.inflater.finish()
        parts = []
        while self.inflater.pending:
            parts.append(self.inflater.step())
        return b"".join(parts)

    def say(self, opcode: int, payload: bytes) -> None:
        if self.context is not None:
            payload = self.context.compress(payload)
            if self.fresh:
                self.context.reset()
        self.writer.writelines(fragment(opcode, payload, mask=new_mask, rsv1=self.context is not None))

    def fail(self, exc: ProtocolError) -> bool:
        self.writer.write(build_frame(Opcode.CLOSE, exc.close_code.to_bytes(2, "big"), masked=True))
        with contextlib.suppress(OSError):  # the suite may have hung up
            self.writer.write_eof()
        return False


def text_of(payload: bytes) -> str:
    try:
        return payload.decode()
    except UnicodeDecodeError as exc:
        raise InvalidData(str(exc)) from None


async def visit(port: int, path: str) -> Any:
    """The last text that the server said on a connection to ``path``."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    case = Case(reader, writer)
    try:
        await case.open(port, path)
        await case.run()
    except OSError:
        pass  # cut by the suite, which has its own view of that
    finally:
        writer.close()
    return case.last


async def main(port: int) -> None:
    count = int(await visit(port, "/getCaseCount"))
    for number in range(1, count + 1):
        await visit(port, f"/runCase?case={number}&agent=plumews")
    await visit(port, "/updateReports?agent=plumews")
    sys.stdout.write(f"plumews {plumews.__version__}, codec {plumews.BODY}, client: {count} cases\n")


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
