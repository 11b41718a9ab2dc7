"""Tests of proxies: their URLs, the environment, exceptions from it, and CONNECT with hostile replies."""

from __future__ import annotations

import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plumews.client.proxy import NoProxy, Proxy, Tunnel, is_loopback, parse_proxy, proxy_for
from plumews.client.uri import basic_auth, parse_uri
from plumews.errors import InvalidURI, ProxyError

PLAIN, SECURE = parse_uri("ws://h.example/"), parse_uri("wss://h.example/")
ENV = {"https_proxy": "http://for-wss", "http_proxy": "http://for-ws"}


# --- URLs -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "shown", "user", "password"),
    [
        ("http://p.example:3128", "http://p.example:3128", None, None),
        ("p.example:3128/", "http://p.example:3128", None, None),
        ("HTTPS://P.example", "https://p.example:443", None, None),
        ("socks5h://u:p%40@[::1]", "socks5h://[::1]:1080", "u", "p@"),
        ("u@p", "http://p:80", "u", None),
    ],
)
def test_url_is_cut_into_its_parts(text: str, shown: str, user: str | None, password: str | None) -> None:
    proxy = parse_proxy(text)
    assert (str(proxy), proxy.user, proxy.password) == (shown, user, password)


@pytest.mark.parametrize(
    "text", ["ftp://p", "http://", "http://p/path", "http://u:pa/ss@p", "http://p:x", "http://p?q"]
)
def test_malformed_url_is_an_error_without_secrets(text: str) -> None:
    with pytest.raises(InvalidURI, match="invalid proxy URL") as caught:
        parse_proxy(text)
    assert "pa/ss" not in str(caught.value)


def test_secrets_of_a_proxy_are_in_no_text() -> None:
    proxy = parse_proxy("http://user:hunter2@p")
    assert "hunter2" not in f"{proxy} {proxy!r}"
    with pytest.raises(ProxyError) as caught:
        Tunnel(SECURE, proxy).feed(b"HTTP/1.1 407 No\r\n\r\n")
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("scheme", "secure", "socks", "resolves"),
    [
        ("http", False, False, True),
        ("https", True, False, True),
        ("socks4", False, True, False),
        ("socks4a", False, True, True),
        ("socks5", False, True, False),
        ("socks5h", False, True, True),
    ],
)
def test_scheme_says_what_the_proxy_does(scheme: str, secure: bool, socks: bool, resolves: bool) -> None:
    proxy = parse_proxy(f"{scheme}://p")
    assert (proxy.secure, proxy.socks, proxy.resolves) == (secure, socks, resolves)


# --- which proxy ------------------------------------------------------------------------------------


def chosen(uri: str, **environ: str) -> str | None:
    found = proxy_for(parse_uri(uri), environ=environ)
    return None if found is None else found.host


@pytest.mark.parametrize(
    ("uri", "environ", "host"),
    [
        ("wss://h/", ENV, "for-wss"),
        ("ws://h/", ENV, "for-ws"),
        ("ws://h/", {"HTTP_PROXY": "for-ws"}, "for-ws"),
        ("wss://h/", {"HTTPS_PROXY": "upper", "https_proxy": "lower"}, "lower"),
        ("wss://h/", {"HTTP_PROXY": "for-ws"}, None),
        ("wss://h/", {"ALL_PROXY": "socks5://all"}, "all"),
        ("wss://h/", {"all_proxy": "all", "HTTPS_PROXY": "for-wss"}, "for-wss"),
        ("wss://h/", {"https_proxy": " ", "all_proxy": "all"}, "all"),
        ("wss://h/", {}, None),
        ("wss://h/", {**ENV, "NO_PROXY": "h"}, None),
        ("wss://h/", {**ENV, "no_proxy": "other", "NO_PROXY": "h"}, "for-wss"),
        ("ws://h/", {"HTTP_PROXY": "evil", "REQUEST_METHOD": "GET"}, None),
        ("ws://h/", {"http_proxy": "for-ws", "REQUEST_METHOD": "GET"}, "for-ws"),
    ],
)
def test_environment_names_the_proxy(uri: str, environ: dict[str, str], host: str | None) -> None:
    assert chosen(uri, **environ) == host


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST.", "a.localhost", "127.0.0.1", "127.9.9.9", "[::1]", "[::ffff:127.0.0.1]"]
)
def test_loopback_never_goes_through_a_proxy_of_the_environment(host: str) -> None:
    assert chosen(f"ws://{host}/", **ENV, ALL_PROXY="p") is None
    assert is_loopback(parse_uri(f"ws://{host}/").host)
    assert proxy_for(parse_uri(f"ws://{host}/"), "http://p") == Proxy("p", 80)


