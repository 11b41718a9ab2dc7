"""The options of `plumews serve` (layer 6).

Every option has its default in its help. What is wrong with the command line is found here, before anything is
opened, and is said in one line with exit code 2; no password is ever in it.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import os
import sys
from typing import Any, Final, NoReturn, TextIO, get_args

from .. import limits
from ..constants import SendBehavior
from ..http11.origin import is_loopback
from ..room_server.status import RoomsTable
from ..server.sockets import activated_descriptors
from .cli_values import allowed, permissions, rate, room, seconds, trusted_proxy, unix_path, whole
from .inputs import Failure

__all__ = [
    "TEXT_POLICIES",
    "Parser",
    "add_serve_options",
    "check_serve_options",
    "has_uvloop",
    "hold_descriptors",
    "say",
    "settle_output",
]

#: What ``--text`` may be.
TEXT_POLICIES: Final = ("any", "line", "lines")

_STDERR: Final = 2

_HOST: Final = "127.0.0.1"
_PORT: Final = 8080


class Parser(argparse.ArgumentParser):
    """An argument parser that says what is wrong in one line."""

    def error(self, message: str) -> NoReturn:
        say(f"{self.prog}: {message} ({self.prog} --help tells more)", sys.stderr)
        sys.exit(2)


def say(line: str, stream: TextIO | None = None) -> None:
    """Tell whoever started the command, on standard output; that it has gone is no reason to stop.

    A closed pipe, a full disk, a closed terminal, a character that the output cannot take.
    """
    stream = stream or sys.stdout  # which is None if there never was one
    if stream is None:
        return
    with contextlib.suppress(OSError, ValueError):
        encoding = stream.encoding or "utf-8"
        stream.write(line.encode(encoding, "backslashreplace").decode(encoding) + "\n")
        stream.flush()


def hold_descriptors() -> None:
    """Open what is not open of standard input, output and error: a socket in their place would be taken for them.

    libuv ends the process for that.
    """
    while (nowhere := os.open(os.devnull, os.O_RDWR)) <= _STDERR:
        pass
    os.close(nowhere)


def settle_output() -> None:
    """Write what the standard streams still hold, or let it go: else the interpreter ends with a failure for it."""
    for stream in (sys.stdout, sys.stderr):
        if stream is None:
            continue
        try:
            stream.flush()
        except (OSError, ValueError):
            with contextlib.suppress(OSError, ValueError):
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, stream.fileno())
                os.close(nowhere)


def add_serve_options(parser: argparse.ArgumentParser) -> None:
    """Give ``parser`` the options of the room server."""
    _add_listening(parser.add_argument_group("where it listens"))
    _add_access(parser.add_argument_group("who may enter"))
    _add_broadcast(parser.add_argument_group("who may speak to all"))
    _add_words(parser.add_argument_group("what may be said"))
    _add_limits(parser.add_argument_group("limits"))
    _add_seeing(parser.add_argument_group("what it shows"))
    _add_running(parser.add_argument_group("how it runs"))


def check_serve_options(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """End the command for options that make no sense together; settle where it listens.

    Raises:
        Failure: the environment says something wrong about sockets that are handed over.
    """
    _settle_where(parser, args)
    if args.tls_key is not None and args.tls_cert is None:
        parser.error("--tls-key needs --tls-cert")
    if args.require_token and args.secret_file is None:
        parser.error("--require-token needs --secret-file, or nobody could enter")
    if args.only_known_rooms and not args.room and args.rooms_file is None:
        parser.error("--only-known-rooms needs --room or --rooms-file, or nobody could enter")
    if args.only_known_rooms and args.open_rooms:
        parser.error("--only-known-rooms and --open-rooms contradict each other")
    if args.shutdown_spread is not None and args.shutdown_spread > args.shutdown_timeout:
        parser.error("--shutdown-spread must not be more than --shutdown-timeout")
    if args.reconnect_in > limits.LONGEST_RECONNECT:
        parser.error(f"--reconnect-in must be at most {limits.LONGEST_RECONNECT:g}")
    if args.rooms_table is None:
        proxied = args.origin or args.allowed_host or args.trusted_proxy
        direct = args.host is not None and is_loopback(args.host) and not proxied
        args.rooms_table = "local" if direct else "nobody"
    if args.metrics_token_file is not None and not args.metrics:
        parser.error("--metrics-token-file needs --metrics")
    if args.unanswered_bytes and not (args.ping_interval and args.ping_timeout):
        parser.error("--unanswered-bytes needs --ping-interval and --ping-timeout: they end who answers no ping")
    if args.metrics and importlib.util.find_spec("prometheus_client") is None:
        parser.error("--metrics: prometheus_client is not installed here; pip install 'plumews[prometheus]'")
    if args.loop == "uvloop" and not has_uvloop():
        parser.error("--loop uvloop: it is not installed here; pip install 'plumews[uvloop]'")


def _settle_where(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    try:
        activated = activated_descriptors(os.environ)
    except ValueError as exc:
        raise Failure(str(exc)) from exc
    tcp = args.host is not None or args.port is not None
    ways = {"--unix": args.unix is not None, "--fd": bool(args.fd), "--host and --port": tcp}
    given = [way for way, is_given in ways.items() if is_given]
    if len(given) > 1:
        parser.error(f"{given[0]} takes the place of {given[1]}")
    if given and activated:
        parser.error(f"sockets were handed over (LISTEN_FDS): they take the place of {given[0]}")
    if args.unix_mode is not None and (args.unix is None or args.unix.startswith("\0")):
        parser.error("--unix-mode needs --unix with a path")
    args.fd = args.fd or list(activated)
    if args.unix is None and not args.fd:
        args.host = _HOST if args.host is None else args.host
        args.port = _PORT if args.port is None else args.port


def has_uvloop() -> bool:
    """Whether uvloop is installed."""
    return importlib.util.find_spec("uvloop") is not None


# --- the groups -----------------------------------------------------------------------------------


# `Any`: the class of argument groups has no public name.
def _add_listening(group: Any) -> None:
    group.add_argument("--host", help=f"address or name (default {_HOST}; 0.0.0.0 is all)")
    group.add_argument("--port", type=whole(0, 65535), help=f"TCP port (default {_PORT}; 0 takes a free one)")
    group.add_argument(
        "--unix",
        type=unix_path,
        metavar="PATH",
        help="a Unix socket instead of host and port; @NAME is an abstract one, of Linux (default: none)",
    )
    group.add_argument(
        "--unix-mode",
        type=permissions,
        metavar="MODE",
        help="permissions of its file in octal, such as 660 (default: what the umask leaves)",
    )
    group.add_argument(
        "--fd",
        action="append",
        default=[],
        type=whole(0),
        metavar="N",
        help="a listening socket, TCP or Unix, that the parent process has opened as this descriptor; may be repeated "
        "(default: those that systemd hands over, LISTEN_FDS)",
    )
    group.add_argument("--tls-cert", metavar="FILE", help="serve https and wss with this PEM chain (default: no TLS)")
    group.add_argument("--tls-key", metavar="FILE", help="its key (default: in the file of the chain)")


def _add_access(group: Any) -> None:
    group.add_argument(
        "--room",
        action="append",
        default=[],
        type=room,
        metavar="NAME=PASSWORD",
        help="a room with a password, or an open one by NAME alone; may be repeated; other rooms are closed then "
        "(default: all rooms are open)",
    )
    group.add_argument(
        "--rooms-file",
        metavar="FILE",
        help="the same, one a line, so that no password stands in the list of processes (default: none)",
    )
    group.add_argument(
        "--open-rooms",
        action="store_true",
        help="rooms that --room and --rooms-file do not name are open (default: closed, if any are named)",
    )
    group.add_argument(
        "--only-known-rooms",
        action="store_true",
        help="says what is so anyway where rooms are named, and has no effect of its own (default: not said)",
    )
    group.add_argument(
        "--secret-file",
        metavar="FILE",
        help=f"accept HS256 tokens signed with what this file holds, {limits.SECRET_SIZE} bytes or more; a newline at "
        "its end does not count (default: no tokens)",
    )
    group.add_argument(
        "--require-token", action="store_true", help="refuse clients without a token (default: they may enter)"
    )
    group.add_argument(
        "--no-query-secrets",
        dest="query_secrets",
        action="store_false",
        help="refuse ?token= and ?room_password=, which end up in logs (default: they are accepted)",
    )
    group.add_argument(
        "--origin",
        action="append",
        type=allowed("origins"),
        metavar="ORIGIN",
        help="pages from here may connect, such as https://example.com, or * for any; may be repeated "
        "(default: only the server's own)",
    )
    group.add_argument(
        "--allowed-host",
        action="append",
        type=allowed("hosts"),
        metavar="HOST",
        help="a name by which clients may address the server, or * for any; may be repeated (default: localhost "
        "while it listens on the loopback only, else any)",
    )
    group.add_argument(
        "--trusted-proxy",
        action="append",
        type=trusted_proxy,
        metavar="ADDRESS",
        help="take the word of this proxy, an address, a network or unix, about who its clients are: Forwarded, or "
        "X-Forwarded-For, -Proto and -Host; may be repeated (default: of none)",
    )


def _add_limits(group: Any) -> None:
    group.add_argument(
        "--max-connections",
        type=whole(0),
        default=0,
        metavar="N",
        help="members in all (default %(default)s: no limit but that of the server, "
        f"{limits.MAX_CONNECTIONS:,} connections)",
    )
    group.add_argument(
        "--max-room-connections",
        type=whole(0),
        default=0,
        metavar="N",
        help="members of one room (default %(default)s: no limit)",
    )
    group.add_argument(
        "--max-connections-per-address",
        type=whole(0),
        default=limits.CONNECTIONS_PER_ADDRESS,
        metavar="N",
        help="connections of one IPv4 address or /64 network of IPv6 (default %(default)s, for addresses of the "
        "internet only; another number holds for private networks and this machine, too; 0: no limit)",
    )
    group.add_argument(
        "--accept-rate",
        type=rate,
        default=0.0,
        metavar="N",
        help="new connections a second, those of two seconds at once (default %(default)g: no limit)",
    )
    group.add_argument(
        "--accept-rate-per-address",
        type=rate,
        default=limits.ACCEPT_RATE_PER_ADDRESS,
        metavar="N",
        help="the same for each address, those of ten seconds at once (default %(default)g, for addresses of the "
        "internet only, as above; 0: no limit)",
    )
    group.add_argument(
        "--max-size",
        type=whole(1),
        default=limits.READ_LIMIT,
        metavar="BYTES",
        help="of the largest message that is accepted (default %(default)s)",
    )
    group.add_argument(
        "--max-head",
        type=whole(limits.HEAD_SIZE_LEAST, limits.HEAD_SIZE_MOST),
        default=limits.HEAD_SIZE,
        metavar="BYTES",
        help="of the largest request line with its headers, which cookies of a single sign-on may exceed "
        "(default %(default)s)",
    )
    group.add_argument(
        "--compression",
        action="store_true",
        help="permessage-deflate for clients that offer it, as browsers do (default: none)",
    )
    group.add_argument(
        "--queue-size",
        type=whole(1),
        default=limits.QUEUE_SIZE,
        metavar="N",
        help="messages that may wait for one member (default %(default)s)",
    )
    group.add_argument(
        "--send-behavior",
        choices=[behavior.value for behavior in SendBehavior],
        default=SendBehavior.BLOCK.value,
        help="when that queue is full: give the member time, drop the new message, close the member with 1013, or drop "
        "the oldest message (conflate does the same here) (default %(default)s)",
    )
    group.add_argument(
        "--send-timeout",
        type=seconds,
        default=limits.SEND_TIMEOUT,
        metavar="SECONDS",
        help="time that --send-behavior block gives (default %(default)s)",
    )
    group.add_argument(
        "--unsent-bytes",
        type=whole(0),
        metavar="BYTES",
        help="what the kernel may hold for a member and has not sent (default: "
        f"{limits.UNSENT_BYTES} with --send-behavior drop-oldest or conflate, else no limit; 0: no limit)",
    )
    group.add_argument(
        "--unanswered-bytes",
        type=whole(0),
        metavar="BYTES",
        help="what is sent beyond the last ping that a member answered (default: "
        f"{limits.UNANSWERED_BYTES} with --send-behavior conflate, else no limit; 0: no limit)",
    )
    group.add_argument(
        "--ping-interval",
        type=seconds,
        default=limits.PING_INTERVAL,
        metavar="SECONDS",
        help="time between two pings (default %(default)g; 0 sends none)",
    )
    group.add_argument(
        "--ping-timeout",
        type=seconds,
        default=limits.PING_TIMEOUT,
        metavar="SECONDS",
        help="time for a sign of life after a ping (default %(default)g; 0 waits for ever)",
    )


def _add_seeing(group: Any) -> None:
    group.add_argument("--no-page", dest="page", action="store_false", help="no page at / (default: there is one)")
    group.add_argument(
        "--rooms-table",
        choices=get_args(RoomsTable),
        help="who sees on the page which rooms there are, and how many are in them; local is who asks straight from "
        "this machine (default: local while --host is the loopback only, without --origin, --allowed-host and "
        "--trusted-proxy, else nobody)",
    )
    group.add_argument(
        "--metrics",
        action="store_true",
        help="figures for Prometheus at /metrics, for who asks straight from this machine (default: none)",
    )
    group.add_argument(
        "--metrics-token-file",
        metavar="FILE",
        help=f"for who sends the token in this file as a bearer, {limits.ROUTE_TOKEN} characters or more, from "
        "anywhere, and nobody else; wanted behind a proxy (default: none)",
    )


def _add_broadcast(group: Any) -> None:
    group.add_argument(
        "--broadcast-secret-file",
        metavar="FILE",
        help="who sends what this file holds as a bearer may POST messages to /_admin/broadcast?room=NAME; "
        f"{limits.SECRET_SIZE} characters or more, and not those of --secret-file (default: nobody may)",
    )


def _add_words(group: Any) -> None:
    group.add_argument(
        "--text",
        choices=TEXT_POLICIES,
        default="any",
        help="what text messages may be: anything in UTF-8; one line, without control characters and not empty; lines, "
        "where newlines and tabs may be as well. Who says anything else is closed with 1008 (default %(default)s)",
    )
    group.add_argument(
        "--plain-room-names",
        action="store_true",
        help=f"names of rooms are 1 to {limits.ROOM_NAME} of A-Z a-z 0-9 . _ : - alone, which can stand in addresses "
        "and log lines as they are (default: any printable text)",
    )


def _add_running(group: Any) -> None:
    group.add_argument(
        "--history",
        type=whole(0, limits.COUNT_MOST),
        default=0,
        metavar="N",
        help=f"messages of each room that are kept for {limits.HISTORY_AGE:g} s, for clients that come with ?since=, "
        "which is start or the position that they were told; the page does so (default %(default)s: none)",
    )
    group.add_argument(
        "--no-echo",
        dest="echo",
        action="store_false",
        help="a member does not get its own messages (default: it does, like everybody)",
    )
    group.add_argument(
        "--loop",
        choices=["auto", "asyncio", "uvloop"],
        default="auto",
        help="the event loop (default %(default)s: uvloop if it is installed)",
    )
    group.add_argument(
        "--shutdown-timeout",
        type=seconds,
        default=limits.SHUTDOWN_TIMEOUT,
        metavar="SECONDS",
        help="time for members to get what was said and to take their leave, then they are cut (default %(default)g)",
    )
    group.add_argument(
        "--shutdown-spread",
        type=seconds,
        metavar="SECONDS",
        help="the part of it over which members are told to leave (default: one for each "
        f"{limits.CLOSES_PER_SECOND} members, a fifth of it at most)",
    )
    group.add_argument(
        "--reconnect-in",
        type=seconds,
        default=limits.RECONNECT_IN,
        metavar="SECONDS",
        help="members are told to come back within this time, each at its own moment (default %(default)g; 0: they are "
        "told nothing)",
    )
    group.add_argument(
        "--log-level",
        choices=["debug", "info", "warning", "error"],
        default="warning",
        help="what is logged on stderr (default %(default)s)",
    )
    group.add_argument(
        "-v",
        "--verbose",
        dest="log_level",
        action="store_const",
        const="debug",
        default=argparse.SUPPRESS,
        help="the same as --log-level debug: who opens, closes and is refused (default: not)",
    )
