"""Tests of error bodies: code, phrase, category, type, and the id of the connection."""

from __future__ import annotations

import json
import uuid

import jwt
import pytest

import plumews
from plumews import Refused
from plumews.http11.handshake import refusal
from support.raw_client import Wire, upgrade

SECRET = b"s3cret" * 8

# --- without a server -----------------------------------------------------------------------------

WORDS = [
    (400, "ANY", "client_error", "validation_failure"),
    (400, "WEBSOCKET_KEY_MISSING", "client_error", "required_field_missing"),
    (400, "WEBSOCKET_KEY_INVALID", "client_error", "invalid_format"),
    (400, "WEBSOCKET_INVALID_ROOM", "client_error", "invalid_format"),
    (401, "ANY", "auth_error", "unauthorized_request"),
    (403, "ANY", "auth_error", "forbidden_request"),
    (403, "WEBSOCKET_INVALID_TOKEN", "auth_error", "invalid_token"),
    (404, "ANY", "client_error", "resource_not_found"),
    (405, "ANY", "client_error", "method_not_allowed"),
    (408, "ANY", "timeout_error", "timeout_failure"),
    (413, "ANY", "client_error", "value_out_of_range"),
    (418, "ANY", "client_error", "validation_failure"),
    (429, "ANY", "rate_limit_error", "rate_limited"),
    (500, "ANY", "server_error", "internal_error"),
    (503, "ANY", "server_error", "service_unavailable"),
    (599, "ANY", "server_error", "internal_error"),
]


@pytest.mark.parametrize(("status", "code", "category", "type_"), WORDS)
def test_category_and_type_follow_from_status_and_code(status, code, category, type_):
    assert json.loads(refusal(Refused("no", status=status, code=code)).body) == {
        "error": {"code": code, "message": "no", "status": status, "category": category, "type": type_}
    }


def test_request_id_is_beside_the_error():
    body = json.loads(refusal(Refused("no"), "some-id").body)
    assert list(body) == ["error", "request_id"]
    assert body["request_id"] == "some-id"


# --- on a live server -----------------------------------------------------------------------------


class Fragile(plumews.SimpleRoomAuth):
    """Auth that fails for one room."""

    def check_room_password(self, room, password):
        if room == "broken":
            raise RuntimeError("the user database is away")
        return super().check_room_password(room, password)


def room_auth():
    auth = Fragile(SECRET, rounds=1)
    auth.set_room_password("vault", "open sesame")
    auth.set_room_password("broken", "x")
    return auth


TOKEN = f"Authorization: Bearer {jwt.encode({'sub': 'u1'}, SECRET, algorithm='HS256')}"
OLD = f"Authorization: Bearer {jwt.encode({'sub': 'u1', 'exp': 1}, SECRET, algorithm='HS256')}"


def ask(room="open", *lines, old=b"", new=b""):
    request = upgrade(f"/ws?room={room}", *lines)
    assert old in request
    return request.replace(old, new) if old else request


