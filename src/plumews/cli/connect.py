"""The command `plumews connect`: a WebSocket client in the terminal and for scripts.

Messages of the peer go to stdout, everything else to stderr. On a terminal their control characters are escaped. In a
pipe they are untouched. The exit code tells how the connection ended.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import importlib.util
import json
import os
import select
import signal
import ssl
import sys
import threading
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any, Final

from .. import limits
from ..client.connector import connect, unix_connect
from ..client.handshake import bearer, check_headers
from ..client.options import split_options
from ..client.uri import parse_uri
from ..conn.config import ConnConfig
from ..conn.connection import Conn
from ..constants import CloseCode
from ..errors import ConnectError, ConnectionClosed, ConnectionClosedOK, InvalidHandshake, InvalidStatus, InvalidURI
from .inputs import Failure, checked_value, client_token_of_file, seconds, unix_path, whole
from .options import say

__all__ = ["EXIT_CODES", "add_connect_options", "check_connect_options", "run_connect"]

_REFUSED: Final = 3
_CLOSED: Final = 4
_LOST: Final = 5

#: Help of the exit codes.
EXIT_CODES: Final = (
    "Exit codes: 0 closed with 1000 or 1001, by either side; 1 cannot connect, or cannot read or write here; 2 wrong "
    f"command line; {_REFUSED} the server refused the handshake; {_CLOSED} closed with another code; {_LOST} lost "
    "without a close frame; 130 Ctrl-C before the connection was open, or a second one."
)

#: Environment variable of the token, which stands in no process list.
_TOKEN: Final = "PLUMEWS_TOKEN"  # noqa: S105 - its name

#: Seconds without an answer after the end of standard input.
_WAIT: Final = 1.0

#: Bytes of one read of standard input, and number of reads that may wait to be sent.
_READ_SIZE: Final = 65536
_READS: Final = 8

#: Bytes that a pipe takes without blocking, if it is writable. Windows cannot tell.
_ATOMIC: Final = getattr(select, "PIPE_BUF", 0)

#: Characters of the body of a refusal that are shown.
_BODY: Final = 1000


# --- command line ---------------------------------------------------------------------------------


def add_connect_options(parser: argparse.ArgumentParser) -> None:
    """Add the URI and the options of the client to ``parser``."""
    parser.add_argument("uri", metavar="URI", type=checked_value(parse_uri), help="ws:// or wss:// URI")
    add = parser.add_argument
    add(
        "--unix",
        metavar="PATH",
        type=unix_path,
        help="path of a Unix socket to use in place of the host of the URI. @NAME: an abstract one (default: none)",
    )
    add(
        "--header",
        dest="headers",
        metavar="NAME:VALUE",
        type=_header,
        action="append",
        default=[],
        help="header of the request. May be repeated (default: none)",
    )
    add(
        "--subprotocol",
        dest="subprotocols",
        metavar="NAME",
        type=checked_value(lambda name: split_options({"subprotocols": [name]})),
        action="append",
        default=[],
        help="subprotocol to offer. May be repeated, the preferred one first (default: none)",
    )
    add("--origin", help="value of Origin (default: no such header)")
    add(
        "--token",
        type=checked_value(bearer),
        help=f"bearer token. Other users of this machine see it in the process list, but not {_TOKEN} in the "
        "environment, or --token-file (default: that variable)",
    )
    add("--token-file", metavar="FILE", help="file with the bearer token (default: none)")
    add(
        "--insecure",
        action="store_true",
        help="do not check the certificate of a wss:// server: anybody on the way can read and change all (default: "
        "check)",
    )
    add(
        "--binary",
        action="store_true",
        help="send binary messages: each line on a terminal, all of standard input as one message in a pipe (default: "
        "each line is a text message)",
    )
    add("--json", action="store_true", help="indent text messages of the peer that are JSON (default: as they come)")
    add(
        "--ping",
        metavar="SECONDS",
        type=seconds,
        default=0,
        help="time between pings whose latency is shown (default %(default)s: none is shown)",
    )
    add(
        "--wait",
        metavar="SECONDS",
        type=seconds,
        default=_WAIT,
        help="time without a message of the server after which the end of standard input ends the connection, unless "
        "it is a terminal (default %(default)g)",
    )
    add(
        "--open-timeout",
        metavar="SECONDS",
        type=seconds,
        default=limits.OPEN_TIMEOUT,
        help="time to connect (default %(default)g; 0: no limit)",
    )
    add(
        "--max-size",
        metavar="BYTES",
        type=whole(1),
        default=ConnConfig.max_size,
        help="size of the largest accepted message (default %(default)s)",
    )


def _header(text: str) -> tuple[str, str]:
    """Parse ``NAME:VALUE``. Errors do not repeat the value, which may be a secret."""
    name, colon, value = text.partition(":")
    pair = name.strip(), value.strip()
    if not colon:
        raise argparse.ArgumentTypeError("must be NAME:VALUE")
    try:
        check_headers([pair])
    except ValueError as exc:
        raise argparse.ArgumentTypeError(str(exc)) from exc
    return pair


def check_connect_options(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """End the command for options that contradict each other."""
    if args.token is not None and args.token_file is not None:
        parser.error("give either --token or --token-file")
    if args.insecure and not parse_uri(args.uri).secure:
        parser.error("--insecure needs a URI that begins with wss://: ws:// has no certificate")
    try:
        split_options({name: getattr(args, name) for name in ("subprotocols", "origin")})
        check_headers(args.headers)
    except ValueError as exc:
        parser.error(str(exc))


# --- connecting -----------------------------------------------------------------------------------


def run_connect(args: argparse.Namespace) -> int:
    """Connect, talk until the end, and return the exit code. Raise :class:`Failure` if that fails."""
    client = _client(args)
    try:
        return asyncio.run(_run(args, client))  # a terminal needs no faster loop, and it starts sooner
    except InvalidStatus as exc:
        body = exc.response.body.decode("utf-8", "replace").strip()[:_BODY]
        say(_escaped(f"{exc}: {body}" if body else str(exc)), sys.stderr)
        return _REFUSED
    except InvalidHandshake as exc:
        say(_escaped(str(exc)), sys.stderr)
        return _REFUSED
    except (ConnectError, InvalidURI) as exc:  # the URL of a proxy in the environment is malformed
        raise Failure(_escaped(str(exc))) from exc


def _client(args: argparse.Namespace) -> connect:
    options: dict[str, Any] = {
        "additional_headers": args.headers,
        "subprotocols": args.subprotocols,
        "origin": args.origin,
        "token": _token(args),
        "open_timeout": args.open_timeout or None,
        "max_size": args.max_size,
    }
    if args.insecure:
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        context.set_alpn_protocols(["http/1.1"])
        options["ssl"] = context
        say(
            "--insecure: the certificate is not checked. Anybody on the way can pose as the server, and read and "
            "change all messages, headers and the token",
            sys.stderr,
        )
    return connect(args.uri, **options) if args.unix is None else unix_connect(args.unix, args.uri, **options)


def _token(args: argparse.Namespace) -> str | None:
    """Return the token of the command line, or that of the environment unless there are other credentials."""
    if args.token is not None:
        return str(args.token)
    if args.token_file is not None:
        return client_token_of_file(args.token_file)
    explicit = parse_uri(args.uri).authorization or any(name.lower() == "authorization" for name, _ in args.headers)
    token = None if explicit else os.environ.get(_TOKEN) or None
    if token is not None:
        try:
            bearer(token)
        except ValueError as exc:
            raise Failure(f"{_TOKEN}: {exc}") from exc
    return token


async def _run(args: argparse.Namespace, client: connect) -> int:
    conn = await client
    terminal = sys.stdin is not None and sys.stdin.isatty()
    if terminal:
        subprotocol = f", subprotocol {conn.subprotocol}" if conn.subprotocol else ""
        say(f"connected to {parse_uri(args.uri)}{subprotocol}; Ctrl-D closes", sys.stderr)
    editor = terminal and sys.stdout is not None and sys.stdout.isatty() and _has_editor()
    with contextlib.ExitStack() as stack:
        if editor:
            from prompt_toolkit.patch_stdout import patch_stdout  # type: ignore[import-not-found, unused-ignore]

            stack.enter_context(patch_stdout())
        receiver = _Receiver(conn, as_json=args.json)
        receiving = asyncio.create_task(receiver.run())
        sending = asyncio.create_task(_send(conn, receiver, args, terminal=terminal, editor=editor))
        pinging = asyncio.create_task(_ping(conn, args.ping))
        _close_on_signals(sending)
        await asyncio.wait((receiving, sending), return_when=asyncio.FIRST_COMPLETED)
        sending.cancel()
        await asyncio.wait((sending,))
        if not conn.closed:  # otherwise messages that are not read yet would be dropped
            await conn.close()
        end = await receiving
        await conn.wait_closed()  # the peer ends the TCP connection (RFC 6455 section 7.1.1)
        pinging.cancel()
    say(_escaped(str(end)), sys.stderr)
    if not sending.cancelled():
        sending.result()
    if isinstance(end, ConnectionClosedOK):
        return 0
    told = {close.code for close in (end.rcvd, end.sent) if close is not None}
    return _CLOSED if told - {CloseCode.NORMAL_CLOSURE} else _LOST


def _has_editor() -> bool:
    return os.environ.get("TERM") != "dumb" and importlib.util.find_spec("prompt_toolkit") is not None


def _close_on_signals(sending: asyncio.Task[None]) -> None:
    """Let Ctrl-C and SIGTERM end the input, which closes with 1000. The next one ends the process."""
    loop = asyncio.get_running_loop()

    def stop(number: int, frame: object) -> None:
        signal.signal(number, signal.SIG_DFL)
        loop.call_soon_threadsafe(sending.cancel)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)  # loop.add_signal_handler lacks Windows


async def _ping(conn: Conn, pause: float) -> None:
    """Show the latency every ``pause`` seconds."""
    with contextlib.suppress(ConnectionClosed):
        while pause:
            latency = await (await conn.ping())
            say(f"pong after {latency * 1000:.2f} ms", sys.stderr)
            await asyncio.sleep(pause)


# --- messages of the peer -------------------------------------------------------------------------


class _Receiver:
    """Messages of the peer on their way to standard output."""

    def __init__(self, conn: Conn, *, as_json: bool) -> None:
        self._conn = conn
        self._as_json = as_json
        self._arrived = asyncio.Event()
        self._writing = asyncio.Lock()

    async def run(self) -> ConnectionClosed:
        """Write messages until the end of the connection, and return its error."""
        terminal = sys.stdout is not None and sys.stdout.isatty()
        try:
            while True:
                message = await self._conn.recv()
                self._arrived.set()
                pretty = _pretty(message) if self._as_json and isinstance(message, str) else None
                if terminal:
                    say(_shown(message, pretty))
                elif sys.stdout is not None:
                    async with self._writing:
                        await _output(message if pretty is None else pretty)
        except ConnectionClosed as exc:
            return exc
        except OSError as exc:
            await self._conn.close()
            raise Failure(f"cannot write to standard output: {exc.strerror}") from exc

    async def silence(self, duration: float) -> None:
        """Wait until no message has arrived for ``duration`` seconds, and all are written."""
        while True:
            self._arrived.clear()
            try:
                await asyncio.wait_for(self._arrived.wait(), duration)
            except asyncio.TimeoutError:
                if not self._writing.locked():
                    return
                async with self._writing:
                    pass


async def _output(message: str | bytes) -> None:
    """Write to standard output, in a thread if that may block: pings must be answered while its reader is slow."""
    data = message if isinstance(message, bytes) else message.encode("utf-8", "backslashreplace") + b"\n"
    if len(data) <= _ATOMIC and select.select((), (sys.stdout,), (), 0)[1]:
        _write(data)
    else:
        await asyncio.to_thread(_write, data)


def _write(data: bytes) -> None:
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def _shown(message: str | bytes, pretty: str | None) -> str:
    """Return a message as a terminal shows it. ``pretty`` is its indented JSON, ``None`` if it is not JSON."""
    if isinstance(message, bytes):
        return f"< {message!r}"
    return "< " + (_escaped(message) if pretty is None else "\n".join(map(_escaped, pretty.split("\n"))))


def _escaped(text: str) -> str:
    """Return ``text`` with an escape for each character that controls a terminal or is invisible."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _pretty(text: str) -> str | None:
    """Return JSON with indentation, or ``None`` for other text and for JSON that would lose digits or keys."""
    try:
        return json.dumps(
            json.loads(text, parse_float=_exact_float, object_pairs_hook=_unique_keys),
            indent=2,
            ensure_ascii=False,
            allow_nan=False,
        )
    except (ValueError, ArithmeticError, RecursionError):
        return None


