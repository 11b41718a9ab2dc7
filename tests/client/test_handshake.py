"""Tests of the client's half of the opening handshake: the request, and what is accepted as its answer."""

from __future__ import annotations

import base64
import pickle
from typing import Any

import pytest

import plumews
from plumews import Deflate, Headers, InvalidHeader, InvalidMessage, InvalidStatus, InvalidUpgrade, limits
from plumews.client.handshake import USER_AGENT, Accepted, ClientHandshake, bearer, check_headers
from plumews.deflate.config import offer
from plumews.http11.handshake import accept, check_upgrade
from plumews.http11.parser import HeadReader
from plumews.http11.websocket_key import accept_value


def lines_of(handshake: ClientHandshake) -> list[str]:
    """Return the lines of the request, without those of the key."""
    head, end, rest = handshake.request.decode("latin-1").partition("\r\n\r\n")
    assert (end, rest) == ("\r\n\r\n", "")
    return [line for line in head.split("\r\n") if not line.startswith("Sec-WebSocket-Key")]


def answer(handshake: ClientHandshake, *added: str, **replaced: str) -> bytes:
    """Return a 101 for the request. An empty value of ``replaced`` leaves a line out."""
    lines = {
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec_WebSocket_Accept": accept_value(handshake.headers["Sec-WebSocket-Key"]).decode(),
        **replaced,
    }
    said = [f"{name.replace('_', '-')}: {value}" for name, value in lines.items() if value]
    return "\r\n".join(["HTTP/1.1 101 Switching Protocols", *said, *added, "", ""]).encode("latin-1")


def begin(**options: Any) -> ClientHandshake:
    return ClientHandshake("example.com", "/chat?room=blue", **options)


# --- the request ----------------------------------------------------------------------------------


def test_request_has_the_lines_of_the_rfc_and_no_more():
    assert lines_of(begin()) == [
        "GET /chat?room=blue HTTP/1.1",
        "Host: example.com",
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Version: 13",
        f"User-Agent: {USER_AGENT}",
    ]


def test_request_has_what_the_options_say():
    handshake = begin(
        origin="https://example.com",
        subprotocols=("v2", "v1"),
        deflate=Deflate(),
        user_agent=None,
        authorization=bearer("secret"),
        headers=[("X-Name", "caf\xe9"), ("X-Name", "2")],
    )
    assert lines_of(handshake)[5:] == [
        f"Sec-WebSocket-Extensions: {offer(Deflate())}",
        "Sec-WebSocket-Protocol: v2, v1",
        "Origin: https://example.com",
        "Authorization: Bearer secret",
        "X-Name: caf\xe9",
        "X-Name: 2",
    ]


def test_keys_are_random_and_have_16_bytes():
    keys = {begin().headers["Sec-WebSocket-Key"] for _ in range(100)}
    assert len(keys) == 100
    assert {len(base64.b64decode(key, validate=True)) for key in keys} == {16}


def test_explicit_headers_replace_ours():
    handshake = begin(
        origin="https://a",
        authorization="Bearer ours",
        headers={"authorization": "Basic x", "Host": "other", "Origin": "https://b", "User-Agent": "me"},
    )
    assert lines_of(handshake)[4:] == [
        "authorization: Basic x",
        "Host: other",
        "Origin: https://b",
        "User-Agent: me",
    ]


def test_our_server_accepts_the_request_and_we_its_answer():
    handshake = begin(subprotocols=("v2", "v1"))
    request = HeadReader().feed(handshake.request)
    assert request is not None
    check_upgrade(request)
    accepted = handshake.feed(accept(request, subprotocol="v1").serialize())
    assert accepted is not None
    assert accepted.subprotocol == "v1"


@pytest.mark.parametrize(
    "headers",
    [
        {"X": "a\r\nEvil: 1"},
        {"X": "a\nb"},
        {"X\r\nEvil": "1"},
        {"X": "a\0"},
        {"X: y": "1"},
        {"X": "\u20ac"},
    ],
)
def test_headers_cannot_add_lines(headers):
    with pytest.raises(ValueError, match="invalid"):
        check_headers(headers)
    with pytest.raises(ValueError, match="invalid"):
        begin(headers=headers)


@pytest.mark.parametrize("option", ["origin", "user_agent", "authorization"])
def test_options_cannot_add_lines(option):
    with pytest.raises(ValueError, match="control character"):
        begin(**{option: "a\r\nEvil: 1"})


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("Sec-WebSocket-Protocol", "use the option subprotocols"),
        ("sec-websocket-extensions", "use the option compression"),
        ("Sec-WebSocket-Key", "cannot be set"),
        ("Upgrade", "cannot be set"),
        ("connection", "cannot be set"),
        ("Content-Length", "cannot be set"),
        ("Transfer-Encoding", "cannot be set"),
    ],
)
def test_headers_of_the_handshake_cannot_be_set(name, why):
    with pytest.raises(ValueError, match=why):
        check_headers({name: "x"})


