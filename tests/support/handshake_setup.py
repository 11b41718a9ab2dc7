"""Servers, clients and checks of leftovers, for tests of the opening handshake."""

from __future__ import annotations

import asyncio
import json
import socket

from plumews.server.context import ServerContext
from plumews.server.options import split_options
from plumews.server.server import serve_on_tcp
from support.raw_client import Wire, text


def error(body):
    said = json.loads(body)["error"]
    return {key: said[key] for key in ("code", "message", "status")}


async def answer(server, request):
    """Return status, error and headers of the response to ``request``, when the server has ended the connection."""
    async with await Wire.connect(server) as wire:
        status, body = await wire.response(request)
        return status, error(body), wire


async def assert_serves(server, path="/", **options):
    async with await Wire.open(server, path, **options) as wire:
        wire.send(text("alive"))
        assert await wire.message() == "alive"


class Recorder:
    """Endpoint with the ``admit`` and ``opened`` of a test."""

    def __init__(self, admit=lambda conn, request: None, opened=lambda conn, deadline: None):
        self.admit = admit
        self.opened = opened


def failing(*args):
    raise RuntimeError("broken hook")


def context_of(endpoints, **options):
    """Return the server context with ``endpoints`` and ``options``, and the configuration of its connections."""
    server_options, _, config = split_options(options)
    return ServerContext(endpoints, server_options), config


def serving(endpoints, **options):
    """Serve ``endpoints`` on a free port of this machine."""
    return serve_on_tcp(*context_of(endpoints, **options), "127.0.0.1", 0)


async def says_hello(address):
    """Return True if a server at ``address``, a path or a host and a port, answers."""
    if isinstance(address, (str, bytes)):
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(address)
        sock.setblocking(False)
        streams = await asyncio.open_unix_connection(sock=sock)
    else:
        streams = await asyncio.open_connection(*address)
    async with Wire(*streams) as wire:
        wire.writer.write(
            b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        await wire.read_head()
        wire.send(text("hello"))
        return await wire.message() == "hello"