def _exact_float(digits: str) -> float:
    number = float(digits)
    if Decimal(repr(number)) != Decimal(digits):
        raise ValueError("the number has more digits than a float")
    return number


def _unique_keys(pairs: list[tuple[str, object]]) -> dict[str, object]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a key is repeated")
    return members


# --- messages of the user -------------------------------------------------------------------------


async def _send(conn: Conn, receiver: _Receiver, args: argparse.Namespace, *, terminal: bool, editor: bool) -> None:
    """Send standard input. Return at its end, in a pipe once the peer is silent."""
    if editor:
        messages = _edited_lines()
    else:
        chunks = _chunks()
        messages = _whole(chunks) if args.binary and not terminal else _lines(chunks)
    try:
        async for message in messages:
            await conn.send(message if args.binary else message.decode())
        await conn.drain()
    except ConnectionClosed:
        return  # the receiving task tells why
    except UnicodeDecodeError as exc:
        raise Failure("standard input is not UTF-8: --binary sends it all the same") from exc
    if not terminal:
        await receiver.silence(args.wait)


async def _edited_lines() -> AsyncIterator[bytes]:
    """Yield lines of an editor with a history."""
    from prompt_toolkit import PromptSession

    session: Any = PromptSession()
    with contextlib.suppress(EOFError, KeyboardInterrupt):
        while True:
            yield (await session.prompt_async("> ", handle_sigint=False)).encode("utf-8", "surrogateescape")


