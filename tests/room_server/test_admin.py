"""Broadcasts over HTTP: authorization, delivery, and refusals."""

from __future__ import annotations

import asyncio
import json

import pytest

import plumews
from plumews.auth.password_checker import Attempts
from plumews.http11.models import Response
from plumews.room_server.admin import admin_broadcast_route
from support.raw_client import Wire, upgrade

SECRET = "0123456789abcdef0123456789abcdef"
PATH = "/_admin/broadcast"


def rooms(hub, auth=None, **options):
    options.setdefault("broadcast_secret", SECRET)
    return plumews.serve_rooms(hub, auth or plumews.SimpleRoomAuth(), "127.0.0.1", 0, **options)


def routed(hub, **options):
    routes = {PATH: admin_broadcast_route(hub, **options)}
    return plumews.serve_rooms(hub, plumews.SimpleRoomAuth(), "127.0.0.1", 0, routes=routes)


async def post(server, query="?room=a", body=b"hello", *lines, secret=SECRET, length=None, path=PATH):
    """Return the status, and the code of a refusal."""
    head = [f"POST {path}{query} HTTP/1.1", "Host: localhost"]
    head += [f"Content-Length: {len(body) if length is None else length}", *lines]
    head += [] if secret is None else [f"Authorization: Bearer {secret}"]
    async with await Wire.connect(server) as wire:
        status, answer = await wire.response("\r\n".join(head).encode() + b"\r\n\r\n" + body)
        return status, json.loads(answer)["error"]["code"] if answer else ""


async def member(server, room="a"):
    return await Wire.open(server, f"/ws?room={room}")


async def test_broadcast_reaches_only_members_of_the_room(start):
    server = await start(rooms(plumews.Hub()))
    async with await member(server) as ada, await member(server, "b") as bob:
        assert await post(server) == (204, "")
        assert await post(server, "?room=b", b"for b") == (204, "")
        assert await ada.message() == "hello"
        assert await bob.message() == "for b"


async def test_broadcast_to_several_rooms_or_all_is_delivered_once(start):
    server = await start(rooms(plumews.Hub()))
    async with await member(server) as ada, await member(server, "b") as bob, await member(server, "c") as eve:
        assert await post(server, "?room=a&room=b", b"two rooms") == (204, "")
        assert await post(server, "", b"all") == (204, "")
        assert [await ada.message(), await ada.message()] == ["two rooms", "all"]
        assert [await bob.message(), await bob.message()] == ["two rooms", "all"]
        assert await eve.message() == "all"


async def test_body_is_text_unless_its_type_is_octet_stream(start):
    server = await start(rooms(plumews.Hub()))
    async with await member(server) as ada:
        for lines in ((), ("Content-Type: application/json",), ("Content-Type: application/x-www-form-urlencoded",)):
            assert await post(server, "?room=a", "gr\u00fcn".encode(), *lines) == (204, "")
            assert await ada.message() == "gr\u00fcn"
        assert await post(server, "?room=a", b"\xff", "Content-Type: Application/Octet-Stream; x=y") == (204, "")
        assert await ada.message() == b"\xff"
        assert await post(server, "?room=a", b"") == (204, "")
        assert await ada.message() == ""


@pytest.mark.parametrize(
    "path", ["/%5fadmin/broadcast", "/_ADMIN/broadcast", "//_admin/broadcast", "/x/../_admin/broadcast", f"{PATH}/"]
)
async def test_broadcast_route_has_one_spelling(start, path):
    server = await start(rooms(plumews.Hub()))
    async with await member(server) as ada:
        assert (await post(server, body=b"", path=path))[0] == 404
        assert (await post(server, path=path))[0] == 400  # a body, and nowhere that takes it
        assert await post(server, "?room=a", b"next") == (204, "")
        assert await ada.message() == "next"


async def test_two_content_types_are_400(start):
    server = await start(rooms(plumews.Hub()))
    lines = ("Content-Type: text/plain", "Content-Type: application/octet-stream")
    assert (await post(server, "?room=a", b"x", *lines))[0] == 400


