"""Runs the Autobahn testsuite against ``echo_server.py`` and ``echo_client.py``, and holds plumews to what it finds.

``scripts/conformance`` installs the suite and calls this. A run is one echo server (a body of the codec, a loop, a way
to read) and one fuzzing client, which tries every case on it; or one fuzzing server, and the echo client. Everything
stays on 127.0.0.1.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import os
import re
import shutil
import signal
import socket
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

HERE = Path(__file__).resolve().parent
BODIES = ["compiled", "pure"]
LOOPS = ["asyncio", "uvloop"]
#: The last is no server: it is the client.
READINGS = ["iterate", "callback", "stream", "client"]

#: The cases of each section. Known beforehand, so that a suite that was cut short does not look like one that passed.
#: 8 is not there, 11 is not written; 12 and 13 are permessage-deflate.
SECTIONS = {"1": 16, "2": 11, "3": 7, "4": 10, "5": 20, "6": 145, "7": 37, "9": 54, "10": 1, "12": 90, "13": 126}
CASES = sum(SECTIONS.values())

VERDICTS = ["OK", "INFORMATIONAL", "NON-STRICT", "FAILED", "MISSING"]
GOOD = {"OK", "INFORMATIONAL"}

#: Seconds for a server to come up or go away, and for all cases; far above what they take on a busy machine.
PATIENCE = 60
PATIENCE_OF_A_RUN = 1800

#: Runs under Python 2.7. The packages come before those that it may have itself; addsitedir heeds their .pth files.
WSTEST = """
import site, sys
packages = sys.argv.pop(1)
sys.path.insert(0, packages)
site.addsitedir(packages)
from autobahntestsuite import wstest
wstest.run()
"""


@dataclass(frozen=True)
class Run:
    """What is tried."""

    body: str
    loop: str
    reading: str

    def __str__(self) -> str:
        return f"{self.body}-{self.loop}-{self.reading}"


#: One for each body of the codec. They share neither the loop nor the way to read, so that two runs see the most. And
#: a client.
QUICK = [
    Run("compiled", "uvloop", "iterate"),
    Run("pure", "asyncio", "stream"),
    Run("compiled", "asyncio", "client"),
]


@dataclass
class Outcome:
    """What came of a run: how often each verdict was given, and what is wrong with it, if anything."""

    run: Run
    counts: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    seconds: float = 0.0


class NoRun(Exception):
    """The suite could not be run, or not to its end."""


def verdict(entry: Mapping[str, Any]) -> str:
    """One word for a case: the suite judges what the server did and how the connection ended, the worse one counts.

    Whatever it calls an end that is no good (UNCLEAN, WRONG CODE) is as bad as FAILED, and so is UNIMPLEMENTED.
    """
    words = {entry.get("behavior", "MISSING"), entry.get("behaviorClose", "MISSING")}
    if not words <= {*GOOD, "NON-STRICT"}:
        return "FAILED"
    return next(word for word in ("NON-STRICT", "INFORMATIONAL", "OK") if word in words)


def judge(index: Mapping[str, Mapping[str, Any]], sections: Mapping[str, int]) -> tuple[Counter[str], list[str]]:
    """The verdicts by number, and a line for every case that is no good and every section that is not whole."""
    verdicts = {case: verdict(entry) for case, entry in index.items()}
    counts = Counter(verdicts.values())
    faults = [
        f"{case}: {verdicts[case]} (behaviour {entry.get('behavior')}, close {entry.get('behaviorClose')})"
        for case, entry in sorted(index.items(), key=lambda item: [int(part) for part in item[0].split(".")])
        if verdicts[case] not in GOOD
    ]
    found = Counter(case.partition(".")[0] for case in index)
    for section in sorted({*sections, *found}, key=int):
        if found[section] != (wanted := sections.get(section, 0)):
            faults.append(f"section {section}: {found[section]} cases, not {wanted}")
            counts.update(MISSING=max(0, wanted - found[section]))
    return +counts, faults


def table(outcomes: Iterable[Outcome]) -> str:
    """A Markdown table, a row for each run."""
    head = ["codec", "loop", "reading", *VERDICTS, "cases", "seconds"]
    rows = [
        [
            *(outcome.run.body, outcome.run.loop, outcome.run.reading),
            *(outcome.counts[word] for word in VERDICTS),
            outcome.counts.total() - outcome.counts["MISSING"],
            round(outcome.seconds),
        ]
        for outcome in outcomes
    ]
    widths = [max(3, len(word)) for word in head[3:]]
    row = "| {:8} | {:7} | {:8} | " + " | ".join(f"{{:>{width}}}" for width in widths) + " |"
    rule = row.format("-" * 8, "-" * 7, "-" * 8, *("-" * (width - 1) + ":" for width in widths))
    return "\n".join([row.format(*head), rule, *(row.format(*cells) for cells in rows)])


async def end(process: asyncio.subprocess.Process) -> int:
    """Its exit code; it is told to go if it is still there, and made to if it does not."""
    for tell in (process.terminate, process.kill):
        if process.returncode is not None:
            break
        with contextlib.suppress(ProcessLookupError):
            tell()
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(process.wait(), PATIENCE)
    return await process.wait()


@contextlib.asynccontextmanager
async def echo_server(run: Run, errors: IO[bytes]) -> AsyncIterator[int]:
    """The port of a server that is what ``run`` says. It has to live until it is told to go, and then go in peace."""
    server = await asyncio.create_subprocess_exec(
        *(sys.executable, HERE / "echo_server.py", "0", "--reading", run.reading, "--loop", run.loop),
        env={**os.environ, "PLUMEWS_PURE": "1" if run.body == "pure" else "0"},
        stdout=asyncio.subprocess.PIPE,
        stderr=errors,
    )
    try:
        assert server.stdout is not None
        line = (await asyncio.wait_for(server.stdout.readline(), PATIENCE)).decode()
        said = re.fullmatch(r"plumews \S+, codec (\w+), (\w+)\S* (\w+): port (\d+)\n", line)
        if said is None:
            raise NoRun("the echo server did not come up")
        if said.groups()[:3] != (run.body, run.loop, run.reading):
            raise NoRun(f"this is no {run}: {line.strip()}")
        yield int(said[4])
        if server.returncode is not None:
            raise NoRun(f"the echo server ended, exit code {server.returncode}")
        if code := await end(server):
            raise NoRun(f"the echo server was told to go, exit code {code}")
    finally:
        await end(server)


async def start_wstest(
    mode: str, url: dict[str, Any], options: argparse.Namespace, reports: Path, log: IO[bytes]
) -> asyncio.subprocess.Process:
    """The suite as ``mode``: ``fuzzingclient`` or ``fuzzingserver``."""
    spec = {"outdir": str(reports), **url, "cases": [f"{section}.*" for section in SECTIONS], "exclude-cases": []}
    reports.joinpath("spec.json").write_text(json.dumps(spec))
    return await asyncio.create_subprocess_exec(
        *(options.python27, "-E", "-s", "-W", "ignore", "-u", "-c", WSTEST, options.packages),
        *("-m", mode, "-s", reports / "spec.json"),
        stdout=log,
        stderr=asyncio.subprocess.STDOUT,
    )


def results(reports: Path) -> dict[str, dict[str, Any]]:
    """What the suite has written."""
    if not reports.joinpath("index.json").exists():
        raise NoRun("wstest wrote no results")
    index: dict[str, dict[str, Any]] = json.loads(reports.joinpath("index.json").read_text())["plumews"]
    return index


async def fuzz_client(run: Run, options: argparse.Namespace, reports: Path, errors: IO[bytes]) -> dict[str, Any]:
    """What the fuzzing server has to say about each case that the echo client has visited."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    with reports.joinpath("wstest.log").open("wb") as log:
        wstest = await start_wstest("fuzzingserver", {"url": f"ws://127.0.0.1:{port}"}, options, reports, log)
        try:
            await listening(port)
            client = await asyncio.create_subprocess_exec(
                *(sys.executable, HERE / "echo_client.py", str(port)),
                env={**os.environ, "PLUMEWS_PURE": "1" if run.body == "pure" else "0"},
                stderr=errors,
            )
            try:
                code = await asyncio.wait_for(client.wait(), PATIENCE_OF_A_RUN)
            except asyncio.TimeoutError:
                raise NoRun(f"not done after {PATIENCE_OF_A_RUN} s") from None
            finally:
                await end(client)
            if code:
                raise NoRun(f"the echo client failed, exit code {code}")
        finally:
            await end(wstest)
    return results(reports)


