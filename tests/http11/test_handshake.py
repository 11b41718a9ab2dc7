"""Tests of the server side of the opening handshake (RFC 6455 section 4.2), and of its responses."""

from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plumews.errors import InvalidHandshake, InvalidHeader, InvalidMessage, InvalidUpgrade, Refused
from plumews.http11.handshake import (
    accept,
    accepted,
    check_upgrade,
    choose_subprotocol,
    offered_subprotocols,
    refusal,
)
from plumews.http11.headers import Headers
from plumews.http11.models import Request
from plumews.http11.origin import LOOPBACK_HOSTS, check_host, check_origin
from plumews.http11.parser import HeadReader

KEY = "dGhlIHNhbXBsZSBub25jZQ=="


def upgrade(method: str = "GET", /, **changes: str | list[str] | None) -> Request:
    """Return a valid request, with headers changed, repeated (a list) or removed (``None``)."""
    fields: dict[str, str | list[str] | None] = {
        "Host": "localhost:8000",
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": KEY,
    }
    for name, value in changes.items():
        fields[name.replace("_", "-")] = value
    headers = Headers()
    for name, value in fields.items():
        for line in [] if value is None else [value] if isinstance(value, str) else value:
            headers.add(name, line)
    return Request(method, "/chat", headers)


def refused(request: Request) -> InvalidHandshake:
    with pytest.raises(InvalidHandshake) as caught:
        check_upgrade(request)
    return caught.value


# --- accepted -------------------------------------------------------------------------------------


@pytest.mark.parametrize("subprotocol", [None, "chat.v1"])
@pytest.mark.parametrize("extra", [[], [("Server", "x"), ("Set-Cookie", "a=1"), ("Set-Cookie", "b=2")]])
def test_accepted_equals_serialized_accept(subprotocol, extra):
    request = upgrade(Sec_WebSocket_Protocol="other, chat.v1")
    lines = Headers(extra).serialize()[:-2]
    answer = accept(request, subprotocol=subprotocol, headers=extra)
    assert accepted(KEY, subprotocol=subprotocol, headers=lines) == answer.serialize()


def test_key_of_rfc_6455_section_1_3_is_accepted():
    assert check_upgrade(upgrade()) == KEY


@pytest.mark.parametrize(
    "changes",
    [
        {"Connection": "keep-alive, Upgrade"},
        {"Connection": ["keep-alive", "UPGRADE"]},
        {"Connection": " ,, upgrade\t,"},
        {"Upgrade": "WebSocket"},
        {"Upgrade": ["h2c", "websocket"]},
        {"Upgrade": "HTTP/2.0, websocket"},
    ],
)
def test_upgrade_tokens_match_on_any_line_in_any_case(changes):
    assert check_upgrade(upgrade(**changes)) == KEY


# --- refused, in order ----------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["POST", "HEAD", "OPTIONS", "get"])
def test_other_method_is_405_with_allow(method):
    exc = refused(upgrade(method, Upgrade=None, Sec_WebSocket_Key=None))
    assert (exc.status, exc.code, str(exc)) == (405, "METHOD_NOT_ALLOWED", "method not allowed")
    assert exc.headers == (("Allow", "GET"),)


@pytest.mark.parametrize(
    "changes",
    [
        {"Connection": None},
        {"Connection": "keep-alive"},
        {"Connection": "upgrades"},
        {"Connection": '"upgrade"'},
        {"Connection": "close, keep-alive upgrade"},
        {"Upgrade": None},
        {"Upgrade": "h2c"},
        {"Upgrade": "websocket/13"},
        {"Upgrade": "web socket"},
        {"Upgrade": "," * 10_000},
    ],
)
def test_missing_upgrade_token_is_426(changes):
    exc = refused(upgrade(**changes, Sec_WebSocket_Version="8", Sec_WebSocket_Key=None))
    assert isinstance(exc, InvalidUpgrade)
    assert (exc.status, exc.code, str(exc)) == (426, "WEBSOCKET_BAD_UPGRADE", "websocket upgrade required")
    assert exc.headers == (("Upgrade", "websocket"), ("Sec-WebSocket-Version", "13"))


@pytest.mark.parametrize(
    "version", [None, "", "0", "7", "8", "99", "013", "13.0", "13, 8", "+13", ["13", "13"], ["8", "13"]]
)
def test_other_version_is_426_with_ours(version):
    exc = refused(upgrade(Sec_WebSocket_Version=version, Sec_WebSocket_Key=None))
    assert isinstance(exc, InvalidUpgrade)
    assert (exc.status, exc.code, str(exc)) == (426, "WEBSOCKET_BAD_VERSION", "websocket version 13 required")
    assert exc.headers == (("Sec-WebSocket-Version", "13"),)


@pytest.mark.parametrize("key", [None, "", ["", ""]])
def test_missing_key_is_400(key):
    exc = refused(upgrade(Sec_WebSocket_Key=key))
    assert isinstance(exc, InvalidHeader)
    assert (exc.status, exc.code, str(exc)) == (400, "WEBSOCKET_KEY_MISSING", "websocket key required")


