"""The words of the protocol: which close codes may be sent, and what they are called."""

from __future__ import annotations

import pytest

from plumews.constants import COMPRESSED, CloseCode, Opcode, StreamEvent, close_code_name, is_valid_close_code


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
def test_a_close_code_has_a_name_for_people(code: int, name: str) -> None:
    assert close_code_name(code) == name


def test_of_the_codes_that_have_names_three_are_never_sent() -> None:
    assert [code.name for code in CloseCode if not is_valid_close_code(code)] == [
        "NO_STATUS_RCVD",
        "ABNORMAL_CLOSURE",
        "TLS_HANDSHAKE",
    ]


def test_what_a_parser_reports_can_be_told_apart() -> None:
    reported = [*Opcode, *StreamEvent, *(COMPRESSED + opcode for opcode in (Opcode.TEXT, Opcode.BINARY))]
    assert len(set(reported)) == len(reported)
    assert max(Opcode) < 16  # what a frame has room for
