"""Options of a room server, whatever serves it: our own server, or an ASGI application."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, TypedDict

from ..auth.credentials import AuthOptions
from ..auth.interfaces import RoomAuthorizer, TokenAuthenticator
from ..conn.config import ConnConfig
from ..conn.handlers import Handler, OnMessage, OnOpenOrClose
from ..hub.history_store import EncodeRecovered, check_encode_recovered
from ..server.options import ELSEWHERE, OWNERS, ServerOptions, TcpKeywords
from ..validation import owned_options
from .sessions import recovered_event
from .status import RoomsTable, check_rooms_table
from .text_filter import TextPolicy

__all__ = ["RoomKeywords", "RoomOptions", "RoomServerKeywords", "split_room_options"]

#: A browser that offers ``bearer.<token>`` fails the connection unless another offered subprotocol is chosen.
_SUBPROTOCOLS = ("plumews",)


@dataclasses.dataclass(frozen=True)
class RoomOptions:
    """Options of rooms, for :func:`plumews.serve_rooms`.

    Args:
        handler: coroutine function instead of the fan-out, as in :func:`plumews.serve`. It runs after authentication
            and joining, with ``conn.metadata["room"]`` and ``conn.user_info``.
        on_open: callback after joining, as in :func:`plumews.serve`.
        on_message: callback instead of the fan-out, as in :func:`plumews.serve`.
        on_close: callback after the end of a connection, as in :func:`plumews.serve`.
        path: path of the WebSocket (default ``/ws``).
        members_path: path of the WebSocket that sends the member count as JSON (default ``/members``). ``None``: none.
        page: True serves a browser page at ``/`` (default False).
        rooms_table: clients that see the list of rooms, their members and long queues on that page: ``"nobody"``
            (default), ``"everybody"``, or ``"local"``, which is a direct request from this machine. A proxy on this
            machine that sends no proxy headers passes for that.
        echo: True sends a message to its sender, too (default True).
        token_auth: verifies the tokens, in place of ``auth``: a :class:`plumews.TokenAuthenticator`.
        room_auth: authorizes clients for rooms, in place of ``auth``: a :class:`plumews.RoomAuthorizer`.
        allow_unknown_rooms: True admits clients to rooms without a password (default True). An authorizer with
            ``authorize_room``, or without ``has_room_password``, decides about each room itself.
        broadcast_secret: secret of ``POST /_admin/broadcast``, see :func:`plumews.admin_broadcast_route` (default: no
            such route). At least 32 bytes, and none of the keys of tokens.
        text_policy: rules for text messages beyond UTF-8 (default ``None``: none). A message that breaks one closes the
            connection, or is skipped, before room, handler or callback see it. A handler that uses ``read_stream``
            checks its messages itself.
        recovery: True accepts ``?since=POSITION`` and sends a client the messages that it missed in its room before any
            later one, as :meth:`plumews.Hub.recover` does (default False). ``?since=start`` sends all that are kept.
            ``conn.metadata["recovery"]`` is the :class:`plumews.Recovery` then. Needs a hub with ``history``.
        encode_recovered: encodes the event that such a client gets before the messages that it missed, as in
            :meth:`plumews.Hub.recover` (default: ``{"type": "recovered", "complete": true, "missed": 2, "position":
            "1f0c9a5be27d4830.17"}``). ``None`` sends no event.

    Raises:
        TypeError: an option has the wrong type.
        ValueError: an option is out of range, or contradicts another one.
    """

    handler: Handler | None = None
    on_open: OnOpenOrClose | None = None
    on_message: OnMessage | None = None
    on_close: OnOpenOrClose | None = None
    path: str = "/ws"
    members_path: str | None = "/members"
    page: bool = False
    rooms_table: RoomsTable = "nobody"
    echo: bool = True
    token_auth: TokenAuthenticator | None = None
    room_auth: RoomAuthorizer | None = None
    allow_unknown_rooms: bool = True
    broadcast_secret: str | bytes | None = None
    text_policy: TextPolicy | None = None
    recovery: bool = False
    encode_recovered: EncodeRecovered | None = recovered_event

    def __post_init__(self) -> None:
        check_rooms_table(self.rooms_table)
        if self.text_policy is not None and not isinstance(self.text_policy, TextPolicy):
            raise TypeError(f"text_policy must be a plumews.TextPolicy, not {type(self.text_policy).__name__}")
        if self.path == self.members_path:
            raise ValueError(f"path and members_path must differ, both are {self.path!r}")
        if self.encode_recovered is not None:
            check_encode_recovered(self.encode_recovered)
            if not self.recovery and self.encode_recovered is not recovered_event:
                raise ValueError("encode_recovered is for recovery=True, which is not given")


class RoomKeywords(TypedDict, total=False):
    """Keywords of rooms: see :class:`RoomOptions`."""

    handler: Handler | None
    on_open: OnOpenOrClose | None
    on_message: OnMessage | None
    on_close: OnOpenOrClose | None
    path: str
    members_path: str | None
    page: bool
    rooms_table: RoomsTable
    echo: bool
    token_auth: TokenAuthenticator | None
    room_auth: RoomAuthorizer | None
    allow_unknown_rooms: bool
    broadcast_secret: str | bytes | None
    text_policy: TextPolicy | None
    recovery: bool
    encode_recovered: EncodeRecovered | None


class RoomServerKeywords(RoomKeywords, TcpKeywords, total=False):
    """Keywords of :func:`plumews.serve_rooms`."""


def split_room_options(given: Mapping[str, Any]) -> tuple[RoomOptions, ServerOptions, AuthOptions, ConnConfig]:
    """Return the keywords ``given`` as the options of rooms, server, authentication, and of each connection.

    Raises:
        TypeError, ValueError: an option is unknown, or its value is wrong.
    """
    of_rooms, of_server, of_auth, of_conn = owned_options(given, (RoomOptions, *OWNERS), ELSEWHERE)
    server = ServerOptions(**{"subprotocols": _SUBPROTOCOLS, **of_server})
    return RoomOptions(**of_rooms), server, AuthOptions(**of_auth), ConnConfig(**of_conn)
