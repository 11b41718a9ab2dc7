"""Sends of a server that fail or fall short, at each send of small scenarios, and numbers of descriptors used again.

This is a short dose: `scripts/faulty-sends` tries all faults in all scenarios, then others by chance.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import loops
from plumews import SendBehavior
from support.faulty_sends import (
    ENDS,
    FAULTS,
    SCENARIOS,
    Control,
    FaultyServer,
    at_every_send,
    build,
    compiler,
    slow_member_at_every_send,
)

pytestmark = pytest.mark.skipif(compiler() is None, reason="the library that fails sends needs Linux and a C compiler")

SHORT = (
    "echo by handler",
    "large echo by callbacks",
    "16 broadcasts by callbacks",
    "16 compressed broadcasts",
    "pings and pongs",
    "closing by handler",
    "pieces",
    "page",
)


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("library"))


@pytest.fixture(scope="module", params=loops())
def server(
    request: pytest.FixtureRequest, library: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[FaultyServer]:
    with FaultyServer(library, tmp_path_factory.mktemp("server"), uvloop=request.param == "uvloop") as server:
        yield server


@pytest.fixture(scope="module", params=loops())
def reusing(
    request: pytest.FixtureRequest, library: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[FaultyServer]:
    """A server in whose process the number of a socket is given away when it is closed."""
    folder = tmp_path_factory.mktemp("server")
    with FaultyServer(library, folder, uvloop=request.param == "uvloop", reuse=True) as server:
        yield server


@pytest.mark.parametrize("fault", ["half, then full", "EAGAIN", "ENOBUFS", "EPIPE", "half, then ECONNRESET"])
@pytest.mark.parametrize("name", SHORT)
def test_peer_gets_whole_frames_or_the_end_of_its_connection(server: FaultyServer, name: str, fault: str) -> None:
    assert at_every_send(server, SCENARIOS[name], FAULTS[fault]) >= 1


@pytest.mark.parametrize("policy", [SendBehavior.DROP, SendBehavior.DROP_OLDEST, SendBehavior.CLOSE])
def test_messages_a_full_socket_refuses_are_counted(server: FaultyServer, policy: SendBehavior) -> None:
    assert slow_member_at_every_send(server, policy.name) > 10


@pytest.mark.parametrize("name", ENDS)
def test_connection_that_ends_writes_to_no_reused_descriptor(reusing: FaultyServer, name: str) -> None:
    for _ in range(10):
        reusing.disarm()
        clients = ENDS[name](reusing)
        assert all(client.is_whole for client in clients), clients
    reusing.check_unharmed()
    reusing.check_base()
    assert reusing.held > 10
    assert reusing.strays == 0


@pytest.mark.parametrize("fault", ["EPIPE", "half, then ECONNRESET"])
@pytest.mark.parametrize("name", ["16 broadcasts by callbacks", "large echo by handler", "closing by callbacks"])
def test_failed_send_writes_to_no_reused_descriptor(reusing: FaultyServer, name: str, fault: str) -> None:
    assert at_every_send(reusing, SCENARIOS[name], FAULTS[fault]) >= 1
    assert reusing.strays == 0


def test_library_sees_a_write_to_a_reused_descriptor(library: Path, tmp_path: Path) -> None:
    program = """
import os, socket
listener = socket.create_server(("127.0.0.1", 0))
sock = socket.create_connection(listener.getsockname())
number = sock.fileno()
sock.close()
try:
    os.write(number, b"a secret")
except BrokenPipeError:
    pass
"""
    shared = tmp_path / "control"
    shared.write_bytes(bytes(ctypes.sizeof(Control)))
    env = {**os.environ, "LD_PRELOAD": str(library), "FAULTY_SEND": str(shared), "FAULTY_SEND_REUSE": "1"}
    subprocess.run([sys.executable, "-c", program], env=env, check=True, timeout=60)
    control = Control.from_buffer_copy(shared.read_bytes())
    assert (control.held, control.strays) == (1, 1)
