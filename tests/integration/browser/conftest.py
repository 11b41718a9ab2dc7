"""Fixtures for tests in a real Chromium, against the command in a process of its own.

The tests need the package playwright and a Chromium: the one of ``PLUMEWS_CHROMIUM``, one on the path, or playwright's
own. Without them the tests are skipped, or fail if ``PLUMEWS_REQUIRE_BROWSER=1`` is set.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from support.command import Command
from support.raw_client import kept_port
from support.visitor import DESKTOP, PATIENCE

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

#: A refused WebSocket is reported on the console by the browser itself; anything else there is ours.
_EXPECTED = re.compile(
    r"WebSocket connection to|ERR_CONNECTION_REFUSED|ERR_CONNECTION_RESET|ERR_EMPTY_RESPONSE|ERR_INTERNET_DISCONNECTED"
    r"|responded with a status of (400|401|403)"  # the page asks why
)

ARGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


def missing(what: str) -> None:
    """There is no browser: that is a skip, or a failure."""
    reason = f"{what}; `pip install playwright` and `apt-get install chromium` or `playwright install chromium`"
    if os.environ.get("PLUMEWS_REQUIRE_BROWSER") == "1":
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    try:
        from playwright.sync_api import Error, expect, sync_playwright
    except ImportError:
        missing("playwright is not installed")
        raise
    expect.set_options(timeout=PATIENCE)
    path = os.environ.get("PLUMEWS_CHROMIUM") or shutil.which("chromium")
    with sync_playwright() as playwright:
        if path is None and not Path(playwright.chromium.executable_path).exists():
            missing("there is no Chromium")
        try:
            browser = playwright.chromium.launch(executable_path=path, args=list(ARGS), timeout=PATIENCE)
        except Error as exc:
            missing(f"Chromium does not start: {exc}")
            raise
        yield browser
        browser.close()


@pytest.fixture
def serve() -> Iterator[Callable[..., Command]]:
    with ExitStack() as stack:

        def start(*args: str) -> Command:
            port = () if "--port" in args else ("--port", "0")
            return stack.enter_context(Command("serve", *port, *args)).started()

        yield start


@pytest.fixture(scope="module")
def server() -> Iterator[Command]:
    """One for all who need no options, do not stop it, and keep to a room of their own."""
    with Command("serve", "--port", "0") as command:
        yield command.started()


@pytest.fixture
def port() -> Iterator[int]:
    """For a server that is stopped and started again."""
    with kept_port() as port:
        yield port


@pytest.fixture
def tab(browser: Browser) -> Iterator[Callable[..., Page]]:
    """Opens tabs; when the test ends, none of them may have complained."""
    complaints: list[str] = []
    with ExitStack() as stack:

        def open_tab(viewport: dict[str, int] = DESKTOP) -> Page:
            context = stack.enter_context(browser.new_context(viewport=viewport))
            context.set_default_timeout(PATIENCE)
            page = context.new_page()
            page.clock.install()  # goes on like any other, until it is put forward
            page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
            page.on("pageerror", lambda error: complaints.append(str(error)))
            page.on("dialog", lambda dialog: complaints.append("a dialog") or dialog.dismiss())
            return page

        yield open_tab
    assert [text for text in complaints if not _EXPECTED.search(text)] == []
