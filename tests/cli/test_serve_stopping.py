"""`plumews serve` when it stops: signals, queued messages, goodbyes, and connections that do not answer."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import ssl
import time
from pathlib import Path
from typing import Any

import pytest

from plumews.constants import Opcode
from support.command import STOP_SIGNALS, Serve, certificate, get, on_one_loop, says_goodbye, status, stopped
from support.raw_client import Wire, close, text


@pytest.mark.parametrize("name", STOP_SIGNALS)
async def test_signal_closes_connections_with_1001_and_exits_0(serve: Serve, name: str) -> None:
    server = serve()
    members = [await Wire.open(server, "/ws?room=a") for _ in range(3)]
    watcher = await Wire.open(server, "/members?room=a")
    assert json.loads(await watcher.message())["members"] == 3
    server.stop(STOP_SIGNALS[name])
    for wire in (*members, watcher):
        await says_goodbye(wire)
    assert server.end() == (0, stopped("3 connections", 0), [])


async def test_messages_queued_before_the_signal_are_delivered(serve: Serve) -> None:
    server = serve("--shutdown-timeout", "1000")
    said = [f"{number:06}" + "x" * 30_000 for number in range(60)]
    async with (
        await Wire.open(server, "/ws?room=a") as ada,
        await Wire.open(server, "/ws?room=a", rcvbuf=4096) as slow,
    ):
        for message in said:  # one after the other: ada's own queue never is full
            ada.send(text(message))
            assert await ada.message() == message
        server.stop(STOP_SIGNALS[next(reversed(STOP_SIGNALS))])
        await says_goodbye(ada)
        for message in said[:30]:  # as far as its queue of 1 MiB reaches, whatever the system's holds
            assert await slow.message() == message
        while (event := await slow.event())[0] != Opcode.CLOSE:
            assert event[1] in said
        slow.send(close(1001))
        await slow.eof()
    code, lines, err = server.end()
    assert (code, err) == (0, [])
    assert re.fullmatch(r"closed 2 connections, cut 0; delivered \d+ messages? that waited, lost 0", lines[1])


@on_one_loop
async def test_messages_not_read_in_time_are_counted_as_lost(serve: Serve) -> None:
    server = serve("--shutdown-timeout", "1", "--send-behavior", "drop")
    async with (
        await Wire.open(server, "/ws?room=a") as ada,
        await Wire.open(server, "/ws?room=a", rcvbuf=4096),
    ):
        for _ in range(120):  # more than the socket and the queue can hold together
            ada.send(text("x" * 60_000))
            await ada.message()
        server.stop()
        await says_goodbye(ada)
        code, lines, err = server.end()
    assert code == 0
    logged = r".* WARNING plumews\.hub: slow members: \d+ messages dropped, 1 members concerned, 0 of them closed"
    assert err
    assert all(re.fullmatch(logged, line) for line in err)
    counts = re.fullmatch(r"closed 1 connection, cut 1; delivered 0 messages that waited, lost (\d+)", lines[1])
    assert counts, lines
    assert 0 < int(counts[1]) <= 64


@on_one_loop
async def test_shutdown_spread_spreads_the_close_frames(serve: Serve) -> None:
    server = serve("--shutdown-spread", "0.5", "--reconnect-in", "60")
    members = [await Wire.open(server, "/ws") for _ in range(10)]
    server.stop()
    began = time.monotonic()
    times: list[float] = []

    async def leave(wire: Wire) -> None:
        await says_goodbye(wire, 60)
        times.append(time.monotonic() - began)

    await asyncio.gather(*map(leave, members))
    assert server.end()[:2] == (0, stopped("10 connections", 0))
    assert max(times) - min(times) > 0.2


@on_one_loop
async def test_reconnect_in_0_sends_no_hint(serve: Serve) -> None:
    server = serve("--reconnect-in", "0")
    async with await Wire.open(server, "/ws") as wire:
        server.stop()
        assert await wire.closing() == (1001, "")
        wire.send(close(1001))
        await wire.eof()
    assert server.end()[0] == 0


@pytest.mark.parametrize("name", STOP_SIGNALS)
async def test_second_signal_ends_the_process_at_once(serve: Serve, name: str) -> None:
    server = serve()
    async with await Wire.open(server, "/ws") as wire:
        server.stop(STOP_SIGNALS[name])
        assert server.line() == "stopping; a second Ctrl-C ends at once"
        assert (await wire.closing())[0] == 1001  # which this client does not answer
        server.stop(STOP_SIGNALS[name])
        number = {"SIGINT": 2, "SIGTERM": 15, "CTRL_BREAK_EVENT": 21}[name]
        assert server.end() == (128 + number, [], [])


async def test_member_that_does_not_answer_is_cut_at_the_timeout(serve: Serve) -> None:
    server = serve("--shutdown-timeout", "1.5")  # in which the polite one has to be heard
    async with await Wire.open(server, "/ws") as silent, await Wire.open(server, "/ws") as polite:
        server.stop()
        await polite.closing()
        polite.send(close(1001))
        assert (await silent.closing())[0] == 1001
        await silent.eof()
    assert server.end()[:2] == (0, stopped("1 connection", 1))


@on_one_loop
async def test_connection_without_a_request_does_not_delay_the_stop(serve: Serve) -> None:
    server = serve("--shutdown-timeout", "1000")
    async with await Wire.connect(server) as wire:
        assert (await get(server, "/healthz"))[0] == 200  # by now the connection before it was accepted
        began = time.monotonic()
        server.stop()
        assert server.end() == (0, stopped("0 connections", 0), [])
        assert time.monotonic() - began < 9  # the 10 s for a close are not waited for
        await wire.read_head()
        assert wire.status == 503  # not 408, which it would be told when its time was over


@on_one_loop
@pytest.mark.parametrize("tls", [False, True])
async def test_signal_ends_handshakes_before_members_answer(serve: Serve, tmp_path: Path, tls: bool) -> None:
    options: dict[str, Any] = {}
    files: tuple[str, ...] = ()
    if tls:
        cert, key = certificate(tmp_path)
        files = ("--tls-cert", str(cert), "--tls-key", str(key))
        options = {"ssl": ssl.create_default_context(cafile=str(cert)), "server_hostname": "localhost"}
    server = serve("--shutdown-timeout", "1000", *files)
    async with (
        await Wire.connect(server) as bare,
        await Wire.connect(server, **options) as half,
        await Wire.open(server, "/ws", **options) as member,
        await Wire.open(server, "/ws?auth=message", **options) as first,
    ):
        half.send(b"GET /healthz HTTP/1.1\r\n")
        server.stop()
        assert (await half.response(b""))[0] == 503
        code, reason = await first.closing()
        assert (code, reason.partition(" in ")[0]) == (1001, "reconnect")
        with contextlib.suppress(ConnectionError):
            assert (await bare.reader.read()).startswith(b"" if tls else b"HTTP/1.1 503 ")
        await says_goodbye(member)
    assert server.end() == (0, stopped("1 connection", 0), [])


@on_one_loop
async def test_silent_watcher_does_not_delay_the_stop(serve: Serve) -> None:
    server = serve("--shutdown-timeout", "1000")
    async with await Wire.open(server, "/members") as silent:
        began = time.monotonic()
        server.stop()
        assert (await silent.closing())[0] == 1001
        assert server.end() == (0, stopped("0 connections", 0), [])
        assert time.monotonic() - began < 9  # the 10 s for a close are not waited for


async def test_new_client_during_the_stop_gets_503(serve: Serve) -> None:
    server = serve()
    async with await Wire.open(server, "/ws") as wire:
        server.stop()
        await wire.closing()
        assert await status(server, "/ws") == 503
