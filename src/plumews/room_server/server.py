"""The function `serve_rooms`: a server whose connections each belong to one room of a hub.

A client enters the room in ``?room=`` (default ``default``) with the room's password and, if required, a token. Each of
its messages is sent to all members of the room, the client included. A handler or callbacks may replace that. A
connection to ``/members`` watches the member count of a room, so that the messages of a room come from members only.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..auth.interfaces import RoomAuth, RoomAuthorizer, TokenAuthenticator
from ..conn.handlers import Handler, OnMessage, OnOpenOrClose
from ..hub.history_store import EncodeRecovered
from ..hub.hub import Hub
from ..server.options import TcpKeywords
from ..server.server import Serving, serve_on_tcp
from .context import room_context
from .sessions import recovered_event
from .status import RoomsTable
from .text_filter import TextPolicy

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["serve_rooms"]


def serve_rooms(
    hub: Hub,
    auth: RoomAuth | None,
    host: str | Sequence[str] | None = None,
    port: int | None = None,
    *,
    handler: Handler | None = None,
    on_open: OnOpenOrClose | None = None,
    on_message: OnMessage | None = None,
    on_close: OnOpenOrClose | None = None,
    path: str = "/ws",
    members_path: str | None = "/members",
    page: bool = False,
    rooms_table: RoomsTable = "nobody",
    echo: bool = True,
    token_auth: TokenAuthenticator | None = None,
    room_auth: RoomAuthorizer | None = None,
    allow_unknown_rooms: bool = True,
    broadcast_secret: str | bytes | None = None,
    text_policy: TextPolicy | None = None,
    recovery: bool = False,
    encode_recovered: EncodeRecovered | None = recovered_event,
    **options: Unpack[TcpKeywords],
) -> Serving:
    """Serve the rooms of ``hub``.

    A client names its room in ``?room=``. It authenticates by the headers ``Authorization: Bearer <token>`` and
    ``X-WebSocket-Room-Password``, or by the subprotocols ``plumews, bearer.<token>``. With ``?auth=message`` it sends
    ``{"type": "auth", "password": ..., "token": ...}`` as its first message. A cookie and the query are other places,
    if they are enabled. A connection ends with its token, unless the client sends a new one as such a message.

    Args:
        hub: hub that connections join. It outlives the server and is stopped by the caller.
        auth: passwords and tokens, such as :class:`plumews.SimpleRoomAuth`. ``None`` if ``token_auth`` and
            ``room_auth`` are given.
        token_auth: verifies the tokens instead: a :class:`plumews.TokenAuthenticator`.
        room_auth: authorizes clients for rooms instead: a :class:`plumews.RoomAuthorizer`.
        host: address to listen on, as in :func:`plumews.serve`.
        port: port to listen on, as in :func:`plumews.serve`.
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
        options: options as in :func:`plumews.serve`, such as ``queue_size``, ``send_timeout`` and ``send_behavior`` of
            the send queue of each connection (64, 0.05 s, BLOCK), or ``token_cookie``. ``require_token`` is False by
            default.

    Returns:
        The server: start it with ``async with``, or await it.

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: an argument is out of range, or contradicts another one.
        WeakSecret: ``broadcast_secret`` is too short.
        OSError: the address cannot be used, as in :func:`plumews.serve`. Raised when the result is awaited.
    """
    context, config = room_context(
        hub,
        auth,
        options,
        handler=handler,
        on_open=on_open,
        on_message=on_message,
        on_close=on_close,
        path=path,
        members_path=members_path,
        page=page,
        rooms_table=rooms_table,
        echo=echo,
        token_auth=token_auth,
        room_auth=room_auth,
        allow_unknown_rooms=allow_unknown_rooms,
        broadcast_secret=broadcast_secret,
        text_policy=text_policy,
        recovery=recovery,
        encode_recovered=encode_recovered,
    )
    return serve_on_tcp(context, config, host, port, hub)
