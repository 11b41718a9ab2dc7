"""Tests of the error texts of the codec: both bodies use each text, with all of its fields.

`test_codec_agreement` tests that the bodies use them in the same places.
"""

from __future__ import annotations

import re
import string
from pathlib import Path

import pytest

import plumews
from plumews import violations

SOURCES = Path(plumews.__file__).parent
TEXTS = {name: text for name, text in vars(violations).items() if name.isupper()}
COMPILED = "".join(path.read_text() for path in (*SOURCES.glob("_codec.pyx"), *SOURCES.glob("protocol/pxi/*.pxi")))
PLAIN = "".join(path.read_text() for path in SOURCES.glob("protocol/pure/*.py"))
INFLATING = (SOURCES / "deflate" / "streams.py").read_text()


def fields(text: str) -> set[str]:
    """Return the names of the fields of a text."""
    return {name for _, name, _, _ in string.Formatter().parse(text) if name}


def uses(name: str, source: str) -> list[set[str]]:
    """Return the fields that each use of a text in ``source`` fills in."""
    found = re.finditer(rf"\bviolations\.{name}\b(\.format\(((?:[^()]|\([^()]*\))*)\))?", source)
    return [set(re.findall(r"(\w+)=", use[2] or "")) for use in found]


@pytest.mark.parametrize("name", TEXTS)
def test_each_text_is_used_by_both_bodies_with_its_fields(name: str) -> None:
    compiled, plain, inflating = (uses(name, source) for source in (COMPILED, PLAIN, INFLATING))
    if (SOURCES / "_codec.pyx").exists():  # a wheel has none of it
        assert bool(compiled) == bool(plain)
    assert plain or inflating
    for use in (*compiled, *plain, *inflating):
        assert use == fields(TEXTS[name])


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
def test_texts_contain_the_phrases(phrase: str) -> None:
    assert any(phrase in text for text in TEXTS.values())


def test_texts_are_distinct() -> None:
    assert len(set(TEXTS.values())) == len(TEXTS)


def test_protocol_errors_cite_a_section_of_the_rfc() -> None:
    of_the_peer = list(TEXTS)[: list(TEXTS).index("NOT_A_BUFFER")]
    bounds = {"TOO_MANY_FRAMES", "TOO_BIG", "INFLATED_TOO_BIG", "INFLATED_TOO_MUCH"}  # ours, and of no RFC
    assert {name for name in of_the_peer if not re.search(r"\(RFC \d+ section \d", TEXTS[name])} == bounds
