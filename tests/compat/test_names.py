"""Import paths and names of `websockets`: what exists, and what a refused one says."""

from __future__ import annotations

import importlib
import importlib.util
import subprocess
import sys
from typing import Any

import pytest
import websockets
import websockets.asyncio.router
import websockets.asyncio.server
import websockets.datastructures
import websockets.exceptions
import websockets.frames
import websockets.http11
import websockets.protocol
import websockets.typing

import plumews
from plumews.compat import websockets as ours
from support.both_libraries import LIBRARIES

ROOT = "plumews.compat.websockets"

#: Names of modules of `websockets` that are refused: a part of what the error says about each.
REFUSED = {
    "": {
        **dict.fromkeys(("connect", "unix_connect", "ClientConnection", "ClientProtocol"), "no client in this version"),
        **dict.fromkeys(("Protocol", "Frame"), "without I/O"),
    },
    "frames": {"Frame": "without I/O"},
    "http11": {"USER_AGENT": "no client in this version"},
    "protocol": {"Protocol": "without I/O", "SEND_EOF": "without I/O"},
    "asyncio.client": dict.fromkeys(("connect", "unix_connect", "ClientConnection"), "no client in this version"),
    "client": {"ClientProtocol": "no client in this version"},
    "legacy.client": {"connect": "no client in this version"},
    "sync.client": {"connect": "no client in this version"},
    "sync.server": {"serve": "no blocking server", "basic_auth": "no blocking server"},
    "sync.router": {"route": "no blocking server"},
    "auth": {"basic_auth_protocol_factory": "basic_auth"},
    "legacy.auth": {"BasicAuthWebSocketServerProtocol": "basic_auth"},
    "extensions.permessage_deflate": {"ServerPerMessageDeflateFactory": "compression"},
    "server": {"ServerConnection": "asyncio.server"},
    "legacy.server": {"HTTPResponse": "tuple"},
}

#: Modules that programs import names of.
MODULES = [
    *("", "asyncio.server", "asyncio.router", "asyncio.connection", "datastructures", "exceptions", "frames"),
    *("http11", "protocol", "server", "typing", "version"),
]


def names_of(module: str) -> list[str]:
    theirs = importlib.import_module(f"websockets.{module}".rstrip("."))
    return list(getattr(theirs, "__all__", ["version"]))


@pytest.mark.parametrize("module", MODULES)
def test_every_name_of_a_module_exists_or_is_refused(module: str) -> None:
    mine = importlib.import_module(f"{ROOT}.{module}".rstrip("."))
    refused = REFUSED.get(module, {})
    for name in names_of(module):
        if name in refused:
            continue
        assert hasattr(mine, name), f"{module} has no {name}"


@pytest.mark.parametrize(("module", "name"), [(module, name) for module in REFUSED for name in REFUSED[module]])
def test_a_refused_name_says_what_to_use_when_imported(module: str, name: str) -> None:
    path = f"{ROOT}.{module}".rstrip(".")
    with pytest.raises(ImportError, match=REFUSED[module][name]) as refused:
        exec(f"from {path} import {name}", {})
    assert name in str(refused.value)
    with pytest.raises(ImportError):
        getattr(importlib.import_module(path), name)


def test_an_unknown_name_is_an_attribute_error() -> None:
    assert not hasattr(ours, "nonsense")
    with pytest.raises(ImportError, match="cannot import name"):
        exec(f"from {ROOT} import nonsense", {})


def test_names_are_reached_from_the_top_as_programs_do() -> None:
    assert ours.exceptions.ConnectionClosed is ours.ConnectionClosed
    assert ours.frames.CloseCode is ours.CloseCode is plumews.CloseCode
    assert ours.http11.Response is ours.Response
    assert ours.datastructures.Headers is ours.Headers
    assert ours.typing.Subprotocol is ours.Subprotocol
    assert ours.asyncio.server.serve is ours.serve
    assert ours.protocol.State is ours.State is plumews.State
    assert ours.server.WebSocketServerProtocol is ours.WebSocketServerProtocol
    assert issubclass(ours.WebSocketServerProtocol, ours.ServerConnection)
    assert ours.server.serve is ours.legacy.server.serve
    assert ours.Subprotocol("x") == "x"
    assert ours.Origin("https://example.com") == "https://example.com"
    assert ours.__version__ == ours.version.version == "17.4"


@pytest.mark.parametrize("name", websockets.exceptions.__all__)
def test_exceptions_have_the_bases_of_websockets(name: str) -> None:
    theirs, mine = getattr(websockets.exceptions, name), getattr(ours.exceptions, name)
    bases = {base.__name__ for base in theirs.__mro__}
    assert bases <= {base.__name__ for base in mine.__mro__}
    assert issubclass(mine, plumews.WebSocketException)


ARGUMENTS: dict[str, tuple[Any, ...]] = {
    "InvalidURI": ("ws", "why"),
    "InvalidProxy": ("p", "why"),
    "InvalidMethod": ("POST",),
    "InvalidProtocol": ("HTTP/1.0",),
    "InvalidHeader": ("Name", "value"),
    "InvalidHeaderFormat": ("Name", "error", "header", 3),
    "InvalidHeaderValue": ("Name", ""),
    "InvalidOrigin": (None,),
    "InvalidUpgrade": ("Upgrade",),
    "NegotiationError": ("text",),
    "DuplicateParameter": ("name",),
    "InvalidParameterName": ("name",),
    "InvalidParameterValue": ("name", None),
    "InvalidHandshake": (),
    "InvalidMessage": ("text",),
    "SecurityError": ("text",),
    "ConcurrencyError": ("text",),
    "InvalidState": ("text",),
    "WebSocketException": ("text",),
    "ProxyError": ("text",),
}


@pytest.mark.parametrize("name", ARGUMENTS)
def test_exceptions_have_the_texts_of_websockets(name: str) -> None:
    theirs, mine = (getattr(library.exceptions, name)(*ARGUMENTS[name]) for library in LIBRARIES)
    assert str(mine) == str(theirs)
    assert {key: mine.__dict__[key] for key in theirs.__dict__} == theirs.__dict__


@pytest.mark.parametrize("name", ["InvalidStatus", "InvalidProxyStatus"])
def test_exceptions_of_responses_have_the_texts_of_websockets(name: str) -> None:
    texts = [
        str(getattr(library.exceptions, name)(library.http11.Response(404, "Not Found", library.Headers())))
        for library in LIBRARIES
    ]
    assert texts[0] == texts[1]


def test_legacy_exceptions_exist() -> None:
    from plumews.compat.websockets.legacy import exceptions

    assert str(exceptions.AbortHandshake(200, [], b"OK")) == "HTTP 200, 0 headers, 2 bytes"
    assert str(exceptions.InvalidStatusCode(404, [])).endswith("HTTP 404")
    assert str(exceptions.RedirectHandshake("ws://a")) == "redirect to ws://a"
    assert issubclass(exceptions.InvalidMessage, ours.InvalidHandshake)


def test_plumews_does_not_import_this_tree() -> None:
    code = "import sys, plumews; print([name for name in sys.modules if name.startswith('plumews.compat')])"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "[]"


def test_the_tree_is_found_when_it_is_first_used() -> None:
    code = "import plumews; print(plumews.compat.websockets.serve.__name__, hasattr(plumews.compat, 'aiohttp'))"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "serve False"


def test_this_tree_does_not_import_websockets() -> None:
    code = f"import sys, {ROOT}; print('websockets' in sys.modules, 'werkzeug' in sys.modules)"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "False False"
