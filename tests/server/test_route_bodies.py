"""Routes that take a request body: authorization, size, time, and bodies that are never read."""

from __future__ import annotations

import asyncio
import contextlib
import json

import pytest

import plumews
from plumews import Refused, Response, Route
from support.raw_client import Wire, text, upgrade


def post(path="/in", *lines, body=b"", length=None, method="POST"):
    size = len(body) if length is None else length
    head = [f"{method} {path} HTTP/1.1", "Host: localhost", f"Content-Length: {size}", *lines]
    return ("\r\n".join(head) + "\r\n\r\n").encode() + body


def serving(route, **options):
    return plumews.serve(
        on_message=lambda conn, message: conn.send_nowait(message),
        host="127.0.0.1",
        port=0,
        routes={"/in": route, "/page": lambda request: Response.text(200, "page")},
        **options,
    )


def mirror(request):
    return Response(200, body=request.body)


async def later(request):
    await asyncio.sleep(0)
    return mirror(request)


async def answer(server, request):
    async with await Wire.connect(server) as wire:
        status, body = await wire.response(request)
        return status, body, wire


async def refused(server, request):
    status, body, _ = await answer(server, request)
    error = json.loads(body)["error"]
    return status, error["code"], error["message"]


BODY = (400, "WEBSOCKET_BAD_REQUEST", "request body not allowed")


