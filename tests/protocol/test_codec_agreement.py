"""plumews.codec: the two bodies cannot be told apart, nor can the ways in which bytes are cut into reads.

Hypothesis writes connections, good and broken; each body reads them whole, byte by byte and cut at random, and
all must tell the same events, error, close code and state. Arguments are held to the same errors and texts.
"""

from __future__ import annotations

import importlib.util
import inspect
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plumews.protocol.pure import parser as reference
from support.codec_bodies import BODIES

PROFILE = settings(max_examples=400, deadline=None, database=None)

# --- connections ----------------------------------------------------------------------------------

#: Valid text, and what is almost that.
TEXTS = [
    b"",
    b"a",
    b"text " * 30,
    "aé€😀".encode(),
    "é".encode() * 40,
    b"\xe2\x82",
    b"\xac",
    b"\xed\xa0\x80",
    b"ok\xff!",
]
CLOSES = [b"", b"\x03\xe8", b"\x03\xe8bye", b"\x03", b"\x03\xee", b"\x0f\xa0\xc3\xa9", b"\x0f\xa0\xff", b"\x13\x88"]

payloads = st.sampled_from(TEXTS) | st.binary(max_size=40) | st.integers(0, 400).map(lambda size: b"x" * size)
keys = st.sampled_from([bytes(4), b"\x37\xfa\x21\x3d"]) | st.binary(min_size=4, max_size=4)


@st.composite
def connections(draw: st.DrawFn) -> tuple[dict[str, Any], bytes]:
    """The options of a parser, and bytes that a peer may have sent to it: mostly good, then sometimes spoilt."""
    client = draw(st.booleans())
    options = {
        "client": client,
        "max_size": draw(st.sampled_from([None, 0, 50, 300, 10_000])),
        "max_frames": draw(st.sampled_from([None, None, 1, 3, 10])),
        "decode_text": draw(st.booleans()),
        "allow_rsv1": draw(st.booleans()),
    }
    stream = bytearray()
    inside = False
    for _ in range(draw(st.integers(1, 8))):
        kind = draw(st.sampled_from(["data", "data", "data", "data", "control", "control", "close", "any"]))
        if kind == "data":
            opcode, fin, payload = (
                0 if inside else draw(st.sampled_from([1, 1, 2])),
                draw(st.booleans()),
                draw(payloads),
            )
            inside = not fin
        elif kind == "control":
            opcode, fin, payload = draw(st.sampled_from([9, 10])), True, draw(payloads)[:125]
        elif kind == "close":
            opcode, fin, payload = 8, True, draw(st.sampled_from(CLOSES))
        else:
            opcode, fin, payload = draw(st.integers(0, 15)), draw(st.booleans()), draw(payloads)
        rsv1 = options["allow_rsv1"] and opcode in (1, 2) and draw(st.booleans())
        key = None if client else draw(keys)
        stream += reference.build_frame(opcode, payload, fin=fin, rsv1=rsv1, mask_key=key)
    if draw(st.integers(0, 3)) == 0:
        stream[draw(st.integers(0, len(stream) - 1))] ^= draw(st.integers(1, 255))
    if draw(st.integers(0, 3)) == 0:
        del stream[draw(st.integers(1, len(stream))) :]
    return options, bytes(stream)


def read(codec: Any, options: dict[str, Any], stream: bytes, cuts: set[int], turns: dict[int, str]) -> list[Any]:
    """Return the events of a parser for ``stream`` cut at ``cuts``; ``turns`` are calls at places of it."""
    parser = codec.Parser(**options)
    told = []
    places = sorted({0, len(stream)} | {place for place in cuts | set(turns) if place <= len(stream)})
    for start, stop in zip(places, [*places[1:], len(stream)], strict=True):
        events: list[Any] = []
        if start in turns:
            try:
                events += (parser.start_streaming if turns[start] == "start" else parser.stop_streaming)() or []
            except (ValueError, TypeError) as exc:
                events.append(("refused", str(exc)))
        events += parser.feed(stream[start:stop])
        told.append((events, state(parser)))
    return told


def state(parser: Any) -> tuple[Any, ...]:
    error = parser.error
    fault = None if error is None else (type(error), str(error), error.close_code)
    return fault, parser.buffered, parser.mid_message, parser.streaming


