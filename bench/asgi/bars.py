"""The bars that our class under uvicorn has to clear, as data: uvloop against uvloop, httptools against httptools.

Bars are the codec's kind (``bench.codec.bars``): contests are named by scenario and figure. The peer of a bare
application is the cheapest of uvicorn's own classes in that scenario.
"""

from __future__ import annotations

from ..codec.bars import Bar, cheaper
from ..codec.measure import Samples
from ..harness.document import cheapest, figure, samples_of
from ..harness.rounds import Results
from .contenders import BARE, ECHO_ROWS, FASTAPI, FASTAPI_SANSIO, HUB, LOOP, OWN_CLASSES, SERVER_ROOM
from .scenarios import ALONE, CONNECTS, IDLE, LARGE, MANY_SMALL, ROOM

BEST = "uvicorn's best class"


def bar(name: str, ours: str, peer: str, limit: float) -> Bar:
    """CPU, or the memory of an idle connection, at most so many times that of ``peer``."""
    what = cost(name)
    text = f"{ours}, {'memory' if what == 'bytes' else 'CPU'}, beside {peer}"
    return cheaper(name, text, figure(name, what), peer, limit, ours)


def cost(name: str) -> str:
    """The figure that is compared in a scenario."""
    return "bytes" if name == IDLE else "cpu"


BARS: tuple[Bar, ...] = (
    bar(ALONE.name, BARE, BEST, 0.65),
    bar(MANY_SMALL.name, BARE, BEST, 0.25),
    bar(LARGE.name, BARE, BEST, 0.7),
    bar(CONNECTS, BARE, BEST, 0.6),
    bar(CONNECTS, FASTAPI, FASTAPI_SANSIO, 0.7),
    bar(IDLE, BARE, BEST, 0.7),
    bar(ROOM.name, HUB, SERVER_ROOM, 1.15),
    bar(ROOM.name, HUB, LOOP, 0.03),
)


def samples(results: Results) -> Samples:
    """The readings as contests, with the best class of uvicorn."""
    found = samples_of(results)
    for name in ECHO_ROWS:
        contest = found.get(figure(name, cost(name)), {})
        best = cheapest(contest, OWN_CLASSES)
        if best is not None:
            contest[BEST] = contest[best]
    return found
