"""``python -m bench.conflate``: measure, print, and write bench/results/conflate.md; ``--quick`` writes nothing."""

from __future__ import annotations

import argparse
import asyncio
import statistics
from typing import Any

from plumews import limits

from ..codec import environment
from ..codec.report import columns, table
from ..codec.results import RESULTS
from . import bulk
from .measure import Scenario, measure
from .paths import NGINX

KiB = 1024
NONE: dict[str, Any] = {"unsent_bytes": None, "unanswered_bytes": None}
SETTINGS: dict[str, dict[str, Any]] = {
    "no bound": NONE,
    "unsent 16 KiB": {"unsent_bytes": limits.UNSENT_BYTES, "unanswered_bytes": None},
    "default: unanswered 128 KiB, too": {},
    "unanswered 64 KiB": {"unanswered_bytes": 64 * KiB},
    "unanswered 256 KiB": {"unanswered_bytes": 256 * KiB},
}
UNSENT: dict[str, int | None] = {"no bound": None, "16 KiB": 16 * KiB, "64 KiB": 64 * KiB, "256 KiB": 256 * KiB}
SLOW = ("40 KB/s", "path, round trip", "median age s", "oldest s", "messages/s", "KiB in our kernel", "KiB on the way")
FAST = ("as fast as it can", "path, round trip", "median age s", "oldest s", "MB/s")
BULK = ("large messages, BLOCK", "unsent_bytes", "MB/s", "CPU µs")


async def run(*, quick: bool) -> list[list[tuple[str, ...]]]:
    slow: list[tuple[str, ...]] = [SLOW]
    fast: list[tuple[str, ...]] = [FAST]
    large: list[tuple[str, ...]] = [BULK]
    for proxied in (False, True) if NGINX is not None else (False,):
        for round_trip in (0.001, 0.1):
            where = f"{'nginx' if proxied else 'direct'}, {round_trip * 1000:g} ms"
            for name, options in list(SETTINGS.items())[: 3 if quick else None]:
                got = await measure(Scenario(proxied, round_trip, slow=True), options, 4 if quick else 8)
                row = (name, where, f"{got.median:.1f}", f"{got.oldest:.1f}", f"{got.messages:.0f}")
                slow.append((*row, f"{got.held / KiB:.0f}", f"{got.on_the_way / KiB:.0f}"))
                got = await measure(Scenario(proxied, round_trip, slow=False), options, 1 if quick else 3)
                fast.append((name, where, f"{got.median:.2f}", f"{got.oldest:.2f}", f"{got.rate / 1e6:.2f}"))
    for echo in (True, False):
        for size, count in ((64 * KiB, 2000), (KiB * KiB, 200)):
            rounds = [
                [
                    await bulk.measure(size, unsent, count // (10 if quick or not echo else 1), echo=echo)
                    for unsent in UNSENT.values()
                ]
                for _ in range(1 if quick else 3)
            ]
            what = f"{'echo' if echo else f'broadcast to {bulk.MEMBERS}'} of {size // KiB} KiB"
            for place, name in enumerate(UNSENT):
                rate = statistics.median(one[place].rate for one in rounds)
                cpu = statistics.median(one[place].cpu for one in rounds)
                large.append((what, name, f"{rate:.0f}", f"{cpu:.0f}"))
    return [slow, fast, large]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.conflate", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a minute and a half; writes nothing")
    quick = parser.parse_args().quick
    tables = asyncio.run(run(quick=quick))
    print("\n\n".join("\n".join(columns(one)) for one in tables))
    if NGINX is None:
        print("nginx is not installed: nothing was measured behind it")
    if not quick:
        text = [
            "# Prices for a slow client",
            "",
            "Written by `python -m bench.conflate`; bench/README.md says how.",
            "",
        ]
        text += [f"- {line}" for line in environment.lines(("uvloop",))]
        for headings, *lines in tables:
            text += ["", *table(headings, lines)]
        (RESULTS / "conflate.md").write_text("\n".join(text) + "\n")


if __name__ == "__main__":
    main()
