"""Losses of members that are no connection: drops, gap events, and their reports at the end."""

from __future__ import annotations

from collections.abc import Hashable

import pytest

from plumews import (
    Gap,
    Hub,
    HubConfig,
)
from support.fakes import ticks
from support.members import PlainMember, adds_up, plain_member, plain_members, send, told


async def test_full_member_drops_messages_as_under_drop():
    hub = Hub()
    drops: list[tuple[object, str | None, int]] = []
    hub.on_drop(lambda *drop: drops.append(drop))
    member = plain_member(hub, space=2)
    assert [result.dropped for result in send(hub, *"abcd")] == [0, 0, 1, 1]
    hub.broadcast_all("e")
    await ticks()
    assert member.messages == ["a", "b"]
    assert drops == [(member, "room", 2), (member, None, 1)]
    assert hub.metrics().broadcast_dropped_by["drop"] == 3
    assert hub.inspect(member).dropped_messages == 3


async def test_gap_event_stands_before_the_next_message():
    hub = Hub(HubConfig(encode_gap=told))
    gaps: list[tuple[object, Gap]] = []
    hub.on_gap(lambda *gap: gaps.append(gap))
    member = plain_member(hub, space=1)
    send(hub, *"abc")
    member.space = 1  # not enough for the event and the message
    send(hub, "d")
    assert member.messages == ["a"]
    member.space = 2
    send(hub, "e")
    await ticks()
    assert member.messages == ["a", "room: 3", "e"]
    assert gaps == [(member, Gap("room", 3))]


async def test_gap_without_an_encoder_calls_on_gap_only():
    hub = Hub()
    gaps: list[Gap] = []
    hub.on_gap(lambda conn, gap: gaps.append(gap))
    member = plain_member(hub, "a", "b", space=0)
    hub.broadcast_room("a", "1")
    hub.broadcast_room("b", "2")
    member.space = 1
    hub.broadcast_room("b", "3")
    await ticks()
    assert (member.messages, gaps) == (["3"], [Gap("a", 1), Gap("b", 1)])


async def test_gap_that_finds_no_space_is_kept():
    class Picky(PlainMember):
        def can_queue(self, size: int, count: int) -> bool:
            return True

        def try_queue(self, message: str | bytes, key: Hashable) -> bool:
            self.space -= 1
            return self.space >= 0 and not self.messages.append(message)

    hub = Hub(HubConfig(encode_gap=told))
    member = Picky(space=0)
    hub.join("room", member)
    send(hub, "a", "b")
    member.space = 2
    send(hub, "c")
    assert member.messages == ["room: 2", "c"]


@pytest.mark.parametrize("end", ["leave", "end", "stop"])
async def test_losses_of_a_member_that_ends_are_reported(end):
    hub = Hub(HubConfig(encode_gap=told))
    gaps: list[Gap] = []
    hub.on_gap(lambda conn, gap: gaps.append(gap))
    member = plain_member(hub, space=0)
    send(hub, *"abc")
    member.space = 1 if end != "end" else 0
    if end == "leave":
        hub.remove(member)
    elif end == "end":
        member.end()
    else:
        await hub.stop()
    await ticks()
    assert gaps == [Gap("room", 3)]
    assert member.messages == ([] if end != "leave" else ["room: 3"])
    assert not len(hub._slow.others)


@pytest.mark.parametrize("lost", [0, 2])
async def test_loss_of_a_member_that_leaves_within_is_reported(lost):
    class Leaving(PlainMember):
        def try_queue(self, message: str | bytes, key: Hashable) -> bool:
            if lost == 0 or self.space:
                hub.remove(self)
            return False

    hub = Hub(HubConfig(encode_gap=told))
    drops: list[int] = []
    gaps: list[Gap] = []
    hub.on_drop(lambda conn, room, count: drops.append(count))
    hub.on_gap(lambda conn, gap: gaps.append(gap))
    member = Leaving(space=0)
    hub.join("room", member)
    send(hub, *"ab"[:lost])
    member.space = 2
    send(hub, "c")
    await ticks()
    assert (sum(drops), gaps) == (lost + 1, [Gap("room", lost + 1)])


async def test_shutdown_drops_broadcasts_for_unreached_members(sliced):
    hub = Hub()
    everyone = plain_members(hub, "room", 200)
    assert hub.broadcast_room("room", "x").pending
    await hub.shutdown(0)
    assert hub.metrics().broadcast_dropped_by["stopped"] == sum(not member.messages for member in everyone) > 0
    assert adds_up(hub.metrics())
