"""Tests of the way of a blocking client to its server: addresses, proxies, TLS, and deadlines."""

from __future__ import annotations

import socket
import ssl
import threading
from typing import Any

import pytest

from plumews import ConnectError, ConnectTimeout, InvalidStatus, ProxyError
from plumews.client.dialing import tls_context
from plumews.client.resolver import resolver
from plumews.sync import connect, dialing
from plumews.sync.dialing import Deadline, Dialing
from support.fakes import PATIENCE, tls_contexts
from support.proxies import ConnectProxy, SocksProxy, listening
from support.threaded import entered, in_thread, server

#: A server that is full refuses before it reads the request.
BUSY = b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n"


def addresses(monkeypatch: pytest.MonkeyPatch, *found: tuple[str, int]) -> None:
    """Let each name have these addresses."""
    infos = [
        (socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM, 6, "", (host, port))
        for host, port in found
    ]
    monkeypatch.setattr(resolver, "_getaddrinfo", lambda *args, **options: infos)


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        return int(closed.getsockname()[1])


def test_the_next_address_is_tried_when_one_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    with server(allowed_hosts=["two.test"]) as uri:
        port = int(uri.rstrip("/").rpartition(":")[2])
        addresses(monkeypatch, ("127.0.0.1", closed_port()), ("127.0.0.1", port))
        with connect("ws://two.test/", proxy=None) as conn:
            conn.send("there")
            assert conn.recv() == "there"


def test_the_next_address_is_tried_beside_one_that_is_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dialing, "EYEBALLS_DELAY", 0.01)
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full, server(allowed_hosts=["two.test"]) as uri:
        queued = []
        for _ in range(3):  # the queue of the listener is full: it answers nobody
            one = socket.socket()
            one.setblocking(False)
            one.connect_ex(full.getsockname())
            queued.append(one)
        addresses(monkeypatch, full.getsockname(), ("127.0.0.1", int(uri.rstrip("/").rpartition(":")[2])))
        with connect("ws://two.test/", proxy=None) as conn:
            conn.send("there")
            assert conn.recv() == "there"
        for one in queued:
            one.close()


def test_all_addresses_that_fail_are_one_error(monkeypatch: pytest.MonkeyPatch) -> None:
    addresses(monkeypatch, ("127.0.0.1", closed_port()), ("127.0.0.1", closed_port()))
    with pytest.raises(ConnectError, match=r"connect \(two\.test") as raised:
        connect("ws://two.test/", proxy=None).open()
    assert raised.value.step == "connect"


def test_a_resolver_that_hangs_meets_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()
    monkeypatch.setattr(resolver, "_getaddrinfo", lambda *args, **options: release.wait(9) and [])
    try:
        with pytest.raises(ConnectTimeout) as raised:
            connect("ws://stuck.test/", proxy=None, open_timeout=0.05).open()
        assert (raised.value.step, raised.value.address) == ("resolve", "stuck.test:80")
    finally:
        release.set()


def test_families_take_turns() -> None:
    infos = [(family, 1, 6, "", (str(number),)) for number, family in enumerate([10, 10, 10, 2, 2])]
    assert [info[4][0] for info in dialing._interleaved(infos)] == ["0", "3", "1", "4", "2"]
    assert dialing._interleaved([]) == []


def test_the_local_address_is_bound() -> None:
    with server() as uri, connect(uri, local_addr=("127.0.0.2", 0)) as conn:
        assert conn.local_address[0] == "127.0.0.2"


def test_messages_pass_through_an_http_proxy() -> None:
    proxy = ConnectProxy()
    with (
        server() as uri,
        entered(lambda: listening(proxy)) as port,
        connect(uri, proxy=f"http://user:secret@127.0.0.1:{port}") as conn,
    ):
        conn.send("through")
        assert conn.recv(timeout=5) == "through"
    assert b"Proxy-Authorization: Basic" in proxy.heads[0]


@pytest.mark.parametrize("secure", [False, True])
def test_messages_pass_through_an_https_proxy(secure: bool) -> None:
    theirs, ours = tls_contexts()
    options = {"scheme": "wss", "ssl": theirs} if secure else {}
    trust: dict[str, Any] = {"ssl": ours} if secure else {}
    proxy = ConnectProxy()
    with server(**options) as uri, entered(lambda: listening(proxy, ssl=theirs)) as port:  # type: ignore[arg-type]
        trust.update(proxy_ssl=ours, proxy_server_hostname="localhost")
        conn = connect(uri, proxy=f"https://127.0.0.1:{port}", **trust).open()
        conn.send("x" * 200_000)
        assert conn.recv(timeout=5) == "x" * 200_000
        conn.close()
    assert len(proxy.heads) == 1


