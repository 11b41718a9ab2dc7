"""Failures of code that was given a secret, told without it."""

from __future__ import annotations

import pytest

from plumews.http11.redaction import traceback_without

TOKEN = "aGVhZA.cGF5bG9hZA.c2ln"


def told(raising, *secrets):
    try:
        raising()
    except Exception as exc:
        return traceback_without(exc, secrets)
    raise AssertionError("nothing was raised")


def test_what_tells_no_secret_is_told_whole():
    def away():
        raise RuntimeError("the database is away")

    text = told(away, TOKEN, None, "")
    assert text.startswith("Traceback")
    assert text.rstrip().endswith("RuntimeError: the database is away")


def key_error():
    raise KeyError(TOKEN)


def part():
    raise ValueError(f"bad payload {TOKEN.split('.')[1]}")


def cause():
    try:
        key_error()
    except KeyError as exc:
        raise RuntimeError("no session") from exc


def context():
    try:
        key_error()
    except KeyError:
        raise RuntimeError("no session")  # noqa: B904 - that is what is tried


def as_bytes():
    raise ValueError(TOKEN.encode())


@pytest.mark.parametrize("raising", [key_error, part, cause, context, as_bytes])
def test_what_tells_a_secret_in_any_way_is_told_by_its_place_and_its_class(raising):
    text = told(raising, TOKEN)
    assert raising.__name__ in text
    assert "its text is left out" in text
    assert not any(piece in text for piece in TOKEN.split("."))


def test_a_secret_that_repr_writes_otherwise_is_found_too():
    odd = "".join(["it's", "\n", "\u20ac"])

    def refuse():
        raise KeyError(odd)

    assert "it's" not in told(refuse, odd)
