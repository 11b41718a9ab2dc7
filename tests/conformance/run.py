"""Runs the Autobahn testsuite against ``echo_server.py`` and ``echo_client.py``, and holds plumews to what it finds.

``scripts/conformance`` installs the suite and calls this. A run is one echo server (a body of the codec, a loop, a way
to read) and one fuzzing client, which tries every case on it; or one fuzzing server, and an echo client that asks it
for every case. Everything stays on 127.0.0.1.
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
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any

HERE = Path(__file__).resolve().parent
BODIES = ["compiled", "pure"]
LOOPS = ["asyncio", "uvloop"]
READINGS = ["iterate", "callback", "stream", "asgi"]
#: The run in which we are the client.
CLIENT = "client"

#: The cases of each section. Known beforehand, so that a suite that was cut short does not look like one that passed.
#: 8 is not there, 11 is not written; 12 and 13 are permessage-deflate.
SECTIONS = {"1": 16, "2": 11, "3": 7, "4": 10, "5": 20, "6": 145, "7": 37, "9": 54, "10": 1, "12": 90, "13": 126}

#: Of 12 and 13 a quick run takes these of each group of eighteen: a thousand messages of 16 bytes to 4 KiB, and one
#: case of fragments. The others take the suite ten minutes.
QUICK_CASES = (1, 2, 3, 4, 5, 11)
GROUPS = {"12": 5, "13": 7}

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


def wanted(*, quick: bool) -> tuple[list[str], dict[str, int]]:
    """The cases as the suite wants to be told, and how many they are in each section."""
    cases, sections = [f"{section}.*" for section in SECTIONS], dict(SECTIONS)
    if quick:
        for section, groups in GROUPS.items():
            cases.remove(f"{section}.*")
            cases += [f"{section}.{group}.{case}" for group in range(1, groups + 1) for case in QUICK_CASES]
            sections[section] = groups * len(QUICK_CASES)
    return cases, sections


@dataclass(frozen=True)
class Run:
    """Parameters of one run."""

    body: str
    loop: str
    reading: str
    tls: bool = False

    def __str__(self) -> str:
        return f"{self.body}-{self.loop}-{self.reading}{'-tls' if self.tls else ''}"

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "PLUMEWS_PURE": "1" if self.body == "pure" else "0"}


#: One for each body of the codec, which share neither the loop nor the way to read, so that they see the most; an ASGI
#: application, and our client.
QUICK = [
    Run("compiled", "uvloop", "iterate"),
    Run("pure", "asyncio", "stream"),
    Run("compiled", "asyncio", "asgi"),
    Run("compiled", "uvloop", CLIENT),
    Run("pure", "asyncio", CLIENT),
]


@dataclass
class Outcome:
    """Result of a run: the number of each verdict, and the faults that were found."""

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


def certificate(folder: Path) -> Path:
    """Make a self-signed certificate with its key, in one file of ``folder``. Needs the command of OpenSSL."""
    key, made, both = folder / "key.pem", folder / "certificate.pem", folder / "both.pem"
    words = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=localhost"]
    try:
        subprocess.run([*words, "-keyout", key, "-out", made], check=True, capture_output=True, timeout=PATIENCE)
    except (OSError, subprocess.SubprocessError) as exc:
        raise NoRun(f"no certificate: {exc}") from exc
    both.write_bytes(made.read_bytes() + key.read_bytes())
    return both


@contextlib.asynccontextmanager
async def echo_server(run: Run, reports: Path, errors: IO[bytes]) -> AsyncIterator[int]:
    """The port of a server that is what ``run`` says. It has to live until it is told to go, and then go in peace."""
    server = await asyncio.create_subprocess_exec(
        *(sys.executable, HERE / "echo_server.py", "0", "--reading", run.reading, "--loop", run.loop),
        *(("--tls", certificate(reports)) if run.tls else ()),
        env=run.environment,
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


@contextlib.asynccontextmanager
async def wstest(mode: str, spec: dict[str, Any], options: argparse.Namespace, reports: Path) -> AsyncIterator[Any]:
    """The suite at work, as a process; it is gone afterwards."""
    cases, _ = wanted(quick=options.quick)
    spec = {"outdir": str(reports), "cases": cases, "exclude-cases": [], **spec}
    reports.joinpath("spec.json").write_text(json.dumps(spec))
    with reports.joinpath("wstest.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *(options.python27, "-E", "-s", "-W", "ignore", "-u", "-c", WSTEST, options.packages),
            *("-m", mode, "-s", reports / "spec.json", "--webport", "0"),
            stdout=log,
            stderr=asyncio.subprocess.STDOUT,
        )
        try:
            yield process
        finally:
            await end(process)


async def patiently(process: asyncio.subprocess.Process, reports: Path) -> None:
    """Wait until ``process`` has tried all cases."""
    try:
        code = await asyncio.wait_for(process.wait(), PATIENCE_OF_A_RUN)
    except asyncio.TimeoutError:
        tried = re.findall(r"test case ID (\S+)", reports.joinpath("wstest.log").read_text())
        raise NoRun(f"not done after {PATIENCE_OF_A_RUN} s; the last case: {[None, *tried][-1]}") from None
    if code or not reports.joinpath("index.json").exists():
        raise NoRun(f"there are no results, exit code {code}")


async def fuzz_server(run: Run, options: argparse.Namespace, reports: Path, errors: IO[bytes]) -> None:
    """The fuzzing client tries each case on our server."""
    async with echo_server(run, reports, errors) as port:
        spec = {"servers": [{"agent": "plumews", "url": f"{'wss' if run.tls else 'ws'}://127.0.0.1:{port}"}]}
        async with wstest("fuzzingclient", spec, options, reports) as suite:
            await patiently(suite, reports)


async def fuzz_client(run: Run, options: argparse.Namespace, reports: Path, errors: IO[bytes]) -> None:
    """Our client asks the fuzzing server for each case."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    spec = {"url": f"ws://127.0.0.1:{port}"}
    async with wstest("fuzzingserver", spec, options, reports) as suite:
        await listening(port, suite)
        client = await asyncio.create_subprocess_exec(
            *(sys.executable, HERE / "echo_client.py", str(port), "--loop", run.loop),
            env=run.environment,
            stdout=asyncio.subprocess.PIPE,
            stderr=errors,
        )
        try:
            await patiently(client, reports)
            assert client.stdout is not None
            said = (await client.stdout.read()).decode()
            if not re.search(rf"codec {run.body}, {run.loop}\S* client: ", said):
                raise NoRun(f"this is no {run}: {said.strip()}")
        finally:
            await end(client)


