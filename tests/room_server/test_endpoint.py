"""Entry into a room: its name, passwords, tokens, slow checks, and secrets in logs."""

from __future__ import annotations

import asyncio
import json
import logging

import jwt
import pytest

import plumews
from plumews import limits
from support.fakes import assert_empty
from support.raw_client import Wire, masked, text, upgrade
from support.room_endpoint_setup import AUTH, SlowAuth, joined, refused, rooms, say, token

# --- room -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "room"),
    [("", "default"), ("?room=", "default"), ("?room=blue", "blue"), ("?room=a%20b%C3%A9", "a b\u00e9")],
)
async def test_room_is_read_from_the_query_or_is_default(start, query, room):
    async with plumews.Hub() as hub:
        server = await start(rooms(hub))
        async with await joined(server, f"/ws{query}"):
            assert hub.rooms() == [room]
            (conn,) = hub.members(room)
            assert conn.metadata == {"room": room}


@pytest.mark.parametrize("room", ["%00", "a%0ab", "x" * 129, "%1b[2J"])
async def test_room_name_outside_the_policy_is_400(start, room):
    server = await start(rooms())
    status, code, message, _ = await refused(server, f"/ws?room={room}")
    assert (status, code) == (400, "WEBSOCKET_INVALID_ROOM")
    assert message.startswith("invalid websocket room: ")


@pytest.mark.parametrize("query", ["room=a&room=b", "room=a&room=a", "room=&room=b", "room=a&%72oom=b", "room&room=b"])
@pytest.mark.parametrize("login", ["", "&auth=message"])
async def test_room_given_twice_is_400(start, query, login):
    server = await start(rooms())
    for path in ("/ws", "/members"):
        said = await refused(server, f"{path}?{query}{login}")
        assert said[:3] == (400, "WEBSOCKET_BAD_QUERY", "more than one room in the query")


@pytest.mark.parametrize("bad", ["%ff", "%fe", "%ed%a0%80"])
async def test_room_that_is_not_utf_8_is_400(start, bad):
    server = await start(rooms())
    for query in (f"room={bad}", f"auth=message&room={bad}", f"room=a&room_password={bad}", f"room=a&token={bad}"):
        assert (await refused(server, f"/ws?{query}"))[:2] == (400, "WEBSOCKET_BAD_REQUEST")


@pytest.mark.parametrize(
    "message",
    [
        r'{"type": "auth", "password": "\ud800"}',
        r'{"type": "auth", "password": "open sesame\udfff"}',
        r'{"type": "auth", "password": "x", "password": "open sesame"}',
        r'{"type": "auth", "token": "a", "token": "b"}',
        b'{"type": "auth", "password": "\xed\xa0\x80"}',
        '{"type": "auth", "password": "open sesame"}'.encode("utf-16"),
    ],
)
async def test_ambiguous_first_message_is_4403(start, message):
    server = await start(rooms())
    async with await joined(server, "/ws?room=vault&auth=message") as wire:
        wire.send(text(message) if isinstance(message, str) else masked(2, message))
        assert (await wire.closing())[0] == 4403


async def test_section_8_point_24_unknown_rooms_can_be_closed(start):
    server = await start(rooms())
    async with await joined(server, "/ws?room=anything"):
        pass
    server = await start(rooms(allow_unknown_rooms=False))
    assert (await refused(server, "/ws?room=anything"))[:3] == (
        403,
        "WEBSOCKET_ROOM_FORBIDDEN",
        "forbidden: unknown room",
    )
    async with await joined(server, "/ws?room=vault&room_password=open+sesame"):
        pass
    async with await joined(server, "/ws?room=anything&auth=message") as wire:
        wire.send(say())
        assert await wire.closing() == (4403, "forbidden: unknown room")


# --- passwords ------------------------------------------------------------------------------------


async def test_password_by_query_header_or_message_opens_its_room(start):
    server = await start(rooms())
    async with await joined(server, "/ws?room=vault&room_password=open%20sesame"):
        pass
    async with await joined(server, "/ws?room=vault", "X-WebSocket-Room-Password: open sesame"):
        pass
    async with await joined(server, "/ws?room=vault&auth=message") as wire:
        wire.send(say("open sesame"))
        assert json.loads(await wire.message()) == {"type": "joined", "room": "vault"}


