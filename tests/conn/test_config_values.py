"""Values of a configuration that each new connection takes."""

from __future__ import annotations

import plumews
from plumews import ConnConfig, SendBehavior, limits
from plumews.conn.config_values import values_of


def test_connections_with_one_configuration_share_its_values() -> None:
    config, other = ConnConfig(), ConnConfig()
    values = values_of(config)
    assert values_of(config) is values
    assert values_of(other) is not values
    assert values.config is config


def test_values_are_those_of_the_configuration() -> None:
    config = ConnConfig(
        max_size=1000, queue_size=3, ping_interval=5, ping_timeout=2, send_behavior=SendBehavior.CONFLATE
    )
    values = values_of(config)
    assert (values.max_size, values.max_frames) == (1000, limits.max_frames(1000))
    assert (values.queue_size, values.queue_bytes) == (3, limits.QUEUE_BYTES)
    assert (values.ping_period, values.pong_wait) == (5, 7)
    assert (values.unsent_limit, values.unanswered_limit) == (limits.UNSENT_BYTES, limits.UNANSWERED_BYTES)


def test_reads_are_no_longer_than_the_receive_queue() -> None:
    assert values_of(ConnConfig(max_queue_bytes=1)).read_most == limits.READ_LEAST
    assert values_of(ConnConfig(max_queue_bytes=limits.READ_BUFFER)).read_most == 0


async def test_two_configurations_do_not_mix() -> None:
    first, second = ConnConfig(max_queue=1, queue_size=2), ConnConfig(max_queue=3, queue_size=4)
    conns = [plumews.Conn(config) for config in (first, second, first)]
    assert [conn._config.max_queue for conn in conns] == [1, 3, 1]
    assert [conn._inbox.room() for conn in conns] == [1, 3, 1]
