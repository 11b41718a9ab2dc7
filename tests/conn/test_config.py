"""Options of a connection: their defaults, and an error for each wrong value where it is given."""

from __future__ import annotations

import dataclasses
from typing import Any, get_type_hints

import pytest

from plumews import ConnConfig, Deflate, SendBehavior, limits
from plumews.conn.config import ConnOptions
from plumews.conn.opening import use_deflate
from plumews.deflate.config import Agreement
from support.fakes import fake_conn, payloads_of


def test_defaults_are_the_documented_ones() -> None:
    config = ConnConfig()
    assert config.max_size == 16 * 1024 * 1024
    assert config.queue_size == 64
    assert config.send_timeout == 0.05
    assert config.send_behavior is SendBehavior.BLOCK
    assert config.ping_interval == 20
    assert config.pong_wait == 30
    assert config.fragment_size == 65536


def test_keyword_options_are_the_fields_of_the_config() -> None:
    assert get_type_hints(ConnOptions) == {
        name: hint
        for name, hint in get_type_hints(ConnConfig).items()
        if name in {each.name for each in dataclasses.fields(ConnConfig)}
    }


def test_config_is_frozen() -> None:
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
def test_wrong_size_is_refused_at_once(name: str, value: Any, error: type[Exception], text: str) -> None:
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
def test_wrong_time_is_refused_at_once(name: str, value: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match=name):
        ConnConfig(**{name: value})


@pytest.mark.parametrize("name", ["close_timeout", "ping_interval", "ping_timeout"])
def test_time_of_zero_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="more than 0 seconds, not 0"):
        ConnConfig(**{name: 0})


def test_send_timeout_of_zero_tries_once() -> None:
    assert ConnConfig(send_timeout=0).send_timeout == 0


@pytest.mark.parametrize("value", ["block", 0, None, "drop"])
def test_wrong_send_behavior_is_refused_at_once(value: Any) -> None:
    with pytest.raises(TypeError, match=r"SendBehavior\.BLOCK, DROP, CLOSE, DROP_OLDEST or CONFLATE"):
        ConnConfig(send_behavior=value)


@pytest.mark.parametrize("name", ["max_size", "send_timeout", "ping_interval", "ping_timeout"])
def test_none_turns_an_optional_bound_off(name: str) -> None:
    config = ConnConfig(**{name: None})  # type: ignore[arg-type]
    assert getattr(config, name) is None


@pytest.mark.parametrize("name", ["max_queue", "queue_size", "queue_bytes", "close_timeout", "fragment_size"])
def test_none_is_refused_for_a_required_bound(name: str) -> None:
    with pytest.raises(TypeError, match=name):
        ConnConfig(**{name: None})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("interval", "timeout", "wait"),
    [(20, 10, 30), (5, 0.5, 5.5), (None, 10, None), (20, None, None), (None, None, None)],
)
def test_pong_wait_is_interval_plus_timeout(interval: float | None, timeout: float | None, wait: float | None) -> None:
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
def test_auto_bounds_depend_on_the_send_behavior(
    behavior: SendBehavior, unsent: int | None, unanswered: int | None
) -> None:
    config = ConnConfig(send_behavior=behavior)
    assert (config.unsent_limit, config.unanswered_limit) == (unsent, unanswered)
    config = ConnConfig(send_behavior=behavior, unsent_bytes=1, unanswered_bytes=2)
    assert (config.unsent_limit, config.unanswered_limit) == (1, 2)
    config = ConnConfig(send_behavior=behavior, unsent_bytes=None, unanswered_bytes=None)
    assert (config.unsent_limit, config.unanswered_limit) == (None, None)


def test_unanswered_bytes_are_unbounded_without_a_keepalive() -> None:
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
def test_wrong_bound_of_bytes_in_flight_is_refused(name: str, value: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text) as info:
        ConnConfig(**{name: value})
    assert name in str(info.value)


async def test_connection_works_with_the_largest_sizes() -> None:
    most = limits.COUNT_MOST
    names = ("max_size", "max_queue", "max_queue_bytes", "queue_size", "queue_bytes", "fragment_size")
    conn, transport = fake_conn(compression=Deflate(min_size=most), **dict.fromkeys(names, most))
    use_deflate(conn, Agreement(12, 12, False, False, ""))
    await conn.send("hello" * 100)
    assert payloads_of(transport) == ["hello" * 100]
