"""Listening sockets: TCP on several addresses, Unix sockets with their files, and inherited descriptors.

Each returned socket is bound and listens. With port 0 all sockets of one server have the same port. A Unix socket
replaces the file of a dead server and of no living one. It removes its own file and no other. The file of an inherited
socket stays.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import stat
import sys
import time
from collections.abc import Iterable, Iterator, MutableMapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeAlias

__all__ = [
    "AcceptedSocket",
    "InheritedSocket",
    "OwnSocket",
    "UnixPath",
    "UnixSocket",
    "accept_from",
    "activated_descriptors",
    "check_unix",
    "given_sockets",
    "inherited_sockets",
    "tcp_sockets",
    "unix_socket",
]

#: Path of a Unix socket, as the functions of `os` take one.
UnixPath: TypeAlias = "str | bytes | os.PathLike[str] | os.PathLike[bytes]"

_AF_UNIX: Final = getattr(socket, "AF_UNIX", None)
_FAMILIES: Final = (socket.AF_INET, socket.AF_INET6, _AF_UNIX)

#: Errors for an address that this machine does not have, and for a family that it does not support.
_NOT_HERE: Final = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)

#: Attempts to take a busy lock, and the seconds in between. A start holds it for a millisecond.
_LOCK_ATTEMPTS: Final = 50
_LOCK_PAUSE: Final = 0.01

#: Free ports that are tried until one is free on all addresses of a server.
_PORT_ATTEMPTS: Final = 100

#: The first descriptor of socket activation, sd_listen_fds(3).
_FIRST_ACTIVATED: Final = 3
_ACTIVATION: Final = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PIDFDID")


def given_sockets(given: socket.socket | Sequence[socket.socket], *, unix: bool = False) -> list[socket.socket]:
    """Return the checked sockets of an argument ``sock``. With ``unix`` they must be Unix sockets."""
    sockets: list[socket.socket] = []
    for sock in given if isinstance(given, Sequence) else [given]:
        if not isinstance(sock, socket.socket):
            raise TypeError(f"sock must be a socket.socket or several, not {type(sock).__name__}")
        if sock.type != socket.SOCK_STREAM or (unix and sock.family != _AF_UNIX):
            raise ValueError(f"sock must be a {'Unix' if unix else 'stream'} socket, not {sock!r}")
        sockets.append(sock)
    if not sockets:
        raise ValueError("sock must be at least one socket")
    return sockets


class AcceptedSocket(socket.socket):
    """Accepted connection. Its family and its type are attributes: those of a plain socket look an enum up each time.

    An event loop reads them for each connection, which would cost more than its system calls.
    """

    __slots__ = ("family", "type")

    def dup(self) -> socket.socket:  # type: ignore[override]
        """Return a plain socket: only :func:`accept_from` sets the attributes."""
        twin = socket.fromfd(self.fileno(), self.family, self.type, self.proto)
        twin.settimeout(self.gettimeout())
        return twin


_FAMILY_OF: Final = {int(family): family for family in socket.AddressFamily}
_TYPE_OF: Final = {int(kind): kind for kind in socket.SocketKind}
_family, _type = (vars(socket.SocketType)[name].__get__ for name in ("family", "type"))


def accept_from(listening: socket.socket) -> tuple[socket.socket, Any]:
    """Return a new connection and its address, as ``listening.accept()`` does."""
    accept = getattr(listening, "_accept", None)  # it is private
    if accept is None or type(listening).accept is not socket.socket.accept:  # of a class of the application
        return listening.accept()
    descriptor, address = accept()
    family, kind = _family(listening), _type(listening)
    sock = AcceptedSocket(family, kind, listening.proto, descriptor)
    sock.family = _FAMILY_OF.get(family, family)  # type: ignore[misc]
    sock.type = _TYPE_OF.get(kind, kind)  # type: ignore[misc]
    return sock, address


# --- TCP ------------------------------------------------------------------------------------------


async def tcp_sockets(
    host: str | Sequence[str] | None, port: int, *, reuse_port: bool | None, backlog: int
) -> list[socket.socket]:
    """Listen on all addresses of ``host``. Port 0 is one free port on all of them.

    An address of a name is left out if this machine does not have it (``::1`` without IPv6), unless it is the only one.

    Raises:
        OSError: an address cannot be used.
        UnicodeError: a name cannot be looked up.
    """
    hosts = [host] if host is None or isinstance(host, str) else list(host)
    loop = asyncio.get_running_loop()
    found = [
        await loop.getaddrinfo(name or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE) for name in hosts
    ]
    attempts = 1 if port else _PORT_ATTEMPTS  # the free port of the first address may be taken on another
    while True:
        attempts -= 1
        try:
            return _bind_all(found, port, reuse_port, backlog)
        except OSError as exc:
            if not attempts or exc.errno != errno.EADDRINUSE:
                raise


def _bind_all(found: Sequence[Sequence[Any]], port: int, reuse_port: bool | None, backlog: int) -> list[socket.socket]:
    with contextlib.ExitStack() as opened:
        sockets: dict[tuple[int, Any], socket.socket] = {}
        for infos in found:  # of one name
            bound, missing = False, None
            for family, _, proto, _, address in infos:
                where = (address[0], port, *address[2:])
                if (family, where) in sockets:
                    bound = True
                    continue
                try:
                    sock = opened.enter_context(_bound(family, proto, where, reuse_port, backlog))
                except OSError as exc:
                    if exc.errno not in _NOT_HERE:
                        raise
                    missing = exc
                    continue
                port = sock.getsockname()[1]
                sockets[family, (address[0], port, *address[2:])] = sock
                bound = True
            if missing is not None and not bound:
                raise missing
        opened.pop_all()
    return list(sockets.values())


def _bound(family: int, proto: int, address: Any, reuse_port: bool | None, backlog: int) -> socket.socket:
    sock = OwnSocket(family, socket.SOCK_STREAM, proto)
    try:
        if os.name == "posix" and sys.platform != "cygwin":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if reuse_port:
            if not hasattr(socket, "SO_REUSEPORT"):
                raise ValueError("reuse_port is not there on this system")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        try:
            sock.bind(address)
            # With SO_REUSEADDR some conflicts show here only.
            sock.listen(backlog)
        except OSError as exc:
            raise OSError(exc.errno, exc.strerror, f"{address[0]} port {address[1]}") from None
    except BaseException:
        sock.close()
        raise
    return sock


# --- Unix sockets ---------------------------------------------------------------------------------


class OwnSocket(socket.socket):
    """Listening socket made for one process: a child of a fork does not keep it open."""


class UnixSocket(OwnSocket):
    """Unix socket that owns the file at its path: closing it removes the file, if it is still the same file."""

    #: Process that made the file, its path, its device and its inode.
    _file: tuple[int, str, int, int] | None = None

    def bind_file(self, path: str, mode: int | None) -> None:
        """Bind to ``path``, with the permissions ``mode``. Clients can connect after `listen`."""
        if mode is not None:
            with contextlib.suppress(OSError):
                os.fchmod(self.fileno(), mode)  # on Linux the file begins with these, less the umask
        try:
            self.bind(path)
        except OSError as exc:  # it names no path, and has no number for a path that is too long
            raise OSError(exc.errno or errno.ENAMETOOLONG, exc.strerror or str(exc), path) from None
        made = Path(path).lstat()
        self._file = (os.getpid(), str(Path(path).absolute()), made.st_dev, made.st_ino)
        if mode is not None and stat.S_IMODE(made.st_mode) != mode:
            Path(path).chmod(mode)

    def close(self) -> None:
        """Remove the file, and close the socket.

        In this order: while the socket listens, no other start takes its place, and its inode is not used again.
        """
        if self._file is not None:
            pid, path, *made = self._file
            self._file = None
            with contextlib.suppress(OSError):
                found = Path(path).lstat()
                if [found.st_dev, found.st_ino] == made and os.getpid() == pid:
                    Path(path).unlink()
        super().close()


def check_unix(path: UnixPath, mode: int | None) -> str:
    """Return ``path`` as text. Raise ``TypeError`` or ``ValueError`` for an invalid path or mode."""
    if _AF_UNIX is None:
        raise ValueError("there are no Unix sockets on this system")
    if not isinstance(path, (str, bytes, os.PathLike)):
        raise TypeError(f"path must be a str, bytes or an os.PathLike, not {type(path).__name__}")
    name = os.fsdecode(path)
    if not name:
        raise ValueError("the path of a Unix socket must not be empty")
    if name.startswith("\0"):
        if sys.platform != "linux":
            raise ValueError("abstract Unix sockets are there on Linux only: give a path")
        if mode is not None:
            raise ValueError("an abstract Unix socket has no permissions: leave mode out, or give a path")
    elif "\0" in name:
        raise ValueError("the path of a Unix socket must not have a NUL in it")
    if mode is not None:
        if isinstance(mode, bool) or not isinstance(mode, int):
            raise TypeError(f"mode must be an int, such as 0o660, not {type(mode).__name__}")
        if not 0 <= mode <= 0o777:
            raise ValueError(f"mode must be permissions from 0 to 0o777, such as 0o660, not {mode} ({mode:#o})")
    return name


def unix_socket(path: str, mode: int | None, backlog: int) -> UnixSocket:
    """Listen at ``path``, a result of `check_unix`. A path that begins with NUL is abstract (Linux).

    A socket file that no server listens on is replaced.

    Raises:
        OSError: a server listens there (``EADDRINUSE``), the file is no socket (``EEXIST``), or the system does not
            permit it.
    """
    assert _AF_UNIX is not None
    sock = UnixSocket(_AF_UNIX, socket.SOCK_STREAM)
    try:
        if path.startswith("\0"):
            sock.bind(path)
            sock.listen(backlog)
        else:
            with _alone_in(Path(path).parent):
                _make_way(path)
                sock.bind_file(path, mode)
                sock.listen(backlog)
    except BaseException:
        sock.close()
        raise
    return sock


@contextlib.contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Lock ``folder`` against other starts: of two that find the same dead file, one would remove the other's new one.

    If the lock stays busy for half a second, or is not supported, the start goes on without it.
    """
    import fcntl

    held = None
    with contextlib.suppress(OSError):
        held = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        for _ in range(_LOCK_ATTEMPTS):
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                time.sleep(_LOCK_PAUSE)
    try:
        yield
    finally:
        if held is not None:
            os.close(held)


