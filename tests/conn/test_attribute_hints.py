"""Hints for missing attributes of a connection and missing names of the package."""

from __future__ import annotations

import copy
import inspect
import pickle
import re
from typing import Any
from unittest import mock

import pytest

import plumews
from plumews import Conn, ConnConfig
from plumews.conn.attribute_hints import MissingAttribute
from support.fakes import fake_conn

#: Names of other packages, and a part of what is told of each.
OF_OTHERS = {
    # the websockets package, legacy
    "path": "conn.request.path",
    "request_headers": "conn.request.headers",
    "response_headers": "conn.response.headers",
    "open": "not conn.closed",
    "secure": "conn.request.secure",
    "host": "conn.local_address",
    "port": "conn.local_address",
    "origin": 'get("Origin")',
    "extensions": "conn.compression",
    "messages": "async for",
    "loop": "asyncio.get_running_loop()",
    "max_size": "conn.read_limit",
    "max_queue": "plumews.serve()",
    "ping_interval": "conn.ping_period",
    "ping_timeout": "conn.pong_wait",
    "close_timeout": "plumews.serve()",
    "write_limit": "queue_bytes",
    "is_client": "the server's side",
    "ws_server": "plumews.serve(",
    "fail_connection": "conn.close(",
    "ensure_open": "conn.closed",
    "wait_for_connection_lost": "conn.wait_closed()",
    # the same, new
    "transport": "conn.get_extra_info(",
    "username": "conn.user_info",
    "protocol": "conn.subprotocol",
    "recv_streaming": "conn.read_stream()",
    "pong": "conn.ping()",
    "handshake": "conn.request",
    "server": "plumews.serve(",
    "close_exc": "conn.close_code",
    "user_id": "conn.user_info.id",
    # aiohttp
    "prepare": "conn.request",
    "receive": "conn.recv()",
    "receive_str": "conn.recv()",
    "receive_bytes": "conn.recv()",
    "receive_json": "json.loads(await conn.recv())",
    "send_str": "conn.write_text(",
    "send_bytes": "conn.write_binary(",
    "send_json": "conn.write_json(",
    "exception": "conn.close_code",
    "compress": "conn.compression",
    "ws_protocol": "conn.subprotocol",
    # Starlette
    "accept": "conn.request",
    "receive_text": "conn.recv()",
    "iter_text": "async for",
    "iter_json": "json.loads(message)",
    "send_text": "conn.write_text(",
    "headers": "conn.request.headers",
    "query_params": "conn.request.query",
    "cookies": "conn.request.headers",
    "url": "conn.request.target",
    "client": "conn.client_address",
    "client_state": "conn.state",
    "app": "conn.metadata",
    "session": "conn.metadata",
    "user": "conn.user_info",
    # picows
    "underlying_transport": "conn.get_extra_info(",
    "is_secure": "conn.request.secure",
    "send_ping": "conn.ping()",
    "send_close": "conn.close(",
    "disconnect": "conn.abort()",
    "wait_disconnected": "conn.wait_closed()",
    # sockets, and what belongs to a hub
    "socket": 'conn.get_extra_info("socket")',
    "peername": "conn.remote_address",
    "peercert": 'conn.get_extra_info("peercert")',
    "join": "hub.join(room, conn)",
    "room": "conn.metadata",
}


@pytest.fixture
async def conn() -> Conn:
    return fake_conn(ping_interval=None)[0]


@pytest.mark.parametrize(("name", "where"), OF_OTHERS.items())
async def test_attribute_of_another_package_raises_with_a_hint(conn: Conn, name: str, where: str) -> None:
    with pytest.raises(AttributeError) as caught:
        getattr(conn, name)
    assert str(caught.value).startswith(f"a plumews.Conn has no attribute {name!r}: ")
    assert where in str(caught.value)
    assert not hasattr(conn, name)
    assert getattr(conn, name, 5) == 5
    with pytest.raises(AttributeError, match="has no attribute") as caught:
        setattr(conn, name, 5)
    assert where in str(caught.value)
    assert f"for one of your own use conn.metadata[{name!r}]" in str(caught.value)


async def test_hints_name_attributes_that_exist(conn: Conn) -> None:
    for name, found in inspect.getmembers(Conn, lambda member: isinstance(member, MissingAttribute)):
        for attribute in re.findall(r"\bconn\.(\w+)", str(found.__doc__)):
            assert hasattr(Conn, attribute), (name, attribute)
            assert not isinstance(getattr(Conn, attribute), MissingAttribute), (name, attribute)


