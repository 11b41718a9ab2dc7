"""The command `plumews serve`: from its arguments to a running room server and its graceful stop.

The first Ctrl-C or SIGTERM refuses new clients with 503. Connections get their queued messages, then 1001 with the time
to reconnect, and the exit code is 0. A second signal ends the process at once, with 128 and the number of the signal.
Status lines go to stdout and are flushed, because another program may read them from a pipe. A closed stdout does not
stop the server.
"""

from __future__ import annotations

import argparse
import asyncio
import errno
import os
import socket
from collections.abc import Callable, Coroutine
from typing import Any, Final

from .. import limits
from ..constants import SendBehavior
from ..http11.models import Request, Response
from ..hub.config import HubConfig
from ..hub.history import HistoryLimits
from ..hub.hub import Hub
from ..hub.rooms import check_room_name, validate_room_name
from ..room_server.server import serve_rooms
from ..server.options import TcpKeywords
from ..server.routes import restricted
from ..server.server import Server
from ..server.signals import StopSignals
from ..server.sockets import inherited_sockets, unix_socket
from .inputs import (
    Failure,
    ServeAuth,
    broadcast_secret_of_file,
    make_auth,
    reason,
    text_policy,
    tls_context,
    token_of_file,
)
from .options import has_uvloop, say

__all__ = ["run_serve"]

_ALL_INTERFACES: Final = ("", "0.0.0.0", "::")  # noqa: S104 - compared with, not bound to


def run_serve(args: argparse.Namespace) -> int:
    """Serve until a signal and return the exit code. Raise :class:`Failure` if serving fails."""
    auth = make_auth(
        args.room or (),
        args.rooms_file,
        args.secret_file,
        only_known_rooms=not args.open_rooms and (bool(args.room) or args.rooms_file is not None),
        plain_names=args.plain_room_names,
    )
    context = tls_context(args.tls_cert, args.tls_key)
    token = None if args.metrics_token_file is None else token_of_file(args.metrics_token_file)
    secret = None if args.broadcast_secret_file is None else broadcast_secret_of_file(args.broadcast_secret_file, auth)
    shared = vars(args).keys() & {*TcpKeywords.__annotations__, "echo", "page", "rooms_table"}
    options = {name: getattr(args, name) for name in shared}
    for limit in (
        "accept_rate",
        "accept_rate_per_address",
        "max_connections_per_address",
        "ping_interval",
        "ping_timeout",
    ):
        options[limit] = options[limit] or None
    options.update(
        ssl=context,
        broadcast_secret=secret,
        recovery=args.history > 0,
        unsent_bytes="auto" if args.unsent_bytes is None else args.unsent_bytes or None,
        unanswered_bytes="auto" if args.unanswered_bytes is None else args.unanswered_bytes or None,
        send_behavior=SendBehavior(args.send_behavior),
        text_policy=text_policy(args.text, args.max_size),
        compression="deflate" if args.compression else None,
        # Above the bound of members, so that the hub refuses one too many.
        max_connections=max(limits.MAX_CONNECTIONS, args.max_connections + args.max_connections // 10),
    )
    return _run(_serve(args, auth, token, options), args.loop)


def _run(main: Coroutine[Any, Any, int], loop: str) -> int:
    if loop == "uvloop" or (loop == "auto" and has_uvloop()):
        import uvloop

        return uvloop.run(main)
    return asyncio.run(main)


async def _serve(args: argparse.Namespace, auth: ServeAuth, token: str | None, options: dict[str, Any]) -> int:
    hub = Hub(
        HubConfig(
            max_connections=args.max_connections,
            max_room_connections=args.max_room_connections,
            check_room_name=validate_room_name if args.plain_room_names else check_room_name,
            history=HistoryLimits(max_messages=args.history) if args.history else None,
        )
    )
    options["routes"] = {"/metrics": _metrics(hub, token)} if args.metrics else {}
    with StopSignals():  # before the lines below, because a reader of them may send a signal at once
        server = await _listen(args, hub, auth, options)
        say(f"plumews is serving at {_address(args, server)} (Ctrl-C stops)")
        say(auth.describe())
        report = await server.serve_until_signal(
            args.shutdown_timeout,
            spread=args.shutdown_spread,
            reconnect_in=args.reconnect_in,
            on_signal=lambda number: say("stopping; a second Ctrl-C ends at once"),
        )
        assert report is not None
        say(
            f"closed {_count(report.closed, 'connection')}, cut {report.aborted}; "
            f"delivered {_count(report.delivered_messages, 'message')} that waited, lost {report.undelivered_messages}"
        )
    return 0


async def _listen(args: argparse.Namespace, hub: Hub, auth: ServeAuth, options: dict[str, Any]) -> Server:
    try:
        return await serve_rooms(hub, auth, args.host, args.port, sock=_sock(args), **options)
    except (OSError, UnicodeError) as exc:  # UnicodeError: the host cannot be a host name
        hint = ""
        if isinstance(exc, FileExistsError):
            hint = ", and is no socket"
        elif args.port and getattr(exc, "errno", None) == errno.EADDRINUSE:
            hint = "; --port 0 takes a free one"
        place = _shown(args.unix) if args.unix else f"{args.host} port {args.port}"
        raise Failure(f"cannot listen on {place}: {reason(exc)}{hint}") from exc


def _sock(args: argparse.Namespace) -> socket.socket | list[socket.socket] | None:
    if args.unix is not None:
        return unix_socket(args.unix, args.unix_mode, limits.BACKLOG)
    try:
        return inherited_sockets(args.fd) or None
    except ValueError as exc:
        raise Failure(f"cannot listen: {exc}") from exc


def _metrics(hub: Hub, token: str | None) -> Callable[[Request], Response]:
    """Return the route with the metrics of ``hub`` and of this process."""
    from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector

    from ..prometheus import HubCollector, metrics_route

    registry = CollectorRegistry(auto_describe=True)
    for collector in (ProcessCollector, PlatformCollector, GCCollector):
        collector(registry=registry)
    registry.register(HubCollector(hub))
    return restricted(metrics_route(registry), token)


# --- status lines ---------------------------------------------------------------------------------


def _address(args: argparse.Namespace, server: Server) -> str:
    if args.unix is not None:
        return f"unix:{_shown(args.unix)}"
    if args.fd:
        return " and ".join(_address_of(args, sock.getsockname()) for sock in server.sockets)
    return _address_of(args, (args.host, server.port))


def _address_of(args: argparse.Namespace, name: Any) -> str:
    """Return the place where a socket of this ``name`` listens: a path, or a host and a port."""
    if not isinstance(name, tuple):
        return f"unix:{_shown(os.fsdecode(name))}"
    host, port, *_ = name
    everywhere = host in _ALL_INTERFACES
    host = "localhost" if everywhere else host
    authority = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    secure = "" if args.tls_cert is None else "s"
    address = f"http{secure}://{authority}/" if args.page else f"ws{secure}://{authority}/ws?room=NAME"
    return f"{address} and all other addresses of this machine" if everywhere else address


def _shown(path: str) -> str:
    """Return the path of a Unix socket as it is written on the command line."""
    return f"@{path[1:]}" if path.startswith("\0") else path


def _count(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
