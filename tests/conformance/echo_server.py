"""An echo server for conformance suites: it says back each message as it came, text as text, binary as binary.

    python echo_server.py PORT [--reading iterate|callback|stream|asgi] [--loop asyncio|uvloop] [--tls FILE]

The three ways to read a connection must conform alike, on both loops and with both bodies of the codec
(``PLUMEWS_PURE=1`` takes the plain one). So must an ASGI application under uvicorn, with our WebSocket class. PORT 0 is
a free one; it is said. FILE has a certificate and its key, for our own server. Runs until it is interrupted.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import signal
import ssl
import sys
from collections.abc import AsyncIterator
from typing import Any

import plumews
from plumews.asgi import PlumeProtocol


def _deflate(bits: int, *, takeover: bool) -> plumews.Deflate:
    return plumews.Deflate(
        server_window_bits=bits,
        client_window_bits=bits,
        server_takeover=takeover,
        client_takeover=takeover,
        min_size=0,
    )


async def iterate(conn: plumews.Conn) -> None:
    """Whole messages, one after another."""
    async for message in conn:
        await conn.send(message)


def callback(conn: plumews.Conn, message: str | bytes) -> None:
    """Whole messages, straight from the parser."""
    conn.send_nowait(message)


async def stream(conn: plumews.Conn) -> None:
    """Messages in the pieces in which they arrive."""
    while True:
        async with await conn.read_stream() as message:
            await conn.write_message(message.opcode, await message.read_all())


#: Each way to read goes with another way to compress, so that all of them are tried; short messages, too.
READING: dict[str, dict[str, Any]] = {
    "iterate": {"handler": iterate, "compression": _deflate(15, takeover=True)},
    "callback": {"on_message": callback, "compression": _deflate(12, takeover=False)},
    "stream": {"handler": stream, "compression": _deflate(12, takeover=True)},
}


#: The ASGI application, on a server of uvicorn.
ASGI = "asgi"


async def application(scope: Any, receive: Any, send: Any) -> None:
    """Events, one after another."""
    await receive()
    await send({"type": "websocket.accept"})
    while (event := await receive())["type"] != "websocket.disconnect":
        await send({**event, "type": "websocket.send"})


async def main(port: int, reading: str, certificate: str | None) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for name in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(name, stop.set)
    async with uvicorn_server(port) if reading == ASGI else echo_server(port, reading, certificate) as used:
        sys.stdout.write(
            f"plumews {plumews.__version__}, codec {plumews.BODY}, {type(loop).__module__} {reading}: port {used}\n"
        )
        sys.stdout.flush()
        await stop.wait()


@contextlib.asynccontextmanager
async def echo_server(port: int, reading: str, certificate: str | None) -> AsyncIterator[int]:
    """The port of our own server."""
    context = None
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
    async with plumews.serve(host="127.0.0.1", port=port, ssl=context, **READING[reading]) as server:
        yield server.port


@contextlib.asynccontextmanager
async def uvicorn_server(port: int) -> AsyncIterator[int]:
    """The port of a server of uvicorn, which logs warnings and errors alone."""
    import uvicorn

    config = uvicorn.Config(
        application,
        host="127.0.0.1",
        port=port,
        ws=PlumeProtocol.with_options(compression=_deflate(15, takeover=True)),
        ws_max_size=32 * 1024 * 1024,
        lifespan="off",
        log_level="warning",
    )
    config.load()
    server = uvicorn.Server(config)
    server.lifespan = config.lifespan_class(config)
    await server.startup()
    try:
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        await server.shutdown()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="An echo server for conformance suites.")
    parser.add_argument("port", type=int)
    parser.add_argument("--reading", choices=[*sorted(READING), ASGI], default="iterate")
    parser.add_argument("--loop", choices=["asyncio", "uvloop"], default="asyncio")
    parser.add_argument("--tls", metavar="FILE")
    options = parser.parse_args()
    running = main(options.port, options.reading, options.tls)
    if options.loop == "uvloop":
        import uvloop

        uvloop.run(running)
    else:
        asyncio.run(running)
