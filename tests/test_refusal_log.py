"""What the log says of a refused request: enough to know what to change, and nothing that is nobody's business."""

from __future__ import annotations

import logging

import jwt
import pytest

import plumews
from wire import Wire, upgrade

SECRET = b"s3cret" * 8
TOKEN = jwt.encode({"sub": "ada", "exp": 4102444800}, SECRET)


@pytest.fixture
def logs(caplog):
    """The records of plumews, from INFO on."""
    caplog.set_level(logging.INFO, logger="plumews")
    return lambda: [record for record in caplog.records if record.name.startswith("plumews")]


def auth():
    return plumews.SimpleRoomAuth(SECRET)


@pytest.mark.parametrize(
    ("target", "lines", "told"),
    [
        (
            "/ws",
            ("Origin: https://app.example.com",),
            (
                "403 WEBSOCKET_FORBIDDEN_ORIGIN: GET /ws, "
                "a page of https://app.example.com, and this is http://localhost ["
            ),
        ),
        (
            "/ws",
            ("Origin: null [user=root]",),
            "403 WEBSOCKET_FORBIDDEN_ORIGIN: GET /ws, a page of 'null [user=root]', and this is http://localhost [",
        ),
        ("/socket", (), "404 NOT_FOUND: GET /socket, WebSockets are at /ws, /members ["),
    ],
)
async def test_a_refusal_that_a_setting_would_mend_says_what_to_set(start, logs, target, lines, told):
    server = await start(plumews.serve_rooms(plumews.Hub(), auth(), "127.0.0.1", 0))
    async with await Wire.connect(server) as wire:
        _, body = await wire.response(upgrade(target, *lines, host="localhost"))
    assert logs()[0].getMessage().startswith(f"refused {told}")
    assert b"localhost" not in body, "the client is not told"
    assert b"/members" not in body


@pytest.mark.parametrize(
    ("request_", "told"),
    [
        (
            upgrade("/ws", f"Authorization: Bearer {'x' * 40}"),
            "403 WEBSOCKET_INVALID_TOKEN: GET /ws, forbidden: invalid token (invalid jwt: not three parts",
        ),
        (
            b"\x16\x03\x01\x02\x00\x01",
            "400 WEBSOCKET_BAD_REQUEST: no request, not an HTTP request, but the beginning of TLS: this server has no",
        ),
        (b"\x16", "400 WEBSOCKET_BAD_REQUEST: no request, not an HTTP request: it does not begin with a method"),
    ],
    ids=["token", "tls", "bytes"],
)
async def test_a_refusal_whose_word_says_too_little_says_why(start, logs, request_, told):
    server = await start(plumews.serve_rooms(plumews.Hub(), auth(), "127.0.0.1", 0))
    async with await Wire.connect(server) as wire:
        await wire.response(request_)
    assert logs()[0].getMessage().startswith(f"refused {told}")


async def test_row_20_why_is_not_said_where_that_would_tell_a_secret(start, logs):
    def process_request(conn, request):
        raise plumews.InvalidHandshake(f"what is {request.headers['Authorization']}?")

    server = await start(
        plumews.serve(host="127.0.0.1", port=0, on_message=lambda conn, message: None, process_request=process_request)
    )
    async with await Wire.connect(server) as wire:
        await wire.response(upgrade("/", f"Authorization: Bearer {TOKEN}"))
    (record,) = logs()
    assert record.getMessage().startswith("refused 400 WEBSOCKET_BAD_REQUEST: GET / [connection=")


async def test_a_refused_host_is_named_in_the_log(start, logs):
    server = await start(plumews.serve_rooms(plumews.Hub(), auth(), "127.0.0.1", 0))
    async with await Wire.connect(server) as wire:
        await wire.response(upgrade("/ws", host="chat.example.com:8080"))
    (record,) = logs()
    assert record.getMessage().startswith(
        "refused 403 WEBSOCKET_FORBIDDEN_HOST: GET /ws, as chat.example.com:8080 [connection="
    )


@pytest.mark.parametrize(
    ("origin", "told"),
    [
        ("https://ada:s3cret@app.example.com", "https://app.example.com"),
        ("https://ada:s3/c@ret@app.example.com", "https://app.example.com"),
        ("ada:s3cret@app.example.com", "app.example.com"),
        ("https://app.example.com/?token=s3cret", "https://app.example.com/"),
        ("https://app.example.com/#s3cret", "https://app.example.com/"),
    ],
)
async def test_row_20_of_an_origin_that_is_an_address_with_a_secret_the_host_is_told(start, logs, origin, told):
    server = await start(plumews.serve_rooms(plumews.Hub(), auth(), "127.0.0.1", 0))
    async with await Wire.connect(server) as wire:
        await wire.response(upgrade("/ws", f"Origin: {origin}", host="localhost"))
    (record,) = logs()
    assert f"GET /ws, a page of {told}, and this is http://localhost [" in record.getMessage()


async def test_row_20_nor_is_the_token_behind_an_empty_one_told(start, logs):
    class Talkative(plumews.SimpleRoomAuth):
        def verify_jwt(self, token):
            raise plumews.AuthError(f"what is {token}?")

    server = await start(plumews.serve_rooms(plumews.Hub(), Talkative(), "127.0.0.1", 0, allow_query_secrets=True))
    async with await Wire.connect(server) as wire:
        await wire.response(upgrade("/ws?token=&token=s3cret"))
    (record,) = logs()
    assert record.getMessage().startswith("refused 403 WEBSOCKET_INVALID_TOKEN: GET /ws [connection=")