@pytest.mark.parametrize(
    ("query", "lines"),
    [
        ("&room_password=", ()),
        ("&room_password=wrong", ()),
        ("", ("X-WebSocket-Room-Password: wrong",)),
        ("&room_password=open%20sesame", ("X-WebSocket-Room-Password: wrong",)),
        ("&room_password=" + "x" * 5000, ()),
    ],
)
async def test_wrong_password_is_403(start, query, lines):
    hub = plumews.Hub()
    server = await start(rooms(hub))
    assert (await refused(server, f"/ws?room=vault{query}", *lines))[:3] == (
        403,
        "WEBSOCKET_ROOM_FORBIDDEN",
        "forbidden: bad room password",
    )
    assert hub.metrics().accepted_total == 0


async def test_missing_password_is_403_with_a_text_that_says_so(start):
    server = await start(rooms(plumews.Hub()))
    told = "forbidden: bad room password: none was sent"
    assert (await refused(server, "/ws?room=vault"))[:3] == (403, "WEBSOCKET_ROOM_FORBIDDEN", told)
    async with await joined(server, "/ws?room=vault&auth=message") as wire:
        wire.send(text('{"type": "auth", "room_password": "open sesame"}'))  # it is called password there
        assert await wire.closing() == (4403, told)


async def test_section_8_point_20_query_secrets_are_off_by_default(start):
    server = await start(plumews.serve_rooms(plumews.Hub(), AUTH, "127.0.0.1", 0))
    for query in ("room_password=open%20sesame", f"token={token()}", "auth=message&token=x"):
        assert (await refused(server, f"/ws?room=vault&{query}"))[:2] == (403, "WEBSOCKET_QUERY_SECRETS")


async def test_open_room_accepts_any_password(start):
    server = await start(rooms())
    async with await joined(server, "/ws?room=open&room_password=whatever"):
        pass


# --- tokens ---------------------------------------------------------------------------------------


async def test_section_8_point_22_token_is_accepted_from_each_place(start):
    known = asyncio.Queue()

    async def handler(conn):
        known.put_nowait((conn.user_info, conn.subprotocol))

    server = await start(rooms(handler=handler))
    good = token(name="Ada", email="ada@example.com", roles=["admin"])
    ways = {
        "header": (f"/ws?room=a|Authorization: Bearer {good}", None),
        "subprotocol": (f"/ws?room=a|Sec-WebSocket-Protocol: bearer.{good}, plumews", "plumews"),
        "subprotocol_alone": (f"/ws?room=a|Sec-WebSocket-Protocol: bearer.{good}", None),
        "query": (f"/ws?token={good}", None),
        "message": ("/ws?auth=message", None),
    }
    for name, (request, subprotocol) in ways.items():
        target, *lines = request.split("|")
        async with await Wire.open(server, target, *lines) as wire:
            if name == "message":
                wire.send(say(token=good))
            info, agreed = await known.get()
            assert (info.id, info.name, info.email, info.roles) == ("u1", "Ada", "ada@example.com", ("admin",)), name
            assert agreed == subprotocol
            assert wire.header("Sec-WebSocket-Protocol") == subprotocol
            assert all("bearer" not in value for _, value in wire.headers)


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        ("nonsense", "invalid jwt"),
        (jwt.encode({"sub": "u1"}, b"another secret" * 4, algorithm="HS256"), "invalid jwt"),
        (token(exp=999), "jwt expired"),
        (token(nbf=1001), "invalid jwt"),
    ],
    ids=["nonsense", "another_key", "expired", "not_yet"],
)
async def test_bad_token_is_403_in_the_handshake_and_4403_later(start, bad, why):
    server = await start(rooms())
    for target, lines in (
        ("/ws", [f"Authorization: Bearer {bad}"]),
        ("/ws", [f"Sec-WebSocket-Protocol: plumews, bearer.{bad}"]),
        (f"/ws?token={bad}", []),
    ):
        status, code, message, _ = await refused(server, target, *lines)
        assert (status, code) == (403, "WEBSOCKET_INVALID_TOKEN")
        assert message.startswith(f"forbidden: invalid token ({why}")
    async with await joined(server, "/ws?auth=message") as wire:
        wire.send(say(token=bad))
        code, reason = await wire.closing()
        assert code == 4403
        assert reason.startswith(f"forbidden: invalid token ({why}")