def whole(told: list[Any]) -> tuple[list[Any], Any]:
    """All events, with neighbouring chunks as one, and the last state: what no cut may change."""
    events: list[Any] = []
    for event in (event for events, _ in told for event in events):
        if event[0] == 17 and events and events[-1][0] == 17:
            events[-1] = (17, events[-1][1] + event[1])
        else:
            events.append(event)
    return events, told[-1][1]


@PROFILE
@given(
    connections(),
    st.sets(st.integers(1, 500), max_size=12),
    st.dictionaries(st.integers(0, 300), st.sampled_from(["start", "start", "stop"]), max_size=3),
)
def test_bodies_agree_on_events_errors_and_state_at_every_cut(
    connection: tuple[dict[str, Any], bytes], cuts: set[int], turns: dict[int, str]
) -> None:
    options, stream = connection
    outcomes = []
    for ways in (set(), set(range(len(stream))), cuts):
        tellings = [read(codec, options, stream, ways, turns) for codec in BODIES]
        assert tellings.count(tellings[0]) == len(tellings)  # read for read, chunk for chunk
        outcomes.append(whole(tellings[0]))
    assert outcomes[1] == outcomes[0]
    assert outcomes[2] == outcomes[0]


@PROFILE
@given(st.binary(max_size=60), st.booleans())
def test_both_bodies_agree_on_noise(noise: bytes, client: bool) -> None:
    options = {"client": client, "max_size": 1000}
    for ways in (set(), set(range(len(noise)))):
        tellings = [read(codec, options, noise, ways, {}) for codec in BODIES]
        assert tellings.count(tellings[0]) == len(tellings)


# --- the rest of the API --------------------------------------------------------------------------


def agreed(call: Callable[[Any], Any]) -> Any:
    """Return the result, or the exception, of ``call`` with either body."""
    told = []
    for codec in BODIES:
        try:
            told.append(call(codec))
        except Exception as exc:
            told.append((type(exc), str(exc)))
    assert told.count(told[0]) == len(told), told
    return told[0]


@PROFILE
@given(st.binary(max_size=300), st.binary(min_size=3, max_size=5), st.integers(-5, 2**65))
def test_both_bodies_agree_on_masks(data: bytes, key: bytes, offset: int) -> None:
    agreed(lambda codec: codec.mask(data, key, offset))


@PROFILE
@given(st.lists(st.sampled_from(TEXTS) | st.binary(max_size=20), max_size=6))
def test_both_bodies_agree_on_utf_8(pieces: list[bytes]) -> None:
    def judge(codec: Any) -> list[tuple[bool, bool]]:
        validator = codec.Utf8Validator()
        return [(validator.feed(piece), validator.complete) for piece in pieces]

    agreed(judge)


@PROFILE
@given(
    st.integers(-1, 16),
    st.binary(max_size=300) | st.text(st.characters(), max_size=60) | st.none(),
    st.booleans(),
    st.booleans(),
    st.none() | st.binary(min_size=4, max_size=5),
)
def test_both_bodies_agree_on_frames(opcode: int, payload: Any, fin: bool, rsv1: bool, key: bytes | None) -> None:
    agreed(lambda codec: codec.build_frame(opcode, payload, fin=fin, rsv1=rsv1, mask_key=key))
    length = 0 if payload is None else len(payload) ** 8
    agreed(lambda codec: codec.build_header(opcode, length, fin=fin, rsv1=rsv1, mask_key=key))


