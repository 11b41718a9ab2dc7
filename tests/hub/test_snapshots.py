"""Snapshots of a member and of a room: they do not change, and can be logged as they are."""

from __future__ import annotations

import dataclasses
import uuid

import pytest

from plumews import SendBehavior, State
from plumews.hub.results import MemberInfo, RoomInfo

NASTY = "\x1b[2Jräume\n\u202e😀'\""

MEMBER = MemberInfo(
    id=uuid.UUID(int=1),
    remote_address=("::1", 80, 0, 0),
    user_id=NASTY,
    user_name=NASTY,
    rooms=("chat", NASTY),
    since=1.5,
    state=State.OPEN,
    subprotocol=None,
    send_behavior=SendBehavior.DROP,
    queued_messages=2,
    queued_bytes=3,
    queued_age=0.25,
    dropped_messages=4,
    compression_bytes=5,
    latency=0.001,
    last_pong=2.5,
)
ROOM = RoomInfo(name=NASTY, members=1, backlogged=0, queued_messages=0, queued_bytes=0, oldest_queued_age=0.0)


@pytest.mark.parametrize("snapshot", [MEMBER, ROOM], ids=lambda value: type(value).__name__)
def test_a_repr_is_one_line_of_printable_ascii_whatever_is_in_it(snapshot):
    assert repr(snapshot).isascii()
    assert repr(snapshot).isprintable()
    assert ascii(NASTY) in repr(snapshot)


def test_a_repr_says_all_there_is():
    assert repr(dataclasses.replace(MEMBER, user_id="7", user_name=None, rooms=("chat",))) == (
        "MemberInfo(id=00000000-0000-0000-0000-000000000001, remote_address=('::1', 80, 0, 0), user_id='7', "
        "user_name=None, rooms=('chat',), since=1.5, state=OPEN, subprotocol=None, send_behavior=DROP, "
        "queued_messages=2, queued_bytes=3, queued_age=0.25, dropped_messages=4, compression_bytes=5, "
        "latency=0.001, last_pong=2.5, unsent_bytes=None, unacknowledged_bytes=None, unanswered_bytes=None)"
    )


@pytest.mark.parametrize("snapshot", [MEMBER, ROOM], ids=lambda value: type(value).__name__)
def test_a_snapshot_cannot_be_changed_and_every_field_is_explained(snapshot):
    for field in dataclasses.fields(snapshot):
        assert field.name in type(snapshot).__doc__
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(snapshot, field.name, None)
