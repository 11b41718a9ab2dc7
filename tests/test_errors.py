"""Tests of the exceptions: classes, texts and attributes."""

from __future__ import annotations

import copy
import inspect
import pickle
import re

import pytest

import plumews
from plumews import errors
from plumews.constants import CloseCode
from plumews.errors import Close, ConnectionClosed, InvalidHandshake, ProtocolError, WebSocketException
from plumews.http11.models import Response

CLASSES = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, WebSocketException)]


def drawn() -> list[tuple[int, str, str]]:
    """Return the tree in the docstring as depth, name and description."""
    found = []
    for line in (errors.__doc__ or "").split("\n"):
        if match := re.match(r"((?:[ │]   )+)(?:[├└]── )?(\w+(?:, \w+)*)(.*)", line):
            depth = len(match[1]) // 4 - 1 + ("── " in line)
            found += [(depth, name, match[3]) for name in match[2].split(", ")]
    return found


def test_tree_in_the_docstring_is_that_of_the_classes():
    tree = {}
    path: list[str] = []
    for depth, name, _ in drawn():
        path[depth:] = [name]
        tree[name] = path[-2] if depth else "Exception"
    assert tree == {kind.__name__: kind.__bases__[0].__name__ for kind in CLASSES}


def test_second_base_in_the_tree_is_that_of_the_class():
    said = {name: match[1] for _, name, text in drawn() if (match := re.match(r" \((\w+)\)", text))}
    assert said
    assert said == {name: getattr(errors, name).__bases__[1].__name__ for name in said}


@pytest.mark.parametrize(
    ("kind", "usual"),
    [
        (errors.InvalidText, ValueError),
        (errors.InvalidRoomName, ValueError),
        (errors.WeakSecret, ValueError),
        (errors.WeakRoomPassword, ValueError),
        (errors.ConcurrencyError, RuntimeError),
    ],
)
def test_errors_are_also_builtin_exceptions(kind, usual):
    assert issubclass(kind, usual)


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_every_exception_is_public(kind):
    assert kind.__name__ in errors.__all__
    assert getattr(plumews, kind.__name__) is kind


# --- texts ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "phrase"),
    [
        (plumews.ConnectionClosed(None, None), "connection closed"),
        (plumews.SendTimeout(), "send timeout"),
        (plumews.SendQueueFull(), "send queue full"),
        (plumews.PayloadTooBig(), "payload too large"),
        (plumews.ProtocolError(), "protocol error"),
        (plumews.InvalidToken(), "invalid jwt"),
        (plumews.TokenExpired(), "jwt expired"),
        (plumews.TokenRevoked(), "invalid jwt"),
        (plumews.WeakRoomPassword(), "room password does not meet strength requirements"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_errors_contain_their_phrases(error, phrase):
    assert phrase in str(error)
    assert isinstance(error, plumews.WebSocketException)


def test_send_timeout_is_a_timeout_error():
    assert issubclass(plumews.SendTimeout, TimeoutError)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (errors.PayloadTooBig("9 bytes"), "payload too large: 9 bytes"),
        (errors.InvalidData("why"), "invalid UTF-8: why"),
        (errors.InvalidCompression("why"), "invalid compressed data: why"),
        (errors.TooManyFragments("why"), "too many fragments: why"),
        (errors.SendTimeout("1 s"), "send timeout: 1 s"),
        (errors.SendQueueFull("dropped"), "send queue full: dropped"),
        (errors.TokenExpired("a minute ago"), "jwt expired: a minute ago"),
        (errors.TokenRevoked(), "invalid jwt: it was revoked"),
    ],
)
def test_detail_follows_the_phrase(error, said):
    assert str(error) == said


# --- closed connections ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rcvd", "sent", "cause", "said"),
    [
        (None, None, "", "connection closed: no close frame received or sent"),
        (None, None, "a reset", "connection closed: no close frame received or sent; a reset"),
        (Close(1000, ""), None, "", "connection closed: received 1000 (normal closure)"),
        (None, Close(1001, "bye"), "", "connection closed: sent 1001 (going away) bye"),
        (
            Close(4000, "theirs"),
            Close(1011, ""),
            "why",
            "connection closed: received 4000 (private use) theirs; sent 1011 (internal error); why",
        ),
        (None, Close(1002, "why"), "why", "connection closed: sent 1002 (protocol error) why"),
    ],
)
def test_connection_closed_text_has_both_close_frames(rcvd, sent, cause, said):
    error = ConnectionClosed(rcvd, sent, cause)
    assert str(error) == said
    assert (error.rcvd, error.sent) == (rcvd, sent)


def test_code_is_that_of_the_peer_or_1006():
    told = ConnectionClosed(Close(4000, "bye"), Close(1000, "ours"))
    assert (told.code, told.reason) == (4000, "bye")
    silent = ConnectionClosed(None, Close(1001, "ours"))
    assert (silent.code, silent.reason) == (CloseCode.ABNORMAL_CLOSURE, "")


# --- connecting -----------------------------------------------------------------------------------


