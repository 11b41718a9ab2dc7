"""Channel on real sockets against a model of the expected messages.

Hypothesis sends, reads, stalls, closes and aborts. Queued messages give way to newer ones. The model computes by itself
which are dropped or replaced, and where the newer one stands.

After each step the test looks at the peer's end of the socket pair, unread bytes included. So the written bytes are
known exactly, and with them the bytes that the transport may hold and every number of the channel.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from conftest import loops
from plumews import limits
from plumews.conn import full_queue
from plumews.constants import Opcode
from plumews.protocol.codec import Parser, build_frame
from plumews.protocol.message import EncodedMessage, encode
from plumews.transport import displacing, waiters
from plumews.transport.channel import Channel
from plumews.transport.loop_context import loop_context
from plumews.transport.send_queue import Note
from plumews.transport.waiters import Waiter

KiB = 1024
CLOSE = build_frame(Opcode.CLOSE, b"\x03\xe8")
QUEUE_SIZE, QUEUE_BYTES = 6, 100 * KiB
SIZES = [0, 1, 125, 126, 3000, 16 * KiB - 3, 16 * KiB, 16 * KiB + 1, 40 * KiB, 70 * KiB, 200 * KiB]
FRAGMENTS = [64 * KiB, 5000, 300]


def new_loop(name: str) -> asyncio.AbstractEventLoop:
    if name == "asyncio":
        return asyncio.new_event_loop()
    import uvloop

    return uvloop.new_event_loop()


class Entry(NamedTuple):
    """A message that the channel accepted."""

    payload: bytes
    size: int  # bytes of its frames
    key: int | None = None
    note: bool = False


class Ours(asyncio.Protocol):
    """The part of a connection that drives its channel."""

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self.lost = 0
        self.transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.channel._attach(transport)  # type: ignore[arg-type]

    def pause_writing(self) -> None:
        self.channel._pause_output()

    def resume_writing(self) -> None:
        if self.channel._output_drained():
            self.channel._resume_output()

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost += 1
        self.channel._detach()


class Frames:
    """Frames in ``data``. The last one may be incomplete."""

    def __init__(self, data: bytes) -> None:
        self.begun = 0  # messages
        self.missing: int | None = 0  # bytes of the last frame; None where its header is cut
        at = 0
        while at < len(data):
            self.begun += data[at] & 0x0F in (Opcode.TEXT, Opcode.BINARY)
            length = data[at + 1] & 0x7F if at + 1 < len(data) else 0
            extended = {126: 2, 127: 8}.get(length, 0)
            if at + 2 + extended > len(data):
                self.missing = None
                return
            if extended:
                length = int.from_bytes(data[at + 2 : at + 2 + extended], "big")
            at += 2 + extended + length
        self.missing = at - len(data)


class Model(RuleBasedStateMachine):
    loop_name = "asyncio"

    def __init__(self) -> None:
        super().__init__()
        self.loop = new_loop(self.loop_name)
        self.told: list[Any] = []
        self.loop.set_exception_handler(lambda loop, context: self.told.append(context))
        ours, self.theirs = socket.socketpair()
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)  # the least that there is: some KiB
        self.theirs.setblocking(False)
        self.channel = Channel(loop_context(self.loop), queue_size=QUEUE_SIZE, queue_bytes=QUEUE_BYTES)
        connecting = self.loop.create_unix_connection(lambda: Ours(self.channel), sock=ours)
        _, self.ours = self.loop.run_until_complete(connecting)
        self.arrived = bytearray()
        self.accepted: list[Entry] = []
        self.waiting: dict[Waiter, Entry] = {}
        self.evicted = self.replaced = 0
        self.pings: list[bytes] = []
        self.pongs: list[bytes] = []
        self.count = 0
        self.closing = self.discarded = self.aborted = False
        self.before = 0  # how many waited
        self.note: tuple[Note, bool] | None = None
        self.finished = 0

    # --- what may happen --------------------------------------------------------------------------

    def payload(self, size: int) -> bytes:
        self.count += 1
        return (self.count.to_bytes(3, "big") * (size // 3 + 1))[:size]

    @property
    def open(self) -> bool:
        return not (self.closing or self.aborted)

    @precondition(lambda self: self.open)
    @rule(size=st.sampled_from(SIZES), fragment=st.sampled_from(FRAGMENTS), wait=st.booleans(), kick=st.booleans())
    def offer(self, size: int, fragment: int, wait: bool, kick: bool) -> None:
        payload = self.payload(size)
        if size <= limits.COPY_SIZE:
            fragment = limits.FRAGMENT_SIZE  # or its fragments were one buffer, which leaves as one frame does
        message = encode(Opcode.BINARY, payload, fragment_size=fragment)
        if self.channel._try_queue(message):
            self.accepted.append(Entry(payload, message.size))
        elif wait:
            self.wait(payload, message)
        if kick:
            self.channel._kick_output(True)

    def wait(self, payload: bytes, message: EncodedMessage) -> None:
        def done(accepted: bool) -> None:
            entry = self.waiting.pop(waiter)  # once
            if accepted:
                self.accepted.append(entry)
            else:
                assert not self.open or self.discarded

        waiter = waiters.add(self.channel, message, done)
        self.waiting[waiter] = Entry(payload, message.size)

    @precondition(lambda self: self.open)
    @rule(size=st.sampled_from(SIZES[:7]), count=st.integers(1, 9), at_once=st.booleans())
    def offer_frames(self, size: int, count: int, at_once: bool) -> None:
        for _ in range(count):
            payload = self.payload(size)
            frame = build_frame(Opcode.BINARY, payload)
            if self.channel._try_queue(frame):
                self.accepted.append(Entry(payload, len(frame)))
            self.channel._kick_output(at_once)

    @property
    def queued(self) -> list[Entry]:
        """Return the messages of which no byte was written, as the step before has shown."""
        return self.accepted[len(self.accepted) - self.channel.queued_messages :]

    def queue_is(self, queued: list[Entry]) -> None:
        del self.accepted[len(self.accepted) - self.before :]
        self.accepted += queued

    def make_room(self, queued: list[Entry], size: int) -> None:
        """Drop the oldest messages, except notes, until ``size`` bytes have space."""
        for entry in list(queued):
            full = len(queued) >= QUEUE_SIZE or sum(each.size for each in queued) + size > QUEUE_BYTES
            if full and not entry.note:
                queued.remove(entry)
                self.evicted += 1

    @precondition(lambda self: self.open)
    @rule(messages=st.lists(st.tuples(st.sampled_from([0, 125, 30_000, 70 * KiB]), st.integers(0, 4)), max_size=9))
    def displace_many(self, messages: list[tuple[int, int]]) -> None:
        for size, key in messages:
            self.displace(size, 5000, key, False)

    @precondition(lambda self: self.open)
    @rule(size=st.sampled_from(SIZES), fragment=st.sampled_from(FRAGMENTS), key=st.integers(0, 4), kick=st.booleans())
    def displace(self, size: int, fragment: int, key: int, kick: bool) -> None:
        payload = self.payload(size)
        if size <= limits.COPY_SIZE:
            fragment = limits.FRAGMENT_SIZE
        message = encode(Opcode.BINARY, payload, fragment_size=fragment)
        if not self.channel._can_queue(message.size) and self.waiting:
            assert displacing.displace(self.channel, message) == displacing.conflate(self.channel, message, key) == -1
            return
        self.before, queued, evicted = self.channel.queued_messages, self.queued, self.evicted
        if key:
            self.conflate(queued, Entry(payload, message.size, key))
            count = displacing.conflate(self.channel, message, key)
        else:
            self.make_room(queued, message.size)
            queued.append(Entry(payload, message.size))
            count = displacing.displace(self.channel, message)
        assert count == self.evicted - evicted
        self.queue_is(queued)
        if kick:
            self.channel._kick_output(True)

    def conflate(self, queued: list[Entry], new: Entry) -> None:
        old = next((entry for entry in reversed(queued) if entry.key == new.key), None)
        if old is not None:
            self.replaced += 1
            at = queued.index(old)
            size = sum(entry.size for entry in queued) - old.size + new.size
            passes = all(entry.key is not None for entry in queued[at + 1 :])
            if passes and (size <= QUEUE_BYTES or len(queued) == 1):
                queued[at] = new
                return
            del queued[at]
        self.make_room(queued, new.size)
        queued.append(new)

    @precondition(lambda self: self.open)
    @rule()
    def drop_all(self) -> None:
        self.before, queued = self.channel.queued_messages, self.queued
        count = sum(not entry.note for entry in queued)
        assert displacing.drop_queued(self.channel) == count
        self.evicted += count
        self.queue_is([entry for entry in queued if entry.note])

    @precondition(lambda self: self.open and sum(entry.note for entry in self.queued) < 3)
    @rule(first=st.booleans())
    def add_note(self, first: bool) -> None:
        payload = self.payload(20)
        note = Note(build_frame(Opcode.BINARY, payload))
        self.before, queued = self.channel.queued_messages, self.queued
        queued.insert(0 if first else len(queued), Entry(payload, len(note.frame), note=True))
        full_queue.add_note(self.channel, note, first=first)
        self.queue_is(queued)
        self.note = note, first

    @precondition(lambda self: self.open and self.note is not None)
    @rule()
    def take_note(self) -> None:
        assert self.note is not None
        note, first = self.note
        self.before, queued = self.channel.queued_messages, self.queued
        payloads = [entry.payload for entry in queued]
        payload = note.frame[2:]
        may = payload in payloads and (first or payloads[-1] == payload)
        assert full_queue.take_note(self.channel, note, last=not first) is may
        if may:
            del queued[payloads.index(payload)]
        self.queue_is(queued)

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def withdraw(self, data: st.DataObject) -> None:
        waiter = data.draw(st.sampled_from(list(self.waiting)))
        del self.waiting[waiter]
        assert waiters.withdraw(self.channel, waiter)
        assert not waiters.withdraw(self.channel, waiter)

    @rule(kick=st.booleans())
    def ping(self, kick: bool) -> None:
        payload = self.payload(3)
        if self.open:
            self.pings.append(payload)
        self.channel._queue_ping(build_frame(Opcode.PING, payload))
        if kick:
            self.channel._kick_output(True)

    @rule(count=st.integers(1, 5), kick=st.booleans())
    def pong(self, count: int, kick: bool) -> None:
        for _ in range(count):
            payload = self.payload(3)
            if self.open:
                self.pongs.append(payload)
            self.channel._queue_pong(build_frame(Opcode.PONG, payload))
        if kick:
            self.channel._flush()

    @rule()
    def flush(self) -> None:
        self.channel._flush()

    @rule()
    def tick(self) -> None:
        self.loop.run_until_complete(asyncio.sleep(0))

    @rule(count=st.sampled_from([1, 100, 2300, 10_000, 1_000_000]), ticks=st.integers(0, 3))
    def read(self, count: int, ticks: int) -> None:
        try:
            self.arrived += self.theirs.recv(count)
        except BlockingIOError:
            pass
        except ConnectionResetError:
            assert self.aborted
        for _ in range(ticks):
            self.tick()

    @precondition(lambda self: self.open and self.count > 12)
    @rule()
    def finish(self) -> None:
        self.closing = True
        self.channel._finish_output(CLOSE, self.on_finished)

    @precondition(lambda self: self.open and self.count > 12)
    @rule()
    def evict(self) -> None:
        self.closing = self.discarded = True
        self.channel._drop_output()
        self.channel._finish_output(CLOSE, self.on_finished)
        self.channel._write_last()
        assert self.finished == 1

    @precondition(lambda self: not self.aborted and self.count > 20)
    @rule()
    def abort(self) -> None:
        self.aborted = True
        self.channel._drop_output()
        self.ours.transport.abort()
        self.channel._queue_pong(build_frame(Opcode.PONG, b"no"))
        self.channel._flush()

    def on_finished(self) -> None:
        self.finished += 1

    # --- what always holds ------------------------------------------------------------------------

    @invariant()
    def what_is_told_is_what_has_left(self) -> None:
        channel = self.channel
        assert waiters.count(channel) == len(self.waiting)
        assert (channel._evicted, channel._replaced) == (self.evicted, self.replaced)
        notes = [entry.size for entry in self.queued if entry.note]
        assert channel.queued_messages <= QUEUE_SIZE + len(notes)
        assert channel.queued_bytes <= QUEUE_BYTES + sum(notes) or channel.queued_messages == 1 + len(notes)
        if self.aborted or self.discarded:
            assert (channel.queued_messages, channel.queued_bytes, waiters.count(channel)) == (0, 0, 0)
        if self.aborted:
            return
        try:
            unread = self.theirs.recv(10_000_000, socket.MSG_PEEK)
        except BlockingIOError:
            unread = b""
        frames = Frames(bytes(self.arrived) + unread)
        held = self.ours.transport.get_write_buffer_size()
        if self.discarded:
            assert held - len(CLOSE) <= 64 * KiB + 10
            return
        assert held <= 64 * KiB + 10
        assert channel._paused is (held > 0)
        if frames.missing:
            assert held == frames.missing, "the transport holds something else than the rest of one frame"
        begun = [frames.begun] if frames.missing != 0 or not held else [frames.begun, frames.begun + 1]
        assert len(self.accepted) - channel.queued_messages in begun
        first = len(self.accepted) - channel.queued_messages
        assert channel.queued_bytes == sum(entry.size for entry in self.accepted[first:])

    # --- and in the end ---------------------------------------------------------------------------

    def teardown(self) -> None:
        try:
            if self.aborted:
                self.nothing_comes_any_more()
            else:
                self.all_has_arrived()
            assert self.told == []
        finally:
            self.ours.transport.abort()
            for _ in range(3):
                self.tick()
            assert self.ours.lost == 1
            self.theirs.close()
            self.loop.close()

    def all_has_arrived(self) -> None:
        if not self.closing:
            self.finish()
        while not self.finished or self.ours.transport.get_write_buffer_size():
            self.read(1_000_000, 2)
        self.read(1_000_000, 2)
        self.channel._queue_ping(build_frame(Opcode.PING, b"late"))
        self.channel._flush()
        self.read(1_000_000, 2)
        assert self.finished == 1
        assert not self.waiting
        assert (self.channel.queued_messages, self.channel.queued_bytes) == (0, 0)
        parser = Parser(client=True, max_size=None)
        events = parser.feed(bytes(self.arrived))
        assert parser.error is None
        assert events[-1] == (Opcode.CLOSE, (1000, ""))
        assert self.arrived.endswith(CLOSE)
        messages, pings, pongs = (
            [payload for kind, payload in events if kind == wanted]
            for wanted in (Opcode.BINARY, Opcode.PING, Opcode.PONG)
        )
        accepted = [entry.payload for entry in self.accepted]
        assert messages == (accepted[: len(messages)] if self.discarded else accepted)
        assert pings == self.pings
        assert sorted(pongs) == pongs  # their numbers count up
        assert set(pongs) <= set(self.pongs)
        assert pongs[-1:] == self.pongs[-1:]

    def nothing_comes_any_more(self) -> None:
        while not self.ours.lost:
            self.tick()
        # The next sockets get the descriptor that was ours.
        pair = socket.socketpair()
        try:
            self.channel._try_queue(encode(Opcode.BINARY, b"x"))
            self.channel._queue_ping(build_frame(Opcode.PING, b"x"))
            self.channel._kick_output(True)
            self.channel._output_drained()
            self.channel._resume_output()
            self.channel._write_last()
            self.tick()
            for sock in pair:
                sock.setblocking(False)
                with pytest.raises(BlockingIOError):
                    sock.recv(1)
        finally:
            for sock in pair:
                sock.close()


@pytest.mark.parametrize("loop", loops())
def test_channel_delivers_exactly_the_accepted_messages(loop: str) -> None:
    machine: Callable[[], Model] = type("ModelOnALoop", (Model,), {"loop_name": loop})
    run_state_machine_as_test(machine, settings=settings(max_examples=60, stateful_step_count=60))