async def listening(port: int, suite: asyncio.subprocess.Process) -> None:
    """Wait until the fuzzing server accepts connections: it does not announce itself."""
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until and suite.returncode is None:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            await asyncio.sleep(0.1)  # another process listens, and does not announce it
        else:
            writer.close()
            return
    raise NoRun("the fuzzing server did not come up")


async def conform(run: Run, options: argparse.Namespace, turn: asyncio.Semaphore) -> Outcome:
    """One run, when it is its turn."""
    outcome = Outcome(run)
    reports = options.reports / str(run)
    async with turn:
        shutil.rmtree(reports, ignore_errors=True)
        reports.mkdir(parents=True)
        began = time.monotonic()
        index: dict[str, dict[str, Any]] = {}
        with reports.joinpath("plumews.log").open("wb") as errors:
            try:
                await (fuzz_client if run.reading == CLIENT else fuzz_server)(run, options, reports, errors)
                index = json.loads(reports.joinpath("index.json").read_text())["plumews"]
            except (NoRun, asyncio.TimeoutError) as exc:
                outcome.faults.append(str(exc) or "the echo server did not come up in time")
        outcome.seconds = time.monotonic() - began
    _, sections = wanted(quick=options.quick)
    outcome.counts, faults = judge(index, sections)
    if index or not outcome.faults:  # where nothing was run, there is no more to say
        outcome.faults += faults
    # A peer that breaks the rules is no fault of ours, so none of these cases is a reason to log anything.
    if reports.joinpath("plumews.log").stat().st_size:
        outcome.faults.append(f"plumews complained: {reports}/plumews.log")
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
    cases = sum(wanted(quick=options.quick)[1].values())
    tell(f"conformance: {len(runs)} runs of {cases} cases, {bad} not good")
    return int(bad > 0)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="scripts/conformance", description=__doc__.splitlines()[0])
    parser.add_argument(
        "--quick", action="store_true", help="a run and a client for each body of the codec; fewer cases"
    )
    parser.add_argument("--client", action="store_true", help="our client alone")
    parser.add_argument("--tls", action="store_true", help="our own server alone, over TLS")
    parser.add_argument("--body", nargs="+", choices=BODIES, default=BODIES)
    parser.add_argument("--loop", nargs="+", choices=LOOPS, default=LOOPS)
    parser.add_argument("--reading", nargs="+", choices=[*READINGS, CLIENT], default=[*READINGS, CLIENT])
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="runs at a time (default: %(default)s)")
    parser.add_argument("--python27", required=True, help=argparse.SUPPRESS)
    parser.add_argument("--packages", required=True, help=argparse.SUPPRESS)
    parser.add_argument("--reports", required=True, type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    readings = [CLIENT] if options.client else options.reading
    matrix = [Run(*each) for each in itertools.product(options.body, options.loop, readings)]
    if options.quick:
        matrix = [run for run in QUICK if run.reading == CLIENT or not options.client]
    if options.tls:
        matrix = [replace(run, tls=True) for run in matrix if run.reading not in (CLIENT, "asgi")]
    try:
        sys.exit(asyncio.run(main(matrix, options)))
    except asyncio.CancelledError:
        sys.exit("conformance: interrupted")
