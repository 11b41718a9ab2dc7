"""What a text message may be: the seed's rules, in its order, in its words."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

import plumews
from plumews import InvalidText, TextPolicy, limits, validate_text_message

ANYTHING = TextPolicy(allow_empty=True, reject_control_characters=False)


def broken(message, policy=None):
    """The rule that ``message`` breaks, and the words for it."""
    with pytest.raises(InvalidText) as caught:
        validate_text_message(message, policy)
    return caught.value.rule, str(caught.value)


def test_the_defaults_are_the_seeds():
    assert TextPolicy() == TextPolicy(
        max_length=1024 * 1024,
        allow_empty=False,
        reject_control_characters=True,
        allow_newlines=False,
        allow_tabs=False,
        on_violation="close",
    )


@pytest.mark.parametrize("message", ["hello", "ü", "\u0085\u200b\u202e", "x" * limits.TEXT_LENGTH, " ", "\x80", "~"])
def test_a_line_of_text_is_returned_as_it_came(message):
    assert validate_text_message(message) == message
    assert validate_text_message(message.encode()) == message


@pytest.mark.parametrize(
    ("message", "rule", "words"),
    [
        ("x" * (limits.TEXT_LENGTH + 1), "length", "message too long: more than 1048576 bytes"),
        ("", "empty", "empty message"),
        (b"", "empty", "empty message"),
        (b"ab\xff", "utf8", "invalid utf-8 in message at position 2"),
        (b"\xe2\x82", "utf8", "invalid utf-8 in message at position 0"),
        ("a\ud800", "utf8", "invalid utf-8 in message at position 1"),
        ("a\nb", "control", "message contains control characters: U+000A at position 1"),
        ("\x1b[2J", "control", "message contains control characters: U+001B at position 0"),
        (b"\xc3\xbc\x7f", "control", "message contains control characters: U+007F at position 1"),
    ],
    ids=["length", "empty", "no bytes", "bad byte", "cut", "surrogate", "newline", "escape", "delete"],
)
def test_each_rule_has_the_seeds_phrase_and_says_where(message, rule, words):
    assert broken(message) == (rule, words)


@pytest.mark.parametrize(("rule", "code"), [("length", 1009), ("empty", 1008), ("utf8", 1007), ("control", 1008)])
def test_each_rule_has_its_close_code(rule, code):
    assert InvalidText(rule, "x").close_code == code


def test_the_order_is_length_empty_utf8_control():
    short = TextPolicy(max_length=2)
    assert broken(b"\x00\xff\x00", short)[0] == "length"
    assert broken(b"\x00\xff", short)[0] == "utf8"
    assert broken(b"\x00", short)[0] == "control"


@pytest.mark.parametrize("character", [*map(chr, range(0x20)), "\x7f"], ids=lambda character: f"{ord(character):02x}")
def test_every_control_character_is_refused_unless_it_is_allowed(character):
    message = f"a{character}b"
    assert broken(message)[0] == "control"
    for allowed, characters in (({"allow_newlines": True}, "\r\n"), ({"allow_tabs": True}, "\t")):
        if character in characters:
            assert validate_text_message(message, TextPolicy(**allowed)) == message
        else:
            assert broken(message, TextPolicy(**allowed))[0] == "control"
    assert validate_text_message(message, ANYTHING) == message


def test_what_is_empty_may_be_allowed():
    assert validate_text_message("", ANYTHING) == ""


@given(st.text(max_size=20), st.integers(1, 60))
def test_the_length_is_counted_in_bytes_of_utf8(message, most):
    policy = TextPolicy(max_length=most, allow_empty=True, reject_control_characters=False)
    encoded = message.encode()
    for given_ in (message, encoded):
        if len(encoded) > most:
            assert broken(given_, policy)[0] == "length"
        else:
            assert validate_text_message(given_, policy) == message


@pytest.mark.parametrize("character", ["a", "ü", "€", "😀", "\ud800"], ids=["1", "2", "3", "4", "surrogate"])
def test_the_length_is_exact_for_characters_of_every_size(character):
    size = len(character.encode("utf-8", "surrogatepass"))
    for count in (2, 5):
        message = character * count
        assert broken(message, TextPolicy(max_length=size * count - 1))[0] == "length"
        exact = TextPolicy(max_length=size * count)
        if character == "\ud800":
            assert broken(message, exact)[0] == "utf8"
        else:
            assert validate_text_message(message, exact) == message


@given(st.binary(max_size=30))
def test_bytes_are_text_exactly_if_python_can_decode_them(data):
    try:
        expected = data.decode()
    except UnicodeDecodeError:
        assert broken(data, ANYTHING)[0] == "utf8"
    else:
        assert validate_text_message(data, ANYTHING) == expected


def test_nothing_of_the_message_stands_in_an_error():
    for message in ("secret\x00", b"secret\xff", "secret" * 1000):
        text = broken(message, TextPolicy(max_length=100))[1]
        assert "secret" not in text
        assert text.isascii()
        assert text.isprintable()


@pytest.mark.parametrize("message", [None, 7, ["x"], memoryview(b"x")], ids=lambda message: type(message).__name__)
def test_what_is_no_text_is_a_type_error_that_names_it(message):
    with pytest.raises(TypeError, match=f"str or bytes, not {type(message).__name__}"):
        validate_text_message(message)


@pytest.mark.parametrize(
    ("wrong", "error", "words"),
    [
        ({"max_length": 0}, ValueError, "1 byte or more, not 0"),
        ({"max_length": True}, TypeError, "an int, in bytes, not bool"),
        ({"max_length": 1.5}, TypeError, "an int, in bytes, not float"),
        ({"on_violation": "ignore"}, ValueError, '"close" or "skip", not \'ignore\''),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_a_policy_that_cannot_be_is_refused_in_words(wrong, error, words):
    with pytest.raises(error, match=words):
        TextPolicy(**wrong)


def test_an_invalid_text_is_a_value_error_of_ours():
    assert issubclass(InvalidText, ValueError)
    assert issubclass(InvalidText, plumews.WebSocketException)
