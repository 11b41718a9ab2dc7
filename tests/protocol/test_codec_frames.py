"""plumews.codec: frames going out (RFC 6455 sections 5.2 and 5.4), on both bodies."""

from __future__ import annotations

import array
import itertools
from collections.abc import Callable
from typing import Any

import pytest

from plumews.constants import Opcode
from plumews.limits import COPY_SIZE, FRAGMENT_SIZE
from support.codec_bodies import on_both_bodies

pytestmark = on_both_bodies

KEY = bytes.fromhex("37fa213d")


def keys() -> Callable[[], bytes]:
    """A source of keys, none like the last."""
    numbers = itertools.count(0x01020304)
    return lambda: next(numbers).to_bytes(4, "big")


# --- build_header ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("length", "field"),
    [
        (0, "00"),
        (1, "01"),
        (125, "7d"),
        (126, "7e007e"),
        (127, "7e007f"),
        (65535, "7effff"),
        (65536, "7f0000000000010000"),
        (2**32, "7f0000000100000000"),
        (2**63 - 1, "7f7fffffffffffffff"),
    ],
)
def test_section_5_2_a_length_is_written_in_its_shortest_form(codec: Any, length: int, field: str) -> None:
    assert codec.build_header(2, length) == bytes.fromhex("82" + field)
    masked = codec.build_header(2, length, mask_key=KEY)
    assert masked == bytes([0x82, int(field[:2], 16) | 0x80]) + bytes.fromhex(field[2:]) + KEY


@pytest.mark.parametrize("opcode", range(16))
def test_section_5_2_fin_rsv1_and_opcode_share_the_first_byte(codec: Any, opcode: int) -> None:
    assert codec.build_header(opcode, 0)[0] == 0x80 | opcode
    assert codec.build_header(opcode, 0, fin=False)[0] == opcode
    assert codec.build_header(opcode, 0, rsv1=True)[0] == 0xC0 | opcode
    assert codec.build_header(opcode, 0, fin=False, rsv1=True)[0] == 0x40 | opcode


def test_an_opcode_may_be_an_enum_member(codec: Any) -> None:
    assert codec.build_header(Opcode.PONG, 3) == b"\x8a\x03"
    assert codec.build_frame(Opcode.TEXT, "a") == b"\x81\x01a"
    assert codec.fragment(Opcode.TEXT, b"a") == [b"\x81\x01a"]


@pytest.mark.parametrize("opcode", [-1, 16, 255, 2**31, 2**64, -(2**64)])
def test_an_opcode_that_does_not_fit_its_field_is_a_value_error(codec: Any, opcode: int) -> None:
    for build in (lambda: codec.build_header(opcode, 0), lambda: codec.build_frame(opcode, b"")):
        with pytest.raises(ValueError, match=f"^an opcode is 0 to 15, not {opcode}$"):
            build()


@pytest.mark.parametrize("length", [-1, -(2**64), 2**63, 2**64 - 1, 2**64])
def test_a_length_that_does_not_fit_its_field_is_a_value_error(codec: Any, length: int) -> None:
    with pytest.raises(ValueError, match=rf"^a payload length is 0 to 2\*\*63 - 1, not {length}$"):
        codec.build_header(2, length)


def test_arguments_that_are_no_ints_are_a_type_error(codec: Any) -> None:
    for build in (
        lambda: codec.build_header(1.0, 0),
        lambda: codec.build_header(1, 0.0),
        lambda: codec.build_frame("1", b""),
        lambda: codec.fragment(1.0, b""),
        lambda: codec.fragment(1, b"", size=1.0),
    ):
        with pytest.raises(TypeError, match="cannot be interpreted as an integer"):
            build()


