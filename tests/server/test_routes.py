"""Plain HTTP responses beside the WebSocket."""

from __future__ import annotations

import json

import pytest

import plumews
from plumews.errors import InvalidHandshake
from plumews.http11.models import Request, Response
from plumews.server.routes import answer_route, json_route, static_route
from support.fakes import echo
from support.raw_client import Wire, text, upgrade

ROUTES = {
    "/page": static_route(b"<p>", "text/html; charset=utf-8", ("Content-Security-Policy", "default-src 'none'")),
    "/state": json_route(lambda: {"a": 1}),
    "/framed": lambda request: Response.text(200, "x", [("X-Frame-Options", "SAMEORIGIN")]),
}

SAFE = {"X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY", "Referrer-Policy": "no-referrer"}


def test_static_route_answers_its_bytes_with_safe_headers():
    response = answer_route(ROUTES, Request("GET", "/page"))
    assert (response.status, response.body) == (200, b"<p>")
    assert dict(response.headers) == {
        "Content-Type": "text/html; charset=utf-8",
        "Cache-Control": "no-cache",
        "Content-Security-Policy": "default-src 'none'",
        **SAFE,
    }


def test_json_route_calls_its_source_each_time():
    numbers = iter(range(2))
    routes = {"/": json_route(lambda: {"number": next(numbers)})}
    bodies = [json.loads(answer_route(routes, Request("GET", "/")).body) for _ in range(2)]
    assert bodies == [{"number": 0}, {"number": 1}]


def test_json_route_is_not_stored():
    assert answer_route(ROUTES, Request("GET", "/state")).headers["Cache-Control"] == "no-store"


def test_header_of_a_route_is_kept():
    response = answer_route(ROUTES, Request("GET", "/framed"))
    assert response.headers.get_all("X-Frame-Options") == ["SAMEORIGIN"]


def test_path_without_route_has_no_response():
    assert answer_route(ROUTES, Request("GET", "/page/")) is None
    assert answer_route(ROUTES, Request("POST", "/other")) is None


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH"])
def test_function_route_answers_get_and_head_only(method):
    with pytest.raises(InvalidHandshake) as caught:
        answer_route(ROUTES, Request(method, "/page"))
    assert (caught.value.status, caught.value.headers) == (405, (("Allow", "GET, HEAD"),))


def test_route_that_returns_no_response_raises():
    with pytest.raises(TypeError, match="the route of /broken must return a Response, not str"):
        answer_route({"/broken": lambda request: "text"}, Request("GET", "/broken"))


# --- live -----------------------------------------------------------------------------------------


def plain(method, path):
    return f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()


async def test_routes_are_answered_beside_the_websocket(start):
    server = await start(plumews.serve(echo, "127.0.0.1", 0, routes=ROUTES))
    async with await Wire.connect(server) as wire:
        assert await wire.response(plain("GET", "/page?x=1")) == (200, b"<p>")
        for name, value in {**SAFE, "Connection": "close", "Content-Length": "3"}.items():
            assert wire.header(name) == value
    async with await Wire.connect(server) as wire:
        assert await wire.response(plain("HEAD", "/page")) == (200, b"")
        assert wire.header("Content-Length") == "3"
    async with await Wire.connect(server) as wire:
        status, body = await wire.response(plain("POST", "/page"))
        assert (status, json.loads(body)["error"]["code"]) == (405, "METHOD_NOT_ALLOWED")
        assert wire.header("Allow") == "GET, HEAD"
    async with await Wire.connect(
        server
    ) as wire:  # no route: what is left is the WebSocket, and that is no such request
        assert (await wire.response(plain("GET", "/")))[0] == 426


async def test_upgrade_on_the_path_of_a_route_is_a_websocket(start):
    server = await start(plumews.serve(echo, "127.0.0.1", 0, routes=ROUTES))
    async with await Wire.open(server, "/page") as wire:
        wire.send(text("x"))
        assert await wire.message() == "x"


SPELLED = {"/healthz": 200, "/healthz?x": 200, "/page.css": 200, "/caf%C3%A9": 200, "/ws": 426}
NOWHERE = """/%68ealthz /HEALTHZ /healthz/ //healthz /./healthz /x/../healthz /healthz%3f /%2e /page%2ecss /caf%c3%a9
/%77s /ws/ //ws /WS"""


