"""The public face: what `import plumews` offers, under which names, called how, and explained.

A name that goes, comes or changes its arguments must change this file, so that it cannot happen by the way. The table
is that of the design: what the seed has, and what it is called here.
"""

from __future__ import annotations

import asyncio
import enum
import inspect
import re
import subprocess
import sys
import typing
from collections.abc import Iterator
from functools import cached_property
from unittest import mock

import pytest

import plumews
from plumews import Conn, ConnConfig, Hub, HubConfig, SendBehavior, SimpleRoomAuth
from plumews.conn.attribute_hints import MissingAttribute
from plumews.server.options import TcpKeywords

NAMES = [
    "BODY",
    "AuthError",
    "AuthMetrics",
    "BroadcastResult",
    "Close",
    "CloseCode",
    "CompressionInfo",
    "ConcurrencyError",
    "Conn",
    "ConnConfig",
    "ConnectError",
    "ConnectTimeout",
    "ConnectionClosed",
    "ConnectionClosedError",
    "ConnectionClosedOK",
    "Deflate",
    "Gap",
    "HS256TokenAuth",
    "Handler",
    "Headers",
    "HistoryLimits",
    "Hub",
    "HubConfig",
    "HubError",
    "HubFull",
    "HubMetrics",
    "HubStopped",
    "InvalidCompression",
    "InvalidData",
    "InvalidHandshake",
    "InvalidHeader",
    "InvalidMessage",
    "InvalidOrigin",
    "InvalidRoomName",
    "InvalidStatus",
    "InvalidText",
    "InvalidToken",
    "InvalidURI",
    "InvalidUpgrade",
    "MemberInfo",
    "OnMessage",
    "Opcode",
    "PasswordStrength",
    "PayloadTooBig",
    "Position",
    "ProtocolError",
    "ProxyError",
    "RateLimited",
    "Recovery",
    "RedirectError",
    "Refused",
    "Request",
    "Response",
    "Revocation",
    "Revocations",
    "RevocationsFull",
    "RoomAuth",
    "RoomAuthorization",
    "RoomAuthorizer",
    "RoomFull",
    "RoomInfo",
    "RoomPasswords",
    "RoomPresence",
    "Route",
    "SecureRoomAuth",
    "SendBehavior",
    "SendQueueFull",
    "SendTimeout",
    "Server",
    "Serving",
    "ShutdownReport",
    "SimpleRoomAuth",
    "State",
    "Stream",
    "TextPolicy",
    "TokenAuthenticator",
    "TokenExpired",
    "TokenRevoked",
    "TooManyFragments",
    "TooManyRooms",
    "UserInfo",
    "UserPresence",
    "WeakRoomPassword",
    "WeakSecret",
    "WebSocketException",
    "__version__",
    "broadcast",
    "extract_user_info",
    "generate_secure_secret",
    "restricted",
    "sanitize_for_logging",
    "serve",
    "serve_rooms",
    "unix_serve",
    "validate_room_name",
    "validate_room_password",
    "validate_text_message",
    "admin_broadcast_route",
    "connect",
    "unix_connect",
]

#: Names that are imported when they are first used.
LAZY_NAMES = ["connect", "unix_connect"]

