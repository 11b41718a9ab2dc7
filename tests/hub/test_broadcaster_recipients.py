"""Whom a message is for, of members that are plain names."""

from __future__ import annotations

import pytest

from plumews.constants import Opcode
from plumews.hub.broadcaster import choose, key_of, target_of
from plumews.hub.rooms import RoomTable


@pytest.fixture
def table() -> RoomTable[str]:
    table: RoomTable[str] = RoomTable()
    for room, members in {"chat": "abc", "news": "cbd", "sport": "e"}.items():
        for member in members:
            table.join(room, member)
    return table


@pytest.mark.parametrize(
    ("given", "target"),
    [
        ("chat", "chat"),
        (None, None),
        (["chat", "news"], ("chat", "news")),
        (("chat", "news"), ("chat", "news")),
        ({"chat"}, "chat"),
        (frozenset({"chat"}), "chat"),
        (["chat"], "chat"),
        ([], ()),
        ([None], (None,)),
        (7, 7),
    ],
    ids=repr,
)
def test_one_room_or_several(given, target):
    assert target_of(given) == target


def test_a_list_that_changes_afterwards_was_copied():
    rooms = ["chat", "news"]
    target = target_of(rooms)
    rooms.clear()
    assert target == ("chat", "news")


def test_everybody_in_a_room_is_chosen_without_a_new_list(table):
    chosen = choose(table, "chat", None, None)
    assert chosen.snapshot is table.snapshot("chat")
    assert (chosen.matched, chosen.exclude) == (3, None)


def test_who_is_in_several_of_the_rooms_is_chosen_once(table):
    assert choose(table, ("chat", "news", "nowhere"), None, None).snapshot.members == ("a", "b", "c", "d")
    assert choose(table, (), None, None).matched == 0


def test_one_can_be_left_out_if_it_is_there(table):
    assert choose(table, "chat", "a", None).matched == 2
    assert choose(table, ("chat", "news"), "d", None).matched == 3
    chosen = choose(table, "chat", "e", None)
    assert (chosen.matched, chosen.exclude) == (3, None)


def test_a_predicate_chooses_among_those_who_are_not_left_out(table):
    asked = []

    def where(member: str) -> bool:
        asked.append(member)
        return member != "b"

    _, _, cid = table.snapshot("chat").members
    chosen = choose(table, ("chat", "news"), cid, where)
    assert (chosen.snapshot.members, chosen.exclude, chosen.matched) == (("a", "d"), None, 2)
    assert asked == ["a", "b", "d"]


def test_a_predicate_that_changes_the_rooms_meanwhile_is_asked_about_those_who_were_there(table):
    def where(member: str) -> bool:
        table.remove(member)
        table.join("chat", member + member)
        return True

    chosen = choose(table, "chat", None, where)
    assert chosen.snapshot.members == ("a", "b", "c")
    assert not any(map(chosen.still_member, chosen.snapshot.members))


def test_what_a_predicate_raises_is_raised(table):
    with pytest.raises(ZeroDivisionError):
        choose(table, "chat", None, lambda member: 1 // 0 > 0)


@pytest.mark.parametrize("where", ["admin", 7, True])
def test_what_cannot_be_asked_is_a_type_error(table, where):
    with pytest.raises(TypeError, match="where must be a plain function"):
        choose(table, "chat", None, where)


def test_a_coroutine_function_would_choose_everybody_and_is_refused(table):
    async def where(member: str) -> bool:
        return False

    with pytest.raises(TypeError, match="where must be a plain function"):
        choose(table, "chat", None, where)


def test_who_leaves_one_of_several_rooms_is_still_meant_while_it_is_in_another(table):
    chosen = choose(table, ("chat", "news"), None, None)
    table.leave("chat", "b")
    table.leave("chat", "a")
    assert chosen.still_member("b")
    assert not chosen.still_member("a")


def test_a_key_is_one_among_those_of_its_rooms():
    targets = [None, "chat", "news", ("chat", "news"), ("chat", "sport")]
    assert len({key_of(target, "key") for target in targets}) == len(targets)
    assert key_of(("chat", "news"), "key") == key_of(("news", "chat"), "key")
    assert key_of("chat", 1) != key_of("chat", 2)


class Incomparable:
    """Its values cannot say whether they are equal, nor always what their hash is."""

    def __init__(self) -> None:
        self.hashed = False

    def __hash__(self) -> int:
        if self.hashed:
            raise ValueError("no hash")
        self.hashed = True
        return 1

    def __eq__(self, other: object) -> bool:
        raise ValueError("no comparison")


def test_a_key_that_cannot_be_compared_is_another_than_all_others():
    keys = [key_of("chat", Incomparable()) for _ in range(3)]
    assert len(set(keys)) == 3


@pytest.mark.parametrize(("one", "other"), [(Opcode.TEXT, 1), (1.0, 1), (("bid", 1), ("bid", 1.0)), (True, 1)])
def test_keys_of_any_type_are_the_same_if_they_are_equal(one, other):
    assert key_of("chat", one) == key_of("chat", other)
    assert key_of("chat", other) == key_of("chat", one)
    assert len({key_of("chat", one), key_of("chat", other)}) == 1


def test_what_cannot_be_hashed_is_no_key():
    with pytest.raises(TypeError, match="a key must be hashable, such as a str, not list"):
        key_of("chat", [])
