"""Places of a request from which a token and a password are read, and their precedence."""

from __future__ import annotations

import json

import pytest

from plumews.auth.credentials import AuthOptions, Credentials, credentials_of_message, credentials_of_request
from plumews.errors import InvalidHandshake, InvalidHeader, InvalidOrigin, Refused
from plumews.http11.headers import Headers
from plumews.http11.models import Request


def of(target="/ws", *headers, **sources):
    sources.setdefault("allow_query_secrets", True)
    return credentials_of_request(Request("GET", target, list(headers)), AuthOptions(**sources))


# --- of a request ---------------------------------------------------------------------------------


def test_request_without_credentials_has_none():
    assert of() == Credentials(None, None)


@pytest.mark.parametrize("value", ["Bearer a.b.c", "bearer a.b.c", "BEARER   a.b.c"])
def test_token_is_read_from_the_authorization_header(value):
    assert of("/", ("Authorization", value)) == Credentials("a.b.c")


@pytest.mark.parametrize("value", ["Basic dXNlcjpwYXNz", "Bearer", "Bearer ", "Bearera.b.c", ""])
def test_other_scheme_or_empty_bearer_is_no_token(value):
    assert of("/", ("Authorization", value)) == Credentials()


def test_section_8_point_22_token_is_read_from_a_subprotocol():
    assert of("/", ("Sec-WebSocket-Protocol", "plumews, bearer.a.b.c")) == Credentials("a.b.c")
    assert of("/", ("Sec-WebSocket-Protocol", "bearer.a.b.c"), ("Sec-WebSocket-Protocol", "chat")).token == "a.b.c"
    assert of("/", ("Sec-WebSocket-Protocol", "bearer.")).token is None
    assert of("/", ("Sec-WebSocket-Protocol", "bearer")).token is None


def test_password_is_read_from_its_header():
    assert of("/", ("X-WebSocket-Room-Password", "open sesame")) == Credentials(None, "open sesame")


def test_both_are_read_from_the_query_if_allowed():
    assert of("/ws?token=a.b.c&room_password=p%20w&room=x") == Credentials("a.b.c", "p w")
    assert of("/ws?token=&room_password=") == Credentials(None, "")


@pytest.mark.parametrize("value", ["Message", "msg", "1", "token"])
def test_unknown_value_of_auth_is_400(value):
    with pytest.raises(InvalidHandshake, match="auth in the query must be message, or be left out") as caught:
        of(f"/ws?room=x&auth={value}")
    assert (caught.value.status, caught.value.code) == (400, "WEBSOCKET_BAD_QUERY")
    assert of("/ws?room=x&auth=") == of("/ws?room=x&auth=message") == Credentials()


@pytest.mark.parametrize(
    "query", ["auth=message&auth=", "auth=&auth=message", "auth=message&auth=message", "auth&auth"]
)
def test_auth_given_twice_is_400(query):
    with pytest.raises(InvalidHandshake, match="more than one auth in the query") as caught:
        of(f"/ws?{query}")
    assert (caught.value.status, caught.value.code) == (400, "WEBSOCKET_BAD_QUERY")


@pytest.mark.parametrize("target", ["/ws?token=a.b.c", "/ws?room_password=x", "/ws?token=", "/ws?room=x&token=a"])
def test_section_8_point_20_secrets_in_the_query_are_403(target):
    with pytest.raises(Refused, match="secrets in the query are not accepted here") as caught:
        of(target, allow_query_secrets=False)
    assert (caught.value.status, caught.value.code) == (403, "WEBSOCKET_QUERY_SECRETS")


HEADER, OFFER, COOKIE = (
    ("Authorization", "Bearer a.b.c"),
    ("Sec-WebSocket-Protocol", "plumews, bearer.a.b.c"),
    ("Cookie", "theme=dark; token=a.b.c"),
)
ORIGIN = ("Origin", "https://example.com")


def test_same_token_in_several_places_is_accepted():
    assert of("/?token=a.b.c", HEADER, OFFER, COOKIE, ORIGIN, token_cookie="token") == Credentials("a.b.c")


@pytest.mark.parametrize(
    "headers",
    [
        (("Authorization", "Bearer another"),),
        (("Sec-WebSocket-Protocol", "bearer.another"),),
        (("Cookie", "token=another"), ORIGIN),
        (("Cookie", "token=a.b.c; token=another"), ORIGIN),
    ],
    ids=["header", "subprotocol", "cookie", "two_cookies"],
)
def test_two_different_tokens_in_one_request_are_refused(headers):
    with pytest.raises(InvalidHeader, match="two different tokens in one request") as caught:
        of("/?token=a.b.c", *headers, token_cookie="token")
    assert (caught.value.status, caught.value.code) == (400, "WEBSOCKET_TWO_TOKENS")


def test_two_different_secrets_in_the_query_are_refused():
    assert of("/?token=a&token=a&token=&room_password=b&room_password=b") == Credentials("a", "b")
    with pytest.raises(InvalidHeader, match="two different tokens in one request"):
        of("/?token=a&room=x&token=b")
    with pytest.raises(InvalidHeader, match="two different room passwords in one request"):
        of("/?room_password=a&room_password=b")


