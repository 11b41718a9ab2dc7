"""The settings of a connection: the seed's defaults, and each wrong value refused where it is given."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import AsyncIterator, Iterator
from typing import Any
from unittest import mock

import pytest

import plumews
from plumews import ConnConfig, Deflate, SendBehavior, limits
from plumews.conn.config import check_keepalive, check_read_limit
from plumews.deflate.config import Agreement
from plumews.validation import is_coroutine_function, is_plain_function
from support.fakes import fake_conn, payloads_of
from support.raw_client import Wire


def test_the_defaults_are_those_of_the_seed() -> None:
    config = ConnConfig()
    assert config.max_size == 16 * 1024 * 1024
    assert config.queue_size == 64
    assert config.send_timeout == 0.05
    assert config.send_behavior is SendBehavior.BLOCK
    assert config.ping_interval == 20
    assert config.pong_wait == 30
    assert config.fragment_size == 65536


def test_a_config_cannot_be_changed_under_its_connections() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        ConnConfig().queue_size = 1  # type: ignore[misc]


@pytest.mark.parametrize(
    "name", ["max_size", "max_queue", "max_queue_bytes", "queue_size", "queue_bytes", "fragment_size"]
)
@pytest.mark.parametrize(
    ("value", "error", "text"),
    [
        (0, ValueError, "at least 1, not 0"),
        (-1, ValueError, "at least 1, not -1"),
        (1 << 63, ValueError, f"at most {limits.COUNT_MOST}, not {1 << 63}"),
        (1.5, TypeError, "must be an int, not float"),
        (True, TypeError, "must be an int, not bool"),
        ("64", TypeError, "must be an int, not str"),
    ],
)
def test_section_8_point_31_a_wrong_size_is_refused_at_once(
    name: str, value: Any, error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text) as info:
        ConnConfig(**{name: value})
    assert name in str(info.value)


@pytest.mark.parametrize("name", ["send_timeout", "close_timeout", "ping_interval", "ping_timeout"])
@pytest.mark.parametrize(
    ("value", "error"),
    [
        (-0.1, ValueError),
        (float("nan"), ValueError),
        (float("inf"), ValueError),
        (float("-inf"), ValueError),
        ("1", TypeError),
        (True, TypeError),
        (b"1", TypeError),
    ],
)
def test_section_8_point_31_a_wrong_time_is_refused_at_once(name: str, value: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match=name):
        ConnConfig(**{name: value})


@pytest.mark.parametrize("name", ["close_timeout", "ping_interval", "ping_timeout"])
def test_no_time_at_all_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="more than 0 seconds, not 0"):
        ConnConfig(**{name: 0})


def test_a_send_timeout_of_nothing_is_a_try() -> None:
    assert ConnConfig(send_timeout=0).send_timeout == 0


@pytest.mark.parametrize("value", ["block", 0, None, "drop"])
def test_section_8_point_31_a_wrong_send_behavior_is_refused_at_once(value: Any) -> None:
    with pytest.raises(TypeError, match=r"SendBehavior\.BLOCK, DROP, CLOSE, DROP_OLDEST or CONFLATE"):
        ConnConfig(send_behavior=value)


@pytest.mark.parametrize("name", ["max_size", "send_timeout", "ping_interval", "ping_timeout"])
def test_none_turns_a_bound_off(name: str) -> None:
    config = ConnConfig(**{name: None})  # type: ignore[arg-type]
    assert getattr(config, name) is None


@pytest.mark.parametrize("name", ["max_queue", "queue_size", "queue_bytes", "close_timeout", "fragment_size"])
def test_where_there_must_be_a_bound_none_is_refused(name: str) -> None:
    with pytest.raises(TypeError, match=name):
        ConnConfig(**{name: None})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("interval", "timeout", "wait"),
    [(20, 10, 30), (5, 0.5, 5.5), (None, 10, None), (20, None, None), (None, None, None)],
)
def test_pong_wait_is_interval_and_timeout(interval: float | None, timeout: float | None, wait: float | None) -> None:
    assert ConnConfig(ping_interval=interval, ping_timeout=timeout).pong_wait == wait


@pytest.mark.parametrize(
    ("behavior", "unsent", "unanswered"),
    [
        (SendBehavior.BLOCK, None, None),
        (SendBehavior.DROP, None, None),
        (SendBehavior.CLOSE, None, None),
        (SendBehavior.DROP_OLDEST, limits.UNSENT_BYTES, None),
        (SendBehavior.CONFLATE, limits.UNSENT_BYTES, limits.UNANSWERED_BYTES),
    ],
)
def test_bounds_of_what_is_on_its_way_depend_on_the_behavior(
    behavior: SendBehavior, unsent: int | None, unanswered: int | None
) -> None:
    config = ConnConfig(send_behavior=behavior)
    assert (config.unsent_limit, config.unanswered_limit) == (unsent, unanswered)
    config = ConnConfig(send_behavior=behavior, unsent_bytes=1, unanswered_bytes=2)
    assert (config.unsent_limit, config.unanswered_limit) == (1, 2)
    config = ConnConfig(send_behavior=behavior, unsent_bytes=None, unanswered_bytes=None)
    assert (config.unsent_limit, config.unanswered_limit) == (None, None)


def test_without_a_keepalive_no_answer_is_waited_for() -> None:
    config = ConnConfig(send_behavior=SendBehavior.CONFLATE, ping_interval=None)
    assert config.unanswered_limit is None
    with pytest.raises(ValueError, match="unanswered_bytes needs ping_interval and ping_timeout"):
        ConnConfig(unanswered_bytes=1, ping_timeout=None)


@pytest.mark.parametrize("name", ["unsent_bytes", "unanswered_bytes"])
@pytest.mark.parametrize(
    ("value", "error", "text"),
    [
        (0, ValueError, "at least 1, not 0: None is no bound"),
        (1 << 63, ValueError, "at most"),
        (1.5, TypeError, "must be an int, not float"),
        (True, TypeError, "must be an int, not bool"),
        ("64", ValueError, "must be an int, 'auto' or None, not '64'"),
    ],
)
def test_a_wrong_bound_of_what_is_on_its_way_is_refused(
    name: str, value: Any, error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text) as info:
        ConnConfig(**{name: value})
    assert name in str(info.value)


@pytest.mark.parametrize("value", [1, 16 * 1024 * 1024, 2**40, None])
def test_a_read_limit_is_a_positive_int_or_none(value: int | None) -> None:
    assert check_read_limit(value) == value


@pytest.mark.parametrize(("period", "wait"), [(30, 30), (31, 30), (0.5, 0.2)])
def test_a_ping_period_that_is_not_below_the_pong_wait_is_refused(period: float, wait: float) -> None:
    with pytest.raises(ValueError, match=r"must be less than pong_wait .* set the one that makes room first"):
        check_keepalive(period, wait)


@pytest.mark.parametrize(("period", "wait"), [(20, 30), (None, 30), (20, None), (None, None), (0.1, 0.11)])
def test_a_ping_period_below_the_pong_wait_is_accepted(period: float | None, wait: float | None) -> None:
    check_keepalive(period, wait)


@pytest.mark.parametrize(
    ("period", "wait", "name"), [(0, 30, "ping_period"), (20, -1, "pong_wait"), (20, 0, "pong_wait")]
)
def test_a_keepalive_time_that_is_not_positive_is_refused(period: float, wait: float, name: str) -> None:
    with pytest.raises(ValueError, match=name):
        check_keepalive(period, wait)


async def test_with_the_largest_sizes_a_connection_works_in_both_bodies() -> None:
    most = limits.COUNT_MOST
    names = ("max_size", "max_queue", "max_queue_bytes", "queue_size", "queue_bytes", "fragment_size")
    conn, transport = fake_conn(compression=Deflate(min_size=most), **dict.fromkeys(names, most))
    conn._compress(Agreement(12, 12, False, False, ""))
    await conn.send("hello" * 100)
    assert payloads_of(transport) == ["hello" * 100]


# --- what is awaited ------------------------------------------------------------------------------


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


async def test_whatever_is_awaited_is_known_before_it_is_called() -> None:
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
def test_whatever_does_its_work_later_is_refused_as_a_callback(function: Any) -> None:
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
async def test_whatever_is_awaited_may_handle(start: Any, name: str) -> None:
    server = await start(plumews.serve(LATER[name], "127.0.0.1", 0, process_request=LATER[name]))
    async with await Wire.open(server) as wire:
        assert await wire.closing() == (1000, "")