@pytest.mark.parametrize("handler", [mirror, later], ids=["plain", "async"])
@pytest.mark.parametrize("size", [0, 1, 16 * 1024 + 1, 300_000])
async def test_route_handler_gets_the_whole_body(start, handler, size):
    server = await start(serving(Route(handler)))
    body = bytes(range(256)) * (size // 256) + bytes(range(size % 256))
    status, got, wire = await answer(server, post(body=body))
    assert (status, got == body) == (200, True)
    assert wire.header("Connection") == "close"
    assert wire.header("X-Content-Type-Options") == "nosniff"


async def test_body_sent_byte_by_byte_ends_at_its_length(start):
    server = await start(serving(Route(mirror)))
    async with await Wire.connect(server) as wire:
        wire.writer.get_extra_info("socket").setsockopt(6, 1, 1)
        for byte in post(body=b"hello") + b"POST /in HTTP/1.1\r\n\r\n":
            wire.writer.write(bytes([byte]))
            await wire.writer.drain()
        await wire.read_head()
        assert (wire.status, await wire.reader.read()) == (200, b"hello")


async def test_body_beyond_max_body_is_413_before_it_is_sent(start):
    server = await start(serving(Route(mirror, max_body=4)))
    assert (await answer(server, post(body=b"four")))[:2] == (200, b"four")
    too_large = (413, "WEBSOCKET_REQUEST_TOO_LARGE", "request body too large")
    assert await refused(server, post(length=5)) == too_large
    assert await refused(server, post(length=10**17)) == too_large


async def test_unauthorized_request_is_refused_before_its_body(start):
    asked = []

    async def nobody(request):
        asked.append(request.body)
        raise Refused("not you", status=401, code="UNAUTHORIZED")

    def never(request):
        raise AssertionError("the handler ran")

    server = await start(serving(Route(never, authorize=nobody)))
    assert await refused(server, post(length=1000)) == (401, "UNAUTHORIZED", "not you")
    assert asked == [b""]


async def test_body_sent_during_authorize_is_kept_within_a_bound(start):
    paused = asyncio.Event()
    kept = []

    async def authorize(request):
        await paused.wait()
        (conn,) = server._context.connections
        kept.append(len(conn._handshake._responder.rest))

    server = await start(serving(Route(mirror, authorize=authorize)))
    body = bytes(1024 * 1024)
    async with await Wire.connect(server) as wire:
        wire.writer.write(post(body=body))
        (conn,) = await appeared(server)
        while conn._transport.is_reading():
            await asyncio.sleep(0)
        paused.set()
        await wire.read_head()
        assert (wire.status, await wire.reader.read() == body) == (200, True)
    assert 16 * 1024 < kept[0] < 512 * 1024


async def appeared(server):
    while not server._context.connections:
        await asyncio.sleep(0)
    return server._context.connections


async def test_expect_100_continue_gets_100(start):
    server = await start(serving(Route(mirror, max_body=5)))
    async with await Wire.connect(server) as wire:
        wire.writer.write(post("/in", "Expect: 100-continue", length=5))
        await wire.read_head()
        assert (wire.status, wire.headers) == (100, [])
        assert await wire.response(b"hello") == (200, b"hello")
    status = (await answer(server, post("/in", "Expect: 100-continue", length=6)))[0]
    assert status == 413  # and not told to send it first
    assert (await refused(server, post("/in", "Expect: wonders", body=b"x")))[:2] == (417, "EXPECTATION_FAILED")


async def test_expect_of_http_1_0_is_ignored(start):
    server = await start(serving(Route(mirror)))
    request = post("/in", "Expect: 100-continue", body=b"hello").replace(b"HTTP/1.1", b"HTTP/1.0")
    async with await Wire.connect(server) as wire:
        wire.send(request[:-5])
        status, body = await wire.response(request[-5:])
        assert (status, body) == (200, b"hello")
    assert (await answer(server, request.replace(b"100-continue", b"something")))[:2] == (200, b"hello")


async def test_missing_body_is_408_at_the_open_timeout(start):
    server = await start(serving(Route(mirror), open_timeout=0.2))
    assert (await refused(server, post(body=b"half", length=8)))[:2] == (408, "WEBSOCKET_HANDSHAKE_TIMEOUT")


async def test_client_that_leaves_in_its_body_leaves_nothing(start):
    asked = asyncio.Event()
    server = await start(serving(Route(mirror, authorize=lambda request: asked.set())))
    async with await Wire.connect(server) as wire:
        wire.writer.write(post(body=b"half", length=8))
        await asked.wait()
        wire.reset()
    server.close()
    await server.wait_closed()
    assert (server._context.connections, server._context.tasks) == (set(), set())


async def test_authorize_that_ignores_its_timeout_reads_no_body(start):
    allow = asyncio.Event()

    async def stubborn(request):
        while not allow.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await allow.wait()

    server = await start(serving(Route(mirror, authorize=stubborn), open_timeout=0.1))
    assert (await refused(server, post(body=b"half", length=8)))[:2] == (408, "WEBSOCKET_HANDSHAKE_TIMEOUT")
    (asking,) = server._context.tasks
    allow.set()
    await asyncio.wait({asking}, timeout=5)
    assert asking.cancelled()


async def test_stop_while_a_body_is_sent_is_503(start):
    asked = asyncio.Event()
    server = await start(serving(Route(mirror, authorize=lambda request: asked.set())))
    async with await Wire.connect(server) as wire:
        wire.writer.write(post(body=b"half", length=8))
        await asked.wait()
        server.close()
        await wire.read_head()
        assert wire.status == 503


@pytest.mark.parametrize("path", ["/page", "/", "/none"])
async def test_body_on_a_path_without_such_a_route_is_400(start, path):
    server = await start(serving(Route(mirror)))
    assert await refused(server, post(path, body=b"x")) == BODY
    assert await refused(server, post(path, body=b"x", method="GET")) == BODY


async def test_row_17_upgrade_with_a_body_is_400_on_a_route(start):
    server = await start(serving(Route(mirror)))
    assert await refused(server, upgrade("/in", "Content-Length: 5") + b"hello") == BODY
    chunked = b"POST /in HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n"
    assert await refused(server, chunked) == BODY
    assert (await refused(server, post("/in", "Transfer-Encoding: chunked", body=b"x")))[0] == 400
    async with await Wire.open(server, "/in") as wire:
        wire.send(text("x"))
        assert await wire.message() == "x"


async def test_route_with_max_body_0_takes_no_body(start):
    server = await start(serving(Route(mirror, max_body=0)))
    assert (await answer(server, post()))[:2] == (200, b"")
    assert await refused(server, post(body=b"x")) == BODY


async def test_route_methods_include_head_with_get_others_are_405(start):
    server = await start(serving(Route(lambda request: Response.text(200, "text"), methods=["GET", "PUT"])))
    assert (await answer(server, post(method="PUT", body=b"x")))[0] == 200
    status, body, wire = await answer(server, post(method="HEAD"))
    assert (status, body, wire.header("Content-Length")) == (200, b"", "4")
    status, _, wire = await answer(server, post(body=b"x"))
    assert (status, wire.header("Allow")) == (405, "GET, PUT, HEAD")


async def test_foreign_origin_on_a_route_is_403_except_get(start):
    server = await start(serving(Route(mirror, methods=["GET", "POST"])))
    foreign = "Origin: https://evil.com"
    assert (await refused(server, post("/in", foreign, body=b"x")))[:2] == (403, "WEBSOCKET_FORBIDDEN_ORIGIN")
    assert (await answer(server, post("/in", foreign, method="GET")))[0] == 200


@pytest.mark.parametrize("handler", [lambda request: "text", lambda request: 1 / 0], ids=["no_answer", "raises"])
async def test_route_handler_that_fails_is_500_with_one_log_entry(start, caplog, handler):
    server = await start(serving(Route(handler)))
    assert await refused(server, post(body=b"x")) == (500, "INTERNAL_ERROR", "internal server error")
    assert len([record for record in caplog.records if record.levelname == "ERROR"]) == 1


@pytest.mark.parametrize(
    ("arguments", "error", "said"),
    [
        ({"handler": 1}, TypeError, "handler must be a function, not int"),
        ({"authorize": 1}, TypeError, "authorize must be a function or None, not int"),
        ({"methods": "POST"}, TypeError, "methods must be a list of str, such as .* not the str 'POST'"),
        ({"methods": []}, ValueError, "at least one method"),
        ({"methods": ["post"]}, ValueError, "invalid method 'post'"),
        ({"max_body": 1.5}, TypeError, "max_body must be an int, not float"),
        ({"max_body": -1}, ValueError, "max_body must be at least 0, not -1"),
    ],
)
def test_invalid_route_raises(arguments, error, said):
    with pytest.raises(error, match=said):
        Route(**{"handler": mirror, **arguments})
