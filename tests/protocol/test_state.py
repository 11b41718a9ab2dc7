"""The rules of the closing handshake: which close frame leaves, and what the end means."""

from __future__ import annotations

from typing import Any

import pytest

from plumews.constants import CloseCode, Opcode, State
from plumews.errors import (
    Close,
    ConnectionClosed,
    ConnectionClosedError,
    ConnectionClosedOK,
    InvalidData,
    PayloadTooBig,
    ProtocolError,
    TooManyFragments,
)
from plumews.protocol.codec import Parser
from plumews.protocol.state import ProtocolState, check_close
from support.raw_client import close, masked, text


def opened(max_size: int | None = 1000) -> ProtocolState:
    rules = ProtocolState(client=False, max_size=max_size)
    rules.state = State.OPEN
    return rules


def receive(rules: ProtocolState, *frames: bytes) -> list[tuple[int, Any]]:
    """The events of ``frames``; a close frame is noted as a connection does it."""
    events = rules.receive(b"".join(frames))
    for kind, payload in events:
        if kind == Opcode.CLOSE:
            rules.peer_closed(*payload)
    return events


def said(frame: bytes) -> tuple[int, str]:
    """Return the code and the reason that a client reads in our close frame."""
    [(kind, payload)] = Parser(client=True, max_size=None).feed(frame)
    assert kind == Opcode.CLOSE
    code, reason = payload
    return code, reason


# --- what may be said -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "code", [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999]
)
def test_section_8_point_8_every_valid_close_code_is_accepted(code: int) -> None:
    check_close(code, "")


@pytest.mark.parametrize("code", [0, -1, 999, 1004, 1005, 1006, 1015, 1016, 1999, 2000, 2999, 5000, 65536, 2**64])
def test_invalid_close_codes_are_rejected(code: int) -> None:
    with pytest.raises(ValueError, match=f"^{code} may not stand in a close frame"):
        check_close(code, "")


@pytest.mark.parametrize("code", ["1000", 1000.0, None, True])
def test_a_code_that_is_no_int_is_a_type_error(code: Any) -> None:
    with pytest.raises(TypeError, match="a close code must be an int"):
        check_close(code, "")


@pytest.mark.parametrize("reason", ["", "x" * 123, "ü" * 61, "€" * 41])
def test_a_reason_has_room_for_123_bytes(reason: str) -> None:
    check_close(1000, reason)


@pytest.mark.parametrize("reason", ["x" * 124, "ü" * 62, "😀" * 31])
def test_a_longer_reason_is_refused(reason: str) -> None:
    with pytest.raises(ValueError, match=rf"123 bytes of UTF-8, not {len(reason.encode())}"):
        check_close(1000, reason)


def test_a_reason_that_is_not_unicode_is_refused() -> None:
    with pytest.raises(ValueError, match="surrogates"):
        check_close(1000, "\ud800")


@pytest.mark.parametrize("reason", [b"bytes", None, 3])
def test_a_reason_that_is_no_str_is_a_type_error(reason: Any) -> None:
    with pytest.raises(TypeError, match="a close reason must be a str"):
        check_close(1000, reason)


# --- our close frame ------------------------------------------------------------------------------


def test_close_frame_has_code_and_reason_and_begins_closing() -> None:
    rules = opened()
    assert said(rules.close_frame(4000, "grün")) == (4000, "grün")
    assert rules.state is State.CLOSING
    assert rules.close_sent == Close(4000, "grün")


@pytest.mark.parametrize("code", [1000, 1001, 1010, 3000, 4999])
def test_the_answer_to_a_close_frame_has_its_code(code: int) -> None:
    rules = opened()
    receive(rules, close(code, "because"))
    assert said(rules.reply_frame()) == (code, "")


def test_answer_to_an_empty_close_frame_is_empty() -> None:
    rules = opened()
    receive(rules, close(None))
    frame = rules.reply_frame()
    assert frame == b"\x88\x00"
    assert rules.close_sent == Close(CloseCode.NO_STATUS_RCVD, "")
    assert rules.end_code == CloseCode.NO_STATUS_RCVD


@pytest.mark.parametrize(
    ("frames", "error", "code", "phrase"),
    [
        ([masked(0, b"stray")], ProtocolError, 1002, "protocol error"),
        ([b"\xc1\x80\x00\x00\x00\x00"], ProtocolError, 1002, "protocol error"),
        ([b"\x81\x05hello"], ProtocolError, 1002, "protocol error"),
        ([masked(9, b"x" * 126)], ProtocolError, 1002, "protocol error"),
        ([masked(9, b"", fin=False)], ProtocolError, 1002, "protocol error"),
        ([masked(3)], ProtocolError, 1002, "protocol error"),
        ([masked(8, b"\x03")], ProtocolError, 1002, "protocol error"),
        ([masked(8, (1005).to_bytes(2, "big"))], ProtocolError, 1002, "protocol error"),
        ([masked(8, b"\x03\xe8\xff")], InvalidData, 1007, "UTF-8"),
        ([masked(1, b"\xff")], InvalidData, 1007, "UTF-8"),
        ([masked(1, b"\xc3")], InvalidData, 1007, "UTF-8"),
        ([masked(2, bytes(1001))], PayloadTooBig, 1009, "payload too large"),
        ([masked(2, bytes(501), fin=False), masked(0, bytes(500))], PayloadTooBig, 1009, "payload too large"),
        ([masked(2, fin=False), *[masked(0, fin=False)] * 1100], TooManyFragments, 1008, "too many fragments"),
    ],
)
def test_violation_has_its_code_and_its_phrase(
    frames: list[bytes], error: type[ProtocolError], code: int, phrase: str
) -> None:
    rules = opened()
    assert receive(rules, text("good"), *frames, text("ignored")) == [(Opcode.TEXT, "good")]
    assert type(rules.error) is error
    assert phrase in str(rules.error)
    sent, reason = said(rules.reply_frame())
    assert sent == code
    assert phrase in reason
    failure = rules.closed()
    assert type(failure) is ConnectionClosedError
    assert phrase in str(failure)
    assert "connection closed" in str(failure)


