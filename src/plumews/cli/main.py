"""Entry point of the command `plumews`: its version, the room server `plumews serve`, the client `plumews connect`.

An error is one line on stderr. The exit code is 2 for a wrong command line, and 1 for a wrong file or an error of the
operating system.
"""

from __future__ import annotations

import importlib.metadata
import logging
import platform
import signal
import sys
from collections.abc import Sequence
from typing import Final

from .. import BODY, __version__
from .connect import EXIT_CODES, add_connect_options, check_connect_options, run_connect
from .inputs import Failure
from .options import (
    Parser,
    add_serve_options,
    check_serve_options,
    has_uvloop,
    hold_descriptors,
    say,
    settle_output,
)
from .serve import run_serve

__all__ = ["main"]

_LOG_FORMAT: Final = "%(asctime)s %(levelname)s %(name)s: %(message)s"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command with ``argv`` (default: ``sys.argv[1:]``) and return its exit code."""
    hold_descriptors()
    try:
        return _main(argv)
    finally:
        settle_output()


def _main(argv: Sequence[str] | None) -> int:
    parser = Parser(prog="plumews", description="WebSockets with rooms.", allow_abbrev=False)
    parser.add_argument(
        "--version", action="store_true", help="print the versions of plumews, Python and the event loop"
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    serve = commands.add_parser(
        "serve",
        help="serve rooms, with a page for the browser",
        description="Serve rooms: each message of a member is sent to all members of its room. The page is at /, the "
        "WebSocket at /ws?room=NAME, the number of members at /members?room=NAME, a health check at /healthz and, with "
        "--metrics, metrics for Prometheus at /metrics.",
        epilog="Exit codes: 0 after Ctrl-C or SIGTERM, 1 if serving fails, 2 if the command line is wrong.",
        allow_abbrev=False,
    )
    add_serve_options(serve)
    client = commands.add_parser(
        "connect",
        help="connect to a WebSocket server",
        description="Send each line of standard input as a message, and show the messages of the server. Ctrl-D and "
        "Ctrl-C close the connection with 1000. On a terminal pip install 'plumews[cli]' adds editing and a history.",
        epilog=EXIT_CODES,
        allow_abbrev=False,
    )
    add_connect_options(client)
    args, unknown = parser.parse_known_args(argv)
    if unknown:
        chosen = {"serve": serve, "connect": client}.get(args.command, parser)
        chosen.error(f"unrecognized arguments: {' '.join(unknown)}")
    if args.version:
        say(_version())
        return 0
    if args.command is None:
        parser.error("a command is missing: plumews serve or plumews connect")
    try:
        if args.command == "connect":
            check_connect_options(client, args)
            logging.basicConfig(level="WARNING", format=_LOG_FORMAT)
            return run_connect(args)
        check_serve_options(serve, args)
        logging.basicConfig(level=args.log_level.upper(), format=_LOG_FORMAT)
        return run_serve(args)
    except Failure as exc:
        say(f"plumews {args.command}: {exc}", sys.stderr)
        return 1
    except KeyboardInterrupt:  # before the server handles signals
        return 128 + signal.SIGINT


def _version() -> str:
    loop = f"uvloop {importlib.metadata.version('uvloop')}" if has_uvloop() else "asyncio, uvloop is not installed"
    python = f"{platform.python_implementation()} {platform.python_version()}"
    return f"plumews {__version__} (codec {BODY}, loop {loop}, {python})"