@pytest.mark.parametrize(("path", "status"), [*SPELLED.items(), *((path, 404) for path in NOWHERE.split())])
async def test_route_answers_one_spelling_of_its_path(start, path, status):
    routes = {"/caf\xe9": lambda request: Response.text(200, request.path)}
    server = await start(
        plumews.serve_rooms(plumews.Hub(), plumews.SimpleRoomAuth(), "127.0.0.1", 0, page=True, routes=routes)
    )
    async with await Wire.connect(server) as wire:
        assert (await wire.response(plain("GET", path)))[0] == status
    async with await Wire.connect(server) as wire:
        wire.writer.write(upgrade(path))
        await wire.read_head()
        assert wire.status == (101 if path == "/ws" else 404)


@pytest.mark.parametrize("lines", ["", "Host: localhost\r\n", "Connection: keep-alive\r\n", "Upgrade: websocket\r\n"])
async def test_http_1_0_is_answered_and_the_connection_ends(start, lines):
    server = await start(plumews.serve_rooms(plumews.Hub(), plumews.SimpleRoomAuth(), "127.0.0.1", 0, routes=ROUTES))
    for method, path, expected in (
        ("GET", "/page", (200, b"<p>")),
        ("HEAD", "/page", (200, b"")),
        ("GET", "/healthz", (200, None)),
        ("OPTIONS", "*", (200, b"")),
        ("OPTIONS", "/page", (200, b"")),
        ("OPTIONS", "/ws", (200, b"")),
        ("OPTIONS", "/nowhere", (404, None)),
        ("GET", "/ws", (426, None)),
    ):
        async with await Wire.connect(server) as wire:
            status, body = await wire.response(f"{method} {path} HTTP/1.0\r\n{lines}\r\n".encode())
            assert (status, body) == (expected[0], body if expected[1] is None else expected[1])
            assert wire.header("Connection") == "close"
            assert wire.header("Content-Length") is not None


@pytest.mark.parametrize(
    ("path", "methods"),
    [
        ("/page", "GET, HEAD, OPTIONS"),
        ("/_admin/broadcast", "POST, OPTIONS"),
        ("/ws", "GET, OPTIONS"),
        ("*", "GET, OPTIONS"),
    ],
)
async def test_options_lists_the_methods_of_a_path(start, path, methods):
    admin = plumews.admin_broadcast_route(hub := plumews.Hub(), b"s" * 32)
    routes = {**ROUTES, "/_admin/broadcast": admin}
    server = await start(plumews.serve_rooms(hub, plumews.SimpleRoomAuth(), "127.0.0.1", 0, routes=routes))
    async with await Wire.connect(server) as wire:
        assert await wire.response(plain("OPTIONS", path)) == (200, b"")
        assert wire.header("Allow") == methods


async def test_http_1_0_on_a_loopback_has_no_foreign_host(start):
    server = await start(plumews.serve(echo, "127.0.0.1", 0, routes=ROUTES))
    for target, host, status in (
        ("/page", "", 200),
        ("/page", "Host: evil.com\r\n", 403),
        ("http://evil.com/page", "", 403),
        ("http://evil.com/page", "Host: localhost\r\n", 403),
        ("http://localhost/page", "Host: evil.com\r\n", 200),
    ):
        async with await Wire.connect(server) as wire:
            assert (await wire.response(f"GET {target} HTTP/1.0\r\n{host}\r\n".encode()))[0] == status


async def test_absolute_target_is_judged_by_its_own_host(start):
    async def handler(conn):
        await conn.send(f"{conn.request.target} {conn.request.headers['Host']}")

    server = await start(plumews.serve(handler, "127.0.0.1", 0))
    for target, host, page, status in (
        ("ws://localhost:1/chat?x=1", "localhost:2", "http://localhost:1", 101),
        ("ws://localhost:1/chat?x=1", "localhost:2", "http://localhost:2", 403),
        ("http://evil.com/chat", "localhost", "http://evil.com", 403),
    ):
        async with await Wire.connect(server) as wire:
            wire.send(upgrade(target, f"Origin: {page}", host=host))
            await wire.read_head()
            assert wire.status == status
            if status == 101:
                assert await wire.message() == "/chat?x=1 localhost:1"


async def test_row_19_echoed_header_is_byte_for_byte_or_500(start):
    routes = {
        "/echo": lambda request: Response(200, [("X-Echo", request.headers["X-City"])]),
        "/all": lambda request: Response(200, request.headers),
    }
    server = await start(plumews.serve(echo, "127.0.0.1", 0, routes=routes))
    for path in routes:
        for value, status in (("Z\xfcrich\xff", 200), ("a\x85Set-Cookie: b", 500)):
            async with await Wire.connect(server) as wire:
                head = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nX-City: {value}\r\n\r\n"
                assert (await wire.response(head.encode("latin-1")))[0] == status
                assert wire.header("X-Echo" if path == "/echo" else "X-City") == (value if status == 200 else None)


