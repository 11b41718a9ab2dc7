"""Tests of the blocking `connect()`: its ways of use, its options, and its errors."""

from __future__ import annotations

import asyncio
import base64
import errno
import inspect
import itertools
import os
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import plumews
from plumews import ConnectError, ConnectionClosed, ConnectTimeout, InvalidStatus
from plumews.sync import Conn, connect, unix_connect
from plumews.sync.dialing import Dialing
from support.fakes import echo
from support.hostile_server import Peer
from support.threaded import entered, hostile_server, server


@pytest.fixture(scope="module")
def echo_uri() -> Iterator[str]:
    with server() as uri:
        yield uri


def test_the_package_is_an_attribute_of_plumews(echo_uri: str) -> None:
    with plumews.sync.connect(echo_uri) as conn:
        assert type(conn) is Conn
        conn.send("hello")
        assert conn.recv() == "hello"


def test_open_returns_a_connection(echo_uri: str) -> None:
    conn = connect(echo_uri).open()
    assert conn.state is plumews.State.OPEN
    conn.close()


def test_a_client_is_used_by_one_block_at_a_time(echo_uri: str) -> None:
    client = connect(echo_uri)
    for _ in range(2):
        with client, pytest.raises(plumews.ConcurrencyError, match="call connect"), client:
            pass


def test_a_client_makes_one_attempt_at_a_time(echo_uri: str) -> None:
    def again() -> str:
        with pytest.raises(plumews.ConcurrencyError, match="call connect"):
            client.open()
        with pytest.raises(plumews.ConcurrencyError, match="call connect"):
            next(iter(client))
        return "secret"

    client = connect(echo_uri, token=again, process_exception=lambda exc: None)
    for _ in range(2):
        client.open().close()


def test_iteration_connects_again_after_each_end() -> None:
    codes = iter([1001, 1012, 1000])

    async def handler(conn: plumews.Conn) -> None:
        await conn.close(next(codes), "again")

    seen: list[tuple[int, int | None, str]] = []
    with server(handler) as uri:
        client = iter(connect(uri, reconnect_delays=[0, 0, 0]))
        for conn in itertools.islice(client, 3):
            with pytest.raises(ConnectionClosed):
                conn.recv()
            seen.append((conn.attempt, conn.close_code, str(conn.last_error or "")))
        client.close()  # type: ignore[attr-defined]
    assert [entry[:2] for entry in seen] == [(1, 1001), (2, 1012), (3, 1000)]
    assert "1001" in seen[1][2]


def test_iteration_gives_up_after_the_last_delay() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    client = connect(f"ws://127.0.0.1:{port}", reconnect_delays=[0, 0])
    with pytest.raises(ConnectError):
        next(iter(client))
    assert client.attempt == 3
    assert isinstance(client.last_error, ConnectError)


def test_options_reach_the_request() -> None:
    requests: list[plumews.Request] = []

    async def handler(conn: plumews.Conn) -> None:
        requests.append(conn.request)

    with server(handler, subprotocols=["b"]) as uri:
        uri = uri.replace("ws://", "ws://user:p%40ss@") + "path?q=1"
        with connect(uri, subprotocols=["a", "b"], additional_headers={"X-A": "1"}, user_agent_header=None) as conn:
            assert conn.subprotocol == "b"
        with connect(uri, token=lambda: "secret", additional_headers=lambda: {"X-A": "2"}):
            pass
    first, second = requests
    assert (first.path, first.query, first.headers["X-A"]) == ("/path", {"q": ["1"]}, "1") or first.headers[
        "X-A"
    ] == "1"
    assert first.headers["Authorization"] == "Basic " + base64.b64encode(b"user:p@ss").decode()
    assert "User-Agent" not in first.headers
    assert (second.headers["Authorization"], second.headers["X-A"]) == ("Bearer secret", "2")


def test_wrong_options_are_refused_at_the_call() -> None:
    async def token() -> str:
        return "secret"

    with pytest.raises(TypeError, match="additional_headers"):
        connect("ws://localhost", extra_headers={})  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="plain function"):
        connect("ws://localhost", token=token)
    with pytest.raises(plumews.InvalidURI):
        connect("http://localhost")
    with pytest.raises(ValueError, match="wss"):
        connect("ws://localhost", ssl=__import__("ssl").create_default_context())


def test_the_repr_has_no_secrets() -> None:
    assert repr(connect("ws://user:secret@localhost/")) == "<plumews.sync.connect ws://localhost/>"


