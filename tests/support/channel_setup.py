"""A channel on a transport that is no socket, and a loop whose ticks the test ends."""

from __future__ import annotations

from typing import Any

from plumews.constants import Opcode
from plumews.protocol.codec import build_frame
from plumews.protocol.message import EncodedMessage, encode
from plumews.transport import waiters
from plumews.transport.channel import Channel
from plumews.transport.loop_context import Flushable, LoopContext
from plumews.transport.waiters import Waiter
from support.fakes import FakeTransport


class State(LoopContext):
    """The loop's share: keeps who is dirty until the test ends the tick."""

    def __init__(self) -> None:
        super().__init__(None)  # type: ignore[arg-type]  # no loop
        self.dirty: list[Flushable] = []
        self.gathered: list[Flushable] = []

    def gather(self, channel: Flushable) -> None:
        assert channel not in self.gathered, "gathered twice"
        self.gathered.append(channel)

    def mark_dirty(self, channel: Flushable) -> None:
        assert channel not in self.dirty, "marked twice"
        self.dirty.append(channel)

    def end_of_tick(self) -> None:
        flushing, self.dirty, self.gathered = self.gathered + self.dirty, [], []
        for channel in flushing:
            channel._flush()


class Setup:
    def __init__(self, **bounds: int) -> None:
        self.state = State()
        self.channel = Channel(self.state, **{"queue_size": 4, "queue_bytes": 1000, **bounds})
        self.transport = FakeTransport(self)
        self.channel._attach(self.transport)  # type: ignore[arg-type]
        self.finished = 0

    def pause_writing(self) -> None:
        self.channel._pause_output()

    def resume_writing(self) -> None:
        if self.channel._output_drained():
            self.channel._resume_output()
            self.state.end_of_tick()

    def on_finished(self) -> None:
        self.finished += 1

    @property
    def messages(self) -> list[Any]:
        return [payload for kind, payload in self.transport.events() if kind in (Opcode.TEXT, Opcode.BINARY)]


CLOSE = build_frame(Opcode.CLOSE, b"\x03\xe8")


def message(text: str) -> EncodedMessage:
    return encode(Opcode.TEXT, text.encode())


def ping(payload: bytes) -> bytes:
    return build_frame(Opcode.PING, payload)


def pong(payload: bytes) -> bytes:
    return build_frame(Opcode.PONG, payload)


def full_setup() -> Setup:
    """Return a setup with a full transport, whose full queue holds the texts a, b, c and d."""
    setup = Setup()
    setup.transport.fill()
    for text in "abcd":
        assert setup.channel._try_queue(message(text))
    return setup


class Outcome:
    """Result of a message that waited."""

    def __init__(self) -> None:
        self.answers: list[bool] = []

    def __call__(self, accepted: bool) -> None:
        self.answers.append(accepted)


def wait(setup: Setup, text: str) -> tuple[Waiter, Outcome]:
    outcome = Outcome()
    return waiters.add(setup.channel, message(text), outcome), outcome
