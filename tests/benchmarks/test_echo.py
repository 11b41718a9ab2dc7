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
from bench.echo import scenarios
from bench.echo.contenders import Contender
from bench.echo.measure import count_calls
from bench.harness.rounds import Results
from bench.harness.running import Load
from bench.harness.tools import available, build_counter, build_load

import plumews

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