def _make_way(path: str) -> None:
    """Remove the socket file of a dead server. Raise ``OSError`` for any other file."""
    try:
        found = Path(path).lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise FileExistsError(errno.EEXIST, "it is there, and no socket", path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)  # a full backlog would hold us
        failure = probe.connect_ex(path)
    if failure == errno.ECONNREFUSED:
        with contextlib.suppress(FileNotFoundError):
            Path(path).unlink()
    elif failure in (0, errno.EAGAIN, errno.EPROTOTYPE):  # it listens, is busy, or takes datagrams
        raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE), path)
    elif failure != errno.ENOENT:
        raise OSError(failure, os.strerror(failure), path)


# --- inherited descriptors ------------------------------------------------------------------------


class InheritedSocket(socket.socket):
    """Listening socket that other processes may share. Its backlog and its file are left to them."""


def inherited_sockets(descriptors: Iterable[int]) -> list[socket.socket]:
    """Return the listening sockets of ``descriptors``. Child processes do not inherit them.

    Raises:
        ValueError: a descriptor is no listening TCP or Unix socket. The message names it.
    """
    with contextlib.ExitStack() as opened:
        sockets: list[socket.socket] = []
        for fd in descriptors:
            if any(sock.fileno() == fd for sock in sockets):
                raise ValueError(f"descriptor {fd} is given twice")
            sockets.append(_inherited(fd))
            opened.callback(sockets[-1].detach)
        opened.pop_all()
    for sock in sockets:
        sock.set_inheritable(False)
    return sockets