def test_headers_that_decide_stand_there_once():
    with pytest.raises(ValueError, match="more than one Authorization"):
        check_headers([("Authorization", "a"), ("authorization", "b")])


@pytest.mark.parametrize("headers", ["X: y", b"X: y"])
def test_headers_are_no_text(headers):
    with pytest.raises(TypeError, match="a mapping or a list of pairs"):
        check_headers(headers)


@pytest.mark.parametrize("token", ["", "a b", "a\r\nb", "caf\xe9", "\x7f"])
def test_invalid_token_is_refused_and_not_quoted(token):
    with pytest.raises(ValueError, match="invalid token") as caught:
        bearer(token)
    assert not token or token not in str(caught.value)
    with pytest.raises(TypeError, match="must be a str, not bytes"):
        bearer(b"x")  # type: ignore[arg-type]


# --- an answer that opens -------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_frames_behind_the_101_are_the_rest(size):
    handshake = begin()
    data = answer(handshake) + b"\x81\x02hi"
    for at in range(0, len(data), size):
        accepted = handshake.feed(data[at : at + size])
        if accepted is not None:
            break
    assert accepted is not None
    assert accepted.rest + data[at + size :] == b"\x81\x02hi"
    assert (accepted.response.status, accepted.subprotocol, accepted.agreement) == (101, None, None)


def test_names_and_tokens_compare_without_case():
    handshake = begin()
    accepted = handshake.feed(answer(handshake, Upgrade="WebSocket", Connection="keep-alive, UPGRADE"))
    assert isinstance(accepted, Accepted)


@pytest.mark.parametrize("size", [1, 1000])
def test_interim_responses_are_passed_over(size):
    handshake = begin()
    hint = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\nContent-Length: 5\r\n\r\n"
    data = b"HTTP/1.1 100 Continue\r\n\r\n" + hint + answer(handshake)
    found = [handshake.feed(data[at : at + size]) for at in range(0, len(data), size)]
    assert isinstance(found[-1], Accepted)


def test_interim_responses_are_bounded():
    handshake = begin()
    most = limits.INTERIM_RESPONSES
    handshake.feed(b"HTTP/1.1 100 Continue\r\n\r\n" * most)
    with pytest.raises(InvalidMessage, match=f"more than {most} interim responses"):
        handshake.feed(b"HTTP/1.1 100 Continue\r\n\r\n")


def test_compression_is_what_the_server_answered():
    handshake = begin(deflate=Deflate())
    accepted = handshake.feed(
        answer(
            handshake,
            Sec_WebSocket_Extensions="permessage-deflate; server_no_context_takeover; server_max_window_bits=10; "
            "client_max_window_bits=8",
        )
    )
    assert accepted is not None
    assert accepted.agreement is not None
    assert accepted.agreement[:4] == (10, 8, False, False)


def test_compression_may_be_declined():
    handshake = begin(deflate=Deflate())
    accepted = handshake.feed(answer(handshake))
    assert accepted is not None
    assert accepted.agreement is None


# --- an answer that does not ----------------------------------------------------------------------

ACCEPT = "Sec-WebSocket-Accept: " + accept_value("dGhlIHNhbXBsZSBub25jZQ==").decode()
WRONG: dict[str, tuple[tuple[str, ...], dict[str, str], type[Exception], str]] = {
    "no upgrade": ((), {"Upgrade": ""}, InvalidUpgrade, "without Upgrade: websocket"),
    "another upgrade": ((), {"Upgrade": "h2c"}, InvalidUpgrade, "without Upgrade: websocket"),
    "two upgrades in one": ((), {"Upgrade": "websocket, h2c"}, InvalidUpgrade, "without Upgrade: websocket"),
    "upgrade twice": (("Upgrade: websocket",), {}, InvalidHeader, "more than one Upgrade"),
    "no connection": ((), {"Connection": ""}, InvalidUpgrade, "without Connection: Upgrade"),
    "another connection": ((), {"Connection": "close"}, InvalidUpgrade, "without Connection: Upgrade"),
    "no accept": ((), {"Sec_WebSocket_Accept": ""}, InvalidHeader, "without Sec-WebSocket-Accept"),
    "another accept": ((), {"Sec_WebSocket_Accept": "x"}, InvalidHeader, "wrong Sec-WebSocket-Accept"),
    "accept of another key": ((ACCEPT,), {"Sec_WebSocket_Accept": ""}, InvalidHeader, "wrong Sec-WebSocket-Accept"),
    "accept twice": ((ACCEPT,), {}, InvalidHeader, "more than one Sec-WebSocket-Accept"),
    "an extension": ((), {"Sec_WebSocket_Extensions": "permessage-deflate"}, InvalidHeader, "none was offered"),
    "a subprotocol": ((), {"Sec_WebSocket_Protocol": "v3"}, InvalidHeader, "'v3', which was not offered"),
    "two subprotocols": ((), {"Sec_WebSocket_Protocol": "v1, v2"}, InvalidHeader, "which was not offered"),
    "another case": ((), {"Sec_WebSocket_Protocol": "V1"}, InvalidHeader, "which was not offered"),
    "no subprotocol": (("Sec-WebSocket-Protocol:",), {}, InvalidHeader, "which was not offered"),
    "subprotocol twice": (
        ("Sec-WebSocket-Protocol: v1",),
        {"Sec_WebSocket_Protocol": "v1"},
        InvalidHeader,
        "more than one Sec-WebSocket-Protocol",
    ),
}


