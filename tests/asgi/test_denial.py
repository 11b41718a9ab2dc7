"""Denial responses: refusals by close, and HTTP responses of the application, whole and streamed."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from fastapi import FastAPI, HTTPException, WebSocket
from starlette.responses import JSONResponse, StreamingResponse

from plumews.asgi import ClientDisconnected
from support.fakes import ticks, until
from support.raw_client import Wire, text, upgrade
from support.uvicorn_setup import CLOSE, echo, errors

BODY = "websocket.http.response.body"


def start(status: int = 403, *headers: tuple[bytes, bytes]) -> dict[str, Any]:
    return {"type": "websocket.http.response.start", "status": status, "headers": headers}


async def denied(run: Any, *events: Any, http: str = "httptools") -> tuple[int, bytes, Wire]:
    """The status, body and connection of a request whose application sends ``events`` and returns."""
    received = []

    async def app(scope, receive, send):
        assert (await receive())["type"] == "websocket.connect"
        for event in events:
            await send(event)
        received.append(await receive())

    server = await run(app, http=http)
    async with await Wire.connect(server) as wire:
        status, body = await wire.response(upgrade())
    await until(lambda: not server.state.connections and not server.state.tasks)
    assert received == [{"type": "websocket.disconnect", "code": 1006}]
    return status, body, wire


async def test_a_close_before_accept_is_403(run, http, caplog):
    status, body, wire = await denied(run, CLOSE, http=http)
    assert (status, body) == (403, b"")
    assert wire.header("server") == "uvicorn"
    assert wire.header("content-length") == "0"
    assert wire.header("connection") == "close"
    assert "accept" not in caplog.text


@pytest.mark.parametrize(("event", "code"), [({"code": 4401}, 4401), ({"reason": "no"}, 1000), ({"code": 1008}, 1008)])
async def test_the_log_names_a_code_that_could_not_be_sent(run, caplog, event, code):
    status, _, _ = await denied(run, {**CLOSE, **event})
    assert status == 403
    assert f"close code {code} was not sent" in caplog.text
    assert "accept first, then close" in caplog.text


async def test_a_body_in_one_event_has_a_length(run, http):
    status, body, wire = await denied(run, start(401, (b"X-Why", b"token")), {"type": BODY, "body": b"no"}, http=http)
    assert (status, body) == (401, b"no")
    assert wire.header("content-length") == "2"
    assert wire.header("x-why") == "token"
    assert wire.header("date")
    assert wire.header("connection") == "close"
    assert wire.header("transfer-encoding") is None


async def test_a_body_in_parts_is_streamed_in_chunks(run, http):
    go_on = asyncio.Event()

    async def app(scope, receive, send):
        await send(start(403))
        await send({"type": BODY, "body": b"one", "more_body": True})
        await go_on.wait()
        await send({"type": BODY, "body": b"", "more_body": True})
        await send({"type": BODY, "body": b"two"})

    server = await run(app, http=http)
    async with await Wire.connect(server) as wire:
        wire.send(upgrade())
        await wire.read_head()
        assert wire.status == 403
        assert wire.header("transfer-encoding") == "chunked"
        assert await wire.reader.readexactly(8) == b"3\r\none\r\n"
        go_on.set()
        assert await wire.reader.read() == b"3\r\ntwo\r\n0\r\n\r\n"


async def test_a_given_length_is_kept(run):
    length = (b"content-length", b"6")
    parts = [{"type": BODY, "body": b"one", "more_body": True}, {"type": BODY, "body": b"two"}]
    status, body, wire = await denied(run, start(400, length), *parts)
    assert (status, body) == (400, b"onetwo")
    assert [value for name, value in wire.headers if name == "content-length"] == ["6"]
    assert wire.header("transfer-encoding") is None


async def test_a_body_longer_than_its_length_is_cut(run, caplog):
    async def app(scope, receive, send):
        await send(start(400, (b"content-length", b"2")))
        with pytest.raises(RuntimeError, match="longer than Content-Length"):
            await send({"type": BODY, "body": b"123"})

    server = await run(app)
    async with await Wire.connect(server) as wire:
        assert await wire.response(upgrade()) == (400, b"12")


@pytest.mark.parametrize("status", [204, 304])
async def test_a_bodiless_status_has_no_body(run, status):
    answered, body, wire = await denied(run, start(status), {"type": BODY, "body": b"ignored"})
    assert (answered, body) == (status, b"")
    assert wire.header("content-length") is None


@pytest.mark.parametrize("fails", [False, True])
async def test_the_head_goes_without_a_body(run, http, caplog, fails):
    async def app(scope, receive, send):
        await send(start(404, (b"Content-Length", b"0")))
        if fails:
            raise ValueError("a mistake")

    server = await run(app, http=http)
    async with await Wire.connect(server) as wire:
        assert await wire.response(upgrade()) == (404, b"")
        assert [value for name, value in wire.headers if name == "content-length"] == ["0"]
    assert errors(caplog) == (["Exception in ASGI application\n"] if fails else [])


async def test_an_unfinished_stream_ends_without_its_last_chunk(run):
    async def app(scope, receive, send):
        await send(start(404))
        await send({"type": BODY, "body": b"half", "more_body": True})

    server = await run(app)
    async with await Wire.connect(server) as wire:
        assert await wire.response(upgrade()) == (404, b"4\r\nhalf\r\n")


async def test_a_second_start_is_an_error_in_the_words_of_uvicorn(run):
    told = []

    async def app(scope, receive, send):
        await send(start(404, (b"Content-Length", b"0")))
        with pytest.raises(RuntimeError) as caught:
            await send(start(404))
        told.append(str(caught.value))

    server = await run(app)
    async with await Wire.connect(server) as wire:
        assert await wire.response(upgrade()) == (404, b"")
    assert told == ["Expected ASGI message 'websocket.http.response.body' but got 'websocket.http.response.start'."]


@pytest.mark.parametrize(
    "event",
    [start(700), start(101), start(100), start(403, (b"x", b"a\r\nb: c")), start(403, (b"content-length", b"x"))],
)
async def test_a_response_that_cannot_be_sent_is_500(run, caplog, event):
    async def app(scope, receive, send):
        await send(event)

    server = await run(app)
    async with await Wire.connect(server) as wire:
        assert await wire.response(upgrade()) == (500, b"Internal Server Error")
    assert errors(caplog) == ["Exception in ASGI application\n"]


async def test_a_header_of_the_server_that_cannot_be_sent_ends_all(run, http):
    server = await run(echo, http=http, headers=[("X", "a\r\nb: c")])
    for request in (upgrade(), upgrade(key="short")):
        async with await Wire.connect(server) as wire:
            wire.send(request)
            await wire.eof()
    await until(lambda: not server.state.connections and not server.state.tasks)


@pytest.mark.parametrize("body", ["text", 5, [1, 2]])
async def test_a_body_that_is_not_bytes_is_an_error(run, body):
    async def app(scope, receive, send):
        await send(start(403))
        with pytest.raises(TypeError, match="must be bytes"):
            await send({"type": "websocket.http.response.body", "body": body})

    server = await run(app)
    async with await Wire.connect(server) as wire:
        assert await wire.response(upgrade()) == (403, b"")


async def test_a_streamed_denial_waits_for_the_client(run, caplog):
    sent = []
    failed = []

    async def app(scope, receive, send):
        await send(start(403))
        try:
            while True:
                await send({"type": BODY, "body": b"x" * 100_000, "more_body": True})
                sent.append(1)
        except OSError as exc:
            failed.append(exc)

    server = await run(app)
    async with await Wire.connect(server, rcvbuf=4096) as wire:
        wire.send(upgrade())
        await until(lambda: server.conns and server.conns[0]._paused)
        before = len(sent)
        await ticks(100)
        assert len(sent) <= before + 1
        wire.reset()
    await until(lambda: not server.state.connections and not server.state.tasks)
    assert [type(exc) for exc in failed] == [ClientDisconnected]
    assert errors(caplog) == []


async def test_frames_behind_a_denied_request_are_discarded(run):
    async def app(scope, receive, send):
        await receive()
        await until(lambda: any(each._rest for each in server.state.connections))
        await send(CLOSE)

    server = await run(app)
    async with await Wire.connect(server) as wire:
        wire.send(upgrade())
        wire.send(*[text("x" * 1000)] * 500)
        await wire.read_head()
        assert wire.status == 403
        assert await wire.reader.read() == b""


async def test_fastapi_denies_by_response_and_by_error(run):
    app = FastAPI()

    @app.websocket("/json")
    async def by_response(websocket: WebSocket):
        await websocket.send_denial_response(JSONResponse({"why": "token"}, status_code=401))

    @app.websocket("/stream")
    async def by_stream(websocket: WebSocket):
        await websocket.send_denial_response(StreamingResponse(iter(["a", "b"]), status_code=429))

    @app.websocket("/error")
    async def by_error(websocket: WebSocket):
        raise HTTPException(418, "teapot")

    server = await run(app)
    expected = {
        "/json": (401, b'{"why":"token"}'),
        "/stream": (429, b"1\r\na\r\n1\r\nb\r\n0\r\n\r\n"),
        "/error": (418, b'{"detail":"teapot"}'),
        "/unknown": (403, b""),
    }
    for path, answer in expected.items():
        async with await Wire.connect(server) as wire:
            assert await wire.response(upgrade(path)) == answer
