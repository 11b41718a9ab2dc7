"""Log lines of refusals: their cause, their hint, and none of the secrets of the request."""

from __future__ import annotations

import logging

import jwt
import pytest

import plumews
from support.raw_client import Wire, upgrade

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
async def test_refusal_that_an_option_prevents_logs_its_cause(start, logs, target, lines, told):
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
        (
            upgrade("/ws"),
            "403 WEBSOCKET_ROOM_FORBIDDEN: GET /ws, forbidden: bad room password: none was sent [",
        ),
        (upgrade("/ws?room=a&room=b"), "400 WEBSOCKET_BAD_QUERY: GET /ws, more than one room in the query ["),
        (
            upgrade("/ws", "Sec-WebSocket-Protocol: bearer.a.b.c"),
            "403 WEBSOCKET_TOKEN_SOURCE: GET /ws, credentials in a subprotocol are not accepted here [",
        ),
        (
            upgrade("/ws?token=a.b.c"),
            "403 WEBSOCKET_QUERY_SECRETS: GET /ws, allow_query_secrets is off [",
        ),
        (
            upgrade(f"/{'x' * 20_000}"),
            "431 WEBSOCKET_HEAD_TOO_LARGE: no request, request head too large: more than 16384 bytes [",
        ),
        (b"\x16", "400 WEBSOCKET_BAD_REQUEST: no request, not an HTTP request: it does not begin with a method"),
    ],
    ids=["token", "tls", "password", "query", "source", "secrets", "head", "bytes"],
)
async def test_refusal_whose_code_tells_too_little_logs_its_text(start, logs, request_, told):
    locked = auth()
    locked.set_room_password("default", "pa55word")
    server = await start(plumews.serve_rooms(plumews.Hub(), locked, "127.0.0.1", 0, token_sources=["header"]))
    async with await Wire.connect(server) as wire:
        await wire.response(request_)
    assert logs()[0].getMessage().startswith(f"refused {told}")


async def test_row_20_refusal_text_with_a_secret_is_not_logged(start, logs):
    def process_request(conn, request):
        raise plumews.InvalidHandshake(f"what is {request.headers['Authorization']}?")

    server = await start(
        plumews.serve(host="127.0.0.1", port=0, on_message=lambda conn, message: None, process_request=process_request)
    )
    async with await Wire.connect(server) as wire:
        await wire.response(upgrade("/", f"Authorization: Bearer {TOKEN}"))
    (record,) = logs()
    assert record.getMessage().startswith("refused 400 WEBSOCKET_BAD_REQUEST: GET / [connection=")


async def test_refused_host_is_named_in_the_log(start, logs):
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
async def test_row_20_origin_with_a_secret_is_logged_without_it(start, logs, origin, told):
    server = await start(plumews.serve_rooms(plumews.Hub(), auth(), "127.0.0.1", 0))
    async with await Wire.connect(server) as wire:
        await wire.response(upgrade("/ws", f"Origin: {origin}", host="localhost"))
    (record,) = logs()
    assert f"GET /ws, a page of {told}, and this is http://localhost [" in record.getMessage()


async def test_row_20_token_behind_an_empty_one_is_not_logged(start, logs):
    class Talkative(plumews.SimpleRoomAuth):
        def verify_jwt(self, token):
            raise plumews.AuthError(f"what is {token}?")

    server = await start(plumews.serve_rooms(plumews.Hub(), Talkative(), "127.0.0.1", 0, allow_query_secrets=True))
    async with await Wire.connect(server) as wire:
        await wire.response(upgrade("/ws?token=&token=s3cret"))
    (record,) = logs()
    assert record.getMessage().startswith("refused 403 WEBSOCKET_INVALID_TOKEN: GET /ws [connection=")


# --- the first of a kind --------------------------------------------------------------------------

FORWARDING = ["Forwarded: for=192.0.2.9", "X-Forwarded-For: 192.0.2.9", "X-Forwarded-Proto: https"]


async def ask(server, *lines, **options):
    async with await Wire.connect(server) as wire:
        status, _ = await wire.response(upgrade("/ws", *lines, **options))
    return status


@pytest.mark.parametrize(
    ("lines", "host", "option"),
    [
        (("Origin: https://app.example.com",), "localhost", "origins (--origin)"),
        (("Origin: null",), "localhost", "origins (--origin)"),
        ((), "chat.example.com", "allowed_hosts (--allowed-host)"),
    ],
    ids=["origin", "null", "host"],
)
async def test_first_refusal_of_a_kind_warns_and_names_the_option(start, logs, lines, host, option):
    server = await start(plumews.serve_rooms(plumews.Hub(), auth(), "127.0.0.1", 0))
    for _ in range(3):
        assert await ask(server, *lines, host=host) == 403
    first, *later = logs()
    assert (first.levelno, first.getMessage().count(option)) == (logging.WARNING, 1)
    assert [(record.levelno, option in record.getMessage()) for record in later] == [(logging.INFO, False)] * 2
    assert first.getMessage().partition("]; ")[0].startswith("refused 403 WEBSOCKET_FORBIDDEN_")


async def test_each_kind_and_each_server_has_its_own_warning(start, caplog):
    for _ in range(2):
        server = await start(plumews.serve_rooms(plumews.Hub(), auth(), "127.0.0.1", 0))
        await ask(server, "Origin: https://app.example.com")
        await ask(server, host="chat.example.com")
    warned = [record.getMessage().split(" ")[2] for record in caplog.records]
    assert warned == ["WEBSOCKET_FORBIDDEN_ORIGIN:", "WEBSOCKET_FORBIDDEN_HOST:"] * 2


async def test_refusal_that_no_option_prevents_is_no_warning(start, caplog):
    server = await start(plumews.serve_rooms(plumews.Hub(), auth(), "127.0.0.1", 0))
    assert await ask(server, f"Authorization: Bearer {'x' * 40}") == 403
    assert caplog.records == []


@pytest.mark.parametrize("line", FORWARDING)
@pytest.mark.parametrize("where", ["tcp", "unix"])
async def test_untrusted_proxy_is_logged_once(start, caplog, tmp_path, line, where):
    if where == "tcp":
        server = await start(plumews.serve(lambda conn: conn.close(), "127.0.0.1", 0, close_timeout=0.1))
    else:
        server = await start(plumews.unix_serve(lambda conn: conn.close(), tmp_path / "s", close_timeout=0.1))
    for _ in range(2):
        assert await ask(server, line) == 101
    (record,) = caplog.records
    peer = "127.0.0.1" if where == "tcp" else "unix"
    said = f"{peer} says who its clients are, and is not believed: {line.partition(':')[0]} [connection="
    assert record.getMessage().startswith(said)
    assert record.getMessage().endswith(
        f"; if it is a proxy of yours, add '{peer}' to trusted_proxies (--trusted-proxy)"
    )


async def test_trusted_proxy_is_no_warning(start, caplog):
    server = await start(
        plumews.serve(lambda conn: conn.close(), "127.0.0.1", 0, close_timeout=0.1, trusted_proxies=["127.0.0.1"])
    )
    for line in FORWARDING[1:]:
        assert await ask(server, line) == 101
    server = await start(
        plumews.serve(lambda conn: conn.close(), "127.0.0.1", 0, close_timeout=0.1, trusted_proxies=["10.0.0.1"])
    )
    assert await ask(server, "X-Forwarded-For: 192.0.2.9") == 101
    assert len(caplog.records) == 1