def _inherited(fd: int) -> InheritedSocket:
    try:
        sock = InheritedSocket(fileno=fd)
    except OSError as exc:
        kind = "is not open" if exc.errno == errno.EBADF else "is no socket"
        raise ValueError(f"descriptor {fd} {kind}: expected a listening TCP or Unix socket") from None
    if sock.family not in _FAMILIES or sock.type != socket.SOCK_STREAM:
        kind = "is no TCP or Unix stream socket"
    elif hasattr(socket, "SO_ACCEPTCONN") and not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        kind = "does not listen"
    else:
        return sock
    sock.detach()
    raise ValueError(f"descriptor {fd} {kind}: expected a listening TCP or Unix socket")


def activated_descriptors(environ: MutableMapping[str, str]) -> range:
    """Return the descriptors that systemd has opened for this process (sd_listen_fds(3)).

    Their variables are removed from ``environ``: they are not for child processes.

    Raises:
        ValueError: ``LISTEN_FDS`` is no number.
    """
    pid, count, *_ = (environ.pop(name, "") for name in _ACTIVATION)
    if pid != str(os.getpid()) or not count:
        return range(0)
    if not (count.isascii() and count.isdecimal()):
        raise ValueError(f"LISTEN_FDS must be the number of sockets that are handed over, not {count!r}")
    return range(_FIRST_ACTIVATED, _FIRST_ACTIVATED + int(count))
