"""Server context: endpoints and routes by path, admission, and tasks that are kept until they end."""

from __future__ import annotations

import asyncio
import gc
import ssl
import weakref

import pytest

import plumews
from plumews.errors import InvalidHandshake, Refused
from plumews.server.context import ServerContext
from plumews.server.options import ServerOptions

ANY, CHAT = object(), object()


def handler(conn):
    raise AssertionError


def context(endpoints=None, **options):
    return ServerContext({None: ANY} if endpoints is None else endpoints, ServerOptions(**options))


# --- endpoints ------------------------------------------------------------------------------------


def test_endpoint_is_the_one_of_its_path_or_of_any_path():
    both = context({None: ANY, "/chat": CHAT})
    assert (both.endpoint("/chat"), both.endpoint("/chat/"), both.endpoint("/")) == (CHAT, ANY, ANY)


def test_endpoint_of_unknown_path_raises_404():
    with pytest.raises(InvalidHandshake, match=r"^not found$") as caught:
        context({"/chat": CHAT}).endpoint("/other")
    assert (caught.value.status, caught.value.code) == (404, "NOT_FOUND")


@pytest.mark.parametrize(
    "spelled", ["/%63hat", "/Chat", "//chat", "/./chat", "/x/../chat", "/chat/", "/chat%2f", "/chat;x"]
)
def test_endpoint_has_one_spelling(spelled):
    with pytest.raises(InvalidHandshake, match=r"^not found$"):
        context({"/chat": CHAT}).endpoint(spelled)


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ("/caf\xe9 au lait", "/caf%C3%A9%20au%20lait"),
        ("/100%", "/100%25"),
        ("/a|b[c]^~!$&'()*+,;=:@", "/a|b[c]^~!$&'()*+,;=:@"),
        ("/what?", "/what%3F"),
    ],
)
def test_path_is_found_as_a_browser_spells_it(given, sent):
    both = context({given: CHAT}, routes={given: lambda request: None})
    assert both.endpoint(sent) is CHAT
    assert list(both.routes) == [sent]


# --- tasks ----------------------------------------------------------------------------------------


async def test_task_is_referred_to_until_it_ends():
    server = context()
    gate = asyncio.get_running_loop().create_future()

    async def work(end):
        await asyncio.shield(gate)
        return 1 / end

    tasks = [weakref.ref(server.start(work(end))) for end in (0, 1)]
    cancelled = server.start(work(1))
    gc.collect()
    assert {task() for task in tasks} | {cancelled} == server.tasks
    cancelled.cancel()
    gate.set_result(None)
    results = await asyncio.gather(*server.tasks, return_exceptions=True)
    assert sorted(type(result).__name__ for result in results) == ["CancelledError", "ZeroDivisionError", "float"]
    assert server.tasks == set()


# --- wrong options --------------------------------------------------------------------------------


def test_select_subprotocol_beside_a_list_or_async_raises():
    async def later(conn, offered):
        raise AssertionError

    with pytest.raises(TypeError, match="give either subprotocols or select_subprotocol"):
        context(subprotocols=["chat"], select_subprotocol=lambda conn, offered: None)
    with pytest.raises(TypeError, match="what takes time belongs into process_request"):
        context(select_subprotocol=later)
    assert ServerOptions(subprotocols=None).subprotocols == ()


def test_endpoint_path_without_slash_raises():
    with pytest.raises(ValueError, match="invalid path 'chat': a path begins with a slash"):
        context({"chat": CHAT})


def test_given_collections_changed_later_have_no_effect():
    routes, subprotocols = {"/x": print}, ["chat"]
    server = context(routes=routes, subprotocols=subprotocols)
    routes["/y"] = print
    subprotocols.append("more")
    assert (list(server.routes), server.options.subprotocols) == (["/x"], ("chat",))


def test_extra_lines_are_the_serialized_extra_headers():
    assert context(extra_headers={"X-A": "1", "X-B": "2"}).extra_lines == b"X-A: 1\r\nX-B: 2\r\n"
    assert context().extra_lines == b""


def test_admission_does_not_bound_trusted_proxies():
    server = context(trusted_proxies=["9.9.9.9"], max_connections_per_address=1)
    server.admission.admit("9.9.9.9", 0.0)
    server.admission.admit("9.9.9.9", 0.0)
    server.admission.admit("8.8.8.8", 0.0)
    with pytest.raises(Refused):
        server.admission.admit("8.8.8.8", 0.0)


@pytest.mark.parametrize("value", ["infinite", True, None, float("inf")])
def test_open_timeout_that_is_not_finite_raises(value):
    with pytest.raises((TypeError, ValueError), match="open_timeout"):
        plumews.serve(handler, "127.0.0.1", 0, open_timeout=value)


@pytest.mark.parametrize(
    "headers",
    [
        [("Sec-WebSocket-Protocol", "x")],
        {"Content-Length": "1"},
        [("X", "a\r\nSet-Cookie: b")],
        [("X\n", "a")],
        [("X", "\0")],
        [("X", "\u20ac")],
    ],
)
def test_row_19_extra_headers_that_break_the_response_raise(headers):
    with pytest.raises(ValueError, match="header"):
        plumews.serve(handler, "127.0.0.1", 0, extra_headers=headers)


@pytest.mark.parametrize("subprotocol", ["", "a b", "a\r\nX: y", "a,b", "\u00e9"])
def test_row_19_subprotocol_that_is_no_token_raises(subprotocol):
    with pytest.raises(ValueError, match="invalid subprotocol"):
        plumews.serve(handler, "127.0.0.1", 0, subprotocols=["chat", subprotocol])


async def async_route(request):
    raise AssertionError


@pytest.mark.parametrize("route", [async_route, "text"])
def test_route_that_is_no_plain_function_raises(route):
    with pytest.raises(TypeError, match="the route of /x must be a plain function"):
        plumews.serve(handler, "127.0.0.1", 0, routes={"/x": route})


def test_route_path_without_slash_raises():
    with pytest.raises(ValueError, match="invalid path 'x': a path begins with a slash"):
        plumews.serve(handler, "127.0.0.1", 0, routes={"x": lambda request: None})


def test_extra_headers_are_taken_from_a_generator_once():
    options = ServerOptions(extra_headers=(pair for pair in [("A", "1"), ("B", "2")]))
    assert [dict(options.extra_headers) for _ in range(2)] == [{"A": "1", "B": "2"}] * 2


def test_tls_context_for_servers_is_taken():
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    assert ServerOptions(ssl=tls).ssl is tls
