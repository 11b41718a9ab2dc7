"""Tests of permessage-deflate on blocking connections."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest

from plumews import ConnectionClosedError, Deflate
from plumews.protocol.codec import build_frame
from plumews.sync import connect
from support.fakes import PATIENCE
from support.hostile_server import Peer
from support.threaded import hostile_server, server

ANSWER = "Sec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover; server_max_window_bits=12"


@pytest.mark.parametrize(
    ("server_takeover", "client_takeover"), [*itertools.product((True, False), repeat=2)], ids=lambda flag: str(flag)[0]
)
def test_compressed_messages_come_back(server_takeover: bool, client_takeover: bool) -> None:
    settings = Deflate(server_takeover=server_takeover, client_takeover=client_takeover)
    messages: list[str | bytes] = ["x" * 1000, b"abc" * 100_000, "ä" * 2000, "short", b"", "x" * 1000]
    with server(compression=settings) as uri, connect(uri, compression=settings) as conn:
        for message in messages:
            conn.send(message)
            assert conn.recv(timeout=PATIENCE) == message
        conn.send("short", compress=True)
        conn.send("y" * 1000, compress=False)
        assert [conn.recv(), conn.recv()] == ["short", "y" * 1000]
        info = conn.compression
        assert info is not None
        assert (info.server_takeover, info.client_takeover) == (server_takeover, client_takeover)
        assert info.sent_messages == 5
        assert info.sent_wire_bytes < info.sent_payload_bytes // 100
        assert info.received_messages >= 4


@pytest.mark.parametrize("takeover", [True, False])
def test_compressed_pieces_and_streams(takeover: bool) -> None:
    settings = Deflate(server_takeover=takeover, client_takeover=takeover)

    def pieces() -> Iterator[bytes]:
        for number in range(10):
            yield str(number).encode() * 20_000

    with server(compression=settings) as uri, connect(uri, compression=settings) as conn:
        for _ in range(2):
            conn.send(pieces())
            with conn.read_stream() as stream:
                assert stream.read_all() == b"".join(pieces())
        conn.send(pieces(), text=True)
        assert conn.recv() == b"".join(pieces()).decode()


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize(
    ("opcode", "data", "code"), [(2, b"\xff\xff\xff", "1007"), (1, b"\x01\x01\x00\xfe\xff\xff", "1007")]
)
def test_a_malformed_message_closes(opcode: int, data: bytes, code: str, streamed: bool) -> None:
    async def play(peer: Peer) -> None:
        peer.accept(ANSWER, behind=build_frame(opcode, data, rsv1=True))
        await peer.reader.read(100)

    with hostile_server(play) as uri, connect(uri, compression="deflate", close_timeout=0.2) as conn:
        receive = (lambda: conn.read_stream().read_all()) if streamed else conn.recv
        with pytest.raises(ConnectionClosedError, match=code):
            receive()


def test_a_bomb_closes_with_1009() -> None:
    settings = Deflate()

    async def handler(conn: object) -> None:
        await conn.send(bytes(2_000_000))  # type: ignore[attr-defined]
        await conn.wait_closed()  # type: ignore[attr-defined]

    with server(handler, compression=settings) as uri:
        conn = connect(uri, compression=settings, max_size=1_000_000).open()
        with pytest.raises(ConnectionClosedError, match="1009"):
            conn.recv(timeout=PATIENCE)