def test_password_header_takes_precedence_over_the_query():
    assert of("/?room_password=query", ("X-WebSocket-Room-Password", "header")).password == "header"


@pytest.mark.parametrize(
    ("source", "target", "headers"),
    [("header", "/", [HEADER]), ("subprotocol", "/", [OFFER]), ("message", "/?auth=message", [])],
)
def test_disabled_source_is_refused_and_the_others_are_not(source, target, headers):
    on = [name for name in ("header", "subprotocol", "message") if name != source]
    of(target, *headers)
    with pytest.raises(Refused, match="are not accepted here") as caught:
        of(target, *headers, token_sources=on)
    assert (caught.value.status, caught.value.code) == (403, "WEBSOCKET_TOKEN_SOURCE")
    assert of("/?token=a.b.c", token_sources=()).token == "a.b.c"


def test_cookie_is_a_token_only_if_it_is_named():
    assert of("/", COOKIE).token is None
    assert of("/", COOKIE, ORIGIN, token_cookie="theme").token == "dark"
    assert of("/", ("Cookie", 'token="a.b.c"'), ORIGIN, token_cookie="token").token == "a.b.c"
    assert of("/", ("Cookie", "xtoken=1; token"), ORIGIN, token_cookie="token").token is None


def test_token_cookie_must_be_ascii_and_other_cookies_need_not():
    foreign = "city=Z\xc3\xbcrich; \xa0token=x; token\x85=x"
    sources = AuthOptions(token_cookie="token")

    def of(cookie):
        return credentials_of_request(Request("GET", "/", Headers.read([ORIGIN, ("Cookie", cookie)])), sources)

    assert of(f"{foreign}; token=a.b.c").token == "a.b.c"
    assert of(foreign).token is None
    for value in ("a.b.c\xa0", "\x85a.b.c", "Z\xfcrich"):
        with pytest.raises(InvalidHeader, match="non-ASCII byte in the cookie token"):
            of(f"theme=dark; token={value}")


def test_row_21_token_in_a_cookie_needs_an_origin():
    with pytest.raises(InvalidOrigin):
        of("/", COOKIE, token_cookie="token")
    assert of("/", HEADER, token_cookie="token").token == "a.b.c"  # no cookie, no browser


@pytest.mark.parametrize("origins", [["*"], ["https://example.com", "null"]])
def test_row_21_token_cookie_needs_listed_origins(origins):
    with pytest.raises(ValueError, match="the origins must be listed"):
        AuthOptions(token_cookie="token").check_origins(origins)
    AuthOptions().check_origins(origins)
    AuthOptions(token_cookie="token").check_origins(["https://example.com", None])


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ({"token_sources": "header"}, TypeError),
        ({"token_sources": ["headers"]}, ValueError),
        ({"token_sources": ["cookie"]}, ValueError),
        ({"token_cookie": ""}, ValueError),
        ({"token_cookie": "a b"}, ValueError),
    ],
)
def test_unknown_source_or_bad_cookie_name_raises(wrong, error):
    with pytest.raises(error, match="token"):
        AuthOptions(**wrong)


def test_first_message_completes_the_request():
    request = Credentials("a.b.c", "pw")
    assert request.with_message(Credentials()) == request
    assert request.with_message(Credentials("a.b.c", "other")) == Credentials("a.b.c", "other")
    assert Credentials().with_message(request) == request
    with pytest.raises(Refused, match="two different tokens"):
        request.with_message(Credentials("d.e.f"))


@pytest.mark.parametrize("name", ["Authorization", "X-WebSocket-Room-Password"])
def test_secret_header_given_twice_is_refused(name):
    with pytest.raises(InvalidHeader, match=f"more than one {name} header"):
        of("/", (name, "Bearer a"), (name, "Bearer b"))


def test_repr_of_credentials_holds_no_secret():
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
def test_message_of_type_auth_carries_both(fields, credentials, binary):
    message = json.dumps({"type": "auth", **fields})
    assert credentials_of_message(message.encode() if binary else message) == credentials


def test_astral_characters_and_nested_duplicates_are_accepted():
    message = r'{"type": "auth", "password": "\ud83d\ude00", "x": {"a": 1, "a": 2}}'
    assert credentials_of_message(message) == Credentials(None, "\U0001f600")


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
        '{"type": "auth", "token": "a", "token": "a"}',
        '{"type": "auth", "type": "auth"}',
        r'{"type": "auth", "token": "\ud800"}',
        r'{"type": "auth", "password": "a\udc00"}',
        b'{"type": "auth", "password": "\xed\xb0\x80"}',
        '{"type": "auth", "token": "a"}'.encode("utf-16"),
        b"\xff\xfe\x00",
        b"\x00",
    ],
    ids=lambda message: repr(message[:20]),
)
def test_other_message_has_no_credentials(message):
    assert credentials_of_message(message) is None
