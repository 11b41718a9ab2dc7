"""Import paths and names of the `websockets` package, over plumews.

A program moves by its imports: ``from plumews.compat import websockets`` in place of ``import websockets``, and
``from plumews.compat.websockets.asyncio.server import serve`` in place of the same without ``plumews.compat``. Options,
defaults, methods, attributes and exceptions are those of the `websockets` package. What cannot be the same raises when
it is imported or given, and says what to use. :attr:`plumews.compat.websockets.ServerConnection.plumews` is the way on
to native names.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

# Programs use `websockets.exceptions` and others without an import of their own.
from . import asyncio as asyncio
from . import client as client
from . import datastructures as datastructures
from . import exceptions as exceptions
from . import frames as frames
from . import http11 as http11
from . import legacy as legacy
from . import protocol as protocol
from . import server as server
from . import sync as sync
from . import typing as typing
from . import version as version
from .asyncio.client import ClientConnection, connect, unix_connect
from .asyncio.router import Router, route, unix_route
from .asyncio.server import Server, ServerConnection, basic_auth, broadcast, serve, unix_serve
from .client import ClientProtocol
from .datastructures import Headers, HeadersLike, MultipleValuesError
from .exceptions import *  # noqa: F403
from .frames import Close, CloseCode, Opcode
from .http11 import Request, Response
from .legacy.client import WebSocketClientProtocol
from .legacy.protocol import WebSocketCommonProtocol
from .legacy.server import WebSocketServer, WebSocketServerProtocol
from .protocol import Side, State
from .refused import AUTH, MODULES, SANS_IO, missing
from .server import ServerProtocol
from .typing import Data, ExtensionName, ExtensionParameter, LoggerLike, Origin, StatusLike, Subprotocol

__version__ = version.version

__all__ = [
    "ClientConnection",
    "ClientProtocol",
    "Close",
    "CloseCode",
    "Data",
    "ExtensionName",
    "ExtensionParameter",
    "Headers",
    "HeadersLike",
    "LoggerLike",
    "MultipleValuesError",
    "Opcode",
    "Origin",
    "Request",
    "Response",
    "Router",
    "Server",
    "ServerConnection",
    "ServerProtocol",
    "Side",
    "State",
    "StatusLike",
    "Subprotocol",
    "WebSocketClientProtocol",
    "WebSocketCommonProtocol",
    "WebSocketServer",
    "WebSocketServerProtocol",
    "basic_auth",
    "broadcast",
    "connect",
    "route",
    "serve",
    "unix_connect",
    "unix_route",
    "unix_serve",
]
__all__ += exceptions.__all__

_REFUSED: Final = {
    **MODULES,
    **dict.fromkeys(("Protocol", "Frame"), SANS_IO),
    **dict.fromkeys(("BasicAuthWebSocketServerProtocol", "basic_auth_protocol_factory"), AUTH),
}

if not TYPE_CHECKING:  # checkers would take it for a sign that there is any name
    __getattr__ = missing(__name__, _REFUSED)
