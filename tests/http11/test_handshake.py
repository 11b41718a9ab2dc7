"""The decisions of ``plumews.http11.handshake``: RFC 6455 section 4.2, in order, and their answers on the wire."""

from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plumews.errors import InvalidHandshake, InvalidHeader, InvalidMessage, InvalidUpgrade, Refused
from plumews.http11.handshake import (
    accept,
    accept_key,
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
    """A good request, with headers changed, repeated (a list) or taken away (``None``)."""
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
def test_the_answer_that_is_made_in_one_go_is_the_same_on_the_wire(subprotocol, extra):
    request = upgrade(Sec_WebSocket_Protocol="other, chat.v1")
    lines = Headers(extra).serialize()[:-2]
    answer = accept(request, subprotocol=subprotocol, headers=extra)
    assert accepted(request, subprotocol=subprotocol, headers=lines) == answer.serialize()


def test_the_key_of_rfc_6455_section_1_3_is_accepted_with_its_answer():
    assert check_upgrade(upgrade()) == KEY
    assert accept_key(KEY) == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


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
def test_section_8_point_28_tokens_are_found_on_any_line_in_any_case(changes):
    assert check_upgrade(upgrade(**changes)) == KEY


# --- refused, in order ----------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["POST", "HEAD", "OPTIONS", "get"])
def test_section_8_point_28_another_method_is_405_with_allow(method):
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
def test_row_17_without_upgrade_tokens_the_answer_is_426_with_version_and_upgrade(changes):
    exc = refused(upgrade(**changes, Sec_WebSocket_Version="8", Sec_WebSocket_Key=None))
    assert isinstance(exc, InvalidUpgrade)
    assert (exc.status, exc.code, str(exc)) == (426, "WEBSOCKET_BAD_UPGRADE", "websocket upgrade required")
    assert exc.headers == (("Upgrade", "websocket"), ("Sec-WebSocket-Version", "13"))


@pytest.mark.parametrize(
    "version", [None, "", "0", "7", "8", "99", "013", "13.0", "13, 8", "+13", ["13", "13"], ["8", "13"]]
)
def test_row_17_another_version_is_426_with_ours(version):
    exc = refused(upgrade(Sec_WebSocket_Version=version, Sec_WebSocket_Key=None))
    assert isinstance(exc, InvalidUpgrade)
    assert (exc.status, exc.code, str(exc)) == (426, "WEBSOCKET_BAD_VERSION", "websocket version 13 required")
    assert exc.headers == (("Sec-WebSocket-Version", "13"),)


@pytest.mark.parametrize("key", [None, "", ["", ""]])
def test_a_missing_key_is_400(key):
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
def test_section_8_point_28_a_key_that_is_not_the_base64_of_16_bytes_is_400(key):
    exc = refused(upgrade(Sec_WebSocket_Key=key))
    assert isinstance(exc, InvalidHeader)
    assert (exc.status, exc.code, str(exc)) == (400, "WEBSOCKET_KEY_INVALID", "invalid websocket key")


def test_section_8_point_28_a_newline_cannot_even_get_into_a_key():
    for end in ("\n", "\r\n", "\r"):
        with pytest.raises(ValueError, match="Sec-WebSocket-Key"):
            upgrade(Sec_WebSocket_Key=KEY[:12] + end + KEY[12:])


@given(st.binary(min_size=16, max_size=16))
def test_every_nonce_is_a_key(nonce):
    key = base64.b64encode(nonce).decode()
    assert check_upgrade(upgrade(Sec_WebSocket_Key=key)) == key


@given(st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), min_size=23, max_size=25))
def test_a_key_is_accepted_only_if_it_decodes_to_16_bytes(key):
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
def test_section_8_point_28_our_order_decides_among_the_offered(offered, available, chosen):
    assert choose_subprotocol(offered, available) == chosen


