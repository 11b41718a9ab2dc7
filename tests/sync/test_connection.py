"""Tests of blocking connections over real sockets: messages in both directions, and properties."""

from __future__ import annotations

import os
import pickle
import re

import pytest

from plumews import State
from plumews.conn import attribute_hints
from plumews.sync import Conn
from support.fakes import PATIENCE
from support.threaded import in_thread


@pytest.mark.parametrize("message", ["", "hello", "ä€😀", b"", b"hello", "x" * 5000, b"y" * 300_000, "ö" * 100_000])
def test_messages_come_back_as_they_were_sent(conn: Conn, message: str | bytes) -> None:
    conn.send(message)
    assert conn.recv() == message
    conn.send(message)
    assert conn.recv(timeout=PATIENCE) == message


def test_a_large_message_passes_in_both_directions(conn: Conn) -> None:
    message = os.urandom(20_000_000)
    with in_thread(lambda: conn.recv(timeout=PATIENCE)) as received:
        conn.send(message)
        assert received() == message


def test_the_kind_can_be_chosen_in_both_directions(conn: Conn) -> None:
    conn.send(b"text", text=True)
    assert conn.recv() == "text"
    conn.send("bytes", text=False)
    assert conn.recv(decode=True) == "bytes"
    conn.send("text")
    assert conn.recv(decode=False) == b"text"


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("settimeout", "give timeout= to conn.recv()"),
        ("recv_json", r"use json.loads\(conn.recv\(\)\)"),
        ("send_text", r"use conn.send\(text\)"),
        ("wait_close", "do you mean wait_closed?"),
    ],
)
def test_missing_attribute_names_the_right_one(conn: Conn, name: str, told: str) -> None:
    with pytest.raises(AttributeError, match=rf"^a plumews.sync.Conn has no attribute '{name}': {told}"):
        getattr(conn, name)
    assert not hasattr(conn, name)


def test_hints_name_attributes_that_exist() -> None:
    for name, hint in attribute_hints._BLOCKING_HINTS.items():
        assert not hasattr(Conn, name), name
        for attribute in re.findall(r"\bconn\.(\w+)", hint):
            assert hasattr(Conn, attribute), (name, attribute)


def test_a_connection_tells_how_it_was_opened(conn: Conn, echo_uri: str) -> None:
    assert (conn.request.path, conn.response.status, conn.subprotocol) == ("/", 101, None)
    assert (conn.attempt, conn.last_error, conn.compression) == (1, None, None)
    assert (conn.state, conn.closed, conn.close_code, conn.close_reason) == (State.OPEN, False, None, None)
    assert f"{conn.remote_address[0]}:{conn.remote_address[1]}" in echo_uri  # type: ignore[index]
    assert conn.local_address[0] == "127.0.0.1"
    assert conn.id == conn.id
    assert repr(conn).startswith(f"<plumews.sync.Conn {conn.id} OPEN")
    with pytest.raises(TypeError, match="pickled"):
        pickle.dumps(conn)