#: The seed's names, ours, and how ours are called: parameters and defaults, ``async`` where they are awaited.
CALLS = {
    # rooms
    (Hub, "__init__"): "(self, workers=4, job_queue_size=1024)",
    (Hub, "join"): "(self, room, conn)",
    (Hub, "can_join"): "(self, room)",
    (Hub, "leave"): "(self, room, conn)",
    (Hub, "remove"): "(self, conn)",
    (Hub, "room_count"): "(self, room)",
    (Hub, "total_count"): "(self)",
    (Hub, "connection_count"): "(self)",
    (Hub, "rooms"): "(self)",
    (Hub, "rooms_of"): "(self, conn)",
    (Hub, "members"): "(self, room)",
    (Hub, "metrics"): "(self)",
    (Hub, "inspect"): "(self, conn)",
    (Hub, "inspect_room"): "(self, room)",
    (Hub, "watch_count"): "(self, room, callback)",
    (Hub, "position"): "(self, room)",
    (Hub, "recover"): "(self, room, conn, position, *, encode_recovered=None)",
    (Hub, "on_join"): "(self, callback)",
    (Hub, "on_leave"): "(self, callback)",
    (Hub, "connections_of"): "(self, user_id)",
    (Hub, "disconnect_user"): "(self, user_id, code=1008, reason='')",
    (Hub, "presence"): "(self, room)",
    (Hub, "watch_presence"): "(self, room, callback)",
    (Hub, "on_slow"): "(self, callback)",
    (Hub, "on_drop"): "(self, callback)",
    (Hub, "on_gap"): "(self, callback)",
    # broadcasting
    (Hub, "broadcast_room"): (
        "(self, room, data, opcode=None, *, exclude=None, where=None, key=None, compress=None, keep=True)"
    ),
    (Hub, "broadcast_all"): "(self, data, opcode=None, *, exclude=None, where=None, key=None, compress=None)",
    (Hub, "publish"): (
        "async (self, room, data, opcode=None, *, exclude=None, where=None, key=None, compress=None, keep=True)"
    ),
    (Hub, "publish_threadsafe"): "(self, room, data, opcode=None, *, key=None, compress=None, keep=True)",
    (Hub, "send_to_user"): "(self, user_id, data, opcode=None, *, exclude=None, compress=None)",
    (Hub, "stop"): "async (self)",
    (Hub, "shutdown"): "async (self, timeout=10.0, *, restart=False, spread=None, reconnect_in=5.0)",
    (plumews.Server, "close"): "(self, code=1001, reason='', *, spread=None, reconnect_in=0.0)",
    # who may
    (SimpleRoomAuth, "set_room_password"): "(self, room, password)",
    (SimpleRoomAuth, "check_room_password"): "(self, room, password)",
    (SimpleRoomAuth, "verify_jwt"): "(self, token)",
    (SimpleRoomAuth, "set_room_password_hash"): "(self, room, text)",
    (SimpleRoomAuth, "room_password_hash"): "(self, room)",
    (SimpleRoomAuth, "revoke_user"): "(self, user_id)",
    (SimpleRoomAuth, "revoke_token"): "(self, jti, until=None)",
    (SimpleRoomAuth, "add_key"): "(self, kid, secret, *, current=False)",
    (SimpleRoomAuth, "remove_key"): "(self, kid)",
    (plumews.SecureRoomAuth, "metrics"): "(self)",
    (plumews.SecureRoomAuth, "reset_metrics"): "(self)",
    (plumews.Revocations, "subscribe"): "(self, callback)",
    (plumews, "generate_secure_secret"): "(n=32)",
    (plumews, "extract_user_info"): "(claims)",
    # what is said
    (plumews, "validate_room_name"): "(name)",
    (plumews, "validate_text_message"): "(message, policy=None)",
    # writing
    (Conn, "write_text"): "async (self, text, *, compress=None)",
    (Conn, "write_binary"): "async (self, data, *, compress=None)",
    (Conn, "write_json"): "async (self, obj, *, compress=None)",
    (Conn, "write_message"): "async (self, opcode, data, *, compress=None)",
    (Conn, "send"): "async (self, message, text=None, *, compress=None)",
    (Conn, "send_nowait"): "(self, message, *, compress=None)",
    # reading
    (Conn, "read_message"): "async (self)",
    (Conn, "read_stream"): "async (self)",
    (Conn, "recv"): "async (self, decode=None)",
    (Conn, "__aiter__"): "(self)",
    # the end
    (Conn, "close"): "async (self, code=1000, reason='')",
    (Conn, "close_nowait"): "(self, code=1000, reason='')",
    (Conn, "abort"): "(self)",
    (Conn, "wait_closed"): "async (self)",
    (Conn, "ping"): "async (self, data=None)",
}

#: Of a connection: what can be set, and what can only be read.
PROPERTIES = {
    "read_limit": True,
    "ping_period": True,
    "pong_wait": True,
    "last_pong": False,
    "metadata": False,
    "close_code": False,
    "close_reason": False,
    "closed": False,
    "compression": False,
    "dropped_messages": False,
    "evicted_messages": False,
    "id": False,
    "last_error": False,
    "latency": False,
    "local_address": False,
    "queued_age": False,
    "queued_bytes": False,
    "queued_messages": False,
    "remote_address": False,
    "replaced_messages": False,
    "send_behavior": False,
    "state": False,
}


