"""Scenario of the handshake benchmark: name, measurement of one round, goals, table, facts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from ..codec.bars import Bar
from ..harness.contender import Contender
from ..harness.document import Cells, Table
from ..harness.rounds import Effort, Results
from ..harness.running import Load
from ..instructions.beside import Group


@dataclass(frozen=True)
class DoorEffort(Effort):
    """And how many take part, as a share of what a scenario says: a quick look needs no crowd.

    ``counts`` says whether instructions are counted.
    """

    crowd: float
    counts: bool


@dataclass(frozen=True)
class Scenario:
    """One module of this package each.

    ``one_round`` adds a reading for each of its contenders; ``numbers`` are those that take part in its bars, and
    ``counted`` is how its instructions are counted.
    """

    name: str
    contenders: Sequence[Contender]
    one_round: Callable[[Results, Load, Sequence[Contender], DoorEffort], None]
    bars: Sequence[Bar]
    numbers: dict[str, float]
    table: Callable[[Cells], Table]
    facts: Callable[[DoorEffort], list[str]]
    counted: Sequence[Group] = ()


C = TypeVar("C", bound=Contender)


def libraries(contender: type[C]) -> tuple[C, ...]:
    """Return the contenders of every scenario with clients of all libraries, as objects of the class ``contender``."""
    return (
        contender("plumews_callback", "uvloop", "plumews", counted=True),
        contender("plumews_async_for", "uvloop", "plumews", counted=True),
        contender("plumews_callback", "asyncio", "plumews", counted=True),
        contender("picows", "uvloop", "picows", counted=True),
        contender("websockets", "uvloop", "websockets"),
    )
