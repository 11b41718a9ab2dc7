"""A visitor of the page, and servers in threads of their own, for tests in a browser."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import re
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from playwright.sync_api import Page

#: Milliseconds for whatever has to happen on a page: by far enough for a browser on a machine that others use.
PATIENCE = 60_000

DESKTOP = {"width": 1200, "height": 800}
PHONE = {"width": 360, "height": 640}


@contextlib.contextmanager
def served(serving: Callable[[], Any]) -> Iterator[str]:
    """The address of a server in a thread of its own."""
    ready: queue.Queue[str] = queue.Queue()
    stop = asyncio.Event()
    loop = asyncio.new_event_loop()

    async def serve() -> None:
        async with serving() as server:
            ready.put(f"127.0.0.1:{server.port}")
            await stop.wait()

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()))
    thread.start()
    try:
        yield ready.get(timeout=60)
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(60)
        loop.close()


class Visitor:
    """Visitor of the page: actions, and what the page shows."""

    def __init__(self, page: Page, url: str) -> None:
        from playwright.sync_api import expect

        self.page = page
        self.expect = expect
        page.goto(url)

    def enter(self, room: str, password: str = "") -> Visitor:
        self.page.get_by_label("Room", exact=True).fill(room)
        self.page.get_by_label("Password").fill(password)
        self.page.get_by_role("button", name="Enter").click()
        return self

    def say(self, text: str) -> None:
        self.page.get_by_label("Message", exact=True).fill(text)
        self.page.keyboard.press("Enter")

    def sees(self, locator: str, text: str | re.Pattern[str]) -> None:
        self.expect(self.page.locator(locator)).to_have_text(text)

    def let_pass(self, seconds: int) -> None:
        """On the clock of the page: nobody waits for the page to ask again, or to connect again."""
        self.page.clock.fast_forward(seconds * 1000)

    def is_connected(self) -> Visitor:
        self.sees("#state", "Connected")
        return self

    def hears(self, *messages: str) -> None:
        """Exactly these, from first to last, and the own ones have come back."""
        self.expect(self.page.locator("#log .entry p")).to_have_text(list(messages), use_inner_text=True)
        self.expect(self.page.locator("#log .sent")).to_have_count(0)

    def has_own(self, *messages: str) -> None:
        self.expect(self.page.locator("#log .own p")).to_have_text(list(messages), use_inner_text=True)
