"""The function `serve_rooms`: a server whose connections each belong to one room of a hub.

A client enters the room in ``?room=`` (default ``default``) with the room's password and, if required, a token. Each of
its messages is sent to all members of the room, the client included. A handler or callbacks may replace that. A
connection to ``/members`` watches the member count of a room, so that the messages of a room come from members only.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..auth.interfaces import RoomAuth
from ..hub.hub import Hub
from ..server.server import Serving, serve_on_tcp
from .context import room_context

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from .options import RoomServerKeywords

__all__ = ["serve_rooms"]


def serve_rooms(
    hub: Hub,
    auth: RoomAuth | None,
    host: str | Sequence[str] | None = None,
    port: int | None = None,
    **options: Unpack[RoomServerKeywords],
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
        host: address to listen on, as in :func:`plumews.serve`.
        port: port to listen on, as in :func:`plumews.serve`.
        options: options of the rooms, such as ``handler``, ``on_message``, ``page``, ``echo``, ``room_auth``,
            ``allow_unknown_rooms``, ``text_policy`` and ``recovery`` (see
            :class:`plumews.room_server.options.RoomOptions`), and those of :func:`plumews.serve`, such as
            ``queue_size``, ``send_timeout`` and ``send_behavior`` of the send queue of each connection (64, 0.05 s,
            BLOCK), or ``token_cookie``. ``require_token`` is False by default.

    Returns:
        The server: start it with ``async with``, or await it.

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: an argument is out of range, or contradicts another one.
        WeakSecret: ``broadcast_secret`` is too short.
        OSError: the address cannot be used, as in :func:`plumews.serve`. Raised when the result is awaited.
    """
    context, config = room_context(hub, auth, options)
    return serve_on_tcp(context, config, host, port, hub)
