"""Clients of a server whose sends fail or fall short, at each send of a small scenario in turn.

A :class:`FaultyServer` runs `faulty_server.py` with the library `faulty_send.c`. A scenario connects clients, which
know what they expect. Each must get all of it in order, or the beginning of it and then the end of its connection.

``python -m support.faulty_sends --seconds N`` tries all faults, then faults by chance, on both loops and both bodies.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import importlib.util
import itertools
import mmap
import os
import random
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import plumews
from plumews.constants import COMPRESSED, Opcode
from plumews.protocol.codec import Parser
from support.compressed_messages import OFFER, TAIL
from support.raw_client import close, masked, text, upgrade
from support.server_process import ServerProcess

HERE = Path(__file__).parent

#: Seconds after which a client takes a connection for stalled. A server closes within 2 s by itself.
PATIENCE = 9.0

NONE, SHORT_BY_ONE, SHORT_BY_HALF, INTERRUPTED, AGAIN, NO_BUFFERS, BROKEN_PIPE, RESET = range(8)


class Fault(NamedTuple):
    """Fault of a send, and of the ``more`` next ones of its socket. ``ends``: connections that it may end."""

    first: int
    then: int = NONE
    more: int = 0
    ends: str = "none"  # or "one at most", "one"


FOREVER = 1 << 40

FAULTS = {
    "one byte short": Fault(SHORT_BY_ONE),
    "half": Fault(SHORT_BY_HALF),
    "half of a half": Fault(SHORT_BY_HALF, SHORT_BY_HALF, 6),
    "half, then full": Fault(SHORT_BY_HALF, AGAIN, 5),
    "one byte short, then full": Fault(SHORT_BY_ONE, AGAIN, 3),
    "EINTR": Fault(INTERRUPTED),
    "EINTR again and again": Fault(INTERRUPTED, INTERRUPTED, 3),
    "EAGAIN": Fault(AGAIN),
    "EAGAIN again and again": Fault(AGAIN, AGAIN, 10),
    "ENOBUFS": Fault(NO_BUFFERS, ends="one at most"),
    "ENOBUFS again and again": Fault(NO_BUFFERS, NO_BUFFERS, 3, ends="one at most"),
    "half, then ENOBUFS": Fault(SHORT_BY_HALF, NO_BUFFERS, 1, ends="one at most"),
    "EPIPE once": Fault(BROKEN_PIPE, ends="one at most"),
    "EPIPE": Fault(BROKEN_PIPE, BROKEN_PIPE, FOREVER, ends="one"),
    "ECONNRESET once": Fault(RESET, ends="one at most"),
    "ECONNRESET": Fault(RESET, RESET, FOREVER, ends="one"),
    "half, then ECONNRESET": Fault(SHORT_BY_HALF, RESET, FOREVER, ends="one at most"),  # a whole frame may be half
}


class Control(ctypes.Structure):
    _fields_ = [(name, ctypes.c_int64) for name in ("target", "first", "then", "more", "calls", "fd", "held", "strays")]


def compiler() -> str | None:
    """Return the C compiler, or ``None`` where the library cannot be made."""
    return shutil.which(os.environ.get("CC", "cc")) if sys.platform == "linux" else None


def build(folder: Path) -> Path:
    """Compile the library into ``folder``."""
    command = [compiler() or "cc", "-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC"]
    library = folder / "faulty_send.so"
    subprocess.run([*command, "-o", str(library), str(HERE / "faulty_send.c"), "-ldl"], check=True, timeout=120)
    return library


class FaultyServer(ServerProcess):
    """The process of the server, the memory that it shares with its library, and a client of each server beside."""

    def __init__(self, library: Path, folder: Path, *, uvloop: bool, reuse: bool = False) -> None:
        control = folder / "control"
        control.write_bytes(bytes(ctypes.sizeof(Control)))
        with control.open("r+b") as file:
            self._control = Control.from_buffer(mmap.mmap(file.fileno(), 0))
        environment = {"LD_PRELOAD": str(library), "FAULTY_SEND": str(control)}
        if reuse:
            environment["FAULTY_SEND_REUSE"] = "1"
        super().__init__(folder, uvloop=uvloop, patience=PATIENCE, environment=environment)
        self.disarm()
        for scenario in SCENARIOS.values():  # what is made once is made now
            scenario(self)
        self._bystanders = [Client(self, name) for name in ("handler", "callbacks")]
        self.check_unharmed()
        self.base = self._settled(lambda report: False)

    def report(self, kind: bytes = b"") -> dict[str, Any]:
        """Return what the server knows of itself, less the descriptors that are given away."""
        report = super().report(kind)
        report["descriptors"] -= self.held
        assert report["body"] == plumews.BODY
        return report

    def arm(self, fault: Fault, number: int) -> None:
        """Let the send with this ``number``, from now on, have the ``fault``."""
        self.disarm()
        self._control.first, self._control.then, self._control.more = fault.first, fault.then, 0
        self._control.more = fault.more
        self._control.target = number

    def disarm(self) -> None:
        self._control.target = self._control.more = self._control.calls = 0
        self._control.fd = -1

    @property
    def calls(self) -> int:
        """Sends since :meth:`arm`."""
        return int(self._control.calls)

    @property
    def strays(self) -> int:
        """Writes to a number, and closes of it, after the socket that had it was closed."""
        return int(self._control.strays)

    @property
    def held(self) -> int:
        """Numbers of sockets that are given away now."""
        return int(self._control.held)

    def check_unharmed(self) -> None:
        """Check that the connections beside are served."""
        self.disarm()
        for bystander in self._bystanders:
            bystander.send(text("hello"))
            bystander.expect((Opcode.TEXT, "hello"))
            assert bystander.is_whole, bystander

    def check_base(self) -> None:
        """Check that nothing is left of the other connections, and that what was counted adds up."""
        report = self._settled(lambda report: report["descriptors"] != self.base["descriptors"])
        metrics = report["metrics"]
        decided = metrics["broadcast_queued"] + metrics["broadcast_dropped"] + metrics["broadcast_skipped"]
        assert metrics["broadcast_pending"] == 0
        assert metrics["broadcast_matched"] == decided, metrics
        assert self.errors() == ""

    def _settled(self, is_left: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """Return the report in which nothing is left of earlier connections."""
        end = time.monotonic() + PATIENCE
        while True:
            report = self.report()
            if report["connections"] == len(self._bystanders) and not is_left(report):
                return report
            assert time.monotonic() < end, (report, self.errors())
            time.sleep(0.01)  # the client sees the end of a connection before the server has forgotten it

    def __enter__(self) -> FaultyServer:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        for bystander in self._bystanders:
            bystander.sock.close()
        super().__exit__(exc_type, exc, tb)


class Client:
    """One connection that notes what it gets, and what it should have got."""

    def __init__(self, server: FaultyServer, kind: str, path: str = "/", *lines: str) -> None:
        self.path = path
        self.ended = False
        self.got: list[Any] = []
        self.expected: list[Any] = []
        self.pongs: list[bytes] | None = None  # where pongs go that may come at any place
        self.kind = kind
        self._parser = Parser(client=True, max_size=None, allow_rsv1=True, decode_text=False)
        self._inflater = zlib.decompressobj(-15)
        self.sock = socket.create_connection(("127.0.0.1", server.ports[kind]), timeout=PATIENCE)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            if kind == "tls":
                self.sock = server.tls.wrap_socket(self.sock, server_hostname="localhost")
        except (OSError, ssl.SSLError):
            self.ended = True
        self.send(upgrade(path, *lines))
        head = self._read_head()
        self.expected.append(101)
        if head:
            self.got.append(int(head.split(b" ")[1]))

    def _read_head(self) -> bytes:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            byte = self._read(1)
            if not byte:
                return b""
            head += byte
        return head

    def _read(self, size: int) -> bytes:
        """Return b"" at the end of the connection."""
        if self.ended:
            return b""
        try:
            data = self.sock.recv(size)
        except TimeoutError:
            raise AssertionError(f"a connection stalls: {self}") from None
        except (OSError, ssl.SSLError):
            data = b""
        self.ended = not data
        return data

    def send(self, *frames: bytes) -> None:
        """Write all at once, if the server still reads."""
        if not self.ended:
            with contextlib.suppress(ConnectionError, ssl.SSLError):
                self.sock.sendall(b"".join(frames))

    def expect(self, *events: Any) -> None:
        """Read until there are as many events as were expected so far, or the end."""
        self.expected += events
        while len(self.got) < len(self.expected):
            data = self._read(1 << 16)
            if not data:
                return
            self._take(data)

    def _take(self, data: bytes) -> None:
        for kind, payload in self._parser.feed(data):
            if kind & COMPRESSED:
                kind, payload = kind ^ COMPRESSED, self._inflater.decompress(payload + TAIL)
            if kind == Opcode.PONG and self.pongs is not None:
                self.pongs.append(payload)
                continue
            self.got.append((kind, payload.decode() if kind == Opcode.TEXT else payload))
        assert self._parser.error is None, (self._parser.error, self)

    def finish(self, code: int | None = 1000) -> None:
        """Close, or with ``None`` wait for the server's close frame and answer it, and read to the end."""
        if code is None:
            self.expect((Opcode.CLOSE, (1000, "as you like")))
            self.send(close(1000))
        else:
            self.send(close(code))
            self.expect((Opcode.CLOSE, (code, "")))
        while not self.ended:
            self._take(self._read(1 << 16))
        self.sock.close()

    @property
    def is_whole(self) -> bool:
        return bool(self.got == self.expected)

    @property
    def is_begun(self) -> bool:
        """Return True if nothing is wrong with what came before the end."""
        return self.ended and self.got == self.expected[: len(self.got)]

    def __repr__(self) -> str:
        return f"<{self.path}: got {_shortly(self.got)}, expected {_shortly(self.expected)}, ended={self.ended}>"


