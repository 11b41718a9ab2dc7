"""Tests of attempts without I/O: the request of each one, redirects, and the names of errors."""

from __future__ import annotations

import socket
import ssl
from typing import Any

import pytest

from plumews import ConnectError, InvalidHandshake, InvalidStatus
from plumews.client.attempt import BaseAttempt, BaseClient
from plumews.http11.headers import Headers
from plumews.http11.models import Response


class Client(BaseClient):
    def __init__(self, uri: str, path: str | None = None, **options: Any) -> None:
        self._prepare(uri, path, options)


def attempt_of(client: Client, token: str | None = None) -> BaseAttempt[Client, Any]:
    attempt: BaseAttempt[Client, Any] = BaseAttempt(client)
    attempt.begin(None, token)
    return attempt


def redirect(location: str, status: int = 302) -> InvalidStatus:
    return InvalidStatus(Response(status, Headers({"Location": location})))


def test_a_client_checks_its_options_at_once() -> None:
    with pytest.raises(TypeError, match="unknown option"):
        Client("ws://localhost/", colour="red")
    with pytest.raises(ValueError, match="wss"):
        Client("ws://localhost/", ssl=ssl.create_default_context())
    assert repr(Client("ws://user:secret@localhost/")) == "<plumews.Client ws://localhost/>"


def test_a_token_comes_before_the_user_of_the_uri() -> None:
    client = Client("ws://user:secret@localhost/")
    assert attempt_of(client, "Bearer t").handshake().headers["Authorization"] == "Bearer t"
    assert attempt_of(client).handshake().headers["Authorization"].startswith("Basic ")


def test_a_redirect_to_another_origin_gets_no_token() -> None:
    attempt = attempt_of(Client("ws://localhost/", additional_headers={"Cookie": "a=b"}), "Bearer t")
    attempt.begin(Headers({"Cookie": "a=b"}), "Bearer t")
    attempt.follow(redirect("ws://elsewhere.test/path"))
    headers = attempt.handshake().headers
    assert (headers["Host"], "Authorization" in headers, "Cookie" in headers) == ("elsewhere.test", False, False)
    assert attempt.dial_options()["uri"].host == "elsewhere.test"


@pytest.mark.parametrize("status", [200, 403])
def test_only_redirects_are_followed(status: int) -> None:
    refusal = redirect("ws://elsewhere.test/", status)
    with pytest.raises(InvalidStatus) as raised:
        attempt_of(Client("ws://localhost/")).follow(refusal)
    assert raised.value is refusal


def test_a_unix_socket_has_no_proxy_and_no_redirects() -> None:
    attempt = attempt_of(Client("ws://example.test/", "/run/socket", proxy="http://proxy.test"))
    assert (attempt.dial_options()["proxy"], attempt.dial_options()["path"]) == (None, "/run/socket")
    with pytest.raises(InvalidStatus):
        attempt.follow(redirect("ws://elsewhere.test/"))


def test_a_proxy_and_other_places_are_those_of_the_options() -> None:
    options = attempt_of(Client("ws://example.test/", proxy="http://proxy.test", host="::1", port=1)).dial_options()
    assert (str(options["proxy"]), options["uri"].host, options["uri"].port) == ("http://proxy.test:80", "::1", 1)
    assert options["server_hostname"] == "example.test"
    with socket.socket() as sock:
        assert attempt_of(Client("ws://example.test/", sock=sock)).dial_options()["sock"] is sock


def test_errors_name_step_and_address() -> None:
    attempt = attempt_of(Client("ws://localhost/"))
    with pytest.raises(ConnectError, match="ZeroDivisionError") as raised, attempt.asking("token"):
        raise ZeroDivisionError
    assert (raised.value.step, attempt.step, attempt.address) == ("token", "token", "")
    error = InvalidHandshake("wrong")
    attempt.name_error(error)
    assert str(error) == "cannot connect: handshake (): wrong"
    with pytest.raises(ConnectError) as raised:
        attempt.name_error(ConnectionResetError("gone"))
    assert raised.value.step == "handshake"
    attempt.name_error(KeyboardInterrupt())
