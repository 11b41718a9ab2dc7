"""Hub against a model of it, with events chosen by hypothesis (row 27 of the hostile cases).

Connections of every behavior open, join, fill up, drain, close and vanish; messages are sent in every way; and the
callbacks of the application do the same from inside, also in the midst of a delivery. The loop turns, and its clock
moves, by rules alone, so that a failure shrinks to few steps and is reproducible. `support.hub_model.world` has the
events, `support.hub_model.record` the invariants.

For a long dose: ``PLUMEWS_HUB_EXAMPLES=10000 pytest --hypothesis-profile=search -o timeout=0`` and the name of this
file; the number is how many stories are tried (default 150).
"""

from __future__ import annotations

import gc
import os
import sys
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from plumews import SendBehavior, UserInfo, limits
from support.hub_model.world import Action, World

# --- events ---------------------------------------------------------------------------------------

WHO = st.integers(0, 5)
ROOM = st.sampled_from("abc")
ROOMS = st.sampled_from(["a", "b", "a", "c", ["a", "b"], ["b", "c"], None])
SIZE = st.sampled_from([0, 0, 0, 200, 20_000])  # the long ones leave in two buffers, or compressed in pieces
USER = st.sampled_from([None, UserInfo("ann"), UserInfo("bob")])
FULL = st.sampled_from([0, 0, 1, 2])  # after so many writes
NAME = st.sampled_from(["ann", "bob"])
SEND = (SIZE, st.none() | WHO, st.none() | st.frozensets(WHO, max_size=4), st.none() | st.integers(0, 1))
PEER = (
    st.booleans(),
    USER,
    st.fixed_dictionaries(
        {
            "send_behavior": st.sampled_from(list(SendBehavior)),
            "queue_size": st.sampled_from([1, 2, 3, 5, 64]),
            "queue_bytes": st.sampled_from([1 << 20, 30_000]),
            "send_timeout": st.sampled_from([0.05, 0, 60, None]),
            "close_timeout": st.sampled_from([10, 0.5]),
        }
    ),
    # The window of what it is sent compressed, and whether that refers to the messages before.
    st.sampled_from([None, None, (12, False), (12, False), (9, False), (12, True)]),
    st.sampled_from(["a", "ab", "b", ""]),
    st.sampled_from([0, None, 1, None]),
)
#: Actions of the application, anywhere.
ACTIONS: dict[str, tuple[st.SearchStrategy[Any], ...]] = {
    "join": (ROOM, WHO),
    "leave": (ROOM, WHO),
    "remove": (WHO,),
    "recover": (ROOM, WHO, st.booleans()),
    "cut": (WHO, st.sampled_from([1000, 3000, None])),
    "identify": (WHO, USER),
    "broadcast": (ROOMS, *SEND),
    "publish": (ROOMS, *SEND),
    "send_to_user": (NAME, SIZE, st.none() | WHO),
    "disconnect_user": (NAME, st.sampled_from([1008, 4000])),
    "direct": (WHO, SIZE),
    "send": (WHO, SIZE),
}
STOP = (st.sampled_from([5, 0.5, 0]), st.sampled_from([None, 0]), st.booleans())
ACTION = st.one_of(
    *(st.tuples(st.just(name), st.tuples(*each)) for name, each in ACTIONS.items()),
    st.tuples(st.just("shutdown"), st.tuples(*STOP)),
    st.just(("fail", ())),
)
#: Callbacks that may do it, those about members twice as often.
OF_MEMBERS = ("join", "leave")
INSIDE = st.sampled_from(
    (*OF_MEMBERS, *OF_MEMBERS, "message", "closed", "where", "slow", "drop", "gap", "encode", "count", "presence")
)
#: Events from outside.
EVENTS: dict[str, tuple[st.SearchStrategy[Any], ...]] = {
    "open": PEER,
    "crowd": (ROOM,),
    "burst": (ROOMS, st.integers(2, 6)),
    "away": (ROOM, WHO, st.integers(0, 3)),
    "peer_says": (WHO, st.integers(1, 3)),
    "end": (WHO, st.sampled_from(["close frame", "FIN", "RST"])),
    "fill": (WHO, FULL),
    "drain": (WHO,),
    "trickle": (WHO,),
}
EVERYTHING = frozenset(["slow", "drop", "gap", "encode"])
CONFIG = st.fixed_dictionaries(
    {
        "listen": st.sampled_from([EVERYTHING, EVERYTHING - {"encode"}, frozenset(["drop"]), frozenset()]),
        "history": st.sampled_from([0, 2]),
        "workers": st.integers(1, 3),
        "job_queue_size": st.sampled_from([100, 1, 2]),
        "max_connections": st.sampled_from([0, 0, 0, 3]),
        "max_room_connections": st.sampled_from([0, 0, 0, 2]),
        "max_rooms_per_connection": st.sampled_from([100, 100, 1, 2]),
        "max_queued_bytes": st.sampled_from([0, 50, 40_000]),
    }
)


def does(name: str, *arguments: st.SearchStrategy[Any]) -> Any:
    """Return the rule for the event ``name``."""

    def happens(self: Story, arguments: tuple[Any, ...]) -> None:
        with self.world.loop.within():
            self.world.do((name, arguments))

    happens.__name__ = name
    return rule(arguments=st.tuples(*arguments))(happens)


class Story(RuleBasedStateMachine):
    """One sequence of events."""

    world: World

    @initialize(
        config=CONFIG,
        peers=st.lists(st.tuples(*PEER), min_size=2, max_size=5),
        crowds=st.sampled_from(["", "a", "ab", "aa"]),
        plans=st.lists(st.tuples(INSIDE, ACTION), max_size=10),
    )
    def begin(self, config: dict[str, Any], peers: list[Any], crowds: str, plans: list[tuple[str, Action]]) -> None:
        gc.disable()  # dropped objects must be freed without the collector
        self.world = World(**config)
        with self.world.loop.within():
            self.world.open(*peers[0])
            for room in crowds:
                self.world.crowd(room)
            for peer in peers[1:]:
                self.world.open(*peer)
        for kind, action in plans:
            self.world.plans[kind].append(action)

    vars().update({_name: does(_name, *_arguments) for _name, _arguments in {**ACTIONS, **EVENTS}.items()})

    shutdown = precondition(lambda self: self.world.number > 20)(does("shutdown", *STOP))

    @rule(kind=INSIDE, action=ACTION)
    def plan(self, kind: str, action: Action) -> None:
        """Let the next callback of ``kind`` run ``action``."""
        if len(self.world.plans[kind]) < 3:
            self.world.plans[kind].append(action)

    @rule(count=st.integers(1, 3), seconds=st.sampled_from([0, 0, 0.002, 0.06, 0.2, 1, 2.1, 11, 100]))
    def turn(self, count: int, seconds: float) -> None:
        self.world.loop.now += seconds
        for _ in range(count):
            self.world.loop.turn()

    @invariant()
    def all_is_as_it_must_be(self) -> None:
        self.world.look_after_tasks()
        self.world.check()

    def teardown(self) -> None:
        if not hasattr(self, "world"):
            return
        try:
            if sys.exc_info()[0] is None:
                self.world.finish()
        finally:
            gc.enable()
            self.world.abandon()


def test_row_27_hub_stays_true_under_reentrant_callbacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "FAN_OUT_SLICE", 0.0)
    monkeypatch.setattr(limits, "COMPRESS_PIECE", 8000)
    examples = int(os.environ.get("PLUMEWS_HUB_EXAMPLES", "150"))
    run_state_machine_as_test(Story, settings=settings(max_examples=examples, stateful_step_count=50))
