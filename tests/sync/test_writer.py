"""Tests of sending on blocking connections: messages, frames, and messages in pieces."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from plumews import ConcurrencyError, Opcode, State
from plumews.protocol.codec import build_frame
from plumews.sync import Conn, connect
from support.fakes import PATIENCE
from support.hostile_server import Peer
from support.threaded import hostile_server, in_thread


def test_the_other_ways_to_send(conn: Conn) -> None:
    conn.write_text("text")
    conn.write_binary(bytearray(b"binary"))
    conn.write_json({"a": [1]})
    conn.write_message(Opcode.BINARY, memoryview(b"message"))
    conn.write_many(["one", b"two"])
    expected = ["text", b"binary", '{"a":[1]}', b"message", "one", b"two"]
    assert [conn.recv() for _ in expected] == expected
    conn.send("read")
    assert conn.read_message() == (Opcode.TEXT, b"read")


def test_wrong_messages_are_refused_and_nothing_is_sent(conn: Conn) -> None:
    with pytest.raises(TypeError, match="use write_json"):
        conn.send({"a": 1})  # type: ignore[arg-type]
    with pytest.raises(UnicodeDecodeError):
        conn.send(b"\xff", text=True)
    with pytest.raises(TypeError, match="compress must be"):
        conn.send("text", compress=1)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="use send"):
        conn.write_many("text")
    with pytest.raises(TypeError, match="takes a str"):
        conn.write_text(b"text")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="takes bytes"):
        conn.write_binary("text")  # type: ignore[arg-type]
    conn.send("next")
    assert conn.recv() == "next"


def test_long_messages_are_sent_in_fragments() -> None:
    received: list[bytes] = []

    async def play(peer: Peer) -> None:
        peer.accept()
        received.append(await peer.reader.readexactly(3 * (6 + 10)))
        peer.send(build_frame(8, b"\x03\xe8"))

    with hostile_server(play) as uri, connect(uri, fragment_size=10) as conn:
        conn.send("0123456789abcdefghijABCDEFGHIJ")
    assert [received[0][at] for at in (0, 16, 32)] == [0x01, 0x00, 0x80]


def test_each_frame_has_a_fresh_mask() -> None:
    received: list[bytes] = []

    async def play(peer: Peer) -> None:
        peer.accept()
        received.append(await peer.reader.readexactly(4 * 10))
        peer.send(build_frame(8, b"\x03\xe8"))

    with hostile_server(play) as uri, connect(uri) as conn:
        for _ in range(4):
            conn.send(b"same")
    assert len({received[0][at + 2 : at + 6] for at in range(0, 40, 10)}) == 4


def test_pieces_are_one_message(conn: Conn) -> None:
    conn.send(iter(["one ", "two ", "", "three"]))
    assert conn.recv() == "one two three"
    conn.send(iter([b"\xe2\x82", b"\xac"]), text=True)
    assert conn.recv() == "€"
    conn.send(iter([]))
    conn.send("next")
    assert conn.recv() == "next"


def test_pieces_that_fail_close_with_1011(echo_uri: str) -> None:
    def pieces() -> Iterator[str]:
        yield "half"
        raise ZeroDivisionError

    with connect(echo_uri) as conn, pytest.raises(ZeroDivisionError):
        conn.send(pieces())
    assert (conn.state, conn.close_code) == (State.CLOSED, 1011)


def test_an_iterator_of_pieces_cannot_send(echo_uri: str) -> None:
    with connect(echo_uri) as conn:

        def pieces() -> Iterator[str]:
            yield "half"
            conn.send("between")

        with pytest.raises(ConcurrencyError, match="in pieces"):
            conn.send(pieces())


def test_other_senders_wait_for_the_end_of_the_pieces(conn: Conn) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def pieces() -> Iterator[str]:
        yield "one "
        begun.set()
        assert go_on.wait(PATIENCE)
        yield "two"

    with in_thread(lambda: conn.send(pieces())) as sent:
        assert begun.wait(PATIENCE)
        with in_thread(lambda: conn.send("behind")) as sent_behind:
            assert conn.ping(timeout=PATIENCE) > 0  # control frames go in between
            go_on.set()
            sent()
            sent_behind()
    assert [conn.recv(), conn.recv()] == ["one two", "behind"]


def test_threads_can_send_at_the_same_time(conn: Conn) -> None:
    def send() -> None:
        for number in range(100):
            conn.send(f"{number} " * 2000)

    with in_thread(send) as one, in_thread(send) as other:
        received = [conn.recv(timeout=PATIENCE) for _ in range(200)]
        one()
        other()
    assert sorted(received) == sorted(f"{number} " * 2000 for number in range(100) for _ in range(2))
