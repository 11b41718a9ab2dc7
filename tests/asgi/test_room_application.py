"""`rooms()` on each server: at the root, mounted, behind proxies; its page, its routes, and its ends."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import re
from typing import Any
from urllib.parse import urljoin

import httpx2
import jwt
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.testclient import WebSocketDenialResponse
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

import plumews
from plumews.asgi import rooms
from support.asgi_servers import SERVERS, serving, url
from support.fakes import until
from support.raw_client import Wire, text
from support.uvicorn_setup import errors, running

SECRET = "0123456789abcdef0123456789abcdef"
AUTH = plumews.SimpleRoomAuth(SECRET, rounds=1)
AUTH.set_room_password("secret", "open sesame")


@pytest.fixture(params=SERVERS)
def server(request: pytest.FixtureRequest) -> str:
    kind: str = request.param
    return kind


def client(port: int, path: str, **options: Any) -> Any:
    return connect(url(port, path), proxy=None, **options)


def http(port: int) -> httpx2.AsyncClient:
    return httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False)


async def end_of(websocket: Any) -> tuple[int, str]:
    with pytest.raises(ConnectionClosed):
        await websocket.recv()
    return websocket.close_code, websocket.close_reason


def behind_a_prefix(app: Any) -> Any:
    """Strip ``/api``, as a proxy does: the server sees other paths than the client."""

    async def strip(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] in ("http", "websocket"):
            path = scope["path"].removeprefix("/api")
            scope = {**scope, "path": path, "raw_path": path.encode()}
        await app(scope, receive, send)

    return strip


def two_mounts(app: Any) -> Starlette:
    return Starlette(routes=[Mount("/outer", Starlette(routes=[Mount("/inner", app)]))])


def in_fastapi(app: Any) -> FastAPI:
    api = FastAPI()
    api.mount("/chat", app)
    return api


PLACES = [
    pytest.param(lambda app: app, "/", {}, id="root"),
    pytest.param(two_mounts, "/outer/inner/", {}, id="two-mounts"),
    pytest.param(behind_a_prefix, "/api/", {}, id="stripped"),
    pytest.param(lambda app: app, "/", {"root_path": "/api"}, id="root-path"),
    pytest.param(in_fastapi, "/chat/", {"root_path": "/api"}, id="mount-under-root-path"),
]


@pytest.mark.parametrize(("place", "base", "options"), PLACES)
async def test_page_and_rooms_work_at_each_place(server, place, base, options):
    hub = plumews.Hub()
    app = place(rooms(hub, AUTH, page=True, rooms_table="everybody"))
    async with serving(server, app, **options) as port, http(port) as web:
        page = await web.get(base)
        assert page.status_code == 200
        links = re.findall(r'(?:src|href)="([^"#]+)"', page.text)
        assert len(links) >= 4
        for link in (*links, "rooms.json", "healthz"):
            assert not re.match(r"/|[a-z]+:", link)
            assert (await web.get(urljoin(base, link))).status_code == 200
        async with client(port, f"{base}ws?room=chat&auth=message") as websocket:
            await websocket.send(json.dumps({"type": "auth"}))
            assert json.loads(await websocket.recv()) == {"type": "joined", "room": "chat"}
            async with client(port, f"{base}members?room=chat") as members:
                assert json.loads(await members.recv())["members"] == 1
            await websocket.send("hello")
            assert await websocket.recv() == "hello"
        await until(lambda: not hub.rooms())


async def test_the_scripts_of_the_page_have_relative_addresses(server):
    async with serving(server, rooms(plumews.Hub(), AUTH, page=True)) as port, http(port) as web:
        for script in ("/page.js", "/rooms.js"):
            source = (await web.get(script)).text
            assert not re.search(r"""(?:fetch|dial|address|URL)\(["'`](?:/|https?:|wss?:)""", source)


async def test_a_mount_without_its_slash_leads_to_the_page():
    app = rooms(plumews.Hub(), AUTH, page=True)
    sent = []

    async def send(event):
        sent.append(event)

    scope = {"type": "http", "method": "GET", "path": "/a/b", "root_path": "/a/b", "headers": [], "query_string": b""}
    await app(scope, lambda: None, send)
    assert sent[0]["status"] == 308
    assert dict(sent[0]["headers"])[b"location"] == b"./b/"


# --- authentication -------------------------------------------------------------------------------


async def test_programs_get_a_status(server):
    async with serving(server, rooms(plumews.Hub(), AUTH)) as port:
        with pytest.raises(InvalidStatus) as refused:
            async with client(port, "/ws?room=secret"):
                pass
        assert refused.value.response.status_code == 403
        error = json.loads(refused.value.response.body)["error"]
        assert error["code"] == "WEBSOCKET_ROOM_FORBIDDEN"
        headers = {"X-WebSocket-Room-Password": "open sesame"}
        async with client(port, "/ws?room=secret", additional_headers=headers) as websocket:
            await websocket.send("in")
            assert await websocket.recv() == "in"


async def test_pages_log_in_by_their_first_message(server):
    async with serving(server, rooms(plumews.Hub(), AUTH)) as port:
        async with client(port, "/ws?room=secret&auth=message") as websocket:
            await websocket.send(json.dumps({"type": "auth", "password": "wrong"}))
            assert (await end_of(websocket))[0] == 4403
        token = jwt.encode({"sub": "42"}, SECRET, algorithm="HS256")
        async with client(port, "/ws", subprotocols=["plumews", f"bearer.{token}"]) as websocket:
            assert websocket.subprotocol == "plumews"


async def test_pages_of_other_origins_are_refused(server):
    async with serving(server, rooms(plumews.Hub(), AUTH, origins=["https://friend.example"])) as port:
        with pytest.raises(InvalidStatus) as refused:
            async with client(port, "/ws", origin="https://evil.example"):
                pass
        assert refused.value.response.status_code == 403
        async with (
            client(port, "/ws", origin="https://friend.example"),
            client(port, "/ws", origin=f"http://127.0.0.1:{port}"),
        ):
            pass


async def test_a_revoked_token_ends_its_connection(server):
    auth = plumews.SimpleRoomAuth(SECRET)
    token = jwt.encode({"sub": "42", "jti": "one"}, SECRET, algorithm="HS256")
    hub = plumews.Hub()
    headers = {"Authorization": f"Bearer {token}"}
    async with (
        serving(server, rooms(hub, auth, require_token=True)) as port,
        client(port, "/ws", additional_headers=headers) as websocket,
    ):
        await until(lambda: hub.presence("default").users)
        auth.revoke_token("one")
        assert await end_of(websocket) == (4401, "token revoked")


# --- wrong requests -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/ws", 426),
        ("POST", "/ws", 405),
        ("GET", "/ws?room=a%0Ab", 400),
        ("GET", "/nowhere", 404),
        ("OPTIONS", "/nowhere", 404),
        ("OPTIONS", "/ws", 200),
        ("HEAD", "/healthz", 200),
        ("DELETE", "/healthz", 405),
    ],
)
async def test_wrong_http_requests_get_a_status(server, caplog, method, path, status):
    async with serving(server, rooms(plumews.Hub(), AUTH)) as port, http(port) as web:
        response = await web.request(method, path)
        assert response.status_code == status
    assert errors(caplog) == []


