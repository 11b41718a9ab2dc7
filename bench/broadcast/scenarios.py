"""Scenarios of the broadcast benchmark, as data."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Row:
    """Messages of ``size`` bytes to so many members, so many publishes in flight; ``silent`` members never read."""

    size: int
    members: int
    in_flight: int
    silent: int = 0

    @property
    def name(self) -> str:
        size = f"{self.size // 1024} KiB" if self.size >= 1024 else f"{self.size} B"
        beside = f", {self.silent / self.members:.0%} never read" if self.silent else ""
        return f"{size} to {self.members:,}, {self.in_flight} in flight{beside}"

    @property
    def without(self) -> Row:
        """The same with members that all read."""
        return replace(self, silent=0)


ONE, SIXTEEN, LARGE = Row(64, 1000, 1), Row(64, 1000, 16), Row(1024, 200, 1)
SILENT = ONE_SILENT, SIXTEEN_SILENT = Row(64, 1000, 1, silent=100), Row(64, 1000, 16, silent=100)
ROWS = (ONE, SIXTEEN, LARGE, *SILENT)

#: Measured in fewer rounds: the connections take longer to open than the rest.
CROWD = Row(64, 10_000, 1)

#: Members that come and go while others are broadcast to.
CHURN = Row(64, 10_000, 16)
CHURN_NAME = f"{CHURN.name}, others come and go"

#: The latency of an echo on another connection, while members are broadcast to.
BESIDE = BESIDE_ONE, BESIDE_SIXTEEN = Row(64, 10_000, 1), Row(64, 10_000, 16)

#: What members that never read cost in memory: in a process of its own, and by the same number of publishes for all.
FILLED = SIXTEEN_SILENT
MEMORY = f"memory, {FILLED.name}"

COUNTED = (ONE, SIXTEEN)


def beside(row: Row) -> str:
    """The name of the scenario in which another connection's echo is measured."""
    return f"echo beside {row.name}"


def calls_in(row: Row) -> str:
    """The name of the scenario that counts system calls."""
    return f"system calls, {row.name}"


#: All of them, by name, in the order of the report.
NAMES: tuple[str, ...] = (
    *(row.name for row in ROWS),
    MEMORY,
    CROWD.name,
    CHURN_NAME,
    *(beside(row) for row in BESIDE),
    *(calls_in(row) for row in COUNTED),
)