async def test_options_of_asterisk_is_200(start):
    server = await start(plumews.serve(echo, "127.0.0.1", 0))
    async with await Wire.connect(server) as wire:
        assert await wire.response(plain("OPTIONS", "*")) == (200, b"")
        assert wire.header("Content-Length") == "0"
    async with await Wire.connect(server) as wire:
        assert (await wire.response(upgrade("*").replace(b"GET", b"OPTIONS")))[0] == 405


OTHER_UPGRADES = {
    "h2c": "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA",
    "h2c_alone": "Upgrade: h2c",
    "tls": "Connection: upgrade\r\nUpgrade: TLS/1.2, HTTP/2.0",
    "two_lines": "Connection: Upgrade\r\nUpgrade: h2c\r\nUpgrade: h2",
    "nothing": "Connection: Upgrade\r\nUpgrade:",
    "no_token": "Connection: Upgrade\r\nUpgrade: websocket/13",
}


@pytest.mark.parametrize("lines", OTHER_UPGRADES.values(), ids=OTHER_UPGRADES)
async def test_upgrade_to_another_protocol_is_ignored(start, lines):
    mirror = plumews.Route(lambda request: Response(200, body=request.body))
    hub = plumews.Hub()
    routes = {**ROUTES, "/in": mirror}
    server = await start(plumews.serve_rooms(hub, plumews.SimpleRoomAuth(), "127.0.0.1", 0, page=True, routes=routes))

    def asked(method, path, body=""):
        length = f"Content-Length: {len(body)}\r\n" if body else ""
        return f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n{length}\r\n{body}".encode()

    async def status(request):
        async with await Wire.connect(server) as wire:
            return (await wire.response(request))[0]

    for path in ("/healthz", "/", "/page"):
        assert await status(asked("GET", path)) == 200
        assert await status(asked("HEAD", path)) == 200
    assert await status(asked("POST", "/page")) == 405
    async with await Wire.connect(server) as wire:
        assert await wire.response(asked("POST", "/in", "body")) == (200, b"body")
    # The WebSocket's own path, and no path at all, answer as they do to any plain request.
    assert await status(asked("GET", "/ws")) == 426
    assert await status(asked("GET", "/nowhere")) == 404
    assert await status(asked("POST", "/ws", "body")) == 400


async def test_failing_route_with_an_upgrade_is_500(start):
    server = await start(plumews.serve(echo, "127.0.0.1", 0, routes={"/": lambda request: 1 / 0}))
    async with await Wire.connect(server) as wire:
        status, body = await wire.response(b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: h2c\r\n\r\n")
    assert (status, json.loads(body)["error"]["code"]) == (500, "INTERNAL_ERROR")


async def test_route_that_raises_is_500_with_one_log_entry(start, caplog):
    server = await start(plumews.serve(echo, "127.0.0.1", 0, routes={"/": lambda request: 1 / 0}))
    async with await Wire.connect(server) as wire:
        status, body = await wire.response(plain("GET", "/"))
    error = json.loads(body)["error"]
    assert (status, error["code"], error["message"]) == (500, "INTERNAL_ERROR", "internal server error")
    (entry,) = [record for record in caplog.records if record.name == "plumews.server"]
    assert isinstance(entry.exc_info[1], ZeroDivisionError)
    async with await Wire.connect(server) as wire:
        wire.writer.write(upgrade())
        await wire.read_head()
        assert wire.status == 101


async def test_route_sees_the_request(start):
    server = await start(
        plumews.serve(
            echo,
            "127.0.0.1",
            0,
            routes={"/sum": lambda request: Response.text(200, str(sum(map(int, request.query.values()))))},
        )
    )
    async with await Wire.connect(server) as wire:
        assert await wire.response(plain("GET", "/sum?a=1&b=2")) == (200, b"3")


async def test_route_sees_the_address_of_the_socket(start):
    server = await start(
        plumews.serve(
            echo,
            "127.0.0.1",
            0,
            routes={"/who": lambda request: Response.json(200, request.remote_address)},
        )
    )
    async with await Wire.connect(server) as wire:
        status, body = await wire.response(plain("GET", "/who"))
        assert (status, json.loads(body)) == (200, list(wire.writer.get_extra_info("sockname")))
