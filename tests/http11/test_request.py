"""Tests of requests: their headers, made when they are read, and their copies."""

from __future__ import annotations

import copy
import enum
import pickle

from plumews.http11.headers import Headers
from plumews.http11.parser import HeadReader
from plumews.http11.request import Request

HEAD = (
    b"GET /chat?room=blue HTTP/1.1\r\nHost: localhost:8000\r\nUser-Agent: Firefox/130.0\r\nConnection: Upgrade\r\n"
    b"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


def test_repr_of_a_request_is_printable_without_query():
    assert repr(Request("GET", "/%1b[2J%0a?token=secret")) == "<Request GET /%1b[2J%0a>"


def test_request_can_be_copied_and_pickled():
    request = Request("GET", "/a%20b?c=1&c=2", [("Host", "localhost"), ("Cookie", "x"), ("Cookie", "y")], secure=True)
    request.remote_address, request.client_address, request.body = ("1.2.3.4", 5), "1.2.3.4", b"body"
    for twin in (copy.copy(request), copy.deepcopy(request), pickle.loads(pickle.dumps(request))):
        for name in ("method", "target", "path", "query", "repeated", "secure", "headers", "body", "remote_address"):
            assert getattr(twin, name) == getattr(request, name)
        assert twin.headers.get_all("cookie") == ["x", "y"]


class Method(str, enum.Enum):
    """Methods as `http.HTTPMethod` of Python 3.11 has them."""

    GET = "GET"


def test_method_of_a_request_may_be_of_a_subclass_of_str():
    request = Request(Method.GET, "/")
    assert (request.method, type(request.method)) == ("GET", str)


def test_query_and_headers_of_a_request_can_be_set():
    request = Request("GET", "/")
    assert request.query is request.query == {}
    request.query, request.headers = {"a": "1"}, Headers(("Host", "other"))
    assert (request.query, request._values_of(b"host")) == ({"a": "1"}, ["other"])


def test_kept_head_gives_the_headers_of_its_lines():
    lines = b"Cookie: a=1\r\ncookie:b=\xe4 \r\nX-Empty:\r\n\r\n"
    for size in (1, 7, 10_000):
        data = HEAD[:-2] + lines
        reader = HeadReader()
        kept = [reader.feed(data[at : at + size]) for at in range(0, len(data), size)][-1]
        assert reader.head == data
        before = kept._values_of(b"cookie")
        kept._keep_only(reader.head)
        assert list(kept.headers.raw_items()) == list(HeadReader().feed(data).headers.raw_items())
        assert before == kept._values_of(b"cookie") == kept.headers.get_all("Cookie")[-2:] == ["a=1", "b=\xe4"]


def test_keeping_a_head_does_not_undo_a_change_of_the_headers():
    reader = HeadReader()
    request = reader.feed(HEAD)
    del request.headers["User-Agent"]
    request._keep_only(reader.head)
    assert not request._has(b"user-agent")
    assert "User-Agent" not in request.headers


def test_head_with_another_host_than_its_lines_is_not_kept():
    for head in (b"GET http://a/ HTTP/1.1\r\nHost: b\r\n\r\n", b"GET / HTTP/1.0\r\nHost: \r\n\r\n"):
        reader = HeadReader()
        assert reader.feed(head) is not None
        assert reader.head is None