@pytest.mark.parametrize("path", ["/nowhere", "/healthz"])
async def test_a_websocket_elsewhere_is_404(server, caplog, path):
    async with serving(server, rooms(plumews.Hub(), AUTH)) as port:
        with pytest.raises(InvalidStatus) as refused:
            async with client(port, path):
                pass
    assert refused.value.response.status_code == 404
    assert errors(caplog) == []


async def test_other_scopes_are_passed_over():
    await rooms(plumews.Hub(), AUTH)({"type": "mqtt"}, None, None)


async def test_a_client_that_leaves_while_it_is_judged_is_no_error(server, caplog):
    asked, answer = asyncio.Event(), asyncio.Event()

    class Slow:
        async def verify_jwt(self, token: str) -> dict[str, Any]:
            asked.set()
            await answer.wait()
            return {"sub": "42"}

        def check_room_password(self, room: str, password: str | None) -> bool:
            return True

    hub = plumews.Hub()
    async with serving(server, rooms(hub, Slow())) as port:
        headers = {"Authorization": "Bearer x"}
        leaving = asyncio.ensure_future(client(port, "/ws", additional_headers=headers).__aenter__())
        await asked.wait()
        leaving.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await leaving
        answer.set()
        async with client(port, "/ws") as websocket:
            await websocket.send("goes on")
            assert await websocket.recv() == "goes on"
    await until(lambda: not hub.rooms())
    assert errors(caplog) == []


# --- options --------------------------------------------------------------------------------------


async def test_a_handler_runs_and_its_end_closes(server):
    async def handler(conn):
        await conn.send(conn.metadata["room"])
        assert await conn.recv() == "end"

    async with (
        serving(server, rooms(plumews.Hub(), AUTH, handler=handler)) as port,
        client(port, "/ws?room=chat") as websocket,
    ):
        assert await websocket.recv() == "chat"
        await websocket.send("end")
        assert await end_of(websocket) == (1000, "")


async def test_a_handler_that_fails_closes_with_1011(server, caplog):
    async def handler(conn):
        raise ValueError("a mistake")

    async with serving(server, rooms(plumews.Hub(), AUTH, handler=handler)) as port, client(port, "/ws") as websocket:
        assert await end_of(websocket) == (1011, "the handler failed")
    assert len(errors(caplog)) == 1


