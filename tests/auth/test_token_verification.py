"""Verification of HS256 tokens: accepted forms, attacks on header and payload, times, issuer and audience."""

from __future__ import annotations

import base64
import hashlib
import time
from typing import Any

import jwt
import pytest

from plumews import limits
from plumews.auth.simple import SimpleRoomAuth
from plumews.errors import AuthError, TokenExpired
from support.jwt_forgery import GOOD, HEADER, NOW, SECRET, as_json, at, b64, refusal, sign

# --- valid tokens ---------------------------------------------------------------------------------


def test_token_is_accepted_as_text_and_as_bytes() -> None:
    claims = {"sub": "42", "roles": ["admin"], "nested": {"a": [1, 2.5, None]}}
    token = sign(claims)
    assert at().verify_jwt(token) == claims
    assert at().verify_jwt(token.encode()) == claims


def test_token_of_another_implementation_is_accepted() -> None:
    token = jwt.encode({"sub": "42", "exp": NOW + 60, "iat": NOW}, SECRET, algorithm="HS256")
    assert at().verify_jwt(token) == {"sub": "42", "exp": NOW + 60, "iat": NOW}


def test_example_of_rfc_7515_appendix_a_1_is_valid_until_exp() -> None:
    key = base64.urlsafe_b64decode(
        "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow=="
    )
    example = (
        "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9"
        ".eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ"
        ".dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
    )
    claims = {"iss": "joe", "exp": 1300819380, "http://example.com/is_root": True}
    assert SimpleRoomAuth(key, clock=lambda: 1300819380).verify_jwt(example) == claims
    with pytest.raises(TokenExpired, match="jwt expired"):
        SimpleRoomAuth(key, clock=lambda: 1300819381).verify_jwt(example)


def test_secret_given_as_text_is_encoded_as_utf_8() -> None:
    secret = "sécret-" * 5
    assert SimpleRoomAuth(secret).verify_jwt(sign({"sub": "1"}, key=secret.encode())) == {"sub": "1"}


def test_plain_kid_is_allowed_and_not_looked_up() -> None:
    assert at().verify_jwt(sign({}, {"alg": "HS256", "kid": "2026-01"})) == {}


def test_clock_of_the_machine_is_the_default() -> None:
    verifier = SimpleRoomAuth(SECRET)
    assert verifier.verify_jwt(sign({"exp": time.time() + 60, "nbf": time.time() - 60}))
    with pytest.raises(TokenExpired):
        verifier.verify_jwt(sign({"exp": time.time() - 60}))


# --- malformed tokens and attacks -----------------------------------------------------------------

HEAD, BODY, SIGNATURE = GOOD.split(".")


@pytest.mark.parametrize(
    "token",
    [
        pytest.param("", id="empty"),
        pytest.param("..", id="only_dots"),
        pytest.param("abc", id="one_part"),
        pytest.param(f"{HEAD}.{BODY}", id="two_parts"),
        pytest.param(f"{GOOD}.x", id="four_parts"),
        pytest.param(f"{HEAD}.{BODY}.", id="no_signature"),
        pytest.param(f"{HEAD}..{SIGNATURE}", id="no_payload"),
        pytest.param(f".{BODY}.{SIGNATURE}", id="no_header"),
        pytest.param(GOOD + "=", id="padding"),
        pytest.param(f"{HEAD}=.{BODY}.{SIGNATURE}", id="padding_inside"),
        pytest.param(GOOD + "\n", id="newline_behind"),
        pytest.param(" " + GOOD, id="space_before"),
        pytest.param(f"{HEAD}.{BODY}.!!{SIGNATURE}", id="junk_that_decoders_skip"),
        pytest.param(f"{HEAD}.{BODY}.{SIGNATURE[:-1]}", id="cut_signature"),
        pytest.param(f"{HEAD}.{BODY}.{SIGNATURE}AAAA", id="longer_signature"),
        pytest.param(f"{HEAD}.{BODY}.A", id="impossible_length_of_signature"),
        pytest.param(f"A.{BODY}.{SIGNATURE}", id="impossible_length_of_header"),
        pytest.param(f"{b64(b'not json')}.{BODY}.{SIGNATURE}", id="header_not_json"),
        pytest.param(f"{b64(bytes([255, 254]))}.{BODY}.{SIGNATURE}", id="header_not_utf_8"),
        pytest.param(f"{b64('{}'.encode('utf-16'))}.{BODY}.{SIGNATURE}", id="header_in_utf_16"),
        pytest.param(f"{HEAD}.{b64(b'{}')}.{SIGNATURE}", id="payload_changed"),
        pytest.param("ä" * 40, id="not_ascii"),
        pytest.param(b"\xff\xfe.\x00.\x80", id="bytes_that_are_not_ascii"),
        pytest.param("\ud800.a.b", id="lone_surrogate"),
        pytest.param(sign({}, header=b"[" * 3000), id="header_nested_deep"),
        pytest.param(sign({}, header=b'{"a":' * 1000 + b"1" + b"}" * 1000), id="header_objects_nested_deep"),
    ],
)
def test_malformed_token_is_refused(token: Any) -> None:
    assert str(refusal(token)).startswith("invalid jwt: ")


