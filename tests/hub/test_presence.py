"""Tests of presence: users of members, the connections of a user, and their disconnection."""

from __future__ import annotations

import json
import time
from collections import Counter

import jwt
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

import plumews
from plumews import CloseCode, Hub, HubConfig, HubFull, RoomPresence, SimpleRoomAuth, UserInfo, UserPresence
from plumews.hub.presence import PresenceIndex, check_user_id
from plumews.hub.rooms import RoomTable
from support.fakes import ticks
from support.members import PlainMember, crowd, joined
from support.raw_client import Wire, text

ANN, BOB = UserInfo("ann", "Ann"), UserInfo("bob", "Bob")


class Place:
    """Rooms with users, and the reported changes. The time is the number of the call."""

    def __init__(self) -> None:
        self.table: RoomTable[int] = RoomTable()
        self.told: list[tuple[str, str, str]] = []
        self.people: PresenceIndex[int] = PresenceIndex(self.table.rooms_of)
        self.people.watchers = self  # type: ignore[assignment]
        self.now = 0

    def note(self, room: str, user: UserInfo, *, present: bool) -> None:
        self.told.append(("came" if present else "went", room, user.id))

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


def test_user_with_many_connections_is_present_once(place):
    for member in (1, 2, 3):
        place.join("chat", member, ANN)
    place.join("chat", 4, BOB)
    assert place.presence("chat") == RoomPresence((UserPresence("ann", ANN, 3, 1), UserPresence("bob", BOB, 1, 4)))
    assert place.told == [("came", "chat", "ann"), ("came", "chat", "bob")]
    assert place.people.members("ann") == (1, 2, 3)


def test_user_is_present_until_its_last_connection_leaves(place):
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
def test_connections_without_user_id_are_anonymous(place, nobody):
    for member in (1, 2):
        place.join("chat", member, nobody)
    place.join("chat", 3, ANN)
    assert (place.presence("chat").anonymous, len(place.presence("chat").users)) == (2, 1)
    place.leave("chat", 3)
    assert place.presence("chat") == RoomPresence((), 2)
    assert place.is_empty()


def test_rooms_have_their_own_presence(place):
    place.join("chat", 1, ANN)
    place.join("news", 1, ANN)
    place.join("news", 2, ANN)
    place.leave("chat", 1)
    assert place.presence("chat").users == ()
    assert [user.connections for user in place.presence("news").users] == [2]
    assert place.people.members("ann") == (1, 2)
    assert place.told == [("came", "chat", "ann"), ("came", "news", "ann"), ("went", "chat", "ann")]


def test_join_again_changes_no_presence(place):
    place.join("chat", 1, ANN)
    before = place.presence("chat")
    place.join("chat", 1, ANN)
    assert place.presence("chat") == before
    assert len(place.told) == 1


def test_presence_shows_user_of_newest_connection(place):
    older, newer = UserInfo("ann", "Ann", roles=("user",)), UserInfo("ann", "Ann", roles=("admin",))
    place.join("chat", 1, older)
    place.join("chat", 2, newer)
    assert [entry.user.roles for entry in place.presence("chat").users] == [("admin",)]
    place.join("chat", 1, UserInfo("ann", "Anna"))
    assert [entry.user.name for entry in place.presence("chat").users] == ["Anna"]
    assert place.told == [("came", "chat", "ann")]


def test_changed_user_of_connection_counts_in_all_rooms(place):
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
def test_user_id_of_other_types_raises_type_error(user_id):
    with pytest.raises(TypeError, match=f"a user id must be a str, not {type(user_id).__name__}"):
        check_user_id(user_id)


def test_empty_user_id_raises_value_error():
    assert check_user_id("ann") == "ann"
    with pytest.raises(ValueError, match="a user id must not be empty"):
        check_user_id("")


# --- model ----------------------------------------------------------------------------------------

USERS = [None, UserInfo(), ANN, UserInfo("ann", "Anna"), BOB]


class Presence(RuleBasedStateMachine):
    """Presence beside a list of rooms, members and users."""

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


# --- users of a hub -------------------------------------------------------------------------------


ANN, BOB = UserInfo("ann", "Ann"), UserInfo("bob", "Bob")


def member(hub: Hub, user: UserInfo | None, *rooms: str) -> PlainMember:
    member = PlainMember()
    member.user_info = user
    for room in rooms:
        hub.join(room, member)
    return member


# --- connections ----------------------------------------------------------------------------------


async def test_connections_of_lists_each_connection_once():
    hub = Hub()
    one, two = member(hub, ANN, "chat", "news"), member(hub, ANN, "sport")
    member(hub, BOB, "chat")
    member(hub, None, "chat")
    assert hub.connections_of("ann") == [one, two]
    assert hub.connections_of("nobody") == []
    hub.leave("chat", one)
    assert hub.connections_of("ann") == [one, two]
    hub.leave("news", one)
    assert hub.connections_of("ann") == [two]
    two.end()
    await ticks()
    assert hub.connections_of("ann") == []


