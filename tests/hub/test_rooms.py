"""Tests of RoomTable without sockets: rooms, limits, names, and snapshots of members."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from plumews import limits
from plumews.errors import HubError, HubFull, InvalidRoomName, RoomFull, TooManyRooms
from plumews.hub.rooms import RoomTable, check_room_name, validate_room_name

# --- names ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["a", "chat", "room 7", "chat:42/ü", "x" * 128, "ü" * 64, "😀" * 32],
    ids=lambda name: f"{name[:8]}…{len(name)}",
)
def test_default_policy_accepts_128_bytes_of_printable_text(name):
    check_room_name(name)


@pytest.mark.parametrize(
    "name",
    ["", "x" * 129, "ü" * 65, "two\nlines", "nul\0", "bell\a", "turn\u202eed", "\ud800", "\x7f"],
    ids=["empty", "129 bytes", "65 characters of 2 bytes", "newline", "nul", "bell", "bidi", "surrogate", "delete"],
)
def test_default_policy_refuses_other_names(name):
    with pytest.raises(InvalidRoomName, match=f"invalid room name: it must be 1 to {limits.ROOM_NAME} bytes"):
        check_room_name(name)


@pytest.mark.parametrize("name", ["a", "chat.v1", "team:42_x-Y", "x" * 128, "."])
def test_strict_policy_accepts_names_for_urls_and_logs(name):
    validate_room_name(name)


@pytest.mark.parametrize(
    "name",
    ["", "x" * 129, "room 7", "a/b", "caf\u00e9", "\u0430", "a\n", "\u0661", "a%20b", None, 7, b"chat"],
    ids=["empty", "129", "blank", "slash", "e acute", "cyrillic", "newline", "digit", "escape", "None", "int", "bytes"],
)
def test_strict_policy_refuses_other_names(name):
    with pytest.raises(InvalidRoomName, match="invalid room name: it must be 1 to 128 of A-Z a-z 0-9"):
        validate_room_name(name)


@pytest.mark.parametrize("name", [None, 7, b"chat"], ids=["None", "int", "bytes"])
def test_default_policy_refuses_other_types(name):
    with pytest.raises(InvalidRoomName, match=f"it must be a str, not {type(name).__name__}"):
        check_room_name(name)


def test_table_uses_the_given_policy():
    def only_numbers(name: str) -> None:
        if not name.isdigit():
            raise InvalidRoomName("a room is a number here")

    table: RoomTable[str] = RoomTable(check_name=only_numbers)
    table.join("7", "ann")
    with pytest.raises(InvalidRoomName, match="a room is a number here"):
        table.join("chat", "ann")
    assert table.names() == ["7"]


# --- joining and leaving --------------------------------------------------------------------------


def test_member_is_in_joined_rooms_until_it_leaves():
    table: RoomTable[str] = RoomTable()
    assert table.join("chat", "ann")
    assert table.join("news", "ann")
    assert table.join("chat", "bob")
    assert table.rooms_of("ann") == ["chat", "news"]
    assert table.snapshot("chat").members == ("ann", "bob")
    assert (table.registrations, table.connections) == (3, 2)
    assert table.leave("chat", "ann")
    assert table.rooms_of("ann") == ["news"]
    assert table.snapshot("chat").members == ("bob",)
    assert (table.registrations, table.connections) == (2, 2)
    assert table.is_member("news", "ann")
    assert not table.is_member("chat", "ann")


def test_join_again_counts_once():
    table: RoomTable[str] = RoomTable()
    assert table.join("chat", "ann")
    assert not table.join("chat", "ann")
    assert (table.count("chat"), table.registrations, table.connections) == (1, 1, 1)


def test_leave_of_non_member_changes_nothing():
    table: RoomTable[str] = RoomTable()
    table.join("chat", "ann")
    assert not table.leave("chat", "bob")
    assert not table.leave("news", "ann")
    assert not table.leave("news", "bob")
    assert table.remove("bob") == []
    assert (table.count("chat"), table.registrations, table.connections) == (1, 1, 1)


def test_room_exists_while_it_has_members():
    table: RoomTable[str] = RoomTable()
    assert table.names() == []
    table.join("chat", "ann")
    table.join("chat", "bob")
    table.leave("chat", "ann")
    assert table.names() == ["chat"]
    table.leave("chat", "bob")
    assert table.names() == []
    assert (table.registrations, table.connections) == (0, 0)


def test_remove_returns_the_rooms_of_a_member():
    table: RoomTable[str] = RoomTable()
    for room in ("chat", "news", "sport"):
        table.join(room, "ann")
    table.join("news", "bob")
    assert table.remove("ann") == ["chat", "news", "sport"]
    assert table.names() == ["news"]
    assert not table.is_member(None, "ann")
    assert table.is_member(None, "bob")


def test_unknown_rooms_and_members_are_empty():
    table: RoomTable[str] = RoomTable()
    assert table.count("chat") == 0
    assert table.snapshot("chat").members == ()
    assert table.snapshot(None).members == ()
    assert table.rooms_of("ann") == []


# --- limits ---------------------------------------------------------------------------------------


def state(table: RoomTable[int]) -> object:
    rooms = {name: table.snapshot(name).members for name in table.names()}
    return rooms, table.snapshot(None).members, table.registrations, table.connections


def test_connection_limit_refuses_one_more():
    table: RoomTable[int] = RoomTable(max_connections=3)
    for member in range(3):
        table.join("chat", member)
    before = state(table)
    with pytest.raises(HubFull, match="websocket hub at capacity: 3 connections"):
        table.join("chat", 3)
    with pytest.raises(HubFull):
        table.join("news", 3)
    with pytest.raises(HubFull):
        table.check_space("news")
    assert state(table) == before
    table.leave("chat", 0)
    table.join("news", 3)


def test_connection_limit_counts_each_member_once():
    table: RoomTable[int] = RoomTable(max_connections=1)
    table.join("chat", 1)
    table.join("news", 1)
    assert (table.connections, table.registrations) == (1, 2)
    with pytest.raises(HubFull):
        table.join("chat", 2)


def test_room_limit_refuses_one_more_in_that_room():
    table: RoomTable[int] = RoomTable(max_room_connections=2)
    table.join("chat", 1)
    table.join("chat", 2)
    before = state(table)
    with pytest.raises(RoomFull, match="websocket room at capacity: 2 connections"):
        table.join("chat", 3)
    with pytest.raises(RoomFull):
        table.check_space("chat")
    assert state(table) == before
    table.check_space("news")
    table.join("news", 3)


def test_rooms_of_a_member_are_limited():
    table: RoomTable[int] = RoomTable(max_rooms_per_connection=2)
    table.join("a", 1)
    table.join("b", 1)
    before = state(table)
    with pytest.raises(TooManyRooms, match="a connection may be in 2 rooms"):
        table.join("c", 1)
    assert state(table) == before
    table.join("c", 2)
    table.leave("a", 1)
    table.join("c", 1)


def test_member_may_be_in_100_rooms_by_default():
    table: RoomTable[int] = RoomTable()
    for room in range(limits.ROOMS_PER_CONNECTION):
        table.join(f"room {room}", 1)
    with pytest.raises(TooManyRooms):
        table.join("one more", 1)


def test_limit_of_0_is_none():
    table: RoomTable[int] = RoomTable(max_connections=0, max_room_connections=0, max_rooms_per_connection=0)
    for room in range(limits.ROOMS_PER_CONNECTION + 1):
        table.join(f"room {room}", 1)
    for member in range(1000):
        table.join("chat", member)
    assert table.count("chat") == 1000


def test_join_again_at_limits_is_harmless():
    table: RoomTable[int] = RoomTable(max_connections=1, max_room_connections=1, max_rooms_per_connection=1)
    assert table.join("chat", 1)
    assert not table.join("chat", 1)


def test_full_hub_is_reported_before_full_room():
    table: RoomTable[int] = RoomTable(max_connections=1, max_room_connections=1)
    table.join("chat", 1)
    with pytest.raises(HubFull):
        table.join("chat", 2)


def test_invalid_name_is_reported_before_full_hub():
    table: RoomTable[int] = RoomTable(max_connections=1)
    table.join("chat", 1)
    with pytest.raises(InvalidRoomName):
        table.join("", 2)


# --- snapshots ------------------------------------------------------------------------------------


def test_snapshot_is_in_order_of_joins():
    table: RoomTable[str] = RoomTable()
    for member in ("cid", "ann", "bob"):
        table.join("chat", member)
    table.leave("chat", "cid")
    table.join("chat", "cid")
    assert table.snapshot("chat").members == ("ann", "bob", "cid")


def test_snapshot_of_all_rooms_has_each_member_once():
    table: RoomTable[str] = RoomTable()
    table.join("chat", "ann")
    table.join("chat", "bob")
    table.join("news", "ann")
    table.join("news", "cid")
    assert table.snapshot(None).members == ("ann", "bob", "cid")


def test_snapshot_does_not_change():
    table: RoomTable[str] = RoomTable()
    table.join("chat", "ann")
    before, everybody = table.snapshot("chat"), table.snapshot(None)
    table.join("chat", "bob")
    table.leave("chat", "ann")
    assert before.members == everybody.members == ("ann",)
    assert table.snapshot("chat").members == table.snapshot(None).members == ("bob",)


def test_snapshot_is_shared_until_the_next_change():
    table: RoomTable[str] = RoomTable()
    table.join("chat", "ann")
    chat, everybody = table.snapshot("chat"), table.snapshot(None)
    table.join("news", "ann")  # neither of the two is changed by this
    assert table.snapshot("chat") is chat
    assert table.snapshot(None) is everybody
    table.leave("chat", "ann")
    assert table.snapshot("chat") is not chat
    assert table.snapshot(None) is everybody


def test_snapshot_of_several_rooms_has_each_member_once():
    table: RoomTable[str] = RoomTable()
    for room, members in {"chat": ("ann", "bob"), "news": ("cid", "bob", "dan")}.items():
        for member in members:
            table.join(room, member)
    assert table.snapshot(("news", "chat", "nowhere")).members == ("cid", "bob", "dan", "ann")
    assert table.snapshot(("chat", "chat")).members == ("ann", "bob")
    assert table.snapshot(()).members == ()


def test_only_last_snapshot_of_several_rooms_is_kept():
    table: RoomTable[str] = RoomTable()
    table.join("chat", "ann")
    table.join("news", "bob")
    snapshot = table.snapshot(("chat", "news"))
    assert table.snapshot(("chat", "news")) is snapshot
    table.join("news", "cid")
    assert table.snapshot(("chat", "news")).members == ("ann", "bob", "cid")
    table.leave("chat", "ann")
    assert table.snapshot(("chat", "news")).members == ("bob", "cid")
    for number in range(100):
        last = table.snapshot(("news", f"room {number}"))
    assert not table._snapshots
    assert table._union == (("news", "room 99"), last)


def test_is_member_of_several_rooms_means_any_of_them():
    table: RoomTable[str] = RoomTable()
    table.join("chat", "ann")
    assert table.is_member(("chat", "news"), "ann")
    assert not table.is_member(("news", "sport"), "ann")
    assert not table.is_member((), "ann")
    assert not table.is_member(("chat",), "bob")


def test_snapshot_knows_position_of_member():
    table: RoomTable[str] = RoomTable()
    for member in ("ann", "bob"):
        table.join("chat", member)
    snapshot = table.snapshot("chat")
    assert [snapshot.position(member) for member in ("ann", "bob", "cid")] == [0, 1, -1]


def test_snapshot_of_unknown_rooms_costs_no_memory():
    table: RoomTable[str] = RoomTable()
    for room in range(100):
        table.snapshot(f"room {room}")
    assert not table._snapshots


# --- model ----------------------------------------------------------------------------------------


class Membership(RuleBasedStateMachine):
    """Table beside a simple model: a list of pairs."""

    rooms = st.sampled_from(["a", "b", "c"])
    members = st.integers(0, 4)

    def __init__(self) -> None:
        super().__init__()
        self.table: RoomTable[int] = RoomTable(max_connections=4, max_room_connections=3, max_rooms_per_connection=2)
        self.pairs: list[tuple[str, int]] = []

    def would_be_refused(self, room: str, member: int) -> bool:
        everybody = {other for _, other in self.pairs}
        in_room = [other for name, other in self.pairs if name == room]
        own = [name for name, other in self.pairs if other == member]
        return (member not in everybody and len(everybody) >= 4) or len(in_room) >= 3 or len(own) >= 2

    @rule(room=rooms, member=members)
    def join(self, room: str, member: int) -> None:
        if (room, member) in self.pairs:
            assert not self.table.join(room, member)
        elif self.would_be_refused(room, member):
            with pytest.raises(HubError):
                self.table.join(room, member)
        else:
            assert self.table.join(room, member)
            self.pairs.append((room, member))

    @rule(room=rooms, member=members)
    def leave(self, room: str, member: int) -> None:
        assert self.table.leave(room, member) == ((room, member) in self.pairs)
        self.pairs = [pair for pair in self.pairs if pair != (room, member)]

    @precondition(lambda self: self.pairs)
    @rule(member=members)
    def remove(self, member: int) -> None:
        assert self.table.remove(member) == [room for room, other in self.pairs if other == member]
        self.pairs = [pair for pair in self.pairs if pair[1] != member]

    @invariant()
    def agrees(self) -> None:
        table = self.table
        for room in ("a", "b", "c"):
            expected = [member for name, member in self.pairs if name == room]
            assert list(table.snapshot(room).members) == expected
            assert table.count(room) == len(expected)
        assert sorted(table.names()) == sorted({room for room, _ in self.pairs})
        assert set(table.snapshot(None).members) == {member for _, member in self.pairs}
        assert len(table.snapshot(None).members) == table.connections
        assert table.registrations == len(self.pairs)


Membership.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None, database=None)
TestMembership = Membership.TestCase


def test_snapshot_is_current_until_one_of_its_rooms_changes() -> None:
    table: RoomTable[str] = RoomTable()
    for room, member in (("a", "ada"), ("b", "bob"), ("b", "ada"), ("c", "eve")):
        table.join(room, member)
    one, all_of_them, several = table.snapshot("a"), table.snapshot(None), table.snapshot(("a", "b"))
    assert one.current
    assert all_of_them.current
    assert several.current
    table.leave("b", "ada")
    assert one.current
    assert all_of_them.current  # she is still in a room
    assert not several.current
    again = table.snapshot(("a", "b"))
    table.snapshot(("a", "c"))
    assert not again.current  # only the last one is kept up to date
    table.join("a", "eve")
    assert not one.current
    assert table.snapshot("a").current
    table.leave("c", "eve")
    table.leave("a", "eve")
    assert not all_of_them.current
    assert not table.snapshot("nowhere").current
