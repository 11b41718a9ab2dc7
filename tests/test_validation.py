"""Tests of the argument checks: counts, times, rates, lists and functions."""

from __future__ import annotations

import functools
import math
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any, Literal
from unittest import mock

import pytest

import plumews
from plumews import limits
from plumews.validation import (
    check_call,
    check_callback,
    check_count,
    check_function,
    check_keepalive,
    check_rate,
    check_read_limit,
    check_time,
    entries_of,
    is_coroutine_function,
    is_plain_function,
    removed_options,
)
from support.fakes import fake_conn
from support.raw_client import Wire

# --- numbers --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "error", "text"),
    [
        (0, ValueError, "size must be 1 to 9, not 0"),
        (10, ValueError, "size must be 1 to 9, not 10"),
        (True, TypeError, "size must be an int, not bool"),
        (1.0, TypeError, "size must be an int, not float"),
        (None, TypeError, "size must be an int, not NoneType"),
    ],
)
def test_wrong_count_is_refused(value: Any, error: type[Exception], text: str) -> None:
    check_count("size", 1, most=9)
    check_count("size", 9, most=9)
    with pytest.raises(error, match=f"^{text}$"):
        check_count("size", value, most=9)


def test_count_is_bounded_by_default_and_not_with_none() -> None:
    check_count("size", limits.COUNT_MOST)
    with pytest.raises(ValueError, match=f"^size must be at most {limits.COUNT_MOST}, not"):
        check_count("size", limits.COUNT_MOST + 1)
    check_count("size", 2**200, most=None)


@pytest.mark.parametrize("value", [-1, math.inf, math.nan, "1", None, True])
def test_time_that_is_not_finite_and_positive_is_refused(value: Any) -> None:
    for zero in (False, True):
        with pytest.raises((ValueError, TypeError), match=r"^wait must be"):
            check_time("wait", value, zero=zero)


def test_time_zero_is_accepted_only_if_allowed() -> None:
    check_time("wait", 0, zero=True)
    with pytest.raises(ValueError, match=r"^wait must be more than 0 seconds, not 0$"):
        check_time("wait", 0)


@pytest.mark.parametrize("unlimited", [0, None])
@pytest.mark.parametrize("value", [-1, 0.0009, 1_000_001, 1e-320, math.inf, math.nan])
def test_rate_out_of_range_is_refused(value: float, unlimited: Literal[0] | None) -> None:
    text = rf"^rate must be 0\.001 to 1,000,000 connections a second, or {unlimited} for no limit, not"
    with pytest.raises(ValueError, match=text):
        check_rate("rate", value, unlimited)


def test_rate_accepts_its_own_way_to_say_unlimited() -> None:
    check_rate("rate", 0, 0)
    check_rate("rate", 0.0, 0)
    check_rate("rate", None, None)
    with pytest.raises(ValueError, match="or None for no limit"):
        check_rate("rate", 0, None)
    with pytest.raises(TypeError, match=r"^rate must be a number, not NoneType$"):
        check_rate("rate", None, 0)
    with pytest.raises(TypeError, match=r"^rate must be a number or None, not bool$"):
        check_rate("rate", False, None)


@pytest.mark.parametrize("value", [1, 16 * 1024 * 1024, 2**40, None])
def test_read_limit_is_a_positive_int_or_none(value: int | None) -> None:
    assert check_read_limit(value) == value


@pytest.mark.parametrize(("period", "wait"), [(30, 30), (31, 30), (0.5, 0.2)])
def test_ping_period_not_below_pong_wait_is_refused(period: float, wait: float) -> None:
    with pytest.raises(ValueError, match=r"must be less than pong_wait .* set the one that makes room first"):
        check_keepalive(period, wait)


@pytest.mark.parametrize(("period", "wait"), [(20, 30), (None, 30), (20, None), (None, None), (0.1, 0.11)])
def test_ping_period_below_pong_wait_is_accepted(period: float | None, wait: float | None) -> None:
    check_keepalive(period, wait)


@pytest.mark.parametrize(
    ("period", "wait", "name"), [(0, 30, "ping_period"), (20, -1, "pong_wait"), (20, 0, "pong_wait")]
)
def test_keepalive_time_of_zero_or_less_is_refused(period: float, wait: float, name: str) -> None:
    with pytest.raises(ValueError, match=name):
        check_keepalive(period, wait)


# --- lists ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("given", [["a", "b"], ("a", "b"), iter("ab"), {"a": 1, "b": 2}])
def test_entries_are_taken_from_any_collection(given: Any) -> None:
    assert entries_of("names", given, '"a"') == ("a", "b")


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ("ab", r"""names must be a list of str, such as \["a"\], not the str 'ab'"""),
        (b"ab", r"""names must be a list of str, such as \["a"\], not the bytes b'ab'"""),
        (5, r"""names must be a list of str, such as \["a"\], not int"""),
        (["a", 5], r"""names must be a list of str, such as \["a"\]: 5 in it is none"""),
    ],
)
def test_entries_of_another_kind_are_refused(given: Any, text: str) -> None:
    with pytest.raises(TypeError, match=f"^{text}$"):
        entries_of("names", given, '"a"')


# --- functions ------------------------------------------------------------------------------


