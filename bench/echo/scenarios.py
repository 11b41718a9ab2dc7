"""Scenarios of the echo benchmark, as data."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """Messages of ``size`` bytes, so many on the way on each of so many connections."""

    size: int
    in_flight: int
    connections: int

    @property
    def name(self) -> str:
        units = ((1 << 20, "MiB"), (1 << 10, "KiB"), (1, "B"))
        unit, word = next((unit, word) for unit, word in units if self.size >= unit)
        return f"{self.size // unit} {word}, {self.in_flight} x {self.connections}"


MANY_SMALL, SMALL, ALONE, LARGE, HUGE = ROWS = (
    Row(32, 64, 10),
    Row(1024, 16, 20),
    Row(32, 1, 50),
    Row(64 * 1024, 4, 10),
    Row(1024 * 1024, 1, 4),
)

CONNECTS = "connects"
IDLE = "idle connections"
ONE_CALL, BATCH_CALLS = COUNTED = (Row(32, 1, 1), Row(32, 64, 10))


def calls_in(row: Row) -> str:
    """The name of the scenario that counts system calls."""
    return f"system calls, {row.name}"


#: All of them, by name, in the order of the report.
NAMES: tuple[str, ...] = (*(row.name for row in ROWS), CONNECTS, IDLE, *(calls_in(row) for row in COUNTED))
