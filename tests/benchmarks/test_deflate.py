"""The load of bench.deflate takes what was sent, compressed as agreed, and nothing else; its bars can be missed.

The server of these tests is the ``websockets`` package's, because it lets its extension be spoiled. A load generator
that takes any answer makes every figure of ``python -m bench.deflate`` worthless.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import subprocess
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from bench.codec.verdicts import judge
from bench.deflate import messages
from bench.deflate.bars import BARS, NUMBERS, RIVALS, best_peer, samples
from bench.deflate.contenders import CONTENDERS, EQUALS, PEERS, Contender
from bench.deflate.measure import Deflating, memory, prepare, run
from bench.deflate.report import tables
from bench.deflate.scenarios import ECHOES, IDLE, NAMES, OFFER, Broadcast, Echo
from bench.harness.rounds import Results
from bench.harness.running import Failed, Server
from bench.harness.tools import available
from websockets.asyncio.server import ServerConnection, serve
from websockets.extensions.permessage_deflate import ServerPerMessageDeflateFactory
from websockets.frames import Frame

pytestmark = [pytest.mark.skipif(not available(), reason="needs Linux and a C compiler"), pytest.mark.peer]

Encode = Callable[[Frame], Frame]
Handler = Callable[[ServerConnection], Awaitable[None]]


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    """One loop is enough: it is the load that is tested."""
    return "asyncio", {"use_uvloop": False}


@pytest.fixture(scope="module")
def deflating(tmp_path_factory: pytest.TempPathFactory) -> Deflating:
    return prepare(tmp_path_factory.mktemp("load"))


class Factory(ServerPerMessageDeflateFactory):
    """Agrees to what is offered; ``spoil`` gets each frame and what makes a right one of it."""

    def __init__(self, bits: int = 12, spoil: Callable[[Frame, Encode], Frame] | None = None) -> None:
        super().__init__(True, True, bits, 12, {"memLevel": 5})
        self.spoil = spoil

    def process_request_params(self, params: Any, accepted_extensions: Any) -> Any:
        agreed, extension = super().process_request_params(params, accepted_extensions)
        if self.spoil is not None:
            encode, spoil = extension.encode, self.spoil
            extension.encode = lambda frame: encode(frame) if frame.opcode >= 8 else spoil(frame, encode)  # type: ignore[method-assign]
        return agreed, extension


async def echo(connection: ServerConnection) -> None:
    async for message in connection:
        await connection.send(message)


@contextlib.asynccontextmanager
async def server(handler: Handler = echo, factory: Factory | None = None) -> AsyncIterator[int]:
    """Its port."""
    extensions = [factory] if factory is not None else None
    async with serve(handler, "127.0.0.1", 0, compression=None, extensions=extensions) as serving:
        yield next(iter(serving.sockets)).getsockname()[1]


async def put(deflating: Deflating, port: int, mode: str, *words: str) -> subprocess.CompletedProcess[str]:
    """A short run against a server in this process."""
    command = [
        deflating.load.path,
        mode,
        "--port",
        str(port),
        "--warmup",
        "0.01",
        "--seconds",
        "0.05",
        "--offer",
        OFFER,
    ]
    command += ["--messages", deflating.messages, "--answers", deflating.answers, *words]
    return await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, timeout=20)


# --- the messages -----------------------------------------------------------------------------------


def test_messages_are_distinct_compressible_json_of_one_size() -> None:
    made = messages.messages()
    assert len(set(made)) == messages.COUNT
    assert {len(message) for message in made} == {messages.SIZE}
    assert [json.loads(message)["sequence"] for message in made] == list(range(100_000, 100_000 + messages.COUNT))
    assert 0.35 < sum(len(messages.deflate(message)) for message in made) / (messages.COUNT * messages.SIZE) < 0.65


@pytest.fixture
def answers(tmp_path: Path) -> Callable[..., Path]:
    """Writes what a load would have got."""

    def write(*pairs: tuple[int, bytes]) -> Path:
        path = tmp_path / "answers"
        path.write_bytes(b"".join(n.to_bytes(4, "big") + len(data).to_bytes(4, "big") + data for n, data in pairs))
        return path

    return write


def test_answers_of_any_compressor_are_taken(answers: Callable[..., Path]) -> None:
    first, second = messages.messages()[:2]
    fast = zlib.compressobj(1, zlib.DEFLATED, -15)
    other = (fast.compress(first) + fast.flush(zlib.Z_FULL_FLUSH))[:-4]
    payloads = [messages.deflate(first), other, messages.deflate(second)]
    checked = messages.check(answers((0, payloads[0]), (0, payloads[1]), (1, payloads[2])))
    assert checked.messages == 2
    assert checked.size == sum(map(len, payloads)) / 3


@pytest.mark.parametrize(
    ("number", "payload", "error"),
    [
        pytest.param(1, messages.deflate(messages.messages()[0]), "answer to message 1 is another", id="another"),
        pytest.param(0, messages.deflate(messages.messages()[0] + b" "), "is another message", id="longer"),
        pytest.param(0, b"\xff" * 30, "answer to message 0 does not inflate", id="no DEFLATE"),
        pytest.param(0, messages.deflate(messages.messages()[0])[:-9], "message 0", id="cut"),
        pytest.param(0, b"", "is another message", id="empty"),
    ],
)
def test_answers_that_are_wrong_are_noticed(
    answers: Callable[..., Path], number: int, payload: bytes, error: str
) -> None:
    with pytest.raises(messages.WrongAnswer, match=error):
        messages.check(answers((number, payload)))


def test_no_answer_at_all_is_noticed(answers: Callable[..., Path]) -> None:
    with pytest.raises(messages.WrongAnswer, match="no answer was kept"):
        messages.check(answers())


# --- the load: echo ---------------------------------------------------------------------------------


async def test_a_right_echo_is_measured_and_all_of_it_kept(deflating: Deflating) -> None:
    async with server(factory=Factory()) as port:
        done = await put(deflating, port, "echo", "--in-flight", "64", "--connections", "3")
    assert (done.returncode, done.stderr) == (0, "")
    result = json.loads(done.stdout)
    assert result["done"] > 0
    assert "server_max_window_bits=12" in result["agreed"]
    checked = messages.check(deflating.answers)
    assert checked.messages >= 64  # a connection begins with as many, each of them another one
    assert checked.size == pytest.approx(
        sum(len(messages.deflate(one)) for one in messages.messages()) / 1024, rel=0.05
    )


async def test_an_answer_in_fragments_is_taken(deflating: Deflating) -> None:
    async def handler(connection: ServerConnection) -> None:
        async for message in connection:
            await connection.send([message[:100], message[100:]])

    async with server(handler, Factory()) as port:
        done = await put(deflating, port, "echo", "--in-flight", "4")
    assert (done.returncode, done.stderr) == (0, "")
    assert messages.check(deflating.answers).messages >= 4


def fifth(spoil: Callable[[Frame, Encode], Frame]) -> Factory:
    """The fifth frame is spoiled, and no other."""
    count = 0

    def counting(frame: Frame, encode: Encode) -> Frame:
        nonlocal count
        count += 1
        return spoil(frame, encode) if count == 5 else encode(frame)

    return Factory(spoil=counting)


def replaced(frame: Frame, **fields: Any) -> Frame:
    return dataclasses.replace(frame, **fields)


@pytest.mark.parametrize(
    ("spoil", "error"),
    [
        pytest.param(lambda frame, encode: frame, "message 4 is not compressed", id="not compressed"),
        pytest.param(lambda frame, encode: replaced(encode(frame), rsv2=True), "reserved bits", id="RSV2"),
        pytest.param(lambda frame, encode: replaced(encode(frame), opcode=2), "opcode 2", id="binary"),
        pytest.param(lambda frame, encode: replaced(encode(frame), data=b"x" * 5000), "5000 bytes", id="too long"),
    ],
)
async def test_frames_that_are_wrong_end_the_run(
    deflating: Deflating, spoil: Callable[[Frame, Encode], Frame], error: str
) -> None:
    async with server(factory=fifth(spoil)) as port:
        done = await put(deflating, port, "echo", "--in-flight", "2")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("wrong echo")
    assert error in done.stderr


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda frame, encode: encode(replaced(frame, data=bytes(frame.data)[:-1])), id="shorter"),
        pytest.param(lambda frame, encode: encode(replaced(frame, data=messages.messages()[9])), id="another"),
        pytest.param(lambda frame, encode: replaced(encode(frame), data=b"\xff" * 99), id="no DEFLATE"),
    ],
)
async def test_what_does_not_inflate_to_the_message_is_noticed(
    deflating: Deflating, spoil: Callable[[Frame, Encode], Frame]
) -> None:
    async with server(factory=fifth(spoil)) as port:
        done = await put(deflating, port, "echo", "--in-flight", "2")
    assert (done.returncode, done.stderr) == (0, "")
    with pytest.raises(messages.WrongAnswer, match="answer to message 4 "):
        messages.check(deflating.answers)


async def test_what_is_wrong_the_second_time_only_is_noticed(deflating: Deflating) -> None:
    """Each message was answered rightly before: a check of the first answers alone would not see it."""
    count = 0

    def spoil(frame: Frame, encode: Encode) -> Frame:
        nonlocal count
        count += 1
        return encode(replaced(frame, data=messages.messages()[0]) if count == messages.COUNT + 8 else frame)

    async with server(factory=Factory(spoil=spoil)) as port:
        done = await put(deflating, port, "echo", "--in-flight", "256", "--seconds", "0.8")
    assert (done.returncode, done.stderr) == (0, "")
    assert count > messages.COUNT + 8
    with pytest.raises(messages.WrongAnswer, match="answer to message 7 "):
        messages.check(deflating.answers)


async def test_context_kept_against_the_agreement_is_noticed(deflating: Deflating) -> None:
    compressor = zlib.compressobj(6, zlib.DEFLATED, -12, 5)

    def keeping(frame: Frame, encode: Encode) -> Frame:
        data = compressor.compress(bytes(frame.data)) + compressor.flush(zlib.Z_SYNC_FLUSH)
        return replaced(encode(frame), data=data[:-4])

    async with server(factory=Factory(spoil=keeping)) as port:
        done = await put(deflating, port, "echo", "--in-flight", "2")
    assert (done.returncode, done.stderr) == (0, "")
    with pytest.raises(messages.WrongAnswer, match="answer to message"):
        messages.check(deflating.answers)


async def test_who_agrees_to_nothing_is_not_measured(deflating: Deflating) -> None:
    async with server(factory=None) as port:
        done = await put(deflating, port, "echo")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("no upgrade: nothing agreed of permessage-deflate")


# --- the load: broadcast ----------------------------------------------------------------------------


def room(choose: Callable[[int, Any], list[Any]]) -> Handler:
    """``choose`` says what the member that came first gets for publish ``number``; the others get what was sent."""
    members: list[ServerConnection] = []
    number = 0

    async def handler(connection: ServerConnection) -> None:
        nonlocal number
        assert connection.request is not None
        if connection.request.path == "/":
            members.append(connection)
            await connection.wait_closed()
            return
        async for message in connection:
            for one in choose(number, message):
                await members[0].send(one)
            for member in members[1:]:
                await member.send(message)
            number += 1

    return handler


#: Ends when all is published, however long a busy machine takes.
BROADCAST = ("broadcast", "--connections", "3", "--in-flight", "4", "--publishes", "40", "--seconds", "10")


async def test_a_right_broadcast_is_measured(deflating: Deflating) -> None:
    async with server(room(lambda number, message: [message]), Factory()) as port:
        done = await put(deflating, port, *BROADCAST)
    assert (done.returncode, done.stderr) == (0, "")
    result = json.loads(done.stdout)
    assert (result["published"], result["complete"], result["deliveries"]) == (40, 40, 120)
    assert messages.check(deflating.answers).messages == 40 + 1  # and what was published until everybody was there


@pytest.mark.parametrize(
    ("choose", "error"),
    [
        pytest.param(lambda number, message: [message] * (number != 20), "stalled", id="lost"),
        pytest.param(lambda number, message: [message] * (1 + (number == 40)), "more than was published", id="doubled"),
    ],
)
async def test_what_comes_too_seldom_or_too_often_ends_the_run(
    deflating: Deflating, choose: Callable[[int, Any], list[Any]], error: str
) -> None:
    async with server(room(choose), Factory()) as port:
        done = await put(deflating, port, *BROADCAST, "--stall-ms", "100")
    assert (done.returncode, done.stdout) == (1, "")
    assert error in done.stderr


async def test_a_delivery_of_another_message_is_noticed(deflating: Deflating) -> None:
    wrong = messages.messages()[3].decode()
    async with server(room(lambda number, message: [wrong if number == 20 else message]), Factory()) as port:
        done = await put(deflating, port, *BROADCAST)
    assert (done.returncode, done.stderr) == (0, "")
    with pytest.raises(messages.WrongAnswer, match="answer to message 20 is another message"):
        messages.check(deflating.answers)


# --- the contenders ---------------------------------------------------------------------------------


@contextlib.contextmanager
def started(deflating: Deflating, contender: Contender) -> Iterator[Server]:
    """Its server, in a process of its own."""
    if not contender.installed:
        pytest.skip(f"{contender.name} needs what is not installed")
    with Server(contender, deflating.load) as process:
        process.wait_ready()
        yield process


@pytest.mark.parametrize("contender", [one for one in CONTENDERS if one.ours], ids=lambda contender: contender.kind)
def test_ours_can_be_measured_as_echo_and_idle(
    deflating: Deflating, contender: Contender, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bench.deflate.measure.SETTLING", 0.02)  # rougher figures will do
    with started(deflating, contender) as process:
        if contender.takes(ECHOES[0].name):
            reading = run(deflating, process, Echo(4, 2), warmup=0.01, seconds=0.2)
            assert reading["cpu"] > 0
            assert 300 < reading["answer"] < 700
        if contender.takes(IDLE):
            assert 500 < memory(deflating, process, 300)["bytes"] < 30_000


@pytest.mark.parametrize(
    "kind",
    [
        "plumews",
        "websockets",
    ],
)
def test_a_broadcast_is_measured_if_it_is_compressed(deflating: Deflating, kind: str) -> None:
    with started(deflating, next(one for one in CONTENDERS if one.kind == kind)) as process:
        reading = run(deflating, process, Broadcast(5, 2), warmup=0.01, seconds=0.2)
    assert reading["cpu"] > 0
    assert 300 < reading["answer"] < 700


def test_other_agreement_than_in_the_table_is_a_failure(deflating: Deflating) -> None:
    contender = next(one for one in CONTENDERS if one.kind == "websockets")
    with (
        started(deflating, dataclasses.replace(contender, window_bits=11)) as process,
        pytest.raises(Failed, match=r"^websockets, uvloop: agreed to a window of 12 bits, where 11 were expected$"),
    ):
        run(deflating, process, Echo(1, 1), warmup=0.01, seconds=0.02)


@pytest.mark.parametrize(
    ("agreed", "refused"),
    [
        (OFFER, None),
        ("permessage-deflate; server_max_window_bits=12; server_no_context_takeover", None),
        ("permessage-deflate; server_no_context_takeover", "window of 15 bits"),
        ("permessage-deflate; server_no_context_takeover; server_max_window_bits=11", "window of 11 bits"),
        ("permessage-deflate; server_max_window_bits=12", "agreed to permessage-deflate; server_max"),
        ("x-other", "agreed to x-other"),
        ("", "agreed to nothing"),
    ],
)
def test_what_was_agreed_is_judged(agreed: str, refused: str | None) -> None:
    found = next(one for one in CONTENDERS if one.kind == "websockets").refuses(agreed)
    assert found is None if refused is None else refused in str(found)


def test_how_a_contender_differs_is_said() -> None:
    differs = {one.kind: one.differs for one in CONTENDERS}
    assert differs["plumews"] == differs["websockets"] == ""
    assert differs["aiohttp"] == "level 1, memory level 8"
    assert differs["socketify"] == "memory level 8, window bits 15"


# --- the bars ---------------------------------------------------------------------------------------


def measured(scale: float = 1.0) -> Results:
    """Readings of everybody in every scenario: peers cost 1, ours ``scale`` times what each bar allows, at most."""
    results = Results()
    for name in NAMES:
        for contender in CONTENDERS:
            if contender.takes(name) and name != IDLE:
                cost = 0.1 * scale if contender.ours else 1.0
                reading = {
                    "cpu": cost,
                    "seconds": 1.0,
                    "p50": 1.0,
                    "p99": 1.0,
                    "busy": 0.5,
                    "held": 0.0,
                    "answer": 500.0,
                }
            elif contender.takes(name):
                reading = {"bytes": NUMBERS["8 KiB"] / 2 * (scale if contender.ours else 1.0), "answer": 500.0}
            else:
                continue
            results.readings.setdefault(name, {})[contender.name] = [reading] * 3
    return results


def test_goals_are_met_by_good_figures_and_none_by_bad_ones() -> None:
    good = judge(samples(measured()), BARS)
    assert len(good) == len(BARS) == 10
    assert [verdict.bar.text for verdict in good if not verdict.met] == []
    assert [verdict.bar.text for verdict in judge(samples(measured(20)), BARS) if verdict.met] == []


@pytest.mark.parametrize("scenario", RIVALS)
def test_the_best_peer_is_the_cheapest_of_those_that_may_be(scenario: str) -> None:
    assert RIVALS[scenario] == (EQUALS if scenario in {row.name for row in ECHOES} else PEERS)
    for name in RIVALS[scenario]:
        results = measured()
        by_contender = results.readings[scenario]
        by_contender[name] = [reading | {"cpu": 0.5} for reading in by_contender[name]]
        by_contender["socketify"] = [reading | {"cpu": 0.01} for reading in by_contender["socketify"]]
        found = samples(results)
        assert best_peer(found, scenario) == name


def test_every_measured_scenario_has_a_table_of_all_libraries() -> None:
    results = measured()
    found = tables(results, samples(results))
    assert [table.name for table in found] == list(NAMES)
    for table in found:
        assert {line[0] for line in table.lines} == set(results.readings[table.name])
        assert all(len(line) == len(table.headings) + 1 for line in table.lines)