@pytest.mark.parametrize("length", [0, 1, 3, 5, 8])
def test_a_key_that_is_not_4_bytes_is_a_value_error(codec: Any, length: int) -> None:
    for build in (
        lambda: codec.build_header(1, 0, mask_key=bytes(length)),
        lambda: codec.build_frame(1, b"", mask_key=bytes(length)),
        lambda: codec.fragment(1, b"", mask=lambda: bytes(length)),
        lambda: codec.fragment(1, bytes(100_000), mask=lambda: bytes(length)),
    ):
        with pytest.raises(ValueError, match=f"^the mask key must be exactly 4 bytes, not {length}$"):
            build()


# --- build_frame ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("frame", "opcode", "payload", "options"),
    [
        ("810548656c6c6f", 1, b"Hello", {}),
        ("818537fa213d7f9f4d5158", 1, b"Hello", {"mask_key": KEY}),
        ("010348656c", 1, b"Hel", {"fin": False}),
        ("80026c6f", 0, b"lo", {}),
        ("890548656c6c6f", 9, b"Hello", {}),
        ("8a8537fa213d7f9f4d5158", 10, b"Hello", {"mask_key": KEY}),
        ("827e0100" + "ab" * 256, 2, b"\xab" * 256, {}),
        ("827f0000000000010000" + "ab" * 65536, 2, b"\xab" * 65536, {}),
    ],
    ids=["text", "masked text", "first fragment", "last fragment", "ping", "masked pong", "256 bytes", "64 KiB"],
)
def test_section_5_7_the_examples_of_the_rfc(
    codec: Any, frame: str, opcode: int, payload: bytes, options: dict[str, Any]
) -> None:
    assert codec.build_frame(opcode, payload, **options) == bytes.fromhex(frame)


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65535, 65536, 100_000])
def test_a_frame_is_its_header_and_its_masked_payload(codec: Any, size: int) -> None:
    payload = bytes(range(250)) * 400
    payload = payload[:size]
    for key in (None, KEY, bytes(4)):
        masked = payload if key is None else codec.mask(payload, key)
        expected = codec.build_header(2, size, fin=False, rsv1=True, mask_key=key) + masked
        assert codec.build_frame(2, payload, fin=False, rsv1=True, mask_key=key) == expected


@pytest.mark.parametrize("text", ["", "a", "ascii " * 50, "é", "€uro", "😀" * 40, "a" * 70_000 + "é"])
def test_a_str_is_encoded_as_utf_8(codec: Any, text: str) -> None:
    assert codec.build_frame(1, text) == codec.build_frame(1, text.encode())
    assert codec.build_frame(1, text, mask_key=KEY) == codec.build_frame(1, text.encode(), mask_key=KEY)
    assert codec.fragment(1, text, size=1000) == codec.fragment(1, text.encode(), size=1000)


def test_a_subclass_of_str_or_bytes_is_what_it_derives_from(codec: Any) -> None:
    text, data = type("Text", (str,), {}), type("Data", (bytes,), {})
    assert codec.build_frame(1, text("aé")) == codec.build_frame(1, "aé")
    assert codec.build_frame(2, data(b"ab")) == codec.build_frame(2, b"ab")
    assert codec.mask(data(b"ab"), KEY) == codec.mask(b"ab", KEY)


@pytest.mark.parametrize("text", ["\ud800", "a\udfffb", "é" * 10 + "\udc80"])
def test_a_lone_surrogate_is_a_unicode_encode_error(codec: Any, text: str) -> None:
    for build in (codec.build_frame, codec.fragment):
        with pytest.raises(UnicodeEncodeError, match="surrogates not allowed"):
            build(1, text)


@pytest.mark.parametrize(
    "payload",
    [bytearray(b"abc"), memoryview(b"abcd"), memoryview(b"abcd").cast("I"), array.array("f", [1.5, 2.5])],
    ids=["bytearray", "memoryview", "ints", "floats"],
)
def test_row_25_any_contiguous_buffer_is_sent_byte_for_byte(codec: Any, payload: Any) -> None:
    data = memoryview(payload).tobytes()
    assert codec.build_frame(9, payload) == codec.build_frame(9, data)
    assert codec.build_frame(9, payload, mask_key=KEY) == codec.build_frame(9, data, mask_key=KEY)
    assert codec.fragment(2, payload, size=3) == codec.fragment(2, data, size=3)


