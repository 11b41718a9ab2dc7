"""The load of bench.broadcast takes each delivery once, whole and in order, and no other; its bars can be missed.

A load generator that takes any delivery makes every figure of ``python -m bench.broadcast`` worthless.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from bench.broadcast.bars import BARS, NUMBERS, samples
from bench.broadcast.contenders import CONTENDERS, PLUMEWS
from bench.broadcast.measure import broadcast
from bench.broadcast.report import tables
from bench.broadcast.scenarios import BESIDE, CHURN_NAME, CROWD, MEMORY, ONE, ROWS, SILENT, Row, beside
from bench.codec.verdicts import judge
from bench.harness.rounds import Results
from bench.harness.running import Load, Server
from bench.harness.tools import available, build_load

import plumews

pytestmark = pytest.mark.skipif(not available(), reason="needs Linux and a C compiler")

Send = Callable[[plumews.Conn, bytes], None]


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    """One loop is enough: it is the load that is tested."""
    return "asyncio", {"use_uvloop": False}


@pytest.fixture(scope="module")
def load(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_load(tmp_path_factory.mktemp("load"))


def room(send: Send) -> plumews.Serving:
    """A room without a hub; ``send`` is how the member that came first gets what all get."""
    members: dict[plumews.Conn, None] = {}

    def on_open(conn: plumews.Conn) -> None:
        if conn.request.path == "/":
            members[conn] = None

    def on_message(conn: plumews.Conn, message: str | bytes) -> None:
        assert isinstance(message, bytes)
        for number, member in enumerate(members):
            with contextlib.suppress(plumews.ConnectionClosed):  # it has just gone
                if number == 0:
                    send(member, message)
                else:
                    member.send_nowait(message)

    return plumews.serve(
        on_open=on_open,
        on_message=on_message,
        on_close=lambda conn: members.pop(conn, None),
        host="127.0.0.1",
        port=0,
    )


async def put(load: Path, server: plumews.Server, *words: str) -> subprocess.CompletedProcess[str]:
    """A short run against a server in this process."""
    command = [load, "broadcast", "--port", str(server.port), "--warmup", "0.01", "--seconds", "0.05", *words]
    return await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, timeout=20)


@pytest.mark.parametrize("words", [("--in-flight", "16"), ("--size", "100000"), ("--size", "8", "--publishes", "40")])
async def test_what_is_right_is_measured(start: Any, load: Path, words: tuple[str, ...]) -> None:
    server = await start(room(lambda conn, message: conn.send_nowait(message)))
    done = await put(load, server, "--connections", "9", *words)
    assert (done.returncode, done.stderr) == (0, "")
    result = json.loads(done.stdout)
    assert 0 < result["done"] <= result["published"] == result["complete"]
    assert 0 < result["p50"] <= result["p99"]
    if "--publishes" in words:
        assert (result["published"], result["deliveries"]) == (40, 40 * 9)


async def test_members_that_come_and_go_are_counted_and_disturb_nobody(start: Any, load: Path) -> None:
    server = await start(room(lambda conn, message: conn.send_nowait(message)))
    done = await put(load, server, "--connections", "5", "--churn", "3", "--in-flight", "4", "--publishes", "300")
    assert (done.returncode, done.stderr) == (0, "")
    result = json.loads(done.stdout)
    assert result["published"] == result["complete"] == 300
    assert result["joined"] > 3
    assert result["deliveries"] > 5 * 300  # those that come and go get something, too


def spoiling(spoil: Callable[[plumews.Conn, list[bytes]], None]) -> Send:
    """Sends what it gets, until the tenth and the eleventh message are there: what is sent then is up to ``spoil``."""
    messages: list[bytes] = []

    def send(conn: plumews.Conn, message: bytes) -> None:
        messages.append(message)
        if len(messages) == 11:
            spoil(conn, messages[-2:])
        elif len(messages) != 10:
            conn.send_nowait(message)

    return send


def sending(choose: Callable[[bytes, bytes], list[bytes]]) -> Send:
    def spoil(conn: plumews.Conn, two: list[bytes]) -> None:
        for message in choose(*two):
            conn.send_nowait(message)

    return spoiling(spoil)


@pytest.mark.parametrize(
    ("choose", "error"),
    [
        pytest.param(lambda a, b: [b], "another one where", id="lost"),
        pytest.param(lambda a, b: [a, a, b], "another one where", id="doubled"),
        pytest.param(lambda a, b: [b, a], "another one where", id="reordered"),
        pytest.param(lambda a, b: [a[:-1] + bytes([a[-1] ^ 1]), b], "the bytes of message", id="last bit"),
        pytest.param(lambda a, b: [a[:-1], b], "63 bytes", id="shorter"),
        pytest.param(lambda a, b: [a + b"!", b], "65 bytes", id="longer"),
        pytest.param(lambda a, b: [a[:8] + b[8:], b], "the bytes of message", id="bytes of another"),
    ],
)
async def test_what_is_wrong_is_noticed(
    start: Any, load: Path, choose: Callable[[bytes, bytes], list[bytes]], error: str
) -> None:
    server = await start(room(sending(choose)))
    done = await put(load, server, "--connections", "3", "--size", "64", "--in-flight", "2")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("wrong delivery")
    assert error in done.stderr


async def test_nothing_wrong_is_made_of_what_is_only_late(start: Any, load: Path) -> None:
    """The same two messages in their order, both at the later time: the tests above fail for what they say."""
    server = await start(room(sending(lambda a, b: [a, b])))
    done = await put(load, server, "--connections", "3", "--size", "64", "--in-flight", "2")
    assert (done.returncode, done.stderr) == (0, "")


async def test_the_last_one_is_missed_when_it_does_not_come(start: Any, load: Path) -> None:
    server = await start(room(sending(lambda a, b: [])))
    done = await put(load, server, "--connections", "3", "--size", "64", "--stall-ms", "200")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("stalled: no delivery for 200 ms, 1 publishes in flight")


async def test_the_last_one_is_noticed_when_it_comes_twice(start: Any, load: Path) -> None:
    last = 1 + 20  # of the roll call, which needs one here, and of the run

    def send(conn: plumews.Conn, message: bytes) -> None:
        for _ in range(2 if int.from_bytes(message[:8], "big") == last - 1 else 1):
            conn.send_nowait(message)

    server = await start(room(send))
    done = await put(load, server, "--connections", "3", "--publishes", "20")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("wrong delivery")


async def test_a_gap_is_noticed_at_a_member_that_comes_and_goes(start: Any, load: Path) -> None:
    members: dict[plumews.Conn, int] = {}  # how many messages each has got

    def on_open(conn: plumews.Conn) -> None:
        if conn.request.path == "/":
            members[conn] = 0

    def on_message(conn: plumews.Conn, message: str | bytes) -> None:
        for place, member in enumerate(members):
            members[member] += 1
            if place < 2 or members[member] != 5:
                with contextlib.suppress(plumews.ConnectionClosed):  # it has just gone
                    member.send_nowait(message)

    server = await start(
        plumews.serve(
            on_open=on_open,
            on_message=on_message,
            on_close=lambda conn: members.pop(conn, None),
            host="127.0.0.1",
            port=0,
        )
    )
    done = await put(load, server, "--connections", "2", "--churn", "4", "--publishes", "500")
    assert (done.returncode, done.stdout) == (1, "")
    assert "wrong delivery: another one where number" in done.stderr


@pytest.mark.parametrize(
    "kind",
    [
        *("plumews", "plumews_drop", "plumews_close", "plumews_drop_oldest", "plumews_conflate", "bare", "raw"),
        *("plumews_async_for", "plumews_async_for_drop", "plumews_async_for_close"),
        *("plumews_async_for_drop_oldest", "plumews_async_for_conflate"),
    ],
)
def test_members_that_never_read_keep_nothing_from_the_others(load: Path, kind: str) -> None:
    contender = next(contender for contender in CONTENDERS if contender.kind == kind)
    if not contender.installed:
        pytest.skip(f"{contender.name} needs what is not installed")
    with Server(contender, Load(load)) as server:
        server.wait_ready()
        row = Row(64, 20, 16, silent=2)
        reading = broadcast(Load(load), server, row, warmup=0.01, seconds=0.05)
    assert reading["asked"] == 1
    assert reading["cpu"] > 0
    assert 0 < reading["p50"] <= reading["p99"]


# --- the bars ---------------------------------------------------------------------------------------


def measured(scale: float = 1.0) -> Results:
    """Readings of everybody in every scenario: peers cost 1, ours ``scale`` times what each bar allows, at most."""
    results = Results()
    for row in (*ROWS, CROWD):
        for contender in CONTENDERS:
            if contender.takes(row.name):
                cheap = 0.1 * scale if contender.ours else 1.0
                cheap *= 1.0 if not (row.silent and contender.ours) else scale
                reading = {"cpu": cheap, "seconds": 1.0, "p50": cheap, "p99": cheap, "busy": 0.5, "held": 0.0}
                reading |= {"asked": 1.0, "joined": 0.0}
                if contender.counted:
                    reading["instructions"] = 200 * scale
                results.readings.setdefault(row.name, {})[contender.name] = [reading] * 3
    for contender in CONTENDERS:
        if contender.takes(MEMORY):
            grown = {"bytes": NUMBERS["its queue's bound"] / 2 * scale}
            results.readings.setdefault(MEMORY, {})[contender.name] = [grown] * 3
    times = {"cpu": 1.0, "seconds": 1.0, "p50": 0.01 * scale, "p99": 0.015 * scale, "busy": 0.5, "held": 0.0}
    results.readings[CHURN_NAME] = {PLUMEWS: [times | {"asked": 1.0, "joined": 9.0}]}
    for row in BESIDE:
        results.readings[beside(row)] = {PLUMEWS: [times]}
    return results


def test_goals_are_met_by_good_figures_and_missed_by_bad_ones() -> None:
    good = judge(samples(measured()), BARS)
    assert len(good) == len(BARS)
    assert [verdict.bar.text for verdict in good if not verdict.met] == []
    bad = judge(samples(measured(20)), BARS)
    kept = {verdict.bar.text for verdict in bad if verdict.met}
    assert all("publishes for one" in text for text in kept)  # a run that loses something gives no reading at all


def test_a_run_that_failed_is_a_bar_that_is_not_met() -> None:
    results = measured()
    del results.readings[SILENT[0].name][PLUMEWS.replace("plumews", "plumews drop")]
    missing = [verdict for verdict in judge(samples(results), BARS) if not verdict.met]
    assert {verdict.words for verdict in missing} == {"not measured"}
    assert all("drop, " in verdict.bar.text for verdict in missing)
    assert len(missing) == 3


def test_every_measured_scenario_has_a_table_of_all_libraries() -> None:
    results = measured()
    for table in tables(results, samples(results)):
        assert {line[0] for line in table.lines} == set(results.readings[table.name])
        assert all(len(line) == len(table.headings) + 1 for line in table.lines)


def test_instructions_stand_beside_cpu_where_they_were_counted() -> None:
    results = measured()
    found = next(table for table in tables(results, samples(results)) if table.name == ONE.name)
    place = found.headings.index("instructions each")
    assert found.headings[place - 1] == "CPU µs each"
    assert {line[0]: line[1 + place] for line in found.lines}[PLUMEWS] == "200"
    assert {line[0]: line[1 + place] for line in found.lines}["tornado, uvloop"] == ""
    for readings in results.readings[ONE.name].values():
        for reading in readings:
            reading.pop("instructions", None)
    without = next(table for table in tables(results, samples(results)) if table.name == ONE.name)
    assert "instructions each" not in without.headings
