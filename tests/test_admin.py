"""The admin's broadcast, and bodies of requests: on the routes that ask for them, and nowhere else."""

from __future__ import annotations

import json

import pytest

import plumews
from plumews import limits
from plumews.admin import admin_broadcast_route
from plumews.request_body import BodyRoute
from wire import Wire

SECRET = "s" * 32


def post(path: str, body: bytes, *lines: str, length: int | None = None) -> bytes:
    head = [f"POST {path} HTTP/1.1", "Host: localhost", f"Content-Length: {len(body) if length is None else length}"]
    return "\r\n".join([*head, *lines, "", ""]).encode() + body


def said(body: bytes, path: str = "/_admin/broadcast?room=chat", *lines: str, secret: str = SECRET, **options) -> bytes:
    return post(path, body, f"Authorization: Bearer {secret}", *lines, **options)


async def answer(server: plumews.Server, request: bytes) -> tuple[int, str]:
    async with await Wire.connect(server) as wire:
        status, body = await wire.response(request)
        return status, json.loads(body)["error"]["code"] if body else ""


@pytest.fixture
async def server(start):
    async with plumews.Hub() as hub:
        yield await start(plumews.serve_rooms(hub, plumews.SimpleRoomAuth(), "127.0.0.1", 0, broadcast_secret=SECRET))


async def test_who_has_the_secret_speaks_to_a_room(server):
    async with await Wire.open(server, "/ws?room=chat") as chat, await Wire.open(server, "/ws?room=other") as other:
        assert await answer(server, said("grüße".encode())) == (204, "")
        assert await chat.message() == "grüße"
        assert await answer(server, said(b"all", "/_admin/broadcast")) == (204, "")
        assert [await chat.message(), await other.message()] == ["all", "all"]
        binary = said(b"\x00\xff", "/_admin/broadcast?room=chat", "Content-Type: application/octet-stream")
        assert await answer(server, binary) == (204, "")
        assert await chat.message() == b"\x00\xff"
    assert await answer(server, said(b"nobody hears", "/_admin/broadcast?room=empty")) == (204, "")


@pytest.mark.parametrize(
    ("request_", "status", "code"),
    [
        (said(b"x", secret="w" * 32), 401, "UNAUTHORIZED"),
        (post("/_admin/broadcast?room=chat", b"x"), 401, "UNAUTHORIZED"),
        (said(b"\xff"), 400, "WEBSOCKET_INVALID_TEXT"),
        (said(b"x", "/_admin/broadcast?room=%00"), 400, "WEBSOCKET_INVALID_ROOM"),
        (said(b"", length=limits.ADMIN_BODY + 1), 413, "WEBSOCKET_REQUEST_TOO_LARGE"),
        (said(b"x").replace(b"POST", b"GET", 1), 400, "WEBSOCKET_BAD_REQUEST"),
        (b"GET /_admin/broadcast HTTP/1.1\r\nHost: localhost\r\n\r\n", 405, "METHOD_NOT_ALLOWED"),
        (said(b"x", "/healthz"), 400, "WEBSOCKET_BAD_REQUEST"),
        (said(b"x", "/ws"), 400, "WEBSOCKET_BAD_REQUEST"),
        (said(b"x", "/_admin/broadcast", "Upgrade: websocket", "Connection: Upgrade"), 400, "WEBSOCKET_BAD_REQUEST"),
        (said(b"x", "/_admin/broadcast", "Transfer-Encoding: chunked"), 400, "WEBSOCKET_BAD_REQUEST"),
    ],
    ids=[
        "wrong-secret",
        "no-secret",
        "not-utf-8",
        "bad-room",
        "too-large",
        "get-with-body",
        "get",
        "healthz",
        "ws",
        "upgrade",
        "chunked",
    ],
)
async def test_what_is_not_in_order_is_refused_with_a_code(server, request_, status, code):
    assert await answer(server, request_) == (status, code)


async def test_a_body_may_come_in_pieces_and_behind_100_continue(server):
    async with await Wire.open(server, "/ws?room=chat") as chat:
        async with await Wire.connect(server) as wire:
            head = said(b"", "/_admin/broadcast?room=chat", "Expect: 100-continue", length=100_000)
            wire.send(head)
            assert (await wire.reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 100 ")
            for _ in range(10):
                wire.send(b"x" * 10_000)
            status, _ = await wire.response(b"")
            assert status == 204
        assert await chat.message() == "x" * 100_000


async def test_a_body_that_does_not_come_ends_with_the_deadline(start):
    hub = plumews.Hub()
    server = await start(
        plumews.serve_rooms(hub, plumews.SimpleRoomAuth(), "127.0.0.1", 0, broadcast_secret=SECRET, open_timeout=0.2)
    )
    assert await answer(server, said(b"x", length=5)) == (408, "WEBSOCKET_HANDSHAKE_TIMEOUT")


async def test_guessing_the_secret_ends_with_429(server):
    for _ in range(limits.ATTEMPTS_BURST):
        assert (await answer(server, said(b"x", secret="w" * 32)))[0] == 401
    assert await answer(server, said(b"x")) == (429, "WEBSOCKET_TOO_MANY_ATTEMPTS")


async def test_section_8_point_16_a_hub_that_is_stopped_refuses_and_health_says_so(start):
    hub = plumews.Hub()
    server = await start(plumews.serve_rooms(hub, plumews.SimpleRoomAuth(), "127.0.0.1", 0, broadcast_secret=SECRET))
    await hub.stop()
    assert await answer(server, said(b"x")) == (503, "WEBSOCKET_BROADCAST_REJECTED")
    async with await Wire.connect(server) as wire:
        status, body = await wire.response(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
    told = {"status": "stopping", "component": "websocket", "broadcast_enabled": True}
    assert (status, json.loads(body)) == (503, told)


def test_a_weak_secret_and_that_of_the_tokens_are_refused_when_they_are_given():
    hub = plumews.Hub()
    with pytest.raises(plumews.WeakSecret, match="websocket broadcast secret must be at least 32 bytes"):
        admin_broadcast_route(hub, "short")
    with pytest.raises(ValueError, match="must be separate from websocket JWT secret"):
        plumews.serve_rooms(hub, plumews.SimpleRoomAuth(SECRET), "127.0.0.1", 0, broadcast_secret=SECRET)


async def test_a_route_of_the_application_may_take_a_body_and_its_time(start):
    async def echo(request: plumews.Request, body: bytes) -> plumews.Response:
        return plumews.Response(200, (), body[::-1])

    server = await start(
        plumews.serve(on_message=lambda conn, message: None, host="127.0.0.1", port=0, routes={"/x": BodyRoute(echo)})
    )
    async with await Wire.connect(server) as wire:
        assert await wire.response(post("/x", b"abc")) == (200, b"cba")
