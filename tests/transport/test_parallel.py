"""Threads that help a hub to send: each member gets what it would get without them; they come late and go in time.

Where a test is to show that the threads do the work, they do all of it: the loop's thread waits for one of them first.
Else who takes which socket is left to chance, as it is in use.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import random
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

import plumews
from plumews import Hub, HubConfig, SendBehavior, limits
from plumews.transport import parallel
from plumews.transport import sendmsg as sending
from plumews.transport.loop_context import LoopContext, loop_context
from plumews.transport.parallel import SendingThreads
from support.fakes import failures, flushed, tls_contexts, until
from support.members import adds_up, crowd
from support.raw_client import Wire

pytestmark = pytest.mark.skipif(not sending.DIRECT, reason="sockets are no file descriptors here")


def helpers() -> list[threading.Thread]:
    """The threads that help, of whatever loop."""
    return [thread for thread in threading.enumerate() if thread.name.startswith("plumews-sending-")]


@pytest.fixture(autouse=True)
def few_are_enough(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Threads are woken for few connections, and get them in small parts. None is left behind."""
    monkeypatch.setattr(limits, "PARALLEL_LEAST", 4)
    monkeypatch.setattr(limits, "PARALLEL_SHARE", 8)
    assert not helpers()
    yield
    assert not helpers()


class Watched(sending.Batch):
    """A batch that is kept an eye on."""

    results: list[int]
    helped: list[str]
    threads_first: bool

    def finish(self) -> None:
        if self.threads_first:
            before = len(self.helped)
            assert all_of(lambda: len(self.helped) > before)
        super().finish()
        self.results += self.sent

    def help(self) -> None:
        super().help()
        self.helped.append(threading.current_thread().name)


def all_of(condition: Callable[[], bool]) -> bool:
    """Whether ``condition`` comes true while this thread does nothing else."""
    pause = threading.Event()
    return any(condition() or pause.wait(0.001) for _ in range(5000)) and condition()