@pytest.mark.skipif(plumews.BODY == "pure", reason="a method for each assignment would slow plain Python down")
@pytest.mark.parametrize("name", ["anything", "room_name", "_private", "é"])
async def test_unknown_attribute_hints_at_metadata(conn: Conn, name: str) -> None:
    with pytest.raises(AttributeError, match=rf"of your own: use conn\.metadata\['{name}'\]") as caught:
        setattr(conn, name, 5)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__
    with pytest.raises(AttributeError, match="object has no attribute"):
        getattr(conn, name)
    with pytest.raises(AttributeError):
        delattr(conn, name)


@pytest.mark.skipif(plumews.BODY == "pure", reason="a method for each assignment would slow plain Python down")
async def test_misspelled_setting_hints_at_the_setting(conn: Conn) -> None:
    with pytest.raises(AttributeError, match=r"\(do you mean read_limit\?\)"):
        conn.read_limt = 5  # type: ignore[attr-defined]


async def test_existing_attribute_is_set_or_raises_the_usual_error(conn: Conn) -> None:
    conn.user_info = user = plumews.UserInfo("1", "Ada")
    conn.read_limit = 5
    assert (conn.user_info, conn.read_limit) == (user, 5)
    for name in ("closed", "send", "state", "metadata"):
        with pytest.raises(AttributeError) as caught:
            setattr(conn, name, 5)
        assert "plumews.Conn" not in str(caught.value)
    with pytest.raises(ValueError, match="the read limit must be at least 1"):
        conn.read_limit = 0


async def test_missing_attributes_are_not_in_dir(conn: Conn) -> None:
    assert not OF_OTHERS.keys() & set(dir(conn))
    assert {"send", "recv", "metadata", "_keepalive"} <= set(dir(conn))
    assert all(hasattr(conn, name) for name in dir(conn) if name not in ("request", "__abstractmethods__"))


async def test_hints_do_not_change_pythons_own_protocols(conn: Conn) -> None:
    for copying in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError, match="cannot be copied or pickled"):
            copying(conn)
    assert {conn: 1}[conn] == 1
    assert isinstance(mock.create_autospec(Conn, instance=True), Conn)
    for name in ("__dict__", "__len__", "__getstate_manages_dict__", "_repr_html_", "__wrapped__", "__iter__"):
        assert not hasattr(conn, name)
    assert inspect.isawaitable(conn) is callable(conn) is False


async def test_subclass_may_have_attributes_of_its_own() -> None:
    class Named(Conn):
        def __init__(self, config: ConnConfig, path: str) -> None:
            super().__init__(config)
            self.path = path
            self.anything = path

        @property
        def session(self) -> str:
            return "mine"

    conn = Named(ConnConfig(), "/x")
    assert (conn.path, conn.anything, conn.session) == ("/x", "/x", "mine")
    assert "path" in dir(conn)


def test_existing_attributes_are_found_without_a_call() -> None:
    """A ``__getattr__`` anywhere would slow down each lookup."""
    for cls in Conn.__mro__[:-1]:
        assert not {"__getattr__", "__getattribute__"} & vars(cls).keys()
    setters: list[Any] = [cls for cls in Conn.__mro__[:-1] if "__setattr__" in vars(cls)]
    assert [cls.__name__ for cls in setters] == ([] if plumews.BODY == "pure" else ["ConnCore"])
    assert not any(inspect.isfunction(vars(cls)["__setattr__"]) for cls in setters)


# --- names of the package -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("exceptions", "all names are in plumews itself"),
        ("ServerConnection", "use plumews.Conn"),
        ("AbortHandshake", "conn.respond(status, text)"),
        ("ClientConnection", "use plumews.Conn"),
        ("basic_auth", "authenticator="),
    ],
)
def test_name_of_the_websockets_package_raises_with_a_hint(name, told):
    with pytest.raises(AttributeError, match=rf"^module 'plumews' has no attribute '{name}': .*{re.escape(told)}"):
        getattr(plumews, name)
    assert not hasattr(plumews, name)


def test_unknown_name_of_the_package_is_an_attribute_error():
    with pytest.raises(AttributeError, match=r"^module 'plumews' has no attribute 'HubConfg'$") as caught:
        plumews.HubConfg  # noqa: B018
    assert (caught.value.name, caught.value.obj) == ("HubConfg", plumews)