def _shortly(events: list[Any]) -> str:
    return ", ".join(repr(event)[:40] for event in events)


# --- scenarios ------------------------------------------------------------------------------------

Scenario = Callable[[FaultyServer], list[Client]]

LARGE = bytes(range(256)) * 800  # in four fragments, and more than the kernel takes at once


def echo(kind: str, *lines: str) -> Scenario:
    def run(server: FaultyServer) -> list[Client]:
        client = Client(server, kind, "/", *lines)
        client.send(text("one"), text("two" * 200), text("three"))
        client.expect(*((Opcode.TEXT, message) for message in ("one", "two" * 200, "three")))
        client.send(text("four"))
        client.expect((Opcode.TEXT, "four"))
        client.finish()
        return [client]

    return run


def echo_large(kind: str, *lines: str) -> Scenario:
    def run(server: FaultyServer) -> list[Client]:
        client = Client(server, kind, "/", *lines)
        client.pongs = []  # one may come between fragments
        client.send(text("before"), masked(Opcode.BINARY, LARGE), text("behind"), masked(Opcode.PING, b"ping"))
        client.expect((Opcode.TEXT, "before"), (Opcode.BINARY, LARGE), (Opcode.TEXT, "behind"))
        client.finish()
        assert client.pongs == [b"ping"][: len(client.pongs)]
        assert client.pongs or not client.is_whole, client
        return [client]

    return run


