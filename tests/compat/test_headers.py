"""Headers of `plumews.compat.websockets`, compared with those of `websockets` call by call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import websockets

import plumews
from plumews.compat import websockets as ours
from support.both_libraries import LIBRARIES

PAIRS = [("Server", "x"), ("X-Twice", "1"), ("x-twice", "2"), ("Content-Length", "5")]

CALLS: dict[str, Callable[[Any, Any], Any]] = {
    "list": lambda headers, library: list(headers),
    "keys": lambda headers, library: list(headers.keys()),
    "len": lambda headers, library: len(headers),
    "raw_items": lambda headers, library: list(headers.raw_items()),
    "str": lambda headers, library: str(headers),
    "serialize": lambda headers, library: headers.serialize(),
    "get": lambda headers, library: (
        headers["SERVER"],
        headers.get("server"),
        headers.get("none"),
        "x-TWICE" in headers,
    ),
    "get_all": lambda headers, library: (headers.get_all("X-TWICE"), headers.get_all("none")),
    "missing": lambda headers, library: headers["none"],
    "twice": lambda headers, library: headers["x-twice"],
    "set_adds": lambda headers, library: (headers.__setitem__("X-Twice", "3"), headers.get_all("x-twice")),
    "set_an_int": lambda headers, library: (headers.__setitem__("X-Int", 5), str(headers)),
    "del": lambda headers, library: (headers.__delitem__("X-TWICE"), list(headers.raw_items())),
    "del_missing": lambda headers, library: headers.__delitem__("none"),
    "clear": lambda headers, library: (headers.clear(), len(headers), list(headers.raw_items())),
    "copy": lambda headers, library: (
        headers.copy() == headers,
        headers.copy() is headers,
        type(headers.copy()).__name__,
    ),
    "copy_is_its_own": lambda headers, library: (headers.copy().__setitem__("A", "b"), "a" in headers),
    "update_mapping": lambda headers, library: (headers.update({"A": "b"}), list(headers.raw_items())),
    "update_pairs": lambda headers, library: (headers.update([("A", "b"), ("A", "c")]), list(headers.raw_items())),
    "update_headers": lambda headers, library: (headers.update(headers.copy()), list(headers.raw_items())),
    "update_keywords": lambda headers, library: (headers.update(a="b"), list(headers.raw_items())),
    "setdefault": lambda headers, library: (
        headers.setdefault("Server", "y"),
        headers.setdefault("New", "z"),
        len(headers),
    ),
    "pop": lambda headers, library: (headers.pop("Server"), list(headers)),
    "equal": lambda headers, library: (headers == library.Headers(PAIRS), headers == {"a": "b"}),
    "control": lambda headers, library: headers.__setitem__("A", "b\r\nC: d"),
    "dict_of_single": lambda headers, library: (headers.__delitem__("x-twice"), dict(headers), list(headers.items())),
}


def outcome(call: Callable[[Any, Any], Any], library: Any) -> Any:
    """Return the result of a call, or its exception by name."""
    headers = library.Headers(PAIRS)
    try:
        return call(headers, library)
    except Exception as exc:
        return type(exc).__name__


@pytest.mark.parametrize("name", CALLS)
def test_headers_behave_alike(name: str) -> None:
    theirs, mine = (outcome(CALLS[name], library) for library in LIBRARIES)
    assert mine == theirs


def test_headers_are_made_of_the_same_sources() -> None:
    for library in LIBRARIES:
        headers = library.Headers
        made = [headers({"A": "b"}), headers([("A", "b")]), headers(A="b"), headers(headers({"A": "b"}))]
        assert [list(each.raw_items()) for each in made] == [[("A", "b")]] * 4
        assert list(headers().raw_items()) == []
    with pytest.raises(TypeError, match="one mapping"):
        ours.Headers({"a": "b"}, {"c": "d"})


def test_a_wrong_value_raises_the_exception_of_websockets() -> None:
    with pytest.raises(ours.exceptions.InvalidHeaderValue, match="invalid A header"):
        ours.Headers(A="b\nc")
    with pytest.raises(ValueError, match="invalid header name"):
        ours.Headers({"A B": "c"})
    with pytest.raises(ours.MultipleValuesError):
        ours.Headers([("A", "1"), ("a", "2")])["A"]


def test_headers_are_native_headers_and_hide_values_in_repr() -> None:
    headers = ours.Headers({"Authorization": "secret"})
    assert isinstance(headers, plumews.Headers)
    assert "secret" not in repr(headers)
    assert plumews.Response(200, headers).serialize().startswith(b"HTTP/1.1 200 OK\r\nAuthorization: secret")


def test_request_and_response_have_the_fields_of_websockets() -> None:
    for library in (websockets, ours):
        http11: Any = library.http11  # type: ignore[attr-defined]
        request = http11.Request("/a?b", library.Headers(), method="GET")
        response = http11.Response(200, "OK", library.Headers(), b"body")
        assert (request.path, request.method, request.protocol) == ("/a?b", "GET", "HTTP/1.1")
        assert (response.status_code, response.reason_phrase, response.body) == (200, "OK", b"body")
        assert http11.Response(204, "No Content", library.Headers()).body == b""
        assert request == http11.Request("/a?b", library.Headers())
