"""bench.door measures connects with hooks and with compression on every library."""

from __future__ import annotations

import pytest
from bench.door import connects
from bench.door.connects import CONTENDERS, NAMES, SCENARIOS, Contender
from bench.door.scenario import Scenario
from bench.door.servers import COMPRESSION, HEADER, HOOKS, VALUE, VARIABLE
from bench.harness.document import Cells, samples_of
from bench.harness.rounds import Results, reading_of
from bench.harness.running import Load, Server
from bench.harness.tools import available, build_load
from bench.instructions.lockstep import Client

pytestmark = pytest.mark.skipif(not available(), reason="needs Linux and a C compiler")


@pytest.fixture(scope="module")
def load(tmp_path_factory: pytest.TempPathFactory) -> Load:
    return Load(build_load(tmp_path_factory.mktemp("load")))


@pytest.mark.parametrize("what", [HOOKS, COMPRESSION])
@pytest.mark.parametrize("contender", CONTENDERS, ids=lambda one: one.name)
def test_connects_of_every_library_are_measured(
    contender: Contender, what: str, load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not contender.installed:
        pytest.skip(f"{contender.name} needs what is not installed")
    heads: list[bytes] = []
    receive = Client._receive

    def noting(client: Client) -> bytes:
        heads.append(receive(client))
        return heads[-1]

    monkeypatch.setattr(Client, "_receive", noting)
    with Server(contender, load, {VARIABLE: what}) as server:
        server.wait_ready()
        output = load.run(server, "connects", warmup=0.01, seconds=0.1, **connects.words_of(what))
        Client(server.port, offer=connects.OFFER).say_goodbye()
    reading = reading_of(output)
    assert output["done"] > 0
    assert 0 < reading["p50"] <= reading["p99"]
    assert output["agreed"].startswith("permessage-deflate" if what == COMPRESSION else "")
    answer = b"".join(heads).lower()
    assert (f"{HEADER}: {VALUE}".lower().encode() in answer) is (what == HOOKS)
    assert (b"permessage-deflate" in answer) is (what == COMPRESSION)


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda one: one.name)
def test_table_has_all_contenders_and_their_instructions(scenario: Scenario) -> None:
    results = Results()
    for contender in CONTENDERS:
        reading = {"cpu": 1.0, "seconds": 1.0, "p50": 0.1, "p99": 0.2, "held": 0.0}
        reading |= {"instructions": 1000.0} if contender.counted else {}
        results.readings.setdefault(scenario.name, {})[contender.name] = [reading] * 2
    table = scenario.table(Cells(scenario.name, samples_of(results), list(results.readings[scenario.name])))
    assert {line[0] for line in table.lines} == {contender.name for contender in CONTENDERS}
    assert all(len(line) == len(table.headings) + 1 for line in table.lines)
    place = table.headings.index("instructions each")
    assert {line[1 + place] for line in table.lines} == {"1,000", ""}


def test_scenarios_are_named_by_what_the_handshake_does() -> None:
    assert [scenario.name for scenario in SCENARIOS] == list(NAMES.values())
