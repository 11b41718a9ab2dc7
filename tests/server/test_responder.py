"""Responses to requests that are no WebSocket yet: one each, whatever fails, and none after the open timeout."""

from __future__ import annotations

import asyncio
import logging
import socket

import pytest

import plumews
from support.fakes import assert_empty, echo, entries, pass_time, until
from support.handshake_setup import Recorder, answer, assert_serves, failing, serving
from support.raw_client import Wire, text, upgrade

# --- one answer, and the end ----------------------------------------------------------------------


async def test_response_to_head_has_no_body(start):
    server = await start(plumews.serve(echo, "127.0.0.1", 0))
    async with await Wire.connect(server) as wire:
        status, body = await wire.response(b"HEAD / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert (status, body) == (405, b"")
        assert int(wire.header("content-length")) > 0


async def test_response_used_again_is_unchanged(start):
    response = plumews.Response.text(200, "same")
    server = await start(
        plumews.serve(
            echo,
            "127.0.0.1",
            0,
            routes={"/route": lambda request: response},
            process_request=lambda conn, request: response if request.path == "/hook" else None,
        )
    )
    for _ in range(3):
        for method, path, body in (("GET", "/hook", b"same"), ("GET", "/route", b"same"), ("HEAD", "/route", b"")):
            async with await Wire.connect(server) as wire:
                request = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
                assert await wire.response(request) == (200, body)
                assert wire.header("content-length") == "4"
    assert dict(response.headers) == {"Content-Type": "text/plain; charset=utf-8"}


@pytest.mark.parametrize("verdict", ["answer", "refuse", "accept"])
@pytest.mark.parametrize("hook", ["process_request", "select_subprotocol", "admit"])
async def test_row_26_hook_may_abort_the_connection(start, hook, verdict, caplog):
    opened = []

    def abort(conn, request):
        conn.abort()
        if verdict == "answer" and hook == "process_request":
            return plumews.Response.text(200, "too late")
        if verdict == "refuse":
            raise plumews.Refused("too late")
        return None

    endpoint = Recorder(opened=lambda conn, deadline: opened.append(conn))
    if hook == "admit":
        endpoint.admit = abort
    options = {} if hook == "admit" else {hook: abort}
    server = await start(serving({None: endpoint}, **options))
    wire = await Wire.connect(server)
    wire.writer.write(upgrade() + text("glued"))
    await wire.eof()
    wire.writer.close()
    assert opened == []
    assert entries(caplog) == []
    await assert_empty(server)


# --- the end of the time --------------------------------------------------------------------------


async def test_open_timeout_cancels_a_process_request_that_hangs(start):
    asked, cancelled = asyncio.Event(), asyncio.get_running_loop().create_future()

    async def process_request(conn, request):
        asked.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set_result(True)
            raise

    server = await start(
        plumews.serve(echo, "127.0.0.1", 0, open_timeout=1000, process_request=process_request, close_timeout=5)
    )
    answering = asyncio.ensure_future(answer(server, upgrade()))
    await asked.wait()
    pass_time(1000)
    status, refused, _ = await answering
    assert (status, refused["code"]) == (408, "WEBSOCKET_HANDSHAKE_TIMEOUT")
    assert await cancelled
    await assert_empty(server)


# --- what is raised -------------------------------------------------------------------------------


async def failing_later(*args):
    raise RuntimeError("broken hook")


async def cancelling(*args):
    raise asyncio.CancelledError


def lying(conn, request):
    return plumews.Response(200, [("Content-Length", "3")], b"four")


def unprintable(conn, request):
    raise plumews.Refused("no", headers=(("X-Why", "a\r\nSet-Cookie: b"),))


def impossible(conn, request):
    raise plumews.Refused("no", status=7)


def splitting(conn, request):
    return plumews.Response.text(200, "x", [("X-Echo", "a\r\nb")])


BROKEN = {
    "raises": failing,
    "raises_later": failing_later,
    "returns_text": lambda conn, request: "hello",
    "returns_text_later": lambda conn, request: asyncio.sleep(0, "hello"),
    "lies_about_the_length": lying,
    "row_19_refuses_with_a_header_of_two_lines": unprintable,
    "refuses_with_an_impossible_status": impossible,
    "row_19_answers_with_a_header_of_two_lines": splitting,
}


@pytest.mark.parametrize("hook", BROKEN.values(), ids=BROKEN.keys())
async def test_broken_process_request_is_500_with_one_log_entry(start, hook, caplog):
    broken = {"now": True}
    server = await start(
        plumews.serve(
            echo, "127.0.0.1", 0, process_request=lambda conn, request: hook(conn, request) if broken["now"] else None
        )
    )
    status, refused, wire = await answer(server, upgrade())
    assert (status, refused["code"], refused["message"]) == (
        500,
        "WEBSOCKET_HANDSHAKE_FAILED",
        "websocket handshake failed",
    )
    assert all("Set-Cookie" not in name for name, _ in wire.headers)
    (entry,) = entries(caplog)
    assert entry.exc_info is not None
    broken["now"] = False
    await assert_serves(server)
    await assert_empty(server)


@pytest.mark.parametrize("hook", [failing, failing_later], ids=["now", "later"])
async def test_endpoint_admit_that_raises_is_500_with_one_log_entry(start, hook, caplog):
    server = await start(serving({None: Recorder(admit=hook)}))
    status, refused, _ = await answer(server, upgrade())
    assert (status, refused["code"]) == (500, "WEBSOCKET_HANDSHAKE_FAILED")
    assert [entry.exc_info is not None for entry in entries(caplog)] == [True]
    await assert_empty(server)


async def test_process_request_that_cancels_itself_is_500(start):
    server = await start(plumews.serve(echo, "127.0.0.1", 0, process_request=cancelling))
    status, refused, _ = await answer(server, upgrade())
    assert (status, refused["code"]) == (500, "WEBSOCKET_HANDSHAKE_FAILED")


@pytest.mark.parametrize(
    ("raised", "answered", "logged"),
    [
        (RuntimeError("broken hook"), (500, "WEBSOCKET_HANDSHAKE_FAILED"), 2),
        (plumews.Refused("instead", code="INSTEAD"), (403, "INSTEAD"), 1),
    ],
    ids=["fails", "refuses"],
)
async def test_process_response_that_raises_is_called_once(start, raised, answered, logged, caplog):
    asked = []

    def process_response(conn, request, response):
        asked.append(response.status)
        raise raised

    server = await start(
        plumews.serve(echo, "127.0.0.1", 0, process_request=failing, process_response=process_response)
    )
    status, refused, _ = await answer(server, upgrade())
    assert ((status, refused["code"]), asked) == (answered, [500])
    assert len(entries(caplog)) == logged
    await assert_empty(server)


@pytest.mark.parametrize("request_line", ["GET /none HTTP/1.1", "nonsense"])
async def test_reset_before_the_answer_is_no_error(start, caplog, request_line):
    server = await start(plumews.serve(echo, "127.0.0.1", 0))
    for count in range(1, 9):
        with socket.create_connection(server.sockets[0].getsockname()) as client:
            client.sendall(f"{request_line}\r\nHost: localhost\r\n\r\n".encode())
        # It is closed before the server has accepted it: the answer makes the client's system reset the connection.
        await until(lambda: server._context.requests.refused.total == count)  # noqa: B023 - called at once
        await until(lambda: not server._context.connections)
    assert [entry for entry in entries(caplog) if entry.levelno >= logging.ERROR] == []


# --- a cancellation that is not the server's ------------------------------------------------------


def cancelled(*args):
    raise asyncio.CancelledError


async def cancelled_later(*args):
    job = asyncio.ensure_future(asyncio.sleep(60))
    job.cancel()
    await job


def a_future(*args):
    future = asyncio.get_running_loop().create_future()
    future.cancel()
    return future


@pytest.mark.parametrize("how", [cancelled, cancelled_later, a_future])
@pytest.mark.parametrize("hook", ["process_request", "process_response", "select_subprotocol"])
async def test_cancelled_hook_is_500_and_one_entry(start, caplog, hook, how):
    if hook == "select_subprotocol" and how is not cancelled:
        pytest.skip("a plain function")
    server = await start(plumews.serve(echo, "127.0.0.1", 0, **{hook: lambda *args: how(*args)}))
    async with await Wire.connect(server) as wire:
        assert (await wire.response(upgrade()))[0] == 500
    assert len(entries(caplog)) == 1


@pytest.mark.parametrize("how", [cancelled, cancelled_later])
@pytest.mark.parametrize("part", ["plain", "handler", "authorize"])
async def test_cancelled_route_is_500_and_one_entry(start, caplog, part, how):
    answer = plumews.Response.text(200, "done")
    if part == "plain":
        route = cancelled
    else:
        functions = {"handler": lambda request: answer, part: how}
        route = plumews.Route(functions["handler"], methods=["GET"], authorize=functions.get("authorize"))
    server = await start(plumews.serve(echo, "127.0.0.1", 0, routes={"/route": route}))
    async with await Wire.connect(server) as wire:
        assert (await wire.response(b"GET /route HTTP/1.1\r\nHost: localhost\r\n\r\n"))[0] == 500
    assert len(entries(caplog)) == 1


class Cancelling:
    """Authenticator and authorizer with one method that is cancelled."""

    def __init__(self, method, how):
        self.method, self.how = method, how
        if method == "authorize_room":
            self.authorize_room = how
        if how is cancelled_later:
            self.check_room_password = self.check_later

    def verify_jwt(self, token):
        return self.how(token) if self.method == "verify_jwt" else {"sub": "u"}

    def check_room_password(self, room, password):
        return self.how(room) if self.method == "check_room_password" else True

    async def check_later(self, room, password):
        if self.method == "check_room_password":
            await self.how(room)
        return True


@pytest.mark.parametrize("way", ["request", "message"])
@pytest.mark.parametrize("how", [cancelled, cancelled_later])
@pytest.mark.parametrize("method", ["verify_jwt", "check_room_password", "authorize_room"])
async def test_cancelled_authorizer_is_500_or_1011_and_one_entry(start, caplog, method, how, way):
    auth = Cancelling(method, how)
    server = await start(plumews.serve_rooms(plumews.Hub(), auth, "127.0.0.1", 0, allow_query_secrets=True))
    if way == "request":
        async with await Wire.connect(server) as wire:
            assert (await wire.response(upgrade("/ws?token=t&room_password=p")))[0] == 500
    else:
        async with await Wire.open(server, "/ws?auth=message") as wire:
            wire.send(text('{"type": "auth", "token": "t", "password": "p"}'))
            assert (await wire.closing())[0] == 1011
    assert len([entry for entry in entries(caplog) if entry.levelname == "ERROR"]) == 1


async def test_cancelled_policy_of_room_names_is_1011_and_one_entry(start, caplog):
    asked = []

    def check_room_name(name):
        asked.append(name)
        if len(asked) > 1:
            raise asyncio.CancelledError

    hub = plumews.Hub(plumews.HubConfig(check_room_name=check_room_name))
    server = await start(plumews.serve_rooms(hub, plumews.SimpleRoomAuth(), "127.0.0.1", 0))
    async with hub, await Wire.connect(server) as wire:
        wire.send(upgrade("/ws?room=room"))
        await wire.read_head()
        if wire.status == 101:
            assert (await wire.closing())[0] == 1011
        else:
            assert wire.status == 500
    assert len([entry for entry in entries(caplog) if entry.levelname == "ERROR"]) == 1
