"""What is counted: echoes, broadcasts and connects, each driven in lockstep."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass

from .lockstep import Bytes, Client, Messages, frame

#: Puts so many batches through a server, and reads every answer.
Drive = Callable[[int], None]


@dataclass(frozen=True)
class Driven:
    """How a server is driven. ``batches`` are counted, after ``few`` that are not: buffers are made in these."""

    batches: int
    few: int = 20

    @property
    def messages(self) -> int:
        """Messages, deliveries or connects in one batch."""
        raise NotImplementedError  # abstract: each kind of row implements it

    def connect(self, stack: contextlib.ExitStack, port: int, *, raw: bool = False, tls: bool = False) -> Drive:
        """Open the connections, to the end of ``stack``."""
        raise NotImplementedError  # abstract: each kind of row implements it


@dataclass(frozen=True, kw_only=True)
class Echo(Driven):
    """``batch`` messages of ``size`` bytes there and back on one connection."""

    size: int
    batch: int

    @property
    def messages(self) -> int:
        return self.batch

    def connect(self, stack: contextlib.ExitStack, port: int, *, raw: bool = False, tls: bool = False) -> Drive:
        client = Client(port, raw=raw, tls=tls)
        stack.callback(client.close)
        message = frame(bytes(self.size))
        sent = message * self.batch
        stream = Bytes(len(message)) if raw else Messages()

        def drive(batches: int) -> None:
            for _ in range(batches):
                client.sock.sendall(sent)
                client.read(stream, self.batch)

        return drive


@dataclass(frozen=True, kw_only=True)
class Broadcast(Driven):
    """``batch`` messages of ``size`` bytes from a publisher to so many members; ``raw`` servers know no frames."""

    size: int
    batch: int
    members: int

    @property
    def messages(self) -> int:
        return self.batch * self.members

    def connect(self, stack: contextlib.ExitStack, port: int, *, raw: bool = False, tls: bool = False) -> Drive:
        members = []
        for _ in range(self.members):
            members.append(Client(port, tls=tls))
            stack.callback(members[-1].close)
        publisher = Client(port, "/publish", tls=tls)
        stack.callback(publisher.close)
        sent = frame(bytes(self.size), masked=not raw) * self.batch
        streams = [Messages() for _ in members]

        def drive(batches: int) -> None:
            for _ in range(batches):
                publisher.sock.sendall(sent)
                for member, stream in zip(members, streams, strict=True):
                    member.read(stream, self.batch)

        return drive


@dataclass(frozen=True, kw_only=True)
class Connects(Driven):
    """Connect, upgrade, closing handshake, one client after the other."""

    offer: str | None = None

    @property
    def messages(self) -> int:
        return 1

    def connect(self, stack: contextlib.ExitStack, port: int, *, raw: bool = False, tls: bool = False) -> Drive:
        def drive(batches: int) -> None:
            for _ in range(batches):
                Client(port, raw=raw, tls=tls, offer=self.offer).say_goodbye(raw=raw)

        return drive


def echo(size: int, batch: int) -> Echo:
    """Some hundred messages, fewer of large ones."""
    return Echo(max(10, min(1000, (8 << 20) // (size * batch * 16) or 1, 20_000 // batch)), size=size, batch=batch)


def broadcast(size: int, batch: int, members: int) -> Broadcast:
    """Some ten thousand deliveries."""
    return Broadcast(max(10, 30_000 // (batch * members)), size=size, batch=batch, members=members)


CONNECTS = Connects(200)
