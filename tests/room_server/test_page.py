"""The browser page as files and as HTTP responses. `integration/browser` tests it in a browser."""

from __future__ import annotations

import re
from collections.abc import Callable
from email.parser import BytesParser
from html.parser import HTMLParser
from importlib import resources
from typing import Any

import pytest

import plumews
from plumews.room_server.page import page_routes
from support.raw_client import Wire

TYPES = {
    "/": "text/html; charset=utf-8",
    "/page.css": "text/css; charset=utf-8",
    "/page.js": "text/javascript; charset=utf-8",
    "/rooms.js": "text/javascript; charset=utf-8",
    "/favicon.svg": "image/svg+xml",
}

FOLDER = resources.files("plumews.room_server") / "static"


def shipped(path: str) -> bytes:
    return (FOLDER / (path.removeprefix("/") or "index.html")).read_bytes()


def source(name: str) -> str:
    return shipped(name).decode()


@pytest.fixture
async def page(start: Callable[[Any], Any]) -> Any:
    return await start(plumews.serve_rooms(plumews.Hub(), plumews.SimpleRoomAuth(), "127.0.0.1", 0, page=True))


async def ask(server: Any, method: str, path: str, *lines: str) -> tuple[int, Any, bytes]:
    async with await Wire.connect(server) as wire:
        head = "\r\n".join([f"{method} {path} HTTP/1.1", "Host: localhost", *lines])
        wire.writer.write(f"{head}\r\n\r\n".encode())
        answer = await wire.reader.read()
    head_bytes, _, body = answer.partition(b"\r\n\r\n")
    line, _, headers = head_bytes.partition(b"\r\n")
    return int(line.split(b" ")[1]), BytesParser().parsebytes(headers), body


def test_page_is_marked_for_recovery() -> None:
    plain, recovering = (page_routes(recovery=recovery)["/"](plumews.Request("GET", "/")) for recovery in (False, True))
    assert (plain.body.count(b"data-recovery"), recovering.body.count(b"<html data-recovery ")) == (0, 1)


async def test_post_to_a_websocket_path_gets_its_refusal(start: Callable[[Any], Any]) -> None:
    hub = plumews.Hub(plumews.HubConfig(check_room_name=plumews.validate_room_name))
    policy = plumews.TextPolicy()
    serving = plumews.serve_rooms(hub, plumews.SimpleRoomAuth(), "127.0.0.1", 0, page=True, text_policy=policy)
    server = await start(serving)
    for path, origin, status, code in (
        ("/ws?room=a", "http://localhost", 405, b"METHOD_NOT_ALLOWED"),
        ("/ws?room=a", "https://localhost", 403, b"WEBSOCKET_FORBIDDEN_ORIGIN"),
        ("/ws?room=a%20b", "http://localhost", 400, b"WEBSOCKET_INVALID_ROOM"),
        ("/members?room=a%20b", "http://localhost", 400, b"WEBSOCKET_INVALID_ROOM"),
    ):
        answer = await ask(server, "POST", path, f"Origin: {origin}", "Content-Length: 0")
        assert (answer[0], code in answer[2]) == (status, True), path


# --- responses ------------------------------------------------------------------------------------


async def test_each_file_is_served_with_its_type_and_length(page: Any) -> None:
    assert page_routes().keys() == TYPES.keys()
    for path, content_type in TYPES.items():
        status, headers, body = await ask(page, "GET", path)
        assert (status, body) == (200, shipped(path)), path
        assert headers["Content-Type"] == content_type
        assert headers["Content-Length"] == str(len(body))


async def test_head_has_the_same_headers_and_no_body(page: Any) -> None:
    for path in TYPES:
        status, headers, body = await ask(page, "HEAD", path)
        assert (status, body) == (200, b""), path
        assert headers.items() == (await ask(page, "GET", path))[1].items()


async def test_query_does_not_change_the_page(page: Any) -> None:
    assert (await ask(page, "GET", "/?from=a-bookmark"))[2] == shipped("/")


