"""The bars that the servers have to clear, as data, and what they are held to: uvloop against uvloop.

Bars are the codec's kind (``bench.codec.bars``): contests are named by scenario and figure, see :func:`samples`. Where
a bar is a number and no peer, the number takes part as a contender: ``6 KiB``, ``one``.
"""

from __future__ import annotations

from ..codec.bars import Bar, Cost, cheaper, faster
from ..codec.measure import Samples
from ..harness.document import add_numbers, figure, samples_of
from ..harness.rounds import CALLS, Results
from .contenders import ASYNC_FOR, CALLBACK, CALLBACK_ASYNCIO, PICOWS, PICOWS_ASYNCIO, RAW
from .scenarios import (
    ALONE,
    BATCH_CALLS,
    CONNECTS,
    HUGE,
    IDLE,
    LARGE,
    MANY_SMALL,
    NAMES,
    ONE_CALL,
    ROWS,
    SMALL,
    TLS,
    Row,
    calls_in,
)

FORMS = {"callback": CALLBACK, "async for": ASYNC_FOR}
PEERS = {"raw TCP": RAW, "picows": PICOWS, "websockets": "websockets, uvloop", "aiohttp": "aiohttp, uvloop"}
#: Numbers that take part: bytes a connection, calls a message, instructions.
NUMBERS = {
    "4.5 KiB": 4.5 * 1024,
    "6 KiB": 6 * 1024.0,
    "one": 1.0,
    "5,000": 5000.0,
    "11,000": 11_000.0,
    "160,000": 160_000.0,
}


def cpu(name: str, form: str, peer: str, limit: float) -> Bar:
    """CPU a message or connect at most so many times that of ``peer``."""
    return cheaper(name, f"CPU, {form}, beside {peer}", figure(name, "cpu"), PEERS[peer], limit, FORMS[form])


def latency(row: Row, form: str) -> Bar:
    return cheaper(row.name, f"p99, {form}, beside picows", figure(row.name, "p99"), PICOWS, 1.15, FORMS[form])


def memory(text: str, form: str, peer: Cost, limit: float, less: tuple[str, ...] = ()) -> Bar:
    return cheaper(IDLE, f"{form}, {text}", figure(IDLE, "bytes"), peer, limit, (FORMS[form], *less))


def instructions(name: str, form: str, most: str) -> Bar:
    """User-space instructions at most that number."""
    text = f"instructions, {form}, beside {most}"
    return cheaper(name, text, figure(name, "instructions"), most, 1, FORMS[form])


def calls(row: Row, what: str, form: str, limit: float) -> Bar:
    scenario = calls_in(row)
    return cheaper(scenario, f"{what}, {form}", figure(scenario, what), "one", limit, FORMS[form])


SENDS_A_READ = "sends a receive"

#: What a message, a connect and a connection may cost: the bars of the core.
COSTS: tuple[Bar, ...] = (
    cpu(MANY_SMALL.name, "callback", "picows", 0.09),
    cpu(MANY_SMALL.name, "callback", "raw TCP", 5),
    cpu(MANY_SMALL.name, "async for", "picows", 0.16),
    cpu(SMALL.name, "callback", "picows", 0.2),
    cpu(SMALL.name, "async for", "picows", 0.28),
    cpu(ALONE.name, "callback", "picows", 0.95),
    cpu(ALONE.name, "async for", "picows", 1.3),
    instructions(ALONE.name, "callback", "5,000"),
    instructions(ALONE.name, "async for", "11,000"),
    cpu(LARGE.name, "callback", "picows", 0.9),
    cpu(LARGE.name, "async for", "picows", 0.95),
    cpu(HUGE.name, "callback", "picows", 0.9),
    cheaper(
        HUGE.name,
        "CPU, callback, beside picows, both on asyncio's loop",
        figure(HUGE.name, "cpu"),
        PICOWS_ASYNCIO,
        1.1,
        CALLBACK_ASYNCIO,
    ),
    cpu(HUGE.name, "async for", "picows", 0.95),
    cpu(CONNECTS, "callback", "picows", 0.8),
    cpu(CONNECTS, "async for", "picows", 1.2),
    instructions(CONNECTS, "callback", "160,000"),
    *(cpu(row.name, form, "picows", limit) for row in TLS for form, limit in (("callback", 1.1), ("async for", 1.3))),
    memory("beside 4.5 KiB", "callback", "4.5 KiB", 1),
    memory("beside 6 KiB", "async for", "6 KiB", 1),
)

#: Bars of latency, of system calls, and of the cheaper peers.
OTHERS: tuple[Bar, ...] = (
    *(latency(row, form) for row in ROWS for form in FORMS),
    *(
        faster(
            CONNECTS, f"connects per second, {form}, beside {peer}", figure(CONNECTS, "seconds"), PEERS[peer], 1, ours
        )
        for form, ours in FORMS.items()
        for peer in ("websockets", "aiohttp")
    ),
    *(memory("beside picows", form, PICOWS, 0.5) for form in FORMS),
    # a hundredth is for what began before the window and ended in it
    *(calls(ONE_CALL, what, form, 1.01) for form in FORMS for what in ("receives", "sends", "waits")),
    *(calls(BATCH_CALLS, SENDS_A_READ, form, 1.1) for form in FORMS),
)

BARS: tuple[Bar, ...] = tuple(sorted((*COSTS, *OTHERS), key=lambda bar: NAMES.index(bar.area)))


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