@pytest.mark.parametrize("host", ["notlocalhost", "localhost.example", "128.0.0.1", "[::2]"])
def test_other_hosts_are_not_loopback(host: str) -> None:
    assert not is_loopback(parse_uri(f"ws://{host}/").host)


def test_option_replaces_the_environment() -> None:
    assert proxy_for(SECURE, None, ENV) is None
    assert proxy_for(SECURE, "https://p:8080", {**ENV, "NO_PROXY": "*"}) == Proxy("p", 8080, scheme="https")
    for wrong in (False, 7, b"http://p"):
        with pytest.raises(TypeError, match="proxy must be"):
            proxy_for(SECURE, wrong)  # type: ignore[arg-type]


def test_malformed_url_in_the_environment_names_the_variable() -> None:
    with pytest.raises(InvalidURI, match="HTTPS_PROXY") as caught:
        proxy_for(SECURE, environ={"HTTPS_PROXY": "ftp://u:hunter2@p"})
    assert "hunter2" not in str(caught.value)


# --- exceptions -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "host", "port", "matches"),
    [
        ("*", "h.example", 443, True),
        ("example.com", "example.com", 443, True),
        ("example.com", "a.example.com.", 443, True),
        ("EXAMPLE.com", "a.example.com", 443, True),
        (".example.com", "a.example.com", 443, True),
        (".example.com", "example.com", 443, True),
        ("*.example.com", "a.example.com", 443, True),
        ("example.com", "notexample.com", 443, False),
        ("example.com", "example.com.evil", 443, False),
        ("com", "example.com", 443, True),
        ("example.com:8443", "a.example.com", 8443, True),
        ("example.com:8443", "a.example.com", 443, False),
        ("a, b  c,,d", "c", 80, True),
        ("10.0.0.1", "10.0.0.1", 80, True),
        ("10.0.0.1", "10.0.0.11", 80, False),
        ("10.0.0.1:81", "10.0.0.1", 80, False),
        ("10.0.0.0/8", "10.200.0.1", 80, True),
        ("10.9.9.9/8", "10.200.0.1", 80, True),
        ("10.0.0.0/8", "11.0.0.1", 80, False),
        ("10.0.0.0/8", "10.example", 80, False),
        ("0.0.1", "10.0.0.1", 80, False),
        ("fd00::/8", "fd12::1", 80, True),
        ("fd00::/8", "fe80::1%eth0", 80, False),
        ("fe80::/10", "fe80::1%eth0", 80, True),
        ("::1", "::1", 80, True),
        ("[2001:db8::1]", "2001:db8::1", 80, True),
        ("[2001:db8::1]:81", "2001:db8::1", 80, False),
        ("[2001:db8::1]:81", "2001:db8::1", 81, True),
        ("10.0.0.1", "::ffff:10.0.0.1", 80, True),
        ("bücher.example", "xn--bcher-kva.example", 80, True),
        ("", "h", 80, False),
    ],
)
@pytest.mark.filterwarnings("error")
def test_no_proxy_has_a_grammar(text: str, host: str, port: int, matches: bool) -> None:
    assert NoProxy(text).matches(host, port) is matches


@pytest.mark.parametrize(
    "entry", ["10.0.0.0/33", "a..b", "h:0", "h:x", "[::1", "u@h", "http://h", "*x*", "1.2.3", ":80"]
)
def test_malformed_entry_is_one_warning(entry: str, caplog: pytest.LogCaptureFixture) -> None:
    environ = {**ENV, "NO_PROXY": f"{entry},ok.example,{len(caplog.records)}.unique"}
    with caplog.at_level(logging.WARNING, "plumews.client"):
        for _ in range(3):
            assert proxy_for(SECURE, environ=environ) is not None
        assert proxy_for(parse_uri("wss://ok.example/"), environ=environ) is None
    assert len(caplog.records) == 1
    assert entry in caplog.text