async def listening(port: int) -> None:
    """Until somebody listens on ``port``."""
    until = time.monotonic() + PATIENCE
    while True:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            if time.monotonic() > until:
                raise NoRun("wstest did not come up") from None
            await asyncio.sleep(0.1)
        else:
            writer.close()
            return


async def fuzz(port: int, options: argparse.Namespace, reports: Path) -> dict[str, dict[str, Any]]:
    """What the fuzzing client has to say about each case that it tried on ``port``."""
    url = {"servers": [{"agent": "plumews", "url": f"ws://127.0.0.1:{port}"}]}
    with reports.joinpath("wstest.log").open("wb") as log:
        wstest = await start_wstest("fuzzingclient", url, options, reports, log)
        try:
            code = await asyncio.wait_for(wstest.wait(), PATIENCE_OF_A_RUN)
        except asyncio.TimeoutError:
            tried = re.findall(r"test case ID (\S+)", reports.joinpath("wstest.log").read_text())
            raise NoRun(f"not done after {PATIENCE_OF_A_RUN} s; the last case: {[None, *tried][-1]}") from None
        finally:
            await end(wstest)
    if code:
        raise NoRun(f"wstest wrote no results, exit code {code}")
    return results(reports)


async def conform(run: Run, options: argparse.Namespace, turn: asyncio.Semaphore) -> Outcome:
    """One run, when it is its turn."""
    outcome = Outcome(run)
    reports = options.reports / str(run)
    async with turn:
        shutil.rmtree(reports, ignore_errors=True)
        reports.mkdir(parents=True)
        began = time.monotonic()
        index: dict[str, dict[str, Any]] = {}
        with reports.joinpath("server.log").open("wb") as errors:
            try:
                if run.reading == "client":
                    index = await fuzz_client(run, options, reports, errors)
                else:
                    async with echo_server(run, errors) as port:
                        index = await fuzz(port, options, reports)
            except (NoRun, asyncio.TimeoutError) as exc:
                outcome.faults.append(str(exc) or "the echo server did not come up in time")
        outcome.seconds = time.monotonic() - began
    outcome.counts, faults = judge(index, SECTIONS)
    if index or not outcome.faults:  # where nothing was run, there is no more to say
        outcome.faults += faults
    # A peer that breaks the rules is no fault of the server, so none of these cases is a reason to log anything.
    if reports.joinpath("server.log").stat().st_size:
        outcome.faults.append("the echo server complained")
    tell(f"{run}: {'not good' if outcome.faults else 'ok'} ({outcome.seconds:.0f} s)")
    for fault in outcome.faults:
        tell(f"    {fault}")
    if outcome.faults:
        tell(f"    reports: {reports}/index.html")
    return outcome


