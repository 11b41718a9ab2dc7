"""What proxies wrote down, read from the right; whom to believe is not asked here, and neither is what it means."""

from __future__ import annotations

import pytest

from plumews.http11.hops import Hop, older_hops, standard_hops
from plumews.http11.models import Request


def request(*lines: str) -> Request:
    pairs = [line.split(": ", 1) for line in lines]
    return Request("GET", "/", [(name, value) for name, value in pairs])


def standard(*lines: str) -> list[Hop]:
    return list(standard_hops(request(*(f"Forwarded: {line}" for line in lines))))


def older(*lines: str) -> list[Hop]:
    return list(older_hops(request(*lines)))


# --- Forwarded ------------------------------------------------------------------------------------


def test_the_newest_entry_comes_first_over_all_lines() -> None:
    assert [hop.node for hop in standard("for=a, for=b", "for=c")] == ["c", "b", "a"]
    assert standard() == standard("", " , ;;, ") == []


def test_an_entry_says_what_it_says_and_no_more() -> None:
    assert standard("for=a;proto=https;host=h") == [Hop("a", "https", "h")]
    assert standard("proto=https") == [Hop(None, "https", None)]
    assert standard("by=b;secret=_x") == [Hop(None, None, None)]  # an entry all the same


def test_an_empty_scheme_or_host_is_not_said() -> None:
    for line in ("for=a;proto=;host=", 'for=a;proto="";host=""', "for=a;host=;proto= x"):
        assert standard(line) in ([Hop("a", None, None)], [Hop("a", "x", None)])
    assert older("X-Forwarded-For: a", "X-Forwarded-Proto: ", 'X-Forwarded-Host: ""') == [Hop("a", None, None)]


def test_names_are_read_in_any_case_and_values_are_left_as_they_are() -> None:
    assert standard('FOR="[2001:DB8::1]:80"; Proto=HTTPS ;HOST=Chat.Example') == [
        Hop("[2001:DB8::1]:80", "HTTPS", "Chat.Example")
    ]


def test_a_quoted_value_may_hold_what_separates_entries() -> None:
    assert standard('for="a, for=b;\\"c\\\\"') == [Hop('a, for=b;"c\\', None, None)]


@pytest.mark.parametrize(
    "before", ["", 'for="', 'for="x', "for", "=", 'for=6.6.6.6;x="', 'x="\\', "for=a;for=b", '"', 'for="a"b']
)
@pytest.mark.parametrize(
    ("own", "hop"),
    [
        ("for=198.51.100.1", Hop("198.51.100.1", None, None)),
        ('for="[2001:db8::1]:80";proto=https;host="a.example"', Hop("[2001:db8::1]:80", "https", "a.example")),
        ('proto=https;for="_x"', Hop("_x", "https", None)),
    ],
)
@pytest.mark.parametrize("line", ["{}, {}", "{},{}", "{}\n{}"])
def test_nothing_before_a_proxys_element_hides_it(before: str, own: str, hop: Hop, line: str) -> None:
    assert standard(*line.format(before, own).split("\n"))[0] == hop


@pytest.mark.parametrize(
    ("value", "node"),
    [
        ("198.51.100.1", "unknown"),
        ("for", "unknown"),
        ("for=", ""),
        ("for =198.51.100.1", "198.51.100.1"),
        ("for= 198.51.100.1 ; proto=https", "198.51.100.1"),
        (";; for = 198.51.100.1 ;;", "198.51.100.1"),
        ("=198.51.100.1", None),
        ("for=[2001:db8::1]", "[2001:db8::1]"),
        ("for=[2001:db8::1]:80", "[2001:db8::1]:80"),
        ("for=2001:db8::1", "2001:db8::1"),
        ("for=fe80::1%eth0", "fe80::1%eth0"),
        ('for="198.51.100.1', '"198.51.100.1'),
        ('for="198.51.100.1"x', '"198.51.100.1"x'),
        ("for=198.51.100.1;for=198.51.100.1", "unknown"),
        ("for=198.51.100.1;FOR=6.6.6.6", "unknown"),
        ("for=198.51.100.1 proto=https", "198.51.100.1 proto=https"),
    ],
)
def test_an_element_is_read_as_far_as_it_can_be(value: str, node: str | None) -> None:
    assert standard(value)[0].node == node


# --- X-Forwarded-For and its kin ------------------------------------------------------------------


def test_the_older_lists_are_read_from_the_right_over_all_lines_without_what_is_empty() -> None:
    assert older("X-Forwarded-For: a, b", "x-forwarded-for: ,c , ") == [Hop(node, None, None) for node in "cba"]
    assert older() == []


def test_the_older_lists_may_be_quoted() -> None:
    assert older('X-Forwarded-For: "[::1]:80" , "', 'X-Forwarded-Proto: "https"') == [
        Hop('"', "https", None),
        Hop("[::1]:80", "https", None),
    ]


def test_one_scheme_and_host_hold_for_every_entry_and_a_list_of_them_for_each_its_own() -> None:
    assert older("X-Forwarded-For: a, b", "X-Forwarded-Proto: https", "X-Forwarded-Host: h") == [
        Hop("b", "https", "h"),
        Hop("a", "https", "h"),
    ]
    assert [hop.scheme for hop in older("X-Forwarded-For: a, b, c", "X-Forwarded-Proto: wss, http")] == [
        "http",
        "wss",
        "wss",
    ]


def test_a_scheme_or_a_host_without_a_client_is_an_entry_and_only_the_newest_of_them() -> None:
    assert older("X-Forwarded-Proto: http, https", "X-Forwarded-Host: a, b") == [Hop(None, "https", "b")]
