"""Event loops for every test, and servers that are gone when it ends.

Each async test runs on asyncio and, where it is installed, on uvloop. `PLUMEWS_TEST_LOOPS=asyncio` (or `uvloop`)
picks one of them, for a run that needs no more.

Hypothesis tries the same examples in every run, however slow the machine is, so that a run says something about
what was changed. `--hypothesis-profile=search` tries others each time.
"""

from __future__ import annotations

import contextlib
import gc
import importlib.util
import logging
import os
from collections.abc import AsyncIterator, Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, settings

import plumews
from plumews import limits
from plumews.hub import events

if TYPE_CHECKING:
    from support.command import Command, Serve

settings.register_profile("search", deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("same", settings.get_profile("search"), derandomize=True)
settings.load_profile("same")


def pytest_configure(config: pytest.Config) -> None:
    """Let processes that share the tests (``-n 3``) take a file at a time. The run ends when one of them crashes."""
    option = config.option
    if getattr(option, "numprocesses", None):
        option.dist = "loadfile" if option.dist == "load" else option.dist
        option.maxworkerrestart = option.maxworkerrestart or "0"


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """Collect tests without the garbage collector: a third of that time is what it looks at, and all of it stays."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()


@pytest.fixture(scope="module", autouse=True)
def young_objects_only() -> None:
    """Thousands of tests and what they need stay: the collector does not look at them each time that it is called."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="module", autouse=True)
def loggers_stay_as_they_are() -> Iterator[None]:
    """No file of tests leaves a logger that others read with another level, or deaf."""

    def state() -> dict[str, Any]:
        return {
            name: (logger.level, logger.propagate, logger.disabled, list(logger.handlers))
            for name in sorted({*logging.root.manager.loggerDict, *READ_LOGGERS})
            if name.partition(".")[0] in READ_LOGGERS
            for logger in (logging.getLogger(name),)
        }

    before = state()
    yield
    fresh = (logging.NOTSET, True, False, [])
    assert {name: now for name, now in state().items() if now != before.get(name, fresh)} == {}


#: First parts of the names of loggers whose entries tests look at.
READ_LOGGERS = ("asyncio", "plumews", "uvicorn", "websockets")

LOOPS = {
    "asyncio": ("asyncio", {"use_uvloop": False}),
    "uvloop": ("asyncio", {"use_uvloop": True}),
}


def loops() -> list[str]:
    """The event loops of this run."""
    wanted = os.environ.get("PLUMEWS_TEST_LOOPS")
    if wanted:
        return [name.strip() for name in wanted.split(",")]
    return ["asyncio", "uvloop"] if importlib.util.find_spec("uvloop") else ["asyncio"]


@pytest.fixture(params=loops())
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    return LOOPS[request.param]


@pytest.fixture
def sliced(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fan-out lets others go on after each stride of members, whatever the clock says."""
    monkeypatch.setattr(limits, "FAN_OUT_SLICE", 0.0)


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Changes of a room are told so often that a test need not wait for them."""
    monkeypatch.setattr(events, "WATCH_INTERVAL", 0.005)


@pytest.fixture
async def start() -> AsyncIterator[Callable[[Any], Any]]:
    """Starts servers that are stopped when the test ends: ``server = await start(plumews.serve(...))``."""
    async with contextlib.AsyncExitStack() as stack:

        async def start_one(serving: Any) -> plumews.Server:
            server: plumews.Server = await stack.enter_async_context(serving)
            return server

        yield start_one


@pytest.fixture
def serve(anyio_backend: tuple[str, dict[str, Any]]) -> Iterator[Serve]:
    """Starts ``plumews serve`` on a free port, on the loop of the test."""
    from support.command import Command  # not above: what it needs is much for those who run a single file

    loop = "uvloop" if anyio_backend[1]["use_uvloop"] else "asyncio"
    with contextlib.ExitStack() as stack:

        def start(*args: str) -> Command:
            where = () if "--unix" in args else ("--port", "0")
            return stack.enter_context(Command("serve", *where, "--loop", loop, *args)).started()

        yield start
