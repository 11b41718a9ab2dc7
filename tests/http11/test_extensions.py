"""Tests of the parser of Sec-WebSocket-Extensions: accepted and refused values, and linear time."""

from __future__ import annotations

import contextlib
import time

import pytest

from plumews import InvalidHeader
from plumews.http11.extensions import parse_extensions

READ = {
    "nothing": ([], []),
    "an empty line": ([""], []),
    "blanks and commas": ([" , ,\t,"], []),
    "one": (["permessage-deflate"], [("permessage-deflate", [])]),
    "a bare parameter": (["a; b"], [("a", [("b", None)])]),
    "a value": (["a;b=1"], [("a", [("b", "1")])]),
    "a quoted value": (['a; b="1"; c'], [("a", [("b", "1"), ("c", None)])]),
    "a quoted comma": (['a; b="1,2;3", c'], [("a", [("b", "1,2;3")]), ("c", [])]),
    "a quoted backslash": (['a; b="\\1\\"\\\\"'], [("a", [("b", '1"\\')])]),
    "an empty quoted value": (['a; b=""'], [("a", [("b", "")])]),
    "blanks everywhere": ([" a ;\tb = 1 , c "], [("a", [("b", "1")]), ("c", [])]),
    "several lines": (["a, b", "c; d"], [("a", []), ("b", []), ("c", [("d", None)])]),
    "the same again": (["a; b; b=1, a"], [("a", [("b", None), ("b", "1")]), ("a", [])]),
    "names of Python": (["constructor; __class__=__proto__"], [("constructor", [("__class__", "__proto__")])]),
}


@pytest.mark.parametrize(("lines", "extensions"), READ.values(), ids=READ.keys())
def test_extensions_in_the_grammar_are_parsed(lines, extensions):
    assert parse_extensions(lines) == extensions


REFUSED = {
    "no name": "; b",
    "two names": "a b",
    "no parameter": "a;",
    "two semicolons": "a;;b",
    "no value": "a; b=",
    "a value and more": "a; b=1 2",
    "a blank in a name": "permessage deflate",
    "a quoted name": '"a"',
    "an open quotation": 'a; b="1',
    "a backslash at the end": 'a; b="1\\',
    "text behind a quotation": 'a; b="1"2',
    "no token": "a; b=(1)",
    "not ASCII": "a; b=\xe9",
    "an equals sign alone": "=",
    "a value of the extension": "a=1",
}


@pytest.mark.parametrize("line", REFUSED.values(), ids=REFUSED.keys())
def test_extensions_outside_the_grammar_are_400(line):
    with pytest.raises(InvalidHeader, match="Sec-WebSocket-Extensions") as refused:
        parse_extensions([line])
    assert refused.value.status == 400


SLOW = {
    "backslashes": lambda n: 'a;b="' + "\\c" * n,
    "closed backslashes": lambda n: 'a;b="' + "\\c" * n + '"',
    "blanks": lambda n: "b" + " " * n + "x",
    "blanks behind a semicolon": lambda n: "b;" + " \t" * n + "x",
    "commas": lambda n: "," * n,
    "semicolons": lambda n: "a" + ";b" * n,
    "equals": lambda n: "a;b" + "=" * n,
    "one long token": lambda n: "a" * n,
    "quotations": lambda n: "a" + ';b=""' * n,
}


def duration(line: str) -> float:
    best = float("inf")
    for _ in range(10):
        began = time.process_time()
        with contextlib.suppress(InvalidHeader):
            parse_extensions([line])
        best = min(best, time.process_time() - began)
    return best


@pytest.mark.parametrize("make", SLOW.values(), ids=[f"row14-CVE-2020-7662-{name}" for name in SLOW])
def test_long_line_of_extensions_takes_linear_time(make):
    assert duration(make(16_000)) < 12 * duration(make(2_000)) + 0.002
