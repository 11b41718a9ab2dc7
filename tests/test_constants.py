"""Tests of the constants: close codes, opcodes, and the codes of refusals."""

from __future__ import annotations

import json
import pickle
import re
from pathlib import Path

import pytest

import plumews
from plumews.constants import (
    COMPRESSED,
    CloseCode,
    ErrorCode,
    Opcode,
    StreamEvent,
    close_code_name,
    is_valid_close_code,
)
from plumews.errors import Refused


@pytest.mark.parametrize(
    ("code", "name"),
    [
        (1000, "1000 (normal closure)"),
        (1006, "1006 (abnormal closure)"),
        (4403, "4403 (forbidden)"),
        (3000, "3000 (registered)"),
        (3999, "3999 (registered)"),
        (4000, "4000 (private use)"),
        (4999, "4999 (private use)"),
        (0, "0 (unknown)"),
        (1004, "1004 (unknown)"),
        (1016, "1016 (unknown)"),
        (2999, "2999 (unknown)"),
        (5000, "5000 (unknown)"),
    ],
)
def test_close_code_name_has_code_and_name(code: int, name: str) -> None:
    assert close_code_name(code) == name


def test_three_named_close_codes_are_never_sent() -> None:
    assert [code.name for code in CloseCode if not is_valid_close_code(code)] == [
        "NO_STATUS_RCVD",
        "ABNORMAL_CLOSURE",
        "TLS_HANDSHAKE",
    ]


def test_opcodes_and_stream_events_are_distinct() -> None:
    reported = [*Opcode, *StreamEvent, *(COMPRESSED + opcode for opcode in (Opcode.TEXT, Opcode.BINARY))]
    assert len(set(reported)) == len(reported)
    assert max(Opcode) < 16  # what a frame has room for


@pytest.mark.parametrize("code", ErrorCode)
def test_error_code_is_formatted_as_the_string_that_is_sent(code: ErrorCode) -> None:
    assert {str(code), f"{code}", f"{code:s}", "%s" % code, code.value, "".join([code])} == {code.value}  # noqa: UP031
    assert json.loads(json.dumps(code)) == code.value
    assert {code.value: 1}[code] == 1
    assert pickle.loads(pickle.dumps(code)) is code


def test_error_of_an_error_code_keeps_a_plain_str() -> None:
    assert type(Refused("no", code=ErrorCode.BUSY).code) is str
    assert type(Refused("no").code) is str


def test_error_code_literals_stand_in_constants_only() -> None:
    sources = Path(plumews.__file__).parent
    literal = re.compile(r'"WEBSOCKET_(?!VERSION)[A-Z_]+"')
    found = {path.name for path in sources.rglob("*.py") if literal.search(path.read_text(encoding="utf-8"))}
    assert found == {"constants.py"}