@pytest.mark.parametrize("payload", [None, 5, 1.5, ["a"], {"a": 1}], ids=lambda payload: type(payload).__name__)
def test_row_25_payload_of_another_type_is_a_type_error(codec: Any, payload: Any) -> None:
    for build in (codec.build_frame, codec.fragment):
        with pytest.raises(TypeError, match=f"^a bytes-like object is required, not '{type(payload).__name__}'$"):
            build(1, payload)


def test_a_buffer_with_gaps_is_a_buffer_error(codec: Any) -> None:
    for build in (codec.build_frame, codec.fragment):
        with pytest.raises(BufferError, match="not contiguous"):
            build(2, memoryview(b"abcdef")[::2])


def test_a_frame_that_no_peer_may_send_can_be_built_for_tests(codec: Any) -> None:
    assert codec.build_frame(9, bytes(126), fin=False) == b"\x09\x7e\x00\x7e" + bytes(126)
    assert codec.build_frame(3, b"") == b"\x83\x00"


# --- fragment -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("length", "sizes"),
    [
        (0, [0]),
        (1, [1]),
        (65535, [65535]),
        (65536, [65536]),
        (65537, [65536, 1]),
        (131072, [65536, 65536]),
        (200_000, [65536, 65536, 65536, 3392]),
    ],
)
def test_a_message_leaves_in_frames_of_64_kib(codec: Any, length: int, sizes: list[int]) -> None:
    payload = (bytes(range(251)) * 1000)[:length]
    expected, start = [], 0
    for i, size in enumerate(sizes):
        piece = payload[start : start + size]
        expected.append(codec.build_frame(0 if i else 2, piece, fin=i + 1 == len(sizes)))
        start += size
    assert b"".join(codec.fragment(2, payload)) == b"".join(expected)


@pytest.mark.parametrize("length", [0, 1, 99, 100, 101, 200, 201, 16384, 16385, 40_000])
@pytest.mark.parametrize("size", [1, 7, 100, 16384, 65536, 2**70])
@pytest.mark.parametrize("masked", [False, True], ids=["plain", "masked"])
def test_what_fragment_makes_a_parser_puts_together_again(codec: Any, length: int, size: int, masked: bool) -> None:
    payload = (bytes(range(251)) * 200)[:length]
    buffers = codec.fragment(2, payload, size=size, mask=keys() if masked else None)
    parser = codec.Parser(client=not masked, max_size=None)
    assert parser.feed(b"".join(buffers)) == [(2, payload)]
    assert (parser.error, parser.mid_message) == (None, False)


def test_section_5_4_first_frame_has_the_opcode_and_last_has_fin(codec: Any) -> None:
    assert codec.fragment(1, b"abcde", size=2) == [b"\x01\x02ab" + b"\x00\x02cd" + b"\x80\x01e"]


def test_rfc_7692_section_6_1_only_the_first_frame_has_rsv1(codec: Any) -> None:
    assert codec.fragment(1, b"abc", size=2, rsv1=True) == [b"\x41\x02ab" + b"\x80\x01c"]
    headers = codec.fragment(1, bytes(100_000), size=50_000, rsv1=True)[::2]
    assert [header[0] for header in headers] == [0x41, 0x80]


def test_up_to_16_kib_come_as_one_bytes_object(codec: Any) -> None:
    for size in (10, FRAGMENT_SIZE):
        for mask in (None, keys()):
            buffers = codec.fragment(2, bytes(COPY_SIZE), size=size, mask=mask)
            assert [type(buffer) for buffer in buffers] == [bytes]


def test_fragments_above_16_kib_are_slices_without_a_copy(codec: Any) -> None:
    payload = bytes(COPY_SIZE + 1)
    header, whole = codec.fragment(2, payload)
    assert header == codec.build_header(2, len(payload))
    assert whole is payload

    payload = bytes(150_000)
    buffers = codec.fragment(2, payload)
    assert [type(buffer) for buffer in buffers] == [bytes, memoryview] * 3
    assert all(view.obj is payload for view in buffers[1::2])


