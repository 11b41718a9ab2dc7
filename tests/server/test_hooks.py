"""Hooks of the opening handshake on live sockets: allowed changes of the response, and invalid ones."""

from __future__ import annotations

import asyncio
import json

import pytest

import plumews
from plumews import Headers, Response
from support.fakes import PATIENCE, echo, entries
from support.raw_client import Wire, masked, text, upgrade


async def answer(server, request):
    """Return status, body and headers of the response to ``request``, when the server has ended the connection."""
    async with await Wire.connect(server) as wire:
        status, body = await wire.response(request)
        return status, body, wire


async def opened(server, *lines):
    """Open a WebSocket, check that it echoes, and return it with its headers."""
    async with await Wire.open(server, "/", *lines) as wire:
        wire.send(text("alive"))
        assert await wire.message() == "alive"
        return wire


def word(body):
    return json.loads(body)["error"]["code"]


def later(hook):
    """Return an async function that calls ``hook``."""

    async def decide(*args):
        await asyncio.sleep(0)
        return hook(*args)

    return decide


WAYS = pytest.mark.parametrize("way", [lambda hook: hook, later], ids=["now", "later"])


# --- process_request ------------------------------------------------------------------------------


@WAYS
async def test_checks_see_the_headers_that_process_request_has_changed(start, way):
    def trust(conn, request):
        if "X-Partner" in request.headers:
            del request.headers["Origin"]

    server = await start(plumews.serve(echo, "127.0.0.1", 0, process_request=way(trust)))
    assert (await answer(server, upgrade("/", "Origin: http://elsewhere.example")))[0] == 403
    await opened(server, "Origin: http://elsewhere.example", "X-Partner: yes")


async def test_handler_reads_all_lines_of_the_request(start):
    seen = []

    async def handler(conn):
        await asyncio.sleep(0)
        seen.extend(conn.request.headers.raw_items())

    server = await start(plumews.serve(handler, "127.0.0.1", 0))
    async with await Wire.open(server, "/", "X-Two: a", "x-two:  b ") as wire:
        assert await wire.closing() == (1000, "")
    assert seen[0][0] == "Host"
    assert seen[-2:] == [("X-Two", "a"), ("x-two", "b")]


# --- process_response -----------------------------------------------------------------------------


@WAYS
async def test_process_response_sees_the_101_and_may_add_to_it(start, way):
    seen, conns = [], []

    def decorate(conn, request, response):
        seen.append((conn.request is request, request.path, response.status, response.headers["X-Mine"]))
        response.headers["Set-Cookie"] = "a=1"

    async def handler(conn):
        conns.append((conn.response.headers["Set-Cookie"], conn.subprotocol))
        await echo(conn)

    server = await start(
        plumews.serve(
            handler,
            "127.0.0.1",
            0,
            process_response=way(decorate),
            extra_headers={"X-Mine": "1"},
            subprotocols=["chat"],
        )
    )
    wire = await opened(server, "Sec-WebSocket-Protocol: chat")
    assert (wire.header("set-cookie"), wire.header("x-mine")) == ("a=1", "1")
    assert wire.header("sec-websocket-protocol") == "chat"
    await opened(server, "Sec-WebSocket-Protocol: chat")
    assert seen == [(True, "/", 101, "1")] * 2
    assert conns == [("a=1", "chat")] * 2


@WAYS
async def test_process_response_may_return_another_response(start, way):
    def replace(conn, request, response):
        if response.status == 101:
            return Response(101, Headers(response.headers, ("X-New", "1")))
        return Response.text(418, "tea", {"X-Why": "pot"})

    server = await start(plumews.serve(echo, "127.0.0.1", 0, process_response=way(replace)))
    assert (await opened(server)).header("x-new") == "1"
    status, body, wire = await answer(server, upgrade(key="short"))
    assert (status, body, wire.header("x-why"), wire.header("connection")) == (418, b"tea", "pot", "close")


@WAYS
async def test_process_response_may_refuse_instead_of_the_101(start, way):
    def refuse(conn, request, response):
        if request.path == "/status":
            response.status, response.reason = 404, "Not Found"
        elif request.path == "/response":
            return Response.text(402, "pay")
        else:
            raise plumews.Refused("no", code="MINE")
        return None

    started = []

    async def handler(conn):
        started.append(conn)

    server = await start(plumews.serve(handler, "127.0.0.1", 0, process_response=way(refuse)))
    status, body, wire = await answer(server, upgrade("/status"))
    assert (status, body) == (404, b"")
    assert not [name for name, _ in wire.headers if name.startswith(("sec-websocket", "upgrade"))]
    assert (await answer(server, upgrade("/response")))[:2] == (402, b"pay")
    status, body, _ = await answer(server, upgrade("/raise"))
    assert (status, word(body)) == (403, "MINE")
    assert started == []


