"""Tests of the options of a client: names, kinds, ranges, and the hints in their errors."""

from __future__ import annotations

import dataclasses
import socket
import ssl

import pytest

from plumews import ConnConfig, Deflate, Headers, SendBehavior
from plumews.client.options import ConnectKeywords, ConnectOptions, split_options


def test_keywords_are_fields_of_options_and_config():
    fields = {field.name for owner in (ConnectOptions, ConnConfig) for field in dataclasses.fields(owner)}
    assert set(ConnectKeywords.__annotations__) == fields


def test_options_are_split_by_owner():
    options, config = split_options({"origin": "https://a", "max_size": 5, "open_timeout": None})
    assert (options.origin, options.open_timeout, config.max_size) == ("https://a", None, 5)


def test_usual_compression_lets_the_server_keep_its_context():
    _, config = split_options({"compression": "deflate"})
    assert config.deflate == Deflate(server_takeover=True)


@pytest.mark.parametrize("proxy", [None, "http://localhost:3128", "socks5://localhost"])
def test_tls_options_of_a_proxy_need_https(proxy):
    options = {"proxy_ssl": ssl.create_default_context(), "proxy_server_hostname": "localhost"}
    for name, value in options.items():
        with pytest.raises(ValueError, match=f"{name} needs a proxy that begins with https://"):
            split_options({"proxy": proxy, name: value})
    assert split_options({"proxy": "https://localhost", **options})[0].proxy_ssl is options["proxy_ssl"]


def test_proxy_false_is_told_that_none_is_no_proxy():
    with pytest.raises(TypeError, match="not False: None is no proxy"):
        split_options({"proxy": False})


def test_clients_with_the_same_options_share_them():
    configs = [split_options({"max_size": 5000, "compression": Deflate(level=1)})[1] for _ in range(2)]
    assert configs[0] is configs[1]
    assert split_options({"max_size": 5001})[1] is not configs[0]
    with pytest.raises(TypeError, match="max_queue"):
        split_options({"max_queue": True})  # equal to 1, which may be known
    with pytest.raises(TypeError, match="compression must be"):
        split_options({"compression": {"level": 1}})


def test_client_that_drops_messages_must_not_refer_to_them():
    drops: dict[str, object] = {"send_behavior": SendBehavior.DROP_OLDEST}
    with pytest.raises(ValueError, match="use it without client_takeover"):
        split_options({"compression": Deflate(client_takeover=True), **drops})
    assert split_options({"compression": "deflate", **drops})[1].deflate == Deflate(server_takeover=True)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("extra_headers", "here it is additional_headers"),
        ("headers", "here it is additional_headers"),
        ("heartbeat", "here it is ping_interval"),
        ("timeout", "here it is open_timeout"),
        ("write_limit", "queue_size and queue_bytes"),
        ("extensions", "here it is compression"),
        ("open_timout", "do you mean open_timeout?"),
        ("subprotocol", "do you mean subprotocols?"),
    ],
)
def test_unknown_option_is_a_type_error_with_the_new_name(name, hint):
    with pytest.raises(TypeError, match=f"unknown option {name}") as caught:
        split_options({name: 1})
    assert hint in str(caught.value)