def test_mutable_payload_is_copied(codec: Any) -> None:
    payload = bytearray(100_000)
    buffers = codec.fragment(2, payload)
    payload[:] = b"\xff" * 100_000
    assert bytes(buffers[1]) == bytes(FRAGMENT_SIZE)
    payload.append(0)


def test_mask_is_asked_for_a_fresh_key_for_each_frame(codec: Any) -> None:
    for payload in (bytes(5000), bytes(50_000)):
        asked: list[bytes] = []
        source = keys()

        def key(source: Callable[[], bytes] = source, asked: list[bytes] = asked) -> bytes:
            asked.append(source())
            return asked[-1]

        stream = b"".join(codec.fragment(2, payload, size=len(payload) // 5, mask=key))
        assert len(asked) == len(set(asked)) == 5
        header = 8
        frame = header + len(payload) // 5
        assert [stream[i * frame + 4 : i * frame + 8] for i in range(5)] == asked


@pytest.mark.parametrize("opcode", [0, 3, 8, 9, 10, -1, 16, 2**64])
def test_only_text_and_binary_messages_are_fragmented(codec: Any, opcode: int) -> None:
    with pytest.raises(ValueError, match=rf"^a message is text \(1\) or binary \(2\), not {opcode}$"):
        codec.fragment(opcode, b"data")


@pytest.mark.parametrize("size", [0, -1, -(2**70)])
def test_a_fragment_has_at_least_one_byte(codec: Any, size: int) -> None:
    with pytest.raises(ValueError, match=f"^a fragment has at least 1 byte, not {size}$"):
        codec.fragment(1, b"data", size=size)


# --- mask_frames ----------------------------------------------------------------------------------


def test_masked_frames_are_the_same_frames_with_keys(codec: Any) -> None:
    sizes = [0, 1, 3, 125, 126, 127, 65535, 65536, 70_001]
    frames = [codec.build_frame(Opcode.BINARY, (bytes(range(256)) * 300)[:size]) for size in sizes]
    frames += [codec.build_frame(Opcode.PING, b"now"), codec.build_frame(Opcode.TEXT, "\xe9", fin=False, rsv1=True)]
    data = b"".join(frames)
    masked = codec.mask_frames(data)
    assert len(masked) == len(data) + 4 * len(frames)
    parser = codec.Parser(client=False, max_size=None, decode_text=False, allow_rsv1=True)
    plain = codec.Parser(client=True, max_size=None, decode_text=False, allow_rsv1=True)
    assert parser.feed(masked) == plain.feed(data)
    assert parser.error is None


def test_each_masked_frame_has_a_key_of_its_own(codec: Any) -> None:
    masked = codec.mask_frames(codec.build_frame(Opcode.TEXT, "") * 500)
    keys = [masked[at + 2 : at + 6] for at in range(0, len(masked), 6)]
    assert len(set(keys)) > 495
    assert codec.mask_frames(b"") == b""


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_any_buffer_of_frames_can_be_masked(codec: Any, kind: Any) -> None:
    assert len(codec.mask_frames(kind(codec.build_frame(Opcode.TEXT, "hello")))) == 11


@pytest.mark.parametrize(
    "data",
    [
        b"\x81",
        b"\x81\x05hell",
        b"\x81\x7e\x01",
        b"\x81\x7f" + b"\xff" * 8,
        b"\x81\x7f\x7f" + b"\xff" * 7 + b"x",
        b"\x81\x00\x81",
        b"\x81\x80abcd",
    ],
)
def test_parts_of_frames_and_masked_ones_are_not_masked(codec: Any, data: bytes) -> None:
    with pytest.raises(ValueError, match="only whole unmasked frames"):
        codec.mask_frames(data)
    with pytest.raises(TypeError):
        codec.mask_frames("text")
