"""Turns the tests of uvicorn's WebSocket classes to ours. ``scripts/uvicorn-suite`` puts it beside them as conftest.

The tests are run as they are. Their fixture for a WebSocket class gives ours, and so does the name of uvicorn's class
in their module, which some tests use in place of the fixture. `DIFFERENT` lists those in which our contract is another.
"""

from __future__ import annotations

import asyncio
import asyncio.selector_events
import os
import re
from collections import Counter
from collections.abc import Awaitable
from types import SimpleNamespace
from typing import Any, TypeVar

import pytest
from tests.protocols import test_websocket as suite

import plumews
from plumews.asgi import PlumeProtocol

T = TypeVar("T")

BODY = os.environ["PLUMEWS_BODY"]
assert plumews.BODY == BODY, f"this is not the {BODY} body"

RETURNS = "the connection of an application that returns is closed with 1000, not cut"
FAILS = "the connection of an application that fails is closed with 1011, not cut"
STOPS = "a server that stops gives the peer time to answer a close frame, as long as its connections may take"

#: Tests in which our contract differs: the assertion that has to fail, and the reason. They fail if it does not.
DIFFERENT = {
    "test_asgi_return_value": ("1000 == 1006", RETURNS),
    "test_close_transport_on_asgi_return": ("1000 == 1006", RETURNS),
    "test_duplicate_handshake": ("1011 == 1006", FAILS),
    "test_shutdown_while_the_close_reply_is_pending": (".transport_closed", STOPS),
}

#: Tests that need options of ours to see what they look for.
OPTIONS: dict[str, dict[str, Any]] = {
    "test_close_resumes_reads_paused_on_an_unconsumed_message": {"max_queue": 1},
    "test_close_gives_up_when_the_peer_never_replies": {"close_timeout": 0.001},
}


class Observed(PlumeProtocol):
    """Our class, with the attributes of uvicorn's classes that the tests look at. It does nothing else otherwise."""

    close_timeout = 10.0  # set by the tests

    @property
    def close_timer(self) -> object:
        """The deadline for the peer's close frame."""
        waits = self._conn is not None and not self.transport.is_closing()
        return self._conn._close_deadline if waits else None

    @property
    def ping_sent_at(self) -> float:
        """Anything but 0.0 once a ping was sent."""
        return self._conn.latency

    @property
    def ping_timer(self) -> object:
        return self._conn._keepalive.ping_period


class PatientConnection(suite.MockWebSocketConnection):
    """Connection of the tests, for timers that do not fire at the next turn of the event loop."""

    async def app_finished(self) -> None:
        await super().app_finished()
        for _ in range(1000 if self._protocol.close_timeout == 0 else 0):
            if self.transport_closed:
                break
            await asyncio.sleep(0.005)  # the transport of the tests is a mock, and tells nobody of its end


class PatientAsyncio(SimpleNamespace):
    """The module ``asyncio`` for the tests, on a machine that has little time for them."""

    async def sleep(self, seconds: float) -> None:
        """Sleep in many turns of the event loop: client and server are on it, and have to get somewhere meanwhile."""
        for _ in range(50):
            await asyncio.sleep(seconds / 50)  # the sleep of a test of uvicorn

    async def wait_for(self, awaitable: Awaitable[T], timeout: float) -> T:
        return await asyncio.wait_for(awaitable, 20 * timeout)


@pytest.fixture(autouse=True)
def ours(monkeypatch: pytest.MonkeyPatch) -> None:
    """Our class, where a test names uvicorn's, and time for a busy machine."""
    monkeypatch.setattr(suite, "WebSocketsSansIOProtocol", Observed)
    patient = PatientAsyncio(
        **{name: each for name, each in vars(asyncio).items() if name not in ("sleep", "wait_for")}
    )
    monkeypatch.setattr(suite, "asyncio", patient)
    monkeypatch.setattr(suite, "MockWebSocketConnection", PatientConnection)


@pytest.fixture
def ws_protocol_cls(request: pytest.FixtureRequest) -> type[PlumeProtocol]:
    options = OPTIONS.get(request.node.originalname)
    return Observed.with_options(**options) if options else Observed


@pytest.fixture(autouse=True)
def mended_client(monkeypatch: pytest.MonkeyPatch) -> None:
    """A transport of asyncio that is gone can be aborted: its ``abort()`` fails if it was closed while it wrote.

    The client of the tests does that after we have refused a large message and have read the rest of it.
    """
    kind: Any = asyncio.selector_events._SelectorTransport  # type: ignore[attr-defined]
    abort = kind.abort
    monkeypatch.setattr(kind, "abort", lambda self: None if self._loop is None else abort(self))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.originalname in DIFFERENT:
            failure, reason = DIFFERENT[item.originalname]
            raises = pytest.RaisesExc(AssertionError, match=re.escape(failure))
            item.add_marker(pytest.mark.xfail(strict=True, raises=raises, reason=reason))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Write the line that counts the tests of each parser."""
    counts: dict[str, Counter[str]] = {}
    for outcome, reports in terminalreporter.stats.items():
        for report in reports if outcome else ():
            parser = re.search(r"\[(httptools|h11|zttp)\b", getattr(report, "nodeid", ""))
            if parser:
                counts.setdefault(parser[1], Counter())[outcome] += 1
    told = [
        f"{parser} " + ", ".join(f"{count} {outcome}" for outcome, count in sorted(each.items()))
        for parser, each in sorted(counts.items())
    ]
    terminalreporter.write_line(f"uvicorn-suite: {BODY} body: {'; '.join(told)}")
