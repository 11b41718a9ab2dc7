"""Options of `plumews serve`, and the checks of options that exclude or need each other.

The help of each option has its default. A wrong command line ends the command with exit code 2 and one line, before any
socket is opened. The line never repeats a password.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import importlib.util
import os
import sys
from collections.abc import Callable
from typing import Any, Final, NoReturn, TextIO, get_args

from .. import limits
from ..conn.config import ConnConfig
from ..constants import SendBehavior
from ..http11.origin import is_loopback
from ..hub.config import HubConfig
from ..room_server.status import RoomsTable
from ..server.options import ServerOptions
from ..server.sockets import activated_descriptors
from .inputs import Failure, allowed_host, origin, permissions, rate, room, seconds, trusted_proxy, unix_path, whole

__all__ = [
    "Parser",
    "add_serve_options",
    "check_serve_options",
    "has_uvloop",
    "hold_descriptors",
    "say",
    "settle_output",
]

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
    for title, options in _OPTIONS.items():
        group = parser.add_argument_group(title)
        for usage, text in options.items():
            flag, *value = usage.split()
            name = _NAMES.get(flag) or flag[2:].replace("-", "_")
            arguments: dict[str, Any] = {"action": "store_false" if flag.startswith("--no-") else "store_true"}
            if value:
                reader = _READERS.get(flag) or _READERS.get(value[0], str)
                arguments = {"metavar": value[0], "type": reader, "default": _DEFAULTS.get(name)}
                arguments["action"] = "append" if value[-1] == "..." else "store"
            elif flag in _CHOICES:
                arguments = {"choices": _CHOICES[flag], "default": _DEFAULTS.get(name)}
            group.add_argument(flag, dest=name, help=text, **arguments)
    group.add_argument(
        "-v",
        "--verbose",
        dest="log_level",
        action="store_const",
        const="debug",
        default=argparse.SUPPRESS,
        help="same as --log-level debug: log connections that open, close or are refused (default: not)",
    )


def check_serve_options(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """End the command for options that contradict each other, and set the defaults of the address."""
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
        proxied = args.origins or args.allowed_hosts or args.trusted_proxies
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


# --- table of options -----------------------------------------------------------------------------

#: Options by group: the flag, the name of its value and "..." if it may be repeated, and the help. An option without
#: the name of a value is one of :data:`_CHOICES` or a switch.
_OPTIONS: Final = {
    "listening": {
        "--host HOST": f"address or name (default {_HOST}; 0.0.0.0 is all)",
        "--port PORT": f"TCP port (default {_PORT}; 0 takes a free one)",
        "--unix PATH": "Unix socket instead of host and port. @NAME is an abstract one (Linux) (default: none)",
        "--unix-mode MODE": "permissions of the socket file in octal, such as 660 (default: decided by the umask)",
        "--fd N ...": "descriptor of a listening TCP or Unix socket that the parent process has opened. May be "
        "repeated (default: the sockets of systemd, LISTEN_FDS)",
        "--tls-cert FILE": "PEM certificate chain for https and wss (default: no TLS)",
        "--tls-key FILE": "PEM private key (default: in the file of --tls-cert)",
    },
    "access": {
        "--room NAME=PASSWORD ...": "room with a password, or open room by NAME alone. May be repeated. Other rooms "
        "are closed then (default: all rooms are open)",
        "--rooms-file FILE": "file with one NAME=PASSWORD or NAME a line, so that no password is in the process list "
        "(default: none)",
        "--open-rooms": "open the rooms that --room and --rooms-file do not name (default: closed, if any room is "
        "named)",
        "--only-known-rooms": "close other rooms, as is the default if rooms are named. The option has no effect "
        "(default: not given)",
        "--secret-file FILE": f"accept HS256 tokens signed with the content of this file, {limits.SECRET_SIZE} bytes "
        "or more without a newline at its end (default: no tokens)",
        "--require-token": "refuse clients without a token (default: they are accepted)",
        "--no-query-secrets": "refuse ?token= and ?room_password=, which end up in logs (default: they are accepted)",
        "--origin ORIGIN ...": "origin whose pages may connect, such as https://example.com, or * for any. May be "
        "repeated (default: only the server's own origin)",
        "--allowed-host HOST ...": "name that the Host header may have, or * for any. May be repeated (default: "
        "localhost if the server listens on the loopback only, else any)",
        "--trusted-proxy ADDRESS ...": "proxy whose headers tell the client's address: an address, a network, or "
        "unix. Headers are Forwarded, or X-Forwarded-For, -Proto and -Host. May be repeated (default: none)",
    },
    "broadcasts": {
        "--broadcast-secret-file FILE": "accept POST requests with the bearer token in this file at "
        f"/_admin/broadcast?room=NAME, as messages. {limits.SECRET_SIZE} characters or more, other than --secret-file "
        "(default: no broadcasts)",
    },
    "messages and room names": {
        "--text": "accepted text messages. any: all UTF-8. line: not empty, without control characters. lines: "
        "newlines and tabs as well. Other messages close the member with 1008 (default %(default)s)",
        "--plain-room-names": f"accept only room names of 1 to {limits.ROOM_NAME} characters of A-Z a-z 0-9 . _ : -, "
        "which need no escapes in addresses and logs (default: any printable text)",
    },
    "limits": {
        "--max-connections N": "most members of all rooms (default %(default)s: only the limit of the server, "
        f"{limits.MAX_CONNECTIONS:,} connections)",
        "--max-room-connections N": "most members of one room (default %(default)s: no limit)",
        "--max-connections-per-address N": "most connections of one IPv4 address or IPv6 /64 network (default "
        "%(default)s, for addresses of the internet only; another number also limits private networks and this "
        "machine; 0: no limit)",
        "--accept-rate N": "new connections a second, in bursts of two seconds (default %(default)g: no limit)",
        "--accept-rate-per-address N": "the same for each address, in bursts of ten seconds (default %(default)g, for "
        "addresses of the internet only, as above; 0: no limit)",
        "--max-size BYTES": "size of the largest accepted message (default %(default)s)",
        "--max-head BYTES": "size of the largest request line with its headers. Cookies of a single sign-on may need "
        "more (default %(default)s)",
        "--compression": "permessage-deflate for clients that offer it, such as browsers (default: none)",
        "--queue-size N": "messages in the send queue of one member (default %(default)s)",
        "--send-behavior": "effect of a full queue: wait for the member, drop the new message, close the member with "
        "1013, or drop the oldest message (conflate does the same here) (default %(default)s)",
        "--send-timeout SECONDS": "longest wait of --send-behavior block (default %(default)s)",
        "--unsent-bytes BYTES": f"bytes that the kernel may hold unsent for a member (default: {limits.UNSENT_BYTES} "
        "with --send-behavior drop-oldest or conflate, else no limit; 0: no limit)",
        "--unanswered-bytes BYTES": "bytes that may be sent beyond the last ping that a member answered (default: "
        f"{limits.UNANSWERED_BYTES} with --send-behavior conflate, else no limit; 0: no limit)",
        "--ping-interval SECONDS": "time between two pings (default %(default)g; 0: no pings)",
        "--ping-timeout SECONDS": "time for a sign of life after a ping (default %(default)g; 0: no limit)",
    },
    "page and metrics": {
        "--no-page": "serve no page at / (default: there is one)",
        "--rooms-table": "clients that see the list of rooms and their members on the page. local: direct requests "
        "from this machine (default: local if --host is the loopback only, without --origin, --allowed-host and "
        "--trusted-proxy, else nobody)",
        "--metrics": "serve metrics for Prometheus at /metrics, to direct requests from this machine (default: none)",
        "--metrics-token-file FILE": "serve the metrics only to requests with the bearer token in this file, "
        f"{limits.ROUTE_TOKEN} characters or more, from any address. Needed behind a proxy (default: none)",
    },
    "operation": {
        "--history N": f"messages of each room to keep for {limits.HISTORY_AGE:g} s, for clients with ?since=start or "
        "?since=POSITION, such as the page (default %(default)s: none)",
        "--no-echo": "do not send a member its own messages (default: it gets them)",
        "--loop": "event loop (default %(default)s: uvloop if it is installed)",
        "--shutdown-timeout SECONDS": "time for members to get queued messages and to close, after which they are cut "
        "(default %(default)g)",
        "--shutdown-spread SECONDS": "part of it over which the close frames are sent (default: 1 second for each "
        f"{limits.CLOSES_PER_SECOND} members, a fifth of it at most)",
        "--reconnect-in SECONDS": "time within which members are told to reconnect, each at its own moment (default "
        "%(default)g; 0: no hint)",
        "--log-level": "least severe level of log lines on stderr (default %(default)s)",
    },
}

#: Names of options in the parsed arguments: those of :func:`plumews.serve_rooms` where they differ from the flag.
_NAMES: Final = {
    "--allowed-host": "allowed_hosts",
    "--no-echo": "echo",
    "--no-page": "page",
    "--no-query-secrets": "allow_query_secrets",
    "--origin": "origins",
    "--trusted-proxy": "trusted_proxies",
}

#: Readers of values by flag, or by the name of the value. Other values are text.
_READERS: Final[dict[str, Callable[[str], object]]] = {
    "N": whole(0),
    "BYTES": whole(0),
    "SECONDS": seconds,
    "--accept-rate": rate,
    "--accept-rate-per-address": rate,
    "--allowed-host": allowed_host,
    "--history": whole(0, limits.COUNT_MOST),
    "--max-head": whole(limits.HEAD_SIZE_LEAST, limits.HEAD_SIZE_MOST),
    "--max-size": whole(1),
    "--origin": origin,
    "--port": whole(0, 65535),
    "--queue-size": whole(1),
    "--room": room,
    "--trusted-proxy": trusted_proxy,
    "--unix": unix_path,
    "--unix-mode": permissions,
}

_CHOICES: Final = {
    "--log-level": ("debug", "info", "warning", "error"),
    "--loop": ("auto", "asyncio", "uvloop"),
    "--rooms-table": get_args(RoomsTable),
    "--send-behavior": [behavior.value for behavior in SendBehavior],
    "--text": ("any", "line", "lines"),
}

#: Defaults by name: those of the library, and those of the command.
_DEFAULTS: Final[dict[str, object]] = {
    **{
        field.name: field.default
        for owner in (ServerOptions, ConnConfig, HubConfig)
        for field in dataclasses.fields(owner)
    },
    "history": 0,
    "log_level": "warning",
    "loop": "auto",
    "reconnect_in": limits.RECONNECT_IN,
    "send_behavior": ConnConfig.send_behavior.value,
    "shutdown_timeout": limits.SHUTDOWN_TIMEOUT,
    "text": "any",
    "unanswered_bytes": None,
    "unsent_bytes": None,
}
