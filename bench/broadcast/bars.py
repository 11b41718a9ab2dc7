"""The bars that the hub has to clear, as data, and what they are held to: uvloop against uvloop.

Bars are the codec's kind (``bench.codec.bars``): contests are named by scenario and figure, see :func:`samples`. Where
a bar is a number and no peer, the number takes part as a contender. That nothing is lost is no figure of its own: a
run in which a member does not get each message once, whole and in order, fails, and its bars are not measured.
"""

from __future__ import annotations

from ..codec.bars import Bar, cheaper
from ..codec.measure import Samples
from ..harness.document import add_numbers, cheapest, figure, samples_of
from ..harness.rounds import Results
from .contenders import BARE, CLOSE, DROP, PICOWS, PLUMEWS, RAW, SOCKETIFY
from .scenarios import BESIDE, CHURN_NAME, LARGE, MEMORY, ONE, SILENT, SIXTEEN, Row, beside

#: The cheaper of those that send the same bytes and do nothing else.
LOOP = "the cheaper loop"
LOOPS = (BARE, RAW)
POLICIES = {"block": PLUMEWS, "drop": DROP, "close": CLOSE}
#: A queue holds 64 messages (``limits.QUEUE_SIZE``): 64 bytes each, a header, and what Python needs to keep them.
QUEUE_BYTES = 64 * 256
#: Numbers that take part: publishes, bytes for a member, seconds.
NUMBERS = {"one": 1.0, "its queue's bound": float(QUEUE_BYTES), "20 ms": 0.02}


def all_reading(name: str) -> str:
    """A contender in the run without members that never read."""
    return f"{name}, all reading"


def cpu(row: Row, peer: str, limit: float, *, aside: bool = False) -> Bar:
    """CPU a delivery at most so many times that of ``peer``."""
    return Bar(row.name, f"CPU, beside {peer}", figure(row.name, "cpu"), PLUMEWS, peer, "time", limit, aside=aside)


def silent(row: Row, policy: str) -> tuple[Bar, ...]:
    """Goals for the cost of members that never read, for the other members, under each send behavior."""
    ours = POLICIES[policy]
    wanted = (
        ("CPU beside all reading", "cpu", all_reading(ours), 1.1),
        ("p99 beside all reading", "p99", all_reading(ours), 1.5),
        ("publishes for one that the others got", "asked", "one", 1),
    )
    return tuple(
        Bar(
            row.name,
            f"{policy}, {text}",
            figure(row.name, what),
            ours,
            peer,
            "time",
            limit,
        )
        for text, what, peer, limit in wanted
    )


def memory(policy: str) -> Bar:
    """Goals for the memory of a member that never reads."""
    text, bound = f"{policy}, beside its queue's bound", "its queue's bound"
    return Bar(MEMORY, text, figure(MEMORY, "bytes"), POLICIES[policy], bound, "time", 1)


BARS: tuple[Bar, ...] = (
    cpu(ONE, PICOWS, 0.95),
    cpu(ONE, LOOP, 1.15),
    *(cpu(ONE, loop, 1.15, aside=True) for loop in LOOPS),
    cpu(SIXTEEN, PICOWS, 0.12),
    cpu(SIXTEEN, SOCKETIFY, 1.0),
    cpu(LARGE, PICOWS, 1.0),
    *(bar for row in SILENT for policy in ("drop", "close", "block") for bar in silent(row, policy)),
    *(memory(policy) for policy in ("drop", "close", "block")),
    cheaper(
        CHURN_NAME, "publishes for one that all others got, in order", figure(CHURN_NAME, "asked"), "one", 1, PLUMEWS
    ),
    *(cheaper(beside(row), "p99, beside 20 ms", figure(beside(row), "p99"), "20 ms", 1, PLUMEWS) for row in BESIDE),
)


def cheaper_loop(found: Samples) -> str | None:
    """Which of the loops it is, if any was measured."""
    return cheapest(found.get(figure(ONE.name, "cpu"), {}), LOOPS)


def samples(results: Results) -> Samples:
    """The readings as contests, with the numbers, the cheaper loop, and the runs without those that never read."""
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
    loop = cheaper_loop(found)
    if loop is not None:
        contest = found[figure(ONE.name, "cpu")]
        contest[LOOP] = contest[loop]
    add_numbers(found, NUMBERS)
    return found