@pytest.mark.parametrize(("added", "replaced", "error", "why"), WRONG.values(), ids=WRONG.keys())
def test_wrong_101_is_refused(added, replaced, error, why):
    handshake = begin(subprotocols=("v1", "v2"))
    with pytest.raises(error, match=why):
        handshake.feed(answer(handshake, *added, **replaced))


@pytest.mark.parametrize(
    "extensions",
    [
        "permessage-deflate",
        "permessage-deflate; server_no_context_takeover; server_max_window_bits=13",
        "x-other",
        "a b",
    ],
)
def test_compression_that_was_not_offered_is_refused(extensions):
    handshake = begin(deflate=Deflate())
    with pytest.raises(InvalidHeader):
        handshake.feed(answer(handshake, Sec_WebSocket_Extensions=extensions))


def test_extensions_on_two_lines_are_refused():
    handshake = begin(deflate=Deflate())
    twice = "Sec-WebSocket-Extensions: permessage-deflate"
    with pytest.raises(InvalidHeader, match="more than one Sec-WebSocket-Extensions"):
        handshake.feed(answer(handshake, twice, twice))


def test_answer_of_another_protocol_is_refused():
    with pytest.raises(InvalidMessage, match="TLS"):
        begin().feed(b"\x15\x03\x03\x00\x02\x02\x46")


# --- a refusal ------------------------------------------------------------------------------------


def test_refusal_has_status_headers_and_body():
    handshake = begin()
    head = b"HTTP/1.1 403 Forbidden\r\nRetry-After: 3\r\nContent-Length: 5\r\n\r\n"
    assert handshake.feed(head + b"not") is None
    assert handshake.refusal is not None
    with pytest.raises(InvalidStatus, match="HTTP 403 Forbidden") as caught:
        handshake.feed(b" y" + b"rest")
    assert caught.value is handshake.refusal
    assert caught.value.status == 403
    response = caught.value.response
    assert (response.status, response.headers["Retry-After"], response.body) == (403, "3", b"not y")


def test_refusal_without_a_length_ends_with_the_connection():
    handshake = begin()
    assert handshake.feed(b"HTTP/1.1 500\r\n\r\nwhat came") is None
    with pytest.raises(InvalidStatus, match=r"HTTP 500$") as caught:
        handshake.feed_eof()
    assert caught.value.response.body == b"what came"


def test_body_of_a_refusal_is_bounded():
    handshake = begin()
    handshake.feed(b"HTTP/1.1 500 No\r\n\r\n")
    for _ in range(65):
        assert handshake.feed(b"x" * 1000) is None
    with pytest.raises(InvalidStatus) as caught:
        handshake.feed(b"x" * 1000)
    assert len(caught.value.response.body) == limits.RESPONSE_BODY


def test_refusal_without_a_body_is_raised_at_once():
    with pytest.raises(InvalidStatus, match="204"):
        begin().feed(b"HTTP/1.1 204 No Content\r\n\r\n")


def test_refusal_can_be_pickled():
    error = InvalidStatus(plumews.Response(503, Headers(("Retry-After", "3")), b"later"))
    copy = pickle.loads(pickle.dumps(error))
    assert (str(copy), copy.status, copy.response.body) == (str(error), 503, b"later")


@pytest.mark.parametrize(
    ("data", "when"), [(b"", "before it answered"), (b"HTTP/1.1 1", "in the middle of its answer")]
)
def test_end_of_the_connection_is_a_network_error(data, when):
    handshake = begin()
    if data:
        assert handshake.feed(data) is None
    with pytest.raises(ConnectionResetError, match=when):
        handshake.feed_eof()
