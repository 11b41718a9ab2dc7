"""Scenarios of the deflate benchmark, as data. Messages are those of ``messages.py``, 1 KiB of JSON each."""

from __future__ import annotations

from dataclasses import dataclass

#: What the load offers (RFC 7692 section 7.1): a window of 12 bits and no context takeover, on either side.
OFFER = (
    "permessage-deflate; server_no_context_takeover; client_no_context_takeover; "
    "server_max_window_bits=12; client_max_window_bits=12"
)


@dataclass(frozen=True)
class Echo:
    """So many messages on the way on each of so many connections."""

    in_flight: int
    connections: int

    @property
    def name(self) -> str:
        return f"echo, {self.in_flight} x {self.connections}"


@dataclass(frozen=True)
class Broadcast:
    """To so many members, so many publishes in flight."""

    members: int
    in_flight: int

    @property
    def name(self) -> str:
        return f"to {self.members:,}, {self.in_flight} in flight"


ECHOES = (Echo(1, 10), Echo(64, 10))
BROADCASTS = (Broadcast(1000, 1), Broadcast(1000, 16))

#: Connections that have had one message there and back, and do nothing since.
IDLE = "idle connections"

#: All of them, by name, in the order of the report.
NAMES: tuple[str, ...] = (*(row.name for row in (*ECHOES, *BROADCASTS)), IDLE)
