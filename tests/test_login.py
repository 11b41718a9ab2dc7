"""Who a client is, live: each source, authenticators of an application's own, in rooms and in front of any endpoint."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading

import jwt
import pytest

import plumews
from fakes import until
from plumews import limits
from wire import Wire, text, upgrade

SECRET = b"s3cret" * 8
AUTH = plumews.SimpleRoomAuth(SECRET, rounds=1, clock=lambda: 1000.0)
ORIGIN = "Origin: http://localhost"


def token(**claims):
    return jwt.encode({"sub": "u1", **claims}, SECRET, algorithm="HS256")


async def whoami(conn):
    async for message in conn:
        await conn.send(f"{conn.user_info.id if conn.user_info else '-'}: {message}")


def serve(door, **options):
    """A server that tells each client who it is."""
    if door == "rooms":
        return plumews.serve_rooms(plumews.Hub(), AUTH, "127.0.0.1", 0, handler=whoami, **options)
    return plumews.serve(whoami, "127.0.0.1", 0, authenticator=AUTH, **options)


async def known_as(server, target="/ws", *lines, message=None):
    async with await Wire.open(server, target, *lines) as wire:
        if message is not None:
            wire.send(text(json.dumps({"type": "auth", **message})))
        wire.send(text("hi"))
        said = await wire.message()
        return said if said.endswith(": hi") else await wire.message()


async def refused(server, target="/ws", *lines):
    async with await Wire.connect(server) as wire:
        status, body = await wire.response(upgrade(target, *lines))
        return status, json.loads(body)["error"]["code"]


WAYS = {
    "header": ("/ws", [f"Authorization: Bearer {token()}"], None),
    "subprotocol": ("/ws", [f"Sec-WebSocket-Protocol: plumews, bearer.{token()}"], None),
    "cookie": ("/ws", [f"Cookie: a=b; login={token()}", ORIGIN], None),
    "message": ("/ws?auth=message", [], {"token": token()}),
    "query": (f"/ws?token={token()}", [], None),
}


@pytest.mark.parametrize("door", ["rooms", "plain"])
async def test_section_8_point_22_each_source_brings_a_user_in_where_it_is_on(start, door):
    server = await start(serve(door, allow_query_secrets=True, token_cookie="login", require_token=True))
    for target, lines, message in WAYS.values():
        assert await known_as(server, target, *lines, message=message) == "u1: hi"


@pytest.mark.parametrize("door", ["rooms", "plain"])
async def test_section_8_point_20_each_source_that_is_off_is_refused(start, door):
    server = await start(serve(door, token_sources=()))
    for name in ("header", "subprotocol", "message"):
        target, lines, _ = WAYS[name]
        assert await refused(server, target, *lines) == (403, "WEBSOCKET_TOKEN_SOURCE")
    assert await refused(server, WAYS["query"][0]) == (403, "WEBSOCKET_QUERY_SECRETS")
    assert server._site.requests.refused.snapshot() == {"WEBSOCKET_TOKEN_SOURCE": 3, "WEBSOCKET_QUERY_SECRETS": 1}


async def test_row_21_a_cookie_needs_an_origin_of_this_site(start):
    server = await start(serve("plain", token_cookie="login"))
    cookie = f"Cookie: login={token()}"
    assert await refused(server, "/ws", cookie) == (403, "WEBSOCKET_FORBIDDEN_ORIGIN")
    assert await refused(server, "/ws", cookie, "Origin: https://evil.com") == (403, "WEBSOCKET_FORBIDDEN_ORIGIN")
    assert await known_as(server, "/ws", cookie, ORIGIN) == "u1: hi"


async def test_two_tokens_in_one_request_are_400(start):
    server = await start(serve("plain"))
    answer = await refused(server, "/ws", *WAYS["header"][1], f"Sec-WebSocket-Protocol: bearer.{token(n=2)}")
    assert answer == (400, "WEBSOCKET_TWO_TOKENS")


async def test_a_token_in_the_request_counts_beside_a_first_message_without_one(start):
    server = await start(serve("plain"))
    lines = WAYS["header"][1]
    assert await known_as(server, "/ws?auth=message", *lines, message={}) == "u1: hi"
    async with await Wire.open(server, "/ws?auth=message", *lines) as wire:
        wire.send(text(json.dumps({"type": "auth", "token": token(n=2)})))
        assert await wire.closing() == (4403, "two different tokens")


async def test_section_8_point_21_without_a_token_nobody_comes_to_a_plain_endpoint_unless_that_is_allowed(start):
    server = await start(serve("plain"))
    assert await refused(server) == (401, "WEBSOCKET_TOKEN_REQUIRED")
    async with await Wire.open(server, "/ws?auth=message") as wire:
        wire.send(text('{"type": "auth"}'))
        assert await wire.closing() == (4401, "websocket token required")
    server = await start(serve("plain", require_token=False))
    assert await known_as(server) == "-: hi"


@pytest.mark.parametrize("door", ["rooms", "plain"])
async def test_section_8_point_25_where_none_is_required_a_valid_token_is_its_user_and_a_bad_one_is_refused(
    start, door
):
    server = await start(serve(door, require_token=False))
    assert await known_as(server) == "-: hi"
    assert await known_as(server, "/ws", f"Authorization: Bearer {token()}") == "u1: hi"
    assert await refused(server, "/ws", f"Authorization: Bearer {token(exp=1)}") == (403, "WEBSOCKET_INVALID_TOKEN")


async def test_callbacks_are_behind_the_door_too(start):
    def answer(conn, message):
        conn.send_nowait(f"{conn.user_info.id}: {message}")

    serving = plumews.serve(host="127.0.0.1", port=0, on_message=answer, authenticator=AUTH)
    server = await start(serving)
    assert await known_as(server, "/", f"Authorization: Bearer {token()}") == "u1: hi"
    assert await known_as(server, "/?auth=message", message={"token": token()}) == "u1: hi"


# --- authenticators and authorizers of an application's own ---------------------------------------


class Sessions:
    """Knows its tokens by heart; asked at once or as a coroutine."""

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
async def test_an_authenticator_may_be_plain_or_a_coroutine(start, wait, caplog):
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
    """Lets admins in, and who knows the word."""

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
async def test_authorize_room_wins_and_sees_who_asks_for_what(start, wait):
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


async def test_a_bounded_number_waits_for_a_plain_authorizer_and_it_is_not_asked_about_those_who_left(
    start, monkeypatch
):
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
    door = server._site.endpoint("/ws")
    wires = []
    for number in range(4):
        wires.append(await Wire.connect(server))
        wires[-1].send(upgrade(f"/ws?room={number}"))
        await until(lambda number=number: door._asking == number + 1)
    assert await refused(server, "/ws?room=full") == (503, "WEBSOCKET_BUSY")
    await until(lambda: len(rooms) == limits.PASSWORD_HASHES)
    last = next(conn for conn in server._site.connections if conn.request.query["room"] == "3")
    wires[3].reset()
    await last.wait_closed()
    assert await refused(server, "/ws?room=full") == (503, "WEBSOCKET_BUSY")  # it still has its place
    go_on.set()
    for wire in wires[:3]:
        await wire.read_head()
        await wire.__aexit__(None, None, None)
    await until(lambda: door._asking == 0)
    assert sorted(rooms) == ["0", "1", "2"]


class Password:
    """The least that an authorizer can be."""

    async def check_room_password(self, room, password):
        return password == f"for {room}"


async def test_an_authorizer_that_only_checks_passwords_is_asked_about_every_room(start):
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
def test_what_cannot_authenticate_is_an_error_where_it_is_given(wrong, why):
    with pytest.raises(TypeError, match=why):
        plumews.serve_rooms(plumews.Hub(), host="127.0.0.1", port=0, **wrong)


def test_what_cannot_be_served_with_tokens_is_an_error_where_it_is_given():
    with pytest.raises(TypeError, match="verify_jwt"):
        plumews.serve(whoami, "127.0.0.1", 0, authenticator=object())
    with pytest.raises(TypeError, match="need an authenticator"):
        plumews.serve(whoami, "127.0.0.1", 0, token_cookie="login")
    for door in ("rooms", "plain"):
        with pytest.raises(ValueError, match="origins must be listed"):
            serve(door, token_cookie="login", origins=["*"])


# --- authenticators that are odd ------------------------------------------------------------------


class Cancelled:
    async def verify_jwt(self, token):
        raise asyncio.CancelledError


class Stubborn:
    """Does not let itself be cancelled."""

    def __init__(self):
        self.over = asyncio.Event()

    async def verify_jwt(self, token):
        while not self.over.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await self.over.wait()
        return {}


class Echo:
    """Says what it was given, which is not for a close frame."""

    def verify_jwt(self, token):
        raise plumews.InvalidToken(token)


@pytest.mark.parametrize(
    ("authenticator", "code", "reason"),
    [
        (Cancelled, 1011, "authentication failed"),
        (Stubborn, 4408, "authentication took too long"),
        (Echo, 4403, "forbidden: invalid token (invalid jwt: ?x)"),
    ],
)
@pytest.mark.parametrize("door", ["rooms", "plain"])
async def test_whatever_an_authenticator_does_a_first_message_ends_the_connection(
    start, door, authenticator, code, reason
):
    odd = authenticator()
    options = {"host": "127.0.0.1", "port": 0, "open_timeout": 0.3}
    if door == "rooms":
        serving = plumews.serve_rooms(plumews.Hub(), AUTH, token_auth=odd, **options)
    else:
        serving = plumews.serve(whoami, authenticator=odd, **options)
    server = await start(serving)
    async with await Wire.open(server, "/ws?auth=message") as wire:
        wire.send(text(json.dumps({"type": "auth", "token": "\ud800x"})))
        assert await asyncio.wait_for(wire.closing(), 5) == (code, reason)
    getattr(odd, "over", asyncio.Event()).set()


async def test_tokens_of_another_kind_and_our_passwords_go_together_without_a_secret(start):
    class Sessions(plumews.SimpleRoomAuth):
        def verify_jwt(self, token):
            return {"sub": token, "exp": 1001}

    auth = Sessions(clock=lambda: 1000.0, leeway=1)
    assert auth.seconds_left({"exp": 1001}) == 2
    assert auth.seconds_left({}) is None
    server = await start(plumews.serve(whoami, "127.0.0.1", 0, authenticator=auth))
    assert await known_as(server, "/", "Authorization: Bearer ada") == "ada: hi"