async def _whole(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Yield all chunks as one, unless there are none."""
    parts = [chunk async for chunk in chunks]
    if parts:
        yield b"".join(parts)


async def _lines(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Yield lines without their newlines."""
    parts: list[bytes] = []
    async for chunk in chunks:
        first, *others = chunk.split(b"\n")
        parts.append(first)
        for line in others:
            yield b"".join(parts)
            parts = [line]
    if any(parts):
        yield b"".join(parts)


async def _chunks() -> AsyncIterator[bytes]:
    """Yield standard input as it comes.

    A daemon thread reads it, because a terminal and a file cannot be polled alike, and a blocked read must not hold up
    the end. It reads the descriptor: a lock of ``sys.stdin`` would be an error at the end of the interpreter.
    """
    loop = asyncio.get_running_loop()
    chunks: asyncio.Queue[bytes | OSError] = asyncio.Queue()
    space = threading.Semaphore(_READS)

    def read() -> None:
        chunk: bytes | OSError = b"-"
        while chunk and not isinstance(chunk, OSError):
            space.acquire()
            try:
                chunk = os.read(0, _READ_SIZE)
            except OSError as exc:
                chunk = exc
            with contextlib.suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(chunks.put_nowait, chunk)

    threading.Thread(target=read, name="plumews-stdin", daemon=True).start()
    while chunk := await chunks.get():
        if isinstance(chunk, OSError):
            raise Failure(f"cannot read standard input: {chunk.strerror}")
        space.release()
        yield chunk