#: For each refusal: request, status, code, phrase, category, type.
TABLE = {
    "2 origin": (
        ask("open", TOKEN, "Origin: https://evil.com"),
        (403, "WEBSOCKET_FORBIDDEN_ORIGIN", "forbidden origin", "auth_error", "forbidden_request"),
    ),
    "3 method": (
        ask("open", TOKEN, old=b"GET ", new=b"PUT "),
        (405, "METHOD_NOT_ALLOWED", "method not allowed", "client_error", "method_not_allowed"),
    ),
    "4 upgrade": (
        ask("open", TOKEN, old=b"Upgrade: websocket\r\n", new=b"Upgrade: h2c\r\n"),
        (426, "WEBSOCKET_BAD_UPGRADE", "websocket upgrade required", "client_error", "validation_failure"),
    ),
    "5 version": (
        ask("open", TOKEN, old=b"Version: 13", new=b"Version: 8"),
        (426, "WEBSOCKET_BAD_VERSION", "websocket version 13 required", "client_error", "validation_failure"),
    ),
    "6 no key": (
        ask("open", TOKEN, old=b"Sec-WebSocket-Key", new=b"X-Key"),
        (400, "WEBSOCKET_KEY_MISSING", "websocket key required", "client_error", "required_field_missing"),
    ),
    "6 bad key": (
        ask("open", TOKEN, old=b"Sec-WebSocket-Key: ", new=b"Sec-WebSocket-Key: x"),
        (400, "WEBSOCKET_KEY_INVALID", "invalid websocket key", "client_error", "invalid_format"),
    ),
    "7 room": (
        ask("caf%C3%A9", TOKEN),
        (400, "WEBSOCKET_INVALID_ROOM", "invalid websocket room", "client_error", "invalid_format"),
    ),
    "8 no token": (
        ask("open"),
        (401, "WEBSOCKET_TOKEN_REQUIRED", "websocket token required", "auth_error", "unauthorized_request"),
    ),
    "9 bad token": (
        ask("open", "Authorization: Bearer x.y.z"),
        (403, "WEBSOCKET_INVALID_TOKEN", "forbidden: invalid token", "auth_error", "invalid_token"),
    ),
    "9 old token": (
        ask("open", OLD),
        (403, "WEBSOCKET_INVALID_TOKEN", "jwt expired", "auth_error", "invalid_token"),
    ),
    "10 password": (
        ask("vault", TOKEN, "X-WebSocket-Room-Password: wrong"),
        (403, "WEBSOCKET_ROOM_FORBIDDEN", "forbidden: bad room password", "auth_error", "forbidden_request"),
    ),
    "11 room full": (
        ask("full", TOKEN),
        (429, "WEBSOCKET_JOIN_DENIED", "websocket room at capacity", "rate_limit_error", "rate_limited"),
    ),
    "12 failure": (
        ask("broken", TOKEN, "X-WebSocket-Room-Password: x"),
        (500, "WEBSOCKET_HANDSHAKE_FAILED", "websocket handshake failed", "server_error", "internal_error"),
    ),
}


async def answer(server, request):
    async with await Wire.connect(server) as wire:
        status, body = await wire.response(request)
        assert wire.header("content-type") == "application/json"
        return status, json.loads(body)


def words(status, said):
    error = said["error"]
    assert error["status"] == status
    return status, error["code"], error["message"], error["category"], error["type"]


@pytest.mark.parametrize(("request_", "expected"), TABLE.values(), ids=TABLE.keys())
async def test_refusal_of_a_room_server_has_its_code_and_phrase(start, request_, expected):
    config = plumews.HubConfig(max_room_connections=1, check_room_name=plumews.validate_room_name)
    server = await start(plumews.serve_rooms(plumews.Hub(config), room_auth(), "127.0.0.1", 0, require_token=True))
    async with await Wire.open(server, "/ws?room=full", TOKEN):
        status, code, message, category, type_ = words(*await answer(server, request_))
    phrase = expected[2]
    assert (status, code, category, type_) == expected[:2] + expected[3:]
    assert phrase in message


async def test_full_hub_is_503(start):
    hub = plumews.Hub(plumews.HubConfig(max_connections=1))
    server = await start(plumews.serve_rooms(hub, room_auth(), "127.0.0.1", 0))
    async with await Wire.open(server, "/ws"):
        status, code, message, category, type_ = words(*await answer(server, upgrade("/ws")))
    assert (status, code, category, type_) == (503, "WEBSOCKET_JOIN_DENIED", "server_error", "service_unavailable")
    assert "websocket hub at capacity" in message


async def test_request_id_is_the_id_of_the_connection(start):
    seen = []

    def process_request(conn, request):
        seen.append(conn.id)
        raise Refused("not today")

    async def handler(conn):
        pass

    server = await start(plumews.serve(handler, "127.0.0.1", 0, process_request=process_request))
    said = [(await answer(server, upgrade()))[1] for _ in range(2)]
    assert [one["request_id"] for one in said] == [str(conn_id) for conn_id in seen]
    assert len(set(seen)) == 2


async def test_refusal_before_a_request_has_an_id(start):
    async def handler(conn):
        pass

    server = await start(plumews.serve(handler, "127.0.0.1", 0))
    status, said = await answer(server, b"\x16\x03\x01\x02\x00\x01")
    assert status == 400
    assert uuid.UUID(said["request_id"]).version == 4