async def test_other_methods_and_paths_are_refused(page: Any) -> None:
    status, headers, _ = await ask(page, "POST", "/")
    assert (status, headers["Allow"]) == (405, "GET, HEAD")
    for path in ("/index.html", "/page.py", "/page/../page.py", "/%2e%2e/page.py", "//page.css", "/page.css/"):
        assert (await ask(page, "GET", path))[0] == 404, path


async def test_security_headers_forbid_inline_and_foreign_content(page: Any) -> None:
    for path in TYPES:
        _, headers, _ = await ask(page, "GET", path)
        policy = dict(directive.strip().split(" ", 1) for directive in headers["Content-Security-Policy"].split(";"))
        assert policy == {
            "default-src": "'none'",
            "script-src": "'self'",
            "style-src": "'self'",
            "img-src": "'self'",
            "connect-src": "'self'",
            "base-uri": "'none'",
            "form-action": "'none'",
            "frame-ancestors": "'none'",
        }
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["X-Frame-Options"] == "DENY"
        assert headers["Referrer-Policy"] == "no-referrer"


async def test_files_are_revalidated_by_the_browser(page: Any) -> None:
    for path in TYPES:
        assert (await ask(page, "GET", path))[1]["Cache-Control"] == "no-cache"


async def test_without_page_its_paths_are_404(start: Callable[[Any], Any]) -> None:
    server = await start(plumews.serve_rooms(plumews.Hub(), plumews.SimpleRoomAuth(), "127.0.0.1", 0))
    for path in TYPES:
        assert (await ask(server, "GET", path))[0] == 404


async def test_page_by_a_foreign_host_name_is_403(page: Any) -> None:
    async with await Wire.connect(page) as wire:
        status, _ = await wire.response(b"GET / HTTP/1.1\r\nHost: attacker.example\r\n\r\n")
    assert status == 403


# --- files ----------------------------------------------------------------------------------------


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.inside: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.inside.append(tag)

    def handle_endtag(self, tag: str) -> None:
        while self.inside and self.inside.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        assert self.inside[-1:] not in (["script"], ["style"]), "nothing inline"


@pytest.fixture(scope="module")
def tags() -> list[tuple[str, dict[str, str | None]]]:
    parser = _Tags()
    parser.feed(source("/"))
    return parser.tags


def test_page_has_nothing_inline_and_fetches_only_served_files(
    tags: list[tuple[str, dict[str, str | None]]],
) -> None:
    for tag, attributes in tags:
        assert not [name for name in attributes if name.startswith("on") or name == "style"], tag
        for name in ("src", "href"):
            if name in attributes:
                # Relative, so that the page works below a path of a proxy, too.
                assert f"/{attributes[name]}" in TYPES, attributes
    assert {tag for tag, _ in tags}.isdisjoint({"style", "iframe", "base", "object", "embed"})


def test_every_field_has_a_label_and_every_button_a_type(tags: list[tuple[str, dict[str, str | None]]]) -> None:
    labelled = {attributes.get("for") for tag, attributes in tags if tag == "label"}
    fields = {attributes["id"] for tag, attributes in tags if tag in ("input", "textarea")}
    assert fields == labelled
    assert all("type" in attributes for tag, attributes in tags if tag == "button")
    assert ("html", {"lang": "en"}) in tags
    roles = {attributes.get("id"): attributes["role"] for _, attributes in tags if "role" in attributes}
    assert roles["log"] == "log"
    assert roles["refusal"] == "alert"
    assert roles["state"] == "status"


def test_files_name_no_foreign_address() -> None:
    for path in TYPES:
        places = set(re.findall(r"(?:https?:)?//[\w.-]+\.\w[^\s\"')]*", source(path)))
        assert places <= {"http://www.w3.org/2000/svg"}, path  # a name, nothing that is fetched
    assert not re.search(r"url\(|@import", source("/page.css"))


@pytest.mark.parametrize("name", ["/page.js", "/rooms.js"])
def test_scripts_build_no_markup_and_store_nothing(name: str) -> None:
    script = source(name)
    for word in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "DOMParser", "eval(", "Function("):
        assert word not in script
    for word in ("localStorage", "sessionStorage", "indexedDB", "cookie"):
        assert word not in script
