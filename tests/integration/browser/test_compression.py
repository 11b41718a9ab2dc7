"""Compressed messages between Chromium and a server."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

import plumews
from support.visitor import served

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.browser

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