@pytest.mark.parametrize(
    "key",
    [
        "x",
        base64.b64encode(bytes(15)).decode(),
        base64.b64encode(bytes(17)).decode(),
        base64.b64encode(bytes(18)).decode(),
        KEY[:-1],
        KEY[:-2],
        KEY + "=",
        KEY + " ",
        KEY[:8] + " " + KEY[8:],
        KEY[:8] + " " + KEY[9:],
        KEY[:8] + "\t" + KEY[9:],
        KEY[:8] + "-" + KEY[9:],
        KEY[:8] + "=" + KEY[9:],
        "====" + KEY[4:],
        KEY[:8] + "\xe9" + KEY[9:],
        "=" * 24,
        "A" * 24,
        "A" * 16_000,
        [KEY, KEY],
        [KEY, "x"],
        ["", KEY],
    ],
)
def test_key_that_is_not_base64_of_16_bytes_is_400(key):
    exc = refused(upgrade(Sec_WebSocket_Key=key))
    assert isinstance(exc, InvalidHeader)
    assert (exc.status, exc.code, str(exc)) == (400, "WEBSOCKET_KEY_INVALID", "invalid websocket key")


def test_newline_in_a_key_is_refused():
    for end in ("\n", "\r\n", "\r"):
        with pytest.raises(ValueError, match="Sec-WebSocket-Key"):
            upgrade(Sec_WebSocket_Key=KEY[:12] + end + KEY[12:])


@given(st.binary(min_size=16, max_size=16))
def test_key_of_any_nonce_is_accepted(nonce):
    key = base64.b64encode(nonce).decode()
    assert check_upgrade(upgrade(Sec_WebSocket_Key=key)) == key


@given(st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), min_size=23, max_size=25))
def test_key_is_accepted_only_if_it_decodes_to_16_bytes(key):
    try:
        check_upgrade(upgrade(Sec_WebSocket_Key=key))
    except InvalidHeader:
        return
    assert len(base64.b64decode(key, validate=True)) == 16


# --- subprotocols ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("offered", "available", "chosen"),
    [
        ([], [], None),
        (["chat"], [], None),
        ([], ["chat"], None),
        (["chat"], ["chat"], "chat"),
        (["a", "b"], ["b", "a"], "b"),
        (["a", "b"], ["c", "b"], "b"),
        (["Chat"], ["chat"], None),
    ],
)
def test_subprotocol_is_chosen_in_our_order(offered, available, chosen):
    assert choose_subprotocol(offered, available) == chosen


def test_token_offered_as_subprotocol_is_never_chosen():
    request = upgrade(Sec_WebSocket_Protocol="bearer.eyJh.eyJz.c2ln, chat")
    offered = offered_subprotocols(request)
    assert offered == ["bearer.eyJh.eyJz.c2ln", "chat"]
    assert choose_subprotocol(offered, ["chat"]) == "chat"
    assert choose_subprotocol(offered[:1], ["chat", "bearer"]) is None
    assert b"bearer" not in accept(request, subprotocol="chat").serialize()
    assert b"bearer" not in accept(request).serialize()


def test_offered_subprotocols_join_several_lines():
    assert offered_subprotocols(upgrade(Sec_WebSocket_Protocol=["a, b", "c"])) == ["a", "b", "c"]
    assert offered_subprotocols(upgrade()) == []


@pytest.mark.parametrize("value", ['"chat"', "a b", "a/b", "b\xfccher"])
def test_offered_subprotocol_that_is_no_token_is_400(value):
    with pytest.raises(InvalidHeader, match="Sec-WebSocket-Protocol") as caught:
        offered_subprotocols(upgrade(Sec_WebSocket_Protocol=value))
    assert caught.value.status == 400


# --- the 101 --------------------------------------------------------------------------------------


def test_accept_returns_the_101_of_rfc_6455_section_4_2_2():
    assert accept(upgrade()).serialize() == (
        b"HTTP/1.1 101 Switching Protocols\r\n"
        b"Upgrade: websocket\r\n"
        b"Connection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"
        b"\r\n"
    )


def test_accept_adds_subprotocol_extensions_and_headers():
    response = accept(
        upgrade(Sec_WebSocket_Protocol="chat"),
        subprotocol="chat",
        extensions="permessage-deflate; client_no_context_takeover",
        headers=[("Set-Cookie", "a=1"), ("Set-Cookie", "b=2")],
    )
    assert response.headers["Sec-WebSocket-Protocol"] == "chat"
    assert response.headers["Sec-WebSocket-Extensions"] == "permessage-deflate; client_no_context_takeover"
    assert response.headers.get_all("Set-Cookie") == ["a=1", "b=2"]


@pytest.mark.parametrize(
    "name",
    ["Upgrade", "connection", "Sec-WebSocket-Accept", "sec-websocket-protocol", "Sec-WebSocket-Extensions",
     "Sec-WebSocket-Version", "Sec-WebSocket-Key", "Content-Length", "Transfer-Encoding"],
)  # fmt: skip
def test_application_cannot_set_headers_of_the_handshake(name):
    with pytest.raises(ValueError, match=f"{name} belongs to the handshake"):
        accept(upgrade(), headers={name: "1"})


