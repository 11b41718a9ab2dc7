"""`RoomAccess` as a dependency of FastAPI: tokens and room passwords of programs and of browsers, on each server."""

from __future__ import annotations

import contextlib
import json
import logging
import time
from typing import Any

import jwt
import pytest
from fastapi import Depends, FastAPI, WebSocket
from fastapi.testclient import TestClient
from starlette.testclient import WebSocketDenialResponse
from starlette.websockets import WebSocketDisconnect
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

import plumews
from plumews.asgi import RoomAccess, conn, rooms
from support.asgi_servers import SERVERS, serving, url
from support.fakes import ticks, until

SECRET = "0123456789abcdef0123456789abcdef"
ORIGIN = {"Origin": "http://page.example"}


@pytest.fixture(params=SERVERS)
def server(request: pytest.FixtureRequest) -> str:
    kind: str = request.param
    return kind


def token(user: str = "42", **claims: Any) -> str:
    return jwt.encode({"sub": user, "name": "Ada", **claims}, SECRET, algorithm="HS256")


def bearer(text: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {text}"}


def chat(hub: plumews.Hub, access: RoomAccess) -> FastAPI:
    app, admitted = FastAPI(), Depends(access)

    @app.websocket("/rooms/{room}")
    async def enter(websocket: WebSocket, room: str, user: Any = admitted) -> None:
        await websocket.accept(subprotocol="chat" if "chat" in websocket.scope["subprotocols"] else None)
        hub.join(room, conn(websocket))
        await websocket.send_text("nobody" if user is None else user.id)
        with contextlib.suppress(WebSocketDisconnect):
            while True:
                hub.broadcast_room(room, await websocket.receive_text())

    return app


@pytest.fixture
def auth() -> plumews.SimpleRoomAuth:
    auth = plumews.SimpleRoomAuth(SECRET, rounds=1)
    auth.set_room_password("secret", "open sesame")
    return auth


@contextlib.asynccontextmanager
async def running(server: str, auth: plumews.SimpleRoomAuth, **options: Any):
    hub = plumews.Hub(plumews.HubConfig(max_room_connections=1))
    async with serving(server, chat(hub, RoomAccess(hub, auth, **options))) as port:
        yield hub, lambda path, **more: connect(url(port, path), proxy=None, **more)


# --- clients that may enter -----------------------------------------------------------------------


async def test_a_token_gives_the_endpoint_and_the_hub_its_user(server, auth):
    async with (
        running(server, auth, require_token=True) as (hub, client),
        client("/rooms/chat", additional_headers=bearer(token())) as websocket,
    ):
        assert await websocket.recv() == "42"
        assert [user.user.name for user in hub.presence("chat").users] == ["Ada"]


async def test_a_browser_gives_its_token_as_a_subprotocol(server, auth):
    offered = ["chat", f"bearer.{token()}"]
    async with (
        running(server, auth, require_token=True) as (_, client),
        client("/rooms/chat", subprotocols=offered, additional_headers=ORIGIN) as websocket,
    ):
        assert websocket.subprotocol == "chat"
        assert await websocket.recv() == "42"


async def test_a_room_password_opens_its_room(server, auth):
    async with running(server, auth) as (_, client):
        headers = {"X-WebSocket-Room-Password": "open sesame"}
        async with client("/rooms/secret", additional_headers=headers) as websocket:
            assert await websocket.recv() == "nobody"


@pytest.mark.parametrize("kind", ["plumews", "uvicorn"])
async def test_checks_see_the_client_of_a_trusted_proxy(kind):
    seen = []

    class Authorizer:
        async def authorize_room(self, asked: plumews.RoomAuthorization) -> bool:
            seen.append((asked.room, asked.request.client_address, asked.request.secure))
            return True

    hub, auth = plumews.Hub(), plumews.SimpleRoomAuth(SECRET)
    app = chat(hub, RoomAccess(hub, token_auth=auth, room_auth=Authorizer()))
    app.mount("/mounted", rooms(plumews.Hub(), None, token_auth=auth, room_auth=Authorizer()))
    forwarded = {"X-Forwarded-Proto": "https", "X-Forwarded-For": "203.0.113.9"}
    async with serving(kind, app, forwarded_allow_ips="127.0.0.1") as port:
        for path in ("/rooms/blue", "/mounted/ws?room=blue"):
            async with connect(url(port, path), additional_headers=forwarded, proxy=None):
                pass
    assert seen == [("blue", "203.0.113.9", True)] * 2


async def test_a_converted_path_parameter_is_the_room(server, auth):
    app, hub = FastAPI(), plumews.Hub()
    auth.set_room_password("0", "open sesame")
    admitted = Depends(RoomAccess(hub, auth))

    @app.websocket("/rooms/{room:int}")
    async def enter(websocket: WebSocket, room: int, user: Any = admitted) -> None:
        await websocket.accept()

    async with serving(server, app) as port:
        with pytest.raises(InvalidStatus) as refused:
            await connect(url(port, "/rooms/0"), proxy=None)
        assert refused.value.response.status_code == 403
        async with connect(url(port, "/rooms/1"), proxy=None):
            pass


async def test_a_connection_ends_with_its_token(server, auth):
    async with running(server, auth) as (hub, client):
        async with client("/rooms/chat", additional_headers=bearer(token(jti="one"))) as websocket:
            await websocket.recv()
            auth.revoke_token("one")
            with pytest.raises(ConnectionClosed):
                await websocket.recv()
            assert (websocket.close_code, websocket.close_reason) == (4401, "token revoked")
        await until(lambda: not hub.rooms())


@pytest.mark.parametrize("waits", [True, False])
async def test_a_token_that_ends_before_accept_closes_at_once(server, auth, waits):
    hub = plumews.Hub()
    app, admitted = FastAPI(), Depends(RoomAccess(hub, auth))

    @app.websocket("/")
    async def late(websocket: WebSocket, user: Any = admitted) -> None:
        auth.revoke_token("one")
        await ticks()
        await websocket.accept()
        if waits:
            await websocket.receive()

    async with (
        serving(server, app) as port,
        connect(url(port), proxy=None, additional_headers=bearer(token(jti="one"))) as websocket,
    ):
        with pytest.raises(ConnectionClosed):
            await websocket.recv()
        assert websocket.close_code == 4401


async def test_a_client_renews_its_token(server, auth):
    async with (
        running(server, auth) as (_, client),
        client("/rooms/chat", additional_headers=bearer(token())) as websocket,
    ):
        await websocket.recv()
        later = int(time.time()) + 1000
        await websocket.send(json.dumps({"type": "auth", "token": token(exp=later)}))
        assert json.loads(await websocket.recv()) == {"type": "auth", "ok": True, "exp": later}
        await websocket.send("the room sees only this")
        assert await websocket.recv() == "the room sees only this"


# --- clients that may not -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "headers", "status", "code", "close"),
    [
        ("/rooms/chat", {}, 401, "WEBSOCKET_TOKEN_REQUIRED", 4401),
        ("/rooms/chat", bearer("wrong"), 403, "WEBSOCKET_INVALID_TOKEN", 4403),
        ("/rooms/secret", bearer(token()), 403, "WEBSOCKET_ROOM_FORBIDDEN", 4403),
        ("/rooms/a%0Ab", bearer(token()), 400, "WEBSOCKET_INVALID_ROOM", 4403),
    ],
)
async def test_refusals_are_a_status_or_a_close_code(server, auth, path, headers, status, code, close):
    async with running(server, auth, require_token=True) as (hub, client):
        with pytest.raises(InvalidStatus) as refused:
            async with client(path, additional_headers=headers):
                pass
        assert refused.value.response.status_code == status
        assert code in json.loads(refused.value.response.body)["detail"]
        async with client(path, additional_headers={**headers, **ORIGIN}) as websocket:
            with pytest.raises(ConnectionClosed):
                await websocket.recv()
        assert websocket.close_code == close
        assert hub.metrics().requests_refused[code] == 2


