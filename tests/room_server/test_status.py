"""Status of a room server: the list of rooms, its audience and its age, and the health check."""

from __future__ import annotations

import json
from typing import Any

import pytest

import plumews
from plumews import Hub
from plumews.http11.models import Request
from plumews.room_server import status as status_module
from plumews.room_server.status import _LIST_INTERVAL, _LIST_SIZE, room_list_route
from support.fakes import fake_conn, ticks, until
from support.raw_client import Wire


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make a new list for each request."""
    monkeypatch.setattr(status_module, "_LIST_INTERVAL", 0.0)


def request(*headers: tuple[str, str], address: str = "127.0.0.1") -> Request:
    asked = Request("GET", "/rooms.json", [("Host", "localhost"), *headers])
    asked.remote_address = (address, 5)
    return asked


def member(hub: Hub, *rooms: str) -> Any:
    conn, transport = fake_conn(ping_interval=None)
    for room in rooms:
        hub.join(room, conn)
    return conn, transport


def told(route: Any, asked: Request | None = None) -> dict[str, Any]:
    response = route(asked or request())
    assert (response.status, response.headers["Cache-Control"]) == (200, "no-store")
    answer: dict[str, Any] = json.loads(response.body)
    return answer


async def test_list_has_each_room_with_members_and_queues(fresh):
    hub = Hub()
    route = room_list_route(hub, "everybody")
    assert told(route) == {"connections": 0, "rooms_total": 0, "rooms": []}
    conn, transport = member(hub, "räume", "<b>")
    member(hub, "<b>")
    transport.fill()
    hub.broadcast_room("<b>", "hello")
    await ticks()
    await until(lambda: conn.queued_age >= 0.1)
    answer = told(route)
    ages = [room.pop("oldest_queued_age") for room in answer["rooms"]]
    assert all(0.1 <= age < 100 for age in ages)
    queue = {"backlogged": 1, "queued_messages": 1, "queued_bytes": conn.queued_bytes}
    assert answer == {
        "connections": 2,
        "rooms_total": 2,
        "rooms": [{"name": "<b>", "members": 2, **queue}, {"name": "räume", "members": 1, **queue}],
    }


async def test_list_has_the_largest_rooms_and_the_number_of_all(fresh):
    hub = Hub()
    for number in range(_LIST_SIZE + 20):
        member(hub, f"room {number}")
    for _ in range(2):
        member(hub, "large")
    answer = told(room_list_route(hub, "everybody"))
    assert answer["rooms_total"] == _LIST_SIZE + 21
    assert len(answer["rooms"]) == _LIST_SIZE
    assert answer["rooms"][0]["name"] == "large"


async def test_list_is_made_once_a_second(monkeypatch: pytest.MonkeyPatch):
    now = 100.0
    monkeypatch.setattr("plumews.room_server.status.time.monotonic", lambda: now)
    hub = Hub()
    route = room_list_route(hub, "everybody")
    assert told(route)["connections"] == 0
    member(hub, "chat")
    assert told(route)["connections"] == 0
    now += _LIST_INTERVAL
    assert told(route)["connections"] == 1


@pytest.mark.parametrize(
    ("audience", "asked", "status"),
    [
        ("nobody", request(), 204),
        ("local", request(), 200),
        ("local", request(("X-Forwarded-For", "127.0.0.1")), 204),
        ("local", request(address="192.0.2.1"), 204),
        ("everybody", request(("X-Forwarded-For", "192.0.2.1")), 200),
        ("everybody", request(address="192.0.2.1"), 200),
    ],
)
async def test_client_outside_the_audience_gets_204(audience, asked, status):
    hub = Hub()
    member(hub, "hidden room")
    response = room_list_route(hub, audience)(asked)
    assert (response.status, b"hidden room" in response.body) == (status, status == 200)


# --- list of rooms of a server --------------------------------------------------------------------


async def answer(server: Any) -> tuple[int, bytes]:
    async with await Wire.connect(server) as wire:
        return await wire.response(b"GET /rooms.json HTTP/1.1\r\nHost: localhost\r\n\r\n")


@pytest.mark.parametrize(
    ("options", "status"),
    [
        ({}, 404),
        ({"rooms_table": "everybody"}, 404),
        ({"page": True}, 204),
        ({"page": True, "rooms_table": "nobody"}, 204),
        ({"page": True, "rooms_table": "local"}, 200),
        ({"page": True, "rooms_table": "everybody"}, 200),
    ],
)
async def test_list_is_served_with_the_page_to_its_audience(start, options, status):
    hub = Hub()
    server = await start(plumews.serve_rooms(hub, plumews.SimpleRoomAuth(), "127.0.0.1", 0, **options))
    async with await Wire.open(server, "/ws?room=hidden"):
        await until(lambda: hub.room_count("hidden"))
        code, body = await answer(server)
        assert (code, b"hidden" in body) == (status, status == 200)


def test_unknown_audience_raises_with_the_three_names():
    with pytest.raises(ValueError, match="rooms_table must be one of nobody, local, everybody, not 'friends'"):
        plumews.serve_rooms(Hub(), plumews.SimpleRoomAuth(), port=0, rooms_table="friends")  # type: ignore[arg-type]


# --- health check ---------------------------------------------------------------------------------

SECRET = "0123456789abcdef0123456789abcdef"


async def health(server, method="GET"):
    async with await Wire.connect(server) as wire:
        status, body = await wire.response(f"{method} /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        assert wire.header("Cache-Control") == "no-store"
        return status, json.loads(body) if body else None


async def test_healthz_is_200_and_names_enabled_broadcasts(start):
    plain = await start(plumews.serve_rooms(plumews.Hub(), plumews.SimpleRoomAuth(), "127.0.0.1", 0))
    assert await health(plain) == (200, {"status": "ok", "component": "websocket", "broadcast_enabled": False})
    admin = await start(
        plumews.serve_rooms(plumews.Hub(), plumews.SimpleRoomAuth(), "127.0.0.1", 0, broadcast_secret=SECRET)
    )
    assert await health(admin) == (200, {"status": "ok", "component": "websocket", "broadcast_enabled": True})
    assert await health(admin, "HEAD") == (200, None)


async def test_healthz_is_503_once_the_hub_stops(start):
    hub = plumews.Hub()
    server = await start(plumews.serve_rooms(hub, plumews.SimpleRoomAuth(), "127.0.0.1", 0))
    await hub.stop()
    assert await health(server) == (503, {"status": "stopping", "component": "websocket", "broadcast_enabled": False})
    assert await health(server, "HEAD") == (503, None)
