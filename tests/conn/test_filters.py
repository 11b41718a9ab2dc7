"""Message filters: their order, and finding one by its class."""

from __future__ import annotations

import pytest

import plumews
from plumews.conn.filters import add_filter, find_filter
from support.fakes import fake_conn, feed
from support.raw_client import masked, text


class Takes:
    """Filter that takes one message and records every message."""

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


async def test_filters_run_in_order_until_one_takes_the_message(conn):
    record = []
    for kind, word in ((First, "one"), (Second, "two"), (Third, "three")):
        add_filter(conn, kind(word, record))
    feed(conn, text("one"), text("two"), text("three"), masked(2, b"left"))
    assert await conn.recv() == b"left"
    shown = [word for word, message in record if message == "one"]
    assert shown == ["one"]
    assert [word for word, message in record if message == "two"] == ["one", "two"]
    assert [word for word, message in record if message == "three"] == ["one", "two", "three"]
    assert [word for word, message in record if message == b"left"] == ["one", "two", "three"]


async def test_find_filter_returns_the_filter_of_that_kind(conn):
    assert find_filter(conn, First) is None
    filters = [kind("x", []) for kind in (First, Second, Third)]
    for count, each in enumerate(filters, 1):
        add_filter(conn, each)
        assert [find_filter(conn, type(one)) for one in filters[:count]] == filters[:count]
        assert [find_filter(conn, type(one)) for one in filters[count:]] == [None] * (3 - count)


async def test_filters_are_dropped_when_the_connection_is_lost():
    conn, _ = fake_conn()
    add_filter(conn, First("x", []))
    add_filter(conn, Second("x", []))
    conn.abort()
    with pytest.raises(plumews.ConnectionClosed):
        await conn.recv()
    assert find_filter(conn, First) is find_filter(conn, Second) is None