async def later(*args: Any) -> None:
    """A coroutine function."""


def at_once(*args: Any) -> None:
    """A plain one."""


async def many(*args: Any) -> AsyncIterator[int]:
    yield 1


def several(*args: Any) -> Iterator[int]:
    yield 1


class Later:
    async def __call__(self, *args: Any) -> None:
        """Called as a coroutine function."""

    async def method(self, *args: Any) -> None:
        """A coroutine function, bound."""

    @staticmethod
    async def static(*args: Any) -> None:
        """Another one."""


class AtOnce:
    def __call__(self, *args: Any) -> None:
        """Called as a plain function."""


LATER = {
    "function": later,
    "lambda in a partial": functools.partial(functools.partial(later, 1), 2),
    "object": Later(),
    "object in a partial": functools.partial(Later(), 1),
    "method": Later().method,
    "method in a partial": functools.partial(Later().method),
    "static method": Later.static,
    "decorated": functools.wraps(at_once)(later),
    "mock": mock.AsyncMock(return_value=None),
    "autospec": mock.create_autospec(later),
    "method of a connection": fake_conn,
}
AT_ONCE = {
    "function": at_once,
    "lambda": lambda *args: None,
    "partial": functools.partial(at_once, 1),
    "object": AtOnce(),
    "mock": mock.Mock(),
    "magic mock": mock.MagicMock(),
    "autospec": mock.create_autospec(at_once),
    "builtin": print,
    "class": dict,
    "method": [].append,
}


async def test_coroutine_functions_are_known_before_a_call() -> None:
    LATER["method of a connection"] = fake_conn()[0].send
    for name, function in LATER.items():
        assert is_coroutine_function(function), name
        assert not is_plain_function(function), name
    for name, function in AT_ONCE.items():
        assert not is_coroutine_function(function), name
        assert is_plain_function(function), name
    for function in (many, several, None, 5, "print"):
        assert not is_plain_function(function), function


@pytest.mark.parametrize("function", [LATER["function"], LATER["object in a partial"], LATER["mock"], many, several])
def test_coroutine_function_is_refused_as_a_callback(function: Any) -> None:
    hub = plumews.Hub()
    for name in ("on_open", "on_message", "on_close"):
        with pytest.raises(TypeError, match=f"{name} must be a plain function"):
            plumews.serve(host="127.0.0.1", port=0, **{"on_message": at_once, name: function})
    for register in (hub.on_join, hub.on_leave, hub.on_slow, hub.on_drop, hub.on_gap):
        with pytest.raises(TypeError, match="must be a plain function"):
            register(function)
    for name in ("routes", "select_subprotocol"):
        value = {"/": function} if name == "routes" else function
        with pytest.raises(TypeError, match="must be a plain function"):
            plumews.serve(later, "127.0.0.1", 0, **{name: value})


@pytest.mark.parametrize("name", ["function", "object in a partial", "object", "method", "mock"])
async def test_any_coroutine_function_may_be_the_handler(start: Any, name: str) -> None:
    server = await start(plumews.serve(LATER[name], "127.0.0.1", 0, process_request=LATER[name]))
    async with await Wire.open(server) as wire:
        assert await wire.closing() == (1000, "")


def test_function_must_be_callable_or_none_if_optional() -> None:
    check_function("hook", print)
    check_function("hook", None, optional=True)
    with pytest.raises(TypeError, match=r"^hook must be a function, not NoneType$"):
        check_function("hook", None)
    with pytest.raises(TypeError, match=r"^hook must be a function or None, not str$"):
        check_function("hook", "print", optional=True)


def test_callback_error_says_its_name() -> None:
    check_callback(print)
    with pytest.raises(TypeError, match=r"^the callback must be a plain function: .* nothing can be awaited$"):
        check_callback(later)
    with pytest.raises(TypeError, match=r"^encode_gap must be a plain function"):
        check_callback(None, "encode_gap")


def test_call_is_checked_by_the_signature_that_a_function_shows() -> None:
    def plain(conn: object, *, key: object) -> None: ...

    def shown(conn: object, message: object) -> None: ...

    @functools.wraps(shown)
    def wrapper(conn: object) -> None: ...

    for function in (plain, wrapper):
        with pytest.raises(TypeError, match=r"^the hook is called with \(conn\)"):
            check_call("the hook", function, "conn")
    check_call("the hook", wrapper, "conn", "message")
    check_call("the hook", shown, "conn", "message")


def test_call_with_other_parameters_is_refused() -> None:
    check_call("the hook", lambda conn, message=None: None, "conn")
    check_call("the hook", dict, "conn")  # no signature
    with pytest.raises(TypeError, match=r"^the hook is called with \(conn, code\), but takes \(conn\)$"):
        check_call("the hook", lambda conn: None, "conn", "code")


# --- removed options ------------------------------------------------------------------------------


def test_removed_option_says_what_became_of_it() -> None:
    @removed_options(old="use size")
    @dataclass(frozen=True)
    class Options:
        size: int = 1

    assert Options(2).size == Options(size=2).size == 2
    with pytest.raises(TypeError, match=r"^old was removed: use size$"):
        Options(old=1)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="unexpected keyword argument 'other'"):
        Options(other=1)  # type: ignore[call-arg]