@pytest.fixture(params=["by the threads alone", "by whoever is first"])
def watched(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> type[Watched]:
    """What became of all batches: of each socket, and who helped."""
    Watched.results, Watched.helped = [], []
    Watched.threads_first = request.param == "by the threads alone"
    monkeypatch.setattr(sending, "Batch", Watched)
    return Watched


@contextlib.asynccontextmanager
async def hub_of(threads: int, **config: Any) -> AsyncIterator[Hub]:
    hub = Hub(HubConfig(sending_threads=threads, **config))
    try:
        yield hub
    finally:
        await hub.shutdown(0)


class Member:
    """A connection, what its peer got, and the numbers of the first and of the last message that it was to get."""

    def __init__(self, conn: plumews.Conn, wire: Wire) -> None:
        self.conn = conn
        self.wire = wire
        self.got: list[int] = []
        self.expected: list[int] = []
        self.reading: asyncio.Task[None] | None = None

    def start_reading(self) -> None:
        self.reading = asyncio.ensure_future(self._read())

    async def _read(self) -> None:
        with contextlib.suppress(EOFError, ConnectionError):
            while True:
                message = await self.wire.message()
                number, _, padding = str(message).partition(" ")
                assert padding == "." * len(padding)
                self.got.append(int(number))


async def stop_reading(members: list[Member]) -> None:
    for member in members:
        if member.reading is not None:
            member.reading.cancel()
    for member in members:
        if member.reading is not None:
            with contextlib.suppress(asyncio.CancelledError):
                await member.reading


# --- each message once, and in order --------------------------------------------------------------


async def test_whoever_comes_goes_resets_or_stops_reading_the_others_get_each_message_once_and_in_order(
    start: Any, watched: type[Watched]
) -> None:
    chance = random.Random(5)
    async with (
        crowd(start, 48, rcvbuf=4096, send_behavior=SendBehavior.DROP, queue_size=8) as (conns, wires),
        hub_of(3) as hub,
    ):
        members = [Member(conn, wire) for conn, wire in zip(conns, wires, strict=True)]
        steady, movers, resetters, silent = members[:20], members[20:32], members[32:40], members[40:]
        for member in members:
            hub.join("room", member.conn)
            member.conn._transport.get_extra_info("socket").setsockopt(  # type: ignore[union-attr]
                socket.SOL_SOCKET, socket.SO_SNDBUF, 1 if member in silent else 1 << 18
            )
            if member not in silent:
                member.start_reading()
        inside = set(movers)
        number = queued = 0
        for step in range(150):
            for _ in range(chance.choice([1, 1, 2, 3])):
                before = {member: member.conn.dropped_messages for member in silent}
                result = hub.broadcast_room("room", f"{number} {'.' * chance.choice([10, 10, 900, 15_000])}")
                assert adds_up(result)
                queued += result.queued
                for member in [*steady, *inside]:
                    member.expected.append(number)
                for member, dropped in before.items():
                    if member.conn.dropped_messages == dropped:
                        member.expected.append(number)
                number += 1
            mover = chance.choice(movers)
            if mover in inside:
                inside.remove(mover)
                hub.leave("room", mover.conn)
            else:
                inside.add(mover)
                hub.join("room", mover.conn)
            if step % 20 == 10:
                resetters[step // 20].wire.reset()
            await flushed()
            assert adds_up(hub.metrics())
            healthy = [*steady, *movers]
            await until(lambda: all(len(m.got) >= len(m.expected) for m in healthy))  # noqa: B023 - it ends here
        for member in silent:
            assert member.conn.dropped_messages  # it was full
            member.start_reading()
        staying = [*steady, *movers, *silent]
        await until(lambda: all(len(member.got) >= len(member.expected) for member in staying))
        await stop_reading(members)
        for member in staying:
            assert member.got == member.expected
        for member in resetters:
            assert member.got == sorted(set(member.got))
        metrics = hub.metrics()
        assert metrics.broadcast_pending == 0
        assert metrics.broadcast_queued == queued
        lost = sum(member.conn.dropped_messages for member in silent)
        assert metrics.broadcast_dropped >= lost > 0
    assert -1 in watched.results
    assert any(sent > 0 for sent in watched.results), "no socket took a part of what it was offered"
    if watched.threads_first:
        assert len(set(watched.helped)) > 1


async def test_what_else_a_member_is_to_get_is_not_lost_between(start: Any, watched: type[Watched]) -> None:
    """Pings, closes, messages of many frames and senders that wait go the usual way, in their order."""
    async with (
        crowd(start, 12, fragment_size=100, queue_size=2, send_timeout=5) as (conns, wires),
        hub_of(2) as hub,
    ):
        for conn in conns:
            hub.join("room", conn)
        hub.broadcast_room("room", "first")
        long, closing, pinging, waiting = conns[:4]
        long.send_nowait("x" * 250)
        closing.close_nowait(4000, "bye")
        ping = asyncio.ensure_future(pinging.ping())
        await flushed()
        for conn in conns:
            if conn is not closing:
                conn.send_nowait("second")
        sender = asyncio.ensure_future(waiting.write_many(["a", "b", "c", "d"]))
        await flushed()
        await sender
        for conn, wire in zip(conns, wires, strict=True):
            assert await wire.message() == "first"
            if conn is closing:
                assert await wire.closing() == (4000, "bye")
                continue
            if conn is long:
                assert await wire.message() == "x" * 250
            if conn is pinging:
                kind, payload = await wire.event()
                assert kind == plumews.Opcode.PING
                wire.send(plumews.protocol.codec.build_frame(plumews.Opcode.PONG, payload, mask_key=b"mask"))
            assert await wire.message() == "second"
            if conn is waiting:
                assert [await wire.message() for _ in range(4)] == ["a", "b", "c", "d"]
        await (await ping)
    assert watched.results


async def test_a_connection_that_stands_twice_among_those_to_be_flushed_sends_once(
    start: Any, watched: type[Watched]
) -> None:
    async with crowd(start, 8, queue_size=2) as (conns, wires), hub_of(1) as hub:
        for conn in conns:
            hub.join("room", conn)
        for number in range(5):  # more than the queue holds: it is flushed in between, and has something to send anew
            hub.broadcast_room("room", str(number))
        state = loop_context(asyncio.get_running_loop())
        assert len(state._dirty) > len(conns)
        await flushed()
        hub.broadcast_room("room", "end")
        for wire in wires:
            assert [await wire.message() for _ in range(6)] == ["0", "1", "2", "3", "4", "end"]
    assert watched.results


async def test_over_tls_everything_leaves_by_the_event_loop(start: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sending, "Batch", None)  # would be an error
    server_side, client_side = tls_contexts()
    opened: asyncio.Queue[plumews.Conn] = asyncio.Queue()
    server = await start(
        plumews.serve(
            on_open=opened.put_nowait, on_message=lambda conn, message: None, host="127.0.0.1", port=0, ssl=server_side
        )
    )
    async with contextlib.AsyncExitStack() as stack:
        hub = await stack.enter_async_context(hub_of(2))
        wires = []
        for _ in range(6):
            opening = Wire.open(server, ssl=client_side, server_hostname="localhost")
            wires.append(await stack.enter_async_context(await opening))
            hub.join("room", await opened.get())
        with failures() as told:
            hub.broadcast_room("room", "hello")
            assert [await wire.message() for wire in wires] == ["hello"] * 6
        assert not told


# --- one writer's mishap --------------------------------------------------------------------------


async def test_what_interrupts_a_batch_makes_nobody_send_twice(start: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    class Interruption(BaseException):
        pass

    genuine = SendingThreads.send

    def send(self: SendingThreads, batch: Any) -> None:
        for helper in self._helpers:
            helper.give(batch)
        raise Interruption

    async with crowd(start, 8) as (conns, wires), hub_of(2) as hub:
        for conn in conns:
            hub.join("room", conn)
        hub.broadcast_room("room", "first")
        monkeypatch.setattr(SendingThreads, "send", send)
        state = loop_context(asyncio.get_running_loop())
        with pytest.raises(Interruption):
            state._flush()
        monkeypatch.setattr(SendingThreads, "send", genuine)
        hub.broadcast_room("room", "second")
        for wire in wires:
            assert [await wire.message() for _ in range(2)] == ["first", "second"]


async def test_a_batch_for_which_there_is_no_memory_is_sent_by_the_loop(
    start: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_memory(fds: list[int], queues: list[Any]) -> None:
        raise MemoryError

    monkeypatch.setattr(sending, "Batch", no_memory)
    async with crowd(start, 8) as (conns, wires), hub_of(2) as hub:
        for conn in conns:
            hub.join("room", conn)
        with failures() as told:
            hub.broadcast_room("room", "hello")
            assert [await wire.message() for wire in wires] == ["hello"] * 8
        assert not told


async def test_a_writer_that_fails_is_reported_when_all_know_what_they_sent(
    start: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What hears of it may broadcast: nobody may send again what has left."""

    genuine = sending.Batch

    class Cut:
        """A batch of which the first connection is said to have taken nothing, so that its transport is written to."""

        def __init__(self, fds: list[int], queues: list[Any]) -> None:
            batch = genuine(fds, queues)
            self.help, self.finish = batch.help, batch.finish
            self.batch = batch
            self.fds = fds

        @property
        def sent(self) -> list[int]:
            return [0 if fd == first else sent for fd, sent in zip(self.fds, self.batch.sent, strict=True)]

    class Broken:
        def __init__(self, transport: Any) -> None:
            self.transport = transport

        def __getattr__(self, name: str) -> Any:
            return getattr(self.transport, name)

        def write(self, data: Any) -> None:
            raise ValueError("broken")

    async with crowd(start, 8) as (conns, wires), hub_of(2) as hub:
        for conn in conns:
            hub.join("room", conn)
        transport: Any = conns[0]._transport
        first = transport.get_extra_info("socket").fileno()
        monkeypatch.setattr(sending, "descriptor", lambda transport: first)  # as that of the transport itself
        conns[0]._writer.attach(Broken(transport), conns[0]._transport_failed)  # type: ignore[arg-type]
        loop = asyncio.get_running_loop()
        heard: list[BaseException] = []

        def hear(loop: Any, context: dict[str, Any]) -> None:
            heard.append(context["exception"])
            for conn in conns[1:]:
                conn._writer.flush()
            hub.broadcast_room("room", "second", exclude=conns[0])

        loop.set_exception_handler(hear)
        monkeypatch.setattr(sending, "Batch", Cut)
        hub.broadcast_room("room", "first")
        await flushed()
        monkeypatch.undo()
        loop.set_exception_handler(None)
        assert [str(exc) for exc in heard] == ["broken"]
        for wire in wires[1:]:
            assert [await wire.message() for _ in range(2)] == ["first", "second"]


# --- the threads ----------------------------------------------------------------------------------


async def test_threads_are_started_when_there_is_something_to_do_and_gone_with_their_hub(start: Any) -> None:
    async with crowd(start, 6) as (conns, wires):
        async with Hub(HubConfig(sending_threads=3)) as hub:
            for conn in conns[:3]:
                hub.join("room", conn)
            hub.broadcast_room("room", "to few")
            await flushed()
            assert not helpers()
            for conn in conns:
                hub.join("room", conn)
            hub.broadcast_room("room", "to many")
            await flushed()
            assert sorted(thread.name for thread in helpers()) == [f"plumews-sending-{n}" for n in range(3)]
            assert all(thread.daemon for thread in helpers())
            for wire in wires:
                wire.writer.close()
        assert not helpers()


async def test_without_the_option_there_are_none(start: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sending, "Batch", None)
    async with crowd(start, 6) as (conns, wires), hub_of(0) as hub:
        for conn in conns:
            hub.join("room", conn)
        with failures() as told:
            hub.broadcast_room("room", "hello")
            assert [await wire.message() for wire in wires] == ["hello"] * 6
        assert not told
        assert not helpers()


async def test_of_several_hubs_on_one_loop_the_one_that_wants_most_decides(start: Any) -> None:
    async with crowd(start, 6) as (conns, wires), hub_of(1) as small:
        async with hub_of(3) as large:
            for conn in conns:
                small.join("room", conn)
                large.join("room", conn)
            small.broadcast_room("room", "first")
            await flushed()
            assert len(helpers()) == 3
            for conn in conns:
                large.leave("room", conn)
        assert len(helpers()) == 1
        small.broadcast_room("room", "second")
        for wire in wires:
            assert [await wire.message() for _ in range(2)] == ["first", "second"]
        assert len(helpers()) == 1


@pytest.mark.parametrize("startable", [0, 2])
async def test_when_a_thread_cannot_be_started_those_that_are_there_do_and_it_is_logged_once(
    start: Any, startable: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    genuine = threading.Thread.start

    def refuse(self: threading.Thread) -> None:
        if len(helpers()) >= startable:
            raise RuntimeError("can't start new thread")
        genuine(self)

    monkeypatch.setattr(parallel._Helper, "start", refuse)
    async with crowd(start, 6) as (conns, wires), hub_of(4) as hub:
        for conn in conns:
            hub.join("room", conn)
        with caplog.at_level(logging.WARNING, "plumews.hub"):
            for number in range(3):
                hub.broadcast_room("room", str(number))
                await flushed()
        assert len(helpers()) == startable
        for wire in wires:
            assert [await wire.message() for _ in range(3)] == ["0", "1", "2"]
    (record,) = [record for record in caplog.records if record.name == "plumews.hub"]
    assert record.getMessage() == (
        f"only {startable} threads help to send, for another cannot be started: can't start new thread"
    )


async def test_a_stop_that_is_cancelled_leaves_no_thread(start: Any) -> None:
    async with crowd(start, 6) as (conns, _):
        hub = Hub(HubConfig(sending_threads=2))
        for conn in conns:
            hub.join("room", conn)
        hub.broadcast_room("room", "hello")
        await flushed()
        assert len(helpers()) == 2
        stop = asyncio.ensure_future(hub.stop())
        await until(lambda: hub._stopping is not None)
        assert hub._stopping is not None
        hub._stopping.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await stop
        assert not helpers()


def linked_pairs(count: int) -> list[tuple[socket.socket, socket.socket]]:
    pairs = [socket.socketpair() for _ in range(count)]
    for pair in pairs:
        for sock in pair:
            sock.setblocking(False)
    return pairs


def test_a_loop_that_goes_without_a_stop_takes_its_threads_along() -> None:
    loop = asyncio.new_event_loop()
    state = loop_context(loop)
    state.want_threads(2)
    assert isinstance(state, LoopContext)
    assert state._threads.start() == 2
    threads = helpers()
    assert len(threads) == 2
    loop.close()
    del loop, state
    gc.collect()
    for thread in threads:
        thread.join(5)
    assert not any(thread.is_alive() for thread in threads)


def test_what_was_sent_is_not_kept_for_threads_that_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Watched, "results", [], raising=False)
    monkeypatch.setattr(Watched, "helped", [], raising=False)
    monkeypatch.setattr(Watched, "threads_first", True, raising=False)
    threads = SendingThreads()
    threads.want(2)
    assert threads.start() == 2
    frame = bytes(1000)
    before = sys.getrefcount(frame)
    pairs = linked_pairs(8)
    for _ in range(20):
        threads.send(Watched([ours.fileno() for ours, _ in pairs], [[frame] for _ in pairs]))
        assert [len(theirs.recv(2000)) for _, theirs in pairs] == [1000] * 8
    assert all_of(lambda: sys.getrefcount(frame) == before)
    assert threads.give_up(2) == 0
    for pair in pairs:
        for sock in pair:
            sock.close()


def run(code: str) -> subprocess.CompletedProcess[str]:
    """``code`` in a process of its own, after what all of them need."""
    common = """
import asyncio, os, signal, socket, sys, threading
from plumews import Hub, HubConfig
from plumews import limits
from plumews.transport import sendmsg as wire
from plumews.transport.loop_context import loop_context
from plumews.transport.parallel import SendingThreads
pairs = [socket.socketpair() for _ in range(40)]
for pair in pairs:
    for sock in pair:
        sock.setblocking(False)
def batch(text):
    return wire.Batch([ours.fileno() for ours, _ in pairs], [[text] for _ in pairs])
def arrived():
    return {theirs.recv(100) for _, theirs in pairs}
threads = SendingThreads()
threads.want(2)
"""
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", common + code]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_the_child_of_a_fork_sends_without_them() -> None:
    done = run("""
threads.start()
threads.send(batch(b"parent"))
assert arrived() == {b"parent"}
child = os.fork()
if child == 0:
    for _ in range(3):
        threads.send(batch(b"child"))
        assert arrived() == {b"child"}
    assert threads.give_up(2) == 0
    print("child")
    sys.stdout.flush()
    os._exit(0)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
threads.send(batch(b"again"))
assert arrived() == {b"again"}
threads.give_up(2)
print("parent", len(threading.enumerate()))
""")
    assert (done.stdout.split(), done.stderr) == (["child", "parent", "1"], "")


def test_an_interpreter_that_ends_without_a_stop_does_not_wait_for_them() -> None:
    done = run("""
threads.start()
threads.send(batch(b"x"))
print(len(threading.enumerate()), arrived())
""")
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "3 {b'x'}", "")


@pytest.mark.skipif(plumews.BODY != "compiled", reason="between two steps of plain Python anything may come")
def test_whenever_a_signal_comes_whose_handler_raises_it_is_known_what_was_sent() -> None:
    done = run("""
class Interruption(BaseException):
    pass
def handler(number, frame):
    raise Interruption
threads.start()
signal.signal(signal.SIGALRM, handler)
for number in range(300):
    text = b"%05d" % number
    one = batch(text)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.000001 + number % 30 * 0.00001)
        threads.send(one)
        while True:
            pass
    except Interruption:
        one.finish()
    got = [theirs.recv(100) for _, theirs in pairs]
    assert (one.sent, got) == ([-1] * len(pairs), [text] * len(pairs))
    try:
        raise AssertionError(pairs[number % len(pairs)][1].recv(100))
    except BlockingIOError:
        pass
threads.give_up(2)
print("done", len(threading.enumerate()))
""")
    assert (done.stdout.split(), done.stderr) == (["done", "1"], "")