@given(st.text(max_size=40), st.text(max_size=20))
def test_any_exceptions_can_be_asked(text: str, host: str) -> None:
    assert NoProxy(text).matches(host, 80) in (True, False)


# --- CONNECT ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("uri", "authority"),
    [("wss://h.example/x?y", "h.example:443"), ("ws://[fe80::1%25eth0]:9/", "[fe80::1]:9")],
)
def test_connect_names_the_host_and_the_port(uri: str, authority: str) -> None:
    tunnel = Tunnel(parse_uri(uri), parse_proxy("p"))
    assert tunnel.request == f"CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n\r\n".encode()


def test_connect_has_the_credentials_of_the_proxy_alone() -> None:
    tunnel = Tunnel(parse_uri("wss://user:secret@h/"), parse_proxy("u:p@proxy"), "agent")
    assert basic_auth("u", "p").encode() in tunnel.request
    assert basic_auth("user", "secret").encode() not in tunnel.request
    assert b"User-Agent: agent\r\n" in tunnel.request


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.0 200 Connection established\r\n\r\n",
        b"HTTP/1.1 204\r\nContent-Length: 5\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 299 OK\r\nContent-Length: nonsense\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
    ],
)
@pytest.mark.parametrize("size", [1, 7, 10_000])
def test_2xx_opens_the_tunnel_and_what_follows_is_inside(head: bytes, size: int) -> None:
    tunnel = Tunnel(SECURE, parse_proxy("p"))
    data = head + b"\x16\x03inside"
    sent = 0
    while not tunnel.feed(data[sent : sent + size]):
        sent += size
        assert sent < len(head)
    assert tunnel.rest + data[sent + size :] == b"\x16\x03inside"


@pytest.mark.parametrize(
    ("reply", "status", "said"),
    [
        (b"HTTP/1.1 407 Auth\r\nProxy-Authenticate: Basic\r\n\r\n", 407, "requires user and password"),
        (b"HTTP/1.1 403 Forbidden\r\nContent-Length: 3\r\n\r\nno!", 403, "403 Forbidden"),
        (b"HTTP/1.1 502 \r\n\r\n", 502, "502"),
        (b"HTTP/1.1 302 Found\r\nLocation: /\r\n\r\n", 302, "302"),
        (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", 101, "101"),
        (b"HTTP/1.1 100 Continue\r\n\r\n" * 9, 100, "100"),
        (b"SSH-2.0-OpenSSH\r\n", None, "malformed"),
        (b"\x15\x03\x01\x00\x02", None, "malformed"),
        (b"HTTP/1.1 200 OK\nX: y\n\n", None, "malformed"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"a" * 20_000, None, "malformed"),
        (b"HTTP/1.1 200 OK\r\n" + b"X: a\r\n" * 2000, None, "malformed"),
    ],
)
def test_other_replies_are_named_errors(reply: bytes, status: int | None, said: str) -> None:
    with pytest.raises(ProxyError, match=said) as caught:
        Tunnel(SECURE, parse_proxy("p:3128")).feed(reply)
    assert (caught.value.status, caught.value.step, caught.value.address) == (status, "proxy", "http://p:3128")


def test_refusal_has_the_headers_of_the_proxy() -> None:
    with pytest.raises(ProxyError, match="rejects the credentials") as caught:
        Tunnel(SECURE, parse_proxy("u:p@p")).feed(b"HTTP/1.1 407 Auth\r\nProxy-Authenticate: Basic\r\n\r\n")
    assert caught.value.headers == (("Proxy-Authenticate", "Basic"),)


def test_end_before_the_reply_is_a_proxy_error() -> None:
    tunnel = Tunnel(SECURE, parse_proxy("p"))
    assert not tunnel.feed(b"HTTP/1.1 20")
    assert "before its reply" in str(tunnel.feed_eof())


@given(st.lists(st.binary(max_size=40), max_size=10))
def test_any_reply_is_a_tunnel_or_a_named_error(parts: list[bytes]) -> None:
    tunnel = Tunnel(SECURE, parse_proxy("p"))
    try:
        for part in [b"HTTP/1.1 ", *parts]:
            if tunnel.feed(part):
                break
    except ProxyError:
        pass
