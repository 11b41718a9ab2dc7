"""Telling a client on a bare socket why it is turned away: it can read it, and few wait, and none for long."""

from __future__ import annotations

import asyncio
import json
import socket

import pytest

import plumews
from plumews import limits
from plumews.errors import Refused
from plumews.server.turning_away import RejectedSockets
from plumews.transport.timers import Timers
from support.fakes import FakeLoop, echo, until
from support.listener_setup import answer, refused
from support.raw_client import Wire, upgrade


async def test_a_client_that_has_sent_much_before_it_listens_reads_its_answer_all_the_same(start):
    server = await start(plumews.serve(echo, "127.0.0.1", 0, max_connections=1))
    async with await Wire.open(server), await Wire.connect(server) as wire:
        wire.writer.write(upgrade("/", "X-Long: " + "x" * 12_000))
        await until(lambda: refused(server))
        await asyncio.sleep(0)
        assert await answer(wire) == (503, "WEBSOCKET_TOO_MANY_CONNECTIONS")


async def test_a_bounded_number_is_waited_for_and_not_for_long(start, monkeypatch):
    monkeypatch.setattr(limits, "LINGERING", 3)
    monkeypatch.setattr(limits, "LINGER_TIME", 0.2)
    monkeypatch.setattr(limits, "LINGER_EVERY", 0.02)
    server = await start(plumews.serve(echo, "127.0.0.1", 0, max_connections=1))
    waiting = server._listener._turning_away._waiting
    async with await Wire.open(server):
        wires = [await Wire.connect(server) for _ in range(10)]  # they do not hang up
        await until(lambda: refused(server).get("WEBSOCKET_TOO_MANY_CONNECTIONS") == 10)
        assert len(waiting) == 3
        for wire in wires:
            assert await answer(wire) == (503, "WEBSOCKET_TOO_MANY_CONNECTIONS")
        await until(lambda: not server._listener._turning_away._waiting)
        for wire in wires:
            wire.writer.close()


# --- without a server -----------------------------------------------------------------------------

FULL = Refused("too many connections", status=503, code="WEBSOCKET_TOO_MANY_CONNECTIONS")


@pytest.fixture
def loop():
    return FakeLoop()


@pytest.fixture
def turning_away(loop):
    made = RejectedSockets(Timers(loop))
    yield made
    made.close()


@pytest.fixture
def pair():
    ours, theirs = socket.socketpair()
    theirs.settimeout(10)
    with ours, theirs:
        yield ours, theirs


def read_to_the_end(sock):
    return b"".join(iter(lambda: sock.recv(65536), b""))


def is_closed(sock):
    return sock.fileno() == -1


def test_a_client_reads_the_whole_answer_and_the_end_before_it_hangs_up(turning_away, pair):
    ours, theirs = pair
    turning_away.answer(ours, FULL)
    head, body = read_to_the_end(theirs).split(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 503 ")
    assert json.loads(body)["error"]["code"] == "WEBSOCKET_TOO_MANY_CONNECTIONS"
    assert not is_closed(ours)


def test_who_hangs_up_is_closed_at_the_next_look_and_who_does_not_when_its_time_is_over(turning_away, pair, loop):
    ours, theirs = pair
    other, stays = socket.socketpair()
    for sock in (ours, other):
        turning_away.answer(sock, FULL)
    stays.send(b"x" * 1000)  # what it says is thrown away
    theirs.close()
    loop.advance(limits.LINGER_EVERY)
    assert (is_closed(ours), is_closed(other)) == (True, False)
    loop.advance(limits.LINGER_TIME - 2 * limits.LINGER_EVERY)
    assert not is_closed(other)
    loop.advance(2 * limits.LINGER_EVERY)
    assert is_closed(other)
    assert loop.armed == []
    stays.close()


def test_whose_descriptor_is_needed_is_told_and_not_waited_for(turning_away, pair, loop):
    ours, theirs = pair
    turning_away.answer(ours, FULL, wait=False)
    assert is_closed(ours)
    assert b"WEBSOCKET_TOO_MANY_CONNECTIONS" in read_to_the_end(theirs)
    assert loop.armed == []


def test_who_has_gone_already_is_told_nothing_and_is_closed(turning_away, pair, loop):
    ours, theirs = pair
    theirs.close()
    turning_away.answer(ours, FULL)
    assert is_closed(ours)
    assert loop.armed == []


def test_beyond_the_bound_nobody_is_waited_for(turning_away, monkeypatch):
    monkeypatch.setattr(limits, "LINGERING", 2)
    pairs = [socket.socketpair() for _ in range(4)]
    for ours, _ in pairs:
        turning_away.answer(ours, FULL)
    assert [is_closed(ours) for ours, _ in pairs] == [False, False, True, True]
    turning_away.close()
    assert all(is_closed(ours) for ours, _ in pairs)
    for _, theirs in pairs:
        theirs.close()


async def test_who_waits_until_nobody_is_waited_for_is_told_at_the_end_and_by_a_close(pair, loop):
    turning_away = RejectedSockets(Timers(loop))
    await turning_away.wait_idle()  # nobody is
    for end in (lambda: loop.advance(limits.LINGER_TIME + limits.LINGER_EVERY), turning_away.close):
        ours, theirs = socket.socketpair()
        turning_away.answer(ours, FULL)
        waiting = [asyncio.ensure_future(turning_away.wait_idle()) for _ in range(2)]
        await asyncio.sleep(0)
        waiting.pop().cancel()  # who gives up does not end it for the others
        await asyncio.sleep(0)
        assert not waiting[0].done()
        end()
        await waiting[0]
        theirs.close()
