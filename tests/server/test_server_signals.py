"""Servers that stop at a signal, sent to this process."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
import threading

import pytest

import plumews
from plumews.server import server as server_module
from support.fakes import assert_empty, echo
from support.raw_client import Wire, close, text, upgrade

needs_signals = pytest.mark.skipif(sys.platform == "win32", reason="here a signal to this process would end it")


def send_soon(number):
    asyncio.get_running_loop().call_soon(os.kill, os.getpid(), number)


@needs_signals
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("where", ["tcp", "unix"])
async def test_signal_closes_all_with_1001_and_a_hint(tmp_path, number, where):
    before = signal.getsignal(number)
    serving = plumews.serve(echo, "127.0.0.1", 0) if where == "tcp" else plumews.unix_serve(echo, tmp_path / "s")
    heard = []
    async with serving as server, await Wire.open(server) as wire:
        stopped = asyncio.ensure_future(server.serve_until_signal(on_signal=heard.append))
        send_soon(number)
        code, reason = await wire.closing()
        assert code == 1001
        assert re.fullmatch(r"reconnect in \d\.\d s", reason)
        wire.send(close(1001))
        assert await stopped is None
        assert heard == [number]
        assert not server.is_serving()
        assert signal.getsignal(number) is before
    await assert_empty(server)


@needs_signals
async def test_signal_ends_the_members_of_a_room_server_first(monkeypatch):
    monkeypatch.setattr(server_module, "_SHUTDOWN_REST", 0.05)
    async with (
        plumews.Hub() as hub,
        plumews.serve_rooms(hub, plumews.SimpleRoomAuth(), "127.0.0.1", 0) as server,
        await Wire.open(server, "/ws") as member,
        await Wire.open(server, "/members") as silent,
    ):
        stopped = asyncio.ensure_future(server.serve_until_signal(reconnect_in=0))
        member.send(text("before"))
        assert await member.message() == "before"
        hub.broadcast_all("the last word")
        send_soon(signal.SIGTERM)
        assert await member.message() == "the last word"
        assert await member.closing() == (1001, "")
        async with await Wire.connect(server) as late:
            late.writer.write(upgrade("/ws"))
            await late.read_head()
            assert late.status == 503
        member.send(close(1001))
        report = await stopped  # the watcher does not answer, and is cut
        assert (report.closed, report.aborted) == (1, 0)
        assert (await silent.closing())[0] == 1001
        await silent.eof()
    await assert_empty(server)


@needs_signals
async def test_silent_peer_after_a_signal_is_cut_at_the_timeout(caplog):
    async with plumews.serve(echo, "127.0.0.1", 0) as server, await Wire.open(server) as silent:
        stopped = asyncio.ensure_future(server.serve_until_signal(0.1))  # the close timeout is 10 s
        send_soon(signal.SIGTERM)
        await stopped
        assert (await silent.closing())[0] == 1001
        await silent.eof()
    assert [record.getMessage() for record in caplog.records] == [
        "stopping took longer than 0.1 s: what is left is cut"
    ]


@needs_signals
async def test_one_signal_ends_all_servers_of_a_loop(tmp_path):
    before = signal.getsignal(signal.SIGTERM)
    async with plumews.serve(echo, "127.0.0.1", 0) as one, plumews.unix_serve(echo, tmp_path / "s") as two:
        stopped = asyncio.gather(one.serve_until_signal(), two.serve_until_signal())
        send_soon(signal.SIGTERM)
        assert await stopped == [None, None]
        assert not one.is_serving()
        assert not two.is_serving()
        assert signal.getsignal(signal.SIGTERM) is before


async def test_serve_until_signal_ends_when_the_server_is_closed():
    before = signal.getsignal(signal.SIGTERM)
    server = await plumews.serve(echo, "127.0.0.1", 0)
    serving = asyncio.ensure_future(server.serve_until_signal())
    await asyncio.sleep(0)
    assert signal.getsignal(signal.SIGTERM) is not before
    server.close()
    assert await serving is None
    assert signal.getsignal(signal.SIGTERM) is before


async def test_cancelling_serve_until_signal_closes_the_server():
    before = signal.getsignal(signal.SIGTERM)
    server = await plumews.serve(echo, "127.0.0.1", 0)
    serving = asyncio.ensure_future(server.serve_until_signal())
    await asyncio.sleep(0)
    serving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await serving
    assert server._closed.done()
    assert signal.getsignal(signal.SIGTERM) is before


def test_serve_until_signal_off_the_main_thread_raises(anyio_backend):
    said = []

    async def main():
        async with plumews.serve(echo, "127.0.0.1", 0) as server:
            with pytest.raises(RuntimeError, match="main thread") as caught:
                await server.serve_until_signal()
            said.append(str(caught.value))
            assert server.is_serving()

    def run():
        if anyio_backend[1]["use_uvloop"]:
            import uvloop

            uvloop.run(main())
        else:
            asyncio.run(main())

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert said


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"timeout": -1}, ValueError),
        ({"timeout": "10"}, TypeError),
        ({"timeout": 1, "spread": 2}, ValueError),
        ({"reconnect_in": 3601}, ValueError),
        ({"on_signal": asyncio.sleep}, TypeError),
        ({"on_signal": lambda: None}, TypeError),
        ({"on_signal": "stop"}, TypeError),
    ],
)
async def test_serve_until_signal_with_invalid_arguments_raises(start, options, error):
    server = await start(plumews.serve(echo, "127.0.0.1", 0))
    with pytest.raises(error):
        await server.serve_until_signal(**options)
    assert server.is_serving()