@pytest.mark.parametrize(
    ("option", "value", "error", "why"),
    [
        ("origin", "a\r\nb", ValueError, "control character"),
        ("origin", 5, TypeError, "origin must be a str"),
        ("user_agent_header", b"x", TypeError, "user_agent_header must be a str"),
        ("user_agent_header", "a\nb", ValueError, "control character"),
        ("subprotocols", "chat", TypeError, "must be a list of str"),
        ("subprotocols", "", TypeError, "must be a list of str"),
        ("subprotocols", ["a b"], ValueError, "expected a token"),
        ("subprotocols", ["a", "a"], ValueError, "offered twice"),
        ("additional_headers", "X: y", TypeError, "a mapping or a list of pairs"),
        ("additional_headers", 5, TypeError, "a mapping or a list of pairs"),
        ("additional_headers", {"Upgrade": "x"}, ValueError, "belongs to the handshake"),
        ("additional_headers", lambda attempt: {}, TypeError, r"is called with \(\)"),
        ("proxy_ssl", True, TypeError, "proxy_ssl must be an ssl.SSLContext"),
        ("proxy_ssl", ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ValueError, "proxy_ssl must be a context for clients"),
        ("proxy_server_hostname", 5, TypeError, "proxy_server_hostname"),
        ("token", "a b", ValueError, "invalid token"),
        ("token", b"x", TypeError, "must be a str"),
        ("open_timeout", 0, ValueError, "more than 0"),
        ("open_timeout", 10**400, ValueError, "more than 0"),
        ("open_timeout", "1", TypeError, "number of seconds"),
        ("ssl", True, TypeError, "ssl.SSLContext, not bool"),
        ("ssl", ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ValueError, "for clients"),
        ("server_hostname", "", ValueError, "no host"),
        ("server_hostname", "a\0b", ValueError, "no host name"),
        ("host", 5, TypeError, "must be a str"),
        ("host", "a\r\nX", ValueError, "no host name"),
        ("host", "::1\r\nX: y", ValueError, "no IPv6 address"),
        ("host", "127.1", ValueError, "no IPv4 address"),
        ("host", "[::1", ValueError, "no host name"),
        ("port", 65536, ValueError, "1 to 65535"),
        ("proxy", 5, TypeError, "a URL, True or None"),
        ("proxy", "ftp://h", ValueError, "the scheme must be one of"),
        ("sock", "x", TypeError, "socket.socket"),
        ("local_addr", "127.0.0.1", TypeError, "pair of host and port"),
        ("local_addr", ("127.0.0.1", 65536), ValueError, "0 to 65535"),
        ("local_addr", ("", 0), ValueError, "no host"),
        ("process_exception", 5, TypeError, "must be a plain function"),
        ("process_exception", lambda: None, TypeError, "is called with"),
        ("reconnect_delays", 5, TypeError, "iterable of seconds"),
        ("reconnect_delays", b"12", TypeError, "iterable of seconds"),
        ("reconnect_delays", [1, -1], ValueError, "at least 0"),
        ("reconnect_delays", lambda attempt: [], TypeError, r"is called with \(\)"),
        ("position_of", 5, TypeError, "must be a plain function"),
        ("position_of", lambda: None, TypeError, "is called with"),
        ("max_head", 10, ValueError, "1024 to 1048576"),
    ],
)
def test_wrong_value_is_an_error_of_the_call(option, value, error, why):
    with pytest.raises(error, match=why):
        ConnectOptions(**{option: value})


@pytest.mark.parametrize("option", ["process_exception", "position_of"])
def test_async_function_that_nobody_awaits_is_refused(option):
    async def judge(what: object) -> None: ...

    with pytest.raises(TypeError, match="plain function"):
        ConnectOptions(**{option: judge})


@pytest.mark.parametrize(
    ("given", "host"),
    [
        ("H.example", "h.example"),
        ("bücher.example", "xn--bcher-kva.example"),
        ("::1", "::1"),
        ("[fe80::1%e]", "fe80::1%e"),
    ],
)
def test_host_is_read_like_that_of_a_uri(given, host):
    options = ConnectOptions(host=given, server_hostname=given, local_addr=(given, 0))
    assert (options.host, options.server_hostname, options.local_addr) == (host, host, (host, 0))


def test_datagram_socket_is_refused():
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock,
        pytest.raises(ValueError, match="stream socket"),
    ):
        ConnectOptions(sock=sock)


def test_socket_with_tls_is_refused():
    with (
        ssl.create_default_context().wrap_socket(socket.socket(), server_hostname="a") as sock,
        pytest.raises(TypeError, match="without TLS"),
    ):
        ConnectOptions(sock=sock)


def test_sock_excludes_an_address():
    with socket.socket() as sock, pytest.raises(TypeError, match="either sock or port"):
        ConnectOptions(sock=sock, port=80)


def test_iterator_of_headers_is_read_once():
    options = ConnectOptions(additional_headers=iter([("X", "1")]))
    assert isinstance(options.additional_headers, Headers)
    assert options.additional_headers["X"] == "1"


def test_repr_contains_no_secret():
    options = ConnectOptions(token="s3cret", additional_headers={"Cookie": "s3cret"}, proxy="http://u:s3cret@p")
    assert "s3cret" not in repr(options)
