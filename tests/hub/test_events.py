"""Callbacks of a hub without a hub: who is called, in which order, and what one that fails does to the others."""

from __future__ import annotations

import asyncio
import contextlib
import functools

import pytest

from plumews.hub.events import EventDispatcher
from plumews.validation import check_callback, is_plain_function
from support.fakes import failures


async def test_callbacks_of_a_kind_are_called_in_the_order_in_which_they_came():
    callbacks, log = EventDispatcher(), []
    callbacks.add("join", lambda room: log.append(("one", room)))
    callbacks.add("join", lambda room: log.append(("two", room)))
    callbacks.add("leave", lambda room: log.append(("never", room)))
    callbacks.happened("join", ("a",), ("b",))
    callbacks.happened("something else", ("c",))
    assert log == [("one", "a"), ("two", "a"), ("one", "b"), ("two", "b")]


async def test_one_that_ended_is_not_called_and_ending_twice_ends_no_other():
    callbacks, log = EventDispatcher(), []
    end = callbacks.add("join", log.append)
    callbacks.add("join", log.append)
    end()
    end()
    callbacks.happened("join", (1,))
    assert log == [1]


async def test_when_the_last_has_ended_nothing_is_kept():
    callbacks = EventDispatcher()
    for end in [callbacks.add("join", print) for _ in range(3)]:
        end()
    callbacks.happened("join", (1,))
    assert not callbacks._callbacks
    assert not callbacks._news


async def test_what_a_callback_makes_happen_is_told_after_all_have_heard_of_the_first():
    callbacks, log = EventDispatcher(), []

    def chain(number: int) -> None:
        log.append(("chain", number))
        if number < 3:
            callbacks.happened("join", (number + 1,))
            log.append(("returned", number))

    callbacks.add("join", chain)
    callbacks.add("join", lambda number: log.append(("other", number)))
    callbacks.happened("join", (1,))
    assert log == [
        ("chain", 1),
        ("returned", 1),
        ("other", 1),
        ("chain", 2),
        ("returned", 2),
        ("other", 2),
        ("chain", 3),
        ("other", 3),
    ]


async def test_a_chain_of_ten_thousand_does_not_nest():
    callbacks, count = EventDispatcher(), 0

    def again(number: int) -> None:
        nonlocal count
        count += 1
        if number:
            callbacks.happened("join", (number - 1,))

    callbacks.add("join", again)
    callbacks.happened("join", (9_999,))
    assert count == 10_000


async def test_one_that_ends_another_ends_it_for_what_is_told_now():
    callbacks, log = EventDispatcher(), []
    ends = []
    callbacks.add("join", lambda number: [end() for end in ends])
    ends.append(callbacks.add("join", log.append))
    callbacks.happened("join", (1,), (2,))
    assert log == []


@pytest.mark.parametrize("error", [RuntimeError("not today"), asyncio.CancelledError()], ids=["error", "cancelled"])
async def test_one_that_fails_is_reported_and_the_others_are_called(error):
    callbacks, log = EventDispatcher(), []

    def fail(number: int) -> None:
        raise error

    callbacks.add("join", fail)
    callbacks.add("join", log.append)
    with failures() as told:
        callbacks.happened("join", (1,), (2,))
    assert log == [1, 2]
    assert [failure["exception"] for failure in told] == [error] * 2
    assert told[0]["message"] == "a callback of the hub (join) failed"


async def test_one_that_ends_the_program_does_not_keep_later_news_from_being_told():
    callbacks, log = EventDispatcher(), []

    def interrupt(number: int) -> None:
        log.append(number)
        if number == 1:
            raise KeyboardInterrupt

    callbacks.add("join", interrupt)
    with pytest.raises(KeyboardInterrupt):
        callbacks.happened("join", (1,), (2,))
    callbacks.happened("join", (3,))
    assert log == [1, 2, 3]


class Plain:
    def __call__(self) -> None: ...


class Awaited:
    async def __call__(self) -> None: ...


async def coroutine_function() -> None: ...


@pytest.mark.parametrize(
    ("callback", "plain"),
    [
        (print, True),
        (lambda: None, True),
        (Plain(), True),
        (functools.partial(print, 1), True),
        (coroutine_function, False),
        (functools.partial(coroutine_function), False),
        (Awaited(), False),
        (None, False),
        ("print", False),
    ],
    ids=str,
)
def test_a_callback_is_a_plain_function(callback, plain):
    assert is_plain_function(callback) is plain
    with contextlib.nullcontext() if plain else pytest.raises(TypeError, match="must be a plain function"):
        check_callback(callback)
    with contextlib.nullcontext() if plain else pytest.raises(TypeError, match="must be a plain function"):
        EventDispatcher().add("join", callback)


def test_whether_anybody_wants_to_hear_is_known():
    callbacks = EventDispatcher()
    assert not callbacks.wanted("join")
    end = callbacks.add("join", print)
    assert callbacks.wanted("join")
    assert not callbacks.wanted("leave")
    end()
    assert not callbacks.wanted("join")
