"""Stop of uvicorn: what clients and applications get, and in what time."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from typing import Any

import pytest

from plumews.asgi.shutdown import ShutdownQueue
from plumews.transport.timers import clock
from support.fakes import until
from support.raw_client import Wire, close, upgrade
from support.uvicorn_setup import ACCEPT, echo, errors, text


async def test_open_connections_get_1012_behind_their_queue(run, http):
    async def app(scope, receive, send):
        await send(ACCEPT)
        for number in range(20):
            await scope["extensions"]["plumews"]["conn"].send(f"queued {number}" * 1000)
        events.extend([await receive(), await receive()])
        with pytest.raises(OSError, match="closed"):
            await send(text("too late"))

    events: list[Any] = []
    server = await run(app, http=http)
    async with await Wire.open(server) as wire:
        stopping = asyncio.ensure_future(server.stop())
        assert [await wire.message() for _ in range(20)] == [f"queued {number}" * 1000 for number in range(20)]
        assert await wire.closing() == (1012, "")
        wire.send(close(1012))
        await stopping
    assert events == [{"type": "websocket.connect"}, {"type": "websocket.disconnect", "code": 1012}]


async def test_requests_without_an_answer_get_503(run, http, caplog):
    events: list[Any] = []

    async def app(scope, receive, send):
        events.extend([await receive(), await receive()])
        with pytest.raises(OSError, match="closed"):
            await send(ACCEPT)

    server = await run(app, http=http)
    async with await Wire.connect(server) as wire:
        wire.send(upgrade())
        await until(lambda: server.state.tasks)
        stopping = asyncio.ensure_future(server.stop())
        await wire.read_head()
        assert wire.status == 503
        assert b"the server is stopping" in await wire.reader.read()
        await stopping
    assert events[1] == {"type": "websocket.disconnect", "code": 1006}
    assert errors(caplog) == []


async def test_finally_blocks_run_within_the_bound(run, caplog):
    """Of an application that receives, of one that sleeps, and of one whose client does not answer."""
    done: list[str] = []

    async def app(scope, receive, send):
        await send(ACCEPT)
        try:
            if scope["path"] == "/sleeps":
                await asyncio.Event().wait()
            while (await receive())["type"] != "websocket.disconnect":
                pass
        finally:
            done.append(scope["path"])

    server = await run(app, timeout_graceful_shutdown=1)
    async with contextlib.AsyncExitStack() as stack:
        for path in ("/receives", "/sleeps", "/unanswered"):
            wire = await stack.enter_async_context(await Wire.open(server, path))
            if path != "/unanswered":
                stack.callback(asyncio.ensure_future(answer(wire)).cancel)
        started = asyncio.get_running_loop().time()
        await server.stop()
        await until(lambda: len(done) == 3)
        assert asyncio.get_running_loop().time() - started < 3
    assert done[0] == "/receives"
    assert "Exception in ASGI application" not in caplog.text


async def answer(wire: Wire) -> None:
    with contextlib.suppress(EOFError, ConnectionError):
        code, reason = await wire.closing()
        wire.send(close(code, reason))
        await wire.eof()


async def test_a_failing_connection_does_not_keep_the_next_open(run, caplog):
    reported: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: reported.append(context))
    server = await run(echo)
    async with contextlib.AsyncExitStack() as stack:
        wires = [await stack.enter_async_context(await Wire.open(server)) for _ in range(5)]
        failing = next(iter(server.state.connections))

        class Failing:
            def stop(self) -> None:
                raise RuntimeError("a mistake")

            def gone(self) -> None:
                pass

        failing._application = Failing()
        stopping = asyncio.ensure_future(server.stop())
        other = [wire for wire in wires if wire.writer.get_extra_info("sockname") != failing._conn.remote_address]
        assert len(other) == 4
        for wire in other:
            assert await wire.closing() == (1012, "")
            wire.send(close(1012))
        failing._conn.abort()
        await stopping
    assert [type(context["exception"]) for context in reported] == [RuntimeError]


async def test_an_idle_server_stops_at_once(run):
    server = await run(echo)
    async with await Wire.open(server):
        pass
    await until(lambda: not server.state.connections)
    started = asyncio.get_running_loop().time()
    await server.stop()
    assert asyncio.get_running_loop().time() - started < 0.5


async def test_queue_closes_in_slices():
    loop = asyncio.get_running_loop()
    queue, closed = ShutdownQueue(), []
    ticks: list[int] = []

    def slow(number: int) -> None:
        started = clock()
        while clock() - started < 0.001:
            pass
        closed.append(number)

    def tick() -> None:
        ticks.append(len(closed))
        if len(closed) < 100:
            loop.call_soon(tick)

    for number in range(100):
        queue.add(lambda number=number: slow(number), loop)
    loop.call_soon(tick)
    await until(lambda: len(closed) == 100)
    assert closed == list(range(100))
    assert len(set(ticks)) > 3


def test_queue_outlives_a_loop_that_ends_before_it_is_empty():
    queue, closed = ShutdownQueue(), []
    for name in ("of the ended loop", "of the next"):
        loop = asyncio.new_event_loop()
        queue.add(lambda name=name: closed.append(name), loop)
        if name == "of the next":
            loop.run_until_complete(asyncio.sleep(0))
        loop.close()
    assert closed == ["of the next"]


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
@pytest.mark.parametrize("body", ["compiled", "pure"])
async def test_sigterm_of_the_command_closes_with_1012(tmp_path, body):
    (tmp_path / "program.py").write_text(
        "async def app(scope, receive, send):\n"
        "    await receive()\n"
        "    await send({'type': 'websocket.accept'})\n"
        "    try:\n"
        "        while (await receive())['type'] != 'websocket.disconnect':\n"
        "            pass\n"
        "    finally:\n"
        "        print('finally', flush=True)\n"
    )
    command = [sys.executable, "-m", "uvicorn", "program:app", "--ws", "plumews.asgi:PlumeProtocol", "--port", "0"]
    environ = {**os.environ, "PLUMEWS_PURE": "1" if body == "pure" else "", "PYTHONUNBUFFERED": "1"}
    process = await asyncio.create_subprocess_exec(
        *command, "--lifespan", "off", cwd=tmp_path, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    try:
        assert process.stdout is not None
        said = b""
        while b"running on http://127.0.0.1:" not in said:
            said += await process.stdout.readline()
        port = int(said.rpartition(b"127.0.0.1:")[2].split()[0])
        wire = Wire(*await asyncio.open_connection("127.0.0.1", port))
        async with wire:
            wire.send(upgrade())
            await wire.read_head()
            assert wire.status == 101
            process.send_signal(signal.SIGTERM)
            assert await wire.closing() == (1012, "")
            wire.send(close(1012))
            await wire.eof()
        rest = await process.stdout.read()
        assert b"finally" in rest
        assert b"Traceback" not in rest
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