@pytest.mark.parametrize("token", [None, 5, {"alg": "HS256"}, bytearray(GOOD.encode())], ids=repr)
def test_token_of_another_type_is_refused(token: Any) -> None:
    assert str(refusal(token)) == f"invalid jwt: a token is str or bytes, not {type(token).__name__}"


def test_change_of_any_character_is_refused() -> None:
    for index, char in enumerate(GOOD):
        other = "A" if char != "A" else "B"
        refusal(GOOD[:index] + other + GOOD[index + 1 :])


def header_attacks() -> dict[str, str]:
    """Return tokens with hostile headers, by name (row 33 of the threat model)."""
    unsigned = f"{b64(as_json({'alg': 'none'}))}.{BODY}."
    return {
        "none": unsigned,
        "none_with_a_signature": sign({}, {"alg": "none"}),
        "NoNe": sign({}, {"alg": "NoNe"}),
        "no_alg": sign({}, {"typ": "JWT"}),
        "alg_null": sign({}, {"alg": None}),
        "alg_list": sign({}, {"alg": ["HS256"]}),
        "alg_lower_case": sign({}, {"alg": "hs256"}),
        "alg_HS512": sign({}, {"alg": "HS512"}, digest="sha512"),
        "alg_RS256": sign({}, {"alg": "RS256"}),
        "another_key": sign({}, key=SECRET[::-1]),
        "empty_key": sign({}, key=b""),
        "hash_without_a_key": f"{HEAD}.{BODY}.{b64(hashlib.sha256(f'{HEAD}.{BODY}'.encode()).digest())}",
        "crit": sign({}, {**HEADER, "crit": ["exp"], "exp": 1}),
        "crit_empty": sign({}, {**HEADER, "crit": []}),
        "crit_b64": sign({}, {**HEADER, "crit": ["b64"], "b64": False}),
        "b64_false": sign({}, {**HEADER, "b64": False}),
        "kid_path": sign({}, {**HEADER, "kid": "../../../../dev/null"}),
        "kid_path_signed_with_what_is_there": sign({}, {**HEADER, "kid": "../../../../dev/null"}, key=b""),
        "kid_backslash": sign({}, {**HEADER, "kid": "..\\secret"}),
        "kid_number": sign({}, {**HEADER, "kid": 1}),
        "kid_null": sign({}, {**HEADER, "kid": None}),
        "jku": sign({}, {**HEADER, "jku": "https://evil.example/keys"}),
        "jwk": sign({}, {**HEADER, "jwk": {"kty": "oct", "k": b64(SECRET)}}),
        "x5u": sign({}, {**HEADER, "x5u": "https://evil.example/cert"}),
        "duplicate_alg": sign({}, b'{"alg":"none","alg":"HS256"}'),
        "duplicate_in_depth": sign({}, b'{"alg":"HS256","x":{"a":1,"a":2}}'),
        "header_null": sign({}, b"null"),
        "header_list": sign({}, [HEADER]),
        "header_with_NaN": sign({}, b'{"alg":"HS256","x":NaN}'),
        "64_KiB": sign({"fill": "x" * 65536}),
    }


@pytest.mark.parametrize("token", [pytest.param(token, id=name) for name, token in header_attacks().items()])
def test_row_33_attack_by_the_header_is_refused(token: str) -> None:
    assert str(refusal(token)).startswith("invalid jwt: ")


@pytest.mark.parametrize(
    "payload",
    [b"null", b"[]", b'"text"', b"1", b"", b"{", b"{} {}", b'{"sub":"1","sub":"2"}', b'{"x":{"a":1,"a":1}}',
     b'{"x":NaN}', b'{"x":-Infinity}', b"\xff", b"\xef\xbb\xbf{}", "{}".encode("utf-16"), b"[" * 3000],
    ids=lambda payload: repr(payload[:20]),
)  # fmt: skip
def test_row_33_signed_payload_must_be_a_plain_json_object(payload: bytes) -> None:
    assert str(refusal(sign(payload))).startswith("invalid jwt: ")


