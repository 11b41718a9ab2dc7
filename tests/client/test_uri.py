"""Tests of WebSocket URIs: parts, their texts for each place, errors, and secrets that appear in none of them."""

from __future__ import annotations

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plumews.client.uri import Authority, WebSocketURI, basic_auth, parse_authority, parse_uri
from plumews.errors import InvalidURI


@pytest.mark.parametrize(
    ("text", "secure", "host", "port", "resource"),
    [
        ("ws://example.com", False, "example.com", 80, "/"),
        ("wss://example.com", True, "example.com", 443, "/"),
        ("WSS://EXAMPLE.com:8443/a/B?c=D", True, "example.com", 8443, "/a/B?c=D"),
        ("ws://example.com?x", False, "example.com", 80, "/?x"),
        ("ws://example.com:", False, "example.com", 80, "/"),
        ("ws://127.0.0.1:9/", False, "127.0.0.1", 9, "/"),
        ("ws://[::1]:9/", False, "::1", 9, "/"),
        ("ws://[FE80::0:1%25eth0]/", False, "fe80::1%eth0", 80, "/"),
        ("ws://[fe80::1%eth0]/", False, "fe80::1%eth0", 80, "/"),
        ("ws://bücher.example/", False, "xn--bcher-kva.example", 80, "/"),
        ("ws://a_b.internal/", False, "a_b.internal", 80, "/"),
        ("ws://h/ü?q=é", False, "h", 80, "/%C3%BC?q=%C3%A9"),
        ("ws://h/%20{x}|", False, "h", 80, "/%20{x}|"),
    ],
)
def test_uri_is_cut_into_its_parts(text: str, secure: bool, host: str, port: int, resource: str) -> None:
    uri = parse_uri(text)
    assert (uri.secure, uri.host, uri.port, uri.resource) == (secure, host, port, resource)
    assert (uri.user, uri.password) == (None, None)


@pytest.mark.parametrize(
    ("text", "host_header", "netloc", "sni", "tls_name"),
    [
        ("ws://h/", "h", "h:80", "h", "h"),
        ("wss://h:443/", "h", "h:443", "h", "h"),
        ("wss://h:80/", "h:80", "h:80", "h", "h"),
        ("ws://h.example./", "h.example.", "h.example.:80", "h.example", "h.example"),
        ("ws://10.0.0.1/", "10.0.0.1", "10.0.0.1:80", None, "10.0.0.1"),
        ("ws://[::1]/", "[::1]", "[::1]:80", None, "::1"),
        ("wss://[fe80::1%25eth0]:9/", "[fe80::1]:9", "[fe80::1]:9", None, "fe80::1"),
    ],
)
def test_each_place_gets_its_own_text(text: str, host_header: str, netloc: str, sni: str | None, tls_name: str) -> None:
    uri = parse_uri(text)
    assert (uri.host_header, uri.netloc, uri.sni, uri.tls_name) == (host_header, netloc, sni, tls_name)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "must begin with ws://"),
        ("example.com", "must begin with ws://"),
        ("http://h/", "did you mean ws?"),
        ("https://h/", "did you mean wss?"),
        (" ws://h/", "must begin with ws://"),
        ("ws:///path", "no host"),
        ("ws://:80/", "no host"),
        ("ws://h/#part", "fragment"),
        ("ws://h:0/", "port"),
        ("ws://h:65536/", "port"),
        ("ws://h:8o/", "port"),
        ("ws://h:٣/", "port"),
        ("ws://::1/", "must stand in brackets"),
        ("ws://[::1/", "expected [IPv6 address]"),
        ("ws://[::1]9/", "expected [IPv6 address]"),
        ("ws://[::g]/", "no IPv6 address"),
        ("ws://[::1%]/", "zone"),
        ("ws://[::1%25e/", "expected [IPv6 address]"),
        ("ws://[::1%25a b]/", "zone"),
        ("ws://127.1/", "no IPv4 address"),
        ("ws://2130706433/", "no IPv4 address"),
        ("ws://0x7f.0x1/", "no IPv4 address"),
        ("ws://256.0.0.1/", "no IPv4 address"),
        ("ws://a b/", "no host name"),
        ("ws://a%41/", "no host name"),
        ("ws://a..b/", "a label is empty or too long"),
        (f"ws://{'a' * 64}/", "a label is empty or too long"),
        (f"ws://{'a.' * 127}a/", "a label is empty or too long"),
        (f"ws://{'ü' * 300}/", "IDNA"),
        ("ws://\ud800/", "IDNA"),
        ("ws://h/a b", "%20"),
        ("ws://h/a\r\nX: y", "control character"),
        ("ws://h/\ud800", "surrogate"),
        ("ws://a:b%3@h/", "%25"),
        ("ws://a%3Ab:c@h/", "colon"),
        ("ws://a:%0A@h/", "control character"),
        ("ws://a:%FF@h/", "UTF-8"),
        ("ws://a:\ud800@h/", "UTF-8"),
        ("ws://us er:pass/word@h/", "%-encoded"),
    ],
)
def test_malformed_uri_is_an_error_that_says_why(text: str, said: str) -> None:
    with pytest.raises(InvalidURI) as caught:
        parse_uri(text)
    assert said in str(caught.value)
    assert isinstance(caught.value, ValueError)


