"""What in a request is nobody's business."""

from __future__ import annotations

import pytest

from plumews.http11.models import Request
from plumews.http11.request_secrets import secrets_of


@pytest.mark.parametrize(
    ("target", "headers"),
    [
        ("/", {"Authorization": "Bearer s3cret"}),
        ("/", {"Authorization": "s3cret"}),
        ("/", {"X-WebSocket-Room-Password": "s3cret"}),
        ("/", {"Sec-WebSocket-Protocol": "plumews, bearer.s3cret"}),
        ("/", {"Cookie": 'a=b; session="s3cret"'}),
        ("/", {"Cookie": "s3cret"}),
        ("/?token=s3cret", {}),
        ("/?room_password=s3%63ret", {}),
        ("/?token=&token=s3cret", {}),
    ],
)
def test_a_secret_is_found_wherever_a_client_can_put_it(target, headers):
    assert "s3cret" in list(secrets_of(Request("GET", target, list(headers.items()))))


def test_of_a_request_without_secrets_nothing_is_one():
    request = Request("GET", "/chat?room=blue", [("Host", "localhost"), ("Sec-WebSocket-Protocol", "plumews")])
    assert not any(secrets_of(request))


def test_a_repeated_header_is_no_error():
    request = Request("GET", "/", [("Authorization", "Bearer one"), ("Authorization", "Bearer two")])
    assert {"one", "two"} <= set(secrets_of(request))