def tell(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


async def main(runs: list[Run], options: argparse.Namespace) -> int:
    task = asyncio.current_task()
    assert task is not None
    for number in (signal.SIGINT, signal.SIGTERM):  # what was started does not outlive this
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    turn = asyncio.Semaphore(options.jobs)
    # All of them have ended when this has, also when one has failed or it is cancelled.
    ends = await asyncio.gather(*(conform(run, options, turn) for run in runs), return_exceptions=True)
    outcomes = []
    for each in ends:
        if isinstance(each, BaseException):
            raise each
        outcomes.append(each)
    bad = sum(bool(outcome.faults) for outcome in outcomes)
    tell(f"\n{table(outcomes)}\n")
    tell(f"conformance: {len(runs)} runs of {CASES} cases, {bad} not good")
    return int(bad > 0)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="scripts/conformance", description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one run for each body of the codec")
    parser.add_argument("--body", nargs="+", choices=BODIES, default=BODIES)
    parser.add_argument("--loop", nargs="+", choices=LOOPS, default=LOOPS)
    parser.add_argument("--reading", nargs="+", choices=READINGS, default=READINGS)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="runs at a time (default: %(default)s)")
    parser.add_argument("--python27", required=True, help=argparse.SUPPRESS)
    parser.add_argument("--packages", required=True, help=argparse.SUPPRESS)
    parser.add_argument("--reports", required=True, type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    matrix = [Run(*each) for each in itertools.product(options.body, options.loop, options.reading)]
    # The client has one loop.
    matrix = [each for each in matrix if each.reading != "client" or each.loop == options.loop[0]]
    try:
        sys.exit(asyncio.run(main(QUICK if options.quick else matrix, options)))
    except asyncio.CancelledError:
        sys.exit("conformance: interrupted")