def test_uri_must_be_text() -> None:
    with pytest.raises(TypeError, match="not bytes"):
        parse_uri(b"ws://h/")  # type: ignore[arg-type]


# --- secrets ----------------------------------------------------------------------------------------


def test_credentials_are_decoded() -> None:
    uri = parse_uri("wss://j%C3%B6:p%40%3A%2F@h/")
    assert (uri.user, uri.password) == ("jö", "p@:/")
    assert uri.authorization == basic_auth("jö", "p@:/") == "Basic asO2OnBAOi8="
    assert parse_uri("ws://only@h/").authorization == basic_auth("only", "")
    assert parse_uri("ws://h/").authorization is None


@pytest.mark.parametrize("text", ["wss://user:hunter2@h:8/p?token=hunter2", "ws://hunter2@h"])
def test_secrets_are_in_no_text(text: str) -> None:
    uri = parse_uri(text)
    assert "hunter2" not in f"{uri} {uri!r} {uri.host_header} {uri.netloc} {Authority.__repr__(uri)}"
    assert "user" not in f"{uri} {uri!r} {uri.url}"


@pytest.mark.parametrize("text", ["ws://us:hunter2@", "ws://us:hunter2@h:x", "ws://us:hunter2%@h", "ws://a:hunter2@h#"])
def test_secrets_are_in_no_error(text: str) -> None:
    with pytest.raises(InvalidURI) as caught:
        parse_uri(text)
    assert "hunter2" not in str(caught.value)


# --- other texts ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ws://h/", "/?since=e.1"),
        ("ws://h/p?a=b", "/p?a=b&since=e.1"),
        ("ws://h/p?since=start&a=b&since=", "/p?a=b&since=e.1"),
        ("ws://h/p?s%69nce=x&token=a%20b+c", "/p?token=a%20b+c&since=e.1"),
    ],
)
def test_query_parameter_replaces_the_one_of_its_name(text: str, expected: str) -> None:
    assert parse_uri(text).with_query({"since": "e.1"}).resource == expected


def test_uris_are_values() -> None:
    uri = parse_uri("wss://u:p@h/x")
    assert uri == parse_uri("wss://u:p@H:443/x")
    assert hash(uri) == hash(parse_uri("wss://u:p@h/x"))
    assert pickle.loads(pickle.dumps(uri)) == uri


def test_authority_has_the_port_of_its_caller() -> None:
    proxy = parse_authority("u:p@h", 3128, "proxy URL")
    assert (str(proxy), proxy.port, proxy.authorization) == ("h:3128", 3128, basic_auth("u", "p"))
    with pytest.raises(InvalidURI, match="invalid proxy URL"):
        parse_authority("h:x", 3128, "proxy URL")


@given(st.text(max_size=60))
def test_any_text_is_a_uri_or_a_named_error(text: str) -> None:
    try:
        uri = parse_uri(f"ws://{text}")
    except InvalidURI:
        return
    assert isinstance(uri, WebSocketURI)
    line = f"GET {uri.resource} HTTP/1.1\r\nHost: {uri.host_header}"
    assert line.isascii()
    assert len(line.split()) == 5
    assert parse_uri(uri.url).resource == uri.resource
    assert parse_uri(uri.url).origin == uri.origin


def test_no_uri_with_a_secret_is_kept() -> None:
    assert parse_uri("ws://kept.test/path") is parse_uri("ws://kept.test/path")
    for text in ("ws://user:secret@kept.test/", "ws://kept.test/?token=secret"):
        assert parse_uri(text) is not parse_uri(text)
        assert parse_uri(text) == parse_uri(text)
