"""Blocking clients written for `websockets`: the same program on it and on the compatible names."""

from __future__ import annotations

import contextlib
import logging
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import pytest
import websockets.sync.client
from websockets.sync.server import serve, unix_serve

import plumews.sync
from plumews import State
from plumews.compat.websockets import exceptions
from plumews.compat.websockets.sync import client as our_client
from plumews.compat.websockets.sync.client import ClientConnection, connect, reconnect
from plumews.protocol.codec import build_frame
from support.both_libraries import Observations
from support.fakes import PATIENCE, tls_contexts
from support.hostile_server import Peer
from support.threaded import hostile_server, in_thread, refusing_server

#: `websockets` warns about the use without `with`.
pytestmark = pytest.mark.filterwarnings("ignore:connect:DeprecationWarning")

SERVER_TLS, CLIENT_TLS = tls_contexts()
QUIET = logging.getLogger("quiet")
QUIET.propagate = False

Program: TypeAlias = "Callable[[Any, Observations], None]"


def echo(websocket: Any) -> None:
    for message in websocket:
        websocket.send(message)


@contextlib.contextmanager
def serving(handler: Callable[[Any], None] = echo, **options: Any) -> Iterator[str]:
    """Yield the URI of a blocking server of `websockets`."""
    with serve(handler, "127.0.0.1", 0, logger=QUIET, **options) as server, in_thread(server.serve_forever):
        scheme = "wss" if "ssl" in options else "ws"
        try:
            yield f"{scheme}://localhost:{server.socket.getsockname()[1]}/"
        finally:
            server.shutdown()


def both(program: Program) -> Observations:
    """Run ``program(client, seen)`` on both libraries. Return the observations, which must be equal."""
    theirs: Observations = []
    program(websockets.sync.client, theirs)
    mine: Observations = []
    program(our_client, mine)
    assert mine == theirs, f"on websockets: {theirs!r:.2000}\nhere: {mine!r:.2000}"
    return mine


def outcome(function: Callable[[], Any]) -> Any:
    """Return the result of a call, or its exception by name and text."""
    try:
        return function()
    except Exception as exc:
        return type(exc).__name__, str(exc)


# --- the same on both -----------------------------------------------------------------------------


def test_messages_are_sent_and_received_in_all_forms() -> None:
    def program(client: Any, seen: Observations) -> None:
        with client.connect(uri) as websocket:
            for message in ("text", b"bytes", bytearray(b"array"), memoryview(b"view"), ["a", "b"], iter([b"1", b"2"])):
                websocket.send(message)
                seen.append(websocket.recv())
            websocket.send([])
            websocket.send(b"x", text=True)
            seen.append(websocket.recv(decode=False))
            websocket.send("x", text=False)
            seen.append(websocket.recv(PATIENCE, True))
            for message in ("", "streamed", b"streamed", ["one", "two"]):
                websocket.send(message)
                seen.append("".join(websocket.recv_streaming(decode=True)))
            seen.append(outcome(lambda: websocket.send({"a": 1})))
            seen.append(outcome(lambda: websocket.send(5)))

    with serving() as uri:
        assert both(program)[-2:] == [
            ("TypeError", "data is a dict-like object"),
            ("TypeError", "data must be str, bytes, or iterable"),
        ]


def test_a_recv_times_out_and_loses_nothing() -> None:
    def program(client: Any, seen: Observations) -> None:
        with client.connect(uri) as websocket:
            for timeout in (0.01, 0, -1):
                with pytest.raises(TimeoutError):
                    websocket.recv(timeout=timeout)
            websocket.send("next")
            seen.append(websocket.recv(timeout=PATIENCE))

    with serving() as uri:
        assert both(program) == ["next"]


def test_pings_are_events() -> None:
    def program(client: Any, seen: Observations) -> None:
        with client.connect(uri) as websocket:
            pong = websocket.ping("data")
            seen.append((isinstance(pong, threading.Event), pong.wait(PATIENCE), pong.is_set()))
            seen.append(websocket.latency > 0)
            websocket.pong("unsolicited")
            seen.append(outcome(lambda: websocket.ping(5)))
            seen.append(outcome(lambda: websocket.ping(bytes(126)))[0])
            websocket.send("goes on")
            seen.append(websocket.recv())

    with serving() as uri:
        both(program)


