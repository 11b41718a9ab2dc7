"""The bars that the client has to clear, as data.

Bars are the codec's kind (``bench.codec.bars``): contests are named by scenario and figure. All of them are beside
uWebSockets. Where a bar is a number and no peer, the number takes part as a contender: ``6 KiB``.
"""

from __future__ import annotations

from ..codec.bars import Bar, cheaper
from ..codec.measure import Samples
from ..harness.document import add_numbers, figure, samples_of
from ..harness.rounds import Results
from .contenders import (
    CALLBACK,
    CALLBACK_ASYNCIO,
    PICOWS,
    PICOWS_LOOP_TLS,
    PICOWS_WEBSOCKETS,
    RECV,
    RECV_ASYNCIO,
    SYNC,
    WEBSOCKET_CLIENT,
    WEBSOCKETS,
    WEBSOCKETS_ASYNCIO,
    WEBSOCKETS_SYNC,
)
from .scenarios import BLOCKING, CONNECTS, HUGE, MEDIUM, PIPELINED, SMALL, TLS, TLS_CONNECTS, TLS_MEDIUM

#: Numbers that take part: bytes a connection.
NUMBERS = {f"{number} KiB": number * 1024.0 for number in (6, 8, 55)}
WORDS = {"cpu": "CPU", "p50": "p50", "seconds": "time", "bytes": "memory"}


def bar(name: str, ours: str, peer: str, limit: float, what: str = "cpu") -> Bar:
    """At most so many times that of ``peer``."""
    return cheaper(name, f"{ours}, {WORDS[what]}, beside {peer}", figure(name, what), peer, limit, ours)


BARS: tuple[Bar, ...] = (
    *(
        one
        for row in (SMALL, MEDIUM)
        for one in (
            bar(row.name, CALLBACK, PICOWS, 1.05),
            bar(row.name, CALLBACK, PICOWS, 1.05, "p50"),
            bar(row.name, RECV, WEBSOCKETS, 0.4),
            bar(row.name, RECV_ASYNCIO, WEBSOCKETS_ASYNCIO, 0.4),
            bar(row.name, RECV, PICOWS_WEBSOCKETS, 1.1),
        )
    ),
    bar(PIPELINED.name, CALLBACK, PICOWS, 0.13),
    bar(HUGE.name, CALLBACK, PICOWS, 0.75),
    *(
        one
        for row in (TLS, TLS_MEDIUM)
        for one in (bar(row.name, CALLBACK, PICOWS, 1.1), bar(row.name, CALLBACK, PICOWS_LOOP_TLS, 1.25))
    ),
    *(
        bar(BLOCKING.name, SYNC, peer, limit, what)
        for peer, limit in ((WEBSOCKETS_SYNC, 0.4), (WEBSOCKET_CLIENT, 1.0))
        for what in ("seconds", "cpu")
    ),
    *(bar(CONNECTS, ours, WEBSOCKETS, 0.6) for ours in (CALLBACK, RECV)),
    *(bar(CONNECTS, ours, WEBSOCKETS_ASYNCIO, 0.7) for ours in (CALLBACK_ASYNCIO, RECV_ASYNCIO)),
    bar(CONNECTS, CALLBACK, "6 KiB", 1, "bytes"),
    bar(CONNECTS, RECV, "8 KiB", 1, "bytes"),
    *(bar(TLS_CONNECTS, ours, "55 KiB", 1, "bytes") for ours in (CALLBACK, RECV)),
)


def samples(results: Results) -> Samples:
    """The readings as contests, with the numbers that bars name."""
    found = samples_of(results)
    add_numbers(found, NUMBERS)
    return found
