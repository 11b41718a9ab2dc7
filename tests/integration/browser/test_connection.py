"""Lost connections, rejections and recovery on the page in a real Chromium."""

from __future__ import annotations

import json
import re
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import plumews
from support.command import SECRET, Command
from support.visitor import Visitor, served

if TYPE_CHECKING:
    from playwright.sync_api import Page, WebSocketRoute

pytestmark = pytest.mark.browser

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
    docs = (Path(__file__).parents[3] / "docs" / "authentication.md").read_text(encoding="utf-8")
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
