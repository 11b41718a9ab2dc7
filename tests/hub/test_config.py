"""Tests of HubConfig: defaults, and the errors of wrong values."""

from __future__ import annotations

import dataclasses
import itertools

import pytest

from plumews import HistoryLimits, Hub, HubConfig
from plumews.errors import InvalidRoomName

COUNTS = (
    "max_queued_bytes",
    "workers",
    "job_queue_size",
    "max_connections",
    "max_room_connections",
    "max_rooms_per_connection",
    "max_history_rooms",
    "max_history_bytes",
    "accept_burst",
)


def test_hub_config_defaults():
    config = HubConfig()
    assert (config.workers, config.job_queue_size) == (4, 1024)
    assert (config.max_connections, config.max_room_connections) == (0, 0)
    assert config.max_rooms_per_connection == 100


def test_hub_config_accepts_all_limits():
    config = HubConfig(workers=4, job_queue_size=1024, max_connections=1000, max_room_connections=200)
    assert Hub(config).config is config


def test_hub_config_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        HubConfig().workers = 5  # type: ignore[misc]


@pytest.mark.parametrize("name", COUNTS)
@pytest.mark.parametrize("value", [1.0, "4", None, True], ids=["float", "str", "None", "bool"])
def test_count_of_other_types_raises_type_error_with_its_name(name, value):
    with pytest.raises(TypeError, match=f"^{name} must be an int, not {type(value).__name__}$"):
        HubConfig(**{name: value})


@pytest.mark.parametrize("name", ["workers", "job_queue_size"])
def test_workers_and_job_queue_must_be_at_least_1(name):
    assert getattr(HubConfig(**{name: 1}), name) == 1
    for value in (0, -1):
        with pytest.raises(ValueError, match=f"^{name} must be at least 1, not {value}$"):
            HubConfig(**{name: value})


@pytest.mark.parametrize("name", [name for name in COUNTS if name.startswith("max_")])
def test_limit_of_0_is_none_and_negative_one_is_refused(name):
    assert getattr(HubConfig(**{name: 0}), name) == 0
    with pytest.raises(ValueError, match=f"^{name} must be at least 0, not -1$"):
        HubConfig(**{name: -1})


def test_hub_config_with_sending_threads_says_what_to_use():
    with pytest.raises(TypeError, match=r"^sending_threads was removed: run several processes instead$"):
        HubConfig(sending_threads=2)  # type: ignore[call-arg]


@pytest.mark.parametrize("rate", ["10", None, True, 1j], ids=repr)
def test_accept_rate_of_other_types_raises_type_error(rate):
    with pytest.raises(TypeError, match=f"^accept_rate must be a number, not {type(rate).__name__}$"):
        HubConfig(accept_rate=rate)


@pytest.mark.parametrize("rate", [-1, 0.0009, 1_000_001, 1e-320, float("inf"), float("nan")])
def test_accept_rate_out_of_range_raises_value_error(rate):
    with pytest.raises(
        ValueError, match=r"^accept_rate must be 0\.001 to 1,000,000 connections a second, or 0 for no limit, not "
    ):
        HubConfig(accept_rate=rate)


@pytest.mark.parametrize("rate", [0.001, 0.5, 100, 1_000_000])
def test_accept_burst_defaults_to_two_seconds(rate):
    def burst(config: HubConfig) -> int:
        bucket = Hub(config)._members._bucket
        assert bucket is not None
        return next(count for count in itertools.count() if bucket.take(0.0))

    if rate < 1000:
        assert burst(HubConfig(accept_rate=rate)) == max(1, int(2 * rate))
    assert burst(HubConfig(accept_rate=rate, accept_burst=3)) == 3


def test_accept_burst_without_accept_rate_is_refused():
    assert Hub()._members._bucket is None
    with pytest.raises(ValueError, match="accept_burst bounds nothing without accept_rate"):
        HubConfig(accept_burst=5)
    with pytest.raises(ValueError, match=r"^accept_burst must be at least 0, not -1$"):
        HubConfig(accept_burst=-1, accept_rate=1)


def test_check_room_name_must_be_a_function():
    with pytest.raises(TypeError, match="check_room_name must be a function, not str"):
        HubConfig(check_room_name="[a-z]+")  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["check_room_name", "history", "encode_gap"])
def test_coroutine_functions_are_refused(name):
    async def function(argument: object) -> None: ...

    class Called:
        async def __call__(self, argument: object) -> None: ...

    for wrong in (function, Called()):
        with pytest.raises(TypeError, match=f"{name} must be a plain function"):
            HubConfig(**{name: wrong})


def test_hub_checks_workers_and_job_queue_size():
    assert Hub(8, 2048).config == HubConfig(workers=8, job_queue_size=2048)
    with pytest.raises(ValueError, match="workers must be at least 1"):
        Hub(0)
    with pytest.raises(ValueError, match="job_queue_size must be at least 1"):
        Hub(4, -1)


def test_check_room_name_replaces_default_policy():
    def short(name: str) -> None:
        if len(name) > 3:
            raise InvalidRoomName("at most three letters")

    hub = Hub(HubConfig(check_room_name=short))
    hub.can_join("abc")
    with pytest.raises(InvalidRoomName, match="at most three letters"):
        hub.can_join("abcd")


def test_history_is_off_by_default():
    assert HubConfig().history_policy is None


def test_history_is_limits_for_all_rooms_or_a_function():
    much, little = HistoryLimits(max_messages=1000), HistoryLimits(max_messages=1)
    policy = HubConfig(history=much).history_policy
    assert policy is not None
    assert policy("chat") is policy("news") is much
    policy = HubConfig(history={"chat": little}.get).history_policy
    assert policy is not None
    assert (policy("chat"), policy("news")) == (little, None)


@pytest.mark.parametrize("value", [True, 100, {"chat": 1}, "chat"], ids=lambda value: type(value).__name__)
def test_history_of_other_types_raises_type_error(value):
    with pytest.raises(TypeError, match=r"^history must be HistoryLimits, or a function that gives them, not "):
        HubConfig(history=value)


def test_history_as_mapping_raises_type_error_with_hint():
    with pytest.raises(TypeError, match=r"not dict: give its method get$"):
        HubConfig(history={"chat": HistoryLimits()})  # type: ignore[arg-type]


def test_encode_gap_must_be_a_function_or_none():
    assert HubConfig(encode_gap=str).encode_gap is str
    assert HubConfig().encode_gap is None
    with pytest.raises(TypeError, match="encode_gap must be a function or None, not str"):
        HubConfig(encode_gap="gap")  # type: ignore[arg-type]


def test_hub_takes_a_number_or_a_config():
    with pytest.raises(TypeError, match=r"a number of workers or a plumews\.HubConfig, not dict"):
        Hub({"workers": 4})
