"""Tests of the resolver: shared lookups, a resolver that does not answer, threads that end, literals."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import threading
from concurrent.futures import CancelledError, Future
from typing import Any

import pytest

from plumews.client.resolver import Resolver, literal_address, resolver

ANSWER = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.0.2.1", 80))]
BOUND = 10.0


class Names:
    """Resolver function whose lookups of ``stuck…`` last until the test ends them."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.answer = threading.Event()

    def __call__(self, host: str, port: int, **_: Any) -> list[Any]:
        self.calls.append(host)
        if host.startswith("stuck"):
            assert self.answer.wait(BOUND)
        if host == "unknown":
            raise socket.gaierror(socket.EAI_NONAME, "no such name")
        if host == "codec":
            raise UnicodeError("label too long")
        return [] if host == "empty" else ANSWER


@pytest.fixture
def names() -> Any:
    names = Names()
    yield names
    names.answer.set()


def test_name_is_resolved_in_another_thread(names: Names) -> None:
    assert Resolver(names).resolve("h", 80).result(BOUND) == ANSWER
    assert resolver.resolve("localhost", 80).result(BOUND)


@pytest.mark.parametrize("name", ["unknown", "codec", "empty"])
def test_name_that_does_not_exist_is_an_os_error(names: Names, name: str) -> None:
    with pytest.raises(OSError, match=r"name|codec"):
        Resolver(names).resolve(name, 80).result(BOUND)


def test_stuck_name_costs_other_names_nothing(names: Names) -> None:
    resolver = Resolver(names)
    stuck = [resolver.resolve("stuck", 80) for _ in range(100)]
    assert resolver.resolve("h", 80).result(BOUND) == ANSWER
    assert names.calls == ["stuck", "h"]  # one lookup for all
    names.answer.set()
    assert [future.result(BOUND) for future in stuck] == [ANSWER] * 100
    assert resolver.resolve("stuck", 80).result(BOUND) == ANSWER
    assert names.calls == ["stuck", "h", "stuck"]  # nothing is kept


def test_threads_are_bounded_and_others_wait(names: Names) -> None:
    resolver = Resolver(names, threads=2)
    waiting = [resolver.resolve(f"stuck{number}", 80) for number in range(5)]
    last = resolver.resolve("h", 80)
    assert not last.done()
    assert resolver._threads == 2
    names.answer.set()
    assert [future.result(BOUND) for future in [*waiting, last]] == [ANSWER] * 6


def test_canceled_future_leaves_the_others(names: Names) -> None:
    resolver = Resolver(names)
    first, second = resolver.resolve("stuck", 80), resolver.resolve("stuck", 80)
    assert first.cancel()
    names.answer.set()
    assert second.result(BOUND) == ANSWER
    with pytest.raises(CancelledError):
        first.result(0)


def test_idle_thread_ends(names: Names) -> None:
    resolver = Resolver(names, idle=0.01)
    before = set(threading.enumerate())
    resolver.resolve("stuck", 80)
    (thread,) = set(threading.enumerate()) - before
    assert thread.daemon
    names.answer.set()
    thread.join(BOUND)
    assert not thread.is_alive()
    assert resolver.resolve("h", 80).result(BOUND) == ANSWER


def test_idle_thread_is_used_again(names: Names) -> None:
    resolver = Resolver(names)
    for _ in range(20):
        assert resolver.resolve("h", 80).result(BOUND) == ANSWER
    assert resolver._threads <= 2  # a thread may not be idle yet when its result is there


def test_machine_without_threads_is_an_os_error(names: Names, monkeypatch: pytest.MonkeyPatch) -> None:
    def start(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    with pytest.raises(OSError, match="cannot start a thread"):
        Resolver(names).resolve("h", 80).result(BOUND)


def test_lookup_outlives_its_event_loop(names: Names, caplog: pytest.LogCaptureFixture) -> None:
    resolver = Resolver(names)
    other: list[Future[Any]] = []

    async def leave() -> None:
        waiting = asyncio.wrap_future(resolver.resolve("stuck", 80))
        other.append(resolver.resolve("stuck", 80))
        await asyncio.wait([waiting], timeout=0)

    loop = asyncio.new_event_loop()
    loop.run_until_complete(leave())
    loop.close()
    names.answer.set()
    assert other[0].result(BOUND) == ANSWER


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_child_of_a_fork_has_its_own_threads() -> None:
    resolver.resolve("localhost", 80).result(BOUND)
    child = os.fork()
    if not child:
        status = 1
        try:
            status = 0 if resolver.resolve("localhost", 80).result(BOUND) else 1
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


# --- addresses --------------------------------------------------------------------------------------


def test_addresses_need_no_lookup() -> None:
    assert literal_address("h.example", 80) is None
    assert literal_address("127.0.0.1", 80) == (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 80))
    found = literal_address("::1", 80)
    assert found is not None
    assert (found[0], found[4]) == (socket.AF_INET6, ("::1", 80, 0, 0))


@pytest.mark.skipif(sys.platform != "linux", reason="needs the interface lo")
def test_zone_stays_with_its_address() -> None:
    found = literal_address("fe80::1%lo", 80)
    assert found is not None
    index = socket.if_nametoindex("lo")
    assert found[4] == (f"fe80::1%{index}", 80, 0, index)
    with pytest.raises(OSError, match=r"."):
        literal_address("fe80::1%nowhere", 80)
