"""Membership without sockets: rooms, limits, names, and the rolls that broadcasts are made from."""

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
def test_a_name_of_1_to_128_bytes_of_printable_text_is_accepted(name):
    check_room_name(name)


@pytest.mark.parametrize(
    "name",
    ["", "x" * 129, "ü" * 65, "two\nlines", "nul\0", "bell\a", "turn\u202eed", "\ud800", "\x7f"],
    ids=["empty", "129 bytes", "65 characters of 2 bytes", "newline", "nul", "bell", "bidi", "surrogate", "delete"],
)
def test_any_other_name_is_refused_in_words(name):
    with pytest.raises(InvalidRoomName, match=f"invalid room name: it must be 1 to {limits.ROOM_NAME} bytes"):
        check_room_name(name)


@pytest.mark.parametrize("name", ["a", "chat.v1", "team:42_x-Y", "x" * 128, "."])
def test_the_seeds_policy_accepts_what_may_stand_in_addresses_and_log_lines(name):
    validate_room_name(name)


@pytest.mark.parametrize(
    "name",
    ["", "x" * 129, "room 7", "a/b", "caf\u00e9", "\u0430", "a\n", "\u0661", "a%20b", None, 7, b"chat"],
    ids=["empty", "129", "blank", "slash", "e acute", "cyrillic", "newline", "digit", "escape", "None", "int", "bytes"],
)
def test_the_seeds_policy_refuses_any_other_name_in_words(name):
    with pytest.raises(InvalidRoomName, match="invalid room name: it must be 1 to 128 of A-Z a-z 0-9"):
        validate_room_name(name)


@pytest.mark.parametrize("name", [None, 7, b"chat"], ids=["None", "int", "bytes"])
def test_a_name_that_is_no_str_is_refused_with_its_type(name):
    with pytest.raises(InvalidRoomName, match=f"it must be a str, not {type(name).__name__}"):
        check_room_name(name)


def test_the_table_asks_the_policy_that_it_was_given():
    def only_numbers(name: str) -> None:
        if not name.isdigit():
            raise InvalidRoomName("a room is a number here")

    table: RoomTable[str] = RoomTable(check_name=only_numbers)
    table.join("7", "ann")
    with pytest.raises(InvalidRoomName, match="a room is a number here"):
        table.join("chat", "ann")
    assert table.names() == ["7"]


# --- joining and leaving --------------------------------------------------------------------------


def test_a_member_is_in_the_rooms_that_it_joined_and_not_in_those_it_left():
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


def test_joining_twice_counts_once():
    table: RoomTable[str] = RoomTable()
    assert table.join("chat", "ann")
    assert not table.join("chat", "ann")
    assert (table.count("chat"), table.registrations, table.connections) == (1, 1, 1)


def test_leaving_where_one_is_not_changes_nothing():
    table: RoomTable[str] = RoomTable()
    table.join("chat", "ann")
    assert not table.leave("chat", "bob")
    assert not table.leave("news", "ann")
    assert not table.leave("news", "bob")
    assert table.remove("bob") == []
    assert (table.count("chat"), table.registrations, table.connections) == (1, 1, 1)


def test_a_room_exists_while_it_has_members():
    table: RoomTable[str] = RoomTable()
    assert table.names() == []
    table.join("chat", "ann")
    table.join("chat", "bob")
    table.leave("chat", "ann")
    assert table.names() == ["chat"]
    table.leave("chat", "bob")
    assert table.names() == []
    assert (table.registrations, table.connections) == (0, 0)


def test_removing_a_member_takes_it_out_of_every_room_and_names_them():
    table: RoomTable[str] = RoomTable()
    for room in ("chat", "news", "sport"):
        table.join(room, "ann")
    table.join("news", "bob")
    assert table.remove("ann") == ["chat", "news", "sport"]
    assert table.names() == ["news"]
    assert not table.is_member(None, "ann")
    assert table.is_member(None, "bob")


def test_questions_about_what_is_unknown_have_empty_answers():
    table: RoomTable[str] = RoomTable()
    assert table.count("chat") == 0
    assert table.snapshot("chat").members == ()
    assert table.snapshot(None).members == ()
    assert table.rooms_of("ann") == []


# --- limits ---------------------------------------------------------------------------------------


def state(table: RoomTable[int]) -> object:
    rooms = {name: table.snapshot(name).members for name in table.names()}
    return rooms, table.snapshot(None).members, table.registrations, table.connections


def test_the_connection_limit_holds_at_n_and_refuses_n_plus_1():
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


def test_the_connection_limit_counts_a_member_once_however_many_rooms_it_is_in():
    table: RoomTable[int] = RoomTable(max_connections=1)
    table.join("chat", 1)
    table.join("news", 1)
    assert (table.connections, table.registrations) == (1, 2)
    with pytest.raises(HubFull):
        table.join("chat", 2)


def test_the_room_limit_holds_at_n_and_refuses_n_plus_1_in_that_room_only():
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


def test_the_limit_of_rooms_for_one_member_holds_at_n_and_refuses_n_plus_1():
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