async def test_a_full_room_is_429_or_1013(server, auth):
    async with running(server, auth) as (_, client), client("/rooms/chat") as first:
        await first.recv()
        with pytest.raises(InvalidStatus) as refused:
            async with client("/rooms/chat"):
                pass
        assert refused.value.response.status_code == 429
        assert "Retry-After" in refused.value.response.headers
        async with client("/rooms/chat", additional_headers=ORIGIN) as websocket:
            with pytest.raises(ConnectionClosed):
                await websocket.recv()
        assert websocket.close_code == 1013


async def test_origins_are_checked_if_they_are_given(server, auth):
    async with running(server, auth, origins=["https://example.com"]) as (_, client):
        async with client("/rooms/chat", additional_headers=ORIGIN) as websocket:
            with pytest.raises(ConnectionClosed):
                await websocket.recv()
        assert (websocket.close_code, websocket.close_reason) == (4403, "forbidden origin")
        async with client("/rooms/chat", additional_headers={"Origin": "https://example.com"}) as websocket:
            assert await websocket.recv() == "nobody"


async def test_a_cookie_counts_for_the_servers_own_pages_only(server, auth):
    async with running(server, auth, token_cookie="token", require_token=True) as (_, client):
        cookie = {"Cookie": f"token={token()}"}
        async with client("/rooms/chat", additional_headers={**cookie, **ORIGIN}) as websocket:
            with pytest.raises(ConnectionClosed):
                await websocket.recv()
        assert websocket.close_code == 4403