def broadcast(kind: str, count: int, *lines: str, send: str = "/send", size: int = 40) -> Scenario:
    def run(server: FaultyServer) -> list[Client]:
        members = [Client(server, kind, f"/member?name={name}", *lines) for name in "abc"]
        sender = Client(server, kind, send)
        messages = [] if sender.ended else [f"{number} " * size for number in range(count)]
        sender.send(*map(text, messages))
        for member in members:
            member.expect(*((Opcode.TEXT, message) for message in messages))
        sender.finish()
        for member in members:
            member.finish()
        return [*members, sender]

    return run


def resets(kind: str, *lines: str) -> Scenario:
    """Members vanish with a TCP reset while messages for them are sent."""

    def run(server: FaultyServer) -> list[Client]:
        members = [Client(server, kind, f"/member?name={name}", *lines) for name in "abc"]
        sender = Client(server, kind, "/send")
        messages = [f"{number} " * 8000 for number in range(8)]
        sender.send(*map(text, messages[:4]))
        for member in members[:2]:
            member.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
            member.sock.close()
        sender.send(*map(text, messages[4:]))
        members[2].expect(*((Opcode.TEXT, message) for message in messages))
        sender.finish()
        members[2].finish()
        return [sender, members[2]]

    return run


def ends(kind: str, how: str) -> Scenario:
    """Members are ended by the server between broadcasts."""

    def run(server: FaultyServer) -> list[Client]:
        members = [Client(server, kind, f"/member?name={name}") for name in "abc"]
        sender = Client(server, kind, f"/send/{how}")
        sender.send(text("one"), text("two"))
        members[2].expect(*((Opcode.TEXT, message) for message in ("one", "one", "two", "two")))
        sender.finish()
        for member in members[:2]:
            if how == "close_nowait":
                member.send(close(1000))
            while not member.ended:
                member._take(member._read(1 << 16))
            member.sock.close()
        members[2].finish()
        return [sender, members[2]]

    return run


