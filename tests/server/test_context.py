"""What a server offers, and to whom: wrong where it is given, looked up by path, and its tasks kept until they end."""

from __future__ import annotations

import asyncio
import gc
import ssl
import weakref

import pytest

import plumews
from plumews.errors import InvalidHandshake, Refused
from plumews.server.context import ServerContext
from plumews.server.options import site_and_config

ANY, CHAT = object(), object()


def handler(conn):
    raise AssertionError


def site(endpoints=None, **options):
    return ServerContext({None: ANY} if endpoints is None else endpoints, **options)


# --- endpoints ------------------------------------------------------------------------------------


def test_a_path_has_the_endpoint_that_is_there_or_the_one_of_any_path():
    both = site({None: ANY, "/chat": CHAT})
    assert (both.endpoint("/chat"), both.endpoint("/chat/"), both.endpoint("/")) == (CHAT, ANY, ANY)


def test_a_path_without_endpoint_is_refused_with_404():
    with pytest.raises(InvalidHandshake, match=r"^not found$") as caught:
        site({"/chat": CHAT}).endpoint("/other")
    assert (caught.value.status, caught.value.code) == (404, "NOT_FOUND")


@pytest.mark.parametrize(
    "spelled", ["/%63hat", "/Chat", "//chat", "/./chat", "/x/../chat", "/chat/", "/chat%2f", "/chat;x"]
)
def test_an_endpoint_has_one_spelling(spelled):
    with pytest.raises(InvalidHandshake, match=r"^not found$"):
        site({"/chat": CHAT}).endpoint(spelled)


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ("/caf\xe9 au lait", "/caf%C3%A9%20au%20lait"),
        ("/100%", "/100%25"),
        ("/a|b[c]^~!$&'()*+,;=:@", "/a|b[c]^~!$&'()*+,;=:@"),
        ("/what?", "/what%3F"),
    ],
)
def test_a_path_is_found_as_a_browser_spells_it(given, sent):
    both = site({given: CHAT}, routes={given: lambda request: None})
    assert both.endpoint(sent) is CHAT
    assert list(both.routes) == [sent]


# --- tasks ----------------------------------------------------------------------------------------


async def test_a_task_is_referred_to_until_it_ends_however_it_ends():
    where = site()
    gate = asyncio.get_running_loop().create_future()

    async def work(end):
        await asyncio.shield(gate)
        return 1 / end

    tasks = [weakref.ref(where.start(work(end))) for end in (0, 1)]
    cancelled = where.start(work(1))
    gc.collect()
    assert {task() for task in tasks} | {cancelled} == where.tasks
    cancelled.cancel()
    gate.set_result(None)
    results = await asyncio.gather(*where.tasks, return_exceptions=True)
    assert sorted(type(result).__name__ for result in results) == ["CancelledError", "ZeroDivisionError", "float"]
    assert where.tasks == set()


# --- what is wrong where it is given --------------------------------------------------------------


def test_a_subprotocol_is_chosen_by_a_list_or_by_a_plain_function():
    async def later(conn, offered):
        raise AssertionError

    with pytest.raises(TypeError, match="give either subprotocols or select_subprotocol"):
        site(subprotocols=["chat"], select_subprotocol=lambda conn, offered: None)
    with pytest.raises(TypeError, match="what takes time belongs into process_request"):
        site(select_subprotocol=later)
    assert site(subprotocols=None).subprotocols == ()


def test_an_endpoint_has_a_path_that_begins_with_a_slash_as_a_route_has():
    with pytest.raises(ValueError, match="invalid path 'chat': a path begins with a slash"):
        site({"chat": CHAT})


def test_what_is_given_may_be_changed_afterwards_and_the_site_stays():
    routes, subprotocols = {"/x": print}, ["chat"]
    where = site(routes=routes, subprotocols=subprotocols)
    routes["/y"] = print
    subprotocols.append("more")
    assert (list(where.routes), where.subprotocols) == (["/x"], ("chat",))


def test_the_extra_headers_stand_as_they_are_to_be_sent():
    assert site(extra_headers={"X-A": "1", "X-B": "2"}).extra_lines == b"X-A: 1\r\nX-B: 2\r\n"
    assert site().extra_lines == b""


def test_the_proxies_that_are_believed_are_not_counted_as_one_client_each():
    assert site().proxies is None
    where = site(trusted_proxies=["9.9.9.9"], max_connections_per_address=1)
    where.admission.admit("9.9.9.9", 0.0)
    where.admission.admit("9.9.9.9", 0.0)
    where.admission.admit("8.8.8.8", 0.0)
    with pytest.raises(Refused):
        where.admission.admit("8.8.8.8", 0.0)


@pytest.mark.parametrize("value", ["infinite", True, None, float("inf")])
def test_section_8_point_31_an_open_timeout_is_a_finite_number(value):
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
def test_row_19_extra_headers_that_could_break_the_answer_are_refused_before_a_byte_is_written(headers):
    with pytest.raises(ValueError, match="header"):
        plumews.serve(handler, "127.0.0.1", 0, extra_headers=headers)


@pytest.mark.parametrize("subprotocol", ["", "a b", "a\r\nX: y", "a,b", "\u00e9"])
def test_row_19_a_subprotocol_is_a_token(subprotocol):
    with pytest.raises(ValueError, match="invalid subprotocol"):
        plumews.serve(handler, "127.0.0.1", 0, subprotocols=["chat", subprotocol])


async def async_route(request):
    raise AssertionError


@pytest.mark.parametrize("route", [async_route, "text"])
def test_a_route_is_a_plain_function(route):
    with pytest.raises(TypeError, match="the route of /x must be a plain function"):
        plumews.serve(handler, "127.0.0.1", 0, routes={"/x": route})


def test_a_path_begins_with_a_slash():
    with pytest.raises(ValueError, match="invalid path 'x': a path begins with a slash"):
        plumews.serve(handler, "127.0.0.1", 0, routes={"x": lambda request: None})


def test_headers_are_taken_from_any_iterable_once():
    site, _ = site_and_config({None: None}, {"extra_headers": (pair for pair in [("A", "1"), ("B", "2")])})
    assert [dict(site.extra_headers) for _ in range(2)] == [{"A": "1", "B": "2"}] * 2


def test_a_tls_context_is_taken():
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    site, _ = site_and_config({None: None}, {"ssl": context})
    assert site.ssl is context