def test_bytes_behind_the_reply_of_a_proxy_are_of_the_tunnel() -> None:
    with (
        server() as uri,
        entered(lambda: listening(ConnectProxy(b"HTTP/1.1 200 OK\r\n\r\n" + BUSY))) as port,
    ):
        with pytest.raises(InvalidStatus, match="503"):
            connect(uri, proxy=f"http://127.0.0.1:{port}").open()
        with pytest.raises(ConnectError, match="before the TLS handshake"):
            connect(uri.replace("ws:", "wss:"), proxy=f"http://127.0.0.1:{port}").open()


def test_bytes_behind_the_tls_handshake_arrive(monkeypatch: pytest.MonkeyPatch) -> None:
    theirs, ours = tls_contexts()
    # With it the last flight is the server's. Other tests share the context.
    monkeypatch.setattr(theirs, "maximum_version", ssl.TLSVersion.TLSv1_2)
    monkeypatch.setattr(dialing, "tls_context", lambda given: given or ours)

    def serve() -> None:
        sock, _ = listener.accept()
        received, sent = ssl.MemoryBIO(), ssl.MemoryBIO()
        layer = theirs.wrap_bio(received, sent, server_side=True)
        with sock:
            while True:
                try:
                    layer.do_handshake()
                    break
                except ssl.SSLWantReadError:
                    sock.sendall(sent.read())
                    received.write(sock.recv(65536))
            layer.write(BUSY)
            sock.sendall(sent.read())
            sock.recv(1)

    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        in_thread(serve),
        pytest.raises(InvalidStatus, match="503"),
    ):
        connect(f"wss://localhost:{listener.getsockname()[1]}/", open_timeout=PATIENCE).open()


def test_certificates_are_read_again_after_one_was_untrusted() -> None:
    theirs, _ = tls_contexts()
    with server(ssl=theirs) as uri:
        first = tls_context()
        assert tls_context() is first
        with pytest.raises(ConnectError, match="certificate verify failed"):
            connect(f"wss://localhost:{uri.rstrip('/').rpartition(':')[2]}/").open()
        assert tls_context() is not first


def test_a_proxy_that_refuses_is_a_named_error() -> None:
    proxy = ConnectProxy(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n")
    with server() as uri, entered(lambda: listening(proxy)) as port, pytest.raises(ProxyError, match="407") as raised:
        connect(uri, proxy=f"http://127.0.0.1:{port}").open()
    assert (raised.value.step, raised.value.status) == ("proxy", 407)


def test_a_proxy_that_is_silent_meets_the_deadline() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(ConnectTimeout) as raised:
        connect("ws://example.com/", proxy=f"http://127.0.0.1:{silent.getsockname()[1]}", open_timeout=0.05).open()
    assert raised.value.step == "proxy"


@pytest.mark.parametrize("scheme", ["socks4", "socks4a", "socks5", "socks5h"])
def test_messages_pass_through_a_socks_proxy(scheme: str) -> None:
    proxy = SocksProxy()
    with (
        server() as uri,
        entered(lambda: listening(proxy)) as port,
        connect(uri, proxy=f"{scheme}://127.0.0.1:{port}") as conn,
    ):
        conn.send("through")
        assert conn.recv(timeout=5) == "through"
    assert proxy.hosts == ["127.0.0.1"]


def test_a_socks_proxy_that_refuses_is_a_named_error() -> None:
    with (
        server() as uri,
        entered(lambda: listening(SocksProxy(status=5))) as port,
        pytest.raises(ProxyError, match="refused"),
    ):
        connect(uri, proxy=f"socks5://127.0.0.1:{port}").open()


def test_a_deadline_tells_what_is_left() -> None:
    assert Deadline(None).left() is None
    left = Deadline(9).left()
    assert left is not None
    assert 8 < left <= 9
    with pytest.raises(TimeoutError):
        Deadline(-1).left()


def test_a_failed_attempt_closes_its_socket() -> None:
    from plumews.client.uri import parse_uri

    ours, theirs = socket.socketpair()
    theirs.close()
    attempt = Dialing(parse_uri("wss://localhost/"), Deadline(5), sock=ours)
    with pytest.raises(ConnectError):
        attempt.open()
    assert attempt.step == "tls"
    assert ours.fileno() == -1