def call(function: object) -> str:
    """``function``'s parameters and their defaults, without types."""
    signature = inspect.signature(function)  # type: ignore[arg-type]
    bare = []
    for parameter in signature.parameters.values():
        default = parameter.default
        plain = int(default) if isinstance(default, enum.IntEnum) else default
        # Nobody gives ``self`` by its name: what is compiled may know it by its place alone.
        kind = parameter.POSITIONAL_OR_KEYWORD if parameter.name == "self" else parameter.kind
        bare.append(parameter.replace(annotation=parameter.empty, default=plain, kind=kind))
    prefix = "async " if inspect.iscoroutinefunction(function) else ""
    return prefix + str(signature.replace(parameters=bare, return_annotation=signature.empty))


def public_methods(cls: type) -> Iterator[tuple[str, object]]:
    """Return the public attributes of a class, its own and those of our base classes."""
    for base in cls.__mro__:
        if base.__module__.startswith("plumews"):
            for name, member in vars(base).items():
                if not name.startswith("_") and inspect.isroutine(member):
                    yield name, member


# --- the names ------------------------------------------------------------------------------------


def test_the_public_names_are_these():
    assert sorted(plumews.__all__) == sorted(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_every_name_can_be_imported(name):
    namespace: dict[str, object] = {}
    exec(f"from plumews import {name}", namespace)
    assert namespace[name] is getattr(plumews, name)


def test_names_of_the_client_are_imported_when_they_are_used():
    code = "import sys, plumews; before = 'plumews.client' in sys.modules; plumews.connect; "
    code += "print(before, 'plumews.client' in sys.modules, 'plumews.sync' in sys.modules)"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.split() == ["False", "True", "False"]
    assert all(inspect.getdoc(getattr(plumews, name)) for name in LAZY_NAMES)


def test_names_and_packages_that_are_imported_later_are_listed():
    assert {*LAZY_NAMES, "asgi", "client", "compat", "sync", "Conn", "serve"} <= {*dir(plumews)}


def test_a_star_imports_these_and_nothing_else():
    namespace: dict[str, object] = {}
    exec("from plumews import *", namespace)
    assert set(namespace) - {"__builtins__"} == set(NAMES)


def is_type_alias(thing: object) -> bool:
    return typing.get_origin(thing) is not None


THINGS = {name: getattr(plumews, name) for name in NAMES}
EXPLAINED = [name for name, thing in THINGS.items() if callable(thing) and not is_type_alias(thing)]


@pytest.mark.parametrize("name", EXPLAINED)
def test_every_class_and_function_is_explained(name):
    thing = getattr(plumews, name)
    docstring = thing.__doc__ or ""
    assert docstring.strip()
    assert not docstring.startswith(f"{name}("), "this is what a dataclass or a named tuple writes by itself"


@pytest.mark.parametrize("cls", [Conn, Hub, SimpleRoomAuth, plumews.Server], ids=lambda cls: cls.__name__)
def test_every_public_method_is_explained(cls):
    silent = [name for name, member in public_methods(cls) if not (inspect.getdoc(member) or "").strip()]
    assert silent == [name for name in silent if hasattr(asyncio.BufferedProtocol, name)]  # what transports call


#: What is to be awaited, by class.
AWAITED = {
    Conn: """close drain ping read_message read_stream recv send wait_closed write_binary write_json write_many
        write_message write_text""",
    Hub: "publish shutdown stop",
    plumews.Server: "serve_forever serve_until_signal wait_closed",
    plumews.Stream: "aclose complete read read_all",
}


@pytest.mark.parametrize("cls", AWAITED, ids=lambda cls: cls.__name__)
def test_methods_that_are_awaited_say_so_and_no_others(cls):
    told = [name for name, member in inspect.getmembers(cls) if name[0] != "_" and inspect.iscoroutinefunction(member)]
    assert told == AWAITED[cls].split()
    mocked = mock.Mock(spec=cls)
    assert [name for name in dir(cls) if isinstance(getattr(mocked, name, None), mock.AsyncMock)] == [
        *(name for name in dir(cls) if name[0] == "_" and isinstance(getattr(mocked, name, None), mock.AsyncMock)),
        *told,
    ]


def attributes(cls: type) -> Iterator[tuple[str, object]]:
    """The public names of ``cls`` that are plumews' own, and what stands there; ``None`` if instances alone have it."""
    ours = [base for base in cls.__mro__ if base.__module__.startswith("plumews")]
    names = {name for base in ours for name in (*vars(base), *vars(base).get("__annotations__", ()))}
    for name in sorted(names):
        member = inspect.getattr_static(cls, name, None)
        if not name.startswith("_") and not isinstance(member, MissingAttribute):
            yield name, member


@pytest.mark.parametrize(
    "cls", [thing for thing in THINGS.values() if isinstance(thing, type)], ids=lambda c: c.__name__
)
def test_every_public_attribute_is_explained(cls):
    """By a docstring of its own or, where it can have none, by name in that of its class."""
    of_class = "\n".join(inspect.getdoc(base) or "" for base in cls.__mro__ if base.__module__.startswith("plumews"))
    silent = []
    for name, member in attributes(cls):
        has_one = callable(member) or isinstance(member, (property, cached_property, classmethod, staticmethod))
        explained: object = re.search(rf"\b{name}\b", of_class)
        if not isinstance(member, enum.Enum) and (has_one or inspect.ismemberdescriptor(member)):
            explained = inspect.getdoc(getattr(cls, name)) or (not has_one and explained)
        if inspect.isgetsetdescriptor(member):  # a property, or a plain attribute, of a compiled class
            explained = explained or inspect.getdoc(member)
        if not explained:
            silent.append(name)
    assert silent == []


def test_the_version_is_a_version():
    assert [part.isdigit() for part in plumews.__version__.split(".")] == [True] * 3
    assert plumews.BODY in ("compiled", "pure")


# --- the seed's, under our names ------------------------------------------------------------------


@pytest.mark.parametrize(("owner", "name"), CALLS, ids=lambda value: getattr(value, "__name__", value))
def test_it_is_called_as_the_design_says(owner, name):
    assert call(getattr(owner, name)) == CALLS[owner, name]


@pytest.mark.parametrize(("name", "settable"), PROPERTIES.items(), ids=PROPERTIES)
def test_a_connection_has_these_properties(name, settable):
    member = inspect.getattr_static(Conn, name)
    if inspect.isgetsetdescriptor(member):  # a property of a compiled class
        assert not settable
    else:
        assert isinstance(member, property)
        assert (member.fset is not None) is settable


def test_the_seeds_hub_config_has_its_fields():
    config = HubConfig(workers=4, job_queue_size=1024, max_connections=1000, max_room_connections=200)
    assert (config.workers, config.job_queue_size) == (4, 1024)
    assert (config.max_connections, config.max_room_connections) == (1000, 200)


def test_serve_takes_a_handler_or_callbacks_by_name():
    parameters = inspect.signature(plumews.serve).parameters
    assert list(parameters)[:3] == ["handler", "host", "port"]
    for name in ("on_open", "on_message", "on_close"):
        assert parameters[name].kind is inspect.Parameter.KEYWORD_ONLY
    assert list(inspect.signature(plumews.unix_serve).parameters)[:2] == ["handler", "path"]


def test_serve_rooms_takes_the_seeds_queue_timeout_and_behavior():
    parameters = inspect.signature(plumews.serve_rooms).parameters
    assert list(parameters)[:4] == ["hub", "auth", "host", "port"]
    assert {
        "queue_size",
        "send_timeout",
        "send_behavior",
    } <= TcpKeywords.__required_keys__ | TcpKeywords.__optional_keys__
    config = ConnConfig()
    assert (config.queue_size, config.send_timeout, config.send_behavior) == (64, 0.05, SendBehavior.BLOCK)


def test_send_behaviors_are_these_five():
    assert [behavior.name for behavior in SendBehavior] == ["BLOCK", "DROP", "CLOSE", "DROP_OLDEST", "CONFLATE"]
    assert (plumews.Opcode.TEXT, plumews.Opcode.BINARY) == (1, 2)
