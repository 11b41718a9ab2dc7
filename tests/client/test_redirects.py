"""Tests of redirects: targets, their number, credentials on other origins, and the start of the next attempt."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plumews.client.redirects import REDIRECT_STATUSES, REDIRECTS, Redirects
from plumews.client.uri import parse_uri
from plumews.errors import RedirectError

SECRETS = [("Authorization", "Bearer t"), ("cookie", "a=b"), ("X-Other", "1")]


def redirects(text: str = "wss://u:p@h.example/a/b?c=d") -> Redirects:
    return Redirects(parse_uri(text))


@pytest.mark.parametrize("status", sorted(REDIRECT_STATUSES))
@pytest.mark.parametrize(
    ("location", "target"),
    [
        ("/x?y", "wss://h.example/x?y"),
        ("x", "wss://h.example/a/x"),
        ("?e=f", "wss://h.example/a/b?e=f"),
        ("//o.example/x", "wss://o.example/x"),
        ("https://o.example/x#part", "wss://o.example/x"),
        ("wss://o.example:8443", "wss://o.example:8443/"),
        ("HTTPS://O.example", "wss://o.example/"),
        ("/\xc3\xbc", "wss://h.example/%C3%BC"),
    ],
)
def test_target_is_resolved_against_the_current_uri(status: int, location: str, target: str) -> None:
    followed = redirects()
    assert followed.follow(status, [location]).url == target
    assert followed.current.url == target


def test_ws_may_lead_to_wss() -> None:
    assert redirects("ws://h/").follow(301, ["https://h/"]).secure


@pytest.mark.parametrize("location", ["ws://h.example/", "http://o.example/"])
def test_wss_never_leads_to_ws(location: str) -> None:
    followed = redirects()
    with pytest.raises(RedirectError, match="from wss to ws://") as caught:
        followed.follow(302, [location])
    assert (caught.value.status, caught.value.step) == (302, "redirect")
    assert followed.current == followed.original


@pytest.mark.parametrize(
    ("locations", "said"),
    [
        ([], "0 Location headers"),
        (["/a", "/b"], "2 Location headers"),
        (["ftp://h/"], "invalid Location header"),
        (["wss://[::1"], "invalid Location header"),
        (["wss://h:99999/"], "port"),
        (["/" + "a" * 9000], "exceeds 8192"),
        (["/\xff"], "invalid Location header"),
    ],
)
def test_malformed_location_is_a_named_error(locations: list[str], said: str) -> None:
    with pytest.raises(RedirectError) as caught:
        redirects().follow(307, locations)
    assert said in str(caught.value)


def test_eleventh_redirect_of_an_attempt_is_an_error() -> None:
    followed = redirects()
    for _ in range(REDIRECTS):
        followed.follow(302, ["/loop"])
    with pytest.raises(RedirectError, match="more than 10 redirects"):
        followed.follow(302, ["/loop"])
    followed.begin()
    followed.follow(302, ["/loop"])


def test_credentials_go_to_the_first_origin_alone() -> None:
    followed = redirects()
    assert followed.headers(SECRETS) == SECRETS
    away = followed.follow(302, ["https://evil:pw@o.example/"])
    assert followed.headers(SECRETS) == [("X-Other", "1")]
    assert (away.user, away.password, away.authorization) == (None, None, None)
    back = followed.follow(302, ["https://h.example/back"])
    assert followed.headers(SECRETS) == SECRETS
    assert (back.user, back.password) == ("u", "p")


def test_host_of_the_application_is_that_of_the_first_origin() -> None:
    followed = redirects()
    followed.follow(302, ["https://o.example/"])
    assert followed.headers([("Host", "virtual.example"), ("X", "1")]) == [("X", "1")]


@pytest.mark.parametrize("location", ["wss://h.example:444/", "wss://www.h.example/"])
def test_other_port_or_subdomain_is_another_origin(location: str) -> None:
    followed = redirects()
    followed.follow(302, [location])
    assert not followed.sends_credentials


def test_ws_to_wss_is_another_origin() -> None:
    followed = redirects("ws://h:80/")
    followed.follow(302, ["wss://h:80/"])
    assert not followed.sends_credentials


@pytest.mark.parametrize("status", [302, 303, 307])
def test_next_attempt_begins_at_the_original_uri(status: int) -> None:
    followed = redirects()
    followed.follow(301, ["/kept"])
    followed.follow(status, ["/once"])
    followed.follow(301, ["/behind"])
    assert followed.begin().resource == "/kept"


@pytest.mark.parametrize("status", [301, 308])
def test_permanent_redirect_is_kept_until_it_fails(status: int) -> None:
    followed = redirects()
    followed.follow(status, ["/kept"])
    assert not followed.is_kept
    assert followed.begin().resource == "/kept"
    assert followed.is_kept
    followed.forget()
    assert followed.begin() == followed.original
    assert not followed.is_kept


@given(st.text(max_size=60))
def test_any_location_is_followed_or_a_named_error(location: str) -> None:
    followed = redirects()
    try:
        target = followed.follow(302, [location])
    except RedirectError:
        assert followed.current == followed.original
    else:
        assert target.secure
