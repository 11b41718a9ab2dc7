"""Connections of `plumews.compat.websockets`: each program gives the same observations on `websockets`."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
import weakref
from collections.abc import AsyncIterator
from typing import Any
from unittest import mock

import pytest

import plumews
from plumews.compat import websockets as ours
from plumews.compat.websockets.asyncio.connection import Connection
from support.both_libraries import LIBRARIES, Observations, at, both, running, served

pytestmark = pytest.mark.peer


# --- messages -------------------------------------------------------------------------------------


async def test_echo_of_all_kinds_of_messages() -> None:
    async def program(library: Any, seen: Observations) -> None:
        async def echo(websocket: Any) -> None:
            async for message in websocket:
                await websocket.send(message)

        async with running(library, echo) as server, at(server) as client:
            for message in ("text", b"\x00\xff", "", b"", "ü" * 70_000, b"x" * 200_000):
                await client.send(message)
                seen.append(await client.recv() == message)

    assert await both(program) == [True] * 6


async def test_decode_and_text_convert_messages() -> None:
    async def program(library: Any, seen: Observations) -> None:
        async def convert(websocket: Any) -> Any:
            await websocket.send(b"text", text=True)
            await websocket.send("binary", text=False)
            await websocket.send(bytearray(b"mutable"))
            await websocket.send(memoryview(b"view"), text=True)
            return [await websocket.recv(decode=False), await websocket.recv(decode=True), await websocket.recv()]

        async with served(library, convert) as (client, result):
            seen += [await client.recv() for _ in range(4)]
            for message in ("as bytes", b"as text", "as it is"):
                await client.send(message)
            seen.append(await result)

    await both(program)


@pytest.mark.parametrize("kind", [list, tuple, iter], ids=["list", "tuple", "iterator"])
async def test_an_iterable_is_one_message_in_fragments(kind: Any) -> None:
    async def program(library: Any, seen: Observations) -> None:
        async def send(websocket: Any) -> None:
            await websocket.send(kind(["a", "b", "ü"]))
            await websocket.send(kind([b"header", b"x" * 100_000]))
            await websocket.send(kind(["text", "as", "binary"]), text=False)
            await websocket.send(kind([b"bytes", b"as text"]), text=True)
            await websocket.send(kind([]))
            await websocket.send("end")

        async with served(library, send, compression=None) as (client, _):
            for _ in range(5):
                seen.append([fragment async for fragment in client.recv_streaming()])

    seen = await both(program)
    assert seen[0] == ["a", "b", "ü", ""]
    assert seen[4] == ["end"]


async def test_an_async_iterable_is_one_message_in_fragments() -> None:
    async def program(library: Any, seen: Observations) -> None:
        async def pieces() -> AsyncIterator[str]:
            for piece in ("one ", "two ", "three"):
                await asyncio.sleep(0)
                yield piece

        async def send(websocket: Any) -> None:
            await websocket.send(pieces())

        async with served(library, send) as (client, _):
            seen.append([fragment async for fragment in client.recv_streaming()])

    assert await both(program) == [["one ", "two ", "three", ""]]


async def test_a_send_waits_for_the_end_of_a_message_in_fragments() -> None:
    async def program(library: Any, seen: Observations) -> None:
        async def pieces(name: str) -> AsyncIterator[str]:
            for number in range(3):
                yield f"{name}{number}"
                await asyncio.sleep(0)

        async def send(websocket: Any) -> None:
            await asyncio.gather(websocket.send(pieces("a")), websocket.send("c"))

        async with served(library, send) as (client, _):
            seen += [await client.recv() for _ in range(2)]

    assert await both(program) == ["a0a1a2", "c"]


@pytest.mark.parametrize("message", [5, None, {"a": 1}, object()], ids=["int", "none", "dict", "object"])
async def test_send_refuses_what_is_no_message(message: Any) -> None:
    async def program(library: Any, seen: Observations) -> None:
        async def send(websocket: Any) -> Any:
            try:
                await websocket.send(message)
            except TypeError as exc:
                return str(exc)

        async with served(library, send) as (_, result):
            seen.append(await result)

    await both(program)


async def test_fragments_of_two_kinds_close_with_1011() -> None:
    async def program(library: Any, seen: Observations) -> None:
        async def send(websocket: Any) -> Any:
            with pytest.raises(TypeError):
                await websocket.send(["text", b"bytes"])
            await websocket.wait_closed()
            return websocket.state.name

        async with served(library, send) as (client, result):
            with pytest.raises(Exception, match="1011") as closed:
                await client.recv()
            seen += [type(closed.value).__name__, client.close_code, await result]

    await both(program)


async def test_a_message_is_received_in_pieces() -> None:
    async def program(library: Any, seen: Observations) -> None:
        async def stream(websocket: Any) -> Any:
            received = []
            for decode in (None, None, None, True, False):
                pieces = [piece async for piece in websocket.recv_streaming(decode)]
                received.append((type(pieces[0]).__name__, type(pieces[0])().join(pieces)))
            return received

        async with served(library, stream) as (client, result):
            await client.send(["some ", "text ", "ü"])
            await client.send([b"some", b"bytes"])
            await client.send("")
            await client.send([b"as", b"text"])
            await client.send("as bytes")
            seen += await result

    await both(program)


async def test_a_recv_that_times_out_loses_nothing() -> None:
    async def program(library: Any, seen: Observations) -> None:
        async def impatient(websocket: Any) -> Any:
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(websocket.recv(), 0.01)
            await websocket.send("now")
            return await websocket.recv()

        async with served(library, impatient) as (client, result):
            seen.append(await client.recv())
            await client.send("here it is")
            seen.append(await result)

    assert await both(program) == ["now", "here it is"]


async def test_two_recv_at_once_raise_concurrency_error() -> None:
    async def program(library: Any, seen: Observations) -> None:
        async def hurried(websocket: Any) -> Any:
            first = asyncio.ensure_future(websocket.recv())
            await (await websocket.ping())
            with pytest.raises(library.exceptions.ConcurrencyError):
                await websocket.recv()
            await websocket.send("go")
            return await first

        async with served(library, hurried) as (client, result):
            seen.append(await client.recv())
            await client.send("message")
            seen.append(await result)

    await both(program)


async def test_a_slow_client_holds_up_send_and_loses_nothing() -> None:
    async def program(library: Any, seen: Observations) -> None:
        sent = 0

        async def flood(websocket: Any) -> None:
            nonlocal sent
            for number in range(400):
                await websocket.send(str(number).ljust(50_000))
                sent += 1

        async with served(library, flood, compression=None) as (client, _):
            client.transport.pause_reading()
            before = -1
            while sent != before:  # until the sender waits
                before = sent
                await asyncio.sleep(0.05)  # the two libraries have no event for it; a busy machine ends it early
            seen.append(sent < 400)
            client.transport.resume_reading()
            seen.append([int(await client.recv()) for _ in range(400)] == [*range(400)])

    assert await both(program) == [True, True]


async def test_sends_of_many_tasks_keep_their_order() -> None:
    async def program(library: Any, seen: Observations) -> None:
        async def send(websocket: Any) -> None:
            await asyncio.gather(*[websocket.send(str(number).ljust(20_000)) for number in range(60)])

        async with served(library, send) as (client, _):
            seen += [int(await client.recv()) for _ in range(60)]

    assert await both(program) == [*range(60)]


# --- ping and pong --------------------------------------------------------------------------------


async def test_a_ping_is_answered_and_tells_the_latency() -> None:
    async def program(library: Any, seen: Observations) -> None:
        async def measure(websocket: Any) -> Any:
            before = websocket.latency
            latency = await (await websocket.ping("payload"))
            return before, isinstance(latency, float), websocket.latency == latency

        async with served(library, measure) as (_, result):
            seen += await result

    assert await both(program) == [0.0, True, True]


async def test_two_pings_with_one_payload_raise_concurrency_error() -> None:
    async def program(library: Any, seen: Observations) -> None:
        async def ping(websocket: Any) -> Any:
            first = await websocket.ping(b"same")
            with pytest.raises(library.exceptions.ConcurrencyError) as twice:
                await websocket.ping("same")
            with pytest.raises(library.exceptions.ProtocolError):
                await websocket.ping(b"x" * 126)
            with pytest.raises(TypeError) as wrong:
                await websocket.ping(5)
            await first
            return str(twice.value), str(wrong.value)

        async with served(library, ping) as (_, result):
            seen += await result

    await both(program)


async def test_a_pong_without_a_ping_can_be_sent() -> None:
    async def program(library: Any, seen: Observations) -> None:
        async def pong(websocket: Any) -> Any:
            await websocket.pong("heartbeat")
            await websocket.pong()
            with pytest.raises(TypeError):
                await websocket.pong(None)
            await websocket.send("after it")
            await websocket.wait_closed()
            with pytest.raises(library.exceptions.ConnectionClosed) as closed:
                await websocket.pong(b"late")
            return str(closed.value)

        async with served(library, pong) as (client, result):
            seen.append(await client.recv())
            await client.close()
            seen.append(await result)

    await both(program)


async def test_a_ping_without_answer_raises_at_the_end() -> None:
    async def program(library: Any, seen: Observations) -> None:
        async def ping(websocket: Any) -> Any:
            await websocket.recv()
            waiting = await websocket.ping()
            asyncio.get_running_loop().call_soon(client.transport.abort)
            try:
                await waiting
            except library.exceptions.ConnectionClosed as exc:
                return type(exc).__name__, str(exc)

        async with served(library, ping) as (client, result):
            await client.send("ping me")
            client.transport.pause_reading()
            seen += await result

    assert await both(program) == ["ConnectionClosedError", "no close frame received or sent"]


# --- attributes -----------------------------------------------------------------------------------


async def test_a_connection_tells_its_request_and_addresses() -> None:
    async def program(library: Any, seen: Observations) -> None:
        async def look(websocket: Any) -> Any:
            request, response = websocket.request, websocket.response
            address = websocket.local_address
            return [
                request.path,
                request.headers["User-Agent"].startswith("Python"),
                request.headers["x-device-id"],
                dict(request.headers)["x-device-id"],
                "x-device-id" in list(request.headers),
                response.status_code,
                response.reason_phrase,
                response.headers["Upgrade"],
                websocket.subprotocol,
                websocket.state.name,
                websocket.state is library.protocol.State.OPEN,
                websocket.close_code,
                websocket.close_reason,
                websocket.remote_address[0],
                websocket.transport.get_extra_info("sockname") == address,
                websocket.transport.get_extra_info("socket").family == socket.AF_INET,
                len(websocket.id.hex),
                websocket.loop is asyncio.get_running_loop(),
                isinstance(websocket, library.asyncio.server.ServerConnection),
                websocket in websocket.server.connections,
                (websocket.ping_interval, websocket.ping_timeout, websocket.close_timeout),
                websocket.protocol.state.name,
            ]

        headers = {"X-Device-Id": "a1"}
        async with served(library, look, "/chat?token=a%20b&x", client={"additional_headers": headers}) as (_, result):
            seen += await result

    seen = await both(program)
    assert seen[0] == "/chat?token=a%20b&x"


#: Names that programs keep on a connection: their own, those of plumews, and private ones.
OWN = (
    *("user", "username", "status_dict_asr", "path", "id", "latency", "logger", "closed", "open", "metadata"),
    *("user_info", "last_pong", "client_address", "_state", "_rules", "_conn", "_id", "_transport", "_open", "plumber"),
    *("request", "response", "handler", "server", "abort", "compression", "_handshake", "_closed", "_queue"),
)


async def test_a_connection_takes_attributes_of_any_name() -> None:
    async def program(library: Any, seen: Observations) -> None:
        async def keep(websocket: Any) -> Any:
            for name in OWN:
                setattr(websocket, name, f"my {name}")
            kept = [getattr(websocket, name) for name in OWN]
            await websocket.send("works")
            kept.append(await websocket.recv())
            del websocket.user
            kept.append(hasattr(websocket, "user"))
            return kept

        async with served(library, keep) as (client, result):
            seen.append(await client.recv())
            await client.send("still")
            seen += await result

    seen = await both(program)
    assert seen == ["works", *(f"my {name}" for name in OWN), "still", False]


async def test_connections_are_members_of_sets_and_dicts() -> None:
    async def program(library: Any, seen: Observations) -> None:
        async def keep(websocket: Any) -> Any:
            return len({websocket, websocket}), {websocket: 1}[websocket], websocket == websocket.protocol

        async with served(library, keep) as (_, result):
            seen += await result

    await both(program)


async def test_async_with_closes_the_connection() -> None:
    async def program(library: Any, seen: Observations) -> None:
        for failure in (None, ValueError("wrong")):

            async def leave(websocket: Any, failure: Any = failure) -> Any:
                with contextlib.suppress(ValueError):
                    async with websocket as entered:
                        same = entered is websocket
                        if failure is not None:
                            raise failure
                return same, websocket.state.name, websocket.close_code

            async with served(library, leave) as (client, result):
                seen.append(await result)
                await client.wait_closed()
                seen.append(client.close_code)

    assert await both(program) == [(True, "CLOSED", 1000), 1000, (True, "CLOSED", 1011), 1011]


@pytest.mark.parametrize(
    "name",
    ["recv_messages", "fail_connection", "write_frame", "ensure_open", "protocol.extensions", "nonsense", "protocol.x"],
)
async def test_an_unknown_attribute_raises_with_a_hint(name: str) -> None:
    async def ask(websocket: Any) -> Any:
        *owner, attribute = name.split(".")
        asked = getattr(websocket, owner[0]) if owner else websocket
        with pytest.raises(AttributeError, match=attribute) as unknown:
            getattr(asked, attribute)
        return hasattr(asked, attribute), ": use " in str(unknown.value)

    async with served(ours, ask) as (_, result):
        assert await result == (False, name not in ("nonsense", "protocol.x"))


async def test_methods_pass_for_coroutine_functions_in_mocks() -> None:
    for library in LIBRARIES:
        fake = mock.AsyncMock(spec=library.asyncio.server.ServerConnection)
        fake.recv.return_value = "faked"
        assert await fake.recv() == "faked"
        await fake.send("message")
        await fake.close()
        fake.send.assert_awaited_once_with("message")


async def test_a_subclass_may_override_recv_send_and_close() -> None:
    async def program(library: Any, seen: Observations) -> None:
        class Shouting(library.asyncio.server.ServerConnection):  # type: ignore[misc,name-defined]
            def __init__(self, *args: Any, **kwargs: Any) -> None:
                super().__init__(*args, **kwargs)
                self.count = 0
                self.known = (self.id is not None, self.loop is asyncio.get_running_loop())

            async def recv(self, decode: Any = None) -> Any:
                self.count += 1
                return (await super().recv(decode)).upper()

            async def send(self, message: Any, *, text: Any = None) -> None:
                await super().send(f"{message}!", text=text)

        async def handler(websocket: Any) -> Any:
            received = [message async for message in websocket]
            return received, websocket.count, websocket.known, type(websocket).__name__

        async def greet(websocket: Any) -> Any:
            await websocket.send("hello")
            return await handler(websocket)

        async with served(library, greet, create_connection=Shouting) as (client, result):
            seen.append(await client.recv())
            await client.send("loud")
            await client.close()
            seen += await result

    assert await both(program) == ["hello!", ["LOUD"], 2, (True, True), "Shouting"]


async def test_methods_of_a_connection_may_be_replaced() -> None:
    async def program(library: Any, seen: Observations) -> None:
        async def handler(websocket: Any) -> Any:
            calls: list[str] = []

            def note(name: str) -> Any:
                method = getattr(websocket, name)

                async def noting(*args: Any, **kwargs: Any) -> Any:
                    calls.append(name)
                    return await method(*args, **kwargs)

                return noting

            for name in ("recv", "send", "close"):
                setattr(websocket, name, note(name))
            async for message in websocket:
                await websocket.send(message)
            return calls

        async with served(library, handler) as (client, result):
            await client.send("a")
            await client.recv()
            await client.close()
        seen.append(await result)

    assert await both(program) == [["recv", "send", "recv", "close"]]


@pytest.mark.parametrize("end", ["return", "raise", "client", "server"])
async def test_close_of_a_subclass_is_called_at_the_end(end: str) -> None:
    async def program(library: Any, seen: Observations) -> None:
        calls: list[Any] = []

        class Polite(library.asyncio.server.ServerConnection):  # type: ignore[misc,name-defined]
            async def close(self, code: int = 1000, reason: str = "") -> None:
                calls.append((code, reason))
                with contextlib.suppress(library.exceptions.ConnectionClosed):
                    await self.send("goodbye")
                await super().close(code, reason)

        async def handler(websocket: Any) -> Any:
            if end == "raise":
                raise ValueError
            if end != "return":
                await websocket.wait_closed()

        serving = served(library, handler, create_connection=Polite)
        async with serving as (client, _):
            if end == "client":
                await client.close()
            elif end == "server":
                while not client.latency:
                    await (await client.ping())
                serving.server.close(code=1012, reason="restart")
            if end != "client":
                seen.append(await client.recv())
            await client.wait_closed()
            seen.append((client.close_code, client.close_reason))
        seen.append(calls[0])

    assert (await both(program))[0] == ((1000, "") if end == "client" else "goodbye")


@pytest.mark.parametrize("closes", ["client", "handler", "failure"])
async def test_a_closed_connection_is_freed_without_the_collector(closes: str, caplog: Any) -> None:
    seen: list[weakref.ref[Any]] = []
    caplog.set_level("CRITICAL", "websockets.server")

    async def handler(websocket: Any) -> None:
        websocket.mine = [1]
        seen.append(weakref.ref(websocket))
        seen.append(weakref.ref(websocket.plumews))
        websocket.logger.info("%s %s", websocket.request.path, websocket.response)
        if closes == "handler":
            await websocket.close()
        elif closes == "failure":
            raise ValueError("mistake")
        with contextlib.suppress(ours.ConnectionClosed):
            await websocket.recv()

    async with running(ours, handler) as server:
        gc.collect()
        gc.disable()
        try:
            client = await at(server)
            await (client.close() if closes == "client" else client.wait_closed())
            for _ in range(1000):
                if not any(ref() for ref in seen):
                    break
                await asyncio.sleep(0.001)  # no event tells that an object is freed
            assert [ref() for ref in seen] == [None, None]
        finally:
            gc.enable()


# --- the native side ------------------------------------------------------------------------------


async def test_the_native_connection_joins_a_hub() -> None:
    async with plumews.Hub() as hub:

        async def join(websocket: Any) -> None:
            hub.join("chat", websocket.plumews)
            await websocket.wait_closed()

        async with running(ours, join) as server, at(server) as ada, at(server) as bob:
            while hub.room_count("chat") < 2:
                await asyncio.sleep(0)
            hub.broadcast_room("chat", "hello")
            assert [await ada.recv(), await bob.recv()] == ["hello", "hello"]


async def test_native_exceptions_catch_those_of_a_connection() -> None:
    async def leave(websocket: Any) -> Any:
        await websocket.wait_closed()
        with pytest.raises(plumews.ConnectionClosedOK) as one:
            await websocket.send("late")
        with pytest.raises(ours.ConnectionClosedOK) as two:
            await websocket.plumews.recv()
        return str(one.value) == str(two.value)

    async with served(ours, leave) as (client, result):
        await client.close()
        assert await result


def test_a_connection_is_made_by_its_server_alone() -> None:
    with pytest.raises(TypeError, match="without I/O"):
        ours.ServerProtocol(origins=None)
    with pytest.raises(TypeError, match="make the connections"):
        Connection(mock.Mock(conn=None))