def test_attributes_are_those_of_websockets() -> None:
    def program(client: Any, seen: Observations) -> None:
        with client.connect(uri + "path?q", subprotocols=["a", "b"], ping_interval=None) as websocket:
            websocket.mine = 5
            seen.append((websocket.mine, websocket.subprotocol, websocket.request.path, websocket.state))
            seen.append((websocket.response.status_code, websocket.response.reason_phrase))
            seen.append((websocket.local_address[0], websocket.remote_address[0], websocket.latency))
            seen.append((websocket.close_code, websocket.close_reason, websocket.debug))
            seen.append((websocket.ping_interval, websocket.ping_timeout, websocket.close_timeout))
            seen.append((isinstance(websocket, client.ClientConnection), websocket.socket.family))
            seen.append((type(websocket.id), websocket.logger.extra.keys()))

    with serving(subprotocols=["b"]) as uri:
        both(program)


def test_a_close_of_ours_is_told_alike() -> None:
    def program(client: Any, seen: Observations) -> None:
        with client.connect(uri) as websocket:
            seen.extend(outcome(lambda code=code: websocket.close(code))[0] for code in (1005, 999))
            seen.append(outcome(lambda: websocket.close(1000, "x" * 200))[0])
            seen.append(websocket.state)
            websocket.close(1001, "bye")
            websocket.close()
            for call in (websocket.recv, lambda: websocket.send("x"), websocket.ping, websocket.pong):
                seen.append(outcome(call))
            seen.append((list(websocket), websocket.wait_closed(), websocket.state))
            seen.append((websocket.close_code, websocket.close_reason, websocket.protocol.close_rcvd_then_sent))
            seen.append(outcome(lambda: list(websocket.recv_streaming())))

    with serving() as uri:
        assert both(program)[4][0] == "ConnectionClosedOK"


def test_a_close_of_the_peer_is_told_alike() -> None:
    def closes(websocket: Any) -> None:
        websocket.send("last")
        websocket.close(4000, "why")

    def program(client: Any, seen: Observations) -> None:
        websocket = client.connect(uri)
        seen.append(outcome(lambda: list(websocket)))
        seen.append((websocket.state, websocket.close_code, websocket.close_reason))
        seen.append(outcome(lambda: websocket.send("late")))
        websocket = client.connect(uri)
        seen.append((websocket.wait_closed(PATIENCE), websocket.recv(), outcome(websocket.recv)))

    with serving(closes) as uri:
        both(program)


def test_pieces_that_fail_close_the_connection() -> None:
    def pieces() -> Iterator[str]:
        yield "half"
        raise ZeroDivisionError

    def program(client: Any, seen: Observations) -> None:
        websocket = client.connect(uri)
        seen.append(outcome(lambda: websocket.send(pieces())))
        websocket.close()
        seen.append((websocket.state, websocket.protocol.close_sent.code))

    with serving() as uri:
        both(program)


def test_failures_to_connect_have_the_same_exceptions() -> None:
    def program(client: Any, seen: Observations) -> None:
        for function in (
            lambda: client.connect(uri),
            lambda: client.connect(uri, ssl=CLIENT_TLS),
            lambda: client.connect(uri, compression="zstd"),
            lambda: client.connect(f"ws://127.0.0.1:{closed}/"),
        ):
            seen.append(outcome(function))
        for function in (
            lambda: client.connect("http://localhost/"),
            lambda: client.connect(uri, subprotocols="chat"),
            lambda: client.connect(f"ws://127.0.0.1:{silent.getsockname()[1]}/", open_timeout=0.05),
            lambda: client.unix_connect(),
        ):
            seen.append(outcome(function)[0])

    with socket.create_server(("127.0.0.1", 0)) as gone:
        closed = gone.getsockname()[1]
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        serving(process_request=lambda connection, request: connection.respond(403, "no\n")) as uri,
    ):
        assert both(program)[0] == ("InvalidStatus", "server rejected WebSocket connection: HTTP 403")


def test_reconnect_connects_again_after_each_end() -> None:
    def program(client: Any, seen: Observations) -> None:
        websockets = iter(client.reconnect(uri, reconnect_delays=lambda: iter([0, 0])))
        for _ in range(3):
            seen.append(next(websockets).recv())
        websockets.close()  # type: ignore[attr-defined]
        refused = client.connect(
            f"ws://127.0.0.1:{closed}/", legacy=False, reconnect_delays=lambda: iter([0, 0]), process_exception=hook
        )
        seen.append(outcome(lambda: next(iter(refused))))

    def hook(exc: Exception) -> Exception | None:
        failures.append(exc)
        return exc if len(failures) % 3 == 0 else None

    failures: list[Exception] = []
    with socket.create_server(("127.0.0.1", 0)) as gone:
        closed = gone.getsockname()[1]
    with serving(lambda websocket: websocket.send("hello")) as uri:
        assert both(program)[:3] == ["hello"] * 3