async def test_section_8_point_21_require_token_refuses_without_one(start):
    server = await start(rooms(require_token=True))
    *answer, wire = await refused(server, "/ws")
    assert answer == [401, "WEBSOCKET_TOKEN_REQUIRED", "websocket token required"]
    assert wire.header("WWW-Authenticate") == "Bearer"
    async with await joined(server, "/ws?auth=message") as wire:
        wire.send(say())
        assert await wire.closing() == (4401, "websocket token required")
    async with await joined(server, "/ws", f"Authorization: Bearer {token()}"):
        pass


async def test_section_8_point_25_optional_valid_token_is_accepted(start):
    server = await start(rooms(require_token=False))
    async with await joined(server, "/ws"), await joined(server, "/ws", f"Authorization: Bearer {token()}"):
        pass


async def test_token_alone_does_not_open_a_room_with_a_password(start):
    server = await start(rooms())
    assert (await refused(server, "/ws?room=vault", f"Authorization: Bearer {token()}"))[0] == 403


async def test_token_is_refused_by_an_auth_without_a_secret(start):
    server = await start(rooms(auth=plumews.SimpleRoomAuth(None)))
    assert (await refused(server, "/ws", f"Authorization: Bearer {token()}"))[:2] == (403, "WEBSOCKET_INVALID_TOKEN")


# --- slow and failing checks ----------------------------------------------------------------------


async def test_slow_password_check_in_the_handshake_is_408(start):
    auth = SlowAuth()
    server = await start(rooms(auth=auth, open_timeout=0.1))
    assert (await refused(server, "/ws?room_password=right"))[:2] == (408, "WEBSOCKET_HANDSHAKE_TIMEOUT")
    auth.release.set()


class Broken(plumews.SimpleRoomAuth):
    def has_room_password(self, room):
        return True

    def check_room_password(self, room, password):
        raise RuntimeError("the user database is away")


async def test_failing_authorizer_is_500_or_1011_and_logged_once(start, caplog):
    server = await start(rooms(auth=Broken()))
    status, code, message, _ = await refused(server, "/ws?room_password=x")
    assert (status, code, message) == (500, "WEBSOCKET_HANDSHAKE_FAILED", "websocket handshake failed")
    async with await joined(server, "/ws?auth=message") as wire:
        wire.send(say("x"))
        assert await wire.closing() == (1011, "authentication failed")
    logs = [caplog.handler.format(record) for record in caplog.records]
    assert len(logs) == 2
    assert all(record.exc_info is None for record in caplog.records), "its frames hold the password"
    assert all("the authorizer failed" in log and "RuntimeError: the user database is away" in log for log in logs)


async def test_section_8_point_24_guesses_count_at_all_endpoints(start):
    server = await start(rooms())
    for number in range(limits.ATTEMPTS_BURST):
        assert (await refused(server, f"/ws?room=vault&room_password={number}"))[0] == 403
    for path in ("/ws", "/members"):
        status, code, _, wire = await refused(server, f"{path}?room=vault&room_password=open+sesame")
        assert (status, code) == (429, "WEBSOCKET_TOO_MANY_ATTEMPTS")
        assert 1 <= int(wire.header("Retry-After")) <= limits.ATTEMPTS_INTERVAL
    async with await joined(server, "/ws?auth=message&room=vault") as wire:
        wire.send(say("open sesame"))
        assert await wire.closing() == (1013, "too many wrong passwords from this address")
    async with await joined(server, "/ws?room=open"):
        pass


# --- hashing --------------------------------------------------------------------------------------


async def test_section_8_point_24_password_check_blocks_no_client(start):
    auth = SlowAuth()
    server = await start(rooms(auth=auth))
    async with await Wire.connect(server) as waiting, await joined(server, "/ws?room=open") as other:
        waiting.writer.write(upgrade("/ws?room_password=right"))
        await auth.until(1)
        for number in range(100):
            other.send(text(str(number)))
            assert await other.message() == str(number)
        async with await joined(server, "/ws?room=open"):
            pass
        auth.release.set()
        await waiting.read_head()
        assert waiting.status == 101