async def test_a_text_policy_sees_the_first_frames(run):
    policy = plumews.TextPolicy(max_length=4)
    server = await run(rooms(plumews.Hub(), AUTH, text_policy=policy))
    async with await Wire.open(server, "/ws") as wire:
        wire.send(text("fits"), text("is too long"))
        assert await wire.message() == "fits"
        assert (await wire.closing())[0] == 1009


async def test_missed_messages_are_recovered(server):
    hub = plumews.Hub(plumews.HubConfig(history=plumews.HistoryLimits()))
    async with serving(server, rooms(hub, AUTH, recovery=True)) as port:
        async with client(port, "/ws") as websocket:
            await websocket.send("before")
            await websocket.recv()
        async with client(port, "/ws?since=start") as websocket:
            assert json.loads(await websocket.recv())["missed"] == 1
            assert await websocket.recv() == "before"


async def test_the_broadcast_route_takes_a_body(server):
    hub = plumews.Hub()
    secret = "s" * 32
    app = two_mounts(rooms(hub, AUTH, broadcast_secret=secret))
    headers = {"Authorization": f"Bearer {secret}"}
    path = "/outer/inner/_admin/broadcast?room=chat"
    async with serving(server, app) as port, http(port) as web, client(port, "/outer/inner/ws?room=chat") as websocket:
        await until(lambda: hub.room_count("chat") == 1)
        assert (await web.post(path, headers=headers, content=b"to all")).status_code == 204
        assert await websocket.recv() == "to all"
        assert (await web.post(path, content=b"to all")).status_code == 401
        too_large = await web.post(path, headers=headers, content=bytes(2_000_000))
        assert too_large.status_code == 413

        async def chunks():
            yield b"chunk"

        assert (await web.post(path, headers=headers, content=chunks())).status_code == 411


def test_options_of_the_server_are_refused():
    with pytest.raises(TypeError, match=r"unknown option ssl: PlumeProtocol\.with_options"):
        rooms(plumews.Hub(), AUTH, ssl=None)
    with pytest.raises(TypeError, match=r"unknown option pages \(do you mean page\?\)"):
        rooms(plumews.Hub(), AUTH, pages=True)
    with pytest.raises(TypeError, match="hub must be"):
        rooms("hub", AUTH)


# --- ends -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("mounted", [False, True])
async def test_members_leave_when_the_server_stops(server, caplog, mounted):
    hub = plumews.Hub()
    app = rooms(hub, AUTH)
    async with serving(server, two_mounts(app) if mounted else app) as port:
        websocket = await client(port, "/outer/inner/ws" if mounted else "/ws")
        await until(lambda: hub.room_count("default") == 1)
    await until(lambda: not hub.rooms())
    code, _ = await end_of(websocket)
    if server != "hypercorn":  # it cancels its applications, and ends their connections in one way or another
        assert code == 1012
        assert errors(caplog) == []


async def test_a_handler_ends_when_the_server_stops(server, caplog):
    started, ended = [], []

    async def handler(conn):
        started.append(True)
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(True)

    options = {} if server == "hypercorn" else {"timeout_graceful_shutdown": 1}
    async with serving(server, rooms(plumews.Hub(), AUTH, handler=handler), **options) as port:
        websocket = await client(port, "/ws")
        await until(lambda: started)
    await until(lambda: ended)
    await websocket.close()
    if server == "plumews":  # other classes log an application that is cancelled
        assert [line for line in errors(caplog) if "graceful" not in line] == []


async def test_the_application_of_a_server_stops_its_hub():
    hub = plumews.Hub()
    async with running(rooms(hub, AUTH), lifespan="on") as server, client(server.port, "/ws"):
        await until(hub.rooms)
    with pytest.raises(plumews.HubStopped):
        hub.can_join("chat")


# --- the test client ------------------------------------------------------------------------------


def test_the_test_client_enters_mounted_rooms(caplog):
    caplog.set_level(logging.INFO)
    hub = plumews.Hub()
    with TestClient(two_mounts(rooms(hub, AUTH, page=True))) as tests:
        assert tests.get("/outer/inner/").status_code == 200
        assert tests.get("/outer/inner/ws").status_code == 426
        with tests.websocket_connect("/outer/inner/ws?room=chat") as websocket:
            websocket.send_text("hello")
            assert websocket.receive_text() == "hello"
            assert hub.room_count("chat") == 1
        with pytest.raises(WebSocketDenialResponse) as denied, tests.websocket_connect("/outer/inner/ws?room=secret"):
            pass
        assert denied.value.status_code == 403
    assert errors(caplog) == []
