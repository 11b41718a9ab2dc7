"""Scenario of the handshake benchmark: name, measurement of one round, goals, table, facts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ..codec.bars import Bar
from ..harness.contender import Contender
from ..harness.document import Cells, Table
from ..harness.rounds import Effort, Results
from ..harness.running import Load


@dataclass(frozen=True)
class DoorEffort(Effort):
    """And how many take part, as a share of what a scenario says: a quick look needs no crowd."""

    crowd: float


@dataclass(frozen=True)
class Scenario:
    """One module of this package each.

    ``one_round`` adds a reading for each of its contenders; ``numbers`` are those that take part in its bars.
    """

    name: str
    contenders: Sequence[Contender]
    one_round: Callable[[Results, Load, Sequence[Contender], DoorEffort], None]
    bars: Sequence[Bar]
    numbers: dict[str, float]
    table: Callable[[Cells], Table]
    facts: Callable[[DoorEffort], list[str]]