def test_a_member_is_in_100_rooms_at_most_unless_told_otherwise():
    table: RoomTable[int] = RoomTable()
    for room in range(limits.ROOMS_PER_CONNECTION):
        table.join(f"room {room}", 1)
    with pytest.raises(TooManyRooms):
        table.join("one more", 1)


def test_a_limit_of_0_is_none():
    table: RoomTable[int] = RoomTable(max_connections=0, max_room_connections=0, max_rooms_per_connection=0)
    for room in range(limits.ROOMS_PER_CONNECTION + 1):
        table.join(f"room {room}", 1)
    for member in range(1000):
        table.join("chat", member)
    assert table.count("chat") == 1000


def test_joining_again_at_every_limit_is_harmless():
    table: RoomTable[int] = RoomTable(max_connections=1, max_room_connections=1, max_rooms_per_connection=1)
    assert table.join("chat", 1)
    assert not table.join("chat", 1)


def test_a_full_hub_is_told_before_a_full_room():
    table: RoomTable[int] = RoomTable(max_connections=1, max_room_connections=1)
    table.join("chat", 1)
    with pytest.raises(HubFull):
        table.join("chat", 2)


def test_a_bad_name_is_told_before_a_full_hub():
    table: RoomTable[int] = RoomTable(max_connections=1)
    table.join("chat", 1)
    with pytest.raises(InvalidRoomName):
        table.join("", 2)


# --- rolls ----------------------------------------------------------------------------------------


def test_a_roll_lists_members_in_the_order_in_which_they_joined():
    table: RoomTable[str] = RoomTable()
    for member in ("cid", "ann", "bob"):
        table.join("chat", member)
    table.leave("chat", "cid")
    table.join("chat", "cid")
    assert table.snapshot("chat").members == ("ann", "bob", "cid")


def test_the_roll_of_everybody_has_each_member_once():
    table: RoomTable[str] = RoomTable()
    table.join("chat", "ann")
    table.join("chat", "bob")
    table.join("news", "ann")
    table.join("news", "cid")
    assert table.snapshot(None).members == ("ann", "bob", "cid")


def test_a_roll_does_not_change_when_the_room_does():
    table: RoomTable[str] = RoomTable()
    table.join("chat", "ann")
    before, everybody = table.snapshot("chat"), table.snapshot(None)
    table.join("chat", "bob")
    table.leave("chat", "ann")
    assert before.members == everybody.members == ("ann",)
    assert table.snapshot("chat").members == table.snapshot(None).members == ("bob",)


def test_all_who_ask_between_two_changes_share_one_roll():
    table: RoomTable[str] = RoomTable()
    table.join("chat", "ann")
    chat, everybody = table.snapshot("chat"), table.snapshot(None)
    table.join("news", "ann")  # neither of the two is changed by this
    assert table.snapshot("chat") is chat
    assert table.snapshot(None) is everybody
    table.leave("chat", "ann")
    assert table.snapshot("chat") is not chat
    assert table.snapshot(None) is everybody


def test_the_roll_of_several_rooms_has_each_member_once_in_the_order_of_the_rooms():
    table: RoomTable[str] = RoomTable()
    for room, members in {"chat": ("ann", "bob"), "news": ("cid", "bob", "dan")}.items():
        for member in members:
            table.join(room, member)
    assert table.snapshot(("news", "chat", "nowhere")).members == ("cid", "bob", "dan", "ann")
    assert table.snapshot(("chat", "chat")).members == ("ann", "bob")
    assert table.snapshot(()).members == ()


def test_those_who_ask_for_the_same_rooms_between_two_changes_share_one_roll_and_no_more_are_kept():
    table: RoomTable[str] = RoomTable()
    table.join("chat", "ann")
    table.join("news", "bob")
    roll = table.snapshot(("chat", "news"))
    assert table.snapshot(("chat", "news")) is roll
    table.join("news", "cid")
    assert table.snapshot(("chat", "news")).members == ("ann", "bob", "cid")
    table.leave("chat", "ann")
    assert table.snapshot(("chat", "news")).members == ("bob", "cid")
    for number in range(100):
        last = table.snapshot(("news", f"room {number}"))
    assert not table._snapshots
    assert table._union == (("news", "room 99"), last)


def test_a_member_of_several_rooms_is_in_one_of_them():
    table: RoomTable[str] = RoomTable()
    table.join("chat", "ann")
    assert table.is_member(("chat", "news"), "ann")
    assert not table.is_member(("news", "sport"), "ann")
    assert not table.is_member((), "ann")
    assert not table.is_member(("chat",), "bob")


def test_a_roll_knows_where_a_member_stands():
    table: RoomTable[str] = RoomTable()
    for member in ("ann", "bob"):
        table.join("chat", member)
    roll = table.snapshot("chat")
    assert [roll.position(member) for member in ("ann", "bob", "cid")] == [0, 1, -1]


def test_asking_for_rooms_that_do_not_exist_costs_no_memory():
    table: RoomTable[str] = RoomTable()
    for room in range(100):
        table.snapshot(f"room {room}")
    assert not table._snapshots


# --- all of it, against a model -------------------------------------------------------------------


class Membership(RuleBasedStateMachine):
    """The table beside the plainest thing that could be right: a list of pairs."""

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


def test_a_roll_is_current_until_anybody_of_its_rooms_comes_or_goes() -> None:
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