def test_signatures_are_those_of_the_asyncio_client() -> None:
    ours = set(inspect.signature(connect).parameters)
    assert ours == set(inspect.signature(plumews.connect).parameters) - {"on_message", "on_close"}


def test_a_forgotten_with_is_a_named_error() -> None:
    client = connect("ws://localhost/")
    with pytest.raises(AttributeError, match=r"'recv'.*`with connect\(uri\) as conn:` or .*\.open\(\)"):
        client.recv()  # type: ignore[attr-defined]
    with pytest.raises(AttributeError, match=r"'colour'$"):
        client.colour  # type: ignore[attr-defined]  # noqa: B018
    assert not hasattr(client, "send")


def test_a_wrong_host_or_port_is_refused_at_the_call() -> None:
    for name, value, error in (
        ("host", "", ValueError),
        ("host", 5, TypeError),
        ("port", 65536, ValueError),
        ("port", "80", TypeError),
        ("ping_period", 5, TypeError),
    ):
        with pytest.raises(error, match="ping_interval" if name == "ping_period" else name):
            connect("ws://localhost/", **{name: value})  # type: ignore[arg-type]
    with socket.socket() as sock, pytest.raises(TypeError, match="either sock or port"):
        connect("ws://localhost/", sock=sock, port=80)


def test_host_and_port_are_dialed_in_place_of_the_uri(echo_uri: str) -> None:
    port = int(echo_uri.rstrip("/").rpartition(":")[2])
    with connect("ws://localhost:1/path", host="127.0.0.1", port=port) as conn:
        assert (conn.request.headers["Host"], conn.request.path) == ("localhost:1", "/path")


def test_the_next_attempt_tells_the_last_position() -> None:
    since: list[object] = []

    async def handler(conn: plumews.Conn) -> None:
        since.append(conn.request.query.get("since"))
        await conn.send("1.1")
        await conn.send("none")
        await conn.send("1.2")
        await conn.close(1001)

    with server(handler) as uri:
        client = connect(uri, reconnect_delays=[0, 0], position_of=lambda text: None if text == "none" else text)
        for conn in itertools.islice(client, 3):
            if conn.attempt < 3:
                assert conn.recv() == "1.1"
            if conn.attempt == 1:
                assert [conn.recv(timeout=5), conn.recv()] == ["none", "1.2"]
    assert since == [None, "1.2", "1.1"]


def test_the_recovered_event_tells_a_position() -> None:
    since: list[object] = []

    async def handler(conn: plumews.Conn) -> None:
        since.append(conn.request.query.get("since"))
        await conn.send('{"type":"recovered","position":"1.7","missed":0}')
        await conn.send("next")
        await conn.close(1001)

    with server(handler) as uri:
        for conn in itertools.islice(connect(uri + "?since=1.1", reconnect_delays=[0]), 2):
            assert len(list(conn)) == 2
    assert since == ["1.1", "1.7"]


def test_a_failing_position_of_is_logged_once(echo_uri: str, caplog: pytest.LogCaptureFixture) -> None:
    with connect(echo_uri, position_of=lambda message: 1 / 0) as conn:  # type: ignore[arg-type,return-value]
        for message in ("one", "two"):
            conn.send(message)
            assert conn.recv() == message
    assert caplog.text.count("position_of failed") == 1


# --- failures -------------------------------------------------------------------------------------


