"""Tests of the steps of a dialing without I/O."""

from __future__ import annotations

import socket

import pytest

from plumews import ConnectError, ProxyError
from plumews.client.dial_steps import DialSteps, check_alpn, peer_name, socks_target
from plumews.client.proxy import parse_proxy
from plumews.client.resolver import AddressInfo
from plumews.client.uri import parse_uri


def address(host: str, family: socket.AddressFamily = socket.AF_INET) -> AddressInfo:
    return family, socket.SOCK_STREAM, 0, "", (host, 80)


def test_the_place_to_connect_to_is_the_proxy_if_there_is_one() -> None:
    uri = parse_uri("wss://example.test:1234/")
    steps = DialSteps(uri)
    assert (steps._place(), steps.address) == (uri, "example.test:1234")
    steps._resolved(uri, [address("192.0.2.1"), address("192.0.2.1"), address("192.0.2.2")])
    assert (steps.step, steps.address) == ("connect", "example.test:1234, 192.0.2.1, 192.0.2.2")
    proxy = parse_proxy("http://proxy.test")
    behind = DialSteps(uri, proxy=proxy)
    assert (behind._place(), behind.address) == (proxy, "http://proxy.test:80")
    zone = DialSteps(parse_uri("ws://[fe80::1%25e]/"))
    assert (zone._place(), zone.address) == (zone._uri, "[fe80::1%e]:80")
    assert behind._tls_names() == ("example.test", "example.test:1234 through http://proxy.test:80")


def test_a_given_way_has_no_proxy() -> None:
    assert DialSteps(parse_uri("ws://a.test/"), proxy=parse_proxy("http://b.test"), path="/socket")._proxy is None


def test_only_http_1_may_be_chosen_by_alpn() -> None:
    check_alpn(None, "a.test")
    check_alpn("http/1.1", "a.test")
    with pytest.raises(ConnectError, match="chose 'h2' by ALPN"):
        check_alpn("h2", "a.test")


def test_socks_4_is_asked_for_ipv4_alone() -> None:
    addresses = [address("::1%lo", socket.AF_INET6), address("192.0.2.1")]
    assert socks_target(addresses, parse_proxy("socks5://proxy.test")) == "::1"
    assert socks_target(addresses, parse_proxy("socks4://proxy.test")) == "192.0.2.1"
    with pytest.raises(ProxyError, match="no IPv4 address"):
        socks_target(addresses[:1], parse_proxy("socks4://proxy.test"))


def test_the_name_of_a_peer_is_its_address_if_it_has_one() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
        assert peer_name(client) == f"127.0.0.1:{server.getsockname()[1]}"
        assert peer_name(server) == ""