def test_token_of_the_largest_size_is_accepted_one_more_is_not() -> None:
    def sized(size: int) -> str:
        fill = 0
        while len(token := sign({"fill": "x" * fill})) < size:
            fill += max(1, (size - len(token)) * 3 // 4)
        return token

    token = sized(limits.TOKEN_SIZE)
    assert len(token) == limits.TOKEN_SIZE
    assert at().verify_jwt(token)["fill"]
    assert str(refusal(sized(limits.TOKEN_SIZE + 1))) == "invalid jwt: longer than 8192 bytes"


# --- times ----------------------------------------------------------------------------------------

TIME_THAT_IS_NONE = [
    b'"1700000000"', b"true", b"false", b"null", b"[]", b"{}", b"NaN", b"Infinity", b"1e999", b"-1e999", b"1e300",
    b"9" * 400, b"-1", b"1700000000000", b"9223372036854775807", b"253402300800",
]  # fmt: skip


@pytest.mark.parametrize("claim", ["exp", "nbf", "iat"])
@pytest.mark.parametrize("value", TIME_THAT_IS_NONE, ids=lambda value: value[:24].decode())
def test_row_33_malformed_time_is_refused(claim: str, value: bytes) -> None:
    error = refusal(sign(b'{"%s":%s}' % (claim.encode(), value)))
    assert str(error).startswith("invalid jwt: ")
    assert not isinstance(error, TokenExpired)


@pytest.mark.parametrize("claim", ["sub", "jti"])
@pytest.mark.parametrize("value", [42, None, True, ["ada"], {}])
def test_sub_and_jti_that_are_no_strings_are_refused(claim: str, value: object) -> None:
    assert str(refusal(sign({claim: value}))) == f'invalid jwt: its {claim} must be a string, such as "42"'
    assert at(NOW).verify_jwt(sign({claim: "42"})) == {claim: "42"}


def test_error_of_a_malformed_time_says_what_is_expected() -> None:
    assert str(refusal(sign({"exp": "soon"}))) == (
        "invalid jwt: its exp must be a number of seconds since 1970, before the year 10000"
    )


def test_token_is_valid_at_the_second_of_its_exp() -> None:
    token = sign({"exp": NOW})
    assert at(NOW).verify_jwt(token)
    with pytest.raises(TokenExpired):
        at(NOW + 0.001).verify_jwt(token)


def test_exp_counts_fractions_of_a_second() -> None:
    token = sign({"exp": NOW + 0.5})
    assert at(NOW + 0.5).verify_jwt(token)
    with pytest.raises(TokenExpired):
        at(NOW + 0.75).verify_jwt(token)


def test_expired_token_raises_token_expired() -> None:
    error = refusal(sign({"exp": NOW - 1}))
    assert type(error) is TokenExpired
    assert isinstance(error, AuthError)
    assert "jwt expired" in str(error)


def test_section_8_point_23_nbf_is_checked() -> None:
    token = sign({"nbf": NOW})
    assert str(refusal(token, at(NOW - 1))) == "invalid jwt: not yet valid (nbf)"
    assert at(NOW).verify_jwt(token)


def test_section_8_point_23_leeway_counts_on_both_sides() -> None:
    token = sign({"nbf": NOW, "exp": NOW + 100})
    assert at(NOW - 5, leeway=5).verify_jwt(token)
    assert at(NOW + 105, leeway=5).verify_jwt(token)
    refusal(token, at(NOW - 5.01, leeway=5))
    assert type(refusal(token, at(NOW + 105.01, leeway=5))) is TokenExpired


def test_section_8_point_23_exp_may_be_required() -> None:
    assert at().verify_jwt(sign({"sub": "1"})) == {"sub": "1"}
    strict = at(require_exp=True)
    assert str(refusal(sign({"sub": "1"}), strict)) == "invalid jwt: it has no exp, and one is required here"
    assert strict.verify_jwt(sign({"exp": NOW}))


@pytest.mark.parametrize("issuer", [None, "", "https://evil.example", ["https://id.example"]], ids=repr)
def test_section_8_point_23_issuer_is_checked_if_one_is_set(issuer: object) -> None:
    strict = at(issuer="https://id.example")
    assert strict.verify_jwt(sign({"iss": "https://id.example"}))
    assert "iss" in str(refusal(sign({"iss": issuer}), strict))
    assert "iss" in str(refusal(sign({}), strict))
    assert at().verify_jwt(sign({"iss": issuer})) == {"iss": issuer}


@pytest.mark.parametrize("audience", [None, "mail", "chatter", "", [], ["mail"], {"chat": 1}, 1], ids=repr)
def test_section_8_point_23_other_audience_is_refused(audience: object) -> None:
    chat = at(audience="chat")
    assert chat.verify_jwt(sign({"aud": "chat"}))
    assert chat.verify_jwt(sign({"aud": ["mail", "chat"]}))
    assert "aud" in str(refusal(sign({"aud": audience}), chat))
    assert "aud" in str(refusal(sign({}), chat))


def test_token_with_an_audience_is_refused_if_none_is_set() -> None:
    assert "aud" in str(refusal(sign({"aud": "mail"})))
