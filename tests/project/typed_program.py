"""A program of a user, for `test_typing`: it is checked by ``mypy --strict`` and never run."""

from __future__ import annotations

import json
import logging
import re
import ssl
from collections.abc import AsyncIterator

from typing_extensions import assert_type

import plumews


def page(request: plumews.Request) -> plumews.Response:
    address = request.remote_address
    return plumews.Response.text(200, request.query.get("name", "nobody") if address is None else address[0])


async def upload(request: plumews.Request) -> plumews.Response:
    return plumews.Response.text(200, str(len(request.body)))


async def pieces() -> AsyncIterator[str]:
    yield "a"


async def handler(conn: plumews.Conn) -> None:
    async for message in conn:
        assert_type(message, "str | bytes")
        await conn.send(message)
        assert_type(message.upper() if isinstance(message, str) else message.hex(), str)
    assert_type(await conn.recv(), "str | bytes")
    assert_type(await conn.recv(decode=True), str)
    assert_type(await conn.recv(decode=False), bytes)
    opcode, data = await conn.read_message()
    assert_type(opcode, plumews.Opcode)
    assert_type(data, bytes)
    async with await conn.read_stream() as stream:
        async for chunk in stream:
            assert_type(chunk, bytes)
    await conn.send(pieces())
    await conn.send(piece async for piece in pieces())
    assert_type(await (await conn.ping()), float)
    address = conn.remote_address
    if address is not None:
        assert_type(address[0], str)
        assert_type(address[1], int)
    assert_type(conn.client_address, str)
    certificate = conn.get_extra_info("peercert", {})
    conn.logger.info("certificate %s", certificate, extra={"order": 5})
    assert_type(conn.logger.isEnabledFor(logging.INFO), bool)


def on_message(conn: plumews.Conn, message: str | bytes) -> None:
    conn.send_nowait(message)


mixed = {
    "/": page,
    "/x": lambda request: plumews.Response.text(200, "x"),
    "/up": plumews.Route(upload, methods=["PUT"]),
}
lambdas = {"/x": lambda request: plumews.Response.text(200, "x")}
routes = {"/up": plumews.Route(upload), "/down": plumews.Route(page, methods={"GET"})}
functions = {"/": page}


async def main(context: ssl.SSLContext) -> None:
    plumews.serve(
        handler,
        "127.0.0.1",
        0,
        routes={"/": lambda request: plumews.Response.text(200, request.path), "/up": plumews.Route(upload)},
        origins=["https://a.example", re.compile(r"https://[a-z]+\.example"), None],
        allowed_hosts={"a.example"},
        subprotocols=("chat",),
        trusted_proxies=(f"10.0.{number}.0/24" for number in range(3)),
        ssl=context,
        send_behavior=plumews.SendBehavior.CONFLATE,
    )
    plumews.serve(handler, "127.0.0.1", 0, routes=mixed)
    plumews.serve(handler, "127.0.0.1", 0, routes=lambdas)
    plumews.unix_serve(handler, "/run/x.sock", routes=routes)
    plumews.serve(on_message=on_message, host="127.0.0.1", port=0, routes=functions)
    plumews.serve(on_message=lambda conn, message: conn.send_nowait(message), host="127.0.0.1", port=0)
    hub, auth = plumews.Hub(plumews.HubConfig(history=plumews.HistoryLimits())), plumews.SimpleRoomAuth()
    async with plumews.serve_rooms(
        hub,
        auth,
        "127.0.0.1",
        0,
        handler=handler,
        routes=mixed,
        recovery=True,
        encode_recovered=lambda recovery: json.dumps({"missed": recovery.messages}),
    ) as server:
        result = hub.broadcast_room("chat", lambda at: json.dumps({"at": str(at)}), keep=False)
        assert_type(result.position, "plumews.Position | None")
        result = await hub.publish(["chat", "news"], lambda at: str(at))
        for conn in server.connections:
            hub.recover("chat", conn, plumews.Position("", 0), encode_recovered=lambda recovery: b"")
        await server.serve_forever()