def test_connect_error_names_the_step_and_the_address():
    error = errors.ConnectError.of("connect", "10.0.0.1:443", ConnectionRefusedError(111, "Connection refused"))
    assert str(error) == "cannot connect: connect (10.0.0.1:443): Connection refused"
    for one in (error, copy.copy(error), pickle.loads(pickle.dumps(error))):
        assert (str(one), one.step, one.address, one.errno) == (str(error), "connect", "10.0.0.1:443", 111)
    assert str(errors.ConnectTimeout("resolve", "", "10 s")) == "cannot connect: resolve: 10 s"


def test_proxy_and_redirect_errors_have_the_status():
    proxy = errors.ProxyError("p:3128", "407", status=407, headers=(("Proxy-Authenticate", "Basic"),))
    assert (proxy.step, proxy.status, proxy.headers[0][0]) == ("proxy", 407, "Proxy-Authenticate")
    redirect = errors.RedirectError("h:80", "too many", status=302)
    assert (redirect.step, redirect.status) == ("redirect", 302)
    assert isinstance(redirect, OSError)


# --- codes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (ProtocolError, 1002),
        (errors.InvalidData, 1007),
        (errors.InvalidCompression, 1007),
        (errors.PayloadTooBig, 1009),
        (errors.TooManyFragments, 1008),
    ],
)
def test_each_protocol_error_has_its_close_code(kind, code):
    assert kind().close_code == code


@pytest.mark.parametrize(("rule", "code"), [("length", 1009), ("utf8", 1007), ("empty", 1008), ("control", 1008)])
def test_each_rule_for_text_has_its_close_code(rule, code):
    error = errors.InvalidText(rule, "why")
    assert (error.rule, error.close_code, str(error)) == (rule, code, "why")


@pytest.mark.parametrize(
    ("kind", "status", "code"),
    [
        (InvalidHandshake, 400, "WEBSOCKET_BAD_REQUEST"),
        (errors.InvalidMessage, 400, "WEBSOCKET_BAD_REQUEST"),
        (errors.InvalidHeader, 400, "WEBSOCKET_BAD_HEADER"),
        (errors.InvalidOrigin, 403, "WEBSOCKET_FORBIDDEN_ORIGIN"),
        (errors.InvalidUpgrade, 426, "WEBSOCKET_BAD_UPGRADE"),
        (errors.Refused, 403, "WEBSOCKET_FORBIDDEN"),
    ],
)
def test_refusal_has_default_or_given_status_and_code(kind, status, code):
    plain, other = kind("why"), kind("why", status=418, code="TEAPOT", headers=(("Retry-After", "1"),))
    assert (str(plain), plain.status, plain.code, plain.headers) == ("why", status, code, ())
    assert (other.status, other.code, other.headers) == (418, "TEAPOT", (("Retry-After", "1"),))


def test_rate_limited_has_retry_after():
    assert errors.RateLimited("too fast").retry_after == 0.0
    assert errors.RateLimited("too fast", 2.5).retry_after == 2.5


def made() -> list[WebSocketException]:
    rcvd, sent = Close(1001, "going"), Close(1001, "")
    special = {
        errors.ConnectionClosed: (None, None, "the network"),
        errors.ConnectionClosedOK: (rcvd, sent),
        errors.ConnectionClosedError: (rcvd, None),
        errors.InvalidStatus: (Response(503),),
        errors.InvalidText: ("length", "too long"),
        errors.ConnectError: ("tls", "h:443", "why"),
        errors.ConnectTimeout: ("resolve", "", "10 s"),
        errors.ProxyError: ("p:3128", "407", 407, (("Via", "p"),)),
        errors.RedirectError: ("h:80", "too many", 302),
    }
    return [kind(*special.get(kind, ("why",))) for kind in CLASSES]


@pytest.mark.parametrize("exc", made(), ids=lambda exc: type(exc).__name__)
@pytest.mark.parametrize("again", [copy.copy, lambda exc: pickle.loads(pickle.dumps(exc))], ids=["copied", "pickled"])
def test_exception_survives_copy_and_pickle(exc, again):
    exc.note = "of the application"
    twin = again(exc)
    assert (type(twin), str(twin), twin.args) == (type(exc), str(exc), exc.args)
    assert repr(vars(twin)) == repr(vars(exc))  # two responses are never equal
    for name in ("code", "reason", "close_code", "status"):
        assert getattr(twin, name, None) == getattr(exc, name, None)


@pytest.mark.parametrize(("seconds", "header"), [(0.0, "1"), (0.2, "1"), (3.0, "3"), (3.01, "4")])
def test_busy_rounds_retry_after_up_to_whole_seconds(seconds: float, header: str) -> None:
    exc = errors.Refused.busy("later", "BUSY", seconds, status=429)
    assert (exc.status, exc.code, str(exc)) == (429, "BUSY", "later")
    assert exc.headers == (("Retry-After", header),)


def test_busy_is_503_and_retry_after_5_s_by_default() -> None:
    exc = errors.Refused.busy("later", "BUSY")
    assert (exc.status, exc.headers) == (503, (("Retry-After", "5"),))