def test_tls_and_given_sockets_work_alike() -> None:
    def program(client: Any, seen: Observations) -> None:
        with client.connect(uri, ssl=CLIENT_TLS) as websocket:
            websocket.send("over TLS")
            seen.append(websocket.recv())
        port = int(uri.rstrip("/").rpartition(":")[2])
        sock = socket.create_connection(("127.0.0.1", port))
        with client.connect(uri, sock=sock, ssl=CLIENT_TLS, server_hostname="localhost") as websocket:
            websocket.send("over a socket")
            seen.append(websocket.recv())
        with client.connect(
            "wss://localhost:1/", ssl=CLIENT_TLS, address=("127.0.0.1", port), source_address=("127.0.0.1", 0)
        ) as websocket:
            seen.append(websocket.remote_address[1] == port)

    with serving(ssl=SERVER_TLS) as uri:
        assert both(program) == ["over TLS", "over a socket", True]


@pytest.mark.skipif(sys.platform == "win32", reason="Unix sockets")
def test_unix_sockets_work_alike(tmp_path: Path) -> None:
    def program(client: Any, seen: Observations) -> None:
        with client.unix_connect(path) as websocket:
            websocket.send("hello")
            seen.append((websocket.recv(), websocket.remote_address))
        seen.append(type(client.unix_connect(path, legacy=False)).__name__)
        with client.unix_reconnect(path) as websocket:
            seen.append(websocket.request.path)

    path = str(tmp_path / "socket")
    with unix_serve(echo, path, logger=QUIET) as server, in_thread(server.serve_forever):
        both(program)
        server.shutdown()


# --- only here ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def uri() -> Iterator[str]:
    with serving() as uri:
        yield uri


def test_a_program_goes_on_to_native_names(uri: str) -> None:
    with connect(uri) as websocket:
        assert isinstance(websocket.plumews, plumews.sync.Conn)
        websocket.plumews.write_json([1])
        assert websocket.recv() == "[1]"
        assert repr(websocket).startswith("<ClientConnection ")


def test_exceptions_are_those_of_plumews_too(uri: str) -> None:
    websocket = connect(uri)
    websocket.close()
    with pytest.raises(plumews.ConnectionClosedOK) as raised:
        websocket.recv()
    assert isinstance(raised.value, exceptions.ConnectionClosedOK)


def test_what_does_not_exist_says_what_to_use(uri: str) -> None:
    with pytest.raises(TypeError, match="leave it out"):
        connect(uri, timeout=5)
    with pytest.raises(TypeError, match="compression='deflate'"):
        reconnect(uri, extensions=[])
    with pytest.raises(TypeError, match="unknown option colour"):
        connect(uri, colour=5)
    with connect(uri) as websocket:
        with pytest.raises(AttributeError, match="use recv"):
            websocket.recv_messages  # type: ignore[attr-defined]  # noqa: B018
        with pytest.raises(AttributeError, match="option of connect"):
            websocket.ping_interval = 5
        with pytest.raises(exceptions.ConcurrencyError, match="same data"):
            [websocket.ping("same") for _ in range(1000)]
        with pytest.raises(TypeError, match="connect\\(\\) makes the connections"):
            ClientConnection(websocket.socket, websocket.protocol)


def test_create_connection_makes_the_connection(uri: str) -> None:
    class Loud(ClientConnection):
        def recv(self, *args: Any, **keywords: Any) -> Any:
            return super().recv(*args, **keywords).upper()

    class Overrides(ClientConnection):
        def process_event(self, event: object) -> None: ...

    class Changes(ClientConnection):
        def __init__(self, *args: Any, **settings: Any) -> None:
            super().__init__(*args, **{**settings, "ping_interval": 5})

    with connect(uri, create_connection=Loud) as websocket:
        websocket.send("hello")
        assert next(iter(websocket)) == "HELLO"
    with pytest.raises(TypeError, match="nothing calls process_event"):
        connect(uri, create_connection=Overrides)
    with pytest.raises(TypeError, match="give it to connect"):
        connect(uri, create_connection=Changes)


def test_a_ping_without_an_answer_is_not_set() -> None:
    with refusing_server() as uri:
        websocket = connect(uri)
        first, second = websocket.ping("1"), websocket.ping("2", ack_on_close=True)
        assert not first.wait(0.01)
        websocket.plumews.abort()
        assert (first.wait(PATIENCE), second.wait(PATIENCE)) == (False, True)
        assert websocket.state is State.CLOSED


def test_messages_behind_our_close_are_received() -> None:
    async def play(peer: Peer) -> None:
        peer.accept()
        await peer.reader.readexactly(8)  # the close frame
        peer.send(build_frame(1, b"late") * 3 + build_frame(8, b"\x03\xe8"))
        peer.writer.write_eof()
        await peer.gone()

    with hostile_server(play) as uri, connect(uri) as websocket:
        websocket.close()
        assert list(websocket) == ["late"] * 3
        assert websocket.close_code == 1000
