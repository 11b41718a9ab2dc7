"""The bars that compression has to clear, as data, and what they are held to: uvloop against uvloop.

Bars are the codec's kind (``bench.codec.bars``): contests are named by scenario and figure, see :func:`samples`. The
best peer is the cheapest of those that have taken part, by scenario. A wrong answer ends a run, and its bars are not
measured.
"""

from __future__ import annotations

from ..codec.bars import Bar, cheaper, faster
from ..codec.measure import Samples
from ..harness.document import add_numbers, cheapest, figure, samples_of
from ..harness.rounds import Results
from .contenders import AIOHTTP, ASYNC_FOR, EQUALS, LEVEL_1, PEERS, PLUMEWS
from .scenarios import BROADCASTS, ECHOES, IDLE

BEST = "the best Python peer"
FORMS = {"callback": PLUMEWS, "async for": ASYNC_FOR}
#: Numbers that take part: bytes a connection.
NUMBERS = {"8 KiB": 8 * 1024.0}
#: Who may be the best peer, by scenario.
RIVALS = {row.name: EQUALS for row in ECHOES} | {row.name: PEERS for row in BROADCASTS}

BARS: tuple[Bar, ...] = (
    *(
        cheaper(row.name, f"CPU, {form}, beside {BEST}", figure(row.name, "cpu"), BEST, 0.8, ours)
        for row in ECHOES
        for form, ours in FORMS.items()
    ),
    *(
        cheaper(
            row.name, "CPU, callback, beside aiohttp, both at its level", figure(row.name, "cpu"), AIOHTTP, 0.8, LEVEL_1
        )
        for row in ECHOES
    ),
    *(
        faster(row.name, f"deliveries by CPU, beside {BEST}", figure(row.name, "cpu"), BEST, 8, PLUMEWS)
        for row in BROADCASTS
    ),
    *(cheaper(IDLE, f"{form}, beside 8 KiB", figure(IDLE, "bytes"), "8 KiB", 1, ours) for form, ours in FORMS.items()),
)


def best_peer(found: Samples, scenario: str) -> str | None:
    """Which one it is in ``scenario``, if any was measured."""
    return cheapest(found.get(figure(scenario, "cpu"), {}), RIVALS.get(scenario, ()))


def samples(results: Results) -> Samples:
    """The readings as contests, with the numbers and the best peers."""
    found = samples_of(results)
    for scenario in RIVALS:
        best = best_peer(found, scenario)
        if best is not None:
            contest = found[figure(scenario, "cpu")]
            contest[BEST] = contest[best]
    add_numbers(found, NUMBERS)
    return found
