"""Authentication of live connections: by each source, by authenticators of an application, by the first message."""

from __future__ import annotations

import asyncio
import json
import threading

import pytest

import plumews
from plumews import limits
from plumews.auth.authentication import admit_by_message
from plumews.counters import RequestCounters
from support.authentication_setup import AUTH, ORIGIN, WAYS, known_as, refused, serve, token, whoami
from support.fakes import assert_empty, fake_conn, feed, ticks, until
from support.raw_client import Wire, close, masked, text, upgrade
from support.room_endpoint_setup import SlowAuth, joined, rooms, say


@pytest.mark.parametrize("kind", ["rooms", "plain"])
async def test_section_8_point_22_each_enabled_source_logs_in(start, kind):
    server = await start(serve(kind, allow_query_secrets=True, token_cookie="login", require_token=True))
    for target, lines, message in WAYS.values():
        assert await known_as(server, target, *lines, message=message) == "u1: hi"


@pytest.mark.parametrize("kind", ["rooms", "plain"])
async def test_section_8_point_20_each_disabled_source_is_refused(start, kind):
    server = await start(serve(kind, token_sources=()))
    for name in ("header", "subprotocol", "message"):
        target, lines, _ = WAYS[name]
        assert await refused(server, target, *lines) == (403, "WEBSOCKET_TOKEN_SOURCE")
    assert await refused(server, WAYS["query"][0]) == (403, "WEBSOCKET_QUERY_SECRETS")
    assert server._context.requests.refused.snapshot() == {"WEBSOCKET_TOKEN_SOURCE": 3, "WEBSOCKET_QUERY_SECRETS": 1}


async def test_row_21_cookie_needs_an_origin_of_this_site(start):
    server = await start(serve("plain", token_cookie="login"))
    cookie = f"Cookie: login={token()}"
    assert await refused(server, "/ws", cookie) == (403, "WEBSOCKET_FORBIDDEN_ORIGIN")
    assert await refused(server, "/ws", cookie, "Origin: https://evil.com") == (403, "WEBSOCKET_FORBIDDEN_ORIGIN")
    assert await known_as(server, "/ws", cookie, ORIGIN) == "u1: hi"


async def test_two_different_tokens_in_one_request_are_400(start):
    server = await start(serve("plain"))
    answer = await refused(server, "/ws", *WAYS["header"][1], f"Sec-WebSocket-Protocol: bearer.{token(n=2)}")
    assert answer == (400, "WEBSOCKET_TWO_TOKENS")


@pytest.mark.parametrize("kind", ["rooms", "plain"])
async def test_section_8_point_25_optional_token_is_verified(start, kind):
    server = await start(serve(kind, require_token=False))
    assert await known_as(server) == "-: hi"
    assert await known_as(server, "/ws", f"Authorization: Bearer {token()}") == "u1: hi"
    assert await refused(server, "/ws", f"Authorization: Bearer {token(exp=1)}") == (403, "WEBSOCKET_INVALID_TOKEN")


# --- authenticators and authorizers of an application ---------------------------------------------


class Sessions:
    """Authenticator with a table of tokens, plain or as a coroutine."""

    def __init__(self, wait):
        self.wait = wait
        self.sessions = {"letmein": {"sub": "ada", "roles": ["admin"]}}

    def verify_jwt(self, token):
        return self.later(token) if self.wait else self.now(token)

    async def later(self, token):
        await asyncio.sleep(0)
        return self.now(token)

    def now(self, token):
        if token == "stranger":
            raise plumews.InvalidToken("nobody knows it")
        return self.sessions[token]


@pytest.mark.parametrize("wait", [False, True], ids=["plain", "async"])
async def test_authenticator_may_be_plain_or_async(start, wait, caplog):
    server = await start(plumews.serve(whoami, "127.0.0.1", 0, authenticator=Sessions(wait)))
    bearer = "Authorization: Bearer "
    assert await known_as(server, "/", bearer + "letmein") == "ada: hi"
    assert await known_as(server, "/?auth=message", message={"token": "letmein"}) == "ada: hi"
    assert await refused(server, "/", bearer + "stranger") == (403, "WEBSOCKET_INVALID_TOKEN")
    assert caplog.records == []
    # A failure of its own is no refusal, and what it says holds the token: that is not logged.
    assert await refused(server, "/", bearer + "unforeseen") == (500, "WEBSOCKET_HANDSHAKE_FAILED")
    async with await Wire.open(server, "/?auth=message") as wire:
        wire.send(text('{"type": "auth", "token": "unforeseen"}'))
        assert await wire.closing() == (1011, "authentication failed")
    logs = [caplog.handler.format(record) for record in caplog.records]
    assert len(logs) == 2
    assert all("KeyError" in log and "unforeseen" not in log for log in logs)