async def test_section_8_point_24_two_passwords_are_hashed_at_once(start):
    auth = SlowAuth()
    server = await start(rooms(auth=auth))
    wires = [await Wire.connect(server) for _ in range(10)]
    for number, wire in enumerate(wires):
        wire.writer.write(upgrade(f"/ws?room_password={'right' if number % 2 else 'wrong'}"))
    await auth.until(2)
    auth.release.set()
    for number, wire in enumerate(wires):
        await wire.read_head()
        assert wire.status == (101 if number % 2 else 403)
        wire.writer.close()
    assert (auth.most, auth.now) == (2, 0)


@pytest.mark.parametrize("way", ["query", "message"])
async def test_section_8_point_27_client_that_left_never_joins(start, way, caplog):
    auth = SlowAuth()
    hub = plumews.Hub()
    server = await start(rooms(hub, auth))
    if way == "query":
        wire = await Wire.connect(server)
        wire.writer.write(upgrade("/ws?room_password=right"))
    else:
        wire = await Wire.open(server, "/ws?auth=message")
        wire.send(say("right"))
    await auth.until(1)
    (conn,) = server._context.connections
    wire.reset()
    await conn.wait_closed()
    auth.release.set()
    await assert_empty(server)
    assert (hub.total_count(), hub.metrics().accepted_total) == (0, 0)
    assert caplog.records == []


@pytest.mark.parametrize("way", ["query", "message"])
async def test_password_of_a_client_that_left_is_not_hashed(start, way):
    auth = SlowAuth()
    server = await start(rooms(auth=auth))
    wires = []
    for number in range(12):
        if way == "query":
            wires.append(await Wire.connect(server))
            wires[-1].writer.write(upgrade(f"/ws?room_password={number}"))
        else:
            wires.append(await Wire.open(server, "/ws?auth=message"))
            wires[-1].send(say(str(number)))
    await auth.until(2)
    while len(server._context.tasks) < 12:
        await asyncio.sleep(0)
    conns = set(server._context.connections)
    for wire in wires:
        wire.reset()
    for conn in conns:
        await conn.wait_closed()
    while server._context.tasks:
        await asyncio.sleep(0)
    auth.release.set()
    wire = await Wire.open(server, "/ws?room_password=right")  # it had to stand behind them all
    wire.writer.close()
    assert len(auth.checked) == 3


async def test_stop_during_a_password_check_is_503_and_leaves_nothing(start):
    auth = SlowAuth()
    server = await start(rooms(auth=auth))
    async with await Wire.connect(server) as wire:
        wire.writer.write(upgrade("/ws?room_password=right"))
        await auth.until(1)
        server.close()
        status, body = await wire.response(b"")
        assert (status, json.loads(body)["error"]["code"]) == (503, "WEBSOCKET_STOPPING")
    await assert_empty(server)
    auth.release.set()


# --- secrets --------------------------------------------------------------------------------------


async def test_row_20_logs_reprs_and_responses_hold_no_secret(start, caplog):
    caplog.set_level(logging.DEBUG)
    seen = []

    async def handler(conn):
        seen.append(f"{conn!r} {conn.request!r} {conn.request.headers!r} {conn.response!r}")
        raise RuntimeError("on purpose")

    server = await start(rooms(handler=handler))
    bad = "s3cret.s3cret.s3cret"
    answers = []
    for target, lines in (
        ("/ws?room=vault&room_password=s3cret", []),
        (f"/ws?token={bad}", []),
        ("/ws?room=vault", ["X-WebSocket-Room-Password: s3cret"]),
        ("/ws", [f"Authorization: Bearer {bad}"]),
        ("/ws", [f"Sec-WebSocket-Protocol: plumews, bearer.{bad}"]),
    ):
        answers.append((await refused(server, target, *lines))[2])
    for message in (say("s3cret"), say(token=bad)):
        async with await joined(server, "/ws?room=vault&auth=message") as wire:
            wire.send(message)
            answers.append((await wire.closing())[1])
    good = token(name="s3cret")
    async with await Wire.open(
        server, f"/ws?room=vault&room_password=open%20sesame&token={good}", "Cookie: s3cret"
    ) as wire:
        await wire.closing()
    logs = [caplog.handler.format(record) for record in caplog.records]
    assert any("on purpose" in line for line in logs)
    everything = "\n".join(logs + seen + answers)
    assert seen
    for secret in ("s3cret", "sesame", good, good.split(".")[1]):
        assert secret not in everything
