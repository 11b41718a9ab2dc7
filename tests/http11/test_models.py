"""Tests of responses."""

from __future__ import annotations

import json

import pytest

from plumews.http11.headers import Headers
from plumews.http11.models import Response

# --- responses ------------------------------------------------------------------------------------


def test_response_has_status_line_headers_length_and_body():
    response = Response(200, {"Server": "x"}, b"hello")
    assert response.serialize() == b"HTTP/1.1 200 OK\r\nServer: x\r\nContent-Length: 5\r\n\r\nhello"
    assert list(response.headers) == ["Server"]


def test_empty_response_has_length_0_except_101_204_304():
    assert Response(404).serialize() == b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"
    assert Response(101).serialize() == b"HTTP/1.1 101 Switching Protocols\r\n\r\n"
    assert Response(204).serialize() == b"HTTP/1.1 204 No Content\r\n\r\n"
    assert Response(304).serialize() == b"HTTP/1.1 304 Not Modified\r\n\r\n"
    for status in (101, 204, 304):
        with pytest.raises(ValueError, match=f"status {status} has no body"):
            Response(status, body=b"x").serialize()


def test_text_and_json_responses_have_their_content_type():
    assert Response.text(200, "gr\u00fcn", {"A": "1"}).serialize() == (
        b"HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\nA: 1\r\nContent-Length: 5\r\n\r\ngr\xc3\xbcn"
    )
    response = Response.json(200, {"room": "gr\u00fcn"})
    assert response.headers["Content-Type"] == "application/json"
    assert json.loads(response.body) == {"room": "gr\u00fcn"}
    assert response.body.endswith(b"\n")


def test_given_content_type_replaces_the_default():
    page = Response.html(200, "<p>grün", {"Cache-Control": "no-store"})
    assert page.headers.get_all("Content-Type") == ["text/html; charset=utf-8"]
    assert (page.body, page.headers["Cache-Control"]) == ("<p>grün".encode(), "no-store")
    for response in (
        Response.text(200, "a;b", {"content-type": "text/csv"}),
        Response.json(200, [], {"content-type": "text/csv"}),
        Response.html(200, "", {"content-type": "text/csv"}),
    ):
        assert response.headers.get_all("Content-Type") == ["text/csv"]


def test_reason_is_given_or_that_of_the_status():
    assert Response(499).serialize().startswith(b"HTTP/1.1 499 \r\n")
    assert Response(200, reason="Fine").serialize().startswith(b"HTTP/1.1 200 Fine\r\n")
    assert repr(Response(200)) == "<Response 200 OK>"


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: Response("200"), "the status of a response must be an int, not str"),
        (lambda: Response(200, "hello"), r"Response\(status, headers, body\); for text there is Response.text"),
        (lambda: Response(200, {}, "hello"), "the body of a response must be bytes, not str"),
        (lambda: Response.text("hello", 200), "the text of a response must be a str, not int"),
    ],
    ids=["status", "headers", "body", "text"],
)
def test_response_of_wrong_types_raises_type_error(make, text):
    with pytest.raises(TypeError, match=text):
        make()


@pytest.mark.parametrize("reason", ["a\r\nb", "\n", "\x00", "\x85", "gr\u00fcn", "\x1b[2J"])
def test_row_19_reason_with_control_characters_is_refused(reason):
    with pytest.raises(ValueError, match="invalid reason"):
        Response(200, reason=reason)
    response = Response(200)
    response.reason = reason
    with pytest.raises(ValueError, match="invalid reason"):
        response.serialize()


@pytest.mark.parametrize("status", [0, 99, 1000, -1])
def test_status_without_three_digits_is_refused(status):
    with pytest.raises(ValueError, match="three digits"):
        Response(status)


@pytest.mark.parametrize("header", [("X", "a\r\nb"), ("X", "\x00"), ("X\n", "a"), ("", "a"), ("X", "\u2028")])
def test_response_header_with_control_characters_is_refused(header):
    with pytest.raises(ValueError, match="header"):
        Response(200, [header])
    response = Response(200)
    with pytest.raises(ValueError, match="header"):
        response.headers.add(*header)


def test_length_that_differs_from_the_body_is_refused():
    assert Response(200, {"content-length": "2"}, b"ok").serialize().count(b"ontent-") == 1
    for headers in ({"Content-Length": "3"}, {"Transfer-Encoding": "chunked"}, [("Content-Length", "2")] * 2):
        with pytest.raises(ValueError, match="length of the body is 2"):
            Response(200, headers, b"ok").serialize()


def test_headers_object_is_used_without_a_copy():
    headers = Headers({"A": "1"})
    assert Response(200, headers).headers is headers