def pings(server: FaultyServer) -> list[Client]:
    client = Client(server, "handler")
    for number in (b"1", b"2", b"3"):
        client.send(masked(Opcode.PING, number))
        client.expect((Opcode.PONG, number))
    client.send(text("ping"))
    client.expect((Opcode.PING, b"from the server"))
    client.send(masked(Opcode.PONG, b"from the server"), masked(Opcode.PING, b""), text("last"))
    client.expect((Opcode.PONG, b""), (Opcode.TEXT, "last"))
    client.finish()
    return [client]


def closing(kind: str) -> Scenario:
    def run(server: FaultyServer) -> list[Client]:
        client = Client(server, kind)
        client.send(text("last words"), text("close"))
        client.expect((Opcode.TEXT, "last words"))
        client.finish(None)
        return [client]

    return run


def pieces(server: FaultyServer) -> list[Client]:
    client = Client(server, "handler")
    for message in ("pieces of a message", "pieces of another"):
        client.send(text(message))
        client.expect((Opcode.TEXT, message))
    client.finish()
    return [client]


def page(server: FaultyServer) -> list[Client]:
    with socket.create_connection(("127.0.0.1", server.ports["handler"]), timeout=PATIENCE) as sock:
        sock.sendall(b"GET /page HTTP/1.1\r\nHost: localhost\r\n\r\n")
        data = b""
        with contextlib.suppress(ConnectionError):
            while part := sock.recv(1 << 16):
                data += part
    client = Client.__new__(Client)
    client.path, client.kind, client.ended, client.sock = "/page", "handler", True, sock
    head, _, body = data.partition(b"\r\n\r\n")
    client.got, client.expected = [body], [b"a page " * 1000]
    if body != client.expected[0]:
        assert client.expected[0].startswith(body), body
        client.got = []
    assert b"HTTP/1.1 200 OK".startswith(head.split(b"\r\n")[0]), head
    return [client]


SCENARIOS: dict[str, Scenario] = {
    "echo by handler": echo("handler"),
    "echo by callbacks": echo("callbacks"),
    "echo compressed": echo("callbacks", OFFER),
    "large echo by handler": echo_large("handler"),
    "large echo by callbacks": echo_large("callbacks"),
    "large echo compressed": echo_large("handler", OFFER),
    "broadcast by callbacks": broadcast("callbacks", 1),
    "broadcast by handler": broadcast("handler", 1),
    "16 broadcasts by callbacks": broadcast("callbacks", 16),
    "16 broadcasts by handler": broadcast("handler", 16),
    "16 large broadcasts": broadcast("callbacks", 16, size=6000),
    "16 compressed broadcasts": broadcast("callbacks", 16, OFFER),
    "16 broadcasts without a hub": broadcast("callbacks", 16, send="/send/plain"),
    "pings and pongs": pings,
    "closing by handler": closing("handler"),
    "closing by callbacks": closing("callbacks"),
    "pieces": pieces,
    "page": page,
    "echo over TLS": echo("tls"),
    "broadcast over TLS": broadcast("tls", 3),
}


#: Scenarios in which connections end while messages for them are sent: without other faults.
ENDS: dict[str, Scenario] = {
    "reset": resets("callbacks"),
    "reset while compressed": resets("handler", OFFER),
    "abort": ends("callbacks", "abort"),
    "close": ends("callbacks", "close_nowait"),
}


def at(server: FaultyServer, scenario: Scenario, fault: Fault, number: int) -> bool:
    """Run ``scenario`` with ``fault`` at the send with this ``number``. Return False if there was no such send."""
    server.arm(fault, number)
    clients = scenario(server)
    came = server.calls >= number
    broken = [client for client in clients if not client.is_whole]
    assert all(client.is_begun for client in broken), broken
    assert len(broken) <= (came and fault.ends != "none"), broken
    # The last send over TLS is no frame: a client may have got all of them.
    silent = came and fault.ends == "one" and not broken and clients[0].kind != "tls"
    assert not silent, "a send fails for ever, and nobody notices"
    server.check_unharmed()
    return came


def at_every_send(server: FaultyServer, scenario: Scenario, fault: Fault) -> int:
    """Run ``scenario`` once for each of its sends. Return how many there are."""
    return _at_every_send(server, lambda number: at(server, scenario, fault, number))


def _at_every_send(server: FaultyServer, play: Callable[[int], bool]) -> int:
    for number in itertools.count(1):
        try:
            came = play(number)
        except Exception as exc:
            raise AssertionError(f"with the fault at send {number}: {exc}\n{server.errors()}") from exc
        if not came:
            break
    server.check_base()
    return number - 1


# --- members that do not keep up ------------------------------------------------------------------

