"""Tests of the checks of origins and hosts."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plumews.errors import InvalidHandshake, InvalidHeader, InvalidOrigin
from plumews.http11.headers import Headers
from plumews.http11.models import Request
from plumews.http11.origin import (
    LOOPBACK_HOSTS,
    Origin,
    allowed_hosts,
    allowed_origins,
    check_host,
    check_origin,
    is_loopback,
    parse_origin,
)


def request(*origins: str, host: str | None = "good.com") -> Request:
    return Request(
        "GET", "/", Headers([] if host is None else [("Host", host)], [("Origin", text) for text in origins])
    )


def refused(asked: Request, allowed: list[Any] | None = None, *, secure: bool = True, **more: bool) -> None:
    with pytest.raises(InvalidOrigin, match=r"^forbidden origin$") as caught:
        check_origin(asked, allowed, secure=secure, **more)
    assert (caught.value.status, caught.value.code) == (403, "WEBSOCKET_FORBIDDEN_ORIGIN")


# --- origins --------------------------------------------------------------------------------------


def test_request_without_origin_passes():
    for allowed in (None, [], ["https://good.com"], [None]):
        check_origin(request(), allowed, secure=True)


def test_row_21_missing_origin_is_refused_where_required():
    refused(request(), None, required=True)
    refused(request(), ["*"], required=True)
    check_origin(request("https://good.com"), None, secure=True, required=True)


@pytest.mark.parametrize(
    ("origin", "host", "secure"),
    [
        ("https://good.com", "good.com", True),
        ("https://good.com", "good.com:443", True),
        ("https://good.com:443", "good.com", True),
        ("HTTPS://Good.COM", "gOOd.com", True),
        ("https://good.com:8443", "good.com:8443", True),
        ("http://good.com", "good.com", False),
        ("http://good.com:80", "good.com", False),
        ("http://localhost:8000", "localhost:8000", False),
        ("http://[::1]:8000", "[::1]:8000", False),
        ("https://xn--bcher-kva.example", "xn--bcher-kva.example", True),
    ],
)
def test_same_origin_passes_unlisted(origin, host, secure):
    check_origin(request(origin, host=host), None, secure=secure)
    check_origin(request(origin, host=host), ["https://other.example"], secure=secure)


FOREIGN = [
    "https://evil.com",
    "https://good.com.evil.com",
    "https://evilgood.com",
    "https://evil.com/good.com",
    "https://evil.com#good.com",
    "https://evil.com?good.com",
    "https://evil.com\\good.com",
    "https://sub.good.com",
    "https://good.co",
    "https://good.com.",
    "https://good.com:8443",
    "https://good.com:80",
    "http://good.com",
    "http://good.com:443",
    "wss://good.com",
    "ftp://good.com",
    "file://",
    "https://good.com@evil.com",
    "https://user@good.com",
    "https://user:pass@good.com",
    "https://good.com/",
    "https://good.com/path",
    "https://good.com?",
    "https://good.com:",
    "https://good.com:443:443",
    "https://good.com:99999",
    "https://good.com https://evil.com",
    "https://good.com, https://good.com",
    "https://*",
    "https://",
    "https:good.com",
    "//good.com",
    "good.com",
    "",
    "*",
    "null",
    "NULL",
    "https://g\xf6\xf6d.com",
    "https://xn--gd-fkaa.com",
    "https://good%2ecom",
    "https://good.com\t",
]


@pytest.mark.parametrize("origin", FOREIGN)
def test_foreign_origin_is_403(origin):
    refused(request(origin))
    refused(request(origin), [])
    refused(request(origin), ["https://good.com", None, "https://other.example:8443"])


def test_two_origins_are_400_even_if_any_is_allowed():
    for allowed in (None, ["*"], ["https://good.com"]):
        with pytest.raises(InvalidHeader, match="more than one Origin") as caught:
            check_origin(request("https://good.com", "https://good.com"), allowed, secure=True)
        assert caught.value.status == 400


@pytest.mark.parametrize(
    ("listed", "origin"),
    [
        ("https://app.example", "https://app.example"),
        ("https://app.example:443", "https://app.example"),
        ("HTTPS://App.Example", "https://app.example"),
        ("http://app.example:8080", "http://app.example:8080"),
        ("http://[::1]:3000", "http://[::1]:3000"),
    ],
)
def test_listed_origin_passes_with_any_host_and_scheme(listed, origin):
    for secure in (True, False):
        for host in ("good.com", None):
            check_origin(request(origin, host=host), [None, "https://first.example", listed], secure=secure)


def test_null_origin_passes_only_if_listed():
    check_origin(request("null"), ["null"], secure=True)
    refused(request("null"), ["https://null"])
    refused(request("https://evil.com"), ["null"])


def test_star_allows_any_origin():
    for origin in FOREIGN:
        check_origin(request(origin), ["*"], secure=True)


def test_entry_that_is_no_origin_matches_nothing():
    refused(request("app.example"), ["app.example"])
    refused(request("https://app.example/"), ["https://app.example/"])
    refused(request("https://sub.app.example"), ["https://*.app.example"])


@pytest.mark.parametrize("host", [None, "", "a b", "user@good.com"])
def test_same_origin_needs_a_valid_host(host):
    refused(request("https://good.com", host=host))
    two = Request("GET", "/", Headers(("Host", "good.com"), ("Host", "good.com"), ("Origin", "https://good.com")))
    refused(two)


def test_origin_is_parsed_into_scheme_host_and_port():
    assert parse_origin("https://Good.com") == Origin("https", "good.com", 443)
    assert parse_origin("http://[::1]:8000") == Origin("http", "::1", 8000)
    with pytest.raises(ValueError, match=r"expected http:// or https://"):
        parse_origin("good.com")


@given(st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=40), st.booleans())
def test_random_origin_passes_only_if_it_is_equal(text, secure):
    for origin in (text, "https://" + text, "https://good.com" + text, "https://" + text + "good.com"):
        try:
            check_origin(request(origin), ["https://app.example"], secure=secure)
        except InvalidHandshake:
            continue
        assert parse_origin(origin) in (
            Origin("https" if secure else "http", "good.com", 443 if secure else 80),
            Origin("https", "app.example", 443),
        )


# --- hosts ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "LOCALHOST:8000",
        "app.localhost",
        "a.b.localhost:1",
        "127.0.0.1",
        "127.0.0.1:8000",
        "[::1]",
        "[::1]:8000",
    ],
)
def test_loopback_names_are_accepted_on_loopback(host):
    check_host(request(host=host), LOOPBACK_HOSTS)


@pytest.mark.parametrize(
    "host",
    ["evil.com", "localhost.evil.com", "evil-localhost", "xlocalhost", "127.0.0.1.evil.com", "0.0.0.0", "127.1",
     "2130706433", "0x7f.0.0.1", "169.254.169.254", "[::2]", "good.com:8000"],
)  # fmt: skip
def test_foreign_host_on_loopback_is_403(host):
    with pytest.raises(InvalidHeader, match=r"^forbidden host$") as caught:
        check_host(request(host=host), LOOPBACK_HOSTS)
    assert (caught.value.status, caught.value.code) == (403, "WEBSOCKET_FORBIDDEN_HOST")


@pytest.mark.parametrize("host", [None, "", "a b", "localhost@evil.com", "localhost/x", "::1", "localhost:x"])
def test_missing_or_malformed_host_is_400(host):
    with pytest.raises(InvalidHeader, match="Host header") as caught:
        check_host(request(host=host), LOOPBACK_HOSTS)
    assert caught.value.status == 400


def test_two_hosts_are_400():
    with pytest.raises(InvalidHeader, match="exactly one Host"):
        check_host(Request("GET", "/", Headers(("Host", "localhost"), ("Host", "localhost"))), LOOPBACK_HOSTS)


def test_no_host_is_checked_with_none_or_star():
    for allowed in (None, ["*"], ["localhost", "*"]):
        check_host(request(host="evil.com"), allowed)
        check_host(request(host=None), allowed)


def test_listed_host_matches_in_any_case_and_below_a_star():
    allowed = ["Chat.Example", "*.sub.example", "[::1]", "2001:DB8::1"]
    for host in ("chat.example:1", "a.sub.example", "a.b.SUB.example:2", "[::1]:3", "[2001:db8::1]"):
        check_host(request(host=host), allowed)
    for host in ("sub.example", "xsub.example", "a.chat.example", "a.sub.example.evil.com"):
        with pytest.raises(InvalidHeader, match="forbidden host"):
            check_host(request(host=host), allowed)
    with pytest.raises(InvalidHeader, match="forbidden host"):
        check_host(request(host="chat.example"), [])


@pytest.mark.parametrize(
    "host", ["localhost", "LocalHost", "app.localhost", "127.0.0.1", "127.8.9.1", "::1", "[::1]", "::ffff:127.0.0.1"]
)
def test_is_loopback_is_true_for_loopback_names(host):
    assert is_loopback(host)


@pytest.mark.parametrize(
    "host",
    ["", "0.0.0.0", "::", "good.com", "localhost.com", "127.1", "10.0.0.1", "::ffff:10.0.0.1", "notlocalhost"],
)
def test_is_loopback_is_false_for_other_names(host):
    assert not is_loopback(host)


# --- option values --------------------------------------------------------------------------------


def test_valid_lists_of_origins_and_hosts_are_returned():
    origins = ["https://app.example", "http://localhost:3000", "null", "*", None, re.compile(".*")]
    assert allowed_origins(origins) == tuple(origins)
    hosts = ["chat.example", "*.chat.example", "127.0.0.1", "::1", "[::1]", "*"]
    assert allowed_hosts(hosts) == tuple(hosts)
    assert allowed_hosts(LOOPBACK_HOSTS) == LOOPBACK_HOSTS
    assert allowed_origins(None) is allowed_hosts(None) is None


@pytest.mark.parametrize(
    "origin",
    ["", "app.example", "https://app.example/", "https://*.app.example", "https://b\u00fccher.example", "wss://a"],
)
def test_origin_that_can_never_match_raises_value_error(origin):
    with pytest.raises(ValueError, match=r"invalid (origin|host)"):
        allowed_origins(["https://good.com", origin])


@pytest.mark.parametrize(
    "host", ["", "*.", "a b", "localhost:8000", "http://a", "[::1]:80", "a.*", "b\u00fccher.example"]
)
def test_host_that_can_never_match_raises_value_error(host):
    with pytest.raises(ValueError, match=r"invalid allowed host .* without a port"):
        allowed_hosts(["good.com", host])


# --- patterns -------------------------------------------------------------------------------------

OF_EXAMPLE = re.compile(r"https://([a-z0-9-]+\.)*example\.com(:\d+)?")


@pytest.mark.parametrize(
    "origin", ["https://example.com", "https://a.b.example.com:8443", "HTTPS://A.EXAMPLE.COM", "https://good.com"]
)
def test_pattern_accepts_an_origin_that_matches_completely(origin):
    check_origin(request(origin), [OF_EXAMPLE, "https://other.com"], secure=True)


@pytest.mark.parametrize(
    "origin",
    [
        "https://example.com.evil.net",
        "https://evil.net/https://example.com",
        "http://example.com",
        "https://example.com ",
        "https://user@example.com",
        "https://xexample.com",
        "https://" + "a." * 200 + "example.com",
        "null",
        "",
    ],
)
def test_row_21_pattern_refuses_an_origin_that_matches_in_part(origin):
    refused(request(origin), [OF_EXAMPLE])


@pytest.mark.parametrize("origin", ["null", "https://a/b", "file://", "chrome-extension://abc"])
def test_pattern_refuses_text_that_is_no_origin(origin):
    refused(request(origin), [re.compile(".*", re.DOTALL)])


def test_pattern_of_bytes_raises_type_error():
    with pytest.raises(TypeError, match=r"origins: a pattern must be one of str, not of bytes: b'https://.*'"):
        allowed_origins([re.compile(b"https://.*")])  # type: ignore[list-item]


def test_empty_list_of_allowed_hosts_raises_value_error():
    with pytest.raises(
        ValueError, match='allowed_hosts must have an entry, or nobody could come in: "\\*" is any host'
    ):
        allowed_hosts([])
