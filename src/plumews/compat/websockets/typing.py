"""Types of public signatures, as in ``websockets.typing``."""

from __future__ import annotations

import http
import logging
import os
from typing import Any, NewType, TypeAlias

__all__ = [
    "BytesLike",
    "Data",
    "DataLike",
    "ExtensionName",
    "ExtensionParameter",
    "LoggerLike",
    "Origin",
    "PathLike",
    "StatusLike",
    "Subprotocol",
]

#: Message that is received: ``str`` for text, ``bytes`` for binary.
Data: TypeAlias = str | bytes
#: Binary message or payload that is sent.
BytesLike: TypeAlias = bytes | bytearray | memoryview
#: Message that is sent.
DataLike: TypeAlias = str | bytes | bytearray | memoryview
#: Logger of a server.
LoggerLike: TypeAlias = "logging.Logger | logging.LoggerAdapter[Any]"
#: Path of a Unix socket.
PathLike: TypeAlias = "str | bytes | os.PathLike[str] | os.PathLike[bytes]"
#: HTTP status.
StatusLike: TypeAlias = http.HTTPStatus | int

#: Value of an ``Origin`` header.
Origin = NewType("Origin", str)
#: Name of a subprotocol.
Subprotocol = NewType("Subprotocol", str)
#: Name of an extension.
ExtensionName = NewType("ExtensionName", str)
#: Parameter of an extension.
ExtensionParameter: TypeAlias = tuple[str, str | None]
