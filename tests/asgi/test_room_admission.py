"""Decisions that take time: a limit ends them, and so does the client that leaves."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import pytest
from fastapi import Depends, FastAPI, WebSocket
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

import plumews
from plumews.asgi import RoomAccess, rooms
from support.asgi_servers import SERVERS, serving, url
from support.fakes import until
from support.raw_client import Wire, upgrade
from support.uvicorn_setup import App, running

AUTH = plumews.SimpleRoomAuth("0123456789abcdef0123456789abcdef", rounds=1)


class Waiting:
    """Authorizer that never answers. It notes that it is asked, and that it is cancelled."""

    def __init__(self) -> None:
        self.asked, self.over = asyncio.Event(), asyncio.Event()

    async def authorize_room(self, asked: plumews.RoomAuthorization) -> bool:
        self.asked.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.over.set()
        raise AssertionError


def mounted(hub: plumews.Hub, waiting: Waiting, **options: Any) -> App:
    return rooms(hub, None, token_auth=AUTH, room_auth=waiting, path="/", **options)


def depending(hub: plumews.Hub, waiting: Waiting, **options: Any) -> App:
    app, admitted = FastAPI(), Depends(RoomAccess(hub, token_auth=AUTH, room_auth=waiting, **options))

    @app.websocket("/")
    async def enter(websocket: WebSocket, user: Any = admitted) -> None:
        raise AssertionError

    return app


@pytest.fixture(params=[mounted, depending])
def make(request: pytest.FixtureRequest) -> Callable[..., App]:
    made: Callable[..., App] = request.param
    return made


@pytest.mark.parametrize("server", SERVERS)
async def test_a_decision_has_a_limited_time(make, server):
    waiting, hub = Waiting(), plumews.Hub()
    async with serving(server, make(hub, waiting, open_timeout=0.05)) as port:
        with pytest.raises(InvalidStatus) as refused:
            await connect(url(port), proxy=None)
        assert refused.value.response.status_code == 408
    assert waiting.over.is_set()
    assert hub.metrics().requests_refused == {"WEBSOCKET_HANDSHAKE_TIMEOUT": 1}


async def test_a_browser_sees_that_time_as_a_close_code():
    async with serving("plumews", depending(plumews.Hub(), Waiting(), open_timeout=0.05)) as port:
        async with connect(url(port), origin="http://page.example", proxy=None) as websocket:
            with pytest.raises(ConnectionClosed):
                await websocket.recv()
        assert websocket.close_code == 4408


def test_the_time_is_checked():
    with pytest.raises(ValueError, match="open_timeout"):
        RoomAccess(plumews.Hub(), AUTH, open_timeout=0)


async def test_a_client_that_leaves_is_not_refused(make, caplog):
    waiting, hub = Waiting(), plumews.Hub()
    caplog.set_level(logging.INFO)
    async with running(make(hub, waiting)) as server:
        wire = await Wire.connect(server)
        wire.writer.write(upgrade("/"))
        await waiting.asked.wait()
        wire.writer.transport.abort()
        await waiting.over.wait()
        await until(lambda: not server.state.tasks)
    assert [line for line in caplog.messages if "refused" in line or "WebSocket" in line or "rror" in line] == []
    assert hub.metrics().requests_refused == {}