@pytest.mark.parametrize("bad", ["\r\nX: y", "\n", "\r", "\x00", "\x1b", "\x7f"])
def test_control_characters_of_the_application_are_refused(bad):
    with pytest.raises(ValueError, match="header X-Room"):
        accept(upgrade(), headers={"X-Room": f"a{bad}"})
    with pytest.raises(ValueError, match="invalid header name"):
        accept(upgrade(), headers={f"X{bad}": "a"})
    with pytest.raises(ValueError, match="invalid subprotocol"):
        accept(upgrade(Sec_WebSocket_Protocol="chat"), subprotocol=f"chat{bad}")
    with pytest.raises(ValueError, match="header Sec-WebSocket-Extensions"):
        accept(upgrade(), extensions=f"x{bad}")


def test_subprotocol_that_was_not_offered_raises_value_error():
    with pytest.raises(ValueError, match="'chat' was not offered"):
        accept(upgrade(), subprotocol="chat")


# --- refusals -------------------------------------------------------------------------------------


def test_refusal_is_json_with_code_message_and_status():
    exc = refused(upgrade(Upgrade=None))
    head, _, body = refusal(exc).serialize().partition(b"\r\n\r\n")
    assert json.loads(body) == {
        "error": {
            "code": "WEBSOCKET_BAD_UPGRADE",
            "message": "websocket upgrade required",
            "status": 426,
            "category": "client_error",
            "type": "validation_failure",
        }
    }
    assert body.endswith(b"\n")
    assert head.split(b"\r\n") == [
        b"HTTP/1.1 426 Upgrade Required",
        b"Content-Type: application/json",
        b"Connection: close",
        b"Cache-Control: no-store",
        b"X-Content-Type-Options: nosniff",
        b"Upgrade: websocket",
        b"Sec-WebSocket-Version: 13",
        b"Content-Length: %d" % len(body),
    ]


@pytest.mark.parametrize(
    ("exc", "status", "code"),
    [
        (InvalidMessage("x", status=431), 431, "WEBSOCKET_BAD_REQUEST"),
        (InvalidHandshake("x"), 400, "WEBSOCKET_BAD_REQUEST"),
        (Refused("x", status=429, code="WEBSOCKET_JOIN_DENIED"), 429, "WEBSOCKET_JOIN_DENIED"),
    ],
)
def test_refusal_has_status_and_code_of_its_exception(exc, status, code):
    response = refusal(exc)
    assert response.status == status
    error = json.loads(response.body)["error"]
    assert (error["code"], error["message"], error["status"]) == (code, "x", status)


def test_refusal_with_line_break_in_a_header_raises():
    with pytest.raises(ValueError, match="Retry-After"):
        refusal(Refused("later", headers=(("Retry-After", "1\r\nSet-Cookie: a"),)))


def test_row_20_text_of_a_refusal_stays_in_its_json_string():
    body = refusal(Refused('"}\r\n<script>\x1b[2J\u2028')).body
    assert body.isascii()
    assert body.count(b"\n") == 1
    assert json.loads(body)["error"]["message"] == '"}\r\n<script>\x1b[2J\u2028'


# --- whole handshakes -----------------------------------------------------------------------------


def shake_hands(head: bytes) -> int:
    """Return the status of the response to ``head`` of a server on loopback with all checks."""
    try:
        request = HeadReader().feed(head)
        assert request is not None
        check_host(request, LOOPBACK_HOSTS)
        check_origin(request, None, secure=False)
        check_upgrade(request)
        response = accept(request, subprotocol=choose_subprotocol(offered_subprotocols(request), ["chat"]))
    except InvalidHandshake as exc:
        response = refusal(exc)
    assert response.serialize().startswith(b"HTTP/1.1 %d " % response.status)
    return response.status


def test_header_with_any_byte_is_accepted_or_has_a_status():
    fields = [
        (b"Host", b"localhost:8000"),
        (b"Connection", b"keep-alive, Upgrade"),
        (b"Upgrade", b"websocket"),
        (b"Origin", b"http://localhost:8000"),
        (b"Sec-WebSocket-Version", b"13"),
        (b"Sec-WebSocket-Key", KEY.encode()),
        (b"Sec-WebSocket-Protocol", b"chat"),
        (b"Content-Length", b"0"),
        (b"Cookie", b"a=b"),
    ]
    seen = set()
    for changed, (name, value) in enumerate(fields):
        for byte in range(256):
            for place in (0, 3, len(value)):
                lines = [b"%b: %b" % field for field in fields]
                lines[changed] = b"%b: %b%c%b" % (name, value[:place], byte, value[place:])
                status = shake_hands(b"\r\n".join([b"GET / HTTP/1.1", *lines, b"", b""]))
                seen.add(status)
                opaque = name == b"Cookie" and byte >= 0x80
                if not (byte == 9 or 0x20 <= byte <= 0x7E or opaque):
                    assert status == 400
    assert seen == {101, 400, 403, 426}
