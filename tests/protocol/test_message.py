"""Messages as frames: checked, copied where they could change, cut where they are long."""

from __future__ import annotations

import array
import json
from typing import Any

import pytest

from plumews.constants import Opcode
from plumews.protocol.codec import Parser
from plumews.protocol.message import encode, encode_json, opcode_of, payload_of


def parsed(buffers: list[Any], *, client: bool = True) -> list[tuple[int, Any]]:
    parser = Parser(client=client, max_size=None)
    events = parser.feed(b"".join(buffers))
    assert parser.error is None
    assert not parser.mid_message
    return events


@pytest.mark.parametrize(
    ("message", "opcode"),
    [
        ("text", Opcode.TEXT),
        (b"data", Opcode.BINARY),
        (bytearray(b"x"), Opcode.BINARY),
        (memoryview(b"x"), Opcode.BINARY),
    ],
)
def test_str_is_text_and_bytes_are_binary(message: Any, opcode: int) -> None:
    assert opcode_of(message) == opcode


@pytest.mark.parametrize("message", [None, 1, 1.5, array.array("d", [1.0]), object()])
def test_what_is_neither_is_a_type_error(message: Any) -> None:
    with pytest.raises(TypeError, match=f"must be str or bytes-like, not {type(message).__name__}$"):
        opcode_of(message)
    with pytest.raises(TypeError, match="must be str or bytes-like"):
        payload_of(Opcode.BINARY, message)


@pytest.mark.parametrize("message", [{}, [], ()])
def test_an_object_is_sent_to_write_json(message: Any) -> None:
    with pytest.raises(TypeError, match="use write_json"):
        opcode_of(message)


@pytest.mark.parametrize("opcode", [0, 3, 8, 9, 10, 15, -1, 256, "text", None, 1.5])
def test_section_8_point_10_control_opcode_is_rejected(opcode: Any) -> None:
    with pytest.raises(ValueError, match=r"TEXT \(1\) or BINARY \(2\)"):
        payload_of(opcode, b"data")


def test_bytes_are_not_copied() -> None:
    data = b"x" * 100_000
    assert payload_of(Opcode.BINARY, data) is data
    assert payload_of(Opcode.TEXT, data) is data


def test_section_8_point_10_what_can_change_is_copied() -> None:
    data = bytearray(b"before")
    payloads = [payload_of(Opcode.BINARY, data), payload_of(Opcode.BINARY, memoryview(data))]
    data[:] = b"after!"
    assert payloads == [b"before", b"before"]


@pytest.mark.parametrize(
    ("view", "payload"),
    [
        (memoryview(array.array("d", [1.0, -2.5])), array.array("d", [1.0, -2.5]).tobytes()),
        (memoryview(array.array("H", [1, 2, 3]))[1:], array.array("H", [2, 3]).tobytes()),
        (memoryview(b"0123456789")[::2], b"02468"),
        (memoryview(b"0123456789")[::-1], b"9876543210"),
        (memoryview(b""), b""),
    ],
)
def test_row_25_a_view_of_anything_is_sent_as_its_exact_bytes(view: memoryview, payload: bytes) -> None:
    assert payload_of(Opcode.BINARY, view) == payload


@pytest.mark.parametrize("text", ["\ud800", "ok \udfff"])
def test_a_lone_surrogate_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError, match="surrogates not allowed"):
        payload_of(Opcode.TEXT, text)


@pytest.mark.parametrize("data", [b"\xff", b"ab\xc3", b"\xed\xa0\x80", bytearray(b"\xc0\x80")])
def test_bytes_that_are_not_utf_8_cannot_be_sent_as_text(data: Any) -> None:
    with pytest.raises(ValueError, match="utf-8"):
        payload_of(Opcode.TEXT, data)
    assert payload_of(Opcode.BINARY, data) == bytes(data)


def test_text_can_be_given_as_bytes_and_binary_as_str() -> None:
    assert payload_of(Opcode.TEXT, "grün".encode()) == "grün".encode()
    assert payload_of(Opcode.BINARY, "grün") == "grün".encode()


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65535, 65536])
def test_a_message_up_to_the_fragment_size_is_one_frame(size: int) -> None:
    message = encode(Opcode.BINARY, b"x" * size)
    assert message.size == sum(map(len, message.buffers))
    assert parsed(message.buffers) == [(Opcode.BINARY, b"x" * size)]
    assert bytes(message.buffers[0][:1]) == b"\x82"


@pytest.mark.parametrize(("size", "pieces"), [(65537, [65536, 1]), (200_000, [65536, 65536, 65536, 3392])])
def test_a_longer_message_leaves_in_fragments(size: int, pieces: list[int]) -> None:
    payload = bytes(index % 251 for index in range(size))
    message = encode(Opcode.TEXT, b"a" * size)
    assert [len(part) for part in message.buffers[1::2]] == pieces
    firsts = [bytes(part[:1]) for part in message.buffers[::2]]
    assert firsts == [b"\x01", *[b"\x00"] * (len(pieces) - 2), b"\x80"]
    assert parsed(encode(Opcode.BINARY, payload).buffers) == [(Opcode.BINARY, payload)]


def test_a_long_payload_is_not_copied() -> None:
    payload = bytes(1_000_000)
    message = encode(Opcode.BINARY, payload)
    assert all(isinstance(part, memoryview) and part.obj is payload for part in message.buffers[1::2])


def test_a_fragment_size_of_its_own() -> None:
    message = encode(Opcode.TEXT, b"abcdefg", fragment_size=3)
    assert b"".join(message.buffers) == b"\x01\x03abc\x00\x03def\x80\x01g"


def test_a_client_masks_each_frame_with_a_key_of_its_own() -> None:
    keys = iter([b"\x01\x02\x03\x04", b"\x05\x06\x07\x08", b"\x09\x0a\x0b\x0c"])
    message = encode(Opcode.TEXT, b"x" * 200, fragment_size=100, mask=lambda: next(keys))
    assert parsed(message.buffers, client=False) == [(Opcode.TEXT, "x" * 200)]
    assert next(keys) == b"\x09\x0a\x0b\x0c"


def test_json_is_compact_and_raw_utf_8() -> None:
    assert encode_json({"a": [1, 2.5, None, True], "ü": "<&>"}) == '{"a":[1,2.5,null,true],"ü":"<&>"}'.encode()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_json_has_no_nan_and_no_infinity(value: float) -> None:
    for obj in (value, [value], {"a": {"b": value}}):
        with pytest.raises(ValueError, match="not JSON compliant"):
            encode_json(obj)


@pytest.mark.parametrize("obj", [{1, 2}, b"bytes", object(), {"a": object()}, {(1, 2): 3}])
def test_what_json_cannot_express_is_a_type_error(obj: Any) -> None:
    with pytest.raises(TypeError):
        encode_json(obj)


def test_json_with_a_lone_surrogate_is_a_value_error() -> None:
    with pytest.raises(ValueError, match="surrogates not allowed"):
        encode_json({"a": "\ud800"})


def test_json_that_refers_to_itself_is_a_value_error() -> None:
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(ValueError, match="Circular"):
        encode_json(loop)


def test_json_comes_back_as_it_was() -> None:
    obj = {"s": '\u2028\x00"\\', "n": [0, -1, 1e300], "deep": {"er": [[[]]]}}
    assert json.loads(encode_json(obj)) == obj
