"""What proxies wrote down, read from the right; whom to believe is not asked here, and neither is what it means."""

from __future__ import annotations

import pytest

from plumews.errors import InvalidHeader
from plumews.hops import Hop, older_hops, standard_hops
from plumews.http11 import Request


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


def test_names_are_read_in_any_case_and_values_are_left_as_they_are() -> None:
    assert standard('FOR="[2001:DB8::1]:80"; Proto=HTTPS ;HOST=Chat.Example') == [
        Hop("[2001:DB8::1]:80", "HTTPS", "Chat.Example")
    ]


def test_a_quoted_value_may_hold_what_separates_entries() -> None:
    assert standard('for="a, for=b;\\"c\\\\"') == [Hop('a, for=b;"c\\', None, None)]


def test_a_line_that_a_client_left_broken_is_not_read_until_its_turn_comes() -> None:
    hops = standard_hops(request('Forwarded: for="', "Forwarded: for=b, for=c"))
    assert [next(hops).node, next(hops).node] == ["c", "b"]
    with pytest.raises(InvalidHeader, match="invalid Forwarded header: expected name=value pairs"):
        next(hops)


@pytest.mark.parametrize(
    "value",
    [
        "198.51.100.1",
        "for",
        "for=",
        "for =198.51.100.1",
        "for= 198.51.100.1",
        "=198.51.100.1",
        "for=[2001:db8::1]",
        'for="198.51.100.1',
        'for="198.51.100.1\\',
        'for="198.51.100.1"x',
        "for=198.51.100.1;for=198.51.100.1",
        "for=198.51.100.1;FOR=6.6.6.6",
        "for=198.51.100.1 proto=https",
        'for="6.6.6.6, for="[2001:db8::1]"',
    ],
)
def test_what_is_no_list_of_pairs_is_malformed_and_is_not_repeated(value: str) -> None:
    with pytest.raises(InvalidHeader, match=r"^invalid Forwarded header: expected name=value pairs") as caught:
        standard(value)
    assert "198" not in str(caught.value).replace("for=192.0.2.1", "")


# --- X-Forwarded-For and its kin ------------------------------------------------------------------


def test_the_older_lists_are_read_from_the_right_over_all_lines_without_what_is_empty() -> None:
    assert older("X-Forwarded-For: a, b", "x-forwarded-for: ,c , ") == [Hop(node, None, None) for node in "cba"]
    assert older() == []


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
