"""Tests of blocking connections in a child of their process."""

from __future__ import annotations

import contextlib
import os

import pytest

from plumews import ConcurrencyError
from plumews.sync import Conn, connect
from support.fakes import PATIENCE


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_child_of_a_fork_cannot_use_a_connection_of_its_parent(echo_uri: str, conn: Conn) -> None:
    conn.send("before")
    child = os.fork()
    if child == 0:
        outcome = 1
        with contextlib.suppress(BaseException):
            calls = [conn.recv, conn.close, conn.abort, conn.ping, conn.read_stream, lambda: conn.send("child")]
            for call in calls:
                with pytest.raises(ConcurrencyError, match="connect in the child"):
                    call()
            with connect(echo_uri) as own:
                own.send("own")
                outcome = 0 if own.recv(timeout=PATIENCE) == "own" else 2
        os._exit(outcome)
    assert os.waitpid(child, 0)[1] == 0
    assert conn.recv(timeout=PATIENCE) == "before"
    conn.send("goes on")
    assert conn.recv(timeout=PATIENCE) == "goes on"