SLOW_MESSAGES = [f"{number} " * 40 for number in range(16)]


def slow_member(server: FaultyServer, policy: str, number: int) -> bool:
    """Let the socket of a member be full for long, from send ``number`` on, in a room whose queues are short.

    Return False if there was no such send.
    """
    before = server.report()["metrics"]
    server.arm(Fault(AGAIN, AGAIN, 30), number)
    members = [Client(server, policy, f"/slow?name={name}") for name in "abc"]
    sender = Client(server, policy, "/send")
    sender.send(*map(text, SLOW_MESSAGES))
    sender.finish()
    for member in members:
        member.send(close(1000))
        while not member.ended:
            member._take(member._read(1 << 16))
        member.sock.close()
    came = server.calls >= number
    report = server.report()
    lost = report["lost"]
    counts = {name: report["metrics"][name] - before[name] for name in before}
    received = 0
    for name, member in zip("abc", members, strict=True):
        texts = [data for kind, data in member.got[1:] if kind == Opcode.TEXT]
        assert texts == [data for data in SLOW_MESSAGES if data in texts], member
        received += len(texts)
        code, _ = member.got[-1][1]
        if policy == "CLOSE" and code == 1013:
            continue
        assert (member.got[-1], len(member.got)) == ((Opcode.CLOSE, (1000, "")), len(texts) + 2), member
        assert len(texts) + lost[name] == len(SLOW_MESSAGES), (member, lost)
    assert sum(member.is_slow for member in map(_Slow, members)) <= 1
    assert counts["broadcast_matched"] == 3 * len(SLOW_MESSAGES)
    if policy in ("BLOCK", "DROP"):
        assert counts["broadcast_queued"] == received, (counts, received)
    server.check_unharmed()
    return came


class _Slow:
    def __init__(self, member: Client) -> None:
        self.is_slow = sum(kind == Opcode.TEXT for kind, _ in member.got[1:]) < len(SLOW_MESSAGES)


def slow_member_at_every_send(server: FaultyServer, policy: str) -> int:
    """Call :func:`slow_member` for each send. Return how many there are."""
    return _at_every_send(server, lambda number: slow_member(server, policy, number))


# --- the long dose --------------------------------------------------------------------------------


@contextlib.contextmanager
def faulty_server(uvloop: bool, reuse: bool = False) -> Iterator[FaultyServer]:
    """Build the library, and run a server with it."""
    with (
        tempfile.TemporaryDirectory() as folder,
        FaultyServer(build(Path(folder)), Path(folder), uvloop=uvloop, reuse=reuse) as server,
    ):
        yield server


def by_chance(chance: random.Random) -> Fault:
    kinds = (SHORT_BY_ONE, SHORT_BY_HALF, INTERRUPTED, AGAIN, NO_BUFFERS, BROKEN_PIPE, RESET)
    first, then = chance.choice(kinds), chance.choice((NONE, *kinds))
    more = 0 if then == NONE else chance.choice((1, 2, 5, 20))
    ends = "none" if max(first, then) <= AGAIN else "one at most"
    return Fault(first, then, more, ends)


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main() -> None:
    parser = argparse.ArgumentParser(prog="faulty-sends", description="Sends that fail, at every place and by chance.")
    parser.add_argument("--seconds", type=float, default=600, help="for all loops together (default %(default)s)")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    options = parser.parse_args()
    loops = [False, True] if importlib.util.find_spec("uvloop") else [False]
    for uvloop in loops:
        end = time.monotonic() + options.seconds / len(loops)
        runs = 0
        with faulty_server(uvloop) as server:
            say(f"{'uvloop' if uvloop else 'asyncio'}, {plumews.BODY}, --seed {options.seed}")
            for name, scenario in SCENARIOS.items():
                for fault in FAULTS.values():
                    runs += at_every_send(server, scenario, fault)
                say(f"  {name}: {runs} runs so far")
            for policy in plumews.SendBehavior:
                runs += slow_member_at_every_send(server, policy.name)
            chance = random.Random(options.seed)
            while time.monotonic() < end:
                name, scenario = chance.choice(list(SCENARIOS.items()))
                fault, number = by_chance(chance), chance.randrange(1, 40)
                try:
                    at(server, scenario, fault, number)
                except AssertionError as exc:
                    sys.exit(f"{name}, {fault}, at send {number}: {exc}\n{server.errors()}")
                runs += 1
            server.check_base()
        say(f"  {runs} runs, all right")


if __name__ == "__main__":
    main()
