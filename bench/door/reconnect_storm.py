"""Reconnect storm: all members of a room with a password come back at once, which must not cost a slow hash each.

Measured on one server, one after the other: a storm on a room without a password, and the first one on a room with
one, so that its hash is in it. What a hash costs is measured in between, on the server's core.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from plumews import limits

from ..codec.bars import cheaper
from ..harness import contender
from ..harness.document import Cells, Table, figure, micro
from ..harness.rounds import Results, all_started, each_awake
from ..harness.running import Load, Server, cores
from .crowd import crowd
from .rooms import LOCKED, OPEN, PASSWORD
from .scenario import DoorEffort, Scenario

NAME = "reconnect storm"
MEMBERS = 5000
ALLOWED = "what it may cost"


class Contender(contender.Contender):
    """A server of rooms."""

    servers: ClassVar[str] = "bench.door.rooms"


CONTENDERS = (Contender("plumews_rooms", "uvloop", "plumews"), Contender("plumews_rooms", "asyncio", "plumews"))


def cpu(server: Server) -> float:
    """Seconds of processor time that the server has taken, its threads included."""
    fields = Path(f"/proc/{server.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def at_rest(server: Server) -> float:
    """Its processor time, when it has taken none for a third of a second: what has left is out of the rooms."""
    before, now = -1.0, cpu(server)
    while now != before:
        time.sleep(0.3)
        before, now = now, cpu(server)
    return now


def storm(server: Server, room: str, count: int) -> float:
    """The processor time of the server for ``count`` members that come into ``room``.

    Raises:
        Failed: not all of them got in.
    """
    before = at_rest(server)
    with crowd(server, "bench.door.comers", str(count), room, PASSWORD, ready="in"):
        return cpu(server) - before


def one_hash() -> float:
    """The processor time of one hash."""
    usual = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {cores()[0]})
    try:
        before = time.process_time()
        hashlib.pbkdf2_hmac("sha512", PASSWORD.encode(), bytes(16), limits.PASSWORD_ROUNDS)
        return time.process_time() - before
    finally:
        os.sched_setaffinity(0, usual)


def one_round(results: Results, load: Load, contenders: Sequence[contender.Contender], effort: DoorEffort) -> None:
    """A small storm that nobody counts, one on the open room, one on the other."""
    count = max(100, round(MEMBERS * effort.crowd))
    with all_started(results, load, contenders, {NAME}) as started:
        for server in each_awake(results, NAME, started):
            with results.taking(NAME, server.contender) as take:
                storm(server, OPEN, max(100, count // 10))
                opened, hashed = storm(server, OPEN, count), one_hash()
                locked = storm(server, LOCKED, count)
                take(
                    {
                        "open": opened / count,
                        "locked": locked / count,
                        "hash": hashed,
                        "share": locked / (1.2 * opened + 10 * hashed),
                    }
                )


def table(cells: Cells) -> Table:
    """A member of each room, and the whole of it in comparison with what it may cost."""
    return Table(
        NAME,
        ("µs a member, open", "with a password", "ms a hash", "of what it may cost"),
        cells.lines(
            "share",
            lambda who: micro(cells.median("open", who)),
            lambda who: micro(cells.median("locked", who)),
            lambda who: f"{cells.median('hash', who) * 1e3:.0f}",
            lambda who: f"{cells.median('share', who):.0%}",
        ),
    )


def facts(effort: DoorEffort) -> list[str]:
    count = max(100, round(MEMBERS * effort.crowd))
    return [
        f"{NAME}: {count:,} members, {effort.rounds} rounds; allowed is 1.2 times a storm on an open room and 10 hashes"
    ]


SCENARIO = Scenario(
    name=NAME,
    contenders=CONTENDERS,
    one_round=one_round,
    bars=tuple(
        cheaper(NAME, f"server CPU of the storm, {one.name}", figure(NAME, "share"), ALLOWED, 1, one.name)
        for one in CONTENDERS
    ),
    numbers={ALLOWED: 1.0},
    table=table,
    facts=facts,
)