def test_a_refusal_is_raised_with_its_response() -> None:
    async def play(peer: Peer) -> None:
        peer.send(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 4\r\n\r\nstay")

    with hostile_server(play) as uri, pytest.raises(InvalidStatus, match="handshake") as raised:
        connect(uri).open()
    assert (raised.value.response.status, raised.value.response.body) == (403, b"stay")


def test_a_refusal_whose_body_does_not_end_is_raised_soon() -> None:
    async def play(peer: Peer) -> None:
        peer.send(b"HTTP/1.1 503 Busy\r\n\r\npart")
        await peer.gone()

    with hostile_server(play) as uri, pytest.raises(InvalidStatus) as raised:
        connect(uri).open()
    assert raised.value.response.body == b"part"


def test_a_server_that_hangs_up_is_a_named_error() -> None:
    async def play(peer: Peer) -> None: ...

    with hostile_server(play) as uri, pytest.raises(ConnectError) as raised:
        connect(uri).open()
    assert raised.value.step == "handshake"


def test_a_server_that_trickles_meets_the_deadline() -> None:
    async def play(peer: Peer) -> None:
        peer.send(b"HTTP/1.1 101 ")
        for _ in range(1000):
            peer.send(b"x")
            await peer.writer.drain()
            await asyncio.sleep(0.01)  # waits for nothing: the bytes must come one by one for longer than the deadline

    began = time.monotonic()
    with hostile_server(play) as uri, pytest.raises(ConnectTimeout, match=r"not done after 0\.1 s") as raised:
        connect(uri, open_timeout=0.1).open()
    assert raised.value.step == "handshake"
    assert time.monotonic() - began < 3


def test_a_time_out_of_the_system_is_not_that_of_the_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    def give_up(dialing: Dialing) -> None:
        raise TimeoutError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))

    monkeypatch.setattr(Dialing, "open", give_up)
    with pytest.raises(ConnectError, match="timed out") as raised:
        connect("ws://localhost/", open_timeout=None).open()
    assert not isinstance(raised.value, ConnectTimeout)
    assert raised.value.errno == errno.ETIMEDOUT


def test_a_function_that_fails_is_a_failed_attempt(echo_uri: str) -> None:
    def token() -> str:
        raise ZeroDivisionError

    with pytest.raises(ConnectError, match="ZeroDivisionError") as raised:
        connect(echo_uri, token=token).open()
    assert raised.value.step == "token"


def test_the_time_of_a_function_counts(echo_uri: str) -> None:
    with pytest.raises(ConnectTimeout):
        connect(echo_uri, token=lambda: time.sleep(0.02) or "secret", open_timeout=0.01).open()  # type: ignore[func-returns-value]


def test_a_refused_port_names_step_and_address() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with pytest.raises(ConnectError, match=f"127.0.0.1:{port}") as raised:
        connect("ws://localhost/", host="127.0.0.1", port=port).open()
    assert raised.value.step == "connect"


def test_redirects_are_followed(echo_uri: str) -> None:
    async def play(peer: Peer) -> None:
        peer.send(f"HTTP/1.1 302 Found\r\nLocation: {echo_uri}\r\nContent-Length: 0\r\n\r\n".encode())

    with hostile_server(play) as uri, connect(uri) as conn:
        conn.send("there")
        assert conn.recv() == "there"


def test_a_failing_kept_redirect_is_forgotten() -> None:
    targets: list[str] = []
    steps = iter([plumews.Response(301, {"Location": "/new"}), None, plumews.Response.text(403, "moved again"), None])

    def process(conn: plumews.Conn, request: plumews.Request) -> plumews.Response | None:
        targets.append(request.target)
        return next(steps)

    async def handler(conn: plumews.Conn) -> None:
        await conn.close(1012)

    with server(handler, process_request=process) as uri:
        for conn in itertools.islice(connect(uri + "old", reconnect_delays=[0, 0]), 2):
            conn.wait_closed()
    assert targets == ["/old", "/new", "/new", "/old"]


# --- other sockets --------------------------------------------------------------------------------


@pytest.mark.skipif(sys.platform == "win32", reason="Unix sockets")
def test_unix_connect(tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    with entered(lambda: plumews.unix_serve(echo, path)), unix_connect(path) as conn:
        conn.send("hello")
        assert conn.recv(timeout=5) == "hello"
        assert conn.remote_address is None
    with pytest.raises(ConnectError, match="connect"):
        unix_connect(path).open()
    with socket.socket() as sock, pytest.raises(TypeError, match="either path or sock"):
        unix_connect(path, sock=sock)


def test_a_connected_socket_is_used(echo_uri: str) -> None:
    port = int(echo_uri.rstrip("/").rpartition(":")[2])
    sock = socket.create_connection(("127.0.0.1", port))
    with connect("ws://localhost/", sock=sock) as conn:
        conn.send("hello")
        assert conn.recv() == "hello"
        assert conn.request.headers["Host"] == "localhost"
    assert sock.fileno() == -1
    sock = socket.create_connection(("127.0.0.1", port))
    with pytest.raises(ConnectError, match="ZeroDivisionError"):
        connect("ws://localhost/", sock=sock, token=lambda: str(1 // 0)).open()
    assert sock.fileno() == -1
    with socket.socket() as sock, pytest.raises(TypeError, match="cannot connect again"):
        next(iter(connect("ws://example.com/", sock=sock)))
