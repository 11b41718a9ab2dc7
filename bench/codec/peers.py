"""The peers, each reduced to what is compared: bytes in to messages, and messages to bytes out.

A parser is kept for the life of its contest, as a connection keeps it; each call takes its messages away. Peers
that are not installed are absent from the contests. Invariant: what a peer returns holds its messages, and the
function beside it reads their payloads, so that a check can see that the work was done.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace
from typing import Any

from .ours import BODIES

_LIMIT = 16 * 1024 * 1024
Feed = Callable[[bytes], Any]
Send = Callable[[bytes], Any]


def installed(name: str) -> bool:
    """Return True if a peer can be measured here."""
    return importlib.util.find_spec(name) is not None


@dataclass(frozen=True)
class Reader:
    """``feed()`` builds what turns bytes into a collection of messages; ``payload`` reads one of these."""

    feed: Callable[[], Feed]
    payload: Callable[[Any], Any]
    decodes: bool = True  # text arrives as str


def _ours(body: Any) -> Feed:
    feed: Feed = body.Parser(client=False, max_size=_LIMIT).feed
    return feed


def _ours_alone(body: Any) -> Feed:
    feed: Feed = body.Parser(client=False, max_size=_LIMIT).feed_messages
    return feed


def _aiohttp(module: str, queue_limit: int) -> Feed:
    """aiohttp's reader and its queue, which a consumer would empty one by one."""
    reader = importlib.import_module(module)
    protocol = SimpleNamespace(_reading_paused=True)
    queue = reader.WebSocketDataQueue(protocol, queue_limit, loop=SimpleNamespace())
    feed_data = reader.WebSocketReader(queue, _LIMIT, False, True).feed_data
    messages = queue._buffer

    def feed(data: bytes) -> Any:
        messages.clear()
        feed_data(data)
        return messages

    return feed


def _wsproto() -> Feed:
    """It gives what has arrived of a message; a consumer puts the parts together."""
    from wsproto.connection import Connection, ConnectionType

    connection = Connection(ConnectionType.SERVER)
    parts: list[Any] = []

    def feed(data: bytes) -> Any:
        connection.receive_data(data)
        messages = []
        for event in connection.events():
            parts.append(event.data)  # type: ignore[attr-defined]
            if event.message_finished:  # type: ignore[attr-defined]
                messages.append(parts[0] if len(parts) == 1 else parts[0][:0].join(parts))
                parts.clear()
        return messages

    return feed


def _websockets() -> Feed:
    """Frames, not messages: text is not decoded here, fragments are not put together."""
    from websockets.protocol import Protocol, Side

    protocol = Protocol(Side.SERVER, max_size=_LIMIT)

    def feed(data: bytes) -> Any:
        protocol.receive_data(data)
        return protocol.events_received()

    return feed


def _picows(text: bool = False) -> Feed:
    from .picows_peer import Picows

    return Picows(text=text).feed


def _event(event: tuple[int, Any]) -> Any:
    return event[1]


def _queued(entry: tuple[Any, int]) -> Any:
    return entry[0].data


def _data(event: Any) -> Any:
    return event.data


def _itself(payload: Any) -> Any:
    return payload


def readers(*, text: bool = False) -> dict[str, Reader]:
    """Contenders that parse bytes into messages: ours into pairs with their opcode, and into plain messages."""
    found = {name: Reader(partial(_ours, body), _event) for name, body in BODIES.items()}
    found |= {f"{name}, messages alone": Reader(partial(_ours_alone, body), _itself) for name, body in BODIES.items()}
    if installed("picows"):
        found["picows"] = Reader(partial(_picows, text), _itself)
    if installed("aiohttp"):
        # the queue counts in 32 bits in C, and neither may ever think that it is full
        if installed("aiohttp._websocket.reader_c"):
            found["aiohttp"] = Reader(partial(_aiohttp, "aiohttp._websocket.reader_c", 2**31 - 1), _queued)
        # with aiohttp's C masks, where these are built: faster than it is without any extension
        found["aiohttp Python"] = Reader(partial(_aiohttp, "aiohttp._websocket.reader_py", 2**60), _queued)
    if installed("websockets"):
        found["websockets"] = Reader(_websockets, _data, decodes=False)
    if installed("wsproto"):
        found["wsproto"] = Reader(_wsproto, _itself)
    return found


# --- out ------------------------------------------------------------------------------------------


def _websockets_sender(client: bool) -> Send:
    from websockets.frames import Frame, Opcode

    def send(payload: bytes) -> bytes:
        return Frame(Opcode.BINARY, payload).serialize(mask=client)

    return send


def _wsproto_sender(client: bool) -> Send:
    from wsproto.connection import Connection, ConnectionType
    from wsproto.events import BytesMessage

    connection = Connection(ConnectionType.CLIENT if client else ConnectionType.SERVER)

    def send(payload: bytes) -> bytes:
        return connection.send(BytesMessage(data=payload))

    return send


def _aiohttp_sender(client: bool) -> Send:
    from aiohttp._websocket.writer import WebSocketWriter

    written: list[bytes] = []
    transport: Any = SimpleNamespace(is_closing=lambda: False, write=written.append)
    protocol: Any = SimpleNamespace(_paused=False)
    send_frame = WebSocketWriter(protocol, transport, use_mask=client).send_frame

    def send(payload: bytes) -> bytes:
        written.clear()
        with contextlib.suppress(StopIteration):  # the end of a coroutine that had nothing to wait for
            send_frame(payload, 2).send(None)
        return written[0]

    return send


def _picows_sender(client: bool) -> Send:
    import picows

    from .picows_peer import Picows

    connection = Picows(client=client)
    sent, binary, send_message = connection.sent, picows.WSMsgType.BINARY, connection.send

    def send(payload: bytes) -> bytes:
        send_message(binary, payload)
        return sent[0]

    return send


def senders(*, client: bool) -> dict[str, Send]:
    """Which peers turn a payload into a binary frame; a client's is masked with a key of its own."""
    kinds = {
        "picows": _picows_sender,
        "aiohttp": _aiohttp_sender,
        "websockets": _websockets_sender,
        "wsproto": _wsproto_sender,
    }
    return {name: build(client) for name, build in kinds.items() if installed(name)}
