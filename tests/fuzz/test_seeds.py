"""The fuzz targets of tests/fuzz without a fuzzer: every seed again, and a short dose of new inputs.

A seed is an input that was a finding once, or that stands for a row of the hostile cases (its name says which).
The dose is the same on every machine: seeds spoilt by a generator with a fixed state. ``scripts/fuzz`` is for hours.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from fuzz import TARGETS
from fuzz.material import Disagreement
from fuzz.shrink import shrink
from support.codec_bodies import BODIES

SEEDS = sorted((Path(__file__).parent / "seeds").glob("*/*"))
DOSE = 2000
PUT_IN = [b"", b"", b"\x00", b"\x7f", b"\x80", b"\xff", b"\x00\x00"]


@pytest.mark.parametrize("seed", SEEDS, ids=[f"{seed.parent.name}-{seed.name}" for seed in SEEDS])
def test_a_seed_is_told_the_same_by_both_bodies_and_all_cuts(seed: Path) -> None:
    TARGETS[seed.parent.name](seed.read_bytes())


@pytest.mark.parametrize("name", TARGETS)
def test_a_short_dose_of_spoilt_seeds_finds_no_disagreement(name: str) -> None:
    seeds = [seed.read_bytes() for seed in SEEDS if seed.parent.name == name]
    chance = random.Random(6455)
    for _ in range(DOSE):
        TARGETS[name](spoilt(chance, seeds))


def spoilt(chance: random.Random, seeds: list[bytes]) -> bytes:
    """A seed, or the ends of two, with a few bytes changed, put in or taken out."""
    one, other = chance.choice(seeds), chance.choice(seeds)
    data = bytearray(one if chance.random() < 0.6 else one[: chance.randrange(len(one) + 1)] + other[13:])
    for _ in range(chance.randrange(1, 5)):
        at = chance.randrange(len(data) + 1)
        data[at : at + chance.randrange(3)] = chance.choice(
            [b"", b"\x00", b"\x7f", b"\x80", b"\xff", chance.randbytes(1)]
        )
    return bytes(data)


@pytest.mark.parametrize("codec", BODIES, ids=lambda body: body.name)
def test_an_empty_read_judges_nothing_again(codec: Any) -> None:
    """Found by the fuzzer: a limit that was lowered inside a header was held against it, by one body."""
    parser = codec.Parser(client=False, max_size=None)
    parser.feed(b"\x82\x85")
    parser.max_size = 4
    assert parser.feed(b"") == []
    assert parser.error is None
    assert parser.buffered == 2


@pytest.mark.parametrize("codec", BODIES, ids=lambda body: body.name)
@pytest.mark.parametrize(("letter", "kind"), [("a", memoryview), ("é", bytes)])
def test_large_text_is_passed_as_a_view_if_its_memory_is_utf_8(codec: Any, letter: str, kind: type) -> None:
    """Found by the fuzzer: a text that had to be encoded came as a view of that, from one body."""
    assert [type(each) for each in codec.build_batch([(1, letter * 20_000)])] == [bytes, kind]
    assert [type(each) for each in codec.fragment(1, letter * 20_000)] == [bytes, kind]


@pytest.mark.parametrize("row", ["04", "05", "06", "07", "08", "09", "23", "25"])
def test_hostile_cases_of_the_codec_have_seeds(row: str) -> None:
    assert any(seed.name.startswith(f"row-{row}-") for seed in SEEDS)


def test_a_finding_is_cut_down_to_what_makes_it_fail() -> None:
    def target(data: bytes) -> None:
        if b"\x81" in data and data.count(7) > 1:
            raise Disagreement

    assert sorted(shrink(target, b"much before\x07\x81 and \x07 much behind")) == [7, 7, 0x81]