class Members:
    """Authorizer that admits admins and clients with the password."""

    def __init__(self, wait):
        self.asked = []
        if wait:
            self.authorize_room = self.later

    def authorize_room(self, asked):
        self.asked.append(asked)
        return asked.password == "word" or "admin" in asked.claims.get("roles", ())

    async def later(self, asked):
        await asyncio.sleep(0)
        return type(self).authorize_room(self, asked)

    def check_room_password(self, room, password):
        raise AssertionError("authorize_room wins")


@pytest.mark.parametrize("wait", [False, True], ids=["plain", "async"])
async def test_authorize_room_decides_and_sees_the_client(start, wait):
    members = Members(wait)
    serving = plumews.serve_rooms(
        plumews.Hub(), None, "127.0.0.1", 0, handler=whoami, token_auth=Sessions(wait), room_auth=members
    )
    server = await start(serving)
    assert await refused(server, "/ws?room=a") == (403, "WEBSOCKET_ROOM_FORBIDDEN")
    assert await known_as(server, "/ws?room=a", "X-WebSocket-Room-Password: word") == "-: hi"
    assert await known_as(server, "/ws?room=b", "Authorization: Bearer letmein") == "ada: hi"
    assert await known_as(server, "/ws?room=b&auth=message", message={"token": "letmein"}) == "ada: hi"
    async with await Wire.open(server, "/ws?auth=message") as wire:
        wire.send(text('{"type": "auth", "password": "other"}'))
        assert await wire.closing() == (4403, "forbidden: this room is not for you")
    assert [(asked.room, asked.anonymous, asked.user and asked.user.id) for asked in members.asked] == [
        ("a", True, None),
        ("a", True, None),
        ("b", False, "ada"),
        ("b", False, "ada"),
        ("default", True, None),
    ]
    assert "word" not in repr(members.asked)


async def test_plain_authorize_room_has_a_bounded_queue(start, monkeypatch):
    monkeypatch.setattr("plumews.limits.PASSWORD_QUEUE", 4)
    go_on = threading.Event()
    rooms = []

    class Hung(Members):
        def authorize_room(self, asked):
            rooms.append(asked.room)
            assert go_on.wait(30)
            return True

    serving = plumews.serve_rooms(plumews.Hub(), AUTH, "127.0.0.1", 0, handler=whoami, room_auth=Hung(False))
    server = await start(serving)
    pool = server._context.endpoint("/ws")._authorizer_pool
    wires = []
    for number in range(4):
        wires.append(await Wire.connect(server))
        wires[-1].send(upgrade(f"/ws?room={number}"))
        await until(lambda number=number: len(pool.pending) == number + 1)
    assert await refused(server, "/ws?room=full") == (503, "WEBSOCKET_BUSY")
    await until(lambda: len(rooms) == limits.PASSWORD_HASHES)
    last = next(conn for conn in server._context.connections if conn.request.query["room"] == "3")
    wires[3].reset()
    await last.wait_closed()
    await until(lambda: len(pool.pending) == 3)  # the client that left holds no place
    wires[3] = await Wire.connect(server)
    wires[3].send(upgrade("/ws?room=late"))
    await until(lambda: len(pool.pending) == 4)
    go_on.set()
    for wire in wires:
        await wire.read_head()
        assert wire.status == 101
        await wire.__aexit__(None, None, None)
    assert not pool.pending
    assert sorted(rooms) == ["0", "1", "2", "late"]


async def test_slow_authorizer_delays_no_password_of_another_server(start):
    go_on = threading.Event()
    begun = []

    class Hung(Members):
        def authorize_room(self, asked):
            begun.append(asked.room)
            return go_on.wait(30)

    slow = await start(plumews.serve_rooms(plumews.Hub(), AUTH, "127.0.0.1", 0, handler=whoami, room_auth=Hung(False)))
    other = await start(rooms())
    wires = [await Wire.connect(slow) for _ in range(limits.PASSWORD_HASHES)]
    try:
        for wire in wires:
            wire.send(upgrade("/ws"))
        await until(lambda: len(begun) == limits.PASSWORD_HASHES)
        assert (await refused(other, "/ws?room=vault&room_password=wrong"))[0] == 403
    finally:
        go_on.set()
    for wire in wires:
        await wire.read_head()
        assert wire.status == 101
        await wire.__aexit__(None, None, None)


class Password:
    """Smallest possible authorizer."""

    async def check_room_password(self, room, password):
        return password == f"for {room}"


