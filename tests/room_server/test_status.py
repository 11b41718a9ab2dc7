"""The rooms as JSON: who is told, how much, and how often it is made."""

from __future__ import annotations

import json
from typing import Any

import pytest

import plumews
from plumews import Hub, limits
from plumews.http11.models import Request
from plumews.room_server.status import room_list_route
from support.fakes import fake_conn, ticks, until
from support.raw_client import Wire


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """The list is made anew for each who asks."""
    monkeypatch.setattr(limits, "ROOMS_EVERY", 0.0)


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


async def test_the_list_has_each_room_with_its_members_and_what_waits_for_them(fresh):
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


async def test_of_many_rooms_the_largest_are_told_and_how_many_there_are(fresh):
    hub = Hub()
    for number in range(limits.ROOMS_SHOWN + 20):
        member(hub, f"room {number}")
    for _ in range(2):
        member(hub, "large")
    answer = told(room_list_route(hub, "everybody"))
    assert answer["rooms_total"] == limits.ROOMS_SHOWN + 21
    assert len(answer["rooms"]) == limits.ROOMS_SHOWN
    assert answer["rooms"][0]["name"] == "large"


async def test_however_many_ask_it_is_made_once_a_second(monkeypatch: pytest.MonkeyPatch):
    now = 100.0
    monkeypatch.setattr("plumews.room_server.status.time.monotonic", lambda: now)
    hub = Hub()
    route = room_list_route(hub, "everybody")
    assert told(route)["connections"] == 0
    member(hub, "chat")
    assert told(route)["connections"] == 0
    now += limits.ROOMS_EVERY
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
async def test_who_is_not_of_the_audience_is_told_that_there_is_nothing_to_see(audience, asked, status):
    hub = Hub()
    member(hub, "hidden room")
    response = room_list_route(hub, audience)(asked)
    assert (response.status, b"hidden room" in response.body) == (status, status == 200)


# --- live -----------------------------------------------------------------------------------------


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
async def test_the_list_is_there_with_the_page_for_those_who_may_see_it(start, options, status):
    hub = Hub()
    server = await start(plumews.serve_rooms(hub, plumews.SimpleRoomAuth(), "127.0.0.1", 0, **options))
    async with await Wire.open(server, "/ws?room=hidden"):
        await until(lambda: hub.room_count("hidden"))
        code, body = await answer(server)
        assert (code, b"hidden" in body) == (status, status == 200)


def test_another_audience_is_an_error_that_names_the_three():
    with pytest.raises(ValueError, match="rooms_table must be one of nobody, local, everybody, not 'friends'"):
        plumews.serve_rooms(Hub(), plumews.SimpleRoomAuth(), port=0, rooms_table="friends")  # type: ignore[arg-type]
