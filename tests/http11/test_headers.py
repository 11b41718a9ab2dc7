"""Tests of headers: the mapping, and the parsers of lists and hosts."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plumews.errors import InvalidHeader
from plumews.http11.headers import (
    _SHARED_VALUE_SIZE,
    _SHARED_VALUES,
    Headers,
    MultipleValuesError,
    has_token,
    is_token,
    parse_host,
    parse_tokens,
    value_of,
)

# --- the mapping ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "sources",
    [
        ([("Host", "a"), ("X-Room", "blue")],),
        ({"Host": "a", "X-Room": "blue"},),
        (("Host", "a"), ("X-Room", "blue")),
        ((("Host", "a"), ("X-Room", "blue")),),
        (Headers([("Host", "a")]), {"X-Room": "blue"}),
        (iter([("Host", "a")]), ("X-Room", "blue")),
    ],
    ids=["list", "mapping", "pairs", "tuple", "headers and mapping", "iterator and pair"],
)
def test_headers_accept_pairs_mappings_and_headers(sources):
    assert list(Headers(*sources).raw_items()) == [("Host", "a"), ("X-Room", "blue")]


def test_two_strings_of_two_letters_are_one_pair():
    assert list(Headers(("TE", "ab")).raw_items()) == [("TE", "ab")]


def test_names_compare_without_case_and_keep_spelling():
    headers = Headers({"X-RoOm": "blue"})
    assert headers["x-room"] == headers["X-ROOM"] == "blue"
    assert "X-Room" in headers
    assert 1 not in headers
    assert list(headers) == ["X-RoOm"]


def test_missing_name_raises_key_error_and_get_has_a_default():
    headers = Headers()
    with pytest.raises(KeyError):
        headers["Host"]
    assert headers.get("Host") is None
    assert headers.get("Host", "a") == "a"
    assert headers.get_all("Host") == []


def test_repeated_name_keeps_all_lines_and_lookup_raises():
    headers = Headers([("Set-Cookie", "a"), ("Server", "x"), ("set-cookie", "b")])
    assert headers.get_all("SET-COOKIE") == ["a", "b"]
    with pytest.raises(MultipleValuesError, match=r"Set-Cookie stands on 2 lines: use get_all"):
        headers["Set-Cookie"]
    assert isinstance(MultipleValuesError(), LookupError)
    assert list(headers) == ["Set-Cookie", "Server"]
    assert len(headers) == 2
    assert list(headers.raw_items()) == [("Set-Cookie", "a"), ("Server", "x"), ("set-cookie", "b")]


def test_set_item_adds_a_line_and_del_removes_all():
    headers = Headers({"A": "1", "B": "2"})
    headers["a"] = "3"
    assert headers.get_all("A") == ["1", "3"]
    del headers["A"]
    assert list(headers.raw_items()) == [("B", "2")]
    with pytest.raises(KeyError):
        del headers["A"]


def test_get_all_returns_a_copy():
    headers = Headers({"A": "1"})
    headers.get_all("A").append("2")
    assert headers.get_all("A") == ["1"]


def test_equality_ignores_case_and_compares_order_of_values():
    assert Headers({"A": "1", "B": "2"}) == Headers({"b": "2", "a": "1"})
    assert Headers([("A", "1"), ("A", "2")]) != Headers([("A", "2"), ("A", "1")])
    assert Headers({"A": "1"}) != [("A", "1")]


def test_serialize_keeps_order_and_spelling():
    headers = Headers([("B", "2"), ("a", "\xe9"), ("B", "")])
    assert headers.serialize() == b"B: 2\r\na: \xe9\r\nB: \r\n\r\n"


def test_repr_of_headers_shows_names_only():
    assert repr(Headers({"Authorization": "Bearer secret"})) == "<Headers Authorization>"


# --- outgoing headers -----------------------------------------------------------------------------


def test_outgoing_name_with_any_byte_is_a_token_or_refused():
    token = b"!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
    for code in range(0x180):
        char = chr(code)
        if code < 128 and code in token:
            Headers({f"X{char}": "v"})
        else:
            with pytest.raises(ValueError, match="invalid header name"):
                Headers({f"X{char}": "v"})
    with pytest.raises(ValueError, match="invalid header name ''"):
        Headers({"": "v"})


def test_outgoing_value_with_any_byte_is_text_or_refused():
    for code in range(0x180):
        char = chr(code)
        if char == "\t" or 0x20 <= code <= 0x7E or 0xA0 <= code <= 0xFF:
            assert Headers({"X-Room": f"a{char}b"})["X-Room"] == f"a{char}b"
        else:
            for value in (char, f"a{char}", f"{char}b", f"\xe9{char}"):
                with pytest.raises(ValueError, match="header X-Room"):
                    Headers({"X-Room": value})


def test_received_value_is_checked_when_it_is_sent():
    read = Headers.read([("X-City", "Z\xfcrich"), ("X-Agent", "a\x85b")])
    for headers in (read, Headers(read)):
        with pytest.raises(ValueError, match="invalid value of header X-Agent: it contains the control character"):
            headers.serialize()
    assert Headers.read([("X-City", "Z\xfcrich")]).serialize() == b"X-City: Z\xfcrich\r\n\r\n"


def test_refused_value_leaves_headers_unchanged():
    headers = Headers({"A": "1"})
    with pytest.raises(ValueError, match="control character"):
        headers["B"] = "x\r\nSet-Cookie: y"
    assert headers.serialize() == b"A: 1\r\n\r\n"


def test_value_that_is_no_str_raises_type_error():
    with pytest.raises(TypeError, match="str and int"):
        Headers({"Content-Length": 5})


# --- lists ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "tokens"),
    [
        ([], []),
        ([""], []),
        (["chat"], ["chat"]),
        (["chat,superchat"], ["chat", "superchat"]),
        ([" \tchat\t , superchat "], ["chat", "superchat"]),
        (["chat, superchat", "mini"], ["chat", "superchat", "mini"]),
        ([",chat,,", ",", "mini"], ["chat", "mini"]),
        (["constructor, __class__, bearer.eyJ.eyJ.x-_"], ["constructor", "__class__", "bearer.eyJ.eyJ.x-_"]),
    ],
)
def test_lines_of_a_list_are_joined_without_empty_elements(values, tokens):
    assert parse_tokens(values) == tokens


@pytest.mark.parametrize(
    "value", ['"chat"', "a b", "a;b", "a/b", "a=b", "chat\x85", "\x0bchat", "chat\x1c", "ch\xe4t", "(", "chat, \\"]
)
def test_element_that_is_no_token_raises_invalid_header(value):
    with pytest.raises(InvalidHeader, match=r"invalid Sec-WebSocket-Protocol: expected tokens") as caught:
        parse_tokens(["ok", value], "Sec-WebSocket-Protocol")
    assert caught.value.status == 400


def test_is_token_for_each_character():
    assert "".join(chr(code) for code in range(0x250) if is_token(chr(code))) == (
        "!#$%&'*+-.0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ^_`abcdefghijklmnopqrstuvwxyz|~"
    )
    assert not is_token("")


@pytest.mark.parametrize(
    "values",
    [
        ["upgrade"],
        ["Upgrade"],
        ["keep-alive, Upgrade"],
        ["keep-alive", "UPGRADE"],
        ["h2/2, upgrade"],
        [",, upgrade\t,"],
    ],
)
def test_has_token_finds_any_case_on_any_line(values):
    assert has_token(values, "upgrade")


@pytest.mark.parametrize(
    "values", [[], [""], ["upgrades"], ["up grade"], ['"upgrade"'], ["upgrade;q=1"], ["upgrade\x85"], ["close"]]
)
def test_has_token_ignores_parts_and_quotes(values):
    assert not has_token(values, "upgrade")


def cheapest_ratio(job: Callable[[int], object], size: int) -> float:
    """Return the ratio of the times for twice the size and the size, the best of many rounds on a busy machine."""
    times = {size: float("inf"), 2 * size: float("inf")}
    for _ in range(200):
        for n in times:
            start = time.process_time()
            job(n)
            times[n] = min(times[n], time.process_time() - start)
        if times[2 * size] <= 2.2 * times[size]:
            break
    return times[2 * size] / times[size]


@pytest.mark.parametrize(
    "make",
    [
        lambda n: "," * n,
        lambda n: "b" + " " * n + "x",
        lambda n: '"' + "\\c" * (n // 2),
        lambda n: "a," * (n // 2) + "(",
        lambda n: "a" * n + "\x00",
        lambda n: " ," * (n // 2),
    ],
    ids=["commas", "blanks", "escapes", "elements", "letters", "blanks and commas"],
)
def test_row_14_lists_take_linear_time(make):
    def read(n: int) -> None:
        with contextlib.suppress(InvalidHeader):
            parse_tokens([make(n)])
        has_token([make(n)], "upgrade")

    assert cheapest_ratio(read, 100_000) <= 2.2


# --- hosts ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("example.com", ("example.com", None)),
        ("Example.COM:8080", ("example.com", 8080)),
        ("my_service:1", ("my_service", 1)),
        ("127.0.0.1:65535", ("127.0.0.1", 65535)),
        ("[::1]", ("::1", None)),
        ("[2001:DB8::1]:443", ("2001:db8::1", 443)),
        ("xn--bcher-kva.example", ("xn--bcher-kva.example", None)),
    ],
)
def test_parse_host_accepts_names_and_addresses_with_port(value, expected):
    assert parse_host(value) == expected


@pytest.mark.parametrize(
    "value",
    [
        "", " ", ":80", "a b", "a@b", "a/b", "a:b", "a:", "a:-1", "a:65536", "a:000080", "a:\u00b2", "a:\u0663",
        "a:1:2", "a,b", "a?b", "::1", "[::1", "[]", "[example.com]", "[::1]x", "[::1]80", "[::1]:", "[fe80::1%25lo]",
        "b\u00fccher", "a\x00", "a\\b", "a#b", "*", "%61",
    ],
)  # fmt: skip
def test_parse_host_refuses_other_text(value):
    with pytest.raises(ValueError, match=r"invalid (host|port)"):
        parse_host(value)


@given(st.lists(st.tuples(st.sampled_from(["A", "a", "Host", "host", "HOST", "B"]), st.sampled_from(["", "x", "y"]))))
def test_received_headers_equal_added_ones(pairs: list[tuple[str, str]]) -> None:
    added, read = Headers(pairs), Headers.read(list(pairs))
    assert read == added
    assert list(read.raw_items()) == list(added.raw_items())
    assert [read.get_all(name) for name in "ABh"] == [added.get_all(name) for name in "ABh"]
    several = [name for name in ("B", "Host", "A") if len(added.get_all(name)) > 1]
    assert read.repeated(("B", "Host", "A")) == (several[0] if several else None)


# --- shared values ----------------------------------------------------------------------------------


def test_common_values_are_shared_and_secrets_are_not():
    browser = b"Mozilla/5.0 (a browser) " + b"x" * 100
    assert value_of("User-Agent", browser + b" \t") == browser.decode()
    assert value_of("User-Agent", b"" + browser) is value_of("User-Agent", bytes(bytearray(browser)))
    for name in ("Cookie", "Authorization", "Sec-WebSocket-Protocol", "X-Token"):
        assert value_of(name, browser) == browser.decode()
        assert value_of(name, browser) is not value_of(name, browser)


def test_shared_values_are_bounded_in_number_and_size():
    first = value_of("Origin", b"https://example.com")
    long = b"x" * (_SHARED_VALUE_SIZE + 1)
    assert value_of("Origin", long) == long.decode()
    assert value_of("Origin", long) is not value_of("Origin", long)
    assert value_of("Origin", b"https://example.com") is first
    for number in range(_SHARED_VALUES):
        value_of("Origin", b"https://%d.example.com" % number)
    assert value_of("Origin", b"https://example.com") is not first
