"""Server and connection of the tests of the blocking client."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from plumews.sync import Conn, connect
from support.threaded import server


@pytest.fixture(scope="module")
def echo_uri() -> Iterator[str]:
    with server(max_size=32 * 1024 * 1024, send_timeout=None) as uri:
        yield uri


@pytest.fixture
def conn(echo_uri: str) -> Iterator[Conn]:
    with connect(echo_uri, max_size=32 * 1024 * 1024) as conn:
        yield conn
