"""Values that `plumews serve` reads from its command line and from files: numbers, rooms, secrets, certificate.

A wrong value ends the command with one line that says what is expected. The line never repeats a secret.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import os
import socket
import ssl
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, TypeVar

from .. import limits
from ..auth.simple import SimpleRoomAuth
from ..client.handshake import bearer
from ..constants import ErrorCode
from ..errors import Refused, WeakSecret
from ..http11.origin import allowed_hosts, allowed_origins
from ..http11.proxies import TrustedProxies
from ..hub.rooms import check_room_name, validate_room_name
from ..room_server.admin import check_broadcast_secret
from ..room_server.text_filter import TextPolicy
from ..server.routes import check_route_token
from ..server.sockets import check_unix

__all__ = [
    "Failure",
    "RoomEntry",
    "ServeAuth",
    "allowed_host",
    "broadcast_secret_of_file",
    "checked_value",
    "client_token_of_file",
    "make_auth",
    "origin",
    "permissions",
    "rate",
    "reason",
    "room",
    "room_entry",
    "seconds",
    "text_policy",
    "tls_context",
    "token_of_file",
    "trusted_proxy",
    "unix_path",
    "whole",
]

T = TypeVar("T")
N = TypeVar("N", int, float)

#: Name of a room and its password. An open room has None.
RoomEntry = tuple[str, "str | None"]


class Failure(Exception):
    """Failure that ends the command with exit code 1. Its text is the line that is printed."""


class ServeAuth(SimpleRoomAuth):
    """Room passwords and tokens of the command. True for ``only_known_rooms`` refuses rooms that are not named."""

    def __init__(self, secret: bytes | None, rooms: Mapping[str, str | None], *, only_known_rooms: bool) -> None:
        super().__init__(secret)
        self._only_known = only_known_rooms
        self._known = tuple(rooms)
        passwords = {room: password for room, password in rooms.items() if password is not None}
        self._protected = tuple(passwords)
        with ThreadPoolExecutor(os.cpu_count()) as pool:  # each password takes 0.1 s of one core
            list(pool.map(self.set_room_password, passwords.keys(), passwords.values()))

    def has_room_password(self, room: str) -> bool:
        """Return whether ``room`` has a password. Raise ``Refused`` for a room that must not exist."""
        if self._only_known and room not in self._known:
            raise Refused("forbidden: unknown room", code=ErrorCode.ROOM_FORBIDDEN)
        return super().has_room_password(room)

    def describe(self) -> str:
        """Return a line that names the protected rooms and the open ones."""
        line = f"rooms with a password: {', '.join(self._protected) or 'none'}"
        if not self._only_known:
            return f"{line}; every other room is open"
        opened = [room for room in self._known if room not in self._protected]
        return f"{line}; open rooms: {', '.join(opened) or 'none'}; there are no others"


def make_auth(
    rooms: Sequence[RoomEntry],
    rooms_file: str | None,
    secret_file: str | None,
    *,
    only_known_rooms: bool,
    plain_names: bool = False,
) -> ServeAuth:
    """Return the authorizer of the rooms on the command line and in the files."""
    rooms = [*rooms, *(() if rooms_file is None else _rooms_of_file(rooms_file))]
    if only_known_rooms and not rooms:
        raise Failure(
            f"--rooms-file {rooms_file} names no room, so that nobody could enter: --open-rooms opens all others"
        )
    names: set[str] = set()
    for name, _ in rooms:
        if name in names:
            raise Failure(f"room {name} is given twice: give each room once, with one password")
        names.add(name)
        if plain_names:
            _check_plain(name)
    secret = None if secret_file is None else _secret_of_file(secret_file)
    return ServeAuth(secret, dict(rooms), only_known_rooms=only_known_rooms)


def _check_plain(name: str) -> None:
    try:
        validate_room_name(name)
    except ValueError as exc:
        raise Failure(f"room {name} cannot be entered with --plain-room-names: {exc}") from exc


def room_entry(text: str) -> RoomEntry:
    """Parse ``NAME=PASSWORD``, or ``NAME`` for an open room. The first ``=`` ends the name.

    Raises:
        ValueError: the name or the password is invalid. The text does not repeat the password.
    """
    name, equals, password = text.partition("=")
    try:
        check_room_name(name)
    except ValueError as exc:
        raise ValueError(f"{exc}; expected NAME=PASSWORD or NAME") from exc
    if not equals:
        return name, None
    try:
        size = len(password.encode())
    except UnicodeEncodeError:
        size = 0
    if not 1 <= size <= limits.PASSWORD_SIZE:
        raise ValueError(
            f"the password of room {name} must be text of 1 to {limits.PASSWORD_SIZE} bytes of UTF-8; "
            f"for an open room give {name} alone"
        )
    return name, password


def text_policy(name: str, max_size: int) -> TextPolicy | None:
    """Return the policy that ``--text`` names, with ``max_size`` as its length."""
    if name == "any":
        return None
    lines = name == "lines"
    return TextPolicy(max_length=max_size, allow_newlines=lines, allow_tabs=lines)


def tls_context(cert: str | None, key: str | None) -> ssl.SSLContext | None:
    """Return the TLS context of a certificate chain and its key, in one file or in two."""
    if cert is None:
        return None
    _read(cert, "--tls-cert")  # the error of load_cert_chain does not name the file
    if key is not None:
        _read(key, "--tls-key")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(cert, key)
    except ssl.SSLError as exc:
        files = f"--tls-cert {cert}" if key is None else f"--tls-cert {cert} and --tls-key {key}"
        detail = (exc.reason or "not PEM").replace("_", " ").lower()
        raise Failure(f"{files} must hold a PEM certificate chain and its private key: {detail}") from exc
    return context


def token_of_file(path: str) -> str:
    """Read the token in the file of ``--metrics-token-file``, without a newline at its end."""
    try:
        return check_route_token(_read(path, "--metrics-token-file").decode("latin-1").rstrip("\r\n"))
    except ValueError as exc:
        raise Failure(f"--metrics-token-file {path}: {exc}") from exc


def client_token_of_file(path: str) -> str:
    """Read the bearer token in the file of ``--token-file``, without a newline at its end."""
    token = _read(path, "--token-file").decode("latin-1").rstrip("\r\n")
    try:
        bearer(token)
    except ValueError as exc:
        raise Failure(f"--token-file {path}: {exc}") from exc
    return token


def broadcast_secret_of_file(path: str, auth: ServeAuth) -> bytes:
    """Read the secret in the file of ``--broadcast-secret-file``. It must differ from the secret of the tokens."""
    try:
        secret = check_broadcast_secret(_read(path, "--broadcast-secret-file").rstrip(b"\r\n"))
    except ValueError as exc:
        raise Failure(f"--broadcast-secret-file {path}: {exc}") from exc
    if auth.signs_with(secret):
        raise Failure(f"--broadcast-secret-file {path}: it must not hold the secret of --secret-file")
    return secret


def reason(exc: Exception) -> str:
    """Return the message of the operating system, without the words that the event loop adds."""
    if isinstance(exc, OSError) and not isinstance(exc, socket.gaierror) and exc.errno:
        return os.strerror(exc.errno).lower()
    return str(getattr(exc, "strerror", None) or exc).lower()


def _rooms_of_file(path: str) -> Iterator[RoomEntry]:
    lines = None
    with contextlib.suppress(UnicodeDecodeError):  # it holds the passwords, so no other exception may refer to it
        lines = _read(path, "--rooms-file").decode("utf-8-sig").split("\n")
    if lines is None:
        raise Failure(f"--rooms-file {path} must be UTF-8 text, with NAME=PASSWORD on each line")
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                yield room_entry(line.removesuffix("\r"))
            except ValueError as exc:
                raise Failure(f"--rooms-file {path}, line {number}: {exc}") from exc


def _secret_of_file(path: str) -> bytes:
    secret = _read(path, "--secret-file").removesuffix(b"\n").removesuffix(b"\r")
    try:
        SimpleRoomAuth(secret)
    except WeakSecret as exc:
        raise Failure(f"--secret-file {path}: {exc}") from exc
    return secret


def _read(path: str, option: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as exc:
        raise Failure(f"{option} {path} cannot be read: {reason(exc)}") from exc


# --- readers of option values ---------------------------------------------------------------------


def _reader(read: Callable[[str], T]) -> Callable[[str], T]:
    """Return a reader of option values that calls ``read``. argparse shows the text of its errors."""

    def convert(text: str) -> T:
        try:
            return read(text)
        except ValueError as exc:
            raise argparse.ArgumentTypeError(str(exc)) from exc

    return convert


def checked_value(check: Callable[[str], object]) -> Callable[[str], str]:
    """Return a reader of texts that ``check`` accepts."""

    def read(text: str) -> str:
        check(text)
        return text

    return _reader(read)


def _checked(check: Callable[[list[str]], object]) -> Callable[[str], str]:
    """Return a reader of one entry of a list that ``check`` accepts."""
    return checked_value(lambda text: check([text]))


def _number(convert: Callable[[str], N], is_valid: Callable[[N], bool], wanted: str) -> Callable[[str], N]:
    """Return a reader of numbers that are valid."""

    def read(text: str) -> N:
        with contextlib.suppress(ValueError):
            number = convert(text)
            if is_valid(number):
                return number
        raise argparse.ArgumentTypeError(f"must be {wanted}, not {text!r}")

    return read


def whole(least: int, most: int | None = None) -> Callable[[str], int]:
    """Return the reader of a whole number within bounds."""
    wanted = f"at least {least}" if most is None else f"from {least} to {most}"
    return _number(int, lambda n: least <= n and (most is None or n <= most), f"a whole number, {wanted}")


seconds: Final = _number(float, lambda n: math.isfinite(n) and n >= 0, "a number of seconds, 0 or more")
rate: Final = _number(
    float,
    lambda n: n == 0 or limits.ACCEPT_RATE_LEAST <= n <= limits.ACCEPT_RATE_MOST,
    f"0, or {limits.ACCEPT_RATE_LEAST:g} to {limits.ACCEPT_RATE_MOST:,} a second",
)
#: Permissions as chmod(1) takes them.
permissions: Final = _number(lambda text: int(text, 8), lambda n: 0 <= n <= 0o777, "permissions in octal, such as 660")
room: Final = _reader(room_entry)
origin: Final = _checked(allowed_origins)
allowed_host: Final = _checked(allowed_hosts)
#: Address or network of proxies.
trusted_proxy: Final = _checked(TrustedProxies)
#: Path of a Unix socket. ``@NAME`` is an abstract one.
unix_path: Final = _reader(lambda text: check_unix(f"\0{text[1:]}" if text.startswith("@") else text, None))
