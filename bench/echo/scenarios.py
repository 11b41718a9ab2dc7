"""Scenarios of the echo benchmark, as data."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Row:
    """Messages of ``size`` bytes, so many on the way on each of so many connections.

    ``idle`` further connections are silent.
    """

    size: int
    in_flight: int
    connections: int
    idle: int = 0
    tls: bool = False

    @property
    def name(self) -> str:
        units = ((1 << 20, "MiB"), (1 << 10, "KiB"), (1, "B"))
        unit, word = next((unit, word) for unit, word in units if self.size >= unit)
        prefix = "TLS, " if self.tls else ""
        idle = f", beside {self.idle:,} idle" if self.idle else ""
        return f"{prefix}{self.size // unit} {word}, {self.in_flight} x {self.connections}{idle}"


MANY_SMALL, SMALL, ALONE, LARGE, HUGE = ROWS = (
    Row(32, 64, 10),
    Row(1024, 16, 20),
    Row(32, 1, 50),
    Row(64 * 1024, 4, 10),
    Row(1024 * 1024, 1, 4),
)

#: The same over TLS.
TLS = TLS_ALONE, TLS_SMALL, TLS_LARGE = tuple(replace(row, tls=True) for row in (ALONE, SMALL, LARGE))
#: 10,000 connections, of which 100 are busy.
MOSTLY_IDLE = Row(32, 1, 100, idle=9_900)

CONNECTS = "connects"
IDLE = "idle connections"
ONE_CALL, BATCH_CALLS = COUNTED = (Row(32, 1, 1), Row(32, 64, 10))


def calls_in(row: Row) -> str:
    """The name of the scenario that counts system calls."""
    return f"system calls, {row.name}"


#: All of them, by name, in the order of the report.
NAMES: tuple[str, ...] = (
    *(row.name for row in ROWS),
    CONNECTS,
    *(row.name for row in TLS),
    MOSTLY_IDLE.name,
    IDLE,
    *(calls_in(row) for row in COUNTED),
)