def test_a_token_offered_as_a_subprotocol_is_never_chosen_or_echoed():
    request = upgrade(Sec_WebSocket_Protocol="bearer.eyJh.eyJz.c2ln, chat")
    offered = offered_subprotocols(request)
    assert offered == ["bearer.eyJh.eyJz.c2ln", "chat"]
    assert choose_subprotocol(offered, ["chat"]) == "chat"
    assert choose_subprotocol(offered[:1], ["chat", "bearer"]) is None
    assert b"bearer" not in accept(request, subprotocol="chat").serialize()
    assert b"bearer" not in accept(request).serialize()


def test_section_8_point_28_offers_on_several_lines_are_one_list():
    assert offered_subprotocols(upgrade(Sec_WebSocket_Protocol=["a, b", "c"])) == ["a", "b", "c"]
    assert offered_subprotocols(upgrade()) == []


@pytest.mark.parametrize("value", ['"chat"', "a b", "a/b", "b\xfccher"])
def test_an_offer_that_is_no_token_is_400(value):
    with pytest.raises(InvalidHeader, match="Sec-WebSocket-Protocol") as caught:
        offered_subprotocols(upgrade(Sec_WebSocket_Protocol=value))
    assert caught.value.status == 400


# --- the answer -----------------------------------------------------------------------------------


def test_the_answer_is_what_rfc_6455_section_4_2_2_says():
    assert accept(upgrade()).serialize() == (
        b"HTTP/1.1 101 Switching Protocols\r\n"
        b"Upgrade: websocket\r\n"
        b"Connection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"
        b"\r\n"
    )


def test_the_answer_carries_subprotocol_extensions_and_the_applications_headers():
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
def test_the_application_cannot_set_the_handshakes_own_headers(name):
    with pytest.raises(ValueError, match=f"{name} belongs to the handshake"):
        accept(upgrade(), headers={name: "1"})


@pytest.mark.parametrize("bad", ["\r\nX: y", "\n", "\r", "\x00", "\x1b", "\x7f"])
def test_row_19_control_bytes_from_the_application_are_an_error(bad):
    with pytest.raises(ValueError, match="header X-Room"):
        accept(upgrade(), headers={"X-Room": f"a{bad}"})
    with pytest.raises(ValueError, match="invalid header name"):
        accept(upgrade(), headers={f"X{bad}": "a"})
    with pytest.raises(ValueError, match="invalid subprotocol"):
        accept(upgrade(Sec_WebSocket_Protocol="chat"), subprotocol=f"chat{bad}")
    with pytest.raises(ValueError, match="header Sec-WebSocket-Extensions"):
        accept(upgrade(), extensions=f"x{bad}")


def test_a_subprotocol_that_was_not_offered_is_an_error_here_and_not_at_the_client():
    with pytest.raises(ValueError, match="'chat' was not offered"):
        accept(upgrade(), subprotocol="chat")


# --- the refusal ----------------------------------------------------------------------------------


def test_a_refusal_is_json_with_the_word_the_text_and_the_status():
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
def test_every_refusal_has_its_status_and_word(exc, status, code):
    response = refusal(exc)
    assert response.status == status
    error = json.loads(response.body)["error"]
    assert (error["code"], error["message"], error["status"]) == (code, "x", status)


def test_row_19_a_refusal_with_a_header_of_two_lines_is_an_error():
    with pytest.raises(ValueError, match="Retry-After"):
        refusal(Refused("later", headers=(("Retry-After", "1\r\nSet-Cookie: a"),)))


def test_row_20_the_text_of_a_refusal_cannot_leave_its_json_string():
    body = refusal(Refused('"}\r\n<script>\x1b[2J\u2028')).body
    assert body.isascii()
    assert body.count(b"\n") == 1
    assert json.loads(body)["error"]["message"] == '"}\r\n<script>\x1b[2J\u2028'


# --- all of it ------------------------------------------------------------------------------------


def shake_hands(head: bytes) -> int:
    """The status with which a server on loopback answers ``head``, by all the rules there are."""
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


def test_row_15_every_byte_in_every_header_of_a_handshake_is_accepted_or_refused_with_a_status():
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
