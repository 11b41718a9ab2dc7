"""Who a client is, live: each source, authenticators of an application's own, in rooms and in front of any endpoint."""

from __future__ import annotations

import asyncio
import threading

import pytest

import plumews
from plumews import limits
from support.authentication_setup import AUTH, ORIGIN, WAYS, known_as, refused, serve, token, whoami
from support.fakes import until
from support.raw_client import Wire, text, upgrade


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


@pytest.mark.parametrize("door", ["rooms", "plain"])
async def test_section_8_point_25_where_none_is_required_a_valid_token_is_its_user_and_a_bad_one_is_refused(
    start, door
):
    server = await start(serve(door, require_token=False))
    assert await known_as(server) == "-: hi"
    assert await known_as(server, "/ws", f"Authorization: Bearer {token()}") == "u1: hi"
    assert await refused(server, "/ws", f"Authorization: Bearer {token(exp=1)}") == (403, "WEBSOCKET_INVALID_TOKEN")


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


def unstarted(door, auth):
    """A server of ``auth`` that wants tokens."""
    if door == "rooms":
        return plumews.serve_rooms(plumews.Hub(), auth, "127.0.0.1", 0, require_token=True)
    return plumews.serve(whoami, "127.0.0.1", 0, authenticator=auth)


@pytest.mark.parametrize("door", ["rooms", "plain"])
def test_a_token_cannot_be_required_by_an_auth_that_knows_no_secret(door):
    with pytest.raises(ValueError, match="require_token=True needs an auth that verifies tokens"):
        unstarted(door, plumews.SimpleRoomAuth())


@pytest.mark.parametrize("door", ["rooms", "plain"])
def test_the_class_of_an_authenticator_is_none(door):
    with pytest.raises(TypeError, match=r"must be a plumews\.SimpleRoomAuth\(\.\.\.\)"):
        unstarted(door, plumews.SimpleRoomAuth)
