"""Transports that are none of asyncio's: which are, and what a bare one has to do."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from plumews.asgi.foreign_transport import ForeignTransport, is_own


class Bare:
    """A transport with the least number of methods."""

    def __init__(self) -> None:
        self.written: list[Any] = []
        self.closed = False

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return {"peername": ("192.0.2.1", 1), "socket": "that of all streams"}.get(name, default)

    def write(self, data: Any) -> None:
        self.written.append(data)

    def close(self) -> None:
        self.closed = True


class Partial(asyncio.Transport):
    """A transport that implements little of its base class, whose methods raise ``NotImplementedError``."""

    def __init__(self) -> None:
        super().__init__()
        self.closed = False

    def close(self) -> None:
        self.closed = True


async def test_transports_of_the_loop_are_own_and_no_subclass_is():
    loop = asyncio.get_running_loop()
    made: list[Any] = []

    class Server(asyncio.Protocol):
        def connection_made(self, transport):
            made.append(transport)

    server = await loop.create_server(Server, "127.0.0.1", 0)
    transport, _ = await loop.create_connection(asyncio.Protocol, *server.sockets[0].getsockname())
    assert is_own(transport)
    transport.abort()
    server.close()
    for each in made:
        each.abort()
    assert not is_own(Partial())
    kind = type("Counting", (asyncio.selector_events._SelectorSocketTransport,), {})
    assert not is_own(kind.__new__(kind))


def test_a_bare_transport_is_enough():
    bare = Bare()
    foreign = ForeignTransport(bare)
    foreign.write(memoryview(b"one"))
    foreign.write(b"")
    foreign.writelines([b"t", bytearray(b"w"), memoryview(b"o")])
    assert bare.written == [b"one", b"two"]
    assert all(type(each) is bytes for each in bare.written)
    assert foreign.get_extra_info("peername") == ("192.0.2.1", 1)
    assert foreign.get_extra_info("socket", "none") == "none"
    assert not foreign.is_closing()
    assert not foreign.can_write_eof()
    assert foreign.get_write_buffer_size() == 0
    foreign.pause_reading()
    foreign.resume_reading()
    foreign.set_write_buffer_limits(high=0)
    foreign.write_eof()
    foreign.abort()
    assert bare.closed


@pytest.mark.parametrize("kind", [Bare, Partial])
def test_a_transport_that_cannot_abort_is_closed(kind):
    inner = kind()
    ForeignTransport(inner).abort()
    assert inner.closed
