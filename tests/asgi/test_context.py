"""State of one server: options of uvicorn and of ours, headers of the server, and log lines."""

from __future__ import annotations

import gc
import weakref
from types import SimpleNamespace
from typing import Any

import pytest
import uvicorn

import plumews.asgi
from plumews import SendBehavior
from plumews.asgi import PlumeProtocol
from plumews.asgi.context import AsgiContext, AsgiOptions, log_access
from support.uvicorn_setup import echo


def config(**options: Any) -> uvicorn.Config:
    made = uvicorn.Config(echo, log_config=None, **options)
    made.load()
    return made


def test_options_of_connections_are_those_of_uvicorn():
    conn = AsgiContext(config(), AsgiOptions({})).conn_config
    assert (conn.max_size, conn.max_queue) == (16 * 1024 * 1024, 32)
    assert (conn.ping_interval, conn.ping_timeout) == (20.0, 20.0)
    assert conn.deflate is not None
    assert conn.send_timeout is None
    options = {"ws_max_size": 5, "ws_max_queue": 0, "ws_ping_interval": 0, "ws_ping_timeout": None}
    conn = AsgiContext(config(**options, ws_per_message_deflate=False), AsgiOptions({})).conn_config
    assert (conn.max_size, conn.max_queue) == (5, 1)
    assert (conn.ping_interval, conn.ping_timeout, conn.deflate) == (None, None, None)


@pytest.mark.parametrize("none", [-1, 0, None])
def test_options_without_a_meaning_are_their_least_value(none):
    options = {"ws_max_queue": none, "ws_ping_interval": none, "ws_ping_timeout": none}
    conn = AsgiContext(config(**options, ws_max_size=-1), AsgiOptions({})).conn_config
    assert (conn.max_size, conn.max_queue, conn.ping_interval, conn.ping_timeout) == (1, 1, None, None)


def test_our_options_replace_those_of_uvicorn():
    options = AsgiOptions({"max_size": 7, "send_behavior": SendBehavior.DROP})
    conn = AsgiContext(config(ws_max_size=5), options).conn_config
    assert conn.max_size == 7
    assert conn.send_behavior is SendBehavior.DROP
    assert not options.waits
    assert AsgiOptions({"max_size": 7}).waits


@pytest.mark.parametrize(("timeout", "expected"), [(None, 10.0), (4, 2.0), (60, 10.0)])
def test_closing_handshakes_end_before_uvicorn_cancels(timeout, expected):
    made = AsgiContext(config(timeout_graceful_shutdown=timeout), AsgiOptions({}))
    assert made.close_timeout == expected


def test_headers_of_the_server_are_serialized_once_a_second():
    context = AsgiContext(config(), AsgiOptions({}))
    state: Any = SimpleNamespace(default_headers=[(b"date", b"now"), (b"server", b"uvicorn")])
    headers, lines = context.defaults(state)
    assert headers["Server"] == "uvicorn"
    assert lines == b"date: now\r\nserver: uvicorn\r\n"
    assert context.defaults(state) is context.defaults(state)
    state.default_headers = [(b"date", b"later")]
    assert context.defaults(state)[1] == b"date: later\r\n"


def test_a_context_lives_as_long_as_its_configuration():
    made = config()
    state: Any = SimpleNamespace(connections=set(), tasks=set(), default_headers=[])
    one = PlumeProtocol(config=made, server_state=state, app_state={})
    two = PlumeProtocol(config=made, server_state=state, app_state={})
    assert one._context is two._context
    ref = weakref.ref(made)
    del made, one, two
    gc.collect()
    assert ref() is None


def test_proxies_are_trusted_as_by_uvicorn():
    scope = {
        "type": "websocket",
        "scheme": "ws",
        "client": ("10.1.2.3", 1),
        "headers": [(b"x-forwarded-proto", b"https"), (b"x-forwarded-for", b"203.0.113.9, 10.0.0.1")],
    }
    expected = {"10.0.0.0/8": ("wss", "203.0.113.9"), "10.1.2.3": ("wss", "10.0.0.1"), "127.0.0.1": ("ws", "10.1.2.3")}
    for trusted, (scheme, client) in expected.items():
        seen = AsgiContext(config(forwarded_allow_ips=trusted), AsgiOptions({})).behind_proxies(dict(scope))
        assert (seen["scheme"], seen["client"][0]) == (scheme, client)
    seen = AsgiContext(config(forwarded_allow_ips="*", proxy_headers=False), AsgiOptions({})).behind_proxies(scope)
    assert seen == scope


def test_access_log_has_no_client_on_a_unix_socket(caplog):
    caplog.set_level("INFO")
    log_access({"client": None, "path": "/a b", "query_string": b"token=x&b&token=&xtoken=y"}, "[accepted]")
    assert [record.getMessage() for record in caplog.records] == [
        ' - "WebSocket /a%20b?token=***&b&token=***&xtoken=y" [accepted]'
    ]


def test_an_unknown_option_is_refused_with_the_similar_one():
    with pytest.raises(TypeError, match=r"unknown option queue_sise \(do you mean queue_size\?\): there are"):
        AsgiOptions({"queue_sise": 4})


def test_the_package_lists_its_public_names():
    assert set(plumews.asgi.__all__) <= set(dir(plumews.asgi))
    with pytest.raises(AttributeError, match="no attribute 'room'") as raised:
        plumews.asgi.room  # noqa: B018
    assert (raised.value.name, raised.value.obj) == ("room", plumews.asgi)
