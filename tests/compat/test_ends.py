"""Ends of connections: codes, exceptions and their texts are those of `websockets`, whichever side closes."""

from __future__ import annotations

import asyncio
import copy
import pickle
from typing import Any

import pytest
import websockets

import plumews
from plumews.compat import websockets as ours
from support.both_libraries import Observations, at, both, running, served

pytestmark = pytest.mark.peer

CODES = [(1000, ""), (1000, "bye"), (1001, ""), (1011, "internal"), (1012, ""), (3000, "r"), (4001, "confused")]


def told(exc: BaseException) -> Any:
    """Return what an exception tells about the end."""
    rcvd, sent = exc.rcvd, exc.sent  # type: ignore[attr-defined]
    return (
        type(exc).__name__,
        str(exc),
        None if rcvd is None else (rcvd.code, rcvd.reason, str(rcvd)),
        None if sent is None else (sent.code, sent.reason),
        exc.rcvd_then_sent,  # type: ignore[attr-defined]
    )


@pytest.mark.filterwarnings("ignore:ConnectionClosed:DeprecationWarning")
@pytest.mark.parametrize(("code", "reason"), CODES)
async def test_the_client_closes_first(code: int, reason: str) -> None:
    async def program(library: Any, seen: Observations) -> None:
        async def read(websocket: Any) -> Any:
            try:
                await websocket.recv()
            except library.exceptions.ConnectionClosed as exc:
                state = websocket.state.name, websocket.close_code, websocket.close_reason
                state += str(websocket.protocol.close_rcvd), repr(websocket.protocol.close_sent)
                return told(exc), state, exc.code, exc.reason

        async with served(library, read) as (client, result):
            await client.close(code, reason)
            seen += [await result, client.close_code, client.close_reason]

    await both(program)


@pytest.mark.parametrize(("code", "reason"), CODES)
async def test_the_handler_closes_first(code: int, reason: str) -> None:
    async def program(library: Any, seen: Observations) -> None:
        async def close(websocket: Any) -> Any:
            await websocket.close(code, reason)
            ended = []
            for call in (websocket.recv(), websocket.send("late"), websocket.ping(), websocket.pong()):
                with pytest.raises(library.exceptions.ConnectionClosed) as closed:
                    await call
                ended.append(told(closed.value))
            await websocket.close(4000, "again")
            return ended, websocket.close_code, websocket.close_reason

        async with served(library, close) as (client, result):
            seen.append(await result)
            await client.wait_closed()
            seen += [client.close_code, client.close_reason]

    await both(program)


@pytest.mark.parametrize("code", [1000, 1001, 1005, 1011, 4001])
async def test_an_iteration_ends_or_raises_by_the_code(code: int) -> None:
    async def program(library: Any, seen: Observations) -> None:
        async def read(websocket: Any) -> Any:
            received = []
            try:
                async for message in websocket:
                    received.append(message)
            except library.exceptions.ConnectionClosedError as exc:
                return received, told(exc), websocket.state.name
            return received, websocket.close_code, websocket.state.name

        async with served(library, read) as (client, result):
            await client.send("first")
            await client.send(b"last")
            if code == 1005:
                client.protocol.send_close()
                client.send_data()
            else:
                await client.close(code)
            seen.append(await result)

    await both(program)


async def test_a_client_that_is_cut_raises_connection_closed_error() -> None:
    async def program(library: Any, seen: Observations) -> None:
        async def read(websocket: Any) -> Any:
            with pytest.raises(library.exceptions.ConnectionClosedError) as closed:
                await websocket.recv()
            return told(closed.value), websocket.close_code, websocket.close_reason, websocket.state.name

        async with served(library, read) as (client, result):
            client.transport.abort()
            seen.append(await result)

    seen = await both(program)
    assert seen[0][0][1] == "no close frame received or sent"


async def test_a_message_above_max_size_closes_with_1009() -> None:
    async def program(library: Any, seen: Observations) -> None:
        async def read(websocket: Any) -> Any:
            with pytest.raises(library.exceptions.ConnectionClosedError) as closed:
                await websocket.recv()
            return closed.value.rcvd, closed.value.sent.code, type(closed.value.__cause__).__name__

        async with served(library, read, compression=None) as (client, result):
            await client.send(b"x" * (2**20 + 1))
            seen.append(await result)
            await client.wait_closed()
            seen.append(client.close_code)

    assert await both(program) == [(None, 1009, "PayloadTooBig"), 1009]


async def test_a_message_of_max_size_is_received() -> None:
    async def program(library: Any, seen: Observations) -> None:
        async def read(websocket: Any) -> Any:
            return len(await websocket.recv())

        async with served(library, read) as (client, result):
            await client.send(b"x" * 2**20)
            seen.append(await result)

    assert await both(program) == [2**20]


