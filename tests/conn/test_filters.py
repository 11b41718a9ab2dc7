"""Several that see a message before the application does: in which order, and who is found again."""

from __future__ import annotations

import pytest

import plumews
from plumews.conn.filters import add_screen, screen_of
from support.fakes import fake_conn, feed
from support.raw_client import masked, text


class Takes:
    """Takes one message, and keeps a record of what all were shown."""

    def __init__(self, word, record):
        self.word = word
        self.record = record

    def __call__(self, conn, message):
        self.record.append((self.word, message))
        return message == self.word


class First(Takes):
    pass


class Second(Takes):
    pass


class Third(Takes):
    pass


@pytest.fixture
async def conn():
    conn, _ = fake_conn()
    yield conn
    conn.abort()


async def test_who_was_added_first_is_asked_first_and_what_it_takes_nobody_else_sees(conn):
    record = []
    for kind, word in ((First, "one"), (Second, "two"), (Third, "three")):
        add_screen(conn, kind(word, record))
    feed(conn, text("one"), text("two"), text("three"), masked(2, b"nobody's"))
    assert await conn.recv() == b"nobody's"
    shown = [word for word, message in record if message == "one"]
    assert shown == ["one"]
    assert [word for word, message in record if message == "two"] == ["one", "two"]
    assert [word for word, message in record if message == "three"] == ["one", "two", "three"]
    assert [word for word, message in record if message == b"nobody's"] == ["one", "two", "three"]


async def test_each_is_found_by_its_kind(conn):
    assert screen_of(conn, First) is None
    screens = [kind("x", []) for kind in (First, Second, Third)]
    for count, screen in enumerate(screens, 1):
        add_screen(conn, screen)
        assert [screen_of(conn, type(one)) for one in screens[:count]] == screens[:count]
        assert [screen_of(conn, type(one)) for one in screens[count:]] == [None] * (3 - count)


async def test_they_are_forgotten_with_the_connection():
    conn, _ = fake_conn()
    add_screen(conn, First("x", []))
    add_screen(conn, Second("x", []))
    conn.abort()
    with pytest.raises(plumews.ConnectionClosed):
        await conn.recv()
    assert screen_of(conn, First) is screen_of(conn, Second) is None