async def test_authorizer_of_passwords_only_decides_about_every_room(start):
    server = await start(plumews.serve_rooms(plumews.Hub(), AUTH, "127.0.0.1", 0, room_auth=Password()))
    assert await refused(server, "/ws?room=a") == (403, "WEBSOCKET_ROOM_FORBIDDEN")
    assert await known_as(server, "/ws?room=a&auth=message", message={"password": "for a"}) is not None


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"auth": None}, "verify_jwt"),
        ({"auth": None, "token_auth": AUTH}, "check_room_password"),
        ({"auth": AUTH, "room_auth": object()}, "check_room_password"),
        ({"auth": AUTH, "room_auth": Password(), "allow_unknown_rooms": False}, "has_room_password"),
    ],
)
def test_auth_without_the_needed_methods_raises_type_error(wrong, why):
    with pytest.raises(TypeError, match=why):
        plumews.serve_rooms(plumews.Hub(), host="127.0.0.1", port=0, **wrong)


def unstarted(kind, auth):
    """Return a server, not started, that requires tokens of ``auth``."""
    if kind == "rooms":
        return plumews.serve_rooms(plumews.Hub(), auth, "127.0.0.1", 0, require_token=True)
    return plumews.serve(whoami, "127.0.0.1", 0, authenticator=auth)


@pytest.mark.parametrize("kind", ["rooms", "plain"])
def test_require_token_without_a_secret_raises_value_error(kind):
    with pytest.raises(ValueError, match="require_token=True needs an auth that verifies tokens"):
        unstarted(kind, plumews.SimpleRoomAuth())


@pytest.mark.parametrize("kind", ["rooms", "plain"])
def test_class_in_place_of_an_authenticator_raises_type_error(kind):
    with pytest.raises(TypeError, match=r"must be a plumews\.SimpleRoomAuth\(\.\.\.\)"):
        unstarted(kind, plumews.SimpleRoomAuth)


# --- first message --------------------------------------------------------------------------------


async def test_joined_comes_first_and_early_messages_are_not_lost(start):
    hub = plumews.Hub()
    server = await start(rooms(hub))
    async with await joined(server, "/ws?room=a") as other, await Wire.connect(server) as wire:
        wire.writer.write(upgrade("/ws?room=a&auth=message") + say() + text("glued"))
        await wire.read_head()
        assert json.loads(await wire.message()) == {"type": "joined", "room": "a"}
        assert await wire.message() == "glued"
        assert await other.message() == "glued"


@pytest.mark.parametrize(
    "message",
    [
        text(""),
        text("hello"),
        masked(2, b"\x00\x01"),
        text('{"type": "auth", "token": 1}'),
        text('{"type": "message", "password": "open sesame"}'),
    ],
    ids=["empty", "text", "binary", "number", "another_type"],
)
async def test_first_message_that_is_no_authentication_is_4403(start, message):
    hub = plumews.Hub()
    server = await start(rooms(hub))
    async with await joined(server, "/ws?auth=message") as wire:
        wire.send(message)
        assert await wire.closing() == (
            4403,
            'the first message must be {"type": "auth", "password": ..., "token": ...}',
        )
        wire.send(close())
        await wire.eof()
    assert hub.metrics().accepted_total == 0


@pytest.mark.parametrize("glued", [True, False], ids=["glued", "later"])
async def test_first_message_beyond_16_kib_is_1009_later_ones_are_not(start, glued):
    server = await start(rooms(max_size=1_000_000))
    async with await Wire.connect(server) as wire:
        large = text(json.dumps({"type": "auth", "password": "x" * limits.HEAD_SIZE}))
        wire.writer.write(upgrade("/ws?auth=message") + (large if glued else b""))
        await wire.read_head()
        if not glued:
            wire.send(large)
        assert (await wire.closing())[0] == 1009
    async with await joined(server, "/ws?auth=message") as wire:
        wire.send(say())
        await wire.message()
        wire.send(text("x" * 1_000_000))
        assert await wire.message() == "x" * 1_000_000
        wire.send(text("x" * 1_000_001))
        assert (await wire.closing())[0] == 1009


async def test_read_limit_below_16_kib_holds_for_the_first_message(start):
    server = await start(rooms(max_size=100))
    async with await joined(server, "/ws?auth=message") as wire:
        wire.send(text("x" * 101))
        assert (await wire.closing())[0] == 1009


async def test_first_message_that_breaks_the_protocol_gets_its_code(start):
    server = await start(rooms())
    for frame, code in ((b"\x81\x81\x00\x00\x00\x00\xff", 1007), (b"\x81\x01x", 1002), (close(1000), 1000)):
        async with await joined(server, "/ws?auth=message") as wire:
            wire.send(frame)
            assert (await wire.closing())[0] == code
    await assert_empty(server)


async def test_wrong_password_in_the_first_message_is_4403(start):
    server = await start(rooms())
    for password in ("wrong", "", "\ufffd"):
        async with await joined(server, "/ws?room=vault&auth=message") as wire:
            wire.send(say(password))
            assert await wire.closing() == (4403, "forbidden: bad room password")


