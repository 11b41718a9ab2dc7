"""Tests of TLS below blocking connections. TLS inside TLS is tested with proxies, in `test_dialing`."""

from __future__ import annotations

import pytest

from plumews import ConnectError
from plumews.sync import connect
from support.fakes import PATIENCE, tls_contexts
from support.threaded import in_thread, server


def test_messages_pass_over_tls_in_both_directions_at_once() -> None:
    theirs, ours = tls_contexts()
    with server(scheme="wss", ssl=theirs, send_timeout=None) as uri, connect(uri, ssl=ours) as conn:

        def send() -> None:
            for number in range(50):
                conn.send(f"{number} " * 20_000)

        with in_thread(send) as sent:
            for number in range(50):
                assert conn.recv(timeout=PATIENCE) == f"{number} " * 20_000
            sent()
        assert conn.ping() > 0
        conn.send("last")
        assert conn.recv() == "last"
    assert conn.close_code == 1000


def test_a_certificate_that_is_not_known_names_the_step() -> None:
    theirs, _ = tls_contexts()
    with server(scheme="wss", ssl=theirs) as uri, pytest.raises(ConnectError, match="certificate") as raised:
        connect(uri).open()
    assert raised.value.step == "tls"
