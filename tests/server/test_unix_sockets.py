"""Unix sockets: their files, the permissions of the files, and abstract names."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import re
import socket
import stat
import sys
import threading
from pathlib import Path

import pytest

import plumews
from plumews.server import sockets
from plumews.server.listener import Listener
from plumews.server.sockets import (
    UnixSocket,
    check_unix,
    unix_socket,
)
from support.fakes import echo
from support.handshake_setup import says_hello
from support.raw_client import Wire

if not hasattr(socket, "AF_UNIX"):
    pytest.skip("this system has no Unix sockets", allow_module_level=True)

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="wants Unix sockets as Linux has them")


def dead(path):
    """Leave the file of a dead server at ``path``."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))


@pytest.fixture
def umask():
    """Setter of the umask, which is restored after the test."""
    before = os.umask(0o022)
    yield os.umask
    os.umask(before)


# --- the file of a Unix socket --------------------------------------------------------------------


async def test_path_of_a_living_server_raises(start, tmp_path):
    path = str(tmp_path / "s")
    await start(plumews.unix_serve(echo, path))
    with pytest.raises(OSError, match="in use") as caught:
        await plumews.unix_serve(echo, path)
    assert (caught.value.errno, caught.value.filename) == (errno.EADDRINUSE, path)
    assert await says_hello(path)


@pytest.mark.parametrize("kind", [str, os.fsencode, Path])
async def test_file_of_a_dead_server_is_replaced_and_removed(tmp_path, kind):
    path = tmp_path / "s"
    dead(path)
    server = await plumews.unix_serve(echo, kind(str(path)))
    assert await says_hello(str(path))
    server.close()
    await asyncio.sleep(0)  # the closing begins in the next tick
    assert not path.exists()
    await server.wait_closed()


@pytest.mark.parametrize("what", ["file", "folder", "fifo", "link to nothing", "link to a living socket"])
async def test_path_that_is_no_socket_raises_and_is_left(start, tmp_path, what):
    path, other = tmp_path / "s", tmp_path / "other"
    if what == "file":
        path.write_text("precious")
    elif what == "folder":
        path.mkdir()
    elif what == "fifo":
        os.mkfifo(path)
    else:
        if "living" in what:
            await start(plumews.unix_serve(echo, other))
        path.symlink_to(other)
    before = path.lstat()
    with pytest.raises(FileExistsError, match="no socket"):
        await plumews.unix_serve(echo, path)
    assert (path.lstat().st_ino, path.lstat().st_mtime) == (before.st_ino, before.st_mtime)


@on_linux
@pytest.mark.parametrize("kind", ["datagrams", "busy"])
def test_path_of_a_datagram_or_busy_socket_raises(tmp_path, kind):
    path = str(tmp_path / "s")
    with contextlib.ExitStack() as stack:
        living = stack.enter_context(
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM if kind == "datagrams" else socket.SOCK_STREAM)
        )
        living.bind(path)
        if kind == "busy":  # a full backlog, in which a client would wait
            living.listen(0)
            stack.enter_context(socket.socket(socket.AF_UNIX)).connect(path)
        with pytest.raises(OSError, match="in use"):
            unix_socket(path, None, 1)
        assert Path(path).is_socket()


