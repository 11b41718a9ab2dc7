"""Logging in to a room on the page in a real Chromium."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import jwt
import pytest

from support.command import Command
from support.visitor import Visitor

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.browser

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
