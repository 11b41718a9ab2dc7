"""The bars that the servers have to clear, as data, and what they are held to: uvloop against uvloop.

Bars are the codec's kind (``bench.codec.bars``): contests are named by scenario and figure, see :func:`samples`. Where
a bar is a number and no peer, the number takes part as a contender: ``6 KiB``, ``one``.
"""

from __future__ import annotations

from ..codec.bars import Bar, Cost, cheaper, faster
from ..codec.measure import Samples
from ..harness.document import add_numbers, figure, samples_of
from ..harness.rounds import CALLS, Results
from .contenders import ASYNC_FOR, CALLBACK, PICOWS, RAW
from .scenarios import ALONE, BATCH_CALLS, CONNECTS, HUGE, IDLE, LARGE, MANY_SMALL, ONE_CALL, SMALL, Row, calls_in

FORMS = {"callback": CALLBACK, "async for": ASYNC_FOR}
PEERS = {"raw TCP": RAW, "picows": PICOWS, "websockets": "websockets, uvloop", "aiohttp": "aiohttp, uvloop"}
#: Numbers that take part: bytes a connection, calls a message.
NUMBERS = {"6 KiB": 6 * 1024.0, "one": 1.0}


def cpu(row: Row, form: str, peer: str, limit: float) -> Bar:
    """CPU a message at most so many times that of ``peer``."""
    return cheaper(row.name, f"CPU, {form}, beside {peer}", figure(row.name, "cpu"), PEERS[peer], limit, FORMS[form])


def latency(row: Row, form: str) -> Bar:
    return cheaper(row.name, f"p99, {form}, beside picows", figure(row.name, "p99"), PICOWS, 1.15, FORMS[form])


def row_bars(row: Row, *costs: tuple[str, str, float]) -> tuple[Bar, ...]:
    """Goals for ``costs``, and for the latency in every row."""
    return (*(cpu(row, *cost) for cost in costs), *(latency(row, form) for form in FORMS))


def memory(text: str, form: str, peer: Cost, limit: float, less: tuple[str, ...] = ()) -> Bar:
    return cheaper(IDLE, f"{form}, {text}", figure(IDLE, "bytes"), peer, limit, (FORMS[form], *less))


def calls(row: Row, what: str, form: str, limit: float) -> Bar:
    scenario = calls_in(row)
    return cheaper(scenario, f"{what}, {form}", figure(scenario, what), "one", limit, FORMS[form])


SENDS_A_READ = "sends a receive"

BARS: tuple[Bar, ...] = (
    *row_bars(MANY_SMALL, ("callback", "picows", 0.12), ("callback", "raw TCP", 3.5), ("async for", "picows", 0.25)),
    *row_bars(SMALL, ("callback", "picows", 0.2), ("async for", "picows", 0.35)),
    *row_bars(ALONE, ("callback", "picows", 1.0), ("callback", "raw TCP", 1.1), ("async for", "picows", 1.15)),
    *row_bars(LARGE, ("callback", "picows", 0.75), ("async for", "picows", 0.85)),
    *row_bars(HUGE, ("callback", "picows", 0.9), ("async for", "picows", 0.9)),
    *(
        faster(
            CONNECTS, f"connects per second, {form}, beside {peer}", figure(CONNECTS, "seconds"), PEERS[peer], 1, ours
        )
        for form, ours in FORMS.items()
        for peer in ("websockets", "aiohttp", "picows")
    ),
    *(
        bar
        for form in FORMS
        for bar in (
            memory("beyond raw TCP, beside 6 KiB", form, "6 KiB", 1, (RAW,)),
            memory("beside picows", form, PICOWS, 0.5),
        )
    ),
    # a hundredth is for what began before the window and ended in it
    *(calls(ONE_CALL, what, form, 1.01) for form in FORMS for what in ("receives", "sends", "waits")),
    *(calls(BATCH_CALLS, SENDS_A_READ, form, 1.1) for form in FORMS),
)


def samples(results: Results) -> Samples:
    """The readings as contests, with the numbers, and with how many sends there were for a read."""
    found = samples_of(results)
    for scenario, by_contender in results.readings.items():
        for name, readings in by_contender.items():
            if set(CALLS) <= readings[0].keys():
                sends = [reading["sends"] / reading["receives"] for reading in readings]
                found.setdefault(figure(scenario, SENDS_A_READ), {})[name] = sends
    add_numbers(found, NUMBERS)
    return found
