"""Options of `plumews serve`, and the checks of options that exclude or need each other.

The help of each option has its default. A wrong command line ends the command with exit code 2 and one line, before any
socket is opened. The line never repeats a password.
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
from .inputs import Failure, allowed, permissions, rate, room, seconds, trusted_proxy, unix_path, whole

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

#: Values of ``--text``.
TEXT_POLICIES: Final = ("any", "line", "lines")

_STDERR: Final = 2

_HOST: Final = "127.0.0.1"
_PORT: Final = 8080


class Parser(argparse.ArgumentParser):
    """Argument parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        say(f"{self.prog}: {message} ({self.prog} --help tells more)", sys.stderr)
        sys.exit(2)


def say(line: str, stream: TextIO | None = None) -> None:
    """Print ``line`` on standard output, or on ``stream``. An output that fails is ignored.

    It may be a closed pipe, a full disk or a closed terminal. Characters that it cannot encode are escaped.
    """
    stream = stream or sys.stdout  # None if the process has no standard output
    if stream is None:
        return
    with contextlib.suppress(OSError, ValueError):
        encoding = stream.encoding or "utf-8"
        stream.write(line.encode(encoding, "backslashreplace").decode(encoding) + "\n")
        stream.flush()


def hold_descriptors() -> None:
    """Open standard input, output and error if they are closed.

    Otherwise a socket gets one of their descriptors, and libuv ends the process for that.
    """
    while (nowhere := os.open(os.devnull, os.O_RDWR)) <= _STDERR:
        pass
    os.close(nowhere)


def settle_output() -> None:
    """Flush the standard streams, or discard what they hold. Otherwise the interpreter ends with a failure."""
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
    """Add the options of the room server to ``parser``."""
    _add_listening(parser.add_argument_group("listening"))
    _add_access(parser.add_argument_group("access"))
    _add_broadcast(parser.add_argument_group("broadcasts"))
    _add_messages(parser.add_argument_group("messages and room names"))
    _add_limits(parser.add_argument_group("limits"))
    _add_page(parser.add_argument_group("page and metrics"))
    _add_running(parser.add_argument_group("operation"))


