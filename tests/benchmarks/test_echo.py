"""The load generator of bench.echo takes a right echo and no other, and the counter of system calls counts.

A load generator that takes any answer makes every figure of ``python -m bench.echo`` worthless.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from bench.codec.verdicts import judge
from bench.echo import measure, scenarios
from bench.echo.bars import BARS, samples
from bench.echo.contenders import CALLBACK, CONTENDERS, RAW, Contender
from bench.echo.measure import count_calls
from bench.echo.report import facts, tables
from bench.echo.scenarios import CONNECTS, COUNTED, IDLE, MOSTLY_IDLE, ROWS, TLS, calls_in
from bench.harness import certificate
from bench.harness.rounds import CALLS, Results
from bench.harness.running import Load, Server
from bench.harness.tools import available, build_counter, build_load, has_openssl

import plumews
from support.fakes import tls_contexts

pytestmark = pytest.mark.skipif(not available(), reason="needs Linux and a C compiler")


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    """One loop is enough: it is the load that is tested."""
    return "asyncio", {"use_uvloop": False}


@pytest.fixture(scope="module")
def load(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_load(tmp_path_factory.mktemp("load"))


async def put(load: Path, server: plumews.Server, mode: str, *words: str) -> subprocess.CompletedProcess[str]:
    """A short run against a server in this process."""
    command = [load, mode, "--port", str(server.port), "--warmup", "0.01", "--seconds", "0.05", *words]
    return await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, timeout=20)


def answering(answer: Callable[[plumews.Conn, str | bytes], None]) -> plumews.Serving:
    return plumews.serve(on_message=answer, host="127.0.0.1", port=0)


@pytest.mark.parametrize(
    "words",
    [
        ("echo", "--in-flight", "64", "--connections", "3"),
        ("echo", "--size", "100000", "--in-flight", "3"),  # answered in fragments
        ("connects", "--connections", "5"),
        ("echo", "--connections", "2", "--idle", "30"),
    ],
)
async def test_what_is_right_is_measured(start: Any, load: Path, words: tuple[str, ...]) -> None:
    server = await start(answering(lambda conn, message: conn.send_nowait(message)))
    done = await put(load, server, *words)
    assert (done.returncode, done.stderr) == (0, "")
    result = json.loads(done.stdout)
    assert result["done"] > 0
    assert 0 < result["p50"] <= result["p99"]


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda message: message[:-1] + bytes([message[-1] ^ 1]), id="last bit"),
        pytest.param(lambda message: message[:-1], id="shorter"),
        pytest.param(lambda message: message + b"!", id="longer"),
        pytest.param(lambda message: "x" * len(message), id="text"),
        pytest.param(lambda message: bytes(len(message)), id="another message"),
    ],
)
@pytest.mark.parametrize("size", ["32", "70000"])
async def test_what_is_wrong_is_noticed(start: Any, load: Path, spoil: Callable[[bytes], Any], size: str) -> None:
    count = 0

    def answer(conn: plumews.Conn, message: str | bytes) -> None:
        nonlocal count
        count += 1
        assert isinstance(message, bytes)
        conn.send_nowait(spoil(message) if count == 5 else message)

    server = await start(answering(answer))
    done = await put(load, server, "echo", "--size", size, "--in-flight", "2")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("wrong echo")


def test_message_costs_one_receive_one_send_one_loop_iteration(load: Path, tmp_path: Path) -> None:
    row, contender, results = scenarios.ONE_CALL, Contender("plumews_callback", "asyncio", "plumews"), Results()
    count_calls(results, Load(load), build_counter(tmp_path), contender, {scenarios.calls_in(row)})
    assert results.notes == []
    (reading,) = results.readings[scenarios.calls_in(row)][contender.name]
    # a hundredth is for what began before the window and ended in it
    assert [reading[what] for what in ("receives", "sends", "waits")] == pytest.approx([1, 1, 1], abs=0.01)


async def test_connects_fail_where_nothing_is_agreed_on(start: Any, load: Path) -> None:
    server = await start(answering(lambda conn, message: None))
    done = await put(load, server, "connects", "--offer", "permessage-deflate")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("no upgrade: nothing agreed of permessage-deflate")


# --- TLS --------------------------------------------------------------------------------------------

over_tls = pytest.mark.skipif(not has_openssl(), reason="needs OpenSSL's headers")


def secured(answer: Callable[[plumews.Conn, str | bytes], None]) -> plumews.Serving:
    return plumews.serve(on_message=answer, host="127.0.0.1", port=0, ssl=tls_contexts()[0])


@over_tls
@pytest.mark.parametrize("words", [("--in-flight", "16"), ("--size", "100000", "--in-flight", "5")])
async def test_what_is_right_over_tls_is_measured(start: Any, load: Path, words: tuple[str, ...]) -> None:
    server = await start(secured(lambda conn, message: conn.send_nowait(message)))
    done = await put(load, server, "echo", "--tls", "--connections", "3", *words)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["done"] > 0


@over_tls
async def test_what_is_wrong_over_tls_is_noticed(start: Any, load: Path) -> None:
    server = await start(secured(lambda conn, message: conn.send_nowait(bytes(len(message)))))
    done = await put(load, server, "echo", "--tls")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("wrong echo")


@over_tls
async def test_server_without_tls_is_noticed(start: Any, load: Path) -> None:
    server = await start(answering(lambda conn, message: conn.send_nowait(message)))
    done = await put(load, server, "echo", "--tls")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("no TLS")


@over_tls
@pytest.mark.parametrize("contender", [one for one in CONTENDERS if one.tls], ids=lambda one: one.name)
def test_contender_speaks_tls_with_a_certificate(contender: Contender, load: Path, tmp_path: Path) -> None:
    if not contender.installed:
        pytest.skip(f"{contender.name} needs what is not installed")
    with Server(contender, Load(load), certificate.environment(tmp_path)) as server:
        server.wait_ready()
        assert Load(load).run(server, "echo", tls=True, warmup=0.01, seconds=0.05)["done"] > 0


# --- bars and tables --------------------------------------------------------------------------------


def measured(scale: float = 1.0) -> Results:
    """Readings of everybody in every scenario: peers cost 1, ours so many times what each bar allows, at most."""
    results = Results()
    for name in (*(row.name for row in (*ROWS, *TLS, MOSTLY_IDLE)), CONNECTS):
        for contender in CONTENDERS:
            cheap = 0.05 * scale if contender.ours else 1.0
            reading = {"cpu": cheap, "seconds": cheap, "p50": cheap, "p99": cheap, "busy": 0.5, "held": 0.0}
            if contender.counted:
                reading["instructions"] = 4000 * scale
            results.readings.setdefault(name, {})[contender.name] = [reading] * 3
        results.readings[name][RAW] = [results.readings[name][RAW][0] | {"cpu": 0.02}] * 3
    for contender in CONTENDERS:
        grown = 4000.0 * scale if contender.ours else 20_000.0
        results.readings.setdefault(IDLE, {})[contender.name] = [{"bytes": grown}] * 3
        for row in COUNTED:
            calls = dict.fromkeys(CALLS, 1.0) | {"receives": 1.0, "sends": scale, "waits": scale}
            results.readings.setdefault(calls_in(row), {})[contender.name] = [calls]
    return results


def test_goals_are_met_by_good_figures_and_missed_by_bad_ones() -> None:
    good = judge(samples(measured()), BARS)
    assert len(good) == len(BARS)
    assert [verdict.bar.text for verdict in good if not verdict.met] == []
    bad = judge(samples(measured(50)), BARS)
    assert {verdict.bar.text.partition(",")[0] for verdict in bad if verdict.met} == {"receives"}


def test_every_scenario_has_a_table_of_all_contenders() -> None:
    results = measured()
    found = {table.name: table for table in tables(results, samples(results))}
    assert set(found) == set(scenarios.NAMES)
    for table in found.values():
        assert {line[0] for line in table.lines} == set(results.readings[table.name])
        assert all(len(line) == len(table.headings) + 1 for line in table.lines)
    table = found[ROWS[0].name]
    assert {line[0]: line for line in table.lines}[CALLBACK][1 + table.headings.index("instructions each")] == "4,000"


def test_idle_connections_are_fewer_where_descriptors_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure.resource, "getrlimit", lambda which: (64, 4096))
    allowed = 4096 - measure.SPARE - MOSTLY_IDLE.connections
    assert measure.possible_idle(9_900) == allowed
    assert measure.possible_idle(100) == 100
    assert any(f"{allowed:,} idle; not 9,900, for RLIMIT_NOFILE" in line for line in facts(measure.FULL, {}))
    monkeypatch.setattr(measure.resource, "getrlimit", lambda which: (64, measure.resource.RLIM_INFINITY))
    assert measure.possible_idle(9_900) == 9_900
