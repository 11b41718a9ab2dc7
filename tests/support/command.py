"""The command `plumews` as a process of its own, for tests that start it, talk to it and stop it.

It runs the same copy of the package as the tests, with warnings as errors. A `Command` looks enough like a server
for `wire.Wire` to connect to it.
"""

from __future__ import annotations

import datetime
import ipaddress
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

import plumews
from conftest import loops
from plumews.cli import options
from support.raw_client import Wire, close, upgrade

#: Of tokens, in the files that say so.
SECRET = b"0123456789abcdef0123456789abcdef"

#: Signals that ask for a stop, by name: on Windows only a console event reaches another process.
STOP_SIGNALS: dict[str, int] = (
    {"CTRL_BREAK_EVENT": signal.CTRL_BREAK_EVENT}
    if sys.platform == "win32"
    else {"SIGINT": signal.SIGINT, "SIGTERM": signal.SIGTERM}
)

_NEW_GROUP: dict[str, Any] = {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP} if sys.platform == "win32" else {}

#: For tests in which the loop does not matter: that which the command takes by itself.
on_one_loop = pytest.mark.parametrize("anyio_backend", loops()[-1:], indirect=True)


#: A process that makes itself the one that was started.
_ACTIVATE = """
import fcntl, os, sys
for to, fd in enumerate([fcntl.fcntl(fd, fcntl.F_DUPFD, 100) for fd in {fds}], 3):
    os.dup2(fd, to)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(len({fds})))
os.execv(sys.argv[1], sys.argv[1:])
"""


class Command:
    """``python -m plumews ARGS``; as a context manager it does not outlive the test.

    It inherits the descriptors ``hand_over``; with ``activate`` as systemd would do it, from 3 on and by variables.
    """

    def __init__(self, *args: str, hand_over: tuple[int, ...] = (), activate: bool = False) -> None:
        path = str(Path(plumews.__file__).parent.parent)
        command = [sys.executable, "-W", "error", "-m", "plumews", *args]
        if activate:
            command = [sys.executable, "-c", _ACTIVATE.format(fds=hand_over), *command]
        self.process = subprocess.Popen(
            command,
            pass_fds=hand_over,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            env={**os.environ, "PYTHONPATH": path, "PYTHONIOENCODING": "utf-8"},
            **_NEW_GROUP,
        )
        self.announced: list[str] = []
        self.url = ""

    def line(self) -> str:
        """The next line on stdout."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, f"the command ended: {self.end()}"
        return line.rstrip("\n")

    def started(self) -> Command:
        """Wait until it listens, and read what it announces."""
        self.announced = [self.line(), self.line()]
        self.url = self.announced[0].split(" ")[4]
        return self

    @property
    def port(self) -> int:
        return int(self.url.split("/")[2].rpartition(":")[2])

    def stop(self, number: int | None = None) -> None:
        """Send a signal; the first of `STOP_SIGNALS` by default."""
        self.process.send_signal(next(iter(STOP_SIGNALS.values())) if number is None else number)

    def end(self) -> tuple[int, list[str], list[str]]:
        """Wait for the end: exit code, and what is left of stdout and stderr in lines."""
        out, err = self.process.communicate(timeout=120)
        return self.process.returncode, out.splitlines(), err.splitlines()

    def __enter__(self) -> Command:
        return self

    def __exit__(self, *exc: object) -> None:
        kill(self.process)

    # --- what `Wire.connect` asks of a server -----------------------------------------------------

    @property
    def sockets(self) -> tuple[Command]:
        return (self,)

    @property
    def family(self) -> socket.AddressFamily:
        return socket.AF_INET

    def getsockname(self) -> str | tuple[str, int]:
        return self.url.removeprefix("unix:") if self.url.startswith("unix:") else ("127.0.0.1", self.port)


#: What the fixture of that name is: it starts ``plumews serve`` with arguments.
Serve = Callable[..., Command]


# --- for its tests --------------------------------------------------------------------------------


def failure(*args: str) -> tuple[int, str]:
    """Exit code and stderr of a command that must fail, saying so in one line."""
    with Command(*args) as command:
        code, out, err = command.end()
    assert out == []
    assert len(err) == 1, err
    return code, err[0]


def cli_loops() -> list[str]:
    return ["asyncio", "uvloop"] if options.has_uvloop() else ["asyncio"]


def kill(process: subprocess.Popen[Any]) -> None:
    """End the process, if it has not ended, and close its pipes."""
    if process.poll() is None:
        process.kill()
        process.wait()
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe is not None:
            pipe.close()


def certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate for localhost that vouches for itself, and its key, as files."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.timezone.utc)
    hour = datetime.timedelta(hours=1)
    names: list[x509.GeneralName] = [
        x509.DNSName("localhost"),
        x509.IPAddress(ipaddress.ip_address("127.0.0.1")),
    ]
    cert = (
        x509.CertificateBuilder(name, name, key.public_key(), 1, now - hour, now + hour)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    files = folder / "cert.pem", folder / "key.pem"
    files[0].write_bytes(cert.public_bytes(serialization.Encoding.PEM))
    files[1].write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return files


async def status(server: Command, path: str, *lines: str, **options: Any) -> int:
    """The status with which ``path`` is answered to somebody who asks for a WebSocket."""
    async with await Wire.connect(server) as wire:
        wire.writer.write(upgrade(path, *lines, **options))
        await wire.read_head()
        return wire.status


async def get(server: Command, path: str, *lines: str) -> tuple[int, bytes]:
    async with await Wire.connect(server) as wire:
        head = "\r\n".join([f"GET {path} HTTP/1.1", "Host: localhost", *lines])
        return await wire.response(f"{head}\r\n\r\n".encode())


def token(**claims: Any) -> str:
    return jwt.encode({"sub": "ada", **claims}, SECRET, algorithm="HS256")


def stopped(closed: str, cut: int) -> list[str]:
    """Return the last lines of a server whose members had read everything."""
    return [
        "stopping; a second Ctrl-C ends at once",
        f"closed {closed}, cut {cut}; delivered 0 messages that waited, lost 0",
    ]


async def says_goodbye(wire: Wire, most: float = 5.0) -> None:
    """Expect a close frame with 1001 and a hint to reconnect, answer it, and wait for the end."""
    code, reason = await wire.closing()
    assert code == 1001
    hint = re.fullmatch(r"reconnect in (\d+\.\d) s", reason)
    assert hint, reason
    assert float(hint[1]) <= most
    wire.send(close(1001))
    await wire.eof()
    wire.writer.close()
