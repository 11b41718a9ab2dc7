"""The page in a real Chromium, against the command in a process of its own.

It needs the package playwright and a Chromium: the one that ``PLUMEWS_CHROMIUM`` names, one on the path, or
playwright's own. Where there is none these tests are skipped, unless ``PLUMEWS_REQUIRE_BROWSER=1`` says that this
is an error.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import queue
import re
import shutil
import socket
import threading
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jwt
import pytest

import plumews
from plumews.constants import Opcode
from support.command import SECRET, Command
from support.raw_client import kept_port, masked, upgrade

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page, WebSocketRoute

pytestmark = pytest.mark.browser

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

#: Milliseconds for whatever has to happen on a page: by far enough for a browser on a machine that others use.
PATIENCE = 60_000

DESKTOP = {"width": 1200, "height": 800}
PHONE = {"width": 360, "height": 640}


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


# --- talking --------------------------------------------------------------------------------------


def test_two_tabs_talk_and_know_that_they_are_two(serve: Callable[..., Command], tab: Callable[..., Page]) -> None:
    server = serve("--room", "chat=pw")
    ada = Visitor(tab(), server.url).enter("chat", "pw").is_connected()
    ada.sees("#members", "Only you are here")
    bob = Visitor(tab(), server.url).enter("chat", "pw").is_connected()
    for visitor in (ada, bob):
        visitor.sees("#members", "2 members are here")
    ada.say("hello bob")
    bob.hears("hello bob")
    bob.say("hello ada")
    for visitor in (ada, bob):
        visitor.hears("hello bob", "hello ada")
    ada.has_own("hello bob")
    bob.has_own("hello ada")
    assert re.fullmatch(r"\d{1,2}:\d\d( [AP]M)?", ada.page.locator("#log time").first.inner_text())
    bob.page.get_by_role("button", name="Leave").click()
    ada.sees("#members", "Only you are here")
    assert bob.page.get_by_label("Room", exact=True).input_value() == "chat"
    assert bob.page.get_by_label("Password").input_value() == ""


def test_markup_in_a_message_is_text_and_nothing_of_it_runs(server: Command, tab: Callable[..., Page]) -> None:
    ada = Visitor(tab(), server.url).enter("<b>room</b>").is_connected()
    bob = Visitor(tab(), server.url).enter("<b>room</b>").is_connected()
    attack = "<img src=x onerror=\"document.title='owned';alert(1)\"><script>document.title='owned'</script>"
    ada.say(attack)
    for visitor in (ada, bob):
        visitor.hears(attack)
        visitor.sees("#name", "<b>room</b>")
        assert visitor.page.title() == "<b>room</b> · plumews"
        assert visitor.page.locator("#inside img, #inside script, #inside b").count() == 0


def test_lines_and_scripts_of_the_world_and_bytes(server: Command, tab: Callable[..., Page]) -> None:
    ada = Visitor(tab(), server.url).enter("räume & mehr / 😀?").is_connected()
    bob = Visitor(tab(), server.url).enter("räume & mehr / 😀?").is_connected()
    field = ada.page.get_by_label("Message", exact=True)
    field.fill("one")
    field.press("Shift+Enter")
    field.press_sequentially("zwei שלום 😀")
    field.press("Enter")
    ada.say("   ")  # nothing
    bob.hears("one\nzwei שלום 😀")
    address = server.url.replace("http", "ws") + "ws?room=r%C3%A4ume+%26+mehr+%2F+%F0%9F%98%80%3F"
    bob.page.evaluate(
        """(address) => {
            const socket = new WebSocket(address);
            socket.onopen = () => { socket.send(new Uint8Array(3)); socket.send("plain"); };
        }""",
        address,
    )
    ada.hears("one\nzwei שלום 😀", "(3 bytes)", "plain")


def test_the_same_words_from_two_are_two_messages(server: Command, tab: Callable[..., Page]) -> None:
    ada = Visitor(tab(), server.url).enter("words").is_connected()
    bob = Visitor(tab(), server.url).enter("words").is_connected()
    ada.say("yes")
    bob.hears("yes")
    bob.say("yes")
    bob.say("yes")
    for visitor in (ada, bob):
        visitor.hears("yes", "yes", "yes")
    ada.has_own("yes")
    bob.has_own("yes", "yes")


def test_long_log_is_trimmed_and_keeps_the_scroll_position(server: Command, tab: Callable[..., Page]) -> None:
    ada = Visitor(tab(), server.url).enter("log").is_connected()
    bob = Visitor(tab(), server.url).enter("log").is_connected()
    flood = """(count) => { for (let i = 0; i < count; i += 1) {
        document.getElementById("text").value = `message ${i}`;
        document.getElementById("say").requestSubmit();
    } }"""
    for _ in range(11):  # in portions that fit a send queue
        bob.page.evaluate(flood, 48)
        bob.expect(bob.page.locator(".sent")).to_have_count(0)
    for visitor in (ada, bob):
        visitor.expect(visitor.page.locator(".entry")).to_have_count(500)
        visitor.expect(visitor.page.locator(".entry").last).to_be_in_viewport()
    newest = ada.page.get_by_role("button", name="New messages")
    ada.expect(newest).to_be_hidden()
    ada.page.locator("#log").evaluate("(log) => { log.scrollTop = 0; }")
    ada.expect(ada.page.locator(".entry").first).to_be_in_viewport()
    bob.say("the last one")
    ada.expect(newest).to_be_visible()
    ada.expect(ada.page.locator(".entry").last).not_to_be_in_viewport()
    newest.click()
    ada.expect(ada.page.locator(".entry").last).to_be_in_viewport()
    ada.expect(newest).to_be_hidden()


# --- the door -------------------------------------------------------------------------------------


def test_page_shows_a_wrong_password_and_accepts_the_right_one(
    serve: Callable[..., Command], tab: Callable[..., Page]
) -> None:
    server = serve("--room", "chat=pw", "--room", "lobby", "--only-known-rooms")
    ada = Visitor(tab(), server.url).enter("chat", "wrong")
    ada.sees("#refusal", "You were not let in: bad room password.")
    ada.expect(ada.page.locator("#inside")).to_be_hidden()
    ada.expect(ada.page.get_by_label("Password")).to_be_focused()
    ada.enter("elsewhere").sees("#refusal", "You were not let in: unknown room.")
    ada.enter("chat", "pw").is_connected()
    ada.sees("#members", "Only you are here")


def test_a_token_is_asked_for_where_one_is_required(
    serve: Callable[..., Command], tab: Callable[..., Page], tmp_path: Path
) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"0123456789abcdef0123456789abcdef")
    server = serve("--secret-file", str(secret), "--require-token")
    ada = Visitor(tab(), server.url).enter("a")
    ada.sees("#refusal", "You were not let in: token required.")
    token = ada.page.get_by_label("Token", exact=True)
    ada.expect(token).to_be_focused()
    token.fill("a.b.c")
    ada.enter("a").sees("#refusal", re.compile(r"You were not let in: invalid token \(invalid jwt: .+\)\."))
    token.fill(jwt.encode({"sub": "ada"}, secret.read_bytes(), algorithm="HS256"))
    ada.enter("a").is_connected()


#: What a page of an application does, with nothing but the browser: logs in, says something, and tells what it heard.
LOGIN = """([path, protocols, first]) => new Promise((resolve) => {
  const url = new URL(path, location.href);
  url.protocol = "ws:";
  const socket = new WebSocket(url, protocols);
  const heard = [];
  socket.onopen = () => {
    if (first) socket.send(JSON.stringify(first));
    socket.send("hello");
  };
  socket.onmessage = ({ data }) => {
    heard.push(data);
    if (data === "hello") resolve([socket.protocol, ...heard]);
  };
  socket.onclose = ({ code, reason }) => resolve([code, reason]);
})"""


def test_section_8_point_22_browser_logs_in_with_a_token(
    serve: Callable[..., Command], tab: Callable[..., Page], tmp_path: Path
) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"0123456789abcdef0123456789abcdef")
    page = tab()
    page.goto(serve("--secret-file", str(secret), "--require-token").url)
    good = jwt.encode({"sub": "ada"}, secret.read_bytes(), algorithm="HS256")
    assert page.evaluate(LOGIN, ["ws?room=a", ["plumews", f"bearer.{good}"], None]) == ["plumews", "hello"]
    by_message = page.evaluate(LOGIN, ["ws?room=b&auth=message", [], {"type": "auth", "token": good}])
    assert by_message == ["", '{"type": "joined", "room": "b"}', "hello"]
    # A page is not told the status of a refusal, but the reason behind a first message.
    assert page.evaluate(LOGIN, ["ws?room=a", ["plumews", "bearer.a.b.c"], None]) == [1006, ""]
    code, reason = page.evaluate(LOGIN, ["ws?auth=message", [], {"type": "auth", "token": "a.b.c"}])
    assert (code, reason[:32]) == (4403, "forbidden: invalid token (invali")


def test_a_room_needs_a_name_that_the_server_takes(server: Command, tab: Callable[..., Page]) -> None:
    ada = Visitor(tab(), server.url)
    for name, said in (
        ("", "Give the name of a room, such as chat."),
        ("  ", "Give the name of a room, such as chat."),
        ("ä" * 65, "A room's name may have 128 bytes; this one has 130."),
        ("a\u200bb", "A room's name must be printable text."),
    ):
        ada.enter(name).sees("#refusal", said)
    ada.enter("ä" * 64).is_connected()


def test_address_keeps_the_room_and_never_the_password(serve: Callable[..., Command], tab: Callable[..., Page]) -> None:
    server = serve("--room", "a b/ü=hunter2")
    ada = Visitor(tab(), server.url).enter("a b/ü", "hunter2").is_connected()
    assert ada.page.url == server.url + "#a%20b%2F%C3%BC"
    kept = ada.page.evaluate(
        "() => [location.href, document.cookie, JSON.stringify([localStorage, sessionStorage, history.state])].join()"
    )
    assert "hunter2" not in kept
    ada.page.reload()
    assert ada.page.get_by_label("Room", exact=True).input_value() == "a b/ü"
    assert ada.page.get_by_label("Password").input_value() == ""
    ada.expect(ada.page.get_by_label("Password")).to_be_focused()
    ada.page.goto(server.url + "#%E0%A4%A")  # not UTF-8
    ada.page.reload()
    assert ada.page.get_by_label("Room", exact=True).input_value() == ""


# --- the rooms ------------------------------------------------------------------------------------


def test_rooms_table_updates_and_a_click_chooses_a_room(
    serve: Callable[..., Command], tab: Callable[..., Page]
) -> None:
    server = serve()
    watcher = Visitor(tab(), server.url)
    watcher.sees("#rooms-state", "Nobody is in any room.")
    watcher.expect(watcher.page.locator("#rooms-table")).to_be_hidden()
    ada = Visitor(tab(), server.url).enter("chat").is_connected()
    Visitor(tab(), server.url).enter("chat").is_connected()
    name = "<img src=x onerror=alert(1)>räume"
    Visitor(tab(PHONE), server.url).enter(name).is_connected()
    watcher.sees("#rooms-state", "3 members in 2 rooms")
    watcher.expect(watcher.page.locator("#rooms-list tr")).to_have_text(["chat2nothing", f"{name}1nothing"])
    assert watcher.page.locator("#rooms img").count() == 0
    fits(watcher.page)
    ada.page.get_by_role("button", name="Leave").click()
    watcher.expect(watcher.page.locator("#rooms-list td").first).to_have_text("1")
    ada.expect(ada.page.locator("#rooms-list tr")).to_have_count(2)  # at the door it is seen again
    watcher.page.get_by_role("button", name=name).click()
    watcher.expect(watcher.page.get_by_label("Password")).to_be_focused()
    watcher.page.keyboard.press("Enter")
    watcher.is_connected().sees("#name", name)


def test_a_member_that_does_not_read_shows_in_the_table(
    serve: Callable[..., Command], tab: Callable[..., Page]
) -> None:
    server = serve("--send-behavior", "drop", "--no-echo")
    with ExitStack() as stack:
        speaker, _ = (stack.enter_context(member(server, "chat")) for _ in ("speaker", "silent"))
        for _ in range(60):  # more than what a socket holds
            speaker.sendall(masked(Opcode.BINARY, bytes(200_000)))
        watcher = Visitor(tab(PHONE), server.url)
        watcher.expect(watcher.page.locator("#rooms-list td").last).to_have_text(
            re.compile(r"\d+ messages?, [\d.]+ [kM]B; 1 slow, \d+ s")
        )
        fits(watcher.page)


def member(server: Command, room: str) -> socket.socket:
    """Return the socket of a member of ``room`` that is no browser."""
    sock = socket.create_connection(("127.0.0.1", server.port))
    sock.sendall(upgrade(f"/ws?room={room}", host="127.0.0.1"))
    assert sock.recv(13) == b"HTTP/1.1 101 "
    return sock


@pytest.mark.parametrize("options", [["--rooms-table", "nobody"], ["--allowed-host", "127.0.0.1"]], ids=" ".join)
def test_where_the_rooms_are_nobodys_business_there_is_no_table(
    serve: Callable[..., Command], tab: Callable[..., Page], options: list[str]
) -> None:
    server = serve(*options)
    Visitor(tab(), server.url).enter("chat").is_connected()
    page = tab()
    with page.expect_response(re.compile("rooms.json")) as answered:
        page.goto(server.url)
    assert answered.value.status == 204
    from playwright.sync_api import expect

    expect(page.locator("#rooms")).to_be_hidden()
    assert "chat" not in page.locator("#rooms").inner_text()


def test_rooms_table_shows_a_lost_server_and_recovers(
    serve: Callable[..., Command], tab: Callable[..., Page], port: int
) -> None:
    server = serve("--port", str(port))
    watcher = Visitor(tab(), server.url)
    watcher.sees("#rooms-state", "Nobody is in any room.")
    server.process.kill()
    server.end()
    watcher.let_pass(2)
    watcher.sees("#rooms-state", "The server cannot be reached.")
    serve("--port", str(port))
    watcher.let_pass(2)
    watcher.sees("#rooms-state", "Nobody is in any room.")


# --- the connection -------------------------------------------------------------------------------


def test_page_reconnects_after_a_restart_and_reports_losses(
    serve: Callable[..., Command], tab: Callable[..., Page], port: int
) -> None:
    server = serve("--room", "chat=pw", "--port", str(port))
    ada = Visitor(tab(), server.url).enter("chat", "pw").is_connected()
    bob = Visitor(tab(), server.url).enter("chat", "pw").is_connected()
    ada.say("before")
    bob.hears("before")
    server.stop()
    assert server.end()[0] == 0
    ada.sees("#state", "Not connected: the server cannot be reached.")
    ada.sees("#countdown", re.compile(r"Reconnecting in \d+ s\."))
    ada.sees("#members", "")
    ada.say("in between")
    ada.sees("#unsent", "Not sent, there is no connection. It stays here; send it again when there is one.")
    field = ada.page.get_by_label("Message", exact=True)
    assert field.input_value() == "in between"
    ada.hears("before")

    ada.page.clock.pause_at(ada.page.evaluate("Date.now() + 60_000"))  # or it would come back before the click
    ada.sees("#state", "Not connected: the server cannot be reached.")
    serve("--room", "chat=pw", "--port", str(port))
    ada.page.get_by_role("button", name="Try now").click()
    ada.page.clock.resume()
    bob.let_pass(30)
    for visitor in (ada, bob):  # the one at once, the other by itself
        visitor.is_connected()
        visitor.sees("#members", "2 members are here")
    ada.expect(ada.page.locator("#unsent")).to_be_hidden()
    assert field.input_value() == "in between"
    ada.page.get_by_role("button", name="Send").click()
    bob.hears("before", "in between")
    bob.say("after")
    for visitor in (ada, bob):
        visitor.hears("before", "in between", "after")


def test_changed_password_returns_to_the_login_with_text_kept(
    serve: Callable[..., Command], tab: Callable[..., Page], port: int
) -> None:
    server = serve("--room", "chat=pw", "--port", str(port))
    ada = Visitor(tab(), server.url).enter("chat", "pw").is_connected()
    ada.page.get_by_label("Message", exact=True).fill("a long thought")
    server.stop()
    server.end()
    serve("--room", "chat=other", "--port", str(port))
    ada.let_pass(30)
    ada.sees("#refusal", "You were not let in: bad room password.")
    ada.enter("chat", "other").is_connected()
    assert ada.page.get_by_label("Message", exact=True).input_value() == "a long thought"


def test_what_was_said_and_did_not_come_back_is_marked(serve: Callable[..., Command], tab: Callable[..., Page]) -> None:
    server = serve()
    ada = Visitor(tab(), server.url).enter("a").is_connected()
    ada.say("arrived")
    ada.hears("arrived")
    ada.page.evaluate("() => { WebSocket.prototype.send = () => {}; }")  # a network that swallows
    ada.say("swallowed")
    server.stop()
    server.end()
    ada.sees(".doubtful p", "swallowed")
    ada.sees(".doubtful small", re.compile("may not have arrived$"))
    assert ada.page.locator(".own:not(.doubtful)").count() == 1


def test_a_full_room_is_said_to_be_full_and_tried_again(server: Command, tab: Callable[..., Page]) -> None:
    page = tab()
    full = True

    def answer(socket: WebSocketRoute) -> None:
        if full:
            socket.close(code=1013, reason="websocket room at capacity: 2 connections")
        else:
            socket.connect_to_server()

    page.route_web_socket(re.compile(r"/ws\?"), answer)
    ada = Visitor(page, server.url).enter("full")
    ada.sees("#state", "Not connected: the room is full.")
    full = False
    ada.let_pass(30)
    ada.is_connected()
    ada.say("at last")
    ada.hears("at last")


def test_page_tells_a_rejecting_server_from_a_lost_one(serve: Callable[..., Command], tab: Callable[..., Page]) -> None:
    server = serve("--allowed-host", "127.0.0.1", "--max-room-connections", "1")
    ada = Visitor(tab(), server.url).enter("a").is_connected()
    bob = Visitor(tab(), server.url).enter("a")
    bob.sees("#state", re.compile("the room (is|may be) full"))
    ada.page.get_by_role("button", name="Leave").click()
    ada.expect(ada.page.locator("#inside")).to_be_hidden()
    bob.is_connected()


def test_a_refused_handshake_is_told_at_the_door_with_its_code(
    serve: Callable[..., Command], tab: Callable[..., Page]
) -> None:
    server = serve("--plain-room-names", "--trusted-proxy", "127.0.0.1")
    page = tab()
    ada = Visitor(page, server.url).enter("two words")
    ada.expect(page.locator("#refusal")).to_contain_text("You were not let in: invalid websocket room: ")
    ada.sees("#code", "400 WEBSOCKET_INVALID_ROOM")
    # As behind a proxy that ends TLS: what the page is of is not what the server believes to be.
    page.context.set_extra_http_headers({"X-Forwarded-Proto": "https"})
    ada.enter("chat").sees("#refusal", "You were not let in: forbidden origin (WEBSOCKET_FORBIDDEN_ORIGIN).")
    ada.expect(page.locator("#inside")).to_be_hidden()
    page.context.set_extra_http_headers({})
    ada.enter("chat").is_connected()
    ada.expect(page.locator("#door")).to_be_hidden()


@pytest.mark.parametrize(
    ("status", "body", "told", "code"),
    [
        (403, "Members only\n", "You were not let in: Members only.", "403"),
        (401, '{"error": "x"}', "You were not let in: Unauthorized.", "401"),
        (200, "Closed for lunch", "Not connected: Closed for lunch. It is tried again.", "200"),
    ],
)
def test_an_answer_of_a_hook_is_told_at_the_door(
    tab: Callable[..., Page], status: int, body: str, told: str, code: str
) -> None:
    def process_request(conn: plumews.Conn, request: plumews.Request) -> plumews.Response | None:
        kind = {"Content-Type": "application/json"} if body.startswith("{") else {}
        return plumews.Response.text(status, body, kind) if request.path == "/ws" else None

    def rooms() -> Any:
        auth = plumews.SimpleRoomAuth()
        return plumews.serve_rooms(plumews.Hub(), auth, "127.0.0.1", 0, page=True, process_request=process_request)

    with served(rooms) as address:
        ada = Visitor(tab(), f"http://{address}/").enter("chat")
        ada.sees("#refusal", told)
        ada.sees("#code", code)


def test_login_shows_a_full_room_until_there_is_space(serve: Callable[..., Command], tab: Callable[..., Page]) -> None:
    server = serve("--max-room-connections", "1")
    ada = Visitor(tab(), server.url).enter("a").is_connected()
    bob = Visitor(tab(), server.url).enter("a")
    bob.sees("#refusal", "Not connected: the room is full. It is tried again.")
    bob.expect(bob.page.locator("#code")).to_contain_text("1013 ")
    bob.expect(bob.page.locator("#inside")).to_be_hidden()
    bob.enter("b").is_connected()  # who waits at a door may go to another one
    ada.say("hello")
    ada.hears("hello")


def test_page_recovers_missed_messages_once(
    serve: Callable[..., Command], tab: Callable[..., Page], tmp_path: Path
) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(SECRET)
    server = serve("--history", "10", "--broadcast-secret-file", str(secret))
    ada = Visitor(tab(), server.url).enter("chat").is_connected()
    ada.say("one")
    ada.hears("one")
    page = tab()
    page.add_init_script(
        """window.sockets = [];
        window.WebSocket = class extends WebSocket { constructor(url) { super(url); sockets.push(this); } };"""
    )
    bob = Visitor(page, server.url).enter("chat").is_connected()
    bob.hears("one")  # from the history
    bearer = {"Authorization": f"Bearer {SECRET.decode()}"}
    to_all = urllib.request.Request(f"{server.url}_admin/broadcast", b"to all", bearer)  # which is in no history
    urllib.request.urlopen(to_all).close()
    for visitor in (ada, bob):
        visitor.hears("one", "to all")
    bob.say("two")
    for visitor in (ada, bob):
        visitor.hears("one", "to all", "two")
    page.context.set_offline(True)
    page.evaluate("() => sockets.forEach((socket) => socket.close())")
    bob.sees("#state", re.compile("Not connected"))
    for said in ("two", "three"):  # the same words again
        ada.say(said)
    ada.hears("one", "to all", "two", "two", "three")
    page.context.set_offline(False)
    bob.let_pass(60)
    bob.is_connected()
    bob.hears("one", "to all", "two", "two", "three")
    ada.say("four")
    bob.hears("one", "to all", "two", "two", "three", "four")


def test_what_a_cut_recovery_did_not_bring_is_asked_for_again(
    serve: Callable[..., Command], tab: Callable[..., Page]
) -> None:
    server = serve("--history", "10")
    ada = Visitor(tab(), server.url).enter("chat").is_connected()
    words = ["one", "two", "two", "three"]
    for said in words:
        ada.say(said)
    ada.hears(*words)
    page = tab()
    page.add_init_script(  # the first connection is lost behind what says that we are in, the event, and two messages
        """const Real = window.WebSocket;
        let cut = false;
        window.WebSocket = class extends Real {
          constructor(url) {
            super(url);
            let left = cut || !url.pathname.endsWith("/ws") ? Infinity : 4;
            cut ||= left === 4;
            this.addEventListener("message", (event) => {
              if (left-- > 0) return;
              event.stopImmediatePropagation();
              this.close();
            });
          }
        };"""
    )
    bob = Visitor(page, server.url).enter("chat")
    bob.sees("#state", re.compile("Not connected"))
    bob.hears("one", "two")
    bob.let_pass(60)
    bob.is_connected().hears(*words)


def test_docs_page_logs_in_reconnects_and_gives_up_if_rejected(
    serve: Callable[..., Command], tab: Callable[..., Page]
) -> None:
    docs = (Path(__file__).parents[2] / "docs" / "authentication.md").read_text(encoding="utf-8")
    found = re.search(r"^```javascript\n(function stay.*?)^```$", docs, re.MULTILINE | re.DOTALL)
    assert found
    page, ends = tab(), [(1012, "reconnect in 3.2 s"), (4403, "forbidden: invalid token (invalid jwt)")]
    said: list[tuple[str, Any]] = []

    def answer(socket: WebSocketRoute) -> None:
        def heard(message: str | bytes) -> None:
            said.append((socket.url.partition("/ws")[2], json.loads(message)))
            socket.send('{"type": "joined"}')
            code, reason = ends.pop(0)
            socket.close(code=code, reason=reason)

        socket.on_message(heard)

    page.route_web_socket(re.compile(r"/ws\?"), answer)
    page.goto(serve().url)
    waits, heard = page.evaluate(
        f"""async () => {{
            {found[1]}
            const later = window.setTimeout, Socket = window.WebSocket;
            const waits = [], heard = [];
            let tokens = 0, closed = 0;
            window.setTimeout = (call, wait, ...rest) => {{
                if (call === stay) waits.push(wait);  // the page asks for the rooms now and then
                later(call, call === stay ? 0 : wait, ...rest);
            }};
            window.WebSocket = class extends Socket {{
                constructor(address) {{ super(address); this.addEventListener("close", () => {{ closed += 1; }}); }}
            }};
            stay("a & b", async () => `token ${{tokens += 1}}`, (message) => heard.push(message));
            while (closed < 2) await new Promise((done) => later(done, 5));
            return [waits, heard];
        }}"""
    )
    room = "?room=a%20%26%20b&auth=message"
    assert said == [(room, {"type": "auth", "token": f"token {number}"}) for number in (1, 2)]
    assert waits == [3200], "it comes back when it is told, and not once it is refused"
    assert heard == ['{"type": "joined"}'] * 2


# --- looks ----------------------------------------------------------------------------------------


SCREENS = {"desk": DESKTOP, "phone": PHONE, "small": {"width": 320, "height": 480}}
CONTRASTS = {"#state": 4.5, "#unsent": 4.5, ".own p": 7, "#say button": 4.5, "#name": 7}


def screens(page: Page) -> Iterator[str]:
    """Each of `SCREENS` in turn, with ``page`` on it."""
    for name, viewport in SCREENS.items():
        page.set_viewport_size(viewport)  # type: ignore[arg-type]
        yield name


def test_it_fits_the_screen_and_can_be_read(serve: Callable[..., Command], tab: Callable[..., Page]) -> None:
    server = serve()
    ada = Visitor(tab(), server.url)
    for _ in screens(ada.page):
        fits(ada.page)
    ada.enter("").sees("#refusal", "Give the name of a room, such as chat.")
    ada.page.get_by_text("I have a token").click()
    for _ in screens(ada.page):
        fits(ada.page)
    ada.enter("a-room-with-a-name-that-is-far-too-long-for-the-screen-of-any-phone-in-the-world").is_connected()
    ada.say("Good morning")
    ada.say("wide" * 100)
    ada.expect(ada.page.locator(".sent")).to_have_count(0)
    ada.sees("#members", "Only you are here")
    for _ in screens(ada.page):
        fits(ada.page)
        for button in ada.page.get_by_role("button").all():
            ada.expect(button).to_be_in_viewport(ratio=1)
    server.stop()
    server.end()
    ada.say("not now")
    ada.sees("#state", re.compile("Not connected"))
    for screen in screens(ada.page):
        fits(ada.page)
        ada.expect(ada.page.get_by_role("button", name="Send")).to_be_in_viewport(ratio=1)
        for scheme in ("light", "dark"):
            ada.page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
            for selector, least in CONTRASTS.items():
                assert contrast(ada.page, selector) >= least, (screen, scheme, selector)


def fits(page: Page) -> None:
    """There is nothing to scroll to at the side."""
    width, inner = page.evaluate("() => [document.documentElement.scrollWidth, window.innerWidth]")
    assert width <= inner


def contrast(page: Page, selector: str) -> float:
    """Of the text of an element with what is behind it (WCAG 2.2, success criterion 1.4.3)."""
    colours: list[str] = page.locator(selector).first.evaluate(
        """(element) => {
            const colour = getComputedStyle(element).color;
            let ground = "rgba(0, 0, 0, 0)";
            for (let e = element; e && ground === "rgba(0, 0, 0, 0)"; e = e.parentElement) {
                ground = getComputedStyle(e).backgroundColor;
            }
            return [colour, ground];
        }"""
    )

    def luminance(colour: str) -> float:
        shares = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
        red, green, blue = (s / 12.92 if s <= 0.04045 else ((s + 0.055) / 1.055) ** 2.4 for s in shares)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    dark, light = sorted(luminance(colour) for colour in colours)
    return (light + 0.05) / (dark + 0.05)


# --- with the keyboard alone ----------------------------------------------------------------------


def test_everything_can_be_done_with_the_keyboard(serve: Callable[..., Command], tab: Callable[..., Page]) -> None:
    ada = Visitor(tab(), serve("--room", "chat=pw").url)
    keyboard = ada.page.keyboard
    keyboard.type("chat")  # the first field has the focus
    keyboard.press("Tab")
    keyboard.type("pw")
    keyboard.press("Enter")
    ada.is_connected()
    keyboard.type("hello")
    keyboard.press("Enter")
    ada.hears("hello")
    keyboard.press("Shift+Tab")
    ada.expect(ada.page.get_by_role("log")).to_be_focused()  # to be scrolled with the arrows
    keyboard.press("Shift+Tab")
    ada.expect(ada.page.get_by_role("button", name="Leave")).to_be_focused()
    keyboard.press("Enter")
    ada.expect(ada.page.get_by_label("Room", exact=True)).to_be_focused()


# --- compression ----------------------------------------------------------------------------------


@contextlib.contextmanager
def echo_server(deflate: plumews.Deflate) -> Iterator[tuple[str, list[plumews.Conn]]]:
    """The address of a server that answers with the message, and its connections so far."""
    conns: list[plumews.Conn] = []

    def echo() -> Any:
        return plumews.serve(
            on_open=conns.append,
            on_message=plumews.Conn.send_nowait,
            host="127.0.0.1",
            port=0,
            compression=deflate,
            routes=dict.fromkeys(["/page", "/favicon.ico"], lambda request: plumews.Response.text(200, "a page")),
        )

    with served(echo) as address:
        yield address, conns


ECHO = """
async ([url, text, bytes]) => {
  const socket = new WebSocket(url);
  socket.binaryType = "arraybuffer";
  const message = () => new Promise((resolve, reject) => {
    socket.onmessage = (event) => resolve(event.data);
    socket.onclose = (event) => reject(new Error(`closed with ${event.code}`));
  });
  await new Promise((resolve) => { socket.onopen = resolve; });
  const answers = [];
  for (const each of [text, new Uint8Array(bytes), text, "short"]) {
    const answer = message();
    socket.send(each);
    const data = await answer;
    answers.push(typeof data === "string" ? data : [...new Uint8Array(data)]);
  }
  socket.onclose = null;
  return { extensions: socket.extensions, answers };
}
"""


@pytest.mark.parametrize("takeover", [False, True])
def test_compressed_messages_of_the_browser_come_back(tab: Callable[..., Page], takeover: bool) -> None:
    text = json.dumps([{"id": index, "name": f"user {index}"} for index in range(32)])
    data = [index % 7 for index in range(1024)]
    with echo_server(plumews.Deflate(server_takeover=takeover, client_takeover=takeover)) as (address, conns):
        page = tab()
        page.goto(f"http://{address}/page")
        seen = page.evaluate(ECHO, [f"ws://{address}/", text, data])
        (conn,) = conns
        told = conn.compression
    assert "permessage-deflate" in seen["extensions"]
    assert ("no_context_takeover" in seen["extensions"]) is not takeover
    assert "client_max_window_bits=12" in seen["extensions"]
    assert seen["answers"] == [text, data, text, "short"]
    assert told is not None
    assert (told.received_messages, told.sent_messages) == (4, 3)  # a browser compresses whatever its size
    assert told.sent_wire_bytes < told.sent_payload_bytes / 2
