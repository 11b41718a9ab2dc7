"""Import paths and names of `websockets`: what exists, and what a refused one says."""

from __future__ import annotations

import contextlib
import importlib
import subprocess
import sys
from pathlib import Path
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
import websockets.sync.client
import websockets.typing

import plumews
from plumews.compat import websockets as ours
from support.both_libraries import LIBRARIES

ROOT = "plumews.compat.websockets"

#: Names of modules of `websockets` that are refused: a part of what the error says about each.
REFUSED = {
    "": {
        **dict.fromkeys(("Protocol", "Frame"), "without I/O"),
    },
    "frames": {"Frame": "without I/O"},
    "protocol": {"Protocol": "without I/O", "SEND_EOF": "without I/O"},
    "server": {"ServerConnection": "asyncio.server"},
    "client": {"ClientConnection": "asyncio.client"},
}

#: Modules of `websockets` that are refused: a part of what the error says about each.
REFUSED_MODULES = {
    **dict.fromkeys(("sync.server", "sync.router"), "no blocking server"),
    **dict.fromkeys(("sync.messages", "sync.utils"), "an inside"),
    **dict.fromkeys(("auth", "legacy.auth"), "basic_auth"),
    **dict.fromkeys(("extensions", "extensions.base", "extensions.permessage_deflate"), "compression"),
    **dict.fromkeys(("asyncio.messages", "connection", "imports", "legacy.framing", "legacy.handshake"), "an inside"),
    **dict.fromkeys(("legacy.http", "streams", "utils"), "an inside"),
    "cli": "plumews command",
    "headers": "request.headers",
    "proxy": "connect",
    "uri": "urlsplit",
    **dict.fromkeys(("trio", "trio.client"), "asyncio"),
}

#: Modules that programs import names of.
MODULES = [
    *("", "asyncio.client", "asyncio.server", "asyncio.router", "asyncio.connection", "client", "datastructures"),
    *("sync.client", "sync.connection", "exceptions", "frames", "http11", "protocol", "server", "typing", "version"),
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


@pytest.mark.parametrize("module", REFUSED_MODULES)
def test_a_refused_module_says_what_to_use_when_imported(module: str) -> None:
    for statement in (f"import {ROOT}.{module}", f"from {ROOT}.{module} import name"):
        with pytest.raises(ModuleNotFoundError, match=REFUSED_MODULES[module]) as refused:
            exec(statement, {})
        assert f"{ROOT}.{module}".startswith(str(refused.value.name))
    if "." not in module:
        with pytest.raises(ImportError, match=REFUSED_MODULES[module]):
            getattr(ours, module)


def test_every_module_of_websockets_exists_or_is_refused() -> None:
    root = Path(websockets.__file__).parent
    files = [path.relative_to(root).with_suffix("") for path in root.rglob("*.py")]
    names = {".".join(file.parts).removesuffix("__init__").rstrip(".") for file in files} - {"", "__main__"}
    assert len(names) > 40
    for name in sorted(names):
        with contextlib.suppress(ModuleNotFoundError):
            importlib.import_module(f"{ROOT}.{name}")
            continue
        assert name in REFUSED_MODULES or name.partition(".")[0] in REFUSED_MODULES, name


def test_a_module_that_exists_nowhere_is_not_found() -> None:
    with pytest.raises(ModuleNotFoundError, match=f"No module named '{ROOT}.nonsense'"):
        importlib.import_module(f"{ROOT}.nonsense")


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
    assert issubclass(ours.ServerConnection, ours.legacy.protocol.WebSocketCommonProtocol)
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
