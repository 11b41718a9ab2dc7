"""Tests of result types: they do not change, add up, and can be logged."""

from __future__ import annotations

import dataclasses
import uuid

import pytest

from plumews import SendBehavior, State
from plumews.conn.graceful_close import ShutdownReport
from plumews.hub.metrics import HubMetrics
from plumews.hub.results import BroadcastResult, Gap, MemberInfo, RoomInfo


@pytest.mark.parametrize("report", [BroadcastResult(), ShutdownReport()], ids=lambda report: type(report).__name__)
def test_results_are_empty_by_default_and_frozen(report):
    assert not any(dataclasses.astuple(report))
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(report, dataclasses.fields(report)[0].name, 1)


def test_metrics_have_no_defaults():
    names = [field.name for field in dataclasses.fields(HubMetrics)]
    with pytest.raises(TypeError):
        HubMetrics()
    metrics = HubMetrics(*range(len(names)))
    with pytest.raises(dataclasses.FrozenInstanceError):
        metrics.rooms = 7  # type: ignore[misc]


@pytest.mark.parametrize(
    "report", [BroadcastResult, Gap, HubMetrics, ShutdownReport], ids=lambda report: report.__name__
)
def test_every_field_is_documented(report):
    for field in dataclasses.fields(report):
        assert field.name in (report.__doc__ or "")


@pytest.mark.parametrize(
    ("result", "rejected"),
    [
        (BroadcastResult(), False),
        (BroadcastResult(matched=3, queued=3), False),
        (BroadcastResult(matched=3, queued=1, dropped=2), False),
        (BroadcastResult(matched=3, pending=3), False),
        (BroadcastResult(matched=3, skipped=3), False),
        (BroadcastResult(matched=3, dropped=3), True),
        (BroadcastResult(matched=3, dropped=1, skipped=2), True),
        (BroadcastResult(matched=3, dropped=3, overloaded=True), True),
        (BroadcastResult(invalid=True), True),
        (BroadcastResult(stopped=True), True),
    ],
    ids=[
        "an empty room",
        "all have it",
        "one has it",
        "not decided",
        "all have left",
        "all are full",
        "one is full, the others have left",
        "the job queue is full",
        "a bad name",
        "a stopped hub",
    ],
)
def test_broadcast_is_rejected_if_no_member_gets_it(result, rejected):
    assert result.rejected is rejected


# --- snapshots of members and rooms ---------------------------------------------------------------


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
def test_repr_of_snapshot_is_printable_ascii(snapshot):
    assert repr(snapshot).isascii()
    assert repr(snapshot).isprintable()
    assert ascii(NASTY) in repr(snapshot)


def test_repr_of_snapshot_shows_every_field():
    assert repr(dataclasses.replace(MEMBER, user_id="7", user_name=None, rooms=("chat",))) == (
        "MemberInfo(id=00000000-0000-0000-0000-000000000001, remote_address=('::1', 80, 0, 0), user_id='7', "
        "user_name=None, rooms=('chat',), since=1.5, state=OPEN, subprotocol=None, send_behavior=DROP, "
        "queued_messages=2, queued_bytes=3, queued_age=0.25, dropped_messages=4, compression_bytes=5, "
        "latency=0.001, last_pong=2.5, unsent_bytes=None, unacknowledged_bytes=None, unanswered_bytes=None)"
    )


@pytest.mark.parametrize("snapshot", [MEMBER, ROOM], ids=lambda value: type(value).__name__)
def test_snapshots_are_frozen_and_documented(snapshot):
    for field in dataclasses.fields(snapshot):
        assert field.name in type(snapshot).__doc__
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(snapshot, field.name, None)
