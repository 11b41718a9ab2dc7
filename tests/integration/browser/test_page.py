"""Messages, rooms, looks and keyboard of the page in a real Chromium."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from plumews.constants import Opcode
from support.command import Command
from support.raw_client import masked, upgrade
from support.visitor import DESKTOP, PHONE, Visitor

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.browser

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
