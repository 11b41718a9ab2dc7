"""Scenarios of the client benchmark, as data."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ..echo.scenarios import Row as Messages

UWS, OWN = "uWebSockets", "our server"


@dataclass(frozen=True)
class Row:
    """Messages of ``size`` bytes there and back, so many in flight on one connection, with one of the two servers."""

    size: int
    in_flight: int = 1
    tls: bool = False
    blocking: bool = False
    server: str = UWS

    @property
    def name(self) -> str:
        words = ["blocking"] if self.blocking else []
        words.append(Messages(self.size, 1, 1, tls=self.tls).name.removesuffix(", 1 x 1"))
        words += [f"{self.in_flight} in flight"] if self.in_flight > 1 else []
        return ", ".join(words + ([OWN] if self.server == OWN else []))


SMALL, MEDIUM, PIPELINED, HUGE, TLS, TLS_MEDIUM, BLOCKING = BESIDE_UWS = (
    Row(32),
    Row(256),
    Row(32, in_flight=64),
    Row(1024 * 1024),
    Row(32, tls=True),
    Row(256, tls=True),
    Row(32, blocking=True),
)
ROWS: tuple[Row, ...] = (*BESIDE_UWS, *(replace(row, server=OWN) for row in BESIDE_UWS if row.size != MEDIUM.size))

#: So many connections of one process.
CROWD = 1000
CONNECTS, TLS_CONNECTS = CROWDS = (f"{CROWD:,} clients", f"TLS, {CROWD:,} clients")

#: All of them, by name, in the order of the report.
NAMES: tuple[str, ...] = (*(row.name for row in BESIDE_UWS), *CROWDS, *(row.name for row in ROWS if row.server == OWN))