async def test_a_handler_that_fails_closes_with_1011_and_logs() -> None:
    async def program(library: Any, seen: Observations) -> None:
        lines: list[Any] = []

        class Log:
            def isEnabledFor(self, level: int) -> bool:  # noqa: N802 - as a logger does
                return False

            def error(self, text: str, **more: Any) -> None:
                lines.append(text)

            info = debug = warning = log = error

        async def broken(websocket: Any) -> None:
            raise ValueError("not what I expected")

        import logging

        logger = logging.getLogger("compat.test")
        records: list[str] = []

        class Handler(logging.Handler):
            def emit(self, record: logging.LogRecord) -> None:
                if record.levelno >= logging.ERROR:
                    records.append(f"{record.getMessage()} {record.exc_info[0].__name__}")  # type: ignore[index,union-attr]

        handler = Handler()
        logger.addHandler(handler)
        try:
            async with running(library, broken, logger=logger) as server, at(server) as client:
                await client.wait_closed()
                seen += [client.close_code, client.close_reason]
        finally:
            logger.removeHandler(handler)
        seen += records

    assert await both(program) == [1011, "", "connection handler failed ValueError"]


async def test_messages_before_the_close_are_read_after_it() -> None:
    async def program(library: Any, seen: Observations) -> None:
        async def late(websocket: Any) -> Any:
            await websocket.wait_closed()
            received = [await websocket.recv(), await websocket.recv()]
            with pytest.raises(library.exceptions.ConnectionClosedOK):
                await websocket.recv()
            return received

        async with served(library, late) as (client, result):
            await client.send("one")
            await client.send("two")
            await client.close()
            seen.append(await result)

    assert await both(program) == [["one", "two"]]


async def test_a_close_is_answered_though_messages_are_unread() -> None:
    async def program(library: Any, seen: Observations) -> None:
        async def tell(websocket: Any) -> Any:
            with pytest.raises(library.exceptions.ConnectionClosedError) as closed:  # noqa: PT012 - `send` raises
                while True:
                    await websocket.send("tick")
                    await asyncio.sleep(0.001)  # the pace of the ticks
            return told(closed.value), websocket.state.name, await websocket.recv(), await websocket.recv()

        async with served(library, tell) as (client, result):
            await client.send("unread")
            await client.send("unread, too")
            began = asyncio.get_running_loop().time()
            await client.close(4000, "enough")
            assert asyncio.get_running_loop().time() - began < 0.8  # a plumews.Conn gives its handler a second
            seen += [client.close_code, await result]

    await both(program)


@pytest.mark.parametrize("compression", [None, "deflate"])
@pytest.mark.parametrize("reads", ["before", "after"])
async def test_messages_behind_our_close_frame_are_received(compression: Any, reads: str) -> None:
    async def program(library: Any, seen: Observations) -> None:
        begun = asyncio.Event()

        async def close(websocket: Any) -> Any:
            received = [await websocket.recv()]
            closing = asyncio.create_task(websocket.close())
            await asyncio.sleep(0)
            assert websocket.protocol.close_sent is not None
            begun.set()
            if reads == "after":
                await closing
            received += [message async for message in websocket]
            await closing
            return received

        async with served(library, close, compression=compression) as (client, result):
            await (await client.ping())  # the agreement on compression has arrived
            client.transport.pause_reading()  # it does not see our close frame yet
            await client.send("close")
            await begun.wait()
            for number in range(4):
                await client.send(f"late {number}")
            client.transport.resume_reading()
            seen.append(await result)

    assert await both(program) == [["close", "late 0", "late 1", "late 2", "late 3"]]


@pytest.mark.parametrize("compression", [None, "deflate"])
async def test_late_messages_end_where_the_queue_is_full(compression: Any) -> None:
    begun = asyncio.Event()

    async def close(websocket: Any) -> Any:
        await websocket.recv()
        closing = asyncio.create_task(websocket.close())
        await asyncio.sleep(0)
        begun.set()
        await closing
        return [message async for message in websocket]

    async with served(ours, close, compression=compression, max_queue=2) as (client, result):
        client.transport.pause_reading()
        await client.send("close")
        await begun.wait()
        for number in range(100):
            await client.send(f"late {number}")
        client.transport.resume_reading()
        assert await asyncio.wait_for(result, 5) == ["late 0", "late 1"]


@pytest.mark.parametrize(("code", "reason"), [(1005, ""), (999, ""), (1000, "x" * 124)])
async def test_a_wrong_close_raises_protocol_error(code: int, reason: str) -> None:
    async def program(library: Any, seen: Observations) -> None:
        async def close(websocket: Any) -> Any:
            with pytest.raises(library.exceptions.ProtocolError):
                await websocket.close(code, reason)
            return websocket.state.name

        async with served(library, close) as (_, result):
            seen.append(await result)

    assert await both(program) == ["OPEN"]


