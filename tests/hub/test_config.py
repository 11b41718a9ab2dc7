"""The settings of a hub: the seed's defaults, and a clear word for each wrong value."""

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


def test_the_defaults_are_those_of_the_seed():
    config = HubConfig()
    assert (config.workers, config.job_queue_size) == (4, 1024)
    assert (config.max_connections, config.max_room_connections) == (0, 0)
    assert config.max_rooms_per_connection == 100


def test_the_seeds_example_is_accepted():
    config = HubConfig(workers=4, job_queue_size=1024, max_connections=1000, max_room_connections=200)
    assert Hub(config).config is config


def test_a_config_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        HubConfig().workers = 5  # type: ignore[misc]


@pytest.mark.parametrize("name", COUNTS)
@pytest.mark.parametrize("value", [1.0, "4", None, True], ids=["float", "str", "None", "bool"])
def test_a_count_that_is_no_int_is_a_type_error_with_its_name(name, value):
    with pytest.raises(TypeError, match=f"^{name} must be an int, not {type(value).__name__}$"):
        HubConfig(**{name: value})


@pytest.mark.parametrize("name", ["workers", "job_queue_size"])
def test_a_hub_that_could_deliver_nothing_is_refused(name):
    assert getattr(HubConfig(**{name: 1}), name) == 1
    for value in (0, -1):
        with pytest.raises(ValueError, match=f"^{name} must be at least 1, not {value}$"):
            HubConfig(**{name: value})


@pytest.mark.parametrize("name", [name for name in COUNTS if name.startswith("max_")])
def test_a_limit_of_0_is_none_and_a_negative_one_is_refused(name):
    assert getattr(HubConfig(**{name: 0}), name) == 0
    with pytest.raises(ValueError, match=f"^{name} must be at least 0, not -1$"):
        HubConfig(**{name: -1})


def test_hub_config_with_sending_threads_says_what_to_use():
    with pytest.raises(TypeError, match=r"^sending_threads was removed: run several processes instead$"):
        HubConfig(sending_threads=2)  # type: ignore[call-arg]


@pytest.mark.parametrize("rate", ["10", None, True, 1j], ids=repr)
def test_a_rate_that_is_no_number_is_a_type_error(rate):
    with pytest.raises(TypeError, match=f"^accept_rate must be a number, not {type(rate).__name__}$"):
        HubConfig(accept_rate=rate)


@pytest.mark.parametrize("rate", [-1, 0.0009, 1_000_001, 1e-320, float("inf"), float("nan")])
def test_a_rate_outside_its_range_is_refused(rate):
    with pytest.raises(
        ValueError, match=r"^accept_rate must be 0\.001 to 1,000,000 connections a second, or 0 for no limit, not "
    ):
        HubConfig(accept_rate=rate)


@pytest.mark.parametrize("rate", [0.001, 0.5, 100, 1_000_000])
def test_a_rate_lets_in_what_comes_in_two_seconds_at_once_unless_another_burst_is_given(rate):
    def burst(config: HubConfig) -> int:
        bucket = Hub(config)._members._bucket
        assert bucket is not None
        return next(count for count in itertools.count() if bucket.take(0.0))

    if rate < 1000:
        assert burst(HubConfig(accept_rate=rate)) == max(1, int(2 * rate))
    assert burst(HubConfig(accept_rate=rate, accept_burst=3)) == 3


def test_without_a_rate_nothing_is_bounded_and_a_burst_alone_is_a_slip():
    assert Hub()._members._bucket is None
    with pytest.raises(ValueError, match="accept_burst bounds nothing without accept_rate"):
        HubConfig(accept_burst=5)
    with pytest.raises(ValueError, match=r"^accept_burst must be at least 0, not -1$"):
        HubConfig(accept_burst=-1, accept_rate=1)


def test_a_name_policy_must_be_a_function():
    with pytest.raises(TypeError, match="check_room_name must be a function, not str"):
        HubConfig(check_room_name="[a-z]+")  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["check_room_name", "history", "encode_gap"])
def test_what_would_have_to_be_awaited_is_refused_since_nobody_awaits_it(name):
    async def function(argument: object) -> None: ...

    class Called:
        async def __call__(self, argument: object) -> None: ...

    for wrong in (function, Called()):
        with pytest.raises(TypeError, match=f"{name} must be a plain function"):
            HubConfig(**{name: wrong})


def test_the_two_arguments_of_the_seeds_new_hub_are_checked_as_well():
    assert Hub(8, 2048).config == HubConfig(workers=8, job_queue_size=2048)
    with pytest.raises(ValueError, match="workers must be at least 1"):
        Hub(0)
    with pytest.raises(ValueError, match="job_queue_size must be at least 1"):
        Hub(4, -1)


def test_another_name_policy_takes_the_place_of_the_default_one():
    def short(name: str) -> None:
        if len(name) > 3:
            raise InvalidRoomName("at most three letters")

    hub = Hub(HubConfig(check_room_name=short))
    hub.can_join("abc")
    with pytest.raises(InvalidRoomName, match="at most three letters"):
        hub.can_join("abcd")


def test_no_room_has_a_history_unless_it_is_asked_for():
    assert HubConfig().history_policy is None


def test_history_is_one_answer_for_all_rooms_or_a_function_of_the_room():
    much, little = HistoryLimits(max_messages=1000), HistoryLimits(max_messages=1)
    policy = HubConfig(history=much).history_policy
    assert policy is not None
    assert policy("chat") is policy("news") is much
    policy = HubConfig(history={"chat": little}.get).history_policy
    assert policy is not None
    assert (policy("chat"), policy("news")) == (little, None)


@pytest.mark.parametrize("value", [True, 100, {"chat": 1}, "chat"], ids=lambda value: type(value).__name__)
def test_history_that_is_neither_is_a_type_error(value):
    with pytest.raises(TypeError, match=r"^history must be HistoryLimits, or a function that gives them, not "):
        HubConfig(history=value)


def test_a_table_of_histories_is_given_by_its_method():
    with pytest.raises(TypeError, match=r"not dict: give its method get$"):
        HubConfig(history={"chat": HistoryLimits()})  # type: ignore[arg-type]


def test_what_encodes_gaps_must_be_a_function_or_nothing():
    assert HubConfig(encode_gap=str).encode_gap is str
    assert HubConfig().encode_gap is None
    with pytest.raises(TypeError, match="encode_gap must be a function or None, not str"):
        HubConfig(encode_gap="gap")  # type: ignore[arg-type]


def test_a_hub_is_made_of_a_number_or_a_config():
    with pytest.raises(TypeError, match=r"a number of workers or a plumews\.HubConfig, not dict"):
        Hub({"workers": 4})
