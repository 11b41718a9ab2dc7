"""Each contender's server, the way its own documentation writes one that is to be fast, with permessage-deflate.

What a room is stands in ``bench.harness.rooms``. A window of 12 bits, memory level 5, level 6, no context takeover on
either side; which of these a library fixes is in ``contenders.py``. No pings of their own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..harness import rooms
from ..harness.listening import BACKLOG, MAX_SIZE, Ready, for_ever
from ..harness.running import HOST
from .messages import LEVEL, MEM_LEVEL, WINDOW_BITS
from .scenarios import OFFER

if TYPE_CHECKING:
    import plumews as ours


def _deflate(level: int = LEVEL, mem_level: int = MEM_LEVEL) -> ours.Deflate:
    from plumews import Deflate

    return Deflate(
        level=level,
        server_window_bits=WINDOW_BITS,
        client_window_bits=WINDOW_BITS,
        server_takeover=False,
        client_takeover=False,
        mem_level=mem_level,
    )


async def plumews(port: int, ready: Ready) -> None:
    await rooms.plumews(port, ready, compression=_deflate())


async def plumews_level_1(port: int, ready: Ready) -> None:
    await rooms.plumews(port, ready, compression=_deflate(level=1, mem_level=8))


async def plumews_plain(port: int, ready: Ready) -> None:
    await rooms.plumews(port, ready)


async def plumews_async_for(port: int, ready: Ready) -> None:
    from plumews import serve

    async def handler(conn: ours.Conn) -> None:
        async for message in conn:
            await conn.send(message)

    await for_ever(ready, serve(handler, HOST, port, ping_interval=None, compression=_deflate()))


async def websockets(port: int, ready: Ready) -> None:
    from websockets.asyncio.server import broadcast, serve
    from websockets.extensions.permessage_deflate import ServerPerMessageDeflateFactory

    factory = ServerPerMessageDeflateFactory(
        server_no_context_takeover=True,
        client_no_context_takeover=True,
        server_max_window_bits=WINDOW_BITS,
        client_max_window_bits=WINDOW_BITS,
        compress_settings={"level": LEVEL, "memLevel": MEM_LEVEL},
    )
    options: dict[str, Any] = {"compression": None, "extensions": [factory], "ping_interval": None, "backlog": BACKLOG}
    await for_ever(ready, serve(rooms.handler(broadcast), HOST, port, **options))


async def aiohttp(port: int, ready: Ready) -> None:
    """Window and context takeover are those of the offer; the level is 1, the memory level zlib's."""
    await rooms.aiohttp(port, ready, compress=True)


async def aiohttp_level_6(port: int, ready: Ready) -> None:
    """The same with a back end that is zlib, but for the two parameters that it does not let be set."""
    import types
    import zlib

    from aiohttp import set_zlib_backend

    def compressobj(**how: Any) -> Any:
        return zlib.compressobj(**{**how, "level": LEVEL, "memLevel": MEM_LEVEL})

    backend: Any = types.SimpleNamespace(**{**vars(zlib), "compressobj": compressobj})
    set_zlib_backend(backend)
    await aiohttp(port, ready)


async def tornado(port: int, ready: Ready) -> None:
    """As the offer says; but it overlooks parameters without a value, until they are given an empty one."""
    from tornado.websocket import WebSocketHandler

    class Compressed(WebSocketHandler):
        def get_compression_options(self) -> dict[str, Any]:
            return {"compression_level": LEVEL, "mem_level": MEM_LEVEL}

        def prepare(self) -> None:
            offer = self.request.headers.get("Sec-WebSocket-Extensions", "")
            self.request.headers["Sec-WebSocket-Extensions"] = offer.replace("takeover", "takeover=")

        def set_header(self, name: str, value: Any) -> None:
            super().set_header(name, value.replace("takeover=", "takeover") if isinstance(value, str) else value)

    await rooms.tornado(port, ready, Compressed)


async def picows(port: int, ready: Ready) -> None:
    """Its own interface does not compress, that for users of websockets does: with what the answer says, put there."""
    from picows.websockets.asyncio.server import broadcast, serve

    def agree(connection: Any, request: Any, response: Any) -> Any:
        response.headers["Sec-WebSocket-Extensions"] = OFFER
        return response

    options: dict[str, Any] = {"process_response": agree, "ping_interval": None, "backlog": BACKLOG}
    await for_ever(ready, serve(rooms.handler(broadcast), HOST, port, **options))


def socketify(port: int, ready: Ready) -> None:
    from socketify import CompressOptions

    compression = CompressOptions.SHARED_COMPRESSOR | CompressOptions.SHARED_DECOMPRESSOR
    rooms.socketify(port, ready, compress=True, compression=compression, max_backpressure=MAX_SIZE, idle_timeout=0)
