"""Stop signals, sent to this process."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
import time

import pytest

from plumews.server import signals
from plumews.server.signals import StopSignals

if sys.platform == "win32":
    pytest.skip("here a signal to this process would end it", allow_module_level=True)

STOPS = [signal.SIGINT, signal.SIGTERM]


def handlers():
    return [signal.getsignal(number) for number in (*STOPS, signal.SIGHUP)]


@pytest.fixture(autouse=True)
def same_handlers():
    """Check that each test leaves the handlers as they were."""
    before = handlers()
    yield
    assert handlers() == before


def send(number):
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", [*STOPS, signal.SIGHUP])
async def test_first_returns_the_first_signal(number):
    with StopSignals() as listening:
        asyncio.get_running_loop().call_soon(send, number)
        assert await listening.first() == number


async def test_first_returns_a_signal_received_before():
    with StopSignals(), StopSignals() as listening:
        send(signal.SIGTERM)
        assert await listening.first() == signal.SIGTERM
    with StopSignals() as later:  # another stop waits for another signal
        asyncio.get_running_loop().call_soon(send, signal.SIGINT)
        assert await later.first() == signal.SIGINT


async def test_signal_wakes_an_idle_loop():
    with StopSignals() as listening:
        timer = threading.Timer(0.05, send, [signal.SIGTERM])
        timer.start()
        assert await asyncio.wait_for(listening.first(), 10) == signal.SIGTERM
        timer.join()


async def test_signal_that_wakes_nothing_is_noticed_soon(monkeypatch):
    monkeypatch.setattr(signals, "_CHECK_EVERY", 0.01)
    monkeypatch.setattr(StopSignals, "wake", lambda self: None)  # as when the loop is about to wait for events
    with StopSignals() as listening:
        asyncio.get_running_loop().call_soon(send, signal.SIGTERM)
        assert await asyncio.wait_for(listening.first(), 10) == signal.SIGTERM


async def test_listeners_all_wake_and_end_in_any_order():
    one, two = StopSignals(), StopSignals()
    before = handlers()
    one.__enter__()
    two.__enter__()
    told = asyncio.gather(one.first(), two.first())
    await asyncio.sleep(0)
    send(signal.SIGTERM)
    assert await told == [signal.SIGTERM, signal.SIGTERM]
    one.__exit__(None, None, None)
    assert handlers() != before
    two.__exit__(None, None, None)
    assert handlers() == before


@pytest.mark.parametrize("number", STOPS)
def test_second_signal_ends_the_process(monkeypatch, number):
    ends = []
    monkeypatch.setattr(signals.os, "_exit", ends.append)
    with StopSignals():
        send(signal.SIGTERM)
        assert ends == []
        send(number)
    assert ends == [128 + number]


def test_hangup_received_twice_does_not_end_the_process(monkeypatch):
    ends = []
    monkeypatch.setattr(signals.os, "_exit", ends.append)
    with StopSignals():
        send(signal.SIGHUP)
        send(signal.SIGHUP)
        assert ends == []
        send(signal.SIGTERM)
    assert ends == [128 + signal.SIGTERM]


@pytest.mark.parametrize("kind", ["ignored", "handled"])
def test_hangup_that_the_program_handles_is_left_to_it(kind):
    heard = []
    mine = signal.SIG_IGN if kind == "ignored" else lambda number, frame: heard.append(number)
    before = signal.signal(signal.SIGHUP, mine)
    try:
        with StopSignals():
            send(signal.SIGHUP)
            assert signals._handlers.first is None
        assert signal.getsignal(signal.SIGHUP) is mine
    finally:
        signal.signal(signal.SIGHUP, before)
    assert heard == ([] if kind == "ignored" else [signal.SIGHUP])


async def test_handlers_of_the_loop_are_called_as_well():
    loop, heard = asyncio.get_running_loop(), asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, heard.set)
    try:
        with StopSignals() as listening:
            send(signal.SIGTERM)
            assert await listening.first() == signal.SIGTERM
            await heard.wait()
        heard.clear()
        send(signal.SIGTERM)
        await heard.wait()
    finally:
        loop.remove_signal_handler(signal.SIGTERM)


def test_handler_set_meanwhile_stays():
    before = signal.getsignal(signal.SIGTERM)
    try:
        with StopSignals():
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGTERM, before)


def test_forked_child_is_ended_by_one_signal():
    reading, writing = os.pipe()
    with StopSignals(), os.fdopen(reading, "rb") as ready:
        child = os.fork()
        if not child:
            os.write(writing, b"\n")
            time.sleep(30)  # a signal ends it before
            os._exit(1)
        os.close(writing)
        ready.readline()  # CPython takes a signal before the end of a fork for the parent's
        os.kill(child, signal.SIGTERM)
        _, status = os.waitpid(child, 0)
        assert os.WTERMSIG(status) == signal.SIGTERM
        assert signals._handlers.first is None


def test_stop_signals_off_the_main_thread_raise():
    said = []

    def listen():
        try:
            with StopSignals():
                said.append("entered")
        except RuntimeError as exc:
            said.append(str(exc))

    thread = threading.Thread(target=listen)
    thread.start()
    thread.join()
    assert said[0].startswith("signals are heard on the main thread alone: on another one use serve_forever()")
