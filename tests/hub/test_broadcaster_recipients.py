"""Tests of targets, recipients and keys, with plain strings as members."""

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
def test_target_of_names_one_room_or_several(given, target):
    assert target_of(given) == target


def test_target_of_copies_its_list():
    rooms = ["chat", "news"]
    target = target_of(rooms)
    rooms.clear()
    assert target == ("chat", "news")


def test_choose_shares_the_snapshot_of_a_room(table):
    chosen = choose(table, "chat", None, None)
    assert chosen.snapshot is table.snapshot("chat")
    assert (chosen.matched, chosen.exclude) == (3, None)


def test_choose_from_several_rooms_takes_each_member_once(table):
    assert choose(table, ("chat", "news", "nowhere"), None, None).snapshot.members == ("a", "b", "c", "d")
    assert choose(table, (), None, None).matched == 0


def test_choose_leaves_out_excluded_member(table):
    assert choose(table, "chat", "a", None).matched == 2
    assert choose(table, ("chat", "news"), "d", None).matched == 3
    chosen = choose(table, "chat", "e", None)
    assert (chosen.matched, chosen.exclude) == (3, None)


def test_choose_calls_where_for_members_not_excluded(table):
    asked = []

    def where(member: str) -> bool:
        asked.append(member)
        return member != "b"

    _, _, cid = table.snapshot("chat").members
    chosen = choose(table, ("chat", "news"), cid, where)
    assert (chosen.snapshot.members, chosen.exclude, chosen.matched) == (("a", "d"), None, 2)
    assert asked == ["a", "b", "d"]


def test_choose_with_where_that_changes_rooms_uses_old_members(table):
    def where(member: str) -> bool:
        table.remove(member)
        table.join("chat", member + member)
        return True

    chosen = choose(table, "chat", None, where)
    assert chosen.snapshot.members == ("a", "b", "c")
    assert not any(map(chosen.still_member, chosen.snapshot.members))


def test_choose_raises_the_exception_of_where(table):
    with pytest.raises(ZeroDivisionError):
        choose(table, "chat", None, lambda member: 1 // 0 > 0)


@pytest.mark.parametrize("where", ["admin", 7, True])
def test_choose_with_where_of_other_types_raises_type_error(table, where):
    with pytest.raises(TypeError, match="where must be a plain function"):
        choose(table, "chat", None, where)


def test_choose_refuses_where_that_is_a_coroutine_function(table):
    async def where(member: str) -> bool:
        return False

    with pytest.raises(TypeError, match="where must be a plain function"):
        choose(table, "chat", None, where)


def test_recipient_leaving_one_of_several_rooms_is_still_member(table):
    chosen = choose(table, ("chat", "news"), None, None)
    table.leave("chat", "b")
    table.leave("chat", "a")
    assert chosen.still_member("b")
    assert not chosen.still_member("a")


def test_key_of_depends_on_its_rooms():
    targets = [None, "chat", "news", ("chat", "news"), ("chat", "sport")]
    assert len({key_of(target, "key") for target in targets}) == len(targets)
    assert key_of(("chat", "news"), "key") == key_of(("news", "chat"), "key")
    assert key_of("chat", 1) != key_of("chat", 2)


class Incomparable:
    """Key whose comparison raises, and whose second hash raises."""

    def __init__(self) -> None:
        self.hashed = False

    def __hash__(self) -> int:
        if self.hashed:
            raise ValueError("no hash")
        self.hashed = True
        return 1

    def __eq__(self, other: object) -> bool:
        raise ValueError("no comparison")


def test_key_that_cannot_be_compared_differs_from_all_others():
    keys = [key_of("chat", Incomparable()) for _ in range(3)]
    assert len(set(keys)) == 3


@pytest.mark.parametrize(("one", "other"), [(Opcode.TEXT, 1), (1.0, 1), (("bid", 1), ("bid", 1.0)), (True, 1)])
def test_equal_keys_of_any_type_are_the_same(one, other):
    assert key_of("chat", one) == key_of("chat", other)
    assert key_of("chat", other) == key_of("chat", one)
    assert len({key_of("chat", one), key_of("chat", other)}) == 1


def test_unhashable_key_raises_type_error():
    with pytest.raises(TypeError, match="a key must be hashable, such as a str, not list"):
        key_of("chat", [])