@WAYS
async def test_process_response_sees_every_kind_of_response(start, way):
    fixed = Response.text(200, "fixed")
    seen = []

    def note(conn, request, response):
        seen.append(response.status)
        response.headers["X-Seen"] = "1"

    server = await start(
        plumews.serve(
            echo,
            "127.0.0.1",
            0,
            process_response=way(note),
            process_request=lambda conn, request: fixed if request.path == "/fixed" else None,
            routes={"/route": lambda request: fixed},
        )
    )
    for head, status in (
        (upgrade("/fixed"), 200),
        (b"GET /route HTTP/1.1\r\nHost: localhost\r\n\r\n", 200),
        (upgrade("/", "Origin: http://evil.com"), 403),
        (upgrade(host="evil.com"), 403),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", 426),
    ):
        got, _, wire = await answer(server, head)
        assert (got, wire.header("x-seen")) == (status, "1")
    assert seen == [200, 200, 403, 403, 426]
    assert "X-Seen" not in fixed.headers  # a copy was changed


async def test_process_response_is_skipped_without_a_request(start):
    seen = []
    server = await start(
        plumews.serve(echo, "127.0.0.1", 0, process_response=lambda conn, request, response: seen.append(response))
    )
    assert (await answer(server, b"\x00"))[0] == 400
    assert seen == []
    assert (await answer(server, upgrade(key="short")))[0] == 400
    assert server._context.requests.refused.snapshot() == {"WEBSOCKET_BAD_REQUEST": 1, "WEBSOCKET_KEY_INVALID": 1}
    assert len(seen) == 1


def raising(conn, request, response):
    raise RuntimeError("broken hook")


def splitting_reason(conn, request, response):
    response.reason = "OK\r\nSet-Cookie: a=1"


def splitting_value(conn, request, response):
    response.headers["X-Echo"] = "a\r\nSet-Cookie: a=1"


def splitting_name(conn, request, response):
    response.headers["X\r\nSet-Cookie"] = "a=1"


def with_nul(conn, request, response):
    response.headers["X-Echo"] = "\0"


def with_body(conn, request, response):
    response.status, response.body = 101, b"body"


def without_accept(conn, request, response):
    response.status = 101
    del response.headers["Sec-WebSocket-Accept"]


def other_accept(conn, request, response):
    response.status = 101
    response.headers["Sec-WebSocket-Accept"] = "another"


def other_subprotocol(conn, request, response):
    response.status = 101
    response.headers["Sec-WebSocket-Protocol"] = "bearer.secret"


def informational(conn, request, response):
    return Response(103)


BROKEN = {
    "raises": raising,
    "returns_text": lambda conn, request, response: "text",
    "row_19_cve_2020_7695_reason_of_two_lines": splitting_reason,
    "row_19_cve_2020_7695_value_of_two_lines": splitting_value,
    "row_19_cve_2020_7695_name_of_two_lines": splitting_name,
    "row_19_nul": with_nul,
    "body_on_101": with_body,
    "informational": informational,
}
BROKEN_UPGRADES = {
    "no_accept": without_accept,
    "two_accepts": other_accept,
    "row_19_echoes_what_it_must_not": other_subprotocol,
}


@WAYS
@pytest.mark.parametrize(
    ("hook", "request_"),
    [
        *(pytest.param(hook, upgrade(), id=f"{name}-101") for name, hook in {**BROKEN, **BROKEN_UPGRADES}.items()),
        *(pytest.param(hook, upgrade(key="short"), id=f"{name}-400") for name, hook in BROKEN.items()),
    ],
)
async def test_broken_process_response_is_500_and_sends_nothing_of_it(start, way, hook, request_, caplog):
    server = await start(plumews.serve(echo, "127.0.0.1", 0, process_response=way(hook)))
    status, body, wire = await answer(server, request_)
    assert (status, word(body)) == (500, "WEBSOCKET_HANDSHAKE_FAILED")
    assert not [name for name, _ in wire.headers if name in ("set-cookie", "x-echo", "sec-websocket-protocol")]
    (entry,) = entries(caplog)
    assert entry.exc_info is not None
    server.close()
    await server.wait_closed()
    assert (server._context.connections, server._context.tasks) == (set(), set())


async def test_process_response_that_refuses_a_refusal_runs_once(start):
    calls = []

    def refuse(conn, request, response):
        calls.append(response.status)
        raise plumews.Refused("instead", code="INSTEAD")

    server = await start(plumews.serve(echo, "127.0.0.1", 0, process_response=refuse))
    status, body, _ = await answer(server, upgrade(key="short"))
    assert (status, word(body), calls) == (403, "INSTEAD", [400])


@pytest.mark.parametrize("request_", [upgrade(), upgrade(key="short")], ids=["101", "400"])
async def test_open_timeout_cancels_a_process_response_that_hangs(start, request_):
    ended = asyncio.Event()

    async def forever(conn, request, response):
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    server = await start(plumews.serve(echo, "127.0.0.1", 0, process_response=forever, open_timeout=0.1))
    status, body, _ = await answer(server, request_)
    assert (status, word(body)) == (408, "WEBSOCKET_HANDSHAKE_TIMEOUT")
    await ended.wait()