def check_serve_options(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """End the command for options that contradict each other, and set the defaults of the address.

    Args:
        parser: parser that reports errors.
        args: parsed options, which are completed.

    Raises:
        Failure: the environment variables for inherited sockets are wrong.
    """
    _set_address(parser, args)
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


def _set_address(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
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
    """Return whether uvloop is installed."""
    return importlib.util.find_spec("uvloop") is not None


# --- groups of options ----------------------------------------------------------------------------


# `Any`: the class of argument groups has no public name.
def _add_listening(group: Any) -> None:
    group.add_argument("--host", help=f"address or name (default {_HOST}; 0.0.0.0 is all)")
    group.add_argument("--port", type=whole(0, 65535), help=f"TCP port (default {_PORT}; 0 takes a free one)")
    group.add_argument(
        "--unix",
        type=unix_path,
        metavar="PATH",
        help="Unix socket instead of host and port. @NAME is an abstract one (Linux) (default: none)",
    )
    group.add_argument(
        "--unix-mode",
        type=permissions,
        metavar="MODE",
        help="permissions of the socket file in octal, such as 660 (default: decided by the umask)",
    )
    group.add_argument(
        "--fd",
        action="append",
        default=[],
        type=whole(0),
        metavar="N",
        help="descriptor of a listening TCP or Unix socket that the parent process has opened. May be repeated "
        "(default: the sockets of systemd, LISTEN_FDS)",
    )
    group.add_argument("--tls-cert", metavar="FILE", help="PEM certificate chain for https and wss (default: no TLS)")
    group.add_argument("--tls-key", metavar="FILE", help="PEM private key (default: in the file of --tls-cert)")


def _add_access(group: Any) -> None:
    group.add_argument(
        "--room",
        action="append",
        default=[],
        type=room,
        metavar="NAME=PASSWORD",
        help="room with a password, or open room by NAME alone. May be repeated. Other rooms are closed then "
        "(default: all rooms are open)",
    )
    group.add_argument(
        "--rooms-file",
        metavar="FILE",
        help="file with one NAME=PASSWORD or NAME a line, so that no password is in the process list (default: none)",
    )
    group.add_argument(
        "--open-rooms",
        action="store_true",
        help="open the rooms that --room and --rooms-file do not name (default: closed, if any room is named)",
    )
    group.add_argument(
        "--only-known-rooms",
        action="store_true",
        help="close other rooms, as is the default if rooms are named. The option has no effect (default: not given)",
    )
    group.add_argument(
        "--secret-file",
        metavar="FILE",
        help=f"accept HS256 tokens signed with the content of this file, {limits.SECRET_SIZE} bytes or more without a "
        "newline at its end (default: no tokens)",
    )
    group.add_argument(
        "--require-token", action="store_true", help="refuse clients without a token (default: they are accepted)"
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
        help="origin whose pages may connect, such as https://example.com, or * for any. May be repeated "
        "(default: only the server's own origin)",
    )
    group.add_argument(
        "--allowed-host",
        action="append",
        type=allowed("hosts"),
        metavar="HOST",
        help="name that the Host header may have, or * for any. May be repeated (default: localhost if the server "
        "listens on the loopback only, else any)",
    )
    group.add_argument(
        "--trusted-proxy",
        action="append",
        type=trusted_proxy,
        metavar="ADDRESS",
        help="proxy whose headers tell the client's address: an address, a network, or unix. Headers are Forwarded, or "
        "X-Forwarded-For, -Proto and -Host. May be repeated (default: none)",
    )


def _add_limits(group: Any) -> None:
    group.add_argument(
        "--max-connections",
        type=whole(0),
        default=0,
        metavar="N",
        help="most members of all rooms (default %(default)s: only the limit of the server, "
        f"{limits.MAX_CONNECTIONS:,} connections)",
    )
    group.add_argument(
        "--max-room-connections",
        type=whole(0),
        default=0,
        metavar="N",
        help="most members of one room (default %(default)s: no limit)",
    )
    group.add_argument(
        "--max-connections-per-address",
        type=whole(0),
        default=limits.CONNECTIONS_PER_ADDRESS,
        metavar="N",
        help="most connections of one IPv4 address or IPv6 /64 network (default %(default)s, for addresses of the "
        "internet only; another number also limits private networks and this machine; 0: no limit)",
    )
    group.add_argument(
        "--accept-rate",
        type=rate,
        default=0.0,
        metavar="N",
        help="new connections a second, in bursts of two seconds (default %(default)g: no limit)",
    )
    group.add_argument(
        "--accept-rate-per-address",
        type=rate,
        default=limits.ACCEPT_RATE_PER_ADDRESS,
        metavar="N",
        help="the same for each address, in bursts of ten seconds (default %(default)g, for addresses of the internet "
        "only, as above; 0: no limit)",
    )
    group.add_argument(
        "--max-size",
        type=whole(1),
        default=limits.READ_LIMIT,
        metavar="BYTES",
        help="size of the largest accepted message (default %(default)s)",
    )
    group.add_argument(
        "--max-head",
        type=whole(limits.HEAD_SIZE_LEAST, limits.HEAD_SIZE_MOST),
        default=limits.HEAD_SIZE,
        metavar="BYTES",
        help="size of the largest request line with its headers. Cookies of a single sign-on may need more "
        "(default %(default)s)",
    )
    group.add_argument(
        "--compression",
        action="store_true",
        help="permessage-deflate for clients that offer it, such as browsers (default: none)",
    )
    group.add_argument(
        "--queue-size",
        type=whole(1),
        default=limits.QUEUE_SIZE,
        metavar="N",
        help="messages in the send queue of one member (default %(default)s)",
    )
    group.add_argument(
        "--send-behavior",
        choices=[behavior.value for behavior in SendBehavior],
        default=SendBehavior.BLOCK.value,
        help="effect of a full queue: wait for the member, drop the new message, close the member with 1013, or drop "
        "the oldest message (conflate does the same here) (default %(default)s)",
    )
    group.add_argument(
        "--send-timeout",
        type=seconds,
        default=limits.SEND_TIMEOUT,
        metavar="SECONDS",
        help="longest wait of --send-behavior block (default %(default)s)",
    )
    group.add_argument(
        "--unsent-bytes",
        type=whole(0),
        metavar="BYTES",
        help="bytes that the kernel may hold unsent for a member (default: "
        f"{limits.UNSENT_BYTES} with --send-behavior drop-oldest or conflate, else no limit; 0: no limit)",
    )
    group.add_argument(
        "--unanswered-bytes",
        type=whole(0),
        metavar="BYTES",
        help="bytes that may be sent beyond the last ping that a member answered (default: "
        f"{limits.UNANSWERED_BYTES} with --send-behavior conflate, else no limit; 0: no limit)",
    )
    group.add_argument(
        "--ping-interval",
        type=seconds,
        default=limits.PING_INTERVAL,
        metavar="SECONDS",
        help="time between two pings (default %(default)g; 0: no pings)",
    )
    group.add_argument(
        "--ping-timeout",
        type=seconds,
        default=limits.PING_TIMEOUT,
        metavar="SECONDS",
        help="time for a sign of life after a ping (default %(default)g; 0: no limit)",
    )


def _add_page(group: Any) -> None:
    group.add_argument(
        "--no-page", dest="page", action="store_false", help="serve no page at / (default: there is one)"
    )
    group.add_argument(
        "--rooms-table",
        choices=get_args(RoomsTable),
        help="clients that see the list of rooms and their members on the page. local: direct requests from this "
        "machine (default: local if --host is the loopback only, without --origin, --allowed-host and --trusted-proxy, "
        "else nobody)",
    )
    group.add_argument(
        "--metrics",
        action="store_true",
        help="serve metrics for Prometheus at /metrics, to direct requests from this machine (default: none)",
    )
    group.add_argument(
        "--metrics-token-file",
        metavar="FILE",
        help=f"serve the metrics only to requests with the bearer token in this file, {limits.ROUTE_TOKEN} characters "
        "or more, from any address. Needed behind a proxy (default: none)",
    )


def _add_broadcast(group: Any) -> None:
    group.add_argument(
        "--broadcast-secret-file",
        metavar="FILE",
        help="accept POST requests with the bearer token in this file at /_admin/broadcast?room=NAME, as messages. "
        f"{limits.SECRET_SIZE} characters or more, other than --secret-file (default: no broadcasts)",
    )


def _add_messages(group: Any) -> None:
    group.add_argument(
        "--text",
        choices=TEXT_POLICIES,
        default="any",
        help="accepted text messages. any: all UTF-8. line: not empty, without control characters. lines: newlines and "
        "tabs as well. Other messages close the member with 1008 (default %(default)s)",
    )
    group.add_argument(
        "--plain-room-names",
        action="store_true",
        help=f"accept only room names of 1 to {limits.ROOM_NAME} characters of A-Z a-z 0-9 . _ : -, which need no "
        "escapes in addresses and logs (default: any printable text)",
    )


def _add_running(group: Any) -> None:
    group.add_argument(
        "--history",
        type=whole(0, limits.COUNT_MOST),
        default=0,
        metavar="N",
        help=f"messages of each room to keep for {limits.HISTORY_AGE:g} s, for clients with ?since=start or "
        "?since=POSITION, such as the page (default %(default)s: none)",
    )
    group.add_argument(
        "--no-echo",
        dest="echo",
        action="store_false",
        help="do not send a member its own messages (default: it gets them)",
    )
    group.add_argument(
        "--loop",
        choices=["auto", "asyncio", "uvloop"],
        default="auto",
        help="event loop (default %(default)s: uvloop if it is installed)",
    )
    group.add_argument(
        "--shutdown-timeout",
        type=seconds,
        default=limits.SHUTDOWN_TIMEOUT,
        metavar="SECONDS",
        help="time for members to get queued messages and to close, after which they are cut (default %(default)g)",
    )
    group.add_argument(
        "--shutdown-spread",
        type=seconds,
        metavar="SECONDS",
        help="part of it over which the close frames are sent (default: 1 second for each "
        f"{limits.CLOSES_PER_SECOND} members, a fifth of it at most)",
    )
    group.add_argument(
        "--reconnect-in",
        type=seconds,
        default=limits.RECONNECT_IN,
        metavar="SECONDS",
        help="time within which members are told to reconnect, each at its own moment (default %(default)g; "
        "0: no hint)",
    )
    group.add_argument(
        "--log-level",
        choices=["debug", "info", "warning", "error"],
        default="warning",
        help="least severe level of log lines on stderr (default %(default)s)",
    )
    group.add_argument(
        "-v",
        "--verbose",
        dest="log_level",
        action="store_const",
        const="debug",
        default=argparse.SUPPRESS,
        help="same as --log-level debug: log connections that open, close or are refused (default: not)",
    )
