"""Servers of uvicorn that are gone when the test ends."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from support.uvicorn_setup import App, Uvicorn, running


@pytest.fixture(params=["httptools", "h11"])
def http(request: pytest.FixtureRequest) -> str:
    """Each HTTP parser of uvicorn."""
    parser: str = request.param
    return parser


@pytest.fixture
async def run(caplog: pytest.LogCaptureFixture) -> AsyncIterator[Callable[..., Any]]:
    """Starts servers that are stopped when the test ends: ``server = await run(app, ws_max_size=100)``."""
    caplog.set_level(logging.INFO)
    async with contextlib.AsyncExitStack() as stack:

        async def run_one(app: App, **options: Any) -> Uvicorn:
            return await stack.enter_async_context(running(app, **options))

        yield run_one