@pytest.mark.parametrize("stop", [False, True], ids=["late", "stopping"])
async def test_timeout_and_stop_answer_without_process_response(start, stop):
    asked, hanging, calls = asyncio.Event(), asyncio.Event(), []

    async def forever(*args):
        asked.set()
        await hanging.wait()

    async def respond(*args):
        calls.append(args)
        await hanging.wait()

    server = await start(
        plumews.serve(
            echo,
            "127.0.0.1",
            0,
            process_request=forever,
            process_response=respond,
            open_timeout=PATIENCE if stop else 0.1,
        )
    )
    async with await Wire.connect(server) as wire:
        wire.writer.write(upgrade())
        await asked.wait()
        if stop:
            server.close()
        await wire.read_head()
        assert wire.status == (503 if stop else 408)
    assert calls == []


async def test_frames_before_process_response_returns_are_kept(start):
    asked, decided = asyncio.Event(), asyncio.Event()

    async def slow(conn, request, response):
        asked.set()
        await decided.wait()

    server = await start(plumews.serve(echo, "127.0.0.1", 0, process_response=slow))
    async with await Wire.connect(server) as wire:
        wire.writer.write(upgrade() + text("glued"))
        await asked.wait()
        wire.send(masked(9, b"later"))
        decided.set()
        await wire.read_head()
        assert wire.status == 101
        got = [await wire.event(), await wire.event()]
        assert sorted(got, key=lambda event: event[0]) == [(1, "glued"), (10, b"later")]


async def test_process_request_that_returns_101_is_500(start, caplog):
    server = await start(plumews.serve(echo, "127.0.0.1", 0, process_request=lambda conn, request: Response(101)))
    status, body, _ = await answer(server, upgrade())
    assert (status, word(body)) == (500, "WEBSOCKET_HANDSHAKE_FAILED")
    assert len(entries(caplog)) == 1


# --- select_subprotocol ---------------------------------------------------------------------------


async def test_select_subprotocol_chooses_an_offered_one_or_none(start):
    seen = []

    def select(conn, offered):
        seen.append((conn.request.path, offered))
        return offered[-1] if len(offered) > 1 else None

    server = await start(plumews.serve(echo, "127.0.0.1", 0, select_subprotocol=select))
    wire = await opened(server, "Sec-WebSocket-Protocol: v1, v2", "Sec-WebSocket-Protocol: v3")
    assert wire.header("sec-websocket-protocol") == "v3"
    assert (await opened(server, "Sec-WebSocket-Protocol: v1")).header("sec-websocket-protocol") is None
    assert (await opened(server)).header("sec-websocket-protocol") is None
    assert seen == [("/", ("v1", "v2", "v3")), ("/", ("v1",)), ("/", ())]


async def test_select_subprotocol_that_raises_refuses(start):
    def select(conn, offered):
        raise plumews.InvalidHandshake("speak v2", code="NO_SUBPROTOCOL")

    server = await start(plumews.serve(echo, "127.0.0.1", 0, select_subprotocol=select))
    status, body, _ = await answer(server, upgrade("/", "Sec-WebSocket-Protocol: v1"))
    assert (status, word(body)) == (400, "NO_SUBPROTOCOL")


@pytest.mark.parametrize(
    "select",
    [
        lambda conn, offered: "v2",
        lambda conn, offered: "",
        lambda conn, offered: "v1\r\nSet-Cookie: a=1",
        lambda conn, offered: "v1\0",
        lambda conn, offered: b"v1",
        lambda conn, offered: ["v1"],
        lambda conn, offered: "bearer.secret",
        lambda conn, offered: asyncio.sleep(0, "v1"),
        lambda conn, offered: 1 / 0,
    ],
    ids=["other", "empty", "row_19_cve_2026_1527_crlf", "row_19_nul", "bytes", "list", "bearer", "awaitable", "raises"],
)
@pytest.mark.filterwarnings("error")
async def test_invalid_choice_of_select_subprotocol_is_500(start, select, caplog):
    server = await start(plumews.serve(echo, "127.0.0.1", 0, select_subprotocol=select))
    status, body, wire = await answer(server, upgrade("/", "Sec-WebSocket-Protocol: v1, bearer.secret"))
    assert (status, word(body)) == (500, "WEBSOCKET_HANDSHAKE_FAILED")
    assert wire.header("sec-websocket-protocol") is wire.header("set-cookie") is None
    assert len(entries(caplog)) == 1
    assert "secret" not in caplog.text


def test_select_subprotocol_async_or_beside_a_list_raises():
    async def select(conn, offered):
        return None

    with pytest.raises(TypeError, match="select_subprotocol must be a plain function"):
        plumews.serve(echo, "127.0.0.1", 0, select_subprotocol=select)
    with pytest.raises(TypeError, match="give either subprotocols or select_subprotocol"):
        plumews.serve(echo, "127.0.0.1", 0, select_subprotocol=lambda conn, offered: None, subprotocols=["v1"])