# --- timeouts of the first message ----------------------------------------------------------------


async def test_missing_first_message_is_4408_at_the_deadline(start):
    server = await start(rooms(open_timeout=0.5))  # in which the handshake has to be done
    async with await joined(server, "/ws?auth=message") as wire:
        assert await wire.closing() == (4408, "authentication took too long")


async def test_open_timeout_covers_head_and_authentication(start):
    loop = asyncio.get_running_loop()
    server = await start(rooms(open_timeout=0.6))

    async def until_it_was_too_late() -> float | None:
        began = loop.time()
        async with await Wire.connect(server) as wire:
            head = upgrade("/ws?auth=message")
            wire.writer.write(head[:-2])
            await asyncio.sleep(0.4)  # a client that takes its time with the head
            wire.writer.write(head[-2:])
            await wire.read_head()
            if wire.status == 408:
                return None  # this machine was busy, and the head too late already
            assert wire.status == 101
            assert (await wire.closing())[0] == 4408
            return loop.time() - began

    took: list[float] = []
    for _ in range(10):  # the machine is not ours alone: the best of some
        took += filter(None, [await until_it_was_too_late()])
        if took and min(took) < 0.95:
            break
    assert all(seconds >= 0.55 for seconds in took)
    assert min(took) < 0.95  # a time of its own for the authentication would make it 1.0


async def test_open_timeout_covers_a_slow_password_check(start):
    auth = SlowAuth()
    server = await start(rooms(auth=auth, open_timeout=0.5))  # in which the handshake has to be done
    async with await joined(server, "/ws?auth=message") as wire:
        wire.send(say("right"))
        assert await wire.closing() == (4408, "authentication took too long")
    auth.release.set()


async def test_server_that_stops_before_the_first_message_sends_1001(start):
    server = await start(rooms())
    async with await joined(server, "/ws?auth=message") as wire:
        server.close()
        assert await wire.closing() == (1001, "")
        wire.send(close())
        await assert_empty(server)


# --- admission after the first message ------------------------------------------------------------


async def nobody_is_in(conn, credentials):
    raise AssertionError


def never(conn):
    raise AssertionError


async def test_enter_runs_in_the_same_task_with_the_full_read_limit():
    conn, _ = fake_conn(max_size=100_000)
    checked, seen = [], []

    async def check(conn, credentials):
        checked.append((credentials.token, credentials.password, conn.read_limit))

    async def inside(conn):
        seen.append((asyncio.current_task(), conn.read_limit, await conn.recv()))

    work = admit_by_message(conn, conn._loop.time() + 60, RequestCounters(), check, inside)
    assert conn.read_limit == limits.HEAD_SIZE  # at once: the message may be there already
    task = asyncio.ensure_future(work)
    feed(conn, say("pw", "a.b.c"), text("for the handler"))
    await task
    assert checked == [("a.b.c", "pw", limits.HEAD_SIZE)]
    assert seen == [(task, 100_000, "for the handler")]
    conn.abort()


@pytest.mark.parametrize(
    ("refusal", "code"),
    [
        (plumews.Refused("no"), 4403),
        (plumews.Refused("no", status=401), 4401),
        (plumews.Refused("no", status=429), 1013),
        (plumews.Refused("no", status=503), 1013),
    ],
)
async def test_refusal_is_a_close_code_and_is_counted(refusal, code):
    conn, transport = fake_conn()
    counters = RequestCounters()

    async def check(conn, credentials):
        raise refusal

    feed(conn, say("pw"))
    await admit_by_message(conn, conn._loop.time() + 60, counters, check, never)
    assert transport.events()[-1] == (plumews.Opcode.CLOSE, (code, "no"))
    assert counters.refused.snapshot() == {"WEBSOCKET_FORBIDDEN": 1}
    conn.abort()


async def test_missing_first_message_is_counted():
    conn, transport = fake_conn()
    counters = RequestCounters()
    await admit_by_message(conn, conn._loop.time(), counters, nobody_is_in, never)
    assert transport.events()[-1] == (plumews.Opcode.CLOSE, (4408, "authentication took too long"))
    assert counters.refused.snapshot() == {"WEBSOCKET_HANDSHAKE_TIMEOUT": 1}
    conn.abort()


async def test_check_is_cancelled_when_the_client_leaves():
    conn, _ = fake_conn()
    ends = []

    async def check(conn, credentials):
        try:
            await asyncio.Event().wait()
        finally:
            ends.append("cancelled")

    feed(conn, say("pw"))
    task = asyncio.ensure_future(admit_by_message(conn, conn._loop.time() + 60, RequestCounters(), check, never))
    await ticks()
    conn.abort()
    await task
    assert ends == ["cancelled"]
