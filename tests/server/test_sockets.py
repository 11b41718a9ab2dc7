"""Listening sockets: several addresses, ports, and inherited descriptors."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
from pathlib import Path

import pytest

import plumews
from plumews.server import sockets
from plumews.server.sockets import (
    activated_descriptors,
    given_sockets,
    inherited_sockets,
    tcp_sockets,
)
from support.fakes import echo
from support.handshake_setup import says_hello
from support.raw_client import Wire, text

if not hasattr(socket, "AF_UNIX"):
    pytest.skip("this system has no Unix sockets", allow_module_level=True)


# --- TCP ------------------------------------------------------------------------------------------


@pytest.fixture
async def names(monkeypatch):
    """Addresses by name, set by a test."""
    known: dict[str, list[str]] = {}

    async def getaddrinfo(name, port, **options):
        addresses = known.get(name, [name])
        return [info for address in addresses for info in socket.getaddrinfo(address, port, **options)]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo, raising=False)
    return known


class Picky(sockets.OwnSocket):
    """Socket for which the port of another address is in use a few times."""

    refusals = 0

    def bind(self, address):
        if address[1] and Picky.refusals:
            Picky.refusals -= 1
            raise OSError(errno.EADDRINUSE, "Address already in use")
        super().bind(address)


@pytest.fixture
def picky(monkeypatch):
    def refuse(times):
        monkeypatch.setattr(sockets, "OwnSocket", Picky)
        monkeypatch.setattr(Picky, "refusals", times)

    return refuse


@pytest.mark.parametrize("host", ["here", ["127.0.0.1", "::1"], ["::1", "127.0.0.1", "127.0.0.2", "127.0.0.1"]])
async def test_port_0_is_one_port_on_all_addresses(start, names, host):
    names["here"] = ["127.0.0.1", "::1"]  # as localhost on most machines
    server = await start(plumews.serve(echo, host, 0))
    addresses = [sock.getsockname()[:2] for sock in server.sockets]
    assert {port for _, port in addresses} == {server.port}
    wanted = names["here"] if host == "here" else set(host)
    assert sorted(host for host, _ in addresses) == sorted(wanted)
    assert all([await says_hello(address) for address in addresses])


async def test_port_0_taken_on_a_second_address_is_tried_again(start, picky):
    picky(3)
    server = await start(plumews.serve(echo, ["127.0.0.1", "127.0.0.2"], 0))
    assert Picky.refusals == 0
    assert {sock.getsockname()[1] for sock in server.sockets} == {server.port}


async def test_port_0_taken_each_time_raises_and_leaves_nothing_open(picky, recwarn):
    picky(1000)
    with pytest.raises(OSError, match=r"Address already in use: '127\.0\.0\.2 port \d+'"):
        await plumews.serve(echo, ["127.0.0.1", "127.0.0.2"], 0)
    assert Picky.refusals == 1000 - sockets._PORT_ATTEMPTS
    assert not [str(one.message) for one in recwarn if "unclosed" in str(one.message)]


async def test_given_port_is_tried_once(picky):
    picky(1000)
    with pytest.raises(OSError, match="Address already in use"):
        await tcp_sockets("127.0.0.1", 9, reuse_port=None, backlog=1)
    assert Picky.refusals == 999


async def test_missing_address_is_left_out_unless_it_is_the_only_one(names):
    names.update(both=["127.0.0.1", "203.0.113.1"], neither=["203.0.113.1", "203.0.113.2"])
    (only,) = await tcp_sockets("both", 0, reuse_port=None, backlog=1)
    with only:
        assert only.getsockname()[0] == "127.0.0.1"
    for hosts in ("neither", ["both", "neither"]):
        with pytest.raises(OSError, match=r"requested address: '203\.0\.113\.2 port"):
            await tcp_sockets(hosts, 0, reuse_port=None, backlog=1)


async def test_address_within_another_raises():
    with pytest.raises(OSError, match="Address already in use"):
        await plumews.serve(echo, ["0.0.0.0", "127.0.0.1"], 0)


async def test_several_existing_sockets_are_served(start, tmp_path):
    given = [socket.create_server(("127.0.0.1", 0)), socket.socket(socket.AF_UNIX)]
    given[1].bind(str(tmp_path / "s"))
    server = await start(plumews.serve(echo, sock=given))
    assert [await says_hello(sock.getsockname()) for sock in server.sockets] == [True, True]


@pytest.mark.parametrize(
    ("given", "error", "said"),
    [
        ("127.0.0.1", TypeError, "sock must be a socket.socket or several, not str"),
        (3, TypeError, "not int"),
        ([], ValueError, "at least one socket"),
    ],
)
def test_sock_of_wrong_type_raises(given, error, said):
    with pytest.raises(error, match=said):
        plumews.serve(echo, sock=given)


def test_sock_of_another_family_raises():
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as datagrams, socket.socket() as tcp:
        with pytest.raises(ValueError, match="must be a stream socket"):
            plumews.serve(echo, sock=datagrams)
        with pytest.raises(ValueError, match="must be a Unix socket"):
            plumews.unix_serve(echo, sock=tcp)
        assert given_sockets(tcp) == [tcp]


def test_empty_list_of_hosts_raises():
    with pytest.raises(ValueError, match="host must be at least one"):
        plumews.serve(echo, [], 0)


# --- inherited descriptors ------------------------------------------------------------------------


@pytest.fixture
def listening(tmp_path):
    """A listening TCP socket and a listening Unix socket of another process."""
    with socket.create_server(("127.0.0.1", 0)) as tcp, socket.socket(socket.AF_UNIX) as unix:
        unix.bind(str(tmp_path / "s"))
        unix.listen()
        yield tcp, unix


async def test_inherited_sockets_are_served_and_their_file_stays(listening):
    names = [sock.getsockname() for sock in listening]
    given = inherited_sockets(os.dup(sock.fileno()) for sock in listening)
    assert not any(sock.get_inheritable() for sock in given)
    async with plumews.serve(echo, sock=given) as server:
        assert server.port == names[0][1]
        assert [await says_hello(name) for name in names] == [True, True]
    assert Path(names[1]).is_socket()


async def test_stop_leaves_the_backlog_of_inherited_sockets(listening):
    server = await plumews.serve(echo, sock=inherited_sockets(os.dup(sock.fileno()) for sock in listening))
    with contextlib.ExitStack() as stack:
        for sock in listening:  # the loop runs nothing before the stop
            client = stack.enter_context(socket.socket(sock.family))
            client.connect(sock.getsockname())
        server._listener.close()  # what a stop does first
        server.close()
        await server.wait_closed()
        for sock in listening:
            sock.setblocking(False)
            sock.accept()[0].close()


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("closed", "is not open"),
        ("file", "is no socket"),
        ("datagrams", "is no TCP or Unix stream socket"),
        ("connected", "does not listen"),
        ("bound", "does not listen"),
        ("twice", "is given twice"),
    ],
)
def test_descriptor_of_no_listening_socket_raises_naming_it(listening, tmp_path, kind, said):
    with contextlib.ExitStack() as stack:
        sock = socket.socket(type=socket.SOCK_DGRAM if kind == "datagrams" else socket.SOCK_STREAM)
        fd = stack.enter_context(sock).fileno()
        if kind == "file":
            fd = stack.enter_context((tmp_path / "file").open("w")).fileno()
        elif kind == "closed":
            sock.close()
        elif kind == "connected":
            sock.connect(listening[0].getsockname())
        elif kind == "bound":
            sock.bind(("127.0.0.1", 0))
        elif kind == "twice":
            fd = listening[1].fileno()
        fds = [listening[1].fileno(), fd]
        with pytest.raises(ValueError, match=f"descriptor {fd} {said}"):
            inherited_sockets(fds)
        assert listening[1].getsockname() == str(tmp_path / "s")  # nothing was closed


@pytest.mark.parametrize(
    ("pid", "count", "expected"),
    [("mine", "2", [3, 4]), ("mine", "0", []), ("mine", None, []), ("1", "2", []), (None, "2", []), ("no", "x", [])],
)
def test_activated_descriptors_are_of_this_process_and_once(pid, count, expected):
    said = {"LISTEN_PID": str(os.getpid()) if pid == "mine" else pid, "LISTEN_FDS": count, "LISTEN_FDNAMES": "a:b"}
    environ = {"HOME": "/", **{name: value for name, value in said.items() if value is not None}}
    assert list(activated_descriptors(environ)) == expected
    assert environ == {"HOME": "/"}


@pytest.mark.parametrize("count", ["two", "-1", "1.5", "\u0662"])
def test_invalid_listen_fds_raises(count):
    with pytest.raises(ValueError, match="LISTEN_FDS must be the number of sockets"):
        activated_descriptors({"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": count})


class Counting(socket.socket):
    """Listening socket of an application, which counts what it accepts."""

    accepted = 0

    def accept(self):
        accepted = super().accept()
        self.accepted += 1
        return accepted


async def test_server_calls_accept_of_a_given_socket(start):
    listening = Counting()
    listening.bind(("127.0.0.1", 0))
    server = await start(plumews.serve(echo, sock=listening))
    async with await Wire.open(server) as wire:
        wire.send(text("a"))
        assert await wire.message() == "a"
    assert listening.accepted == 1


@pytest.mark.parametrize("family", [socket.AF_INET, getattr(socket, "AF_UNIX", None)], ids=["tcp", "unix"])
def test_accept_from_returns_what_accept_does(family, tmp_path):
    if family is None:
        pytest.skip("no Unix sockets")
    with socket.socket(family, socket.SOCK_STREAM) as listening:
        listening.bind(("127.0.0.1", 0) if family == socket.AF_INET else str(tmp_path / "socket"))
        listening.listen()
        pairs = []
        for accept in (sockets.accept_from, socket.socket.accept):
            client = socket.create_connection(listening.getsockname()) if family == socket.AF_INET else None
            if client is None:
                client = socket.socket(family, socket.SOCK_STREAM)
                client.connect(listening.getsockname())
            accepted, address = accept(listening)
            with client, accepted:
                assert address == client.getsockname()
                kinds = (accepted.family, accepted.type, accepted.proto, accepted.get_inheritable())
                pairs.append((*kinds, *map(type, kinds)))
                with accepted.dup() as twin:
                    assert (twin.family, twin.type) == kinds[:2]
                client.sendall(b"x")
                assert accepted.recv(1) == b"x"
        assert pairs[0] == pairs[1]
        listening.setblocking(False)
        with pytest.raises(BlockingIOError):
            sockets.accept_from(listening)