def test_a_fault_that_takes_many_words_is_cut_at_a_character() -> None:
    rules = opened()
    rules.error = ProtocolError("€" * 100)
    code, reason = said(rules.reply_frame())
    assert code == 1002
    assert 120 < len(reason.encode()) <= 123
    assert str(rules.error).startswith(reason)


def test_row_4_length_beyond_memory_is_rejected_by_its_header() -> None:
    rules = opened(16 * 2**20)
    for length in (2**31 - 1, 2**31, 2**32 + 1, 2**53 + 1, 2**63 - 1):
        rules = opened(16 * 2**20)
        assert receive(rules, b"\x82\xff" + length.to_bytes(8, "big")) == []
        assert isinstance(rules.error, PayloadTooBig)
    for length in (2**63, 2**64 - 1):
        rules = opened(16 * 2**20)
        receive(rules, b"\x82\xff" + length.to_bytes(8, "big"))
        assert rules.error is not None
        assert rules.error.close_code in (1002, 1009)


# --- what the end means ---------------------------------------------------------------------------


@pytest.mark.parametrize("code", [1000, 1001, None])
def test_a_good_end_is_ok_whoever_began(code: int | None) -> None:
    by_peer = opened()
    receive(by_peer, close(code, "" if code is None else "bye"))
    assert type(by_peer.closed()) is ConnectionClosedOK
    by_peer.reply_frame()
    assert type(by_peer.closed()) is ConnectionClosedOK

    by_us = opened()
    by_us.close_frame(code or 1000)
    receive(by_us, close(code))
    assert type(by_us.closed()) is ConnectionClosedOK


@pytest.mark.parametrize("code", [1002, 1003, 1008, 1011, 1012, 1013, 3000, 4999])
def test_any_other_code_is_an_error_whoever_says_it(code: int) -> None:
    by_peer = opened()
    receive(by_peer, close(code, "why"))
    failure = by_peer.closed()
    assert type(failure) is ConnectionClosedError
    assert (failure.code, failure.reason) == (code, "why")

    by_us = opened()
    by_us.close_frame(code)
    receive(by_us, close(code))
    assert type(by_us.closed()) is ConnectionClosedError


def test_the_end_tells_both_close_frames() -> None:
    rules = opened()
    rules.close_frame(4001, "ours")
    receive(rules, close(4002, "theirs"))
    failure = rules.closed()
    assert (failure.sent, failure.rcvd) == (Close(4001, "ours"), Close(4002, "theirs"))
    assert "received 4002 (private use) theirs" in str(failure)
    assert "sent 4001 (private use) ours" in str(failure)
    assert (rules.end_code, rules.end_reason) == (4002, "theirs")


def test_while_the_connection_lives_there_is_no_close_code() -> None:
    rules = opened()
    assert (rules.end_code, rules.end_reason) == (None, None)


@pytest.mark.parametrize("ours", [None, 1000])
def test_an_end_without_a_close_frame_is_1006_and_an_error(ours: int | None) -> None:
    rules = opened()
    if ours is not None:
        rules.close_frame(ours)
    rules.lost()
    assert rules.state is State.CLOSED
    assert (rules.end_code, rules.end_reason) == (1006, "")
    failure = rules.closed()
    assert type(failure) is ConnectionClosedError
    assert failure.code == 1006
    assert isinstance(failure, ConnectionClosed)


@pytest.mark.parametrize(
    "cut",
    [
        [masked(2, b"first", fin=False)],
        [masked(2, b"first", fin=False), masked(0, b"second", fin=False)],
        [masked(2, b"x" * 50)[:-1]],
        [masked(2, b"x" * 50)[:3]],
        [b"\x82"],
    ],
    ids=["after the first fragment", "after the second", "in a payload", "in a header", "after one byte"],
)
def test_section_8_point_1_message_cut_by_eof_is_an_error(cut: list[bytes]) -> None:
    rules = opened()
    assert receive(rules, *cut) == []
    rules.lost()
    assert rules.cut
    failure = rules.closed()
    assert type(failure) is ConnectionClosedError
    assert "a message was cut" in str(failure)


def test_section_8_point_1_message_cut_by_close_1000_is_an_error() -> None:
    rules = opened()
    receive(rules, masked(2, b"first", fin=False), close(1000))
    failure = rules.closed()
    assert type(failure) is ConnectionClosedError
    assert "a message was cut" in str(failure)
    rules.reply_frame()
    rules.lost()
    assert type(rules.closed()) is ConnectionClosedError


def test_peer_that_stops_after_our_close_cuts_nothing() -> None:
    rules = opened()
    receive(rules, masked(2, b"first", fin=False))
    rules.close_frame(1000)
    receive(rules, close(1000))
    rules.lost()
    assert not rules.cut
    assert type(rules.closed()) is ConnectionClosedOK


def test_between_messages_nothing_is_cut() -> None:
    rules = opened()
    receive(rules, text("whole"))
    rules.lost()
    assert not rules.cut
    assert "a message was cut" not in str(rules.closed())


def test_losing_ends_the_sending_but_not_yet_the_connection() -> None:
    rules = opened()
    receive(rules, masked(2, b"first", fin=False))
    rules.losing()
    assert rules.state is State.CLOSING
    assert rules.cut
    rules.lost()
    rules.losing()
    assert rules.state is State.CLOSED
