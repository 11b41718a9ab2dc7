"""Tests of the key of an opening handshake, and of the value that answers it."""

from __future__ import annotations

import base64
import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plumews.constants import ACCEPT_GUID
from plumews.http11.websocket_key import accept_value, is_key

KEY = "dGhlIHNhbXBsZSBub25jZQ=="


def test_value_for_the_key_of_rfc_6455_section_1_3():
    assert accept_value(KEY) == b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


@given(st.binary(min_size=16, max_size=16))
def test_value_is_base64_of_sha_1_of_key_and_guid(nonce):
    key = base64.b64encode(nonce).decode()
    assert is_key(key)
    assert accept_value(key) == base64.b64encode(hashlib.sha1(key.encode() + ACCEPT_GUID).digest())


@pytest.mark.parametrize("character", [*map(chr, range(256)), "\u0130", "\U0001f600"])
@pytest.mark.parametrize("at", [0, 10, 21])
def test_key_has_characters_of_base64_only(character, at):
    assert is_key(KEY[:at] + character + KEY[at + 1 :]) == (
        character.isascii() and (character.isalnum() or character in "+/")
    )


@pytest.mark.parametrize(
    "text", ["", KEY[:-1], KEY[:-2] + "AA", KEY[:-2] + "A=", KEY + "=", KEY[:-4] + "====", f"{KEY}\n"]
)
def test_other_size_or_padding_is_no_key(text):
    assert not is_key(text)
    with pytest.raises(ValueError, match="invalid websocket key"):
        accept_value(text)
