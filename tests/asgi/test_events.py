"""Checks of the events of an application, one at a time. `test_application` has their effect on a connection."""

from __future__ import annotations

import logging

import pytest

from plumews.asgi.events import accept_headers, accept_subprotocol, checked_payload, close_of, unsent_close

logger = logging.getLogger("uvicorn.error")


@pytest.mark.parametrize(
    ("event", "payload"),
    [
        ({"text": "a"}, "a"),
        ({"text": ""}, ""),
        ({"bytes": b""}, b""),
        ({"bytes": None, "text": ""}, ""),
        ({"bytes": b"a", "text": None}, b"a"),
        ({"bytes": b"", "text": "a"}, b""),
    ],
)
def test_payload_is_bytes_unless_none_else_text(event, payload):
    assert checked_payload(event) == payload


@pytest.mark.parametrize(
    ("event", "close"),
    [
        ({}, (1000, "")),
        ({"code": None, "reason": None}, (1000, "")),
        ({"code": 1000, "reason": ""}, (1000, "")),
        ({"code": 4999, "reason": "why"}, (4999, "why")),
        ({"code": 1005}, (1000, "")),
        ({"code": 1}, (1011, "")),
        ({"reason": "x" * 124}, (1000, "x" * 123)),
        ({"reason": "\u00e4" * 62}, (1000, "\u00e4" * 61)),
        ({"reason": "\ud800"}, (1000, "?")),
    ],
)
def test_close_is_what_may_be_sent(event, close):
    assert close_of(event, logger) == close


@pytest.mark.parametrize("event", [{"code": True}, {"code": 1000.0}, {"code": "1000"}, {"reason": b""}, {"reason": 1}])
def test_close_of_a_wrong_type_is_an_error(event):
    with pytest.raises(TypeError, match=r"websocket\.close"):
        close_of(event, logger)


@pytest.mark.parametrize("event", [{}, {"code": None}, {"code": 1000}, {"code": 1000, "reason": ""}, {"reason": None}])
def test_no_hint_for_a_close_without_content(event):
    assert unsent_close(event) == ""


def test_headers_may_be_missing_none_or_any_iterable():
    assert (
        len(accept_headers({})) == len(accept_headers({"headers": None})) == len(accept_headers({"headers": ()})) == 0
    )
    assert accept_headers({"headers": iter([(b"a", b"1")])})["a"] == "1"
    assert accept_headers({"headers": [[b"a", b"1"]]})["a"] == "1"


def test_subprotocol_is_one_of_those_offered():
    assert accept_subprotocol({}, []) is None
    assert accept_subprotocol({"subprotocol": "a"}, ["b", "a"]) == "a"
    with pytest.raises(ValueError, match="it offered none"):
        accept_subprotocol({"subprotocol": "a"}, [])
    with pytest.raises(TypeError):
        accept_subprotocol({"subprotocol": b"a"}, ["a"])