async def test_broadcast_without_members_is_204(start):
    server = await start(rooms(plumews.Hub()))
    assert await post(server, "?room=empty") == (204, "")
    assert await post(server, "") == (204, "")


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("?room=", "WEBSOCKET_INVALID_ROOM"),
        ("?room=a&room=", "WEBSOCKET_INVALID_ROOM"),
        ("?room=%0a", "WEBSOCKET_INVALID_ROOM"),
        ("?room=" + "x" * 129, "WEBSOCKET_INVALID_ROOM"),
        ("?rom=a", "WEBSOCKET_BAD_QUERY"),
        ("?room=a&secret=x", "WEBSOCKET_BAD_QUERY"),
        ("?a", "WEBSOCKET_BAD_QUERY"),
        ("?keep=false", "WEBSOCKET_BAD_QUERY"),
        ("?room=a&keep=", "WEBSOCKET_BAD_QUERY"),
        ("?room=a&keep=no", "WEBSOCKET_BAD_QUERY"),
        ("?room=a&keep=false&keep=true", "WEBSOCKET_BAD_QUERY"),
        ("?&", "WEBSOCKET_BAD_QUERY"),
    ],
)
async def test_misspelled_query_is_400_and_reaches_no_member(start, query, code):
    server = await start(rooms(plumews.Hub()))
    async with await member(server) as ada:
        assert await post(server, query) == (400, code)
        assert await post(server, "?room=a", b"next") == (204, "")
        assert await ada.message() == "next"


async def test_keep_false_keeps_the_message_out_of_the_history(start):
    hub = plumews.Hub(plumews.HubConfig(history=plumews.HistoryLimits()))
    server = await start(rooms(hub))
    async with await member(server) as ada:
        assert await post(server, "?room=a&keep=false", b"gone") == (204, "")
        assert await post(server, "?room=a&keep=true", b"kept") == (204, "")
        assert [await ada.message(), await ada.message()] == ["gone", "kept"]
    position = hub.position("a")
    assert position is not None
    assert position.offset == 1


async def test_text_that_is_not_utf_8_is_400(start):
    server = await start(rooms(plumews.Hub()))
    assert await post(server, "?room=a", b"\xff") == (400, "WEBSOCKET_INVALID_UTF8")


@pytest.mark.parametrize("secret", [None, "", SECRET[1:], SECRET + "x", SECRET.upper(), "x" * 32])
async def test_wrong_secret_is_401_before_the_body_is_sent(start, secret):
    hub = plumews.Hub()
    server = await start(rooms(hub))
    assert await post(server, body=b"", length=1000, secret=secret) == (401, "UNAUTHORIZED")
    assert hub.metrics().broadcasts_total == 0
    assert hub.metrics().requests_refused["UNAUTHORIZED"] == 1


async def test_secret_in_the_query_is_401(start):
    server = await start(rooms(plumews.Hub(), allow_query_secrets=True))
    for query in (f"?room=a&token={SECRET}", f"?room=a&secret={SECRET}"):
        assert await post(server, query, secret=None) == (401, "UNAUTHORIZED")


async def test_message_of_1_mib_is_accepted_and_a_larger_one_is_413(start):
    hub = plumews.Hub()
    server = await start(rooms(hub))
    assert await post(server, body=b"x" * 2**20) == (204, "")
    assert await post(server, body=b"", length=2**20 + 1) == (413, "WEBSOCKET_REQUEST_TOO_LARGE")
    assert hub.metrics().broadcasts_total == 1


async def test_section_8_point_16_stopped_hub_is_503(start):
    hub = plumews.Hub()
    server = await start(rooms(hub))
    await hub.stop()
    assert await post(server) == (503, "WEBSOCKET_BROADCAST_REJECTED")


async def test_broadcast_to_full_queues_only_is_503(start):
    hub = plumews.Hub()
    server = await start(rooms(hub, queue_size=1, queue_bytes=1000, send_behavior=plumews.SendBehavior.DROP))
    async with await Wire.connect(server, rcvbuf=4096) as wire:
        wire.writer.write(upgrade("/ws?room=a"))
        await wire.read_head()
        (conn,) = hub.members("a")
        while not conn.queued_messages:  # until the socket takes no more
            hub.broadcast_room("a", b"x" * 100_000)
            await asyncio.sleep(0)
        assert await post(server, body=b"x" * 900) == (503, "WEBSOCKET_BROADCAST_REJECTED")