async def test_stop_leaves_the_file_of_the_successor(start, tmp_path):
    path = str(tmp_path / "s")
    old = await plumews.unix_serve(echo, path)
    async with Wire(*await asyncio.open_unix_connection(path)) as silent:
        silent.writer.write(
            b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        await silent.read_head()
        old.close()
        assert (await silent.closing())[0] == 1001  # it does not answer, and the old server waits
        assert old.sockets == ()
        await start(plumews.unix_serve(echo, path))
    await old.wait_closed()
    assert await says_hello(path)


async def test_replaced_file_stays(tmp_path):
    path, other = tmp_path / "s", tmp_path / "other"
    async with plumews.unix_serve(echo, path):
        dead(other)
        other.replace(path)
    assert path.is_socket()


async def test_relative_path_is_removed_from_another_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    async with plumews.unix_serve(echo, "s"):
        assert (tmp_path / "s").is_socket()
        monkeypatch.chdir("/")
    assert not (tmp_path / "s").exists()


async def test_file_of_a_given_sock_stays(tmp_path):
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(str(tmp_path / "s"))
    async with plumews.unix_serve(echo, sock=sock):
        assert await says_hello(str(tmp_path / "s"))
    assert (tmp_path / "s").is_socket()


async def test_failed_start_leaves_no_file(tmp_path, monkeypatch):
    async def fail(listener):
        raise MemoryError

    monkeypatch.setattr(Listener, "start_serving", fail)
    with pytest.raises(MemoryError):
        await plumews.unix_serve(echo, tmp_path / "s")
    assert not (tmp_path / "s").exists()


def test_other_process_does_not_remove_the_file(tmp_path, monkeypatch):
    sock = unix_socket(str(tmp_path / "s"), None, 1)
    monkeypatch.setattr(os, "getpid", lambda: 1)  # as a child of this one would see it
    sock.close()
    assert (tmp_path / "s").is_socket()


def test_one_of_many_starts_replaces_a_dead_server(tmp_path):
    path = str(tmp_path / "s")
    for _ in range(20):
        dead(path)
        won, lost = [], []
        ready = threading.Barrier(4)

        def listen(won=won, lost=lost, ready=ready):
            ready.wait()
            try:
                won.append(unix_socket(path, None, 100))
            except OSError as exc:
                lost.append(exc.errno)

        threads = [threading.Thread(target=listen) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert (len(won), lost) == (1, [errno.EADDRINUSE] * 3)
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(path)
        won[0].close()


def test_lock_that_stays_busy_does_not_block_a_start(tmp_path, monkeypatch):
    fcntl = pytest.importorskip("fcntl")
    monkeypatch.setattr(sockets, "_LOCK_PAUSE", 0.0)
    held = os.open(tmp_path, os.O_RDONLY)
    try:
        fcntl.flock(held, fcntl.LOCK_EX)
        unix_socket(str(tmp_path / "s"), None, 1).close()
    finally:
        os.close(held)


@pytest.mark.parametrize(("path", "number"), [("no/ws.sock", errno.ENOENT), ("x" * 200, errno.ENAMETOOLONG)])
async def test_failing_bind_names_the_path(tmp_path, monkeypatch, path, number):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OSError, match=re.escape(path)) as caught:
        await plumews.unix_serve(echo, path)
    assert (caught.value.errno, caught.value.filename) == (number, path)


# --- its permissions ------------------------------------------------------------------------------


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o077])
@pytest.mark.parametrize("mode", [0o600, 0o660, 0o666, 0o777])
def test_mode_is_set_before_clients_can_connect(tmp_path, umask, monkeypatch, mode, mask):
    path, seen = tmp_path / "s", []

    def look(name, wrapped):
        def call(self, *args):
            if name == "listen":
                seen.append(stat.S_IMODE(path.stat().st_mode))
            wrapped(self, *args)
            seen.append(stat.S_IMODE(path.stat().st_mode))

        monkeypatch.setattr(UnixSocket, name, call, raising=False)

    look("bind", socket.socket.bind)
    look("listen", socket.socket.listen)
    umask(mask)
    with unix_socket(str(path), mode, 1):
        assert seen[1:] == [mode, mode]  # before and when clients can connect
        if sys.platform == "linux":
            assert seen[0] == mode & ~mask
    assert os.umask(mask) == mask  # the umask of the process is the same


async def test_unix_serve_without_mode_uses_the_umask(start, tmp_path, umask):
    umask(0o027)
    await start(plumews.unix_serve(echo, tmp_path / "s"))
    assert stat.S_IMODE((tmp_path / "s").stat().st_mode) == 0o750


async def test_unix_serve_sets_the_mode(start, tmp_path):
    await start(plumews.unix_serve(echo, tmp_path / "s", mode=0o606))
    assert stat.S_IMODE((tmp_path / "s").stat().st_mode) == 0o606


@pytest.mark.parametrize(
    ("path", "mode", "error", "said"),
    [
        ("", None, ValueError, "must not be empty"),
        ("a\0b", None, ValueError, "must not have a NUL in it"),
        (7, None, TypeError, "PathLike"),
        ("s", 660, ValueError, r"mode must be permissions from 0 to 0o777, such as 0o660, not 660 \(0o1224\)"),
        ("s", -1, ValueError, "from 0 to 0o777"),
        ("s", "660", TypeError, "mode must be an int, such as 0o660, not str"),
        ("s", True, TypeError, "mode must be an int, such as 0o660, not bool"),
        pytest.param("\0s", 0o600, ValueError, "has no permissions", marks=on_linux),
    ],
)
def test_invalid_path_or_mode_raises_at_once(path, mode, error, said):
    with pytest.raises(error, match=said):
        plumews.unix_serve(echo, path, mode=mode)


def test_mode_without_path_raises():
    with socket.socket(socket.AF_UNIX) as sock, pytest.raises(TypeError, match="mode is for the file at path"):
        plumews.unix_serve(echo, sock=sock, mode=0o600)


# --- abstract names -------------------------------------------------------------------------------


@on_linux
@pytest.mark.parametrize("kind", [str, os.fsencode])
async def test_abstract_name_is_served_once(start, kind):
    name = kind(f"\0plumews-{os.getpid()}")
    await start(plumews.unix_serve(echo, name))
    assert await says_hello(name)
    with pytest.raises(OSError, match="in use"):
        await plumews.unix_serve(echo, name)


def test_abstract_name_off_linux_raises(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(ValueError, match="on Linux only"):
        check_unix("\0s", None)