async def test_a_first_message_is_no_place_for_secrets(server, auth):
    async with running(server, auth) as (_, client):
        with pytest.raises(InvalidStatus) as refused:
            async with client("/rooms/chat?auth=message"):
                pass
        assert "WEBSOCKET_TOKEN_SOURCE" in json.loads(refused.value.response.body)["detail"]
    with pytest.raises(ValueError, match="reads no message"):
        RoomAccess(plumews.Hub(), auth, token_sources=["message"])


# --- behind accept() ------------------------------------------------------------------------------


def late(hub: plumews.Hub, access: RoomAccess) -> FastAPI:
    app = FastAPI()

    @app.websocket("/rooms/{room}")
    async def enter(websocket: WebSocket, room: str) -> None:
        await websocket.accept()
        user = await access(websocket)
        hub.join(room, conn(websocket))
        await websocket.send_text("nobody" if user is None else user.id)
        with contextlib.suppress(WebSocketDisconnect):
            await websocket.receive_text()

    return app


@pytest.mark.parametrize("headers", [{}, ORIGIN])
async def test_a_refusal_after_accept_is_a_close_code(server, auth, headers, caplog):
    hub = plumews.Hub()
    async with serving(server, late(hub, RoomAccess(hub, auth, require_token=True))) as port:
        async with connect(url(port, "/rooms/chat"), additional_headers=headers, proxy=None) as websocket:
            with pytest.raises(ConnectionClosed):
                await websocket.recv()
        assert websocket.close_code == 4401
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


async def test_a_token_that_is_checked_after_accept_counts(server, auth):
    hub = plumews.Hub()
    async with serving(server, late(hub, RoomAccess(hub, auth, require_token=True))) as port:
        headers = bearer(token(jti="one"))
        async with connect(url(port, "/rooms/chat"), additional_headers=headers, proxy=None) as websocket:
            assert await websocket.recv() == "42"
            assert [user.user.name for user in hub.presence("chat").users] == ["Ada"]
            auth.revoke_token("one")
            with pytest.raises(ConnectionClosed):
                await websocket.recv()
            assert (websocket.close_code, websocket.close_reason) == (4401, "token revoked")


# --- the test client ------------------------------------------------------------------------------


def test_the_test_client_sees_both_ways_to_refuse(auth):
    hub = plumews.Hub()
    with TestClient(chat(hub, RoomAccess(hub, auth, require_token=True))) as tests:
        with pytest.raises(WebSocketDenialResponse) as denied, tests.websocket_connect("/rooms/chat"):
            pass
        assert denied.value.status_code == 401
        with tests.websocket_connect("/rooms/chat", headers=ORIGIN) as websocket:
            with pytest.raises(WebSocketDisconnect) as closed:
                websocket.receive_text()
            assert closed.value.code == 4401
        with tests.websocket_connect("/rooms/chat", headers=bearer(token())) as websocket:
            assert websocket.receive_text() == "42"
            assert [user.id for user in hub.presence("chat").users] == ["42"]