async def test_connections_of_omits_non_members():
    hub = Hub(HubConfig(max_connections=1))
    member(hub, BOB, "chat")
    member(hub, ANN)
    with pytest.raises(HubFull):
        member(hub, ANN, "chat")
    assert hub.connections_of("ann") == []


async def test_connections_of_finds_user_after_join_again():
    hub = Hub()
    conn = member(hub, None, "chat", "news")
    conn.user_info = ANN
    assert hub.connections_of("ann") == []
    hub.join("chat", conn)
    assert hub.connections_of("ann") == [conn]
    assert [user.id for user in hub.presence("news").users] == ["ann"]


@pytest.mark.parametrize(("user_id", "error"), [(None, TypeError), (7, TypeError), ("", ValueError)])
async def test_invalid_user_id_is_refused_by_all_methods(user_id, error):
    hub = Hub()
    conn = member(hub, None, "chat")
    for ask in (hub.connections_of, hub.disconnect_user, lambda user_id: hub.send_to_user(user_id, "x")):
        with pytest.raises(error, match="a user id must"):
            ask(user_id)
    assert not conn.closed
    assert hub.metrics().broadcasts_total == 0


# --- disconnect_user ------------------------------------------------------------------------------


async def test_disconnect_user_closes_connections_of_that_user_only(start):
    hub = Hub()
    async with crowd(start, 4) as (conns, wires):
        for conn, user in zip(conns, (ANN, ANN, BOB, None), strict=True):
            conn.user_info = user
            hub.join("chat", conn)
        conns[0].send_nowait("first")
        assert hub.disconnect_user("ann", 4001, "banned") == 2
        assert await wires[0].message() == "first"
        assert [await wire.closing() for wire in wires[:2]] == [(4001, "banned")] * 2
        for wire, conn in zip(wires[:2], conns[:2], strict=True):
            wire.writer.close()
            await conn.wait_closed()
        assert hub.members("chat") == conns[2:]
        assert hub.disconnect_user("ann") == 0
        hub.broadcast_room("chat", "still here")
        assert [await wire.message() for wire in wires[2:]] == ["still here"] * 2


async def test_disconnect_user_closes_with_1008_by_default(start):
    hub = Hub()
    async with crowd(start, 1) as ((conn,), (wire,)):
        conn.user_info = ANN
        hub.join("chat", conn)
        assert hub.disconnect_user("ann") == 1
        assert await wire.closing() == (CloseCode.POLICY_VIOLATION, "")


async def test_disconnect_user_follows_earlier_broadcasts(start, sliced):
    hub = Hub()
    joined(hub, "chat", 300)
    async with crowd(start, 1) as ((conn,), (wire,)):
        conn.user_info = ANN
        hub.join("chat", conn)
        assert hub.broadcast_room("chat", "last words").pending
        assert hub.disconnect_user("ann") == 1
        assert await wire.message() == "last words"
        assert (await wire.closing())[0] == CloseCode.POLICY_VIOLATION


async def test_disconnect_user_does_not_count_closing_connections():
    hub = Hub()
    conns, _ = joined(hub, "chat", 3)
    for conn in conns:
        conn.user_info = ANN
        hub.join("chat", conn)
    conns[1].close_nowait()
    assert hub.disconnect_user("ann") == 2
    assert hub.disconnect_user("ann") == 0


@pytest.mark.parametrize(("code", "reason"), [(1005, ""), (999, ""), (1008, "x" * 124)])
async def test_disconnect_user_with_invalid_code_closes_nobody(code, reason):
    hub = Hub()
    conn = member(hub, ANN, "chat")
    with pytest.raises(ValueError, match="close"):
        hub.disconnect_user("ann", code, reason)
    assert not conn.closed


# --- presence -------------------------------------------------------------------------------------


async def test_room_server_knows_users_by_their_tokens(start):
    hub, secret, began = Hub(), b"s3cret" * 8, time.time()
    server = await start(plumews.serve_rooms(hub, SimpleRoomAuth(secret), "127.0.0.1", 0))

    async def enter(claims: dict[str, str]) -> Wire:
        bearer = f"Authorization: Bearer {jwt.encode(claims, secret, algorithm='HS256')}"
        wire = await Wire.open(server, "/ws?room=chat", *([bearer] if claims else []))
        wire.send(text("hello"))
        assert await wire.message() == "hello"
        return wire

    async with await enter({"sub": "u1", "name": "Ann"}) as one, await enter({"name": "no id"}):
        async with await enter({"sub": "u1", "name": "Ann"}):
            (user,) = hub.presence("chat").users
            assert (user.id, user.user.name, user.connections) == ("u1", "Ann", 2)
            assert began <= user.since <= time.time()
            assert hub.presence("chat").anonymous == 1
        assert hub.send_to_user("u1", json.dumps({"direct": True})).matched in (1, 2)
        while (message := await one.message()) == "hello":  # from members that came later
            pass
        assert json.loads(message) == {"direct": True}
    assert hub.presence("nowhere") == RoomPresence()
