"""Keepalive against a clock that the test moves: pings, silence, stalls and acknowledged bytes."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from typing import Any

import pytest

import plumews
from plumews import ConnectionClosedError
from plumews.conn.keepalive import Keepalive
from plumews.transport.timers import Timers
from support.fakes import FakeLoop, deadlines


class Peer:
    """Peer as a keepalive sees it."""

    def __init__(self, *, ping_period: float | None = 20, pong_wait: float | None = 30, answers: bool = True) -> None:
        self.loop = FakeLoop()
        self.answers = answers
        self.pings: list[float] = []
        self.payloads: list[bytes] = []
        self.died: list[float] = []
        self.progress: Callable[[], tuple[int, int]] | None = None
        self.timers = Timers(self.loop)  # type: ignore[arg-type]
        self.keepalive = Keepalive(self.timers, self, ping_period=ping_period, pong_wait=pong_wait)
        self.started = self.loop.now
        self.keepalive.start(self.loop.now)

    def _give_up(self) -> None:
        self.died.append(self.loop.now)

    def _progress(self) -> tuple[int, int] | None:
        return self.progress() if self.progress is not None else None

    def _send_ping(self, payload: bytes) -> None:
        self.pings.append(self.loop.now)
        self.payloads.append(payload)
        if self.answers:
            self.sends_something()
            self.keepalive.pong(payload)

    def sends_something(self) -> None:
        self.keepalive.last_received = self.loop.now


# --- pings ----------------------------------------------------------------------------------------


def test_pings_leave_every_period_give_or_take_a_tenth() -> None:
    peer = Peer()
    peer.loop.advance(3600)
    gaps = [after - before for before, after in zip([peer.started, *peer.pings], peer.pings, strict=False)]
    assert 3600 / 22 <= len(gaps) <= 3600 / 18
    assert all(17.99 <= gap <= 22.01 for gap in gaps)
    assert max(gaps) - min(gaps) > 1  # connections that were opened together do not ping together
    assert peer.died == []


def test_probe_is_a_ping_at_once_with_the_usual_timeout() -> None:
    peer = Peer(answers=False)
    peer.loop.advance(1)
    peer.keepalive.probe()
    assert peer.pings == [peer.loop.now]
    peer.loop.advance(9.9)
    assert peer.died == []
    peer.loop.advance(0.2)
    assert len(peer.died) == 1


def test_probe_that_is_answered_changes_nothing_else() -> None:
    peer = Peer()
    peer.keepalive.probe()
    peer.loop.advance(3600)
    assert peer.died == []
    assert 3600 / 22 <= len(peer.pings) <= 3600 / 18 + 1


def test_without_a_period_a_probe_sends_nothing() -> None:
    peer = Peer(ping_period=None, pong_wait=None)
    peer.keepalive.probe()
    assert (peer.pings, peer.loop.armed) == ([], [])


def test_without_a_period_no_ping_leaves() -> None:
    peer = Peer(ping_period=None, pong_wait=None)
    peer.loop.advance(100_000)
    assert peer.pings == []
    assert peer.loop.armed == []
    assert peer.died == []


def test_each_ping_has_a_random_payload() -> None:
    peer = Peer()
    peer.loop.advance(3600)
    assert len(set(peer.payloads)) == len(peer.payloads)
    assert {len(payload) for payload in peer.payloads} == {4}


def test_unanswered_pings_do_not_accumulate() -> None:
    peer = Peer(ping_period=1, pong_wait=None, answers=False)
    peer.loop.advance(1000)
    assert len(peer.pings) > 900
    assert len(peer.keepalive._outstanding) == 1


def test_ping_leaves_before_the_pong_wait_ends() -> None:
    for _ in range(50):
        peer = Peer(ping_period=10, pong_wait=10.1)
        peer.loop.advance(10.09)
        assert len(peer.pings) >= 1


# --- silent peers ---------------------------------------------------------------------------------


def test_silent_peer_ends_after_pong_wait_and_second_look() -> None:
    peer = Peer(answers=False)
    peer.loop.advance(29.99)
    assert peer.died == []
    peer.loop.advance(0.1)
    assert len(peer.died) == 1
    assert 30 <= peer.died[0] - peer.started <= 30.1


def test_answering_peer_stays_connected() -> None:
    peer = Peer()
    peer.loop.advance(86_400)
    assert peer.died == []


def test_any_byte_is_a_sign_of_life() -> None:
    """The pong of a busy peer comes behind its data."""
    peer = Peer(answers=False)
    for _ in range(20):
        peer.loop.advance(29)
        peer.sends_something()
    assert peer.died == []
    peer.loop.advance(31)
    assert len(peer.died) == 1


def test_a_byte_between_the_first_and_the_second_look_saves() -> None:
    peer = Peer(ping_period=None, pong_wait=30, answers=False)
    peer.loop.advance(30.005)
    peer.sends_something()
    saved = peer.loop.now
    peer.loop.advance(29)
    assert peer.died == []
    peer.loop.advance(2)
    assert peer.died[0] - saved >= 30.015  # there is a second look the next time, too


@pytest.mark.parametrize("at", [0.1, 5, 19, 25, 29.9])
def test_row_31_stall_of_the_loop_ends_no_peer(at: float) -> None:
    """Its bytes are unread in the socket, and a ping that did not leave has no pong."""
    peer = Peer()
    peer.loop.advance(at)
    for _ in range(3):
        peer.loop.stall(40)
        peer.loop.advance(0.3)
    peer.loop.advance(100)
    assert peer.died == []


@pytest.mark.parametrize("at", [0.1, 5, 17.9])
def test_row_31_pong_of_a_ping_after_a_stall_gets_its_time(at: float) -> None:
    """A round trip takes longer than the second look."""
    peer = Peer(answers=False)
    peer.loop.advance(at)
    peer.loop.stall(45)
    asked = peer.loop.now
    peer.loop.advance(5)
    assert peer.pings
    assert peer.pings[-1] - asked < 0.1
    assert peer.died == []
    peer.sends_something()
    peer.loop.advance(10)
    assert peer.died == []


def test_stall_does_not_save_a_silent_peer() -> None:
    peer = Peer(answers=False)
    peer.loop.stall(100)
    peer.loop.advance(31)
    assert len(peer.died) == 1


def test_no_peer_ends_while_reading_is_paused() -> None:
    peer = Peer(answers=False)
    peer.keepalive.listening = False
    peer.loop.advance(1000)
    assert peer.died == []
    peer.keepalive.heard_again(peer.loop.now)
    peer.loop.advance(29)
    assert peer.died == []
    peer.loop.advance(2)
    assert len(peer.died) == 1


def test_silence_counts_from_resumed_reading_without_pings() -> None:
    peer = Peer(ping_period=None, pong_wait=30)
    peer.keepalive.listening = False
    peer.loop.advance(100)
    peer.keepalive.heard_again(peer.loop.now)
    peer.loop.advance(31)
    assert len(peer.died) == 1
    assert 30 <= peer.died[0] - peer.started - 100 <= 30.1


def test_no_peer_ends_without_a_pong_wait() -> None:
    peer = Peer(pong_wait=None, answers=False)
    peer.loop.advance(100_000)
    assert peer.died == []
    assert peer.pings


def test_silent_peer_ends_without_pings() -> None:
    peer = Peer(ping_period=None, pong_wait=5)
    peer.loop.advance(6)
    assert peer.pings == []
    assert len(peer.died) == 1


# --- settings that change -------------------------------------------------------------------------


def test_a_shorter_period_is_effective_at_once() -> None:
    peer = Peer()
    peer.keepalive.configure(peer.loop.now, ping_period=1, pong_wait=30)
    peer.loop.advance(1.2)
    assert len(peer.pings) == 1


def test_a_longer_period_is_effective_at_once() -> None:
    peer = Peer(pong_wait=None)
    peer.loop.advance(15)
    peer.keepalive.configure(peer.loop.now, ping_period=100, pong_wait=None)
    peer.loop.advance(80)
    assert peer.pings == []
    peer.loop.advance(31)
    assert len(peer.pings) == 1


def test_a_shorter_pong_wait_is_effective_at_once() -> None:
    peer = Peer(answers=False)
    peer.loop.advance(10)
    peer.keepalive.configure(peer.loop.now, ping_period=5, pong_wait=8)
    peer.loop.advance(0.1)
    assert len(peer.died) == 1


def test_a_longer_pong_wait_is_effective_at_once() -> None:
    peer = Peer(answers=False)
    peer.loop.advance(29)
    peer.keepalive.configure(peer.loop.now, ping_period=20, pong_wait=60)
    peer.loop.advance(30.9)
    assert peer.died == []
    peer.loop.advance(0.2)
    assert len(peer.died) == 1


def test_pings_can_be_switched_off_and_on() -> None:
    peer = Peer()
    peer.keepalive.configure(peer.loop.now, ping_period=None, pong_wait=None)
    peer.loop.advance(1000)
    assert (peer.pings, peer.died) == ([], [])
    peer.keepalive.configure(peer.loop.now, ping_period=2, pong_wait=None)
    peer.loop.advance(2.3)
    assert len(peer.pings) == 1


async def test_times_can_be_set_before_the_connection_is_open() -> None:
    conn = plumews.Conn(plumews.ConnConfig())
    conn.ping_period = 5
    conn.pong_wait = 7
    assert (conn.ping_period, conn.pong_wait) == (5, 7)
    assert deadlines() == 0


def test_wrong_times_are_refused_and_change_nothing() -> None:
    peer = Peer()
    for period, wait in [(30, 30), (0, 30), (-1, 30), (40, 30), (float("nan"), 30)]:
        with pytest.raises(ValueError, match="ping_period"):
            peer.keepalive.configure(peer.loop.now, ping_period=period, pong_wait=wait)
    assert (peer.keepalive.ping_period, peer.keepalive.pong_wait) == (20, 30)
    peer.loop.advance(1000)
    assert peer.died == []


def test_stopped_keepalive_does_nothing() -> None:
    peer = Peer(answers=False)
    peer.keepalive.stop(lambda: ConnectionClosedError(None, None))
    assert len(peer.timers) == 0
    peer.keepalive.configure(peer.loop.now, ping_period=1, pong_wait=2)
    peer.keepalive.heard_again(peer.loop.now)
    assert len(peer.timers) == 0
    peer.loop.advance(1000)
    assert (peer.pings, peer.died) == ([], [])


# --- pongs ----------------------------------------------------------------------------------------


def test_last_pong_is_the_opening_before_the_first_pong(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time", lambda: 5000.0)
    peer = Peer()
    monkeypatch.setattr(time, "time", lambda: 6000.0)
    assert peer.keepalive.last_pong == 5000.0
    peer.keepalive.start(peer.loop.now)  # the handshake took its time
    assert peer.keepalive.last_pong == 6000.0


async def test_random_payload_differs_from_unanswered_pings(monkeypatch: pytest.MonkeyPatch) -> None:
    payloads = iter([b"same", b"same", b"same", b"else"])
    monkeypatch.setattr(os, "urandom", lambda size: next(payloads))
    peer = Peer(answers=False)
    for _ in range(2):
        peer.keepalive.ping(None, asyncio.get_running_loop().create_future())
    assert peer.payloads == [b"same", b"else"]


def test_last_pong_is_wall_clock_time(monkeypatch: pytest.MonkeyPatch) -> None:
    peer = Peer(answers=False)
    opened = peer.keepalive.last_pong
    assert abs(opened - time.time()) < 60
    monkeypatch.setattr(time, "time", lambda: opened + 100)
    peer.keepalive.pong(b"nobody asked")
    assert peer.keepalive.last_pong == opened + 100
    assert peer.keepalive.latency == 0


async def test_pong_answers_its_ping_and_all_earlier_ones() -> None:
    peer = Peer(answers=False)
    futures = [asyncio.get_running_loop().create_future() for _ in range(3)]
    for payload, future in zip([b"1", b"2", b"3"], futures, strict=True):
        peer.keepalive.ping(payload, future)
    peer.keepalive.pong(b"2")
    assert [future.done() for future in futures] == [True, True, False]
    assert futures[0].result() >= futures[1].result() >= 0
    assert peer.keepalive.latency == futures[1].result()
    peer.keepalive.pong(b"1")  # again: it answers nothing
    assert not futures[2].done()
    peer.keepalive.pong(b"3")
    assert futures[2].done()


async def test_payload_of_an_unanswered_ping_is_refused() -> None:
    peer = Peer(answers=False)
    peer.keepalive.ping(b"same", asyncio.get_running_loop().create_future())
    with pytest.raises(ValueError, match="still waiting for its pong"):
        peer.keepalive.ping(b"same", asyncio.get_running_loop().create_future())
    peer.keepalive.pong(b"same")
    peer.keepalive.ping(b"same", asyncio.get_running_loop().create_future())


async def test_application_ping_outlasts_keepalive_pings() -> None:
    peer = Peer(ping_period=1, pong_wait=None, answers=False)
    future = asyncio.get_running_loop().create_future()
    peer.keepalive.ping(b"mine", future)
    peer.loop.advance(10)
    peer.keepalive.pong(peer.payloads[-1])
    assert future.done()


async def test_waiter_for_a_pong_raises_at_the_end() -> None:
    peer = Peer(answers=False)
    futures = [asyncio.get_running_loop().create_future() for _ in range(3)]
    for future in futures:
        peer.keepalive.ping(None, future)
    futures[0].cancel()
    peer.keepalive.stop(lambda: ConnectionClosedError(None, None))
    assert futures[0].cancelled()
    with pytest.raises(ConnectionClosedError):
        await futures[1]


# --- acknowledged bytes ---------------------------------------------------------------------------


class Taking(Peer):
    """Peer that answers nothing, with ``waiting`` bytes before the first ping."""

    def __init__(self, waiting: int, **times: Any) -> None:
        super().__init__(answers=False, **times)
        self.acknowledged, self.waiting = 5_000_000, waiting
        self.progress = lambda: (self.acknowledged, self.waiting)

    def take(self, rate: int, seconds: int) -> None:
        """Acknowledge ``rate`` bytes in each second, while as many are written."""
        for _ in range(seconds):
            self.acknowledged += rate
            self.loop.advance(1)


def test_acknowledged_bytes_are_a_sign_of_life() -> None:
    peer = Taking(2_000_000)
    peer.take(20_000, 100)
    assert peer.died == []
    peer.sends_something()
    peer.take(20_000, 100)
    assert peer.died == []


def test_acknowledged_bytes_count_until_the_ping_arrives() -> None:
    """A peer cannot answer a ping before it arrives."""
    peer = Taking(2_000_000)
    peer.take(2000, 900)
    assert peer.died == []


@pytest.mark.parametrize("waiting", [0, 100, 200_000])
def test_acknowledged_bytes_count_for_four_pong_waits_after_that(waiting: int) -> None:
    """The kernel of a process that hangs takes megabytes."""
    peer = Taking(waiting)
    peer.take(10_000, 300)
    asked, arrives = peer.pings[0], waiting / 10_000
    assert len(peer.died) >= 1
    assert asked + 4 * 30 <= peer.died[0] <= asked + arrives + 30 / 4 + 5 * 30 + 1


def test_peer_that_acknowledges_nothing_ends_in_time() -> None:
    peer = Taking(2_000_000)
    peer.loop.advance(60)
    assert len(peer.died) == 1
    assert peer.died[0] - peer.pings[0] <= 30.1


def test_peer_that_stops_acknowledging_ends_a_pong_wait_later() -> None:
    peer = Taking(10_000_000)
    peer.take(10_000, 100)
    stopped = peer.loop.now
    peer.loop.advance(40)
    assert len(peer.died) == 1
    assert 29 <= peer.died[0] - stopped <= 30 + 30 / 4 + 0.1


def test_acknowledged_pings_are_no_sign_of_life() -> None:
    peer = Taking(0)
    while not peer.died:
        peer.take(1, 1)
    assert peer.died[0] - peer.started <= 30.1


def test_acknowledged_bytes_count_without_pings_too() -> None:
    peer = Taking(2_000_000, ping_period=None)
    peer.take(20_000, 90)
    assert peer.died == []
    peer.loop.advance(40)
    assert len(peer.died) == 1


def test_socket_without_progress_changes_nothing() -> None:
    peer = Peer(answers=False)
    peer.loop.advance(30.1)
    assert len(peer.died) == 1


def test_bookkeeping_of_a_socket_that_grows_hides_no_progress() -> None:
    """The acknowledged bytes of a Unix socket decrease when small messages fill its buffer."""
    peer = Taking(2_000_000)
    while not peer.pings:
        peer.loop.advance(1)
    peer.acknowledged -= 100_000
    peer.take(1000, 80)
    assert peer.died == []
