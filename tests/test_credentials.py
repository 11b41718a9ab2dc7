"""Where a client can put its token and its password, and which of them counts."""

from __future__ import annotations

import json

import pytest

from plumews.credentials import Credentials, credentials_of_message, credentials_of_request
from plumews.errors import InvalidHeader, Refused
from plumews.http11 import Request


def of(target="/ws", *headers, allow_query=True):
    return credentials_of_request(Request("GET", target, list(headers)), allow_query=allow_query)


# --- of a request ---------------------------------------------------------------------------------


def test_nothing_is_nothing():
    assert of() == Credentials(None, None)


@pytest.mark.parametrize("value", ["Bearer a.b.c", "bearer a.b.c", "BEARER   a.b.c"])
def test_a_token_stands_in_the_authorization_header(value):
    assert of("/", ("Authorization", value)) == Credentials("a.b.c")


@pytest.mark.parametrize("value", ["Basic dXNlcjpwYXNz", "Bearer", "Bearer ", "Bearera.b.c", ""])
def test_another_scheme_or_an_empty_token_is_no_token(value):
    assert of("/", ("Authorization", value)) == Credentials()


def test_section_8_point_22_a_browser_offers_its_token_as_a_subprotocol():
    assert of("/", ("Sec-WebSocket-Protocol", "plumews, bearer.a.b.c")) == Credentials("a.b.c")
    assert of("/", ("Sec-WebSocket-Protocol", "bearer.a.b.c"), ("Sec-WebSocket-Protocol", "chat")).token == "a.b.c"
    assert of("/", ("Sec-WebSocket-Protocol", "bearer.")).token is None
    assert of("/", ("Sec-WebSocket-Protocol", "bearer")).token is None


def test_a_password_stands_in_its_header():
    assert of("/", ("X-WebSocket-Room-Password", "open sesame")) == Credentials(None, "open sesame")


def test_both_stand_in_the_query_where_that_is_allowed():
    assert of("/ws?token=a.b.c&room_password=p%20w&room=x") == Credentials("a.b.c", "p w")
    assert of("/ws?token=&room_password=") == Credentials(None, "")


@pytest.mark.parametrize("target", ["/ws?token=a.b.c", "/ws?room_password=x", "/ws?token=", "/ws?room=x&token=a"])
def test_section_8_point_20_secrets_in_the_query_are_refused_where_they_are_not_allowed(target):
    with pytest.raises(Refused, match="secrets in the query are not accepted here") as caught:
        of(target, allow_query=False)
    assert (caught.value.status, caught.value.code) == (403, "WEBSOCKET_QUERY_SECRETS")


def test_the_header_counts_before_the_subprotocol_and_that_before_the_query():
    header, offer = ("Authorization", "Bearer header"), ("Sec-WebSocket-Protocol", "bearer.offer")
    assert of("/?token=query", header, offer).token == "header"
    assert of("/?token=query", offer).token == "offer"
    assert of("/?room_password=query", ("X-WebSocket-Room-Password", "header")).password == "header"


@pytest.mark.parametrize("name", ["Authorization", "X-WebSocket-Room-Password"])
def test_a_secret_that_is_given_twice_is_refused(name):
    with pytest.raises(InvalidHeader, match=f"more than one {name} header"):
        of("/", (name, "Bearer a"), (name, "Bearer b"))


def test_no_secret_stands_in_a_repr():
    credentials = Credentials("s3cret-token", "s3cret-password")
    assert "s3cret" not in f"{credentials} {credentials!r} {[credentials]}"


# --- of a message ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "credentials"),
    [
        ({}, Credentials()),
        ({"token": "a.b.c", "password": "pw"}, Credentials("a.b.c", "pw")),
        ({"token": "", "password": ""}, Credentials(None, "")),
        ({"token": None, "password": None, "more": 1}, Credentials()),
    ],
)
@pytest.mark.parametrize("binary", [False, True])
def test_a_message_of_type_auth_carries_both(fields, credentials, binary):
    message = json.dumps({"type": "auth", **fields})
    assert credentials_of_message(message.encode() if binary else message) == credentials


@pytest.mark.parametrize(
    "message",
    [
        "",
        "hello",
        "null",
        "[]",
        '"auth"',
        "{}",
        '{"type": "message"}',
        '{"type": "auth", "token": 1}',
        '{"type": "auth", "password": ["x"]}',
        '{"type": ["auth"]}',
        "[" * 100_000,
        '{"type": "auth", "n": ' + "9" * 10_000 + "}",
        b"\xff\xfe\x00",
        b"\x00",
    ],
    ids=lambda message: repr(message[:20]),
)
def test_any_other_message_is_none(message):
    assert credentials_of_message(message) is None
