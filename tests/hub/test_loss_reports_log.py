"""Log of a hub about slow members: one line a second at most."""

from __future__ import annotations

import logging
from typing import Any

import pytest

import plumews
from plumews import Hub, SendBehavior
from plumews.hub.loss_reports import LOG_INTERVAL
from support.fakes import deadlines, fake_conn, pass_time, ticks
from support.members import plain_member


def members(hub: Hub, count: int, **config: Any) -> list[plumews.Conn]:
    pairs = [fake_conn(**{"ping_interval": None, "queue_size": 1, **config}) for _ in range(count)]
    for conn, transport in pairs:
        hub.join("room", conn)
        transport.fill()
    return [conn for conn, _ in pairs]


def send(hub: Hub, count: int) -> None:
    for _ in range(count):
        hub.broadcast_all("x")


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Any:
    caplog.set_level(logging.WARNING, logger="plumews.hub")
    return lambda: [record.getMessage() for record in caplog.records if record.name == "plumews.hub"]


@pytest.fixture
def hub() -> Hub:
    return Hub(plumews.HubConfig(check_room_name=lambda name: None))


async def test_thousand_drops_are_one_line_a_second(hub, lines):
    members(hub, 5, send_behavior=SendBehavior.DROP)
    members(hub, 3, send_behavior=SendBehavior.DROP_OLDEST)
    before = deadlines()
    send(hub, 126)
    assert lines() == []
    assert deadlines() == before + 1
    pass_time(LOG_INTERVAL)
    await ticks()
    assert lines() == ["slow members: 1000 messages dropped, 8 members concerned, 0 of them closed"]
    assert deadlines() == before
    send(hub, 1)
    pass_time(LOG_INTERVAL)
    await ticks()
    assert lines()[1:] == ["slow members: 8 messages dropped, 8 members concerned, 0 of them closed"]


async def test_closed_members_are_counted_in_the_line(hub, lines):
    members(hub, 4, send_behavior=SendBehavior.CLOSE)
    send(hub, 3)
    pass_time(LOG_INTERVAL)
    await ticks()
    assert lines() == ["slow members: 4 messages dropped, 4 members concerned, 4 of them closed"]


async def test_line_holds_no_text_from_outside(hub, lines):
    plain_member(hub, "r\u00fcckw\u00e4rts \u202e", space=1)
    send(hub, 2)
    pass_time(LOG_INTERVAL)
    await ticks()
    assert lines()[0].isascii()
    assert lines()[0].isprintable()


async def test_stop_of_the_hub_logs_the_rest_at_once(hub, lines):
    before = deadlines()
    plain_member(hub, space=1)
    send(hub, 2)
    await hub.shutdown(0)
    assert lines() == ["slow members: 1 messages dropped, 1 members concerned, 0 of them closed"]
    await ticks()
    assert deadlines() == before


async def test_hub_without_losses_logs_nothing(hub, lines):
    plain_member(hub)
    send(hub, 100)
    await hub.shutdown(0)
    assert lines() == []
