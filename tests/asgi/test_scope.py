"""Scopes: what applications are told about requests, over real sockets."""

from __future__ import annotations

import copy
from typing import Any

import pytest

import plumews
from plumews.asgi.connection import request_of
from plumews.asgi.scope import Extension, note_client
from support.raw_client import KEY, Wire
from support.uvicorn_setup import ACCEPT


async def scope_of(run: Any, path: str, *lines: str, **options: Any) -> Any:
    seen = []

    async def app(scope, receive, send):
        if scope["type"] == "lifespan":
            await receive()
            scope["state"].update(shared=[1], number=1)
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
            return
        extensions = {name: dict(extension) for name, extension in scope["extensions"].items()}
        seen.append({**copy.deepcopy(scope), "extensions": extensions})
        scope["state"]["number"] = "changed"
        await send(ACCEPT)
        await receive()

    server = await run(app, **options)
    for _ in range(2):
        async with await Wire.open(server, path, *lines) as wire:
            seen[-1]["peer"] = wire.writer.get_extra_info("sockname")
    seen[-1]["port"] = server.port
    assert seen[0]["state"] == seen[1]["state"]  # each has its own copy
    return seen[-1]


async def test_a_scope_has_all_keys(run, http):
    scope = await scope_of(
        run, "/a%20b/%C3%A4?x=1&y=%20", "X-One: 1", "x-one: 2", "Sec-WebSocket-Protocol: p, q", http=http
    )
    assert scope.pop("peer") == scope["client"]
    assert scope["server"] == ("127.0.0.1", scope.pop("port"))
    del scope["server"], scope["client"]
    assert scope == {
        "type": "websocket",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "scheme": "ws",
        "root_path": "",
        "path": "/a b/\u00e4",
        "raw_path": b"/a%20b/%C3%A4",
        "query_string": b"x=1&y=%20",
        "headers": [
            (b"host", b"localhost"),
            (b"upgrade", b"websocket"),
            (b"connection", b"Upgrade"),
            (b"sec-websocket-key", KEY.encode()),
            (b"sec-websocket-version", b"13"),
            (b"x-one", b"1"),
            (b"x-one", b"2"),
            (b"sec-websocket-protocol", b"p, q"),
        ],
        "subprotocols": ["p", "q"],
        "state": {},
        "extensions": {"websocket.http.response": {}, "plumews": {}},
    }


async def test_root_path_is_in_front_of_both_paths(run, http):
    scope = await scope_of(run, "/x%2fy", root_path="/app", http=http)
    assert (scope["root_path"], scope["path"], scope["raw_path"]) == ("/app", "/app/x/y", b"/app/x%2fy")


async def test_each_scope_has_its_own_copy_of_the_state(run):
    scope = await scope_of(run, "/", lifespan="on")
    assert scope["state"] == {"shared": [1], "number": 1}


async def test_header_values_are_bytes_as_received(run, http):
    scope = await scope_of(run, "/", "X-Name: abra\xc3\xa3o", http=http)
    assert dict(scope["headers"])[b"x-name"] == "abra\u00e3o".encode()


async def test_the_extension_says_how_to_get_its_connection():
    extension = Extension()
    extension.opening = plumews.Conn(plumews.ConnConfig())
    with pytest.raises(RuntimeError, match=r"await accept\(\)"):
        extension["conn"]
    with pytest.raises(KeyError):
        extension["other"]
    extension["conn"] = "the connection"
    assert extension["conn"] == "the connection"


def test_a_client_in_ipv6_notation_has_its_ipv4_address():
    request = request_of({"path": "/", "headers": []})
    note_client(request, {"client": ["::ffff:203.0.113.9", None], "scheme": "wss"})
    assert (request.client_address, request.secure) == ("203.0.113.9", True)
    note_client(request, {"client": None, "scheme": "ws"})
    assert (request.client_address, request.secure) == ("203.0.113.9", False)
