"""Which users the members are: of members that are numbers, and against the plainest thing that could be right."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from plumews import RoomPresence, UserInfo, UserPresence
from plumews.hub.presence import PresenceIndex, check_user_id
from plumews.hub.rooms import RoomTable

ANN, BOB = UserInfo("ann", "Ann"), UserInfo("bob", "Bob")


class Place:
    """Rooms, who is in them, and what was told of it; the clock is the number of the call."""

    def __init__(self) -> None:
        self.table: RoomTable[int] = RoomTable()
        self.told: list[tuple[str, str, str]] = []
        self.people: PresenceIndex[int] = PresenceIndex(self.table.rooms_of)
        self.people.watchers = self  # type: ignore[assignment]
        self.now = 0

    def came(self, room: str, user: UserInfo) -> None:
        self.told.append(("came", room, user.id))

    def went(self, room: str, user: UserInfo) -> None:
        self.told.append(("went", room, user.id))

    def join(self, room: str, member: int, user: UserInfo | None) -> None:
        self.now += 1
        new = self.table.join(room, member)
        self.people.enter(room, member, user, self.now, new=new)

    def leave(self, room: str, member: int) -> None:
        self.now += 1
        if self.table.leave(room, member):
            self.people.leave(room, member)
            if not self.table.is_member(None, member):
                self.people.forget(member)

    def presence(self, room: str) -> RoomPresence:
        return self.people.presence(room, self.table.count(room))

    def is_empty(self) -> bool:
        people = self.people
        return not (people._users or people._members or people._present)


@pytest.fixture
def place() -> Place:
    return Place()


def test_a_user_is_there_once_however_many_connections_it_has(place):
    for member in (1, 2, 3):
        place.join("chat", member, ANN)
    place.join("chat", 4, BOB)
    assert place.presence("chat") == RoomPresence((UserPresence("ann", ANN, 3, 1), UserPresence("bob", BOB, 1, 4)))
    assert place.told == [("came", "chat", "ann"), ("came", "chat", "bob")]
    assert place.people.members("ann") == (1, 2, 3)


def test_a_user_goes_with_the_last_of_its_connections_and_was_there_since_the_first(place):
    place.join("chat", 1, ANN)
    place.join("chat", 2, ANN)
    place.leave("chat", 1)
    assert place.presence("chat").users == (UserPresence("ann", ANN, 1, 1),)
    assert place.told == [("came", "chat", "ann")]
    place.leave("chat", 2)
    assert place.presence("chat") == RoomPresence()
    assert place.told[1:] == [("went", "chat", "ann")]
    assert place.is_empty()


@pytest.mark.parametrize("nobody", [None, UserInfo(), UserInfo(name="Ann")], ids=["None", "empty", "no id"])
def test_connections_without_a_user_id_are_anonymous_and_only_counted(place, nobody):
    for member in (1, 2):
        place.join("chat", member, nobody)
    place.join("chat", 3, ANN)
    assert (place.presence("chat").anonymous, len(place.presence("chat").users)) == (2, 1)
    place.leave("chat", 3)
    assert place.presence("chat") == RoomPresence((), 2)
    assert place.is_empty()


def test_each_room_has_its_own_presence(place):
    place.join("chat", 1, ANN)
    place.join("news", 1, ANN)
    place.join("news", 2, ANN)
    place.leave("chat", 1)
    assert place.presence("chat").users == ()
    assert [user.connections for user in place.presence("news").users] == [2]
    assert place.people.members("ann") == (1, 2)
    assert place.told == [("came", "chat", "ann"), ("came", "news", "ann"), ("went", "chat", "ann")]


def test_joining_again_changes_nothing(place):
    place.join("chat", 1, ANN)
    before = place.presence("chat")
    place.join("chat", 1, ANN)
    assert place.presence("chat") == before
    assert len(place.told) == 1


def test_what_the_newest_connection_knows_of_a_user_counts(place):
    older, newer = UserInfo("ann", "Ann", roles=("user",)), UserInfo("ann", "Ann", roles=("admin",))
    place.join("chat", 1, older)
    place.join("chat", 2, newer)
    assert [entry.user.roles for entry in place.presence("chat").users] == [("admin",)]
    place.join("chat", 1, UserInfo("ann", "Anna"))
    assert [entry.user.name for entry in place.presence("chat").users] == ["Anna"]
    assert place.told == [("came", "chat", "ann")]


def test_a_connection_that_says_it_is_another_user_is_that_in_all_its_rooms(place):
    place.join("chat", 1, None)
    place.join("news", 1, ANN)
    assert [place.presence(room).anonymous for room in ("chat", "news")] == [0, 0]
    place.told.clear()
    place.join("sport", 1, BOB)
    assert sorted(place.told) == [
        *(("came", room, "bob") for room in ("chat", "news", "sport")),
        *(("went", room, "ann") for room in ("chat", "news")),
    ]
    assert place.people.members("ann") == ()
    assert place.people.members("bob") == (1,)
    assert place.people.is_user("bob", 1)
    place.join("sport", 1, None)
    assert [place.presence(room) for room in ("chat", "news", "sport")] == [RoomPresence((), 1)] * 3
    assert place.is_empty()


@pytest.mark.parametrize("user_id", [None, 7, b"ann"], ids=["None", "int", "bytes"])
def test_a_user_id_that_is_no_str_is_a_type_error(user_id):
    with pytest.raises(TypeError, match=f"a user id must be a str, not {type(user_id).__name__}"):
        check_user_id(user_id)


def test_an_empty_user_id_is_nobodys():
    assert check_user_id("ann") == "ann"
    with pytest.raises(ValueError, match="a user id must not be empty"):
        check_user_id("")


# --- all of it, against a model -------------------------------------------------------------------

USERS = [None, UserInfo(), ANN, UserInfo("ann", "Anna"), BOB]


class Presence(RuleBasedStateMachine):
    """The users beside a list of who is where and as whom."""

    rooms = st.sampled_from(["a", "b", "c"])
    members = st.integers(0, 4)

    def __init__(self) -> None:
        super().__init__()
        self.place = Place()
        self.pairs: list[tuple[str, int]] = []
        self.ids: dict[int, str] = {}
        self.present: dict[str, set[str]] = {"a": set(), "b": set(), "c": set()}

    @rule(room=rooms, member=members, user=st.sampled_from(USERS))
    def join(self, room: str, member: int, user: UserInfo | None) -> None:
        self.place.join(room, member, user)
        self.ids[member] = "" if user is None else user.id
        if (room, member) not in self.pairs:
            self.pairs.append((room, member))

    @rule(room=rooms, member=members)
    def leave(self, room: str, member: int) -> None:
        self.place.leave(room, member)
        self.pairs = [pair for pair in self.pairs if pair != (room, member)]

    @invariant()
    def agrees(self) -> None:
        people = self.place.people
        for room in ("a", "b", "c"):
            here = Counter(self.ids[member] for name, member in self.pairs if name == room)
            presence = self.place.presence(room)
            assert presence.anonymous == here.pop("", 0)
            assert {user.id: user.connections for user in presence.users} == here
            assert [user.since for user in presence.users] == sorted(user.since for user in presence.users)
        everybody = {member for _, member in self.pairs}
        for user in ("ann", "bob"):
            assert set(people.members(user)) == {member for member in everybody if self.ids[member] == user}
        assert set(people._users) == {member for member in everybody if self.ids[member]}

    @invariant()
    def what_was_told_leads_from_who_was_there_to_who_is(self) -> None:
        for what, room, user in self.place.told:
            assert (user in self.present[room]) is (what == "went")
            self.present[room] ^= {user}
        self.place.told.clear()
        for room, users in self.present.items():
            assert users == {user.id for user in self.place.presence(room).users}


Presence.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None, database=None)
TestPresence = Presence.TestCase