async def test_guesses_of_an_address_are_limited_even_for_the_secret(start):
    now = [0.0]
    hub = plumews.Hub()
    attempts = Attempts(burst=2, interval=10)
    server = await start(routed(hub, secret=SECRET, attempts=attempts, clock=lambda: now[0]))
    for _ in range(3):
        assert await post(server) == (204, "")  # what is right costs nothing
    for _ in range(2):
        assert await post(server, secret="wrong") == (401, "UNAUTHORIZED")
    assert await post(server) == (429, "WEBSOCKET_TOO_MANY_ATTEMPTS")
    now[0] = 10.0
    assert await post(server) == (204, "")
    attempts.check("192.0.2.1", now[0], "too many")


async def test_authorizer_of_the_application_decides(start):
    async def may(request):
        await asyncio.sleep(0)
        return request.headers.get("X-Admin") == "yes"

    server = await start(routed(plumews.Hub(), authorizer=may))
    assert await post(server, "?room=a", b"x", "X-Admin: yes", secret=None) == (204, "")
    assert await post(server, "?room=a", b"x", secret=SECRET) == (401, "UNAUTHORIZED")


async def test_route_is_absent_without_a_secret(start):
    server = await start(rooms(plumews.Hub(), broadcast_secret=None))
    assert await post(server, body=b"") == (404, "NOT_FOUND")


async def test_logs_hold_no_secret(start, caplog):
    caplog.set_level("DEBUG")
    server = await start(rooms(plumews.Hub()))
    wrong = "wrong-" + SECRET
    assert (await post(server, secret=wrong))[0] == 401
    assert (await post(server, body=b"\xff"))[0] == 400
    assert caplog.records
    assert SECRET not in caplog.text


def test_error_of_a_bad_secret_does_not_repeat_it():
    hub = plumews.Hub()
    with pytest.raises(plumews.WeakSecret, match="websocket broadcast secret must be at least 32 bytes, and has 31"):
        rooms(hub, broadcast_secret="s" * 31)
    for secret in ("secret " * 8, "s\u00e4cret" * 8, b"\xff" * 40):
        with pytest.raises(ValueError, match="visible ASCII") as caught:
            rooms(hub, broadcast_secret=secret)
        assert str(secret) not in str(caught.value)
    with pytest.raises(ValueError, match="at most 8192"):
        rooms(hub, broadcast_secret="s" * 8193)
    with pytest.raises(TypeError, match="must be a str or bytes, not int"):
        rooms(hub, broadcast_secret=5)


def test_section_8_secret_must_differ_from_the_token_keys():
    for auth in (plumews.SimpleRoomAuth(SECRET), plumews.SimpleRoomAuth({"one": "x" * 32, "two": SECRET.encode()})):
        with pytest.raises(ValueError, match="websocket broadcast secret must be separate from websocket JWT secret"):
            rooms(plumews.Hub(), auth)
    with pytest.raises(ValueError, match="must be separate"):
        rooms(plumews.Hub(), token_auth=plumews.HS256TokenAuth(SECRET))


def test_wrong_arguments_of_the_route_raise():
    hub = plumews.Hub()
    with pytest.raises(TypeError, match=r"hub must be a plumews\.Hub, not str"):
        admin_broadcast_route("hub", SECRET)
    with pytest.raises(TypeError, match="either the secret of the broadcasts or an authorizer"):
        admin_broadcast_route(hub)
    with pytest.raises(TypeError, match="either the secret of the broadcasts or an authorizer"):
        admin_broadcast_route(hub, SECRET, authorizer=lambda request: True)
    with pytest.raises(TypeError, match="authorizer must be a function, not int"):
        admin_broadcast_route(hub, authorizer=1)
    with pytest.raises(ValueError, match="is that of broadcast_secret"):
        rooms(hub, routes={PATH: lambda request: Response(204)})
