"""Tests of canceled attempts: at once in every state, nothing of ours stays open, nothing of others is closed."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

import plumews
from plumews import Conn
from support.canceled_connects import cancel_after, cancel_connects, descriptors, pipes
from support.fakes import PATIENCE, echo, tls_contexts, until
from support.hostile_server import Peer, hostile

Start = Callable[[Any], Any]

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="descriptors are counted in /proc")


async def turns_of_the_loop(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


@pytest.mark.parametrize("tls", [False, True])
async def test_attempt_can_be_canceled_in_each_turn(start: Start, tls: bool) -> None:
    ours, theirs = tls_contexts()
    server = await start(plumews.serve(echo, "127.0.0.1", 0, ssl=ours if tls else None))
    port = server.sockets[0].getsockname()[1]
    options: dict[str, Any] = {"ssl": theirs} if tls else {}
    uri = f"wss://localhost:{port}/" if tls else f"ws://127.0.0.1:{port}/"
    async with plumews.connect(uri, **options):  # what is made once is made
        pass
    await until(lambda: not server.connections)
    before = descriptors()
    opened = []
    with pipes():
        for turns in range(60):
            opened.append(await cancel_after(partial(turns_of_the_loop, turns), plumews.connect(uri, **options)))
            with contextlib.suppress(OSError):
                os.close(os.dup(0))  # the next number is that of another
        await until(lambda: not server.connections)
    await until(lambda: descriptors() == before)
    assert not opened[0]
    assert not tls or len(asyncio.all_tasks()) < 10


async def test_canceled_connects_leave_the_descriptors_of_others() -> None:
    assert 0 < await cancel_connects(200, seed=24) < 200


async def test_connection_that_no_caller_got_is_closed() -> None:
    ends = []

    async def play(peer: Peer) -> None:
        task.cancel()  # the caller is gone in the turn in which the answer arrives
        peer.accept()
        ends.append(await peer.gone())

    async with hostile(play) as uri:
        task = asyncio.ensure_future(plumews.connect(uri).__aenter__())
        with pytest.raises(asyncio.CancelledError):
            await task
        await until(lambda: ends)


async def test_answer_in_the_turn_of_a_timeout_leaks_nothing(start: Start) -> None:
    server = await start(plumews.serve(echo, "127.0.0.1", 0))
    uri = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    for microseconds in range(0, 4000, 100):
        with contextlib.suppress(plumews.ConnectTimeout):
            conn = await plumews.connect(uri, open_timeout=(microseconds + 1) / 1e6)
            conn.abort()
    await asyncio.wait_for(until(lambda: not server.connections), PATIENCE)


async def test_cancellation_ends_an_iteration_in_each_state(start: Start) -> None:
    states: list[str] = []

    async def run(uri: str, delays: Any) -> None:
        async for conn in plumews.connect(uri, reconnect_delays=delays):
            states.append("open")
            with contextlib.suppress(plumews.ConnectionClosed):
                await conn.recv()

    server = await start(plumews.serve(echo, "127.0.0.1", 0))
    uri = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    # open
    task = asyncio.ensure_future(run(uri, None))
    await until(lambda: states)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, PATIENCE)
    # between two attempts
    refused = plumews.connect("ws://127.0.0.1:1/", reconnect_delays=[3600])

    async def again() -> None:
        async for _ in refused:
            pass

    task = asyncio.ensure_future(again())
    await until(lambda: refused.last_error is not None)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, PATIENCE)
    assert refused.attempt == 2  # a cancellation is no attempt
    await asyncio.wait_for(until(lambda: not server.connections), PATIENCE)


async def test_wait_for_gets_a_connection_or_a_timeout(start: Start) -> None:
    server = await start(plumews.serve(echo, "127.0.0.1", 0))
    uri = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    conn: Conn = await asyncio.wait_for(plumews.connect(uri), PATIENCE)
    await conn.close()

    async def play(peer: Peer) -> None:
        await peer.gone()

    async with hostile(play) as silent:
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(plumews.connect(silent), 0.05)
