"""Authentication in front of an endpoint, which sees users and neither logins nor new tokens."""

from __future__ import annotations

import asyncio
import contextlib
import json

import pytest

import plumews
from plumews.conn.handlers import HandlerEndpoint
from support.authentication_setup import AUTH, WAYS, known_as, refused, serve, token, whoami
from support.raw_client import Wire, text


async def test_endpoint_with_authenticator_requires_a_token_by_default(start):
    server = await start(serve("plain"))
    assert await refused(server) == (401, "WEBSOCKET_TOKEN_REQUIRED")
    async with await Wire.open(server, "/ws?auth=message") as wire:
        wire.send(text('{"type": "auth"}'))
        assert await wire.closing() == (4401, "websocket token required")
    server = await start(serve("plain", require_token=False))
    assert await known_as(server) == "-: hi"


async def test_callbacks_see_authenticated_connections(start):
    def answer(conn, message):
        conn.send_nowait(f"{conn.user_info.id}: {message}")

    serving = plumews.serve(host="127.0.0.1", port=0, on_message=answer, authenticator=AUTH)
    server = await start(serving)
    assert await known_as(server, "/", f"Authorization: Bearer {token()}") == "u1: hi"
    assert await known_as(server, "/?auth=message", message={"token": token()}) == "u1: hi"


async def test_first_message_without_token_leaves_that_of_the_request(start):
    server = await start(serve("plain"))
    lines = WAYS["header"][1]
    assert await known_as(server, "/ws?auth=message", *lines, message={}) == "u1: hi"
    async with await Wire.open(server, "/ws?auth=message", *lines) as wire:
        wire.send(text(json.dumps({"type": "auth", "token": token(n=2)})))
        assert await wire.closing() == (4403, "two different tokens")


def test_invalid_authentication_options_raise():
    with pytest.raises(TypeError, match="verify_jwt"):
        plumews.serve(whoami, "127.0.0.1", 0, authenticator=object())
    with pytest.raises(TypeError, match="need an authenticator"):
        plumews.serve(whoami, "127.0.0.1", 0, token_cookie="login")
    for kind in ("rooms", "plain"):
        with pytest.raises(ValueError, match="origins must be listed"):
            serve(kind, token_cookie="login", origins=["*"])


# --- misbehaving authenticators -------------------------------------------------------------------


class Cancelled:
    async def verify_jwt(self, token):
        raise asyncio.CancelledError


class Stubborn:
    """Authenticator that ignores its cancellation."""

    def __init__(self):
        self.over = asyncio.Event()

    async def verify_jwt(self, token):
        while not self.over.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await self.over.wait()
        return {}


class Echo:
    """Authenticator that puts the token, with a lone surrogate, into its error."""

    def verify_jwt(self, token):
        raise plumews.InvalidToken("\ud800" + token)


@pytest.mark.parametrize(
    ("authenticator", "code", "reason"),
    [
        (Cancelled, 1011, "authentication failed"),
        (Stubborn, 4408, "authentication took too long"),
        (Echo, 4403, "forbidden: invalid token (invalid jwt: ?x)"),
    ],
)
@pytest.mark.parametrize("kind", ["rooms", "plain"])
async def test_misbehaving_authenticator_ends_a_login_by_message(start, kind, authenticator, code, reason):
    odd = authenticator()
    options = {"host": "127.0.0.1", "port": 0, "open_timeout": 0.3}
    if kind == "rooms":
        serving = plumews.serve_rooms(plumews.Hub(), AUTH, token_auth=odd, **options)
    else:
        serving = plumews.serve(whoami, authenticator=odd, **options)
    server = await start(serving)
    async with await Wire.open(server, "/ws?auth=message") as wire:
        wire.send(text(json.dumps({"type": "auth", "token": "x"})))
        assert await asyncio.wait_for(wire.closing(), 5) == (code, reason)
    getattr(odd, "over", asyncio.Event()).set()


async def test_subclass_may_verify_tokens_of_another_kind(start):
    class Sessions(plumews.SimpleRoomAuth):
        def verify_jwt(self, token):
            return {"sub": token, "exp": 1001}

    auth = Sessions(clock=lambda: 1000.0, leeway=1)
    assert auth.seconds_left({"exp": 1001}) == 2
    assert auth.seconds_left({}) is None
    server = await start(plumews.serve(whoami, "127.0.0.1", 0, authenticator=auth))
    assert await known_as(server, "/", "Authorization: Bearer ada") == "ada: hi"


async def test_handler_sees_neither_login_nor_new_token(start):
    heard = []

    async def handler(conn):
        async for message in conn:
            heard.append((conn.user_info.id, message))
            await conn.send("heard")

    server = await start(plumews.serve(handler, "127.0.0.1", 0, authenticator=AUTH))
    login = text(json.dumps({"type": "auth", "token": token()}))
    async with await Wire.open(server, "/?auth=message") as wire:
        wire.send(login, text("a"))
        assert await wire.message() == "heard"
        wire.send(login, text("b"))
        said = [await wire.message() for _ in range(2)]
    assert heard == [("u1", "a"), ("u1", "b")]
    assert [message for message in said if message != "heard"] == ['{"type": "auth", "ok": true, "exp": null}']


async def test_new_token_after_login_without_one_is_4403(start):
    heard = []

    async def handler(conn):
        async for message in conn:
            heard.append(message)
            await conn.send("heard")

    server = await start(plumews.serve(handler, "127.0.0.1", 0, authenticator=AUTH, require_token=False))
    async with await Wire.open(server, "/?auth=message") as wire:
        wire.send(text('{"type": "auth"}'), text("a"))
        assert await wire.message() == "heard"
        wire.send(text(json.dumps({"type": "auth", "token": token()})))
        assert await wire.closing() == (4403, "there is no token here that a new one could follow")
    assert heard == ["a"]


async def test_server_without_authenticator_has_the_plain_endpoint(start):
    server = await start(plumews.serve(whoami, "127.0.0.1", 0, require_token=False))
    assert isinstance(server._context.endpoint("/"), HandlerEndpoint)
    assert await known_as(server) == "-: hi"


def test_require_token_without_authenticator_raises():
    for function in (plumews.serve, plumews.unix_serve):
        with pytest.raises(TypeError, match="require_token=True needs an authenticator, such as"):
            function(whoami, "ws.sock" if function is plumews.unix_serve else "127.0.0.1", require_token=True)


@pytest.mark.parametrize("require", [True, False])
async def test_require_token_without_a_place_for_it_logs_a_warning(start, caplog, require):
    auth = plumews.SimpleRoomAuth("k" * 32)
    options = {"authenticator": auth, "token_sources": [], "require_token": require}
    await start(plumews.serve(whoami, "127.0.0.1", 0, **options))
    told = [record.getMessage() for record in caplog.records]
    assert [line.startswith("nobody can come in: require_token=True, and no place") for line in told] == [
        True
    ] * require
