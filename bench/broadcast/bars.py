"""The bars that the hub has to clear, as data, and what they are held to: uvloop against uvloop.

Bars are the codec's kind (``bench.codec.bars``): contests are named by scenario and figure, see :func:`samples`. Where
a bar is a number and no peer, the number takes part as a contender. That nothing is lost is no figure of its own: a
run in which a member does not get each message once, whole and in order, fails, and its bars are not measured.
"""

from __future__ import annotations

from ..codec.bars import Bar, cheaper
from ..codec.measure import Samples
from ..harness.document import add_numbers, figure, samples_of
from ..harness.rounds import Results
from .contenders import (
    ASYNC_FOR,
    ASYNC_FOR_CLOSE,
    ASYNC_FOR_CONFLATE,
    ASYNC_FOR_DROP,
    ASYNC_FOR_DROP_OLDEST,
    BARE,
    CLOSE,
    CONFLATE,
    DROP,
    DROP_OLDEST,
    PICOWS,
    PLUMEWS,
    RAW,
    SOCKETIFY,
)
from .scenarios import BESIDE, CHURN_NAME, LARGE, MEMORY, NAMES, ONE, SILENT, SIXTEEN, Row, beside

FORMS = {"callback": PLUMEWS, "async for": ASYNC_FOR}
POLICIES = {
    "block": PLUMEWS,
    "drop": DROP,
    "close": CLOSE,
    "drop_oldest": DROP_OLDEST,
    "conflate, without keys": CONFLATE,  # with keys not all reach members that read
}
#: The same policies by the members' form.
POLICIES_OF = {
    "callback": POLICIES,
    "async for": {
        "block": ASYNC_FOR,
        "drop": ASYNC_FOR_DROP,
        "close": ASYNC_FOR_CLOSE,
        "drop_oldest": ASYNC_FOR_DROP_OLDEST,
        "conflate, without keys": ASYNC_FOR_CONFLATE,
    },
}
ALL_READING = ", all reading"
#: A queue holds 64 messages (``limits.QUEUE_SIZE``): 64 bytes each, a header, and what Python needs to keep them.
QUEUE_BYTES = 64 * 256
#: Numbers that take part: publishes, bytes for a member, seconds, instructions.
NUMBERS = {"one": 1.0, "its queue's bound": float(QUEUE_BYTES), "20 ms": 0.02, "400": 400.0}


def all_reading(name: str) -> str:
    """A contender in the run without members that never read."""
    return name + ALL_READING


def cpu(row: Row, form: str, peer: str, limit: float, *, aside: bool = False) -> Bar:
    """CPU a delivery at most so many times that of ``peer``."""
    text = f"CPU, {form}, beside {peer.removesuffix(', uvloop')}"
    return Bar(row.name, text, figure(row.name, "cpu"), FORMS[form], peer, "time", limit, aside=aside)


def silent_cpu(row: Row, form: str, policy: str) -> Bar:
    """What members that never read cost the others, under each send behavior."""
    ours = POLICIES_OF[form][policy]
    text = f"CPU, {form}, {policy}, beside all reading"
    return Bar(row.name, text, figure(row.name, "cpu"), ours, all_reading(ours), "time", 1.1)


def silent(row: Row, policy: str) -> tuple[Bar, ...]:
    """Goals beside the cost, for members with callbacks."""
    ours = POLICIES[policy]
    wanted = (
        ("p99 beside all reading", "p99", all_reading(ours), 1.5),
        ("publishes for one that the others got", "asked", "one", 1),
    )
    return tuple(
        Bar(row.name, f"{policy}, {text}", figure(row.name, what), ours, peer, "time", limit)
        for text, what, peer, limit in wanted
    )


def memory(policy: str) -> Bar:
    """Goals for the memory of a member that never reads."""
    text, bound = f"{policy}, beside its queue's bound", "its queue's bound"
    return Bar(MEMORY, text, figure(MEMORY, "bytes"), POLICIES[policy], bound, "time", 1)


#: What a delivery may cost: the bars of the core.
COSTS: tuple[Bar, ...] = (
    *(cpu(ONE, form, peer, limit) for form in FORMS for peer, limit in ((PICOWS, 0.9), (BARE, 1.1))),
    cheaper(ONE.name, "instructions, callback, beside 400", figure(ONE.name, "instructions"), "400", 1, PLUMEWS),
    cpu(SIXTEEN, "callback", PICOWS, 0.105),
    cpu(SIXTEEN, "callback", SOCKETIFY, 1.0),
    cpu(SIXTEEN, "async for", PICOWS, 0.13),
    *(cpu(LARGE, form, PICOWS, 0.95) for form in FORMS),
    *(silent_cpu(row, form, policy) for row in SILENT for form in FORMS for policy in POLICIES),
)

#: Bars of latency, of memory, and of what reaches the members; and what explains the others.
OTHERS: tuple[Bar, ...] = (
    cpu(ONE, "callback", RAW, 1.1, aside=True),
    *(bar for row in SILENT for policy in ("drop", "close", "block") for bar in silent(row, policy)),
    *(memory(policy) for policy in ("drop", "close", "block")),
    cheaper(
        CHURN_NAME, "publishes for one that all others got, in order", figure(CHURN_NAME, "asked"), "one", 1, PLUMEWS
    ),
    *(cheaper(beside(row), "p99, beside 20 ms", figure(beside(row), "p99"), "20 ms", 1, PLUMEWS) for row in BESIDE),
)

BARS: tuple[Bar, ...] = tuple(sorted((*COSTS, *OTHERS), key=lambda bar: NAMES.index(bar.area)))


def samples(results: Results) -> Samples:
    """The readings as contests, with the numbers, and the runs without those that never read."""
    found = samples_of(results)
    for row in SILENT:
        for what in ("cpu", "p99"):
            without = found.get(figure(row.without.name, what), {})
            contest = found.get(figure(row.name, what), {})
            contest |= {
                all_reading(name): values
                for name, values in without.items()
                if name in contest and len(values) == len(contest[name])
            }
    add_numbers(found, NUMBERS)
    return found
