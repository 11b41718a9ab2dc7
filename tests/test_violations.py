"""What the codec refuses, in words: each is said by both bodies, and filled in wherever it is said.

That the bodies say them in the same places is the business of `test_codec_agreement`.
"""

from __future__ import annotations

import re
import string
from pathlib import Path

import pytest

import plumews
from plumews import violations

SOURCES = Path(plumews.__file__).parent
FAULTS = {name: text for name, text in vars(violations).items() if name.isupper()}
COMPILED = "".join(path.read_text() for path in (*SOURCES.glob("_codec.pyx"), *SOURCES.glob("protocol/pxi/*.pxi")))
PLAIN = "".join(path.read_text() for path in SOURCES.glob("protocol/pure/*.py"))
INFLATING = (SOURCES / "deflate" / "inflating.py").read_text()


def fields(text: str) -> set[str]:
    """What is filled in."""
    return {name for _, name, _, _ in string.Formatter().parse(text) if name}


def uses(name: str, source: str) -> list[set[str]]:
    """Each use of a fault in ``source``, by the fields that it fills in."""
    found = re.finditer(rf"\bviolations\.{name}\b(\.format\(((?:[^()]|\([^()]*\))*)\))?", source)
    return [set(re.findall(r"(\w+)=", use[2] or "")) for use in found]


@pytest.mark.parametrize("name", FAULTS)
def test_each_is_said_by_both_bodies_or_where_messages_are_inflated_and_is_filled_in(name: str) -> None:
    compiled, plain, inflating = (uses(name, source) for source in (COMPILED, PLAIN, INFLATING))
    if (SOURCES / "_codec.pyx").exists():  # a wheel has none of it
        assert bool(compiled) == bool(plain)
    assert plain or inflating
    for use in (*compiled, *plain, *inflating):
        assert use == fields(FAULTS[name])


@pytest.mark.parametrize(
    "phrase",
    [
        "unmasked client frame",
        "masked server frame",
        "fragmented control frame",
        "control frame too large",
        "new data opcode while assembling",
    ],
)
def test_the_phrases_of_the_seed_stand_in_them(phrase: str) -> None:
    assert any(phrase in text for text in FAULTS.values())


def test_no_two_say_the_same() -> None:
    assert len(set(FAULTS.values())) == len(FAULTS)


def test_what_the_peer_broke_is_told_with_the_section_of_the_rfc_that_says_so() -> None:
    of_the_peer = list(FAULTS)[: list(FAULTS).index("NOT_A_BUFFER")]
    bounds = {"TOO_MANY_FRAMES", "TOO_BIG", "INFLATED_TOO_BIG", "INFLATED_TOO_MUCH"}  # ours, and of no RFC
    assert {name for name in of_the_peer if not re.search(r"\(RFC \d+ section \d", FAULTS[name])} == bounds
