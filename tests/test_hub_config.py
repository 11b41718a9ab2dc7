"""The settings of a hub: the seed's defaults, and a clear word for each wrong value."""

from __future__ import annotations

import dataclasses

import pytest

from plumews import Hub, HubConfig
from plumews.errors import InvalidRoomName

COUNTS = (
    "max_queued_bytes",
    "workers",
    "job_queue_size",
    "max_connections",
    "max_room_connections",
    "max_rooms_per_connection",
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


def test_a_name_policy_must_be_a_function():
    with pytest.raises(TypeError, match="check_room_name must be a function, not str"):
        HubConfig(check_room_name="[a-z]+")  # type: ignore[arg-type]


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


def test_what_encodes_gaps_must_be_a_function_or_nothing():
    assert HubConfig(encode_gap=str).encode_gap is str
    assert HubConfig().encode_gap is None
    with pytest.raises(TypeError, match="encode_gap must be a function or None, not str"):
        HubConfig(encode_gap="gap")  # type: ignore[arg-type]
