"""Servers in a thread with an event loop of its own, for clients that block."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any, TypeVar

import plumews
from support.fakes import PATIENCE, echo
from support.hostile_server import Peer, hostile

__all__ = ["entered", "hostile_server", "in_thread", "refusing_server", "server"]

T = TypeVar("T")


@contextlib.contextmanager
def entered(begin: Callable[[], contextlib.AbstractAsyncContextManager[T]]) -> Iterator[T]:
    """Enter an asynchronous context in a thread of its own. Leave it at the end."""
    entering: list[Any] = []
    ready = threading.Event()

    async def run() -> None:
        leave = asyncio.Event()
        loop = asyncio.get_running_loop()
        async with begin() as value:
            entering.extend((value, lambda: loop.call_soon_threadsafe(leave.set)))
            ready.set()
            await leave.wait()

    def in_loop() -> None:
        try:
            asyncio.run(run())
        except BaseException as exc:
            entering.append(exc)
            ready.set()

    thread = threading.Thread(target=in_loop, daemon=True)
    thread.start()
    assert ready.wait(PATIENCE)
    if isinstance(entering[0], BaseException):
        raise entering[0]
    try:
        yield entering[0]
    finally:
        entering[1]()
        thread.join(PATIENCE)
        assert not thread.is_alive()


@contextlib.contextmanager
def server(
    handler: Callable[[plumews.Conn], Awaitable[Any]] = echo, scheme: str = "ws", **options: Any
) -> Iterator[str]:
    """Run a server. Yield its URI."""

    @contextlib.asynccontextmanager
    async def begin() -> AsyncIterator[str]:
        async with plumews.serve(handler, "127.0.0.1", 0, **options) as serving:
            host = "localhost" if scheme == "wss" else "127.0.0.1"
            yield f"{scheme}://{host}:{serving.sockets[0].getsockname()[1]}/"

    with entered(begin) as uri:
        yield uri


@contextlib.contextmanager
def hostile_server(play: Callable[[Peer], Awaitable[Any]]) -> Iterator[str]:
    """Run a server that calls ``play(peer)`` for each client. Yield its URI."""
    with entered(lambda: hostile(play)) as uri:
        yield uri


@contextlib.contextmanager
def refusing_server() -> Iterator[str]:
    """Run a server that accepts each client, and reads nothing from it to the end of the block. Yield its URI."""
    over = threading.Event()

    async def play(peer: Peer) -> None:
        peer.accept()
        peer.writer.transport.pause_reading()  # type: ignore[attr-defined]
        await asyncio.to_thread(over.wait, PATIENCE)

    with hostile_server(play) as uri:
        try:
            yield uri
        finally:
            over.set()


@contextlib.contextmanager
def in_thread(function: Callable[[], T]) -> Iterator[Callable[[], T]]:
    """Run ``function`` in a thread. Yield a function that waits for its result, or raises its error."""
    results: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(function())
        except BaseException as exc:
            errors.append(exc)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()

    def result() -> T:
        thread.join(PATIENCE)
        assert not thread.is_alive()
        if errors:
            raise errors[0]
        return results[0]

    try:
        yield result
    finally:
        thread.join(PATIENCE)
