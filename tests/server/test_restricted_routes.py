"""Restricted routes: for this machine alone, or with a token."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import pytest

import plumews
from plumews import limits
from plumews.http11.models import Request, Response
from plumews.server.routes import check_route_token, is_local, restricted
from support.raw_client import Wire

TOKEN = "0123456789abcdef"


def ok(request: Request) -> Response:
    return Response.text(200, "figures")


async def get(server: Any, *lines: str, host: str = "localhost") -> tuple[int, bytes, Wire]:
    async with await Wire.connect(server) as wire:
        head = "\r\n".join(["GET /figures HTTP/1.1", f"Host: {host}", *lines])
        return *(await wire.response(f"{head}\r\n\r\n".encode())), wire


def serving(token: str | None = None, **options: Any) -> plumews.Serving:
    return plumews.serve(
        on_message=print, host="127.0.0.1", port=0, routes={"/figures": restricted(ok, token)}, **options
    )


# --- from this machine ----------------------------------------------------------------------------


def local(*headers: tuple[str, str], host: str = "localhost:8080", address: Any = ("127.0.0.1", 5)) -> Request:
    request = Request("GET", "/figures", [("Host", host), *headers])
    request.remote_address = address
    return request


@pytest.mark.parametrize(
    "address", [("127.0.0.1", 5), ("127.8.8.8", 5), ("::1", 5, 0, 0), ("::ffff:127.0.0.1", 5, 0, 0)]
)
def test_request_from_loopback_is_local(address):
    assert is_local(local(address=address))


@pytest.mark.parametrize(
    "address",
    [("192.0.2.1", 5), ("10.0.0.1", 5), ("::ffff:192.0.2.1", 5, 0, 0), ("fe80::1%eth0", 5, 0, 3), "", b"\0x", None],
)
def test_request_from_elsewhere_or_a_unix_socket_is_not_local(address):
    assert not is_local(local(address=address))


def test_http_1_0_without_host_is_not_local():
    request = Request("GET", "/figures")
    request.http_version, request.remote_address = "1.0", ("127.0.0.1", 5)
    assert not is_local(request)


@pytest.mark.parametrize(
    "header",
    [
        "Forwarded",
        "Via",
        "X-Forwarded-For",
        "x-forwarded-host",
        "X-Forwarded-Proto",
        "X-Forwarded-Server",
        "X-Forwarded",
        "X-Real-IP",
        "True-Client-Ip",
        "Cf-Connecting-Ip",
    ],
)
def test_request_with_a_header_of_a_proxy_is_not_local(header):
    assert not is_local(local((header, "127.0.0.1")))


@pytest.mark.parametrize("host", ["attacker.example", "chat.example.com:8080", "192.0.2.1", "localhost.example"])
def test_request_for_a_foreign_host_is_not_local(host):
    assert not is_local(local(host=host))


@pytest.mark.parametrize("host", ["127.0.0.1:8080", "[::1]:8080", "LOCALHOST", "chat.localhost"])
def test_request_for_each_loopback_name_is_local(host):
    assert is_local(local(host=host))


async def test_restricted_without_token_answers_this_machine_only(start):
    server = await start(serving(allowed_hosts=["*"]))
    assert (await get(server))[:2] == (200, b"figures")
    for lines, host in ((["X-Forwarded-For: 127.0.0.1"], "localhost"), ([], "chat.example.com")):
        status, body, _ = await get(server, *lines, host=host)
        assert (status, json.loads(body)["error"]["code"]) == (403, "FORBIDDEN")


@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="this system has no Unix sockets")
async def test_restricted_route_on_a_unix_socket_needs_a_token(start, tmp_path: Path):
    routes = {"/figures": restricted(ok), "/secret": restricted(ok, TOKEN)}
    server = await start(plumews.unix_serve(path=str(tmp_path / "s"), on_message=print, routes=routes))
    assert (await get(server))[0] == 403
    async with await Wire.connect(server) as wire:
        head = f"GET /secret HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\n\r\n"
        assert await wire.response(head.encode()) == (200, b"figures")


# --- with a token ---------------------------------------------------------------------------------


async def test_restricted_with_token_answers_its_bearers_only(start):
    server = await start(serving(TOKEN, allowed_hosts=["*"]))
    bearer = f"Authorization: Bearer {TOKEN}"
    assert (await get(server, bearer, "X-Forwarded-For: 192.0.2.1", host="chat.example.com"))[:2] == (200, b"figures")
    for lines in (
        [],
        [f"{bearer}x"],
        [bearer[:-1]],
        ["Authorization: Bearer"],
        [f"Authorization: Basic {TOKEN}"],
        [f"Sec-WebSocket-Protocol: bearer.{TOKEN}"],
    ):
        status, body, wire = await get(server, *lines)
        assert (status, json.loads(body)["error"]["code"]) == (401, "TOKEN_REQUIRED"), lines
        assert wire.header("WWW-Authenticate") == "Bearer"
        assert TOKEN.encode() not in body
    assert (await get(server, bearer, bearer))[0] == 400


@pytest.mark.parametrize(
    ("token", "said"),
    [
        ("", "the token has 0 characters and must have 16 to 8192"),
        ("x" * 15, "the token has 15 characters and must have 16"),
        ("x" * (limits.TOKEN_SIZE + 1), "must have 16 to 8192"),
        ("hunter2 " * 4, "visible ASCII, without spaces"),
        ("hunter2\n" * 4, "visible ASCII"),
        ("hünter2" * 4, "visible ASCII"),
    ],
)
def test_invalid_route_token_raises_without_the_token(token, said):
    with pytest.raises(ValueError, match=said) as caught:
        restricted(ok, token)
    assert "nter2" not in str(caught.value)


@pytest.mark.parametrize("size", [limits.ROUTE_TOKEN, limits.TOKEN_SIZE])
def test_route_token_at_the_bounds_is_valid(size):
    assert check_route_token("x" * size) == "x" * size