@PROFILE
@given(
    st.sampled_from([1, 2, 2, 9]),
    st.integers(0, 40_000),
    st.integers(-1, 60_000),
    st.none() | st.binary(min_size=4, max_size=5),
    st.booleans(),
)
def test_both_bodies_agree_on_fragments(opcode: int, length: int, size: int, key: bytes | None, rsv1: bool) -> None:
    size = size if size < 1 else max(size, length // 50)
    mask = None if key is None else lambda: key

    def fragments(codec: Any) -> list[tuple[type, Any]]:
        return [(type(each), each) for each in codec.fragment(opcode, bytes(length), size=size, mask=mask, rsv1=rsv1)]

    agreed(fragments)


ODD: list[Any] = [None, True, 1.5, "1", b"1", [1], 2**70, -(2**70), memoryview(b"abcd")[::2]]


@pytest.mark.parametrize("odd", ODD, ids=[repr(odd)[:9] for odd in ODD])
def test_both_bodies_refuse_odd_arguments_in_the_same_words(odd: Any) -> None:
    agreed(lambda codec: codec.mask(odd, b"abcd"))
    agreed(lambda codec: codec.mask(b"data", odd))
    agreed(lambda codec: codec.mask(b"data", b"abcd", odd))
    agreed(lambda codec: codec.mask_inplace(odd, b"abcd"))
    agreed(lambda codec: codec.mask_inplace(bytearray(4), odd))
    agreed(lambda codec: codec.Utf8Validator().feed(odd))
    agreed(lambda codec: codec.build_header(odd, 0))
    agreed(lambda codec: codec.build_header(1, odd))
    agreed(lambda codec: codec.build_header(1, 0, mask_key=odd))
    agreed(lambda codec: codec.build_frame(odd, b""))
    agreed(lambda codec: codec.build_frame(1, odd))
    agreed(lambda codec: codec.fragment(odd, b""))
    agreed(lambda codec: codec.fragment(1, odd))
    agreed(lambda codec: codec.fragment(1, b"", size=odd))
    agreed(lambda codec: codec.fragment(1, b"", mask=lambda: odd))
    agreed(lambda codec: codec.build_batch(odd))
    agreed(lambda codec: codec.build_batch([(odd, b"")]))
    agreed(lambda codec: codec.build_batch([(1, odd)]))
    agreed(lambda codec: codec.Parser(client=True, max_size=1).feed_messages(odd))
    agreed(lambda codec: codec.Parser(client=True, max_size=1).feed_messages(b"", odd))
    agreed(lambda codec: codec.Parser(client=True, max_size=1).receive_buffer(odd))
    agreed(lambda codec: codec.Parser(client=True, max_size=1).buffer_updated(odd))
    agreed(lambda codec: codec.Parser(client=True, max_size=odd).max_size)
    agreed(lambda codec: codec.Parser(client=True, max_size=1, max_frames=odd).max_frames)
    agreed(lambda codec: codec.Parser(client=True, max_size=1).feed(odd))


def face(thing: Any) -> Any:
    """The names, kinds and defaults of a function's parameters; of a class, its public members and theirs."""
    if isinstance(thing, type):
        return {name: face(value) for name, value in vars(thing).items() if not name.startswith("_")}
    if callable(thing):
        parameters = [(each.name, each.kind, each.default) for each in inspect.signature(thing).parameters.values()]
        # Nobody gives ``self`` by its name: the compiled body may know it by its place alone.
        return [each for each in parameters if each[0] != "self"]
    return "property"


@pytest.mark.parametrize("name", [*reference.__all__, "__all__"])
def test_both_bodies_have_the_same_names_parameters_and_defaults(name: str) -> None:
    agreed(lambda codec: name == "__all__" and codec.__all__)
    agreed(lambda codec: face(getattr(codec, name)))
    for codec in BODIES:
        assert name == "__all__" or getattr(codec, name).__doc__


def test_parser_requires_client_and_max_size_as_keywords() -> None:
    for codec in BODIES:
        for args, options in (((True, 1), {}), ((), {"client": True}), ((), {"max_size": 1}), ((), {"size": 1})):
            with pytest.raises(TypeError):
                codec.Parser(*args, **options)


# --- which body -----------------------------------------------------------------------------------


def body_under(pure: str | None, prelude: str = "") -> str:
    environment = {name: value for name, value in os.environ.items() if name != "PLUMEWS_PURE"}
    environment["PYTHONPATH"] = os.pathsep.join(sys.path)
    if pure is not None:
        environment["PLUMEWS_PURE"] = pure
    show = "print(plumews.BODY, plumews.protocol.codec.Parser.__module__)"
    script = f"import sys; {prelude}import plumews; {show}"
    return subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True
    ).stdout.strip()


@pytest.mark.parametrize("pure", [None, "", "0"])
def test_the_compiled_body_is_taken_where_it_is_built(pure: str | None) -> None:
    built = importlib.util.find_spec("plumews._codec") is not None
    assert body_under(pure) == ("compiled plumews._codec" if built else "pure plumews.protocol.pure.parser")


@pytest.mark.parametrize("pure", ["1", "yes"])
def test_plumews_pure_takes_the_plain_body(pure: str) -> None:
    assert body_under(pure) == "pure plumews.protocol.pure.parser"


def test_pure_body_is_used_if_the_compiled_one_is_missing() -> None:
    assert body_under(None, "sys.modules['plumews._codec'] = None; ") == "pure plumews.protocol.pure.parser"