async def test_a_close_that_is_not_answered_times_out() -> None:
    async def program(library: Any, seen: Observations) -> None:
        async def close(websocket: Any) -> Any:
            await websocket.recv()
            await websocket.close(1000, "bye")
            with pytest.raises(library.exceptions.ConnectionClosedError) as closed:
                await websocket.recv()
            return told(closed.value), websocket.close_code

        async with served(library, close, close_timeout=0.1) as (client, result):
            await client.send("close me")
            client.transport.pause_reading()
            seen.append(await result)
            client.transport.abort()

    seen = await both(program)
    assert seen[0][0][1] == "sent 1000 (OK) bye; no close frame received"


async def test_the_server_closes_its_connections() -> None:
    async def program(library: Any, seen: Observations) -> None:
        ended: list[Any] = []

        async def read(websocket: Any) -> None:
            try:
                await websocket.recv()
            except library.exceptions.ConnectionClosed as exc:
                ended.append(told(exc))

        for code, reason in ((None, ""), (1012, "restart")):
            async with running(library, read) as server:
                clients = [await at(server) for _ in range(3)]
                for client in clients:
                    await (await client.ping())
                seen.append(len(server.connections))
                if code is None:
                    server.close()
                else:
                    server.close(code=code, reason=reason)
                await server.wait_closed()
                for client in clients:
                    await client.wait_closed()
                    seen.append((client.close_code, client.close_reason))
                seen.append((server.is_serving(), len(server.connections), len(server.sockets)))
        seen += ended

    await both(program)


async def test_server_close_waits_for_the_handlers() -> None:
    async def program(library: Any, seen: Observations) -> None:
        async def slow(websocket: Any) -> None:
            await websocket.wait_closed()
            await asyncio.sleep(0.3)  # longer than the close timeout
            seen.append("done")

        async with running(library, slow, close_timeout=0.1) as server:
            client = await at(server)
            await (await client.ping())
            server.close()
            await server.wait_closed()
            seen.append("closed")

    assert await both(program) == ["done", "closed"]


async def test_server_close_may_leave_connections_open() -> None:
    async def program(library: Any, seen: Observations) -> None:
        async def echo(websocket: Any) -> None:
            async for message in websocket:
                await websocket.send(message)

        async with running(library, echo) as server:
            client = await at(server)
            await client.send("before")
            seen.append(await client.recv())
            host, port = server.sockets[0].getsockname()
            server.close(close_connections=False)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            with pytest.raises(ConnectionRefusedError):
                await asyncio.open_connection(host, port)
            await client.send("after")
            seen.append(await client.recv())
            await client.close()
            await server.wait_closed()
            seen.append(client.close_code)

    assert await both(program) == ["before", "after", 1000]


# --- exceptions without a connection --------------------------------------------------------------

ENDS: list[tuple[Any, Any, Any]] = [
    (None, None, None),
    ((1000, ""), None, None),
    (None, (1011, "keepalive ping timeout"), None),
    ((1001, "bye"), (1001, ""), True),
    ((4999, "x"), (3999, "y"), False),
    ((2999, ""), (1006, ""), False),
]


@pytest.mark.parametrize(("rcvd", "sent", "order"), ENDS)
def test_texts_of_connection_closed(rcvd: Any, sent: Any, order: Any) -> None:
    theirs, mine = (
        library.exceptions.ConnectionClosedError(
            rcvd and library.frames.Close(*rcvd), sent and library.frames.Close(*sent), order
        )
        for library in (websockets, ours)
    )
    assert (str(mine), repr(mine)) == (str(theirs), repr(theirs))


@pytest.mark.parametrize("code", [*range(999, 1017), 2000, 3000, 3999, 4000, 4999, 5000])
def test_texts_of_close_codes(code: int) -> None:
    for reason in ("", "why"):
        assert str(ours.Close(code, reason)) == str(websockets.Close(code, reason))
        assert repr(ours.Close(code, reason)) == repr(websockets.Close(code, reason))


def test_connection_closed_can_be_pickled_and_copied() -> None:
    exc = ours.ConnectionClosedOK(ours.Close(1000, "a"), ours.Close(1000, ""), True)
    for again in (pickle.loads(pickle.dumps(exc)), copy.copy(exc)):
        assert (type(again), str(again), again.rcvd, again.rcvd_then_sent) == (type(exc), str(exc), exc.rcvd, True)
    assert isinstance(exc, plumews.ConnectionClosedOK)
    assert (exc.code, exc.reason) == (1000, "a")
